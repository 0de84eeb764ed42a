package verify

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
)

// TrustRule is what TrustAdd needs: whose signature to accept for which images.
type TrustRule struct {
	// Name is the policy's; empty lets one be made from the glob and the key.
	Name string
	// Glob says which images, as in a ClusterImagePolicy.
	Glob string
	// KeyPEM is one public key in PEM form.
	KeyPEM []byte
}

// TrustPolicy describes one policy of the trust directory.
type TrustPolicy struct {
	Name string `json:"name"`
	// File and Line are where it stands.
	File string `json:"file"`
	Line int    `json:"line"`
	// Mode is "enforce" or "warn".
	Mode string `json:"mode"`
	// Rego says that the policy has Rego of its own for what it finds, Match
	// whether it is about all that runs here, "some" of it, or nothing ("none").
	Rego        bool             `json:"rego,omitempty"`
	Match       string           `json:"match,omitempty"`
	Globs       []string         `json:"globs"`
	Authorities []TrustAuthority `json:"authorities"`
}

// TrustAuthority describes one authority of a policy.
type TrustAuthority struct {
	Name string `json:"name"`
	// KeyIDs are the keys it accepts; none for an authority of another kind.
	KeyIDs []string `json:"key_ids"`
	// Threshold is how many of them must have signed, if more than one.
	Threshold int `json:"threshold,omitempty"`
	// NotBefore and NotAfter bound when, if given.
	NotBefore *time.Time `json:"not_before,omitempty"`
	NotAfter  *time.Time `json:"not_after,omitempty"`
	// Identities are whom it accepts by certificate, expressions in slashes.
	Identities []string `json:"identities,omitempty"`
	// CA is the digest of the root certificate of an authority of one's own.
	CA string `json:"ca,omitempty"`
	// TrustRoots are the names of the trust roots it needs.
	TrustRoots []string `json:"trust_roots,omitempty"`
	// Format is KindCosign, KindBundle, or "" for either.
	Format string `json:"format,omitempty"`
	// Static is "pass" or "fail" for an authority that looks at nothing.
	Static string `json:"static,omitempty"`
	// Attestations are the predicate types that it asks for.
	Attestations []string `json:"attestations,omitempty"`
}

// MatchedPolicy is a policy that applies to an image, and the glob that says so.
type MatchedPolicy struct {
	TrustPolicy
	Glob string `json:"glob"`
}

// TrustAdd writes a policy file into dir, which it creates if need be, and
// returns its path. It never overwrites, and refuses to add to a directory
// that cannot be read as a whole.
func TrustAdd(dir string, rule TrustRule) (string, error) {
	keys, err := parsePublicKeys(rule.KeyPEM, crypto.SHA256)
	if err == nil && len(keys) != 1 {
		err = errors.New("more than one key")
	}
	if err != nil {
		return "", fault.Wrap(fault.Invalid, "trust.key", err, "give one PEM public key, such as cosign.pub")
	}
	g, err := compileGlob(rule.Glob)
	if err != nil {
		return "", fault.New(fault.Invalid, "trust.glob", fmt.Sprintf("glob %q: %v", rule.Glob, err),
			"write a full name with wildcards, such as registry.example.com/team/*")
	}
	name := rule.Name
	if name == "" {
		name = ruleName(g.text, keys[0].id)
	}
	if !validPolicyName(name) {
		return "", fault.New(fault.Invalid, "trust.name", fmt.Sprintf("%q is not a policy name", name),
			"use lower-case letters, digits, - and .")
	}
	policies, _, err := loadPolicies(dir)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name+".yaml")
	for _, p := range policies {
		if p.name == name {
			return "", policyExists(name, p.file)
		}
	}
	b := ruleYAML(name, g.text, keys[0].hash, rule.KeyPEM)
	// What is about to be trusted is read back exactly as it will be.
	if _, err := parsePolicies(path, b); err != nil {
		return "", err
	}
	return createPolicy(dir, name, b)
}

// createPolicy writes the file NAME.yaml of the trust directory, making the
// directory if need be, and never over one that is there.
func createPolicy(dir, name string, b []byte) (string, error) {
	path := filepath.Join(dir, name+".yaml")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fault.Wrap(fault.Invalid, ruleTrustPolicy, err, "run as the owner of "+filepath.Dir(dir))
	}
	if err := fsx.CreateFile(path, b, 0o644); errors.Is(err, fs.ErrExist) {
		return "", policyExists(name, path)
	} else if err != nil {
		return "", fault.Wrap(fault.Invalid, ruleTrustPolicy, err, "run as the owner of "+dir)
	}
	return path, nil
}

func policyExists(name, file string) error {
	return fault.New(fault.Invalid, "trust.exists", fmt.Sprintf("trust policy %q exists (%s)", name, file),
		"ward trust rm "+name+", or give another name")
}

// ruleName makes a policy name that says what it is about and differs for
// another glob or key.
func ruleName(glob, keyID string) string {
	var b strings.Builder
	for _, c := range []byte(strings.ToLower(glob)) {
		if isAlnum(c) {
			b.WriteByte(c)
		} else if s := b.String(); s != "" && !strings.HasSuffix(s, "-") {
			b.WriteByte('-')
		}
	}
	slug := strings.Trim(b.String(), "-")
	if len(slug) > 60 {
		slug = strings.Trim(slug[:60], "-")
	}
	if slug == "" {
		slug = "all"
	}
	// The slug forgets the wildcards, so the glob is in the hash as well.
	sum := sha256.Sum256([]byte(glob + "\x00" + keyID))
	return slug + "-" + hex.EncodeToString(sum[:4])
}

// ruleYAML writes the policy. Name and glob hold nothing that YAML would read
// differently between double quotes.
func ruleYAML(name, glob, hash string, key []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "apiVersion: %s\nkind: %s\nmetadata:\n  name: %q\nspec:\n  images:\n    - glob: %q\n", policyAPIVersion, policyKind, name, glob)
	b.WriteString("  authorities:\n    - key:\n")
	if hash != "sha256" {
		fmt.Fprintf(&b, "        hashAlgorithm: %s\n", hash)
	}
	b.WriteString("        data: |\n")
	for line := range strings.Lines(strings.TrimSpace(strings.ReplaceAll(string(key), "\r\n", "\n"))) {
		b.WriteString("          " + strings.TrimRight(line, "\n") + "\n")
	}
	return b.Bytes()
}

// TrustList returns the policies in dir in the order of their names. A missing
// directory holds none.
func TrustList(dir string) ([]TrustPolicy, error) {
	policies, _, err := loadPolicies(dir)
	if err != nil {
		return nil, err
	}
	list := make([]TrustPolicy, len(policies))
	for i, p := range policies {
		list[i] = p.describe()
	}
	return list, nil
}

func (p policy) describe() TrustPolicy {
	d := TrustPolicy{Name: p.name, File: p.file, Line: p.line, Mode: p.mode, Rego: p.rule != nil,
		Match: map[reach]string{forAll: "", forSome: "some", forOthers: "none"}[p.reach]}
	for _, g := range p.globs {
		d.Globs = append(d.Globs, g.text)
	}
	for _, a := range p.authorities {
		t := TrustAuthority{Name: a.name, KeyIDs: []string{}, Format: a.format, TrustRoots: slices.Compact(a.rootNames())}
		if a.key != nil {
			for _, k := range a.key.keys {
				t.KeyIDs = append(t.KeyIDs, k.id)
			}
			if a.key.threshold > 1 {
				t.Threshold = a.key.threshold
			}
			t.NotBefore, t.NotAfter = given(a.key.notBefore), given(a.key.notAfter)
		}
		if a.keyless != nil {
			for _, i := range a.keyless.identities {
				t.Identities = append(t.Identities, i.String())
			}
			if a.keyless.ca != nil {
				t.CA = certID(a.keyless.ca)
			}
		}
		if a.static != nil {
			t.Static = map[bool]string{true: "pass", false: "fail"}[a.static.pass]
		}
		for _, w := range a.wanted {
			t.Attestations = append(t.Attestations, w.predicateType)
		}
		d.Authorities = append(d.Authorities, t)
	}
	return d
}

func given(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// TrustRemove deletes the file of the policy called name. A file that holds
// other policies too is left alone.
func TrustRemove(dir, name string) error {
	policies, _, err := loadPolicies(dir)
	if err != nil {
		return err
	}
	path, shared := "", map[string]int{}
	for _, p := range policies {
		shared[p.file]++
		if p.name == name {
			path = p.file
		}
	}
	switch {
	case path == "":
		return fault.New(fault.NotFound, "trust.not-found", fmt.Sprintf("no trust policy is called %q", name), "ward trust list")
	case shared[path] > 1:
		return fault.New(fault.Invalid, "trust.shared-file", fmt.Sprintf("%s holds other policies besides %q", path, name),
			"edit the file")
	}
	if err := os.Remove(path); err != nil {
		return fault.Wrap(fault.Invalid, ruleTrustPolicy, err, "run as the owner of "+dir)
	}
	return fsx.SyncDir(dir)
}

// TrustTest returns the policies in dir that apply to an image name, all of
// which would have to be satisfied; none means that the image is refused.
func TrustTest(dir, ref string) ([]MatchedPolicy, error) {
	r, err := parseReference(ref)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "trust.reference", err, "name an image")
	}
	policies, _, err := loadPolicies(dir)
	if err != nil {
		return nil, err
	}
	matched, globs := matching(policies, spellings(r, ref))
	list := make([]MatchedPolicy, len(matched))
	for i, p := range matched {
		list[i] = MatchedPolicy{TrustPolicy: p.describe(), Glob: globs[i]}
	}
	return list, nil
}

// matching returns the policies that apply to an image, with the first glob of
// each that does.
func matching(policies []policy, names []string) (matched []policy, globs []string) {
	for _, p := range policies {
		if p.reach == forOthers {
			continue
		}
		for _, g := range p.globs {
			if g.match(names) {
				matched, globs = append(matched, p), append(globs, g.text)
				break
			}
		}
	}
	return matched, globs
}
