package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/ci/vsa"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/verify"
)

// vsaFlags are those of ward gate about verification summaries.
type vsaFlags struct {
	path, key, format, verifier string
	upload                      bool
}

func (v *vsaFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&v.path, "vsa", "", "write a signed SLSA verification summary of each admitted image to `PATH`: a directory, or a file with one a line")
	fs.StringVar(&v.key, "vsa-key", "", "private key that signs them: a `file`, env://VARIABLE, or NAME://KEY for a key plugin")
	fs.StringVar(&v.format, "vsa-format", verify.KindEnvelope, "envelope (DSSE, an .att tag) or bundle (a sigstore bundle as referrer)")
	fs.StringVar(&v.verifier, "vsa-verifier", vsa.DefaultVerifier, "`URI` that says who verified")
	fs.BoolVar(&v.upload, "vsa-upload", false, "keep them beside the images, and push them to their registries")
}

func (v *vsaFlags) wanted() bool { return v.path != "" || v.upload }

func (v *vsaFlags) check(f gateFlags) error {
	switch {
	case !v.wanted() && v.key != "":
		return usage("--vsa-key goes with --vsa or --vsa-upload")
	case v.wanted() && v.key == "":
		return usage("a verification summary is signed: give --vsa-key")
	case v.format != verify.KindEnvelope && v.format != verify.KindBundle:
		return usage("--vsa-format %.32q is not there: use envelope or bundle", v.format)
	case v.upload && f.offline:
		return usage("--vsa-upload and --offline contradict each other")
	}
	return nil
}

// signedSummary is what was signed about one image.
type signedSummary struct {
	verify.Material
	reference string
}

// summarize signs a summary of each image that was admitted, and of no other,
// puts that on record, and then writes and sends them.
func (a *app) summarize(cmd *cobra.Command, v vsaFlags, answers []answer, log *audit.Log) error {
	var all []signedSummary
	var key *verify.Signatory
	done := map[string]bool{}
	for _, an := range answers {
		img := an.verdict.Image
		if an.verdict.Outcome != engine.Allow || done[img.Reference+img.Digest] {
			continue
		}
		done[img.Reference+img.Digest] = true
		var err error
		if len(all) == 0 { // asked for once, and only if there is something to sign
			if key, err = v.signatory(cmd); err != nil {
				return err
			}
		}
		s, err := v.sign(cmd, an.verdict, key)
		if err != nil {
			return err
		}
		all = append(all, s)
		sum := sha256.Sum256(s.Payload)
		err = record(cmd.Context(), log, audit.Record{Type: audit.GateSummary, Actor: audit.Caller(), Data: audit.Summary{
			Image: audit.Image{Reference: img.Reference, Digest: img.Digest}, Verifier: v.verifier, Format: v.format,
			KeyID: key.By().KeyID, Revision: an.verdict.Decision.Revision(), Input: an.verdict.Decision.InputDigest(),
			Payload: "sha256:" + hex.EncodeToString(sum[:]), Uploaded: v.upload,
		}})
		if err != nil {
			return err
		}
	}
	if err := v.write(all); err != nil {
		return err
	}
	if !v.upload || len(all) == 0 {
		return nil
	}
	return a.upload(cmd.Context(), all)
}

// signatory opens the key that signs them all.
func (v vsaFlags) signatory(cmd *cobra.Command) (*verify.Signatory, error) {
	pw, err := password(cmd.ErrOrStderr(), false)
	if err != nil {
		return nil, err
	}
	return verify.NewSignatory(cmd.Context(), verify.SignatoryConfig{KeyPath: v.key, Password: pw})
}

func (v vsaFlags) sign(cmd *cobra.Command, verdict engine.Verdict, key *verify.Signatory) (signedSummary, error) {
	img, dec := verdict.Image, verdict.Decision
	var ev struct {
		Trust string `json:"trust"`
	}
	if b, err := json.Marshal(verdict.Evidence); err != nil || json.Unmarshal(b, &ev) != nil {
		return signedSummary{}, errors.Join(errors.New("evidence without its trust"), err)
	}
	facts := vsa.Facts{
		Verifier: v.verifier, Version: sandbox.Build, At: time.Now(), Reference: img.Reference, Digest: img.Digest,
		Level: dec.Level(), Revision: dec.Revision(), Decided: dec.InputDigest(), Trust: ev.Trust,
	}
	for _, m := range verdict.Material {
		sum := sha256.Sum256(m.Payload)
		facts.Inputs = append(facts.Inputs, vsa.Input{MediaType: m.MediaType, Digest: "sha256:" + hex.EncodeToString(sum[:])})
	}
	predicate, err := vsa.Predicate(facts)
	if err != nil {
		return signedSummary{}, err
	}
	m, err := key.Attest(cmd.Context(), verify.AttestRequest{
		Reference: img.Reference, Digest: img.Digest,
		PredicateType: vsa.PredicateType, Predicate: predicate, Statement: verify.StatementV1, Format: v.format,
	})
	return signedSummary{m, img.Reference}, err
}

// write puts the summaries where --vsa says: into a directory, each under its
// image's digest, or into one file, each a line. A file is there whole or not at all.
func (v vsaFlags) write(all []signedSummary) error {
	if v.path == "" {
		return nil
	}
	put := func(path string, b []byte) error {
		if err := fsx.WriteFile(path, b, 0o644); err != nil {
			return fault.Wrap(fault.Invalid, "ci.vsa", err, "name a directory, or a file in one, that may be written in")
		}
		return nil
	}
	st, err := os.Stat(v.path)
	if err == nil && st.IsDir() || strings.HasSuffix(v.path, "/") {
		if err := os.MkdirAll(v.path, 0o755); err != nil {
			return fault.Wrap(fault.Invalid, "ci.vsa", err, "name a directory that can be made")
		}
		for _, s := range all {
			if err := put(filepath.Join(v.path, strings.Replace(s.Subject, ":", "-", 1)+".vsa.json"), s.Payload); err != nil {
				return err
			}
		}
		return nil
	}
	if err == nil && !st.Mode().IsRegular() {
		return usage("--vsa %.200s is neither a directory nor a regular file", v.path)
	}
	var lines bytes.Buffer
	for _, s := range all {
		lines.Write(append(bytes.TrimSpace(s.Payload), '\n'))
	}
	return put(v.path, lines.Bytes())
}

// upload keeps the summaries beside their images and sends them, and nothing
// else that is kept there.
func (a *app) upload(ctx context.Context, all []signedSummary) error {
	store, err := a.store(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		if err := store.Attest(ctx, images.Attachment(s.Material)); err != nil {
			return err
		}
		if err := store.PushAttestation(ctx, s.reference, images.Attachment(s.Material)); err != nil {
			return err
		}
	}
	return nil
}
