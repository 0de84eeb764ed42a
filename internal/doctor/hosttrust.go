package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/doctor/forge"
	"github.com/ward-project/ward/verify"
)

// maxHostPolicies bounds how many of the host's own trust policies are tried.
const maxHostPolicies = 32

// hostTrust shows images that nobody signed, and that a stranger signed, to a
// ward with the host's own trust policies, under names that these are about.
// There is no good image: nobody here has the keys.
func hostTrust(ctx context.Context, cfg ProveConfig, p *Proof, f *forger) error {
	ps, err := verify.TrustList(cfg.Host.Trust())
	if err != nil {
		return err
	}
	if len(ps) == 0 {
		p.Uses = append(p.Uses, "the host's trust policies: there are none, so nothing is let in")
		return nil
	}
	p.Uses = append(p.Uses, fmt.Sprintf("the host's trust policies: %d, each shown an image that nobody and one that a stranger signed", len(ps)))
	if len(ps) > maxHostPolicies {
		p.Skipped = append(p.Skipped, fmt.Sprintf("the host's trust policies after the first %d", maxHostPolicies))
		ps = ps[:maxHostPolicies]
	}
	cfg.say("the host's own trust")
	v := &victim{cfg: cfg, root: filepath.Join(cfg.Dir, "h"), ctx: ctx}
	if err := v.prepare(cfg.Host.Policy(), cfg.Host.Trust()); err != nil {
		return err
	}
	defer v.end()
	archive := filepath.Join(cfg.Dir, "rootfs.tar")
	if err := os.WriteFile(archive, f.rootfs, 0o600); err != nil {
		return err
	}
	for _, tp := range ps {
		name := named(tp.Globs)
		if name == "" {
			p.Skipped = append(p.Skipped, fmt.Sprintf("the host's trust policy %q: no name is known that it is about", tp.Name))
			continue
		}
		v.must("import", archive, name)
		v.show(p, "nobody signed it, by the host's trust policy "+tp.Name, name)
		if v.err == nil {
			v.err = v.strange(f.stranger, name)
		}
		v.show(p, "a stranger signed it, by the host's trust policy "+tp.Name, name)
	}
	return v.err
}

func (v *victim) show(p *Proof, what, name string) {
	if v.err != nil {
		return
	}
	tried := []Trial{v.try(Trial{Door: DoorGate, Case: what, Class: "unverified"}, v.cfg.Ward, "gate", "--offline", name)}
	if v.cfg.Root {
		tried = append(tried, v.try(Trial{Door: DoorRun, Case: what, Class: "unverified"}, v.cfg.Ward, "run", "--rm", "--pull", "never", name))
	}
	if v.err != nil {
		return
	}
	for _, t := range tried {
		if t.GotRule == "trust.no-policy" { // a refusal, but not one by this policy
			p.Skipped = append(p.Skipped, what+": no name is known that it is about")
			return
		}
	}
	p.Trials = append(p.Trials, tried...)
}

// strange hangs a stranger's signature on a local image.
func (v *victim) strange(s *forge.Signer, name string) error {
	store, err := images.Open(images.Config{Dir: filepath.Join(v.root, "lib", "images")})
	if err != nil {
		return err
	}
	img, err := store.Resolve(v.ctx, name)
	if err != nil {
		return err
	}
	repository, _, _ := strings.Cut(img.Reference, "@")
	if i := strings.LastIndex(repository, ":"); i > strings.LastIndex(repository, "/") {
		repository = repository[:i]
	}
	sig, err := s.Sign(repository, img.Digest)
	if err != nil {
		return err
	}
	return store.Attach(v.ctx, images.Attachment{Subject: img.Digest, Kind: images.KindCosign, MediaType: sig.MediaType, Payload: sig.Payload, Annotations: sig.Annotations})
}

// named is a name that one of the globs is about, or "".
func named(globs []string) string {
	for _, g := range globs {
		if g == "*" || g == "*/*" {
			return "index.docker.io/library/forged:1" // what these mean to a trust policy
		}
		g, _, _ = strings.Cut(g, "@")
		g = strings.NewReplacer("**", "forged", "*", "forged").Replace(g)
		if !strings.Contains(g, "/") {
			g = "registry.invalid/" + g
		}
		if i := strings.LastIndex(g, ":"); i <= strings.LastIndex(g, "/") {
			g += ":1"
		}
		if full, err := images.ParseReference(g); err == nil {
			return full
		}
	}
	return ""
}
