package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/ward-project/ward/internal/fault"
)

const (
	// rootsDir is the directory of trust roots inside the trust directory.
	rootsDir = "roots"
	// defaultRoot is meant where a policy names no trust root.
	defaultRoot = "default"
	rootExt     = ".json"
	// maxTrustRoot bounds a trust root; the public one has 7 KiB.
	maxTrustRoot  = 1 << 20
	ruleNoRoot    = "trust.no-root"
	ruleTrustRoot = "trust.root"
)

// errNoRoot is why a signature that needs a trust root cannot be judged.
type errNoRoot struct{ what string }

func (e errNoRoot) Error() string { return e.what }

// roots are the trust roots that policies name: certificate authorities,
// transparency logs and timestamp authorities, as sigstore's trusted_root.json
// writes them. Their bytes are read when the policies are, so that one digest
// stands for both; they are parsed when a policy that matches needs one, since
// that costs more than checking a key's signature.
type roots struct {
	files map[string]*rootFile
}

type rootFile struct {
	path   string
	raw    []byte // nil: there is none
	once   sync.Once
	parsed *root.TrustedRoot
	err    error
}

// loadRoots reads the roots that any of the policies may need. One that does
// not exist is not an error until it is needed.
func loadRoots(dir string, policies []policy) (*roots, string, error) {
	r := &roots{files: map[string]*rootFile{}}
	sum := sha256.New()
	for _, p := range policies {
		for _, a := range p.authorities {
			for _, name := range a.rootNames() {
				if r.files[name] != nil {
					continue
				}
				f, err := readRoot(dir, name)
				if err != nil {
					return nil, "", err
				}
				r.files[name] = f
				size := len(f.raw)
				if f.raw == nil {
					size = -1 // there is none, which is not an empty one
				}
				fmt.Fprintf(sum, "%s\x00%d\x00", name, size)
				sum.Write(f.raw)
			}
		}
	}
	if len(r.files) == 0 {
		return r, "", nil
	}
	return r, hex.EncodeToString(sum.Sum(nil)), nil
}

func readRoot(dir, name string) (*rootFile, error) {
	path := filepath.Join(dir, rootsDir, name+rootExt)
	f := &rootFile{path: path}
	if st, err := os.Stat(filepath.Join(dir, rootsDir)); err == nil {
		if err := ownersOnly(st); err != nil {
			return nil, rootError(filepath.Join(dir, rootsDir), err)
		}
	}
	b, err := readChecked(path, maxTrustRoot, ownersOnly)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, rootError(path, errors.New(reason(err)))
	default:
		f.raw = append([]byte{}, b...)
	}
	return f, nil
}

func rootError(path string, err error) error {
	return fault.New(fault.Invalid, ruleTrustRoot, fmt.Sprintf("%s: %v", path, err),
		"correct it, or replace it: ward trust root rm NAME, ward trust root add NAME FILE")
}

// get returns the trust root called name: errNoRoot if there is none.
func (r *roots) get(name string) (*root.TrustedRoot, error) {
	var f *rootFile
	if r != nil {
		f = r.files[name]
	}
	if f == nil || f.raw == nil {
		return nil, errNoRoot{fmt.Sprintf("there is no trust root %q", name)}
	}
	f.once.Do(func() {
		if f.parsed, f.err = parseTrustRoot(f.raw); f.err != nil {
			f.err = rootError(f.path, f.err)
		}
	})
	return f.parsed, f.err
}

// parseTrustRoot reads a trusted_root.json strictly: one reader for all that
// may vouch, with a validity and a key for each.
func parseTrustRoot(b []byte) (*root.TrustedRoot, error) {
	// protojson refuses unknown and repeated fields but takes two spellings of
	// one; strictJSON has seen to equal keys and depth by then.
	if _, err := strictJSON(b); err != nil {
		return nil, err
	}
	t, err := root.NewTrustedRootFromJSON(b)
	if err != nil {
		return nil, err
	}
	if len(t.FulcioCertificateAuthorities())+len(t.TimestampingAuthorities())+len(t.RekorLogs())+len(t.CTLogs()) == 0 {
		return nil, errors.New("it names no certificate authority, log or timestamp authority")
	}
	return t, nil
}

// ownAuthority makes a certificate authority of PEM certificates: the last one
// that signed itself is the root, the others stand between it and a leaf.
func ownAuthority(b []byte) (*root.FulcioCertificateAuthority, error) {
	certs, err := parseCertificates(b, maxChain)
	if err != nil {
		return nil, err
	}
	ca := &root.FulcioCertificateAuthority{}
	for _, c := range certs {
		if !c.IsCA {
			return nil, fmt.Errorf("%q is not a certificate authority", clip(c.Subject.String()))
		}
		switch {
		case c.CheckSignatureFrom(c) != nil:
			ca.Intermediates = append(ca.Intermediates, c)
		case ca.Root != nil:
			return nil, errors.New("two root certificates: give each authority its own entry")
		default:
			ca.Root = c
		}
	}
	if ca.Root == nil {
		// An intermediate may be the anchor; then there is exactly one.
		if len(ca.Intermediates) != 1 {
			return nil, errors.New("no root certificate (one that signed itself)")
		}
		ca.Root, ca.Intermediates = ca.Intermediates[0], nil
	}
	return ca, nil
}

// certID names an authority of one's own by the digest of its root.
func certID(ca *root.FulcioCertificateAuthority) string {
	sum := sha256.Sum256(ca.Root.Raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// sameURL compares the addresses of services: with or without a last slash.
func sameURL(a, b string) bool { return strings.TrimRight(a, "/") == strings.TrimRight(b, "/") }
