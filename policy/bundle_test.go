package policy_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/compile"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

// pair is a key that signs bundles, in PEM.
type pair struct{ private, public, algorithm string }

func pairOf(t testing.TB, algorithm string) pair {
	t.Helper()
	var key crypto.Signer
	var err error
	switch algorithm {
	case "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "EdDSA":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	in := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return pair{in("PRIVATE KEY", private), in("PUBLIC KEY", public), algorithm}
}

// build is what "opa build --bundle --signing-key" makes of files; it is the
// code behind that command.
func (p pair) build(t testing.TB, id string, files map[string]string) []byte {
	t.Helper()
	src := t.TempDir()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(src, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	c := compile.New().WithAsBundle(true).WithPaths(src).WithOutput(&out).
		WithBundleSigningConfig(opabundle.NewSigningConfig(p.private, p.algorithm, "")).WithBundleVerificationKeyID(id)
	if err := c.Build(context.Background()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

const teamRule = `package ward.run

import data.team.lib

deny contains {"code": "team.root", "msg": "not as root"} if {
	lib.strict
	input.run.user.uid == data.team.config.uid
}
`

// team is a bundle as people write them, of some revision.
func team(revision string) map[string]string {
	return map[string]string{
		".manifest":             fmt.Sprintf(`{"revision": %q, "roots": ["ward/run", "team"]}`, revision),
		"rules/root.rego":       teamRule,
		"rules/root_test.rego":  "package team.root_test\n\nimport data.team.config\n\ntest_uid if config.uid == 0\n",
		"lib/lib.rego":          "package team.lib\n\nstrict := true\n",
		"team/config/data.json": `{"uid": 0}`,
	}
}

func with2(files map[string]string, name, text string) map[string]string {
	out := map[string]string{}
	for k, v := range files {
		out[k] = v
	}
	if out[name] = text; text == "" {
		delete(out, name)
	}
	return out
}

// bundled is a policy directory with files, and the keys beside it.
func bundled(t testing.TB, keys []policy.BundleKey, files ...string) string {
	t.Helper()
	root := t.TempDir()
	d := filepath.Join(root, "policy.d")
	if err := os.Mkdir(d, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	if keys != nil {
		files = append(files, "../policy-keys.json", string(b))
	}
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(d, files[i]), []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func (p pair) trusted(name string, bundles ...string) []policy.BundleKey {
	return []policy.BundleKey{{Name: name, Algorithm: p.algorithm, PEM: p.public, Bundles: bundles}}
}

func TestBundle(t *testing.T) {
	for _, algorithm := range []string{"ES256", "ES384", "RS256", "PS512", "EdDSA"} {
		key := pairOf(t, algorithm)
		d := bundled(t, key.trusted("release", "team"), "team.tar.gz", string(key.build(t, "release", team("2026.11.28"))))
		e, err := policy.Open(policy.Config{Dir: d})
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		dec := decide(t, e, good()) // which is root inside
		denied(t, dec, "team.root")
		b := dec.Bundles()
		if len(b) != 1 || b[0].Name != "team" || b[0].Revision != "2026.11.28" || b[0].Key != "release" || !strings.HasPrefix(b[0].Digest, "sha256:") {
			t.Fatal(b)
		}
		text, err := json.Marshal(dec)
		if err != nil || !strings.Contains(string(text), `"bundles":[{"name":"team","revision":"2026.11.28","digest":"sha256:`) {
			t.Fatal(string(text), err)
		}
		if d := decide(t, e, with(func(in *policy.Input) { in.Run.User.UID = 1000 })); !d.Allowed() {
			t.Fatal(d.Reasons())
		}
	}
	// opa sign names no key: it is clear which one is meant if one alone may sign.
	key, other := pairOf(t, "ES256"), pairOf(t, "ES256")
	nameless := string(key.build(t, "", team("1")))
	one := key.trusted("release", "team")
	if _, err := policy.Open(policy.Config{Dir: bundled(t, append(one, other.trusted("other", "else")...), "team.tar.gz", nameless)}); err != nil {
		t.Error(err)
	}
	for _, keys := range [][]policy.BundleKey{other.trusted("other", "team"), append(one, other.trusted("other", "*")...), key.trusted("release", "else")} {
		_, err := policy.Open(policy.Config{Dir: bundled(t, keys, "team.tar.gz", nameless)})
		refused(t, err, fault.Unverified, "policy.bundle-signature", "team.tar.gz")
	}
	if d := decide(t, open(t), good()); d.Bundles() != nil {
		t.Fatal(d.Bundles())
	}
}

// Whatever is not exactly what a trusted key signed, or could be meant to be in
// force and would not be, stops everything.
func TestBundleRefused(t *testing.T) {
	key, other := pairOf(t, "ES256"), pairOf(t, "ES256")
	good := key.build(t, "release", team("1"))
	keys := key.trusted("release", "team")
	scoped := slices.Clone(keys)
	scoped[0].Scope = "write"
	tampered := func(change func(map[string][]byte)) string {
		files := entriesOf(t, good)
		change(files)
		return string(packed(t, files))
	}
	// opa build keeps the directory that it was given in front.
	rule := func(f map[string][]byte) string {
		for name := range f {
			if strings.HasSuffix(name, "/rules/root.rego") {
				return name
			}
		}
		t.Fatal("the bundle has no rule")
		return ""
	}
	build := func(files map[string]string) string { return string(key.build(t, "release", files)) }
	for name, c := range map[string]struct {
		keys    []policy.BundleKey
		file    string
		archive string
		rule    string
		words   string
	}{
		"no keys":            {nil, "team", string(good), "policy.bundle-signature", "not trusted"},
		"unknown key":        {other.trusted("else", "team"), "team", string(good), "policy.bundle-signature", "release"},
		"another key's name": {other.trusted("release", "team"), "team", string(good), "policy.bundle-signature", "does not verify"},
		"another bundle":     {keys, "other", string(good), "policy.bundle-signature", "may not sign"},
		"another scope":      {scoped, "team", string(good), "policy.bundle-signature", "scope"},
		"unsigned":           {keys, "team", tampered(func(f map[string][]byte) { delete(f, "/.signatures.json") }), "policy.bundle-unsigned", "not signed"},
		"changed rule":       {keys, "team", tampered(func(f map[string][]byte) { f[rule(f)] = append(f[rule(f)], ' ') }), "policy.bundle-signature", "digest mismatch"},
		"changed data":       {keys, "team", tampered(func(f map[string][]byte) { f["/data.json"] = []byte(`{"team":{"config":{"uid":1}}}`) }), "policy.bundle-signature", "digest mismatch"},
		"changed revision": {keys, "team", tampered(func(f map[string][]byte) {
			f["/.manifest"] = []byte(`{"revision":"2","roots":["ward/run","team"],"rego_version":1}`)
		}), "policy.bundle-signature", "digest mismatch"},
		"a rule more":    {keys, "team", tampered(func(f map[string][]byte) { f["/more.rego"] = []byte("package team.more\n") }), "policy.bundle-signature", "not included"},
		"a rule less":    {keys, "team", tampered(func(f map[string][]byte) { delete(f, rule(f)) }), "policy.bundle-signature", "was signed and is not there"},
		"two signatures": {keys, "team", tampered(func(f map[string][]byte) { f["/.signatures.json"] = []byte(`{"signatures":["a.b.c","a.b.c"]}`) }), "policy.bundle-signature", "one signature"},
		"a plugin":       {keys, "team", tampered(func(f map[string][]byte) { f["/.signatures.json"] = []byte(`{"signatures":["a.b.c"],"plugin":"mine"}`) }), "policy.bundle-signature", "one signature"},
		"no algorithm": {keys, "team", tampered(func(f map[string][]byte) {
			f["/.signatures.json"] = []byte(`{"signatures":["eyJhbGciOiJub25lIiwia2lkIjoicmVsZWFzZSJ9.e30."]}`)
		}), "policy.bundle-signature", "does not verify"},
		"key twice":           {keys, "team", tampered(func(f map[string][]byte) { f["/data.json"] = []byte(`{"team":{},"team":{}}`) }), "policy.data", "twice"},
		"no manifest":         {keys, "team", tampered(func(f map[string][]byte) { delete(f, "/.manifest") }), "policy.bundle", ".manifest"},
		"wasm":                {keys, "team", tampered(func(f map[string][]byte) { f["/policy.wasm"] = []byte("x") }), "policy.bundle", "policy.wasm"},
		"a patch":             {keys, "team", tampered(func(f map[string][]byte) { f["/patch.json"] = []byte("{}") }), "policy.bundle", "patch.json"},
		"no order":            {keys, "team", build(team("6f1c9e2b")), "policy.bundle", "no order"},
		"no revision":         {keys, "team", build(team("")), "policy.bundle", "no order"},
		"another name":        {keys, "team", build(with2(team("1"), ".manifest", `{"revision":"1","roots":["ward/run","team"],"metadata":{"name":"other"}}`)), "policy.bundle", `called "other"`},
		"serial of words":     {keys, "team", build(with2(team("1"), ".manifest", `{"revision":"1","roots":["ward/run","team"],"metadata":{"serial":"seven"}}`)), "policy.bundle", "serial"},
		"reserved package":    {keys, "team", build(with2(with2(team("1"), ".manifest", `{"revision":"1","roots":["ward","team"]}`), "evil.rego", "package ward.granted\n\ncapabilities := {\"SYS_ADMIN\"}\n")), "policy.package", "reserved"},
		"reserved data":       {keys, "team", build(with2(with2(team("1"), ".manifest", `{"revision":"1","roots":["ward","team"]}`), "ward/grants/data.json", `{"binds":["/etc"]}`)), "policy.data", "reserved"},
		"replaced decision":   {keys, "team", build(with2(team("1"), "decision.rego", "package ward.run\n\ndecision := {\"allow\": true}\n")), "policy.package", "no effect"},
		"impure":              {keys, "team", build(with2(team("1"), "time.rego", "package team.clock\n\nnow := time.now_ns()\n")), "policy.syntax", "time.now_ns"},
		"local file in roots": {keys, "team", string(good), "policy.package", "alone"},
		"local data in roots": {keys, "team", string(good), "policy.data", "alone"},
		"two with one root":   {key.trusted("release", "*"), "team", string(good), "policy.bundle", "both claim"},
		"a name with blanks":  {key.trusted("release", "*"), "a team", string(good), "policy.bundle", "name"},
	} {
		files := []string{c.file + ".tar.gz", c.archive}
		switch name {
		case "local file in roots":
			files = append(files, "a.rego", "package team.mine\n")
		case "local data in roots":
			files = append(files, "a.json", `{"team": {"config": {"gid": 1}}}`)
		case "two with one root":
			files = append(files, "team2.tar.gz", string(good))
		}
		_, err := policy.Open(policy.Config{Dir: bundled(t, c.keys, files...)})
		var f *fault.Error
		if !errors.As(err, &f) || f.Rule != c.rule || !strings.Contains(f.Cause, c.words) || f.Remedy == "" {
			t.Errorf("%s: %v, want %s %q", name, err, c.rule, c.words)
		}
	}
	// Several bundles add to one decision.
	second := key.build(t, "release", map[string]string{".manifest": `{"revision":"1","roots":["ward/run"]}`, "a.rego": "package ward.run\n\nwarn contains \"second\"\n"})
	e, err := policy.Open(policy.Config{Dir: bundled(t, key.trusted("release", "*"), "team.tar.gz", string(good), "second.tar.gz", string(second), "site.rego", "package ward.run\n\nwarn contains \"local\"\n")})
	if err != nil {
		t.Fatal(err)
	}
	if d := decide(t, e, policyInput(1000)); len(d.Warnings()) != 2 || len(d.Bundles()) != 2 {
		t.Fatal(d.Warnings(), d.Bundles())
	}
}

func policyInput(uid uint32) policy.Input {
	return with(func(in *policy.Input) { in.Run.User.UID = uid })
}

// A file with the keys that could be read in two ways is read in none.
func TestBundleKeysRefused(t *testing.T) {
	key, weak := pairOf(t, "ES256"), pairOf(t, "RS256")
	good := key.trusted("release", "team")[0]
	line := func(k policy.BundleKey) string {
		b, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	changed := func(change func(*policy.BundleKey)) string {
		k := good
		change(&k)
		return `{"keys":[` + line(k) + `]}`
	}
	for name, text := range map[string]string{
		"not JSON":          `{`,
		"unknown member":    `{"keys":[],"other":1}`,
		"unknown of a key":  `{"keys":[` + strings.Replace(line(good), `"name"`, `"expires":"x","name"`, 1) + `]}`,
		"twice":             `{"keys":[` + line(good) + "," + line(good) + `]}`,
		"members twice":     `{"keys":[],"keys":[` + line(good) + `]}`,
		"no bundles":        changed(func(k *policy.BundleKey) { k.Bundles = nil }),
		"odd bundle":        changed(func(k *policy.BundleKey) { k.Bundles = []string{"te*"} }),
		"no name":           changed(func(k *policy.BundleKey) { k.Name = "" }),
		"a shared secret":   changed(func(k *policy.BundleKey) { k.Algorithm, k.PEM = "HS256", "secret" }),
		"HMAC with a PEM":   changed(func(k *policy.BundleKey) { k.Algorithm = "HS256" }),
		"none":              changed(func(k *policy.BundleKey) { k.Algorithm = "none" }),
		"another algorithm": changed(func(k *policy.BundleKey) { k.Algorithm = "RS256" }),
		"another curve":     changed(func(k *policy.BundleKey) { k.Algorithm = "ES384" }),
		"private key":       changed(func(k *policy.BundleKey) { k.PEM = key.private }),
		"two keys":          changed(func(k *policy.BundleKey) { k.PEM += weak.public }),
		"no key":            changed(func(k *policy.BundleKey) { k.PEM = "" }),
	} {
		d := bundled(t, nil, "team.tar.gz", string(key.build(t, "release", team("1"))), "../policy-keys.json", text)
		if _, err := policy.Open(policy.Config{Dir: d}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	d := bundled(t, []policy.BundleKey{good}, "team.tar.gz", string(key.build(t, "release", team("1"))))
	if err := os.Chmod(policy.KeysFile(d), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Open(policy.Config{Dir: d}); !errors.Is(err, fault.Invalid) {
		t.Error("keys that anybody can write:", err)
	}
}

func TestBundleOrder(t *testing.T) {
	at := func(revision string, serial int64, digest string) policy.Bundle {
		return policy.Bundle{Name: "team", Revision: revision, Serial: serial, Digest: "sha256:" + digest}
	}
	for _, c := range []struct {
		was, now policy.Bundle
		rule     string // "" is newer
	}{
		{at("1", 0, "a"), at("2", 0, "b"), ""},
		{at("9", 0, "a"), at("10", 0, "b"), ""},
		{at("v1.2.9", 0, "a"), at("v1.2.10", 0, "b"), ""},
		{at("1.2", 0, "a"), at("1.2.1", 0, "b"), ""},
		{at("2026-11-28", 0, "a"), at("2026-11-28.1", 0, "b"), ""},
		{at("2026-11-28T10:00:00Z", 0, "a"), at("2026-11-28T11:00:00+00:30", 0, "b"), ""},
		{at("6f1c", 7, "a"), at("0000", 8, "b"), ""},
		{at("2", 0, "a"), at("1", 0, "b"), "policy.bundle-rollback"},
		{at("10", 0, "a"), at("9", 0, "b"), "policy.bundle-rollback"},
		{at("1.2.1", 0, "a"), at("1.2", 0, "b"), "policy.bundle-rollback"},
		{at("1", 0, "a"), at("1", 0, "b"), "policy.bundle-rollback"},
		{at("1.0", 0, "a"), at("1", 0, "b"), "policy.bundle-rollback"},
		{at("2026-11-28T10:00:00Z", 0, "a"), at("2026-11-28T11:00:00+02:00", 0, "b"), "policy.bundle-rollback"},
		{at("a", 8, "a"), at("b", 7, "b"), "policy.bundle-rollback"},
		// Of another kind: who drops the serial could name any revision.
		{at("1", 8, "a"), at("9", 0, "b"), "policy.bundle-rollback"},
		{at("1", 0, "a"), at("1", 9, "b"), "policy.bundle-rollback"},
		{at("3", 0, "a"), at("2026-11-28T10:00:00Z", 0, "b"), "policy.bundle-rollback"},
	} {
		newer, err := policy.Newest{"team": c.was}.Check([]policy.Bundle{c.now})
		if c.rule == "" && (err != nil || len(newer) != 1) {
			t.Errorf("%v then %v: %v", c.was, c.now, err)
		} else if c.rule != "" {
			refused(t, err, fault.Denied, c.rule, "team")
		}
	}
	// The same again is fine, and not newer; another name is new; one that is gone is not.
	same := at("1", 0, "a")
	if newer, err := (policy.Newest{"team": same}).Check([]policy.Bundle{same}); err != nil || newer != nil {
		t.Error(newer, err)
	}
	if newer, err := (policy.Newest{}).Check([]policy.Bundle{same}); err != nil || len(newer) != 1 {
		t.Error(newer, err)
	}
	_, err := policy.Newest{"team": same}.Check(nil)
	refused(t, err, fault.Denied, "policy.bundle-gone", "team", "rm --unsafe team")
}

// entriesOf and packed take an archive apart and put one together.
func entriesOf(t testing.TB, archive []byte) map[string][]byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err != nil {
			return out
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		out[h.Name] = b.Bytes()
	}
}

func packed(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var hs []tar.Header
	for name := range files {
		hs = append(hs, tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(files[name])), Mode: 0o644})
	}
	return archiveOf(t, hs, func(h tar.Header) []byte { return files[h.Name] })
}

func archiveOf(t testing.TB, hs []tar.Header, content func(tar.Header) []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, h := range hs {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(h.Name, err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(content(h)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
