package verify_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/verify"
)

// indented puts a PEM key under "data: |" at the depth of cip.
func indented(pem []byte) string {
	return strings.ReplaceAll(strings.TrimSpace(string(pem)), "\n", "\n          ")
}

// cip is a policy as a cluster would have it; spec replaces authorities and
// all that follows.
func cip(name, glob, spec string) string {
	return fmt.Sprintf("apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata:\n  name: %s\nspec:\n  images:\n    - glob: %q\n%s", name, glob, spec)
}

func byKey(pem []byte) string {
	return "  authorities:\n    - key:\n        data: |\n          " + indented(pem) + "\n"
}

func write(t testing.TB, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestEveryMatchingPolicyMustBeSatisfied(t *testing.T) {
	build, release, dir := newKey(t), newKey(t), t.TempDir()
	write(t, dir, "a.yaml", cip("build", "registry.example.com/**", byKey(build.pem)))
	write(t, dir, "b.yml", cip("release", "registry.example.com/team/*", byKey(release.pem)))
	write(t, dir, "c.yaml", cip("elsewhere", "ghcr.io/**", byKey(newKey(t).pem)))
	v := open(t, dir)
	one, two := build.sign(t, verify.KindCosign, imageDigest), release.sign(t, verify.KindBundle, indexDigest)
	for name, m := range map[string][]verify.Material{"build": {one}, "release": {two}, "build twice": {one, one}} {
		e, err := v.Verify(t.Context(), subject(), m)
		f := refused(t, e, err, fault.Unverified, "trust.wrong-key")
		if name == "build" && !strings.Contains(f.Cause, `"release"`) {
			t.Errorf("the refusal does not name the policy: %s", f.Cause)
		}
	}
	e, err := v.Verify(t.Context(), subject(), []verify.Material{one, two})
	if err != nil || !slices.Equal(e.Policies(), []string{"build", "release"}) || len(e.Signers()) != 2 {
		t.Fatalf("%+v %v", e, err)
	}
}

func TestOneAuthorityIsEnough(t *testing.T) {
	old, rotated, dir := newKey(t), newKey(t), t.TempDir()
	write(t, dir, "a.yaml", cip("rotation", "**", byKey(old.pem)+
		"    - name: new\n      key:\n        data: |\n          "+indented(rotated.pem)+"\n    - static:\n        action: fail\n"))
	v := open(t, dir)
	for want, k := range map[string]keyPair{"authority-0": old, "new": rotated} {
		e, err := v.Verify(t.Context(), subject(), []verify.Material{k.sign(t, verify.KindCosign, imageDigest)})
		if err != nil || len(e.Signers()) != 1 || e.Signers()[0].Authority != want || e.Signers()[0].Policy != "rotation" {
			t.Errorf("%s: %+v %v", want, e, err)
		}
	}
	// Several keys in one authority are alternatives, as in a cluster.
	write(t, dir, "a.yaml", cip("both", "**", byKey(append(slices.Clone(old.pem), rotated.pem...))))
	for _, k := range []keyPair{old, rotated} {
		if e, err := open(t, dir).Verify(t.Context(), subject(), []verify.Material{k.sign(t, verify.KindCosign, imageDigest)}); err != nil || !e.Verified() {
			t.Error(err)
		}
	}
}

func TestSignatureFormat(t *testing.T) {
	k := newKey(t)
	for want, format := range map[string]string{verify.KindCosign: "legacy", verify.KindBundle: "bundle"} {
		dir := t.TempDir()
		write(t, dir, "a.yaml", cip("one", "**", byKey(k.pem)+"      signatureFormat: "+format+"\n"))
		for _, kind := range []string{verify.KindCosign, verify.KindBundle} {
			e, err := open(t, dir).Verify(t.Context(), subject(), []verify.Material{k.sign(t, kind, imageDigest)})
			if kind == want {
				if err != nil || !e.Verified() {
					t.Errorf("%s: %v", format, err)
				}
				continue
			}
			refused(t, e, err, fault.Unverified, "trust.wrong-key")
		}
	}
}

func TestFailFails(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	write(t, dir, "a.yaml", cip("warn", "**", "  mode: warn\n"+byKey(k.pem)))
	if list, err := verify.TrustList(dir); err != nil || list[0].Mode != "warn" {
		t.Fatalf("%+v %v", list, err)
	}
	write(t, dir, "a.yaml", cip("never", "**", "  authorities:\n    - static:\n        action: fail\n        message: use the new name\n"))
	e, err := open(t, dir).Verify(t.Context(), subject(), []verify.Material{k.sign(t, verify.KindCosign, imageDigest)})
	if f := refused(t, e, err, fault.Unverified, "trust.denied"); !strings.Contains(f.Cause, "use the new name") {
		t.Fatal(f.Cause)
	}
}

// What kubectl prints is accepted as it is.
func TestClusterFilesAsTheyAre(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	item := strings.ReplaceAll("- "+strings.TrimSpace(strings.ReplaceAll(cip("listed", "ghcr.io/**", byKey(k.pem)), "\n", "\n  ")), "metadata:\n",
		"metadata:\n    annotations: {a: b}\n    creationTimestamp: \"2025-01-01T00:00:00Z\"\n    generation: 2\n    managedFields: [{manager: kubectl}]\n    resourceVersion: \"7\"\n    uid: x\n")
	write(t, dir, "list.yaml", "apiVersion: v1\nkind: List\nmetadata:\n  resourceVersion: \"\"\nitems:\n"+item+"\n")
	write(t, dir, "docs.yaml", "---\n# two in one file\n"+cip("first", "docker.io/**", byKey(k.pem)+"      ctlog: {}\nstatus:\n  conditions: []\n")+"---\n"+
		cip("second", "quay.io/**", "  mode: enforce\n"+byKey(k.pem)+"      name: main\n"))
	write(t, dir, ".hidden", "not read")
	list, err := verify.TrustList(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range list {
		names = append(names, p.Name)
	}
	if !slices.Equal(names, []string{"first", "listed", "second"}) || list[2].Authorities[0].Name != "main" || len(list[2].Authorities[0].KeyIDs) != 1 {
		t.Fatalf("%+v", list)
	}
}

func TestTrustErrorsNameTheLine(t *testing.T) {
	k := newKey(t)
	file, _ := keyFiles(t, "")
	private, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	good := byKey(k.pem)
	for name, c := range map[string]struct {
		content, where, what string
	}{
		"syntax":             {"apiVersion: x\n\tkind: y\n", ":2:", "character"},
		"unclosed":           {cip("a", "**", good) + "x: [", ":", ""},
		"unknown top":        {cip("a", "**", good) + "extra: 1\n", ":15:", `unknown field "extra"`},
		"unknown spec":       {cip("a", "**", good+"  modus: warn\n"), ":15:", `"modus"`},
		"unknown authority":  {cip("a", "**", good+"      keyles: {}\n"), ":15:", `"keyles"`},
		"written twice":      {cip("a", "**", good+"  mode: warn\n  mode: enforce\n"), ":16:", "mode"},
		"other kind":         {strings.Replace(cip("a", "**", good), "kind: ClusterImagePolicy", "kind: TrustRoot", 1), ":1:", "TrustRoot"},
		"other version":      {strings.Replace(cip("a", "**", good), "v1beta1", "v1alpha1", 1), ":1:", "v1alpha1"},
		"no name":            {strings.Replace(cip("a", "**", good), "name: a", "uid: a", 1), ":3:", "metadata.name"},
		"bad name":           {cip("A_b", "**", good), ":3:", "A_b"},
		"no authorities":     {cip("a", "**", ""), ":5:", "authorities is missing"},
		"empty authorities":  {cip("a", "**", "  authorities: []\n"), ":8:", "empty"},
		"null authorities":   {cip("a", "**", "  authorities:\n"), ":8:", "list"},
		"empty authority":    {cip("a", "**", "  authorities:\n    - {}\n"), ":9:", "exactly one"},
		"key and static":     {cip("a", "**", good+"      static:\n        action: fail\n"), ":9:", "exactly one"},
		"no images":          {strings.Replace(cip("a", "**", good), "  images:\n    - glob: \"**\"\n", "", 1), ":5:", "images"},
		"regexp for a glob":  {cip("a", "a.+[b]", good), ":7:", "glob"},
		"empty glob":         {cip("a", "", good), ":7:", "glob"},
		"static maybe":       {cip("a", "**", "  authorities:\n    - static:\n        action: warn\n"), ":9:", "not pass or fail"},
		"static nothing":     {cip("a", "**", "  authorities:\n    - static: {}\n"), ":9:", "not pass or fail"},
		"keyless":            {cip("a", "**", "  authorities:\n    - keyless:\n        url: https://x\n"), ":9:", "identities is missing"},
		"attestations":       {cip("a", "**", good+"      attestations:\n        - name: x\n"), ":16:", "predicateType is missing"},
		"no attestations":    {cip("a", "**", good+"      attestations: []\n"), ":15:", "empty"},
		"unnamed":            {cip("a", "**", good+"      attestations:\n        - predicateType: vuln\n"), ":16:", "name of its own"},
		"named alike":        {cip("a", "**", good+"      attestations:\n        - {name: x, predicateType: vuln}\n        - {name: x, predicateType: spdx}\n"), ":17:", "name of its own"},
		"no such type":       {cip("a", "**", good+"      attestations:\n        - {name: x, predicateType: vulnerability}\n"), ":16:", "neither a URI"},
		"a signature's type": {cip("a", "**", good+"      attestations:\n        - {name: x, predicateType: \"https://sigstore.dev/cosign/sign/v1\"}\n"), ":16:", "type of a signature"},
		"static, attested":   {cip("a", "**", "  authorities:\n    - static: {action: pass}\n      attestations:\n        - {name: x, predicateType: vuln}\n"), ":9:", "static authority"},
		"cue":                {cip("a", "**", good+"      attestations:\n        - name: x\n          predicateType: vuln\n          policy: {type: cue, data: x}\n"), ":18:", "cue is not supported"},
		"no language":        {cip("a", "**", good+"  policy: {data: x}\n"), ":15:", "is not rego"},
		"no rules":           {cip("a", "**", good+"  policy: {type: rego, data: \" \"}\n"), ":15:", "empty"},
		"a remote policy":    {cip("a", "**", good+"  policy:\n    type: rego\n    remote: {url: https://x}\n"), ":17:", "policy.remote is not supported"},
		"a config map":       {cip("a", "**", good+"  policy:\n    type: rego\n    configMapRef: {name: x}\n"), ":17:", "configMapRef"},
		"config file":        {cip("a", "**", good+"  policy:\n    type: rego\n    fetchConfigFile: true\n"), ":17:", "fetchConfigFile"},
		"object's spec":      {cip("a", "**", good+"  policy:\n    type: rego\n    includeSpec: true\n"), ":17:", "includeSpec"},
		"match of what":      {cip("a", "**", good+"  match:\n    - resource: poods\n      version: v1\n"), ":16:", "poods"},
		"match by what":      {cip("a", "**", good+"  match:\n    - {resource: pods, kind: Pod}\n"), ":16:", "kind"},
		"selector of what":   {cip("a", "**", good+"  match:\n    - selector: {matchLabels: {a: b}}\n"), ":16:", "needs a resource"},
		"selector how":       {cip("a", "**", good+"  match:\n    - {resource: pods, version: v1, selector: {matchLabels: x}}\n"), ":16:", "wrong form"},
		"source":             {cip("a", "**", good+"      source:\n        - oci: x\n"), ":15:", "source"},
		"ctlog without host": {cip("a", "**", good+"      ctlog:\n        url: x\n"), ":16:", "not an address"},
		"timestamp":          {cip("a", "**", good+"      rfc3161timestamp: {trustRootRef: ../x}\n"), ":15:", "not a name"},
		"policy in policy":   {cip("a", "**", good+"  policy: {type: cue}\n"), ":15:", "spec.policy"},
		"match":              {cip("a", "**", good+"  match: []\n"), ":15:", "spec.match"},
		"mode":               {cip("a", "**", good+"  mode: off\n"), ":15:", "mode"},
		"format":             {cip("a", "**", good+"      signatureFormat: both\n"), ":15:", "both"},
		"secret":             {cip("a", "**", "  authorities:\n    - key:\n        secretRef: {name: x}\n"), ":10:", "secretRef"},
		"kms":                {cip("a", "**", "  authorities:\n    - key:\n        kms: awskms:///x\n"), ":10:", "kms"},
		"no key data":        {cip("a", "**", "  authorities:\n    - key: {}\n"), ":9:", "no public key"},
		"hash":               {cip("a", "**", "  authorities:\n    - key: {hashAlgorithm: sha1}\n"), ":9:", "sha1"},
		"not a key":          {cip("a", "**", "  authorities:\n    - key: {data: hello}\n"), ":9:", "PEM"},
		"private key":        {cip("a", "**", byKey(private)), ":10:", "PRIVATE KEY"},
		"text before a key":  {cip("a", "**", byKey(append([]byte("mine:\n"), k.pem...))), ":10:", "outside"},
		"text after a key":   {cip("a", "**", byKey(append(slices.Clone(k.pem), "or this\n"...))), ":10:", "PEM"},
		"broken second key":  {cip("a", "**", byKey(append(slices.Clone(k.pem), strings.Replace(string(k.pem), "MFk", "AAA", 1)...))), ":10:", "PEM"},
		"number for a name":  {cip("7", "**", good), ":4:", "string"},
		"anchor":             {strings.Replace(cip("a", "**", good), "name: a", "name: &a a", 1), ":4:", "anchors"},
		"alias":              {cip("a", "**", good+"  mode: *x\n"), ":", "anchor"},
		"tagged block":       {strings.Replace(cip("a", "**", good), "metadata:", "metadata: !x", 1), ":3:", "tag"},
		"merge":              {strings.Replace(cip("a", "**", good), "  name: a", "  name: a\n  <<: {uid: b}", 1), ":5:", ""},
		"tag":                {strings.Replace(cip("a", "**", good), "name: a", "name: !x a", 1), ":4:", "tag"},
		"list in a list":     {"apiVersion: v1\nkind: List\nitems:\n  - apiVersion: v1\n    kind: List\n    items: []\n", ":4:", "list"},
		"empty list":         {"apiVersion: v1\nkind: List\nitems: []\n", ":3:", "empty"},
		"nothing":            {"# nothing\n---\n", ":", "no ClusterImagePolicy"},
		"not a mapping":      {"- a\n- b\n", ":1:", "mapping"},
		"twice in two files": {cip("good", "**", good), ":1:", "also defined"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "bad.yaml", c.content)
			// A good policy beside it must not save the directory.
			write(t, dir, "good.yaml", cip("good", "**", good))
			v, err := verify.Open(dir)
			if v != nil {
				t.Error("a verifier in spite of an error")
			}
			f := refused(t, verify.Evidence{}, err, fault.Invalid, "trust.policy")
			file := filepath.Join(dir, "bad.yaml")
			if name == "twice in two files" {
				file = filepath.Join(dir, "good.yaml")
			}
			// The path holds the test's name: look behind it.
			if rest, ok := strings.CutPrefix(f.Cause, file); !ok || !strings.HasPrefix(rest, c.where) || !strings.Contains(rest, c.what) || f.Remedy == "" {
				t.Errorf("want %s%s … %s, got %s", file, c.where, c.what, f.Cause)
			}
			if _, err := verify.TrustAdd(dir, verify.TrustRule{Glob: "x/**", KeyPEM: k.pem}); fault.As(err).Rule != "trust.policy" {
				t.Errorf("added to a broken directory: %v", err)
			}
		})
	}
}

func TestUnreadableTrustRefusesEverything(t *testing.T) {
	k := newKey(t)
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"stray file":    func(t *testing.T, dir string) { write(t, dir, "policy.yaml.bak", "") },
		"directory":     func(t *testing.T, dir string) { must(t, os.Mkdir(filepath.Join(dir, "old.yaml"), 0o755)) },
		"fifo":          func(t *testing.T, dir string) { must(t, syscall.Mkfifo(filepath.Join(dir, "f.yaml"), 0o600)) },
		"dangling link": func(t *testing.T, dir string) { must(t, os.Symlink("nowhere", filepath.Join(dir, "l.yaml"))) },
		"too large": func(t *testing.T, dir string) {
			write(t, dir, "b.yaml", cip("b", "**", byKey(k.pem))+strings.Repeat("#\n", 128<<10))
		},
		"anybody's file":    func(t *testing.T, dir string) { must(t, os.Chmod(filepath.Join(dir, "good.yaml"), 0o666)) },
		"anybody's dir":     func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o777)) },
		"empty file":        func(t *testing.T, dir string) { write(t, dir, "b.yaml", "") },
		"NUL bytes":         func(t *testing.T, dir string) { write(t, dir, "b.yaml", "\x00\x00") },
		"unreadable (user)": func(t *testing.T, dir string) { unreadable(t, filepath.Join(dir, "good.yaml")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "good.yaml", cip("good", "**", byKey(k.pem)))
			spoil(t, dir)
			_, err := verify.Open(dir)
			f := refused(t, verify.Evidence{}, err, fault.Invalid, "trust.policy")
			if name == "fifo" && !strings.Contains(f.Cause, "regular") {
				t.Error(f.Cause) // and not only because nothing came out of it
			}
		})
	}
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	_, err := verify.Open(file)
	refused(t, verify.Evidence{}, err, fault.Invalid, "trust.policy")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func unreadable(t *testing.T, path string) {
	if os.Geteuid() == 0 {
		t.Skip("needs a user other than root, who can read everything")
	}
	must(t, os.Chmod(path, 0))
}

func TestTrustAddListRemoveTest(t *testing.T) {
	k, dir := newKey(t), filepath.Join(t.TempDir(), "trust.d")
	path, err := verify.TrustAdd(dir, verify.TrustRule{Glob: "registry.example.com/team/*", KeyPEM: k.pem})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify.TrustAdd(dir, verify.TrustRule{Glob: "registry.example.com/team/*", KeyPEM: k.pem}); fault.As(err).Rule != "trust.exists" {
		t.Fatalf("added twice: %v", err)
	}
	if _, err := verify.TrustAdd(dir, verify.TrustRule{Name: "all", Glob: "**", KeyPEM: append([]byte("\r\n"), strings.ReplaceAll(string(k.pem), "\n", "\r\n")...)}); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]verify.TrustRule{
		"trust.key":  {Glob: "**", KeyPEM: []byte("x")},
		"trust.glob": {Glob: "a b", KeyPEM: k.pem},
		"trust.name": {Name: "../x", Glob: "**", KeyPEM: k.pem},
	} {
		if _, err := verify.TrustAdd(dir, r); fault.As(err).Rule != name || fault.ClassOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := verify.TrustAdd(dir, verify.TrustRule{Glob: "**", KeyPEM: append(slices.Clone(k.pem), k.pem...)}); err == nil {
		t.Error("two keys in one rule")
	}
	matched, err := verify.TrustTest(dir, "registry.example.com/team/app")
	if err != nil || len(matched) != 2 || matched[0].Glob != "**" || matched[1].File != path {
		t.Fatalf("%+v %v", matched, err)
	}
	if matched, err := verify.TrustTest(dir, "ghcr.io/x/y"); err != nil || len(matched) != 1 || matched[0].Name != "all" {
		t.Fatalf("%+v %v", matched, err)
	}
	if _, err := verify.TrustTest(dir, "a b"); fault.ClassOf(err) != fault.Invalid {
		t.Fatal(err)
	}
	if err := verify.TrustRemove(dir, "none"); fault.ClassOf(err) != fault.NotFound {
		t.Fatal(err)
	}
	must(t, verify.TrustRemove(dir, "all"))
	must(t, verify.TrustRemove(dir, matched[1].Name))
	if list, err := verify.TrustList(dir); err != nil || len(list) != 0 {
		t.Fatalf("%+v %v", list, err)
	}
	write(t, dir, "one.yaml", cip("taken", "**", byKey(k.pem)))
	if _, err := verify.TrustAdd(dir, verify.TrustRule{Name: "taken", Glob: "x/**", KeyPEM: k.pem}); fault.As(err).Rule != "trust.exists" {
		t.Fatalf("a name taken in another file: %v", err)
	}
	must(t, verify.TrustRemove(dir, "taken"))
	write(t, dir, "two.yaml", cip("a", "**", byKey(k.pem))+"---\n"+cip("b", "**", byKey(k.pem)))
	if err := verify.TrustRemove(dir, "a"); fault.As(err).Rule != "trust.shared-file" {
		t.Fatal(err)
	}
	if list, _ := verify.TrustList(dir); len(list) != 2 {
		t.Fatalf("%+v", list)
	}
}

func TestGenerateKeyNeverOverwrites(t *testing.T) {
	for _, name := range []string{"cosign.key", "cosign.pub"} {
		dir := t.TempDir()
		write(t, dir, name, "mine")
		if _, _, err := verify.GenerateKey(dir, nil); fault.As(err).Rule != "key.exists" {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		b, _ := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(entries) != 1 || string(b) != "mine" {
			t.Fatalf("%v %q", entries, b)
		}
	}
	key, pub, err := verify.GenerateKey(t.TempDir(), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(key)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", st.Mode(), err)
	}
	for name, path := range map[string]string{"wrong password": key, "public key": pub, "none": pub + "x"} {
		_, err := verify.Sign(t.Context(), verify.SignRequest{KeyPath: path, Reference: imageRef, Digest: imageDigest, Format: verify.KindCosign})
		if fault.As(err).Rule != "key.read" || fault.As(err).Remedy == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := verify.GenerateKey(filepath.Join(t.TempDir(), "none"), nil); fault.ClassOf(err) != fault.Invalid {
		t.Error(err)
	}
}

func TestSignRefusesWhatItCannotSay(t *testing.T) {
	private, _ := keyFiles(t, "")
	r := verify.SignRequest{KeyPath: private, Reference: imageRef, Digest: imageDigest, Format: verify.KindBundle}
	for name, change := range map[string]func(*verify.SignRequest){
		"sign.annotations": func(r *verify.SignRequest) { r.Annotations = map[string]string{"a": "b"} },
		"sign.format":      func(r *verify.SignRequest) { r.Format = "" },
		"sign.digest":      func(r *verify.SignRequest) { r.Digest = "latest" },
		"sign.reference":   func(r *verify.SignRequest) { r.Reference = "" },
	} {
		bad := r
		change(&bad)
		if m, err := verify.Sign(t.Context(), bad); fault.As(err).Rule != name || m.Payload != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
