package policy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	opabundle "github.com/open-policy-agent/opa/v1/bundle"

	"github.com/ward-project/ward/internal/fault"
)

// keysFile, beside the policy directory, says whose bundles are believed.
const keysFile = "policy-keys.json"

// BundleKey is a public key that may sign bundles.
type BundleKey struct {
	// Name is the key's id, which a signature names.
	Name string `json:"name"`
	// Algorithm is "ES256", "RS256", "PS256", the same with 384 or 512, or "EdDSA".
	Algorithm string `json:"algorithm"`
	// PEM is the public key, in PKIX form.
	PEM string `json:"key"`
	// Scope, if any, is the one that a signature has to be for.
	Scope string `json:"scope,omitempty"`
	// Bundles are the names of the bundles it may sign; "*" is any.
	Bundles []string `json:"bundles"`
}

// bundleKeys are the trusted keys, by name, and the file that says so.
type bundleKeys struct {
	shown string
	keys  map[string]BundleKey
}

var bundleName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// KeysFile is the file that says whose bundles are believed in a directory.
func KeysFile(dir string) string { return filepath.Join(filepath.Dir(filepath.Clean(dir)), keysFile) }

// ReadBundleKeys reads the trusted keys; a missing file trusts nobody.
func ReadBundleKeys(path string) ([]BundleKey, error) {
	k, err := readBundleKeys(path)
	var out []BundleKey
	for _, name := range sorted(k.keys) {
		out = append(out, k.keys[name])
	}
	return out, err
}

func readBundleKeys(file string) (bundleKeys, error) {
	k := bundleKeys{shown: file, keys: map[string]BundleKey{}}
	root, err := os.OpenRoot(filepath.Dir(file))
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return k, unreadable(file, err)
	}
	defer root.Close()
	s := source{name: filepath.Base(file), shown: file}
	if _, err := root.Lstat(s.name); errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if s.text, err = readFile(root, s, true); err != nil {
		return k, err
	}
	// Once for keys that are there twice, once for members that mean nothing.
	if _, err := document(s); err != nil {
		return k, err
	}
	var doc struct {
		Keys []BundleKey `json:"keys"`
	}
	dec := json.NewDecoder(bytes.NewReader(s.text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return k, badData(s, err)
	}
	for _, key := range doc.Keys {
		if err := key.Check(); err != nil {
			return k, badData(s, err)
		}
		if _, twice := k.keys[key.Name]; twice {
			return k, badData(s, fmt.Errorf("key %q is there twice", key.Name))
		}
		k.keys[key.Name] = key
	}
	return k, nil
}

// Check refuses a key that could not be meant.
func (k BundleKey) Check() error {
	if !bundleName.MatchString(k.Name) {
		return fmt.Errorf("%.80q is not a name: small letters, digits, dot, dash, underscore", k.Name)
	}
	if len(k.Bundles) == 0 {
		return fmt.Errorf("key %s says of no bundle that it may sign it", k.Name)
	}
	for _, b := range k.Bundles {
		if b != "*" && !bundleName.MatchString(b) {
			return fmt.Errorf("key %s: %.80q is not a bundle's name", k.Name, b)
		}
	}
	block, rest := pem.Decode([]byte(k.PEM))
	if block == nil || block.Type != "PUBLIC KEY" || len(strings.TrimSpace(string(rest))) > 0 {
		return fmt.Errorf("key %s is not one public key in PEM (-----BEGIN PUBLIC KEY-----)", k.Name)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("key %s: %w", k.Name, err)
	}
	ok := false
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		ok = map[string]int{"ES256": 256, "ES384": 384, "ES512": 521}[k.Algorithm] == pub.Curve.Params().BitSize
	case *rsa.PublicKey:
		ok = slices.Contains([]string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, k.Algorithm) && pub.N.BitLen() >= 2048 && pub.N.BitLen() <= 8192
	case ed25519.PublicKey:
		ok = k.Algorithm == "EdDSA"
	}
	if !ok {
		return fmt.Errorf("key %s cannot be used with algorithm %.20q: ES256, ES384, ES512 by curve; RS… and PS… with 2048 to 8192 bits; EdDSA", k.Name, k.Algorithm)
	}
	return nil
}

// verify returns the name of the key that signed all files of a bundle, none
// missing and none besides.
func (k bundleKeys) verify(s source, bundle string, files map[string][]byte) (string, error) {
	wrong := func(format string, args ...any) error {
		return fault.New(fault.Unverified, "policy.bundle-signature", plain(fmt.Sprintf("bundle %s: "+format, append([]any{s.shown}, args...)...)),
			"have it signed by a key that "+k.shown+" trusts for it, or take it out of the policy directory")
	}
	var sc opabundle.SignaturesConfig
	if err := json.Unmarshal(files[signaturesFile], &sc); err != nil || sc.Plugin != "" && sc.Plugin != "_default" || len(sc.Signatures) != 1 {
		return "", wrong("its .signatures.json does not hold one signature")
	}
	id, err := keyID(sc.Signatures[0])
	if err != nil {
		return "", wrong("%v", err)
	}
	if id == "" { // as opa sign writes it: then it is clear only if there is one
		var may []string
		for _, name := range sorted(k.keys) {
			if b := k.keys[name].Bundles; slices.Contains(b, "*") || slices.Contains(b, bundle) {
				may = append(may, name)
			}
		}
		if len(may) != 1 {
			return "", wrong("its signature names no key, and there are %d that may sign it", len(may))
		}
		id = may[0]
	}
	key, trusted := k.keys[id]
	if !trusted {
		return "", wrong("it is signed by key %.80q, which is not trusted", id)
	}
	if !slices.Contains(key.Bundles, "*") && !slices.Contains(key.Bundles, bundle) {
		return "", wrong("key %s may not sign it, only %s", id, strings.Join(key.Bundles, ", "))
	}
	cfg := opabundle.NewVerificationConfig(map[string]*opabundle.KeyConfig{id: {Key: key.PEM, Algorithm: key.Algorithm, Scope: key.Scope}}, id, key.Scope, nil)
	signed, err := opabundle.VerifyBundleSignature(sc, cfg)
	if err != nil {
		return "", wrong("its signature does not verify with key %s: %v", id, err)
	}
	for _, f := range signed {
		if !slices.Contains([]string{"SHA-256", "SHA-384", "SHA-512", "SHA-512-256"}, f.Algorithm) {
			return "", wrong("%.100q is signed by a digest of kind %.20q", f.Name, f.Algorithm)
		}
	}
	for _, name := range sorted(files) {
		if name == signaturesFile {
			continue
		}
		if err := opabundle.VerifyBundleFile(name, *bytes.NewBuffer(files[name]), signed); err != nil {
			return "", wrong("%v", err)
		}
	}
	if left := sorted(signed); len(left) > 0 {
		return "", wrong("%s was signed and is not there", left[0])
	}
	return id, nil
}

// keyID is the name of the key that a token says it was signed with. It is only
// a hint at which trusted key to try.
func keyID(token string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", errors.New("its signature is not a token")
	}
	var said struct {
		KID   string `json:"kid"`
		KeyID string `json:"keyid"`
	}
	for _, part := range parts[:2] {
		b, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil || json.Unmarshal(b, &said) != nil {
			return "", errors.New("its signature is not a token that can be read")
		}
		if said.KID != "" {
			return said.KID, nil
		}
	}
	return said.KeyID, nil
}
