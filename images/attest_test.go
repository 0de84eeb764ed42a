package images_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/images/registry"
	"github.com/ward-project/ward/internal/fault"
)

const vulnType = "https://cosign.sigstore.dev/attestation/vuln/v1"

// statement is an in-toto statement of some size about digest.
func statement(digest, kind, what string) string {
	return fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v0.1","subject":[{"name":"x","digest":{"sha256":%q}}],"predicateType":%q,"predicate":{"what":%q}}`,
		strings.TrimPrefix(digest, "sha256:"), kind, what)
}

func envelopeAtt(digest, kind, what string) images.Attachment {
	p := base64.StdEncoding.EncodeToString([]byte(statement(digest, kind, what)))
	return images.Attachment{Subject: digest, Kind: images.KindEnvelope, MediaType: "application/vnd.dsse.envelope.v1+json",
		Payload:     []byte(`{"payloadType":"application/vnd.in-toto+json","payload":"` + p + `","signatures":[{"sig":"AA=="}]}`),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": "", "predicateType": kind}}
}

func statedBundle(digest, kind, what string) images.Attachment {
	p := base64.StdEncoding.EncodeToString([]byte(statement(digest, kind, what)))
	return images.Attachment{Subject: digest, Kind: images.KindBundle, MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		Payload: []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{"payloadType":"application/vnd.in-toto+json","payload":"` + p + `","signatures":[{"sig":"AA=="}]}}`)}
}

func stated(t testing.TB, s *images.Store, digest string) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, a := range must(s.Attestations(bg, digest))(t) {
		got[a.Kind+" "+a.PredicateType] = a.Omitted
	}
	return got
}

// Attestations of both forms travel with the image, from and to any registry,
// and never become signatures, whatever a registry calls them.
func TestCarriesAttestations(t *testing.T) {
	for name, start := range registries {
		t.Run(name, func(t *testing.T) {
			ref := start(t) + "/team/app:1"
			a, _ := newStore(t)
			img := importAs(t, a, ref)
			check(t, a.Attach(bg, cosignAtt(img.Digest, "S")))
			check(t, a.Attach(bg, bundleAtt(img.Digest, "B")))
			for _, what := range []string{"one", "two"} {
				check(t, a.Attest(bg, envelopeAtt(img.Digest, vulnType, what)))
				check(t, a.Attest(bg, statedBundle(img.Digest, "https://slsa.dev/provenance/v1", what)))
			}
			// Larger than any signature may be.
			check(t, a.Attest(bg, statedBundle(img.Digest, "https://spdx.dev/Document", strings.Repeat("large", 1<<19))))
			// cosign labels some of its attestations so.
			wrong := statedBundle(img.Digest, "https://openvex.dev/ns", "mislabelled")
			wrong.Annotations = map[string]string{"dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1"}
			check(t, a.Attest(bg, wrong))
			must(a.Push(bg, ref, images.PushOptions{}))(t)
			must(a.Push(bg, ref, images.PushOptions{}))(t) // adds nothing
			b, _ := newStore(t)
			must(b.Pull(bg, ref, images.PullOptions{}))(t)
			have(t, b, img.Digest, "S", "B")
			list := must(b.Attestations(bg, img.Digest))(t)
			kinds := map[string]int{}
			for _, at := range list {
				kinds[at.Kind+" "+at.PredicateType]++
				if at.Omitted != "" || len(at.Payload) == 0 || at.Subject != img.Digest || at.From == "" {
					t.Errorf("%+v", at)
				}
			}
			if kinds["envelope "+vulnType] != 2 || kinds["bundle https://slsa.dev/provenance/v1"] != 2 || kinds["bundle https://spdx.dev/Document"] != 1 ||
				kinds["bundle https://openvex.dev/ns"] != 1 || len(list) != 6 {
				t.Fatalf("pulled %v", kinds)
			}
			// What is removed from the store takes them along.
			must(b.Remove(bg, ref, nil))(t)
			if n := len(must(b.ListAttestations(bg, img.Digest))(t)); n != 0 {
				t.Errorf("%d attestations outlive their image", n)
			}
		})
	}
}

// What the registry no longer has goes with the next pull; what was made here stays.
func TestPullReplacesAttestations(t *testing.T) {
	ref := registries["ours"](t) + "/team/app:1"
	a, _ := newStore(t)
	img := importAs(t, a, ref)
	check(t, a.Attest(bg, envelopeAtt(img.Digest, vulnType, "monday")))
	must(a.Push(bg, ref, images.PushOptions{}))(t)
	b, _ := newStore(t)
	must(b.Pull(bg, ref, images.PullOptions{}))(t)
	check(t, b.Attest(bg, envelopeAtt(img.Digest, "local", "mine")))

	// Another publisher's store, so that the tag is written anew.
	host, _, _ := strings.Cut(ref, "/")
	req := must(http.NewRequest(http.MethodDelete, "http://"+host+"/v2/team/app/manifests/"+strings.Replace(img.Digest, ":", "-", 1)+".att", nil))(t)
	resp := must(http.DefaultClient.Do(req))(t)
	resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		t.Skipf("the registry cannot delete a tag: %s", resp.Status)
	}
	c, _ := newStore(t)
	importAs(t, c, ref)
	check(t, c.Attest(bg, envelopeAtt(img.Digest, "tuesday", "tuesday")))
	must(c.Push(bg, ref, images.PushOptions{}))(t)
	must(b.Pull(bg, ref, images.PullOptions{}))(t)
	got := stated(t, b, img.Digest)
	if _, old := got["envelope "+vulnType]; old || len(got) != 2 {
		t.Errorf("%v", got)
	}
}

// A registry that fails where attestations lie is not one that has none.
func TestAttestationErrorsAreNoAnswer(t *testing.T) {
	h := must(registry.New(t.TempDir()))(t)
	broken := false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken && strings.HasSuffix(r.URL.Path, ".att") {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	ref := strings.TrimPrefix(srv.URL, "http://") + "/x:1"
	a, _ := newStore(t)
	importAs(t, a, ref)
	must(a.Push(bg, ref, images.PushOptions{}))(t)
	b, _ := newStore(t)
	broken = true
	_, err := b.Pull(bg, ref, images.PullOptions{})
	refused(t, err, fault.Unavailable, "registry.unavailable")
	broken = false
	must(b.Pull(bg, ref, images.PullOptions{}))(t)
}

// attManifest is an .att tag with layers of the given sizes, as only a hostile
// or careless publisher would write it.
func attManifest(t testing.TB, digest string, sizes []int64) []byte {
	t.Helper()
	type descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int64             `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	var layers []descriptor
	for i, n := range sizes {
		layers = append(layers, descriptor{MediaType: "application/vnd.dsse.envelope.v1+json", Digest: fmt.Sprintf("sha256:%064x", i+1), Size: max(n, 2),
			Annotations: map[string]string{"predicateType": vulnType}})
	}
	return must(json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": descriptor{MediaType: "application/vnd.oci.image.config.v1+json", Digest: digest, Size: 2}, "layers": layers}))(t)
}

// Too many or too large attestations are not fetched; that there are some is
// kept, so that whoever needs them is refused and nobody else.
func TestTooManyAttestations(t *testing.T) {
	for name, c := range map[string]struct {
		sizes []int64
		why   string
	}{
		"100 MB":  {[]int64{100 << 20}, "at most"},
		"10000":   {make([]int64, 10000), "more than 64"},
		"lengthy": {[]int64{11 << 20, 11 << 20, 11 << 20}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			real := must(registry.New(t.TempDir()))(t)
			var attBody []byte
			var asked int
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case attBody != nil && strings.HasSuffix(r.URL.Path, ".att"):
					w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
					w.Write(attBody)
				case attBody != nil && strings.Contains(r.URL.Path, "/blobs/sha256:"+strings.Repeat("0", 56)):
					asked++
					w.Write([]byte("{}")) // not what the digest says
				default:
					real.ServeHTTP(w, r)
				}
			}))
			defer srv.Close()
			ref := strings.TrimPrefix(srv.URL, "http://") + "/x:1"
			a, _ := newStore(t)
			img := importAs(t, a, ref)
			must(a.Push(bg, ref, images.PushOptions{}))(t)
			attBody = attManifest(t, img.Digest, c.sizes)
			b, _ := newStore(t)
			_, err := b.Pull(bg, ref, images.PullOptions{})
			if c.why == "" {
				// Within the bounds one by one: fetched, and found to be false.
				refused(t, err, fault.Invalid, "image.digest")
				return
			}
			if name == "10000" {
				refused(t, err, fault.Invalid, "image.digest") // the first 64 are asked for
				if asked != 1 {
					t.Errorf("%d blobs asked for", asked)
				}
				return
			}
			check(t, err)
			list := must(b.Attestations(bg, img.Digest))(t)
			if len(list) != 1 || !strings.Contains(list[0].Omitted, c.why) || asked != 0 {
				t.Errorf("%+v, %d blobs asked for", list, asked)
			}
		})
	}
}

// Two publishers who each keep to the bound exceed it together.
func TestMoreAttestationsThanAreKept(t *testing.T) {
	ref := registries["ours"](t) + "/x:1"
	var img images.Image
	for p := range 2 {
		a, _ := newStore(t)
		img = importAs(t, a, ref)
		for i := range 40 {
			check(t, a.Attest(bg, envelopeAtt(img.Digest, vulnType, fmt.Sprint(p, " ", i))))
		}
		must(a.Push(bg, ref, images.PushOptions{}))(t)
	}
	b, _ := newStore(t)
	must(b.Pull(bg, ref, images.PullOptions{}))(t)
	omitted := 0
	list := must(b.Attestations(bg, img.Digest))(t)
	for _, a := range list {
		if strings.Contains(a.Omitted, "more than 64") {
			omitted++
		}
	}
	if len(list) != 65 || omitted != 1 {
		t.Errorf("%d kept, %d say that there are more", len(list), omitted)
	}
	err := b.Attest(bg, envelopeAtt(img.Digest, vulnType, "one more"))
	refused(t, err, fault.Invalid, "image.attestations")
}

// The real cosign attests at one registry, in both forms; we carry it all to
// another, where the real cosign verifies it.
func TestCarriesAttestationsForCosign(t *testing.T) {
	bin := os.Getenv("WARD_COSIGN")
	if bin == "" {
		bin = must(filepath.Abs("../bin/tools/cosign"))(t)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Skipf("needs the real cosign (make bin/tools/cosign, or WARD_COSIGN): %v", err)
	}
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "root.json"), []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "vex.json"), []byte(`{"@context":"https://openvex.dev/ns","statements":[]}`), 0o600))
	cosign := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), bin, args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir, "COSIGN_PASSWORD=secret", "HTTPS_PROXY=http://127.0.0.1:9", "HTTP_PROXY=http://127.0.0.1:9", "NO_PROXY=127.0.0.1"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("cosign %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	cosign("generate-key-pair")
	for _, name := range []string{"ours", "docker's"} {
		t.Run(name, func(t *testing.T) {
			from, to := registries[name](t), registries[name](t)
			a, _ := newStore(t)
			// One image for each form: where there is a bundle cosign looks at nothing else.
			for n, bundle := range []string{"true", "false"} {
				ref := fmt.Sprintf("%s/team/app:%d", from, n)
				img := must(a.Import(bg, bytes.NewReader(rootfs(t, file{name: "n", body: ref})), ref, images.ImportOptions{}))(t)
				must(a.Push(bg, ref, images.PushOptions{}))(t)
				cosign("attest", "--key", "cosign.key", "--tlog-upload=false", "-y", "--new-bundle-format="+bundle, "--type", "openvex", "--predicate", "vex.json", from+"/team/app@"+img.Digest)
				b, _ := newStore(t)
				must(b.Pull(bg, ref, images.PullOptions{}))(t)
				if got := stated(t, b, img.Digest); len(got) != 1 || len(must(b.Attachments(bg, img.Digest))(t)) != 0 {
					t.Fatalf("pulled %v", got)
				}
				there := fmt.Sprintf("%s/other/app:%d", to, n)
				must(b.Tag(bg, ref, there))(t)
				must(b.Push(bg, there, images.PushOptions{}))(t)
				args := []string{"verify-attestation", "--key", "cosign.pub", "--insecure-ignore-tlog", "--type", "openvex"}
				if bundle == "true" {
					args = append(args, "--new-bundle-format", "--trusted-root", "root.json")
				}
				cosign(append(args, to+"/other/app@"+img.Digest)...)
			}
		})
	}
}
