package ci

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

// cosign is the real one, as other people run it.
func cosign(t *testing.T) string {
	bin := os.Getenv("WARD_COSIGN")
	if bin == "" {
		bin = filepath.Join("..", "..", "bin", "tools", "cosign")
	}
	path, err := exec.LookPath(bin)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		t.Skipf("needs the real cosign (make bin/tools/cosign, or WARD_COSIGN): %v", err)
	}
	return path
}

const vsaType = "https://slsa.dev/verification_summary/v1"

// Summaries are signed of what is admitted and of nothing else, and the real
// cosign accepts them: from the registry in both forms, and no others.
func TestVerificationSummaries(t *testing.T) {
	bin := cosign(t)
	w := lab.New(t)
	reg := w.Registry()
	good, unsigned := reg.Addr+"/demo/good:1", reg.Addr+"/demo/unsigned:1"
	for i, ref := range []string{good, unsigned} {
		w.Busybox(ref, tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprint(i, "/"), Mode: 0o755})
		if ref == good {
			w.Vouch(ref)
		}
		w.Must("push", ref)
		w.Must("rmi", ref) // the gate looks at the registry alone
	}
	keys := filepath.Join(w.Dir, "verifier")
	w.Must("key", "generate", "--out", keys)
	key, pub := filepath.Join(keys, "cosign.key"), filepath.Join(keys, "cosign.pub")
	// An empty one: nothing but the key vouches, and nobody is asked.
	root := filepath.Join(w.Dir, "root.json")
	if err := os.WriteFile(root, []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	accepted := func(args ...string) (bool, string) {
		cmd := exec.Command(bin, append([]string{"verify-attestation", "--insecure-ignore-tlog", "--trusted-root", root, "--type", vsaType}, args...)...)
		cmd.Env = append(w.Env, "NO_PROXY=*")
		r := w.Finish(cmd)
		return r.Code == 0, r.Stdout + r.Stderr
	}

	// One of two is admitted: the exit code is the deny's, the summary is there.
	dir := filepath.Join(w.Dir, "vsa")
	r := w.Do("gate", "--vsa", dir+"/", "--vsa-key", key, "--vsa-upload", good, unsigned, good)
	if r.Code != 1 {
		t.Fatalf("exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(files) != 1 || w.Count(audit.GateSummary, "") != 1 {
		t.Fatalf("files %v, %d on record", files, w.Count(audit.GateSummary, ""))
	}
	checkSummary(t, w, files[0])
	if ok, out := accepted("--key", pub, good); !ok {
		t.Errorf("cosign refuses it: %s", out)
	}
	if ok, _ := accepted("--key", filepath.Join(w.Dir, "cosign.pub"), good); ok {
		t.Error("cosign accepts it by another key")
	}
	if ok, _ := accepted("--key", pub, unsigned); ok {
		t.Error("there is a summary of what was denied")
	}

	// The same as a bundle, into one file.
	file := filepath.Join(w.Dir, "all.jsonl")
	if r := w.Do("gate", "--vsa", file, "--vsa-key", key, "--vsa-format", "bundle", "--vsa-upload", "--vsa-verifier", "https://ci.example/gate", good); r.Code != 0 {
		t.Fatalf("exit %d\n%s", r.Code, r.Stderr)
	}
	if ok, out := accepted("--new-bundle-format", "--key", pub, good); !ok {
		t.Errorf("cosign refuses the bundle: %s", out)
	}
	if b, err := os.ReadFile(file); err != nil || bytes.Count(b, []byte("\n")) != 1 || !json.Valid(b) {
		t.Errorf("%v: %s", err, b)
	}

	// A key that cannot be used makes no summary, and the answer no allow.
	for _, tc := range []struct {
		args []string
		code int
	}{
		{[]string{"--vsa", dir, "--vsa-key", filepath.Join(w.Dir, "none.key"), good}, 2},
		{[]string{"--vsa", dir, "--vsa-key", filepath.Join(w.Dir, "none.key"), unsigned}, 1},
		{[]string{"--vsa", filepath.Join(w.Dir, "no/such/file"), "--vsa-key", key, good}, 2},
		{[]string{"--vsa", "/dev/null", "--vsa-key", key, good}, 2},
		{[]string{"--vsa", dir, good}, 2}, {[]string{"--vsa-key", key, good}, 2},
		{[]string{"--vsa-format", "x", "--vsa", dir, "--vsa-key", key, good}, 2},
		{[]string{"--vsa-verifier", "me", "--vsa", dir, "--vsa-key", key, good}, 2},
		{[]string{"--vsa-upload", "--offline", "--vsa-key", key, good}, 2},
	} {
		if r := w.Do(append([]string{"gate"}, tc.args...)...); r.Code != tc.code {
			t.Errorf("%v: exit %d, want %d\n%s%s", tc.args, r.Code, tc.code, r.Stdout, r.Stderr)
		}
	}
	w.Must("audit", "verify")
}

// checkSummary reads what a consumer would.
func checkSummary(t *testing.T, w *lab.Ward, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var envelope struct {
		PayloadType, Payload string
		Signatures           []struct{ Sig string }
	}
	if err := json.Unmarshal(b, &envelope); err != nil || len(envelope.Signatures) != 1 || envelope.PayloadType != "application/vnd.in-toto+json" {
		t.Fatalf("%v: %s", err, b)
	}
	text, err := base64.StdEncoding.DecodeString(envelope.Payload)
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Type          string `json:"_type"`
		PredicateType string
		Subject       []struct{ Digest map[string]string }
		Predicate     struct {
			ResourceURI, VerificationResult string
			Policy                          struct {
				Digest, Annotations map[string]string
			}
			InputAttestations []struct{ Digest map[string]string }
			VerifiedLevels    []string
		}
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	var d struct {
		Image    struct{ Digest string }
		Decision struct{ Answer struct{ Revision string } }
		Input    string
	}
	for _, e := range w.Records() {
		if e.Type == audit.GateDecision && d.Input == "" && bytes.Contains(e.Leaf, []byte(`"outcome":"allow"`)) {
			if err := json.Unmarshal(e.Data, &d); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := s.Predicate
	if s.Type != "https://in-toto.io/Statement/v1" || s.PredicateType != vsaType || len(s.Subject) != 1 || "sha256:"+s.Subject[0].Digest["sha256"] != d.Image.Digest ||
		!strings.HasSuffix(file, "/sha256-"+s.Subject[0].Digest["sha256"]+".vsa.json") {
		t.Errorf("about %+v, and %s was admitted", s, d.Image.Digest)
	}
	if "sha256:"+p.Policy.Digest["sha256"] != d.Decision.Answer.Revision || p.Policy.Annotations["input"] != d.Input || p.VerificationResult != "PASSED" {
		t.Errorf("policy %+v, on record %+v", p.Policy, d)
	}
	if len(p.InputAttestations) != 1 || len(p.VerifiedLevels) != 1 || !strings.HasPrefix(p.ResourceURI, "pkg:oci/good@sha256%3A") {
		t.Errorf("%+v", p)
	}
}
