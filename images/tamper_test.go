package images_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/images/registry"
	"github.com/ward-project/ward/internal/fault"
)

func hex(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

// flip changes one byte in the middle of a file.
func flip(t testing.TB, path string) {
	t.Helper()
	b := must(os.ReadFile(path))(t)
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// pushed is an image in a registry whose directory is known.
func pushed(t testing.TB) (ref string, img images.Image, reg string, s *images.Store, dir string) {
	t.Helper()
	host, reg := serve(t)
	s, dir = newStore(t)
	ref = host + "/demo/a/busybox:1"
	img = must(s.Import(t.Context(), bytes.NewReader(rootfs(t)), ref, images.ImportOptions{}))(t)
	must(s.Push(t.Context(), ref, images.PushOptions{}))(t)
	return ref, img, reg, s, dir
}

func TestTamperedInRegistry(t *testing.T) {
	for name, path := range map[string]func(images.Image) string{
		"layer":    func(i images.Image) string { return "blobs/sha256/" + hex(i.Layers[0].Digest) },
		"config":   func(i images.Image) string { return "blobs/sha256/" + hex(i.ID) },
		"manifest": func(i images.Image) string { return "repositories/demo%2Fa%2Fbusybox/manifests/" + hex(i.Digest) },
	} {
		t.Run(name, func(t *testing.T) {
			ref, img, reg, _, _ := pushed(t)
			flip(t, filepath.Join(reg, path(img)))
			for _, r := range []string{ref, strings.TrimSuffix(ref, ":1") + "@" + img.Digest} {
				s, dir := newStore(t)
				_, err := s.Pull(t.Context(), r, images.PullOptions{})
				refused(t, err, fault.Invalid, "image.digest")
				_, err = s.Resolve(t.Context(), r)
				refused(t, err, fault.NotFound, "image.missing")
				if es := must(os.ReadDir(filepath.Join(dir, "layers")))(t); len(es) != 0 {
					t.Error("a layer was unpacked")
				}
			}
		})
	}
}

// A layer may be longer or shorter than its descriptor says, too.
func TestLayerLengths(t *testing.T) {
	for _, grow := range []bool{true, false} {
		ref, img, reg, _, _ := pushed(t)
		p := filepath.Join(reg, "blobs/sha256", hex(img.Layers[0].Digest))
		b := must(os.ReadFile(p))(t)
		if grow {
			b = append(b, make([]byte, 1<<20)...)
		} else {
			b = b[:len(b)-1]
		}
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, _ := newStore(t)
		_, err := s.Pull(t.Context(), ref, images.PullOptions{})
		refused(t, err, fault.Invalid, "image.digest")
	}
}

func TestTamperedInStore(t *testing.T) {
	ctx := context.Background()
	t.Run("manifest and config", func(t *testing.T) {
		for _, pick := range []func(images.Image) string{func(i images.Image) string { return i.Digest }, func(i images.Image) string { return i.ID }} {
			ref, img, _, s, dir := pushed(t)
			flip(t, filepath.Join(dir, "blobs/sha256", hex(pick(img))))
			_, err := s.Resolve(ctx, ref)
			refused(t, err, fault.Invalid, "image.digest")
			_, err = s.List(ctx)
			refused(t, err, fault.Invalid, "image.digest")
			_, err = s.Push(ctx, ref, images.PushOptions{})
			refused(t, err, fault.Invalid, "image.digest")
			must(s.Pull(ctx, ref, images.PullOptions{}))(t) // mends
			must(s.Resolve(ctx, ref))(t)
		}
	})
	t.Run("layer", func(t *testing.T) {
		ref, img, _, _, _ := pushed(t)
		s, dir := newStore(t)
		must(s.Pull(ctx, ref, images.PullOptions{}))(t)
		blob := filepath.Join(dir, "blobs/sha256", hex(img.Layers[0].Digest))
		flip(t, blob)
		_, err := s.Unpack(ctx, img)
		refused(t, err, fault.Invalid, "image.digest")
		for _, d := range []string{"layers", "tmp"} {
			if es := must(os.ReadDir(filepath.Join(dir, d)))(t); len(es) != 0 {
				t.Errorf("%s/%s is left", d, es[0].Name())
			}
		}
		if err := os.Remove(blob); err != nil {
			t.Fatal(err)
		}
		_, err = s.Unpack(ctx, img)
		refused(t, err, fault.NotFound, "image.incomplete")
		must(s.Pull(ctx, ref, images.PullOptions{}))(t)
		must(s.Unpack(ctx, img))(t)
	})
	t.Run("local layer is not pushed", func(t *testing.T) {
		_, img, _, s, dir := pushed(t)
		host, _ := serve(t)
		must(s.Tag(ctx, img.ID, host+"/x:1"))(t)
		flip(t, filepath.Join(dir, "blobs/sha256", hex(img.Layers[0].Digest)))
		_, err := s.Push(ctx, host+"/x:1", images.PushOptions{})
		refused(t, err, fault.Invalid, "image.digest")
	})
}

// The manifest is honest about the blob and the config lies about the archive.
func TestDiffID(t *testing.T) {
	ref, img, reg, _, _ := pushed(t)
	config := must(os.ReadFile(filepath.Join(reg, "blobs/sha256", hex(img.ID))))(t)
	config = bytes.ReplaceAll(config, []byte(img.Layers[0].DiffID), []byte("sha256:"+strings.Repeat("ab", 32)))
	var m v1.Manifest
	if err := json.Unmarshal(must(os.ReadFile(filepath.Join(reg, "repositories/demo%2Fa%2Fbusybox/manifests", hex(img.Digest))))(t), &m); err != nil {
		t.Fatal(err)
	}
	m.Config.Digest, m.Config.Size = sha(config), int64(len(config))
	if err := os.WriteFile(filepath.Join(reg, "blobs/sha256", sha(config).Hex), config, 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, ref, types.OCIManifestSchema1, must(json.Marshal(m))(t))
	s, dir := newStore(t)
	got := must(s.Pull(t.Context(), ref, images.PullOptions{}))(t)
	_, err := s.Unpack(t.Context(), got)
	refused(t, err, fault.Invalid, "image.digest")
	if es := must(os.ReadDir(filepath.Join(dir, "layers")))(t); len(es) != 0 {
		t.Error("the layer was believed")
	}
}

func sha(b []byte) v1.Hash {
	h, _, err := v1.SHA256(bytes.NewReader(b))
	if err != nil {
		panic(err)
	}
	return h
}

// put writes a manifest under the tag of ref, as anybody with push rights can.
func put(t testing.TB, ref string, mt types.MediaType, body []byte) {
	t.Helper()
	host, rest, _ := strings.Cut(ref, "/")
	repo, tag, _ := strings.Cut(rest, ":")
	req := must(http.NewRequest(http.MethodPut, "http://"+host+"/v2/"+repo+"/manifests/"+tag, bytes.NewReader(body)))(t)
	req.Header.Set("Content-Type", string(mt))
	resp := must(http.DefaultClient.Do(req))(t)
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatal(resp.Status)
	}
}

func TestHostileManifests(t *testing.T) {
	ref, img, reg, _, _ := pushed(t)
	good := string(must(os.ReadFile(filepath.Join(reg, "repositories/demo%2Fa%2Fbusybox/manifests", hex(img.Digest))))(t))
	with := func(member string) string { return strings.TrimSuffix(good, "}") + "," + member + "}" }
	index := func(d string) string {
		return `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` + d + `]}`
	}
	amd := fmt.Sprintf(`"platform":{"os":"linux","architecture":"%s"}`, strings.Split(img.Platform, "/")[1])
	desc := fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%d,%s}`, img.Digest, len(good), amd)
	layer := `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + img.Layers[0].Digest + `","size":1}`
	for name, c := range map[string]struct {
		mt   types.MediaType
		body string
		rule string
	}{
		"manifests and layers":         {types.OCIManifestSchema1, with(`"manifests":[` + desc + `]`), "image.ambiguous"},
		"the same as an index":         {types.OCIImageIndex, strings.Replace(index(desc), `"schemaVersion"`, `"layers":[],"schemaVersion"`, 1), "image.ambiguous"},
		"index with a config":          {types.OCIImageIndex, strings.Replace(index(desc), `"schemaVersion"`, `"config":{},"schemaVersion"`, 1), "image.ambiguous"},
		"Manifests in capitals":        {types.OCIManifestSchema1, with(`"MANIFESTS":[]`), "image.ambiguous"},
		"layers twice":                 {types.OCIManifestSchema1, with(`"layers":[]`), "image.manifest"},
		"Layers in capitals too":       {types.OCIManifestSchema1, with(`"Layers":[]`), "image.manifest"},
		"served as an index":           {types.OCIImageIndex, good, "image.media-type"},
		"served as docker's":           {types.DockerManifestSchema2, good, "image.media-type"},
		"served as anything":           {"application/json", good, "image.media-type"},
		"schema 1":                     {types.DockerManifestSchema1Signed, `{"schemaVersion":1,"fsLayers":[]}`, "image.media-type"},
		"no document":                  {types.OCIManifestSchema1, `[]`, ""},
		"two documents":                {types.OCIManifestSchema1, good + good, ""},
		"schema version":               {types.OCIManifestSchema1, strings.Replace(good, `"schemaVersion":2`, `"schemaVersion":3`, 1), "image.manifest"},
		"artifact":                     {types.OCIManifestSchema1, strings.Replace(good, "application/vnd.oci.image.config.v1+json", "application/vnd.oci.empty.v1+json", 1), "image.not-an-image"},
		"foreign layer":                {types.OCIManifestSchema1, strings.Replace(good, `"size"`, `"urls":["http://192.0.2.1/"],"size"`, 2), "image.foreign"},
		"unknown layer type":           {types.OCIManifestSchema1, strings.Replace(good, "tar+gzip", "tar+encrypted", 1), "image.layer-type"},
		"no layers":                    {types.OCIManifestSchema1, good[:strings.Index(good, `"layers"`)] + `"layers":[]}`, "image.bounds"},
		"128 layers":                   {types.OCIManifestSchema1, good[:strings.Index(good, `"layers"`)] + `"layers":[` + strings.TrimSuffix(strings.Repeat(layer+",", 128), ",") + `]}`, "image.bounds"},
		"layer count unlike config":    {types.OCIManifestSchema1, good[:strings.Index(good, `"layers"`)] + `"layers":[` + layer + "," + layer + `]}`, "image.config"},
		"negative size":                {types.OCIManifestSchema1, strings.Replace(good, fmt.Sprintf(`"size":%d`, img.Size), `"size":-1`, 1), "image.bounds"},
		"giant layers":                 {types.OCIManifestSchema1, strings.Replace(good, fmt.Sprintf(`"size":%d`, img.Size), `"size":9223372036854775807`, 1), "image.bounds"},
		"sha512":                       {types.OCIManifestSchema1, strings.Replace(good, img.Layers[0].Digest, "sha512:"+strings.Repeat("ab", 64), 1), "image.manifest"},
		"digest without end":           {types.OCIManifestSchema1, strings.Replace(good, img.Layers[0].Digest, "sha256:ab", 1), "image.manifest"},
		"index of nothing we can run":  {types.OCIImageIndex, index(strings.Replace(desc, amd, `"platform":{"os":"plan9","architecture":"mips"}`, 1)), "image.platform"},
		"index with the wrong size":    {types.OCIImageIndex, index(strings.Replace(desc, fmt.Sprintf(`"size":%d`, len(good)), `"size":7`, 1)), "image.digest"},
		"index with the wrong type":    {types.OCIImageIndex, index(strings.Replace(desc, "application/vnd.oci.image.manifest.v1+json", string(types.DockerManifestSchema2), 1)), "image.media-type"},
		"index with a blob for config": {types.OCIImageIndex, index(strings.Replace(desc, img.Digest, img.ID, 1)), "image.missing"},
	} {
		t.Run(name, func(t *testing.T) {
			host, rest, _ := strings.Cut(ref, "/")
			target := host + "/" + strings.Split(rest, ":")[0] + ":hostile"
			if c.rule == "" { // not JSON: no registry takes it, so one that serves it is played
				c.rule = "image.manifest"
				target = play(t, c.mt, c.body) + "/demo:hostile"
			} else {
				put(t, target, c.mt, []byte(c.body))
			}
			s, _ := newStore(t)
			_, err := s.Pull(t.Context(), target, images.PullOptions{})
			class := fault.Invalid
			if c.rule == "image.platform" || c.rule == "image.missing" {
				class = fault.NotFound
			}
			refused(t, err, class, c.rule)
			if es := must(s.List(t.Context()))(t); len(es) != 0 {
				t.Errorf("it is listed: %v", es)
			}
		})
	}
	put(t, ref, types.OCIImageIndex, []byte(index(desc)))
	s, _ := newStore(t)
	got := must(s.Pull(t.Context(), ref, images.PullOptions{}))(t)
	if got.Digest != img.Digest || got.Index != sha([]byte(index(desc))).String() {
		t.Errorf("%+v", got)
	}
	for _, r := range []string{got.Digest, got.Index, got.ID, hex(got.ID)[:12], strings.TrimSuffix(ref, ":1") + "@" + got.Index, strings.TrimSuffix(ref, ":1") + "@" + got.Digest} {
		if again := must(s.Resolve(t.Context(), r))(t); again.Digest != img.Digest || again.Reference != ref {
			t.Errorf("%s: %+v", r, again)
		}
	}
}

// play serves body for every manifest there is.
func play(t testing.TB, mt types.MediaType, body string) (host string) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", string(mt))
			w.Write([]byte(body))
		}
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestDocumentBounds(t *testing.T) {
	s, _ := newStore(t)
	big := `{"schemaVersion":2,"x":"` + strings.Repeat("x", 4<<20) + `"}`
	_, err := s.Pull(t.Context(), play(t, types.OCIManifestSchema1, big)+"/x", images.PullOptions{})
	refused(t, err, fault.Invalid, "image.bounds")

	m := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:` + strings.Repeat("ab", 32) + `","size":9000000},"layers":[]}`
	_, err = s.Pull(t.Context(), play(t, types.OCIManifestSchema1, m)+"/x", images.PullOptions{})
	refused(t, err, fault.Invalid, "image.bounds")
}

func TestThreeAnswers(t *testing.T) {
	s, _ := newStore(t)
	ctx := t.Context()
	t.Run("down", func(t *testing.T) {
		l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
		addr := l.Addr().String()
		l.Close()
		_, err := s.Pull(ctx, addr+"/x:1", images.PullOptions{})
		refused(t, err, fault.Unavailable, "registry.unavailable")
		must(s.Import(ctx, bytes.NewReader(rootfs(t)), addr+"/x:1", images.ImportOptions{}))(t)
		_, err = s.Push(ctx, addr+"/x:1", images.PushOptions{})
		refused(t, err, fault.Unavailable, "registry.unavailable")
	})
	t.Run("missing", func(t *testing.T) {
		host, _ := serve(t)
		_, err := s.Pull(ctx, host+"/x:1", images.PullOptions{})
		refused(t, err, fault.NotFound, "image.missing")
		_, err = s.Push(ctx, host+"/x:1", images.PushOptions{})
		refused(t, err, fault.NotFound, "image.missing")
		_, err = s.Resolve(ctx, host+"/x:1")
		refused(t, err, fault.NotFound, "image.missing")
	})
	for status, want := range map[int]struct {
		class fault.Class
		rule  string
	}{
		401: {fault.Denied, "registry.unauthorized"}, 403: {fault.Denied, "registry.unauthorized"},
		500: {fault.Unavailable, "registry.unavailable"}, 429: {fault.Unavailable, "registry.unavailable"},
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v2/" {
					w.WriteHeader(status)
				}
			}))
			defer srv.Close()
			_, err := s.Pull(ctx, strings.TrimPrefix(srv.URL, "http://")+"/x:1", images.PullOptions{})
			refused(t, err, want.class, want.rule)
		})
	}
	t.Run("hung up", func(t *testing.T) {
		c, cancel := context.WithCancel(ctx)
		cancel()
		host, _ := serve(t)
		_, err := s.Pull(c, host+"/x:1", images.PullOptions{})
		if c := fault.ClassOf(err); c != fault.Unavailable {
			t.Errorf("%v: %v", c, err)
		}
	})
}

// A registry that answers for the image and not for its signatures must not
// make it an unsigned image.
func TestSignatureListingTrouble(t *testing.T) {
	dir := t.TempDir()
	h := must(registry.New(dir))(t)
	var broken atomic.Value
	broken.Store("nothing")
	var old atomic.Bool // a registry without the referrers API
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, broken.Load().(string)) {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if old.Load() && strings.Contains(r.URL.Path, "/referrers/") {
			http.NotFound(w, r)
			return
		}
		h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	ref := strings.TrimPrefix(srv.URL, "http://") + "/x:1"
	a, _ := newStore(t)
	img := must(a.Import(t.Context(), bytes.NewReader(rootfs(t)), ref, images.ImportOptions{}))(t)
	must(a.Push(t.Context(), ref, images.PushOptions{}))(t)
	for i, what := range []string{".sig", "/referrers/" + img.Digest, "/manifests/sha256-" + hex(img.Digest)} {
		broken.Store(what)
		old.Store(i == 2)
		s, _ := newStore(t)
		_, err := s.Pull(t.Context(), ref, images.PullOptions{})
		refused(t, err, fault.Unavailable, "registry.unavailable")
		_, err = s.Resolve(t.Context(), ref)
		refused(t, err, fault.NotFound, "image.missing")
	}
}

func TestPlainHTTPOnlyToLoopback(t *testing.T) {
	s, _ := newStore(t)
	ctx := t.Context()
	// A private address, for which go-containerregistry would allow http, and
	// a loopback registry that redirects to a name in plain http.
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			http.Redirect(w, r, "http://registry.invalid/"+r.URL.Path, http.StatusTemporaryRedirect)
		}
	}))
	defer srv.Close()
	_, err := s.Pull(ctx, strings.TrimPrefix(srv.URL, "http://")+"/x:1", images.PullOptions{})
	refused(t, err, fault.Denied, "registry.plain-http")
}
