package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/verify"
)

// hanging is one signature or attestation on an image, and whether it counts.
type hanging struct {
	// Subject is the image's digest, or its index's; Digest the payload's.
	Subject string `json:"subject"`
	Digest  string `json:"digest"`
	Format  string `json:"format"`
	// PredicateType is what an attestation says it is.
	PredicateType string `json:"predicate_type,omitempty"`
	Size          int64  `json:"size"`
	// Signers vouch for it by this host's trust policies, each of them alone;
	// Refused is the rule it came to grief at if there are none.
	Signers []verify.Signer `json:"signers"`
	Refused string          `json:"refused,omitempty"`
	Omitted string          `json:"omitted,omitempty"`
}

// tree is what hangs on an image.
type tree struct {
	Reference    string            `json:"reference"`
	Digest       string            `json:"digest"`
	Index        string            `json:"index,omitempty"`
	Remote       bool              `json:"remote"`
	Signatures   []hanging         `json:"signatures"`
	Attestations []hanging         `json:"attestations"`
	Referrers    []images.Referrer `json:"referrers"`
	More         bool              `json:"more_referrers,omitempty"`
}

func newTree(a *app) *cobra.Command {
	var format string
	var remote bool
	cmd := &cobra.Command{
		Use: "tree [--remote] IMAGE", Short: "Show what hangs on an image: signatures, attestations, SBOMs", Args: exactly(1, "an IMAGE"),
		Annotations: map[string]string{"exit": gateVerb},
		Long: "Lists what is kept beside an image, or with --remote what its registry has, and who vouches for each\n" +
			"by this host's trust policies. It is a list and no verdict: exit 0 says only that it could be made.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return usage("--format %.32q is not there: use text or json", format)
			}
			t, err := a.tree(cmd.Context(), args[0], remote)
			if err != nil {
				return err
			}
			if format == "json" {
				return indented(cmd.OutOrStdout(), t)
			}
			t.print(cmd.OutOrStdout())
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	cmd.Flags().BoolVar(&remote, "remote", false, "ask the registry; nothing is kept of the answer")
	return cmd
}

// tree gathers what hangs on an image.
func (a *app) tree(ctx context.Context, ref string, remote bool) (t tree, err error) {
	var store *images.Store
	var img images.Image
	if remote {
		// What the registry has goes into a store that ends with the command.
		dir, err := os.MkdirTemp("", "ward-tree-")
		if err != nil {
			return t, err
		}
		defer os.RemoveAll(dir)
		l, err := a.layout()
		if err != nil {
			return t, err
		}
		if store, err = images.Open(images.Config{Dir: dir + "/images", CertsDir: l.Etc + "/certs.d"}); err != nil {
			return t, err
		}
		if img, err = store.Examine(ctx, ref, ""); err != nil {
			return t, err
		}
	} else {
		if store, err = a.store(ctx); err != nil {
			return t, err
		}
		if img, err = store.Resolve(ctx, ref); err != nil {
			return t, err
		}
	}
	t = tree{Reference: img.Reference, Digest: img.Digest, Index: img.Index, Remote: remote,
		Signatures: []hanging{}, Attestations: []hanging{}, Referrers: []images.Referrer{}}
	v, err := a.verifier()
	if err != nil {
		return t, err
	}
	subject := verify.Subject{Reference: img.Reference, Digests: []string{img.Digest}}
	if img.Index != "" {
		subject.Digests = append(subject.Digests, img.Index)
	}
	for _, d := range subject.Digests {
		if err := t.gather(ctx, store, v, subject, d); err != nil {
			return t, err
		}
	}
	if !remote {
		return t, nil
	}
	for _, d := range subject.Digests {
		list, more, err := store.Referrers(ctx, img.Reference, d)
		if err != nil {
			return t, err
		}
		t.Referrers, t.More = append(t.Referrers, list...), t.More || more
	}
	return t, nil
}

// gather lists what is kept about d. Each is judged by itself: what several
// prove together is for ward verify.
func (t *tree) gather(ctx context.Context, store *images.Store, v *verify.Verifier, s verify.Subject, d string) error {
	signatures, err := store.Attachments(ctx, d)
	if err != nil {
		return err
	}
	for _, m := range signatures {
		h := newHanging(verify.Material(m))
		ev, err := v.Verify(ctx, s, []verify.Material{verify.Material(m)})
		h.judged(ev.Signers(), err)
		t.Signatures = append(t.Signatures, h)
	}
	stated, err := store.Attestations(ctx, d)
	if err != nil {
		return err
	}
	for _, m := range stated {
		h := hanging{Subject: m.Subject, Digest: m.Digest, PredicateType: m.PredicateType, Size: m.Size, Signers: []verify.Signer{}, Omitted: m.Omitted}
		if m.Omitted == "" {
			h = newHanging(verify.Material(m.Attachment))
			h.PredicateType = m.PredicateType
			list, err := v.VerifyAttestations(ctx, s, []verify.Material{verify.Material(m.Attachment)}, "")
			var by []verify.Signer
			if len(list) == 1 {
				by = list[0].Signers
			}
			h.judged(by, err)
		}
		t.Attestations = append(t.Attestations, h)
	}
	return ctx.Err()
}

func newHanging(m verify.Material) hanging {
	sum := sha256.Sum256(m.Payload)
	return hanging{Subject: m.Subject, Digest: "sha256:" + hex.EncodeToString(sum[:]), Format: m.Kind, Size: int64(len(m.Payload)), Signers: []verify.Signer{}}
}

// judged keeps who vouches for it, or why nobody does.
func (h *hanging) judged(by []verify.Signer, err error) {
	if err == nil && len(by) > 0 {
		h.Signers = by
		return
	}
	h.Refused = "unknown"
	if err != nil && fault.As(err).Rule != "" {
		h.Refused = fault.As(err).Rule
	}
}

// print is the tree as cosign prints it, with who vouches for each.
func (t *tree) print(w io.Writer) {
	fmt.Fprintf(w, "📦 Supply Chain Security Related artifacts for an image: %s\n", plainLine(t.Reference))
	if len(t.Signatures)+len(t.Attestations)+len(t.Referrers) == 0 {
		fmt.Fprintf(w, "No Supply Chain Security Related Artifacts found for image %s,\n start creating one with simply running ward sign %s\n", plainLine(t.Reference), plainLine(t.Reference))
		return
	}
	repository := t.Reference
	if i := strings.LastIndexAny(repository, ":@"); i > strings.LastIndex(repository, "/") {
		repository, _, _ = strings.Cut(repository[:i+1], "@")
		repository = strings.TrimSuffix(repository, ":")
	}
	for _, subject := range []string{t.Digest, t.Index} {
		if subject == "" {
			continue
		}
		at := repository + ":" + strings.Replace(subject, ":", "-", 1)
		branch(w, "💾 Attestations for an image tag: "+at+".att", t.Attestations, subject, verify.KindEnvelope)
		branch(w, "💾 Attestations in bundles, via OCI referrer: "+repository+"@"+subject, t.Attestations, subject, verify.KindBundle)
		branch(w, "💾 Attestations that are not kept", t.Attestations, subject, "")
		branch(w, "🔐 Signatures for an image tag: "+at+".sig", t.Signatures, subject, verify.KindCosign)
		branch(w, "🔐 Signatures in bundles, via OCI referrer: "+repository+"@"+subject, t.Signatures, subject, verify.KindBundle)
	}
	for _, r := range t.Referrers {
		what := "🔗 " + r.Type + " artifacts via OCI referrer: " + repository + "@" + r.Subject
		if r.Tag != "" {
			what = "📦 SBOMs for an image tag: " + repository + ":" + r.Tag
		}
		fmt.Fprintf(w, "└── %s\n   └── 🍒 %s (%s, %d bytes)\n", plainLine(what), plainLine(r.Digest), plainLine(r.Type), r.Size)
	}
	if t.More {
		fmt.Fprintln(w, "└── … and more")
	}
}

// branch prints those of list that hang on subject in one form.
func branch(w io.Writer, title string, list []hanging, subject, format string) {
	var own []hanging
	for _, h := range list {
		if h.Subject == subject && h.Format == format {
			own = append(own, h)
		}
	}
	for i, h := range own {
		if i == 0 {
			fmt.Fprintf(w, "└── %s\n", plainLine(title))
		}
		sym := "├──"
		if i == len(own)-1 {
			sym = "└──"
		}
		fmt.Fprintf(w, "   %s 🍒 %s\n", sym, plainLine(h.String()))
	}
}

// String is a line about one: digest, type, and who vouches for it.
func (h hanging) String() string {
	parts := []string{h.Digest}
	if h.PredicateType != "" {
		parts = append(parts, h.PredicateType)
	}
	switch {
	case h.Omitted != "":
		parts = append(parts, "not kept: "+h.Omitted)
	case len(h.Signers) == 0:
		parts = append(parts, "nobody trusted ("+h.Refused+")")
	}
	for _, s := range h.Signers {
		parts = append(parts, "by "+signedBy(s))
	}
	return strings.Join(parts, "  ")
}

// plainLine is one line, whatever a stranger wrote.
func plainLine(s string) string { return strings.Map(oneLine, printable(s)) }
