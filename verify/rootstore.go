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
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
)

// maxRoots bounds how many trust roots a listing shows.
const maxRoots = 256

// TrustRoot describes one trust root of the trust directory.
type TrustRoot struct {
	Name string `json:"name"`
	File string `json:"file"`
	// Digest is that of the file's bytes.
	Digest string `json:"digest"`
	// Authorities, Logs and so on are the addresses of what it vouches for.
	Authorities     []string `json:"certificate_authorities"`
	Logs            []string `json:"transparency_logs"`
	CertificateLogs []string `json:"certificate_logs"`
	Timestamps      []string `json:"timestamp_authorities"`
	// Problem is why it cannot be used, if it cannot.
	Problem string `json:"problem,omitempty"`
}

// TrustRootAdd keeps a trusted_root.json under a name, which policies use as
// trustRootRef. It overwrites only if replace is set, and writes nothing that
// could not be read back.
func TrustRootAdd(dir, name string, b []byte, replace bool) (string, error) {
	if !validPolicyName(name) {
		return "", fault.New(fault.Invalid, "trust.name", fmt.Sprintf("%q is not a trust root's name", clip(name)), "use lower-case letters, digits, - and .")
	}
	if len(b) > maxTrustRoot {
		return "", fault.New(fault.Invalid, ruleTrustRoot, fmt.Sprintf("the trust root is larger than %d bytes", maxTrustRoot), "give a trusted_root.json")
	}
	if _, err := parseTrustRoot(b); err != nil {
		return "", fault.Wrap(fault.Invalid, ruleTrustRoot, err, "give a trusted_root.json")
	}
	if err := os.MkdirAll(filepath.Join(dir, rootsDir), 0o755); err != nil {
		return "", fault.Wrap(fault.Invalid, ruleTrustRoot, err, "run as the owner of "+filepath.Dir(dir))
	}
	path := rootPath(dir, name)
	write := fsx.CreateFile
	if replace {
		write = fsx.WriteFile
	}
	err := write(path, b, 0o644)
	switch {
	case errors.Is(err, fs.ErrExist):
		return "", fault.New(fault.Invalid, "trust.exists", path+" exists", "ward trust root rm "+name+", or give another name")
	case err != nil:
		return "", fault.Wrap(fault.Invalid, ruleTrustRoot, err, "run as the owner of "+dir)
	}
	return path, nil
}

// TrustRootRead returns the bytes of a trust root: nil if there is none.
func TrustRootRead(dir, name string) ([]byte, error) {
	if !validPolicyName(name) {
		return nil, fault.New(fault.Invalid, "trust.name", fmt.Sprintf("%q is not a trust root's name", clip(name)), "")
	}
	f, err := readRoot(dir, name)
	if err != nil {
		return nil, err
	}
	return f.raw, nil
}

// TrustRootList returns the trust roots in dir in the order of their names. One
// that cannot be used is listed with its problem, since it is that one that
// has to be found.
func TrustRootList(dir string) ([]TrustRoot, error) {
	entries, err := os.ReadDir(filepath.Join(dir, rootsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, rootError(filepath.Join(dir, rootsDir), errors.New(reason(err)))
	}
	if len(entries) > maxRoots {
		return nil, rootError(filepath.Join(dir, rootsDir), fmt.Errorf("holds more than %d files", maxRoots))
	}
	list := []TrustRoot{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), rootExt)
		if strings.HasPrefix(e.Name(), ".") || !ok || !validPolicyName(name) {
			continue // no policy can name it
		}
		list = append(list, describeRoot(dir, name))
	}
	return list, nil
}

func describeRoot(dir, name string) TrustRoot {
	r := TrustRoot{Name: name, File: rootPath(dir, name)}
	b, err := TrustRootRead(dir, name)
	var t *root.TrustedRoot
	if err == nil {
		sum := sha256.Sum256(b)
		r.Digest = "sha256:" + hex.EncodeToString(sum[:])
		t, err = parseTrustRoot(b)
	}
	if err != nil {
		r.Problem = clip(err.Error())
		return r
	}
	for _, ca := range t.FulcioCertificateAuthorities() {
		if f, ok := ca.(*root.FulcioCertificateAuthority); ok {
			r.Authorities = append(r.Authorities, service(f.URI, f.ValidityPeriodEnd))
		}
	}
	for _, l := range t.RekorLogs() {
		r.Logs = append(r.Logs, service(l.BaseURL, l.ValidityPeriodEnd))
	}
	for _, l := range t.CTLogs() {
		r.CertificateLogs = append(r.CertificateLogs, service(l.BaseURL, l.ValidityPeriodEnd))
	}
	for _, a := range t.TimestampingAuthorities() {
		if s, ok := a.(*root.SigstoreTimestampingAuthority); ok {
			r.Timestamps = append(r.Timestamps, service(s.URI, s.ValidityPeriodEnd))
		}
	}
	return r
}

// service is an address, and until when it is vouched for.
func service(address string, until time.Time) string {
	if until.IsZero() {
		return address
	}
	return address + " until " + stamp(until)
}

// TrustRootRemove deletes a trust root. Policies that name it refuse from the
// next run on.
func TrustRootRemove(dir, name string) error {
	if !validPolicyName(name) {
		return fault.New(fault.Invalid, "trust.name", fmt.Sprintf("%q is not a trust root's name", clip(name)), "")
	}
	err := os.Remove(rootPath(dir, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "trust.not-found", fmt.Sprintf("no trust root is called %q", name), "ward trust root list")
	case err != nil:
		return fault.Wrap(fault.Invalid, ruleTrustRoot, err, "run as the owner of "+dir)
	}
	return fsx.SyncDir(filepath.Join(dir, rootsDir))
}

func rootPath(dir, name string) string { return filepath.Join(dir, rootsDir, name+rootExt) }
