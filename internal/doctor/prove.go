package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ward-project/ward/images/registry"
	"github.com/ward-project/ward/internal/doctor/forge"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/verify"
)

// ProveConfig is what a proof is made with. All fields are required but OCI,
// which is empty if there is no such program, and Say.
type ProveConfig struct {
	// Host is the ward whose configuration is tried out. Nothing in it is touched.
	Host engine.Layout
	// Dir is a directory of the proof's own, for the caller to remove. Its path
	// is short: a unix socket's is.
	Dir string
	// Ward and OCI are the programs.
	Ward, OCI string
	// Root says that containers can be started.
	Root bool
	// Say, if not nil, gets a line at each step.
	Say func(string)
}

// Prove forges images and shows each to every door, by the programs
// themselves, in a ward of its own below Dir that has the host's policy. An
// error means that it could not be tried; what came out is in the Proof.
func Prove(ctx context.Context, cfg ProveConfig) (p Proof, err error) {
	p.Build = sandbox.Build
	if err := p.describe(cfg.Host); err != nil {
		return p, err
	}
	h, err := registry.New(filepath.Join(cfg.Dir, "registry"))
	if err != nil {
		return p, err
	}
	r, err := forge.Serve(h)
	if err != nil {
		return p, err
	}
	defer r.Close()
	cfg.say("forging images")
	f, err := newForger(r)
	if err != nil {
		return p, err
	}
	if err := f.good(); err != nil {
		return p, err
	}
	all := forgeries()
	for _, c := range all {
		if err := c.make(f); err != nil {
			return p, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	w := &victim{cfg: cfg, root: filepath.Join(cfg.Dir, "w"), ctx: ctx}
	if err := w.prepare(filepath.Join(cfg.Host.Policy()), ""); err != nil {
		return p, err
	}
	t := trust{dir: filepath.Join(w.root, "etc", "trust.d"), addr: r.Addr, f: f}
	if err := t.write(); err != nil {
		return p, err
	}
	defer w.end()
	p.Uses = append(p.Uses, "trust made for the occasion: a key, a key until yesterday, an authority's certificates")
	w.doors(&p, f, all, t)
	if ctx.Err() != nil {
		return p, fault.Wrap(fault.Unavailable, "doctor.interrupted", ctx.Err(), "let it finish: ward doctor --prove")
	}
	if w.err != nil {
		return p, w.err
	}
	if err := hostTrust(ctx, cfg, &p, f); err != nil {
		return p, err
	}
	p.judge()
	return p, nil
}

func (cfg ProveConfig) say(what string) {
	if cfg.Say != nil {
		cfg.Say(what)
	}
}

// describe says what the host has configured. What does not compile, or cannot
// be read, is an error: then nothing is let in, and there is nothing to prove.
func (p *Proof) describe(l engine.Layout) error {
	e, err := policy.Open(policy.Config{Dir: l.Policy()})
	if err != nil {
		return err
	}
	p.Level, p.Revision = e.Level(), e.Revision()
	v, err := verify.Open(l.Trust())
	if err != nil {
		return err
	}
	p.Trust = v.TrustDigest()
	p.Uses = append(p.Uses, fmt.Sprintf("policy of %s: level %s, revision %s", l.Policy(), p.Level, p.Revision))
	return nil
}

// trust writes the trust policies of a proof.
type trust struct {
	dir, addr string
	f         *forger
}

func (t trust) write() error {
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return err
	}
	key, err := t.f.key.PublicPEM()
	if err != nil {
		return err
	}
	return firstError(t.key(key, ""), t.late(key), t.certificate(holder))
}

// key trusts a key for the names below key/, until then if that is not empty.
func (t trust) key(public []byte, until string) error {
	annotation, authority := keyed(public, until)
	return t.put(byKey, annotation, authority)
}

func (t trust) late(public []byte) error {
	annotation, authority := keyed(public, time.Now().Add(-24*time.Hour).UTC().Format(time.RFC3339))
	return t.put(byLate, annotation, authority)
}

// certificate trusts who has a certificate in this name, for those below ca/.
func (t trust) certificate(name string) error {
	return t.put(byCA, "", fmt.Sprintf(`    - keyless:
        ca-cert:
          data: |
            %s
        identities: [{subject: %q}]
        insecureIgnoreSCT: true
      ctlog: {}
`, forge.Indented(t.f.ca.PEM(), "            "), name))
}

// keyed is an annotation and an authority.
func keyed(public []byte, until string) (annotation, authority string) {
	if until != "" {
		annotation = "  annotations: {ward.dev/not-after: \"signer=" + until + "\"}\n"
	}
	return annotation, "    - name: signer\n      key:\n        data: |\n          " + forge.Indented(public, "          ") + "\n"
}

func (t trust) put(below, annotation, authority string) error {
	text := fmt.Sprintf(`apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata:
  name: proof-%s
%sspec:
  images:
    - glob: "%s/%s/**"
  authorities:
%s`, below, annotation, t.addr, below, authority)
	return os.WriteFile(filepath.Join(t.dir, below+".yaml"), []byte(text), 0o644)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// copyDir copies the regular files of a directory and those of the directories
// in it; a directory that is not there has none.
func copyDir(to, from string) error {
	es, err := os.ReadDir(from)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, e := range es {
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		st, err := os.Stat(src)
		switch {
		case err != nil:
			return err
		case st.IsDir():
			if err := copyDir(dst, src); err != nil {
				return err
			}
		default:
			b, err := os.ReadFile(src)
			if err != nil {
				return err
			}
			if err := os.WriteFile(dst, b, st.Mode().Perm()&0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// short cuts what a command printed.
func short(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > 600 {
		s = strings.ToValidUTF8(s[:600], "") + "…"
	}
	return s
}
