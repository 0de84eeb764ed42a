package registry_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/ward-project/ward/images/registry"
)

// server runs a registry on dir until the test or stop ends it.
func server(t *testing.T, dir string) (host string, stop func()) {
	t.Helper()
	h, err := registry.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), srv.Close
}

func TestKeptOverRestart(t *testing.T) {
	dir := t.TempDir()
	host, stop := server(t, dir)
	img, err := random.Image(5000, 3)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := random.Index(1000, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []string{"a", "a/b", "c.d/e_f"} {
		if err := remote.Write(mustRef(t, host+"/"+r+":t1"), img); err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(mustRef(t, host+"/"+r+":t2"), idx); err != nil {
			t.Fatal(err)
		}
	}
	stop()

	host, _ = server(t, dir)
	repos, err := remote.Catalog(t.Context(), mustRegistry(t, host))
	if err != nil || !slices.Equal(repos, []string{"a", "a/b", "c.d/e_f"}) {
		t.Fatalf("%q %v", repos, err)
	}
	for _, r := range repos {
		tags, err := remote.List(mustRef(t, host+"/"+r).Context())
		if err != nil || !slices.Equal(tags, []string{"t1", "t2"}) {
			t.Fatalf("%q %v", tags, err)
		}
		got, err := remote.Image(mustRef(t, host+"/"+r+":t1"))
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(got); err != nil {
			t.Error(err)
		}
		goti, err := remote.Index(mustRef(t, host+"/"+r+":t2"))
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(goti); err != nil {
			t.Error(err)
		}
	}
	ref := mustRef(t, host+"/a:t1")
	if err := remote.Delete(ref); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Get(ref); err == nil {
		t.Error("a deleted tag is there")
	}
	if _, err := remote.Get(mustRef(t, host+"/a/b:t1")); err != nil {
		t.Errorf("another repository lost its tag: %v", err)
	}
}

func mustRef(t *testing.T, s string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustRegistry(t *testing.T, host string) name.Registry {
	r, err := name.NewRegistry(host)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func request(t *testing.T, method, url, contentType, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestReferrers(t *testing.T) {
	host, _ := server(t, t.TempDir())
	img, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	repo := mustRef(t, host+"/x").Context()
	if err := remote.Write(repo.Tag("1"), img); err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"a/one", "a/two"} {
		body := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"` + at + `","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"` + d.String() + `","size":2},"layers":[],"subject":{"mediaType":"x","digest":"` + d.String() + `","size":1}}`
		if code, b := request(t, http.MethodPut, "http://"+host+"/v2/x/manifests/tag", string(types.OCIManifestSchema1), body); code != http.StatusCreated {
			t.Fatal(code, b)
		}
	}
	for query, want := range map[string]int{"": 2, "?artifactType=a/one": 1, "?artifactType=none": 0} {
		code, b := request(t, http.MethodGet, "http://"+host+"/v2/x/referrers/"+d.String()+query, "", "")
		var idx v1.IndexManifest
		if err := json.Unmarshal([]byte(b), &idx); err != nil || code != http.StatusOK || len(idx.Manifests) != want {
			t.Errorf("%q: %d %v %s", query, code, err, b)
		}
	}
}

func TestNamesNeverBecomePaths(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "registry")
	if err := os.WriteFile(filepath.Join(top, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := registry.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := "sha256:" + strings.Repeat("ab", 32)
	for _, path := range []string{
		"/v2/../../secret", "/v2/x/manifests/../../../../secret", "/v2/x/manifests/..", "/v2/../x/manifests/t", "/v2/X/manifests/t", "/v2//manifests/t",
		"/v2/x/manifests/sha256:../../secret", "/v2/x/manifests/sha256:" + strings.Repeat("../", 22), "/v2/x/blobs/sha256:../../../secret", "/v2/x/blobs/sha256:" + strings.Repeat("AB", 32),
		"/v2/x/../y/tags/list", "/v2/x/referrers/../../secret", "/v2/" + strings.Repeat("a", 300) + "/manifests/t", "/v2/x/manifests/" + strings.Repeat("t", 200), "/v2/x/manifests/" + d, "/secret",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			req := httptest.NewRequest(method, "/", strings.NewReader(`{"schemaVersion":2}`))
			req.URL.Path = path // as a hostile client would send it, uncleaned
			req.Header.Set("Content-Type", "x")
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, req)
			if strings.Contains(rec.Body.String(), "secret") && strings.HasPrefix(rec.Body.String(), "secret") || rec.Code == http.StatusCreated {
				t.Errorf("%s %s: %d %s", method, path, rec.Code, rec.Body)
			}
		}
	}
	for _, e := range []string{"secret", "registry"} {
		if _, err := os.Lstat(filepath.Join(top, e)); err != nil {
			t.Error(err)
		}
	}
	if es, _ := os.ReadDir(top); len(es) != 2 {
		t.Errorf("made outside: %v", es)
	}
	if es, _ := os.ReadDir(filepath.Join(dir, "repositories")); len(es) != 0 {
		t.Errorf("made a repository: %v", es)
	}
}

func TestRefusedPushes(t *testing.T) {
	dir := t.TempDir()
	host, _ := server(t, dir)
	url := "http://" + host + "/v2/x/manifests/"
	mt := string(types.OCIManifestSchema1)
	for what, c := range map[string]struct {
		ref, mt, body string
		code          int
	}{
		"too large":       {"t", mt, `{"x":"` + strings.Repeat("x", 4<<20) + `"}`, http.StatusRequestEntityTooLarge},
		"not JSON":        {"t", mt, `x`, http.StatusBadRequest},
		"no type":         {"t", "", `{}`, http.StatusBadRequest},
		"another digest":  {"sha256:" + strings.Repeat("ab", 32), mt, `{}`, http.StatusBadRequest},
		"not a reference": {"-t", mt, `{}`, http.StatusBadRequest},
	} {
		if code, b := request(t, http.MethodPut, url+c.ref, c.mt, c.body); code != c.code {
			t.Errorf("%s: %d %s", what, code, b)
		}
	}
	// A blob that is not what it is called leaves nothing.
	if code, _ := request(t, http.MethodPost, "http://"+host+"/v2/x/blobs/uploads/?digest=sha256:"+strings.Repeat("ab", 32), "application/octet-stream", "other"); code/100 == 2 && code != http.StatusAccepted {
		t.Errorf("blob: %d", code)
	}
	for _, d := range []string{"blobs/sha256", "repositories"} {
		if es, _ := os.ReadDir(filepath.Join(dir, d)); len(es) != 0 {
			t.Errorf("%s/%s", d, es[0].Name())
		}
	}
	if es, _ := os.ReadDir(filepath.Join(dir, "blobs")); len(es) != 1 {
		t.Errorf("left behind: %v", es)
	}
}

// The same bytes pushed as something else change nothing for others.
func TestTypeStays(t *testing.T) {
	host, _ := server(t, t.TempDir())
	url := "http://" + host + "/v2/x/manifests/"
	for i, mt := range []types.MediaType{types.OCIManifestSchema1, types.OCIImageIndex} {
		if code, b := request(t, http.MethodPut, url+[]string{"a", "b"}[i], string(mt), `{"schemaVersion":2}`); code != http.StatusCreated {
			t.Fatal(code, b)
		}
	}
	h, _, err := v1.SHA256(strings.NewReader(`{"schemaVersion":2}`))
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]types.MediaType{"a": types.OCIManifestSchema1, "b": types.OCIImageIndex, h.String(): types.OCIManifestSchema1} {
		resp, err := http.Get(url + ref)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Content-Type"); got != string(want) {
			t.Errorf("%s: %s", ref, got)
		}
	}
}
