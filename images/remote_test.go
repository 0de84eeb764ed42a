package images_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/images/registry"
	"github.com/ward-project/ward/internal/fault"
)

// login writes Docker's config.json for host and makes it the one in use.
func login(t *testing.T, host, user, password string) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	text := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	check(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600))
}

func TestBasicAndBearer(t *testing.T) {
	for _, how := range []string{"basic", "bearer"} {
		t.Run(how, func(t *testing.T) {
			h := must(registry.New(t.TempDir()))(t)
			var srv *httptest.Server
			srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				u, p, _ := r.BasicAuth()
				good := u == "me" && p == "secret"
				if r.URL.Path == "/token" {
					if !good {
						w.WriteHeader(http.StatusUnauthorized)
						return
					}
					json.NewEncoder(w).Encode(map[string]string{"token": "T0KEN"})
					return
				}
				challenge := `Basic realm="x"`
				if how == "bearer" {
					good = r.Header.Get("Authorization") == "Bearer T0KEN"
					challenge = `Bearer realm="` + srv.URL + `/token",service="x"`
				}
				if !good {
					w.Header().Set("WWW-Authenticate", challenge)
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				h.ServeHTTP(w, r)
			}))
			defer srv.Close()
			host := strings.TrimPrefix(srv.URL, "http://")
			ref := host + "/x:1"
			s, _ := newStore(t)
			img := importAs(t, s, ref)
			check(t, s.Attach(bg, cosignAtt(img.Digest, "S")))
			check(t, s.Attach(bg, bundleAtt(img.Digest, "B")))
			for _, password := range []string{"", "wrong"} {
				login(t, host, "me", password)
				_, err := s.Push(bg, ref, images.PushOptions{})
				refused(t, err, fault.Denied, "registry.unauthorized")
				_, err = s.Pull(bg, ref, images.PullOptions{})
				refused(t, err, fault.Denied, "registry.unauthorized")
			}
			login(t, host, "me", "secret")
			must(s.Push(bg, ref, images.PushOptions{}))(t)
			o, _ := newStore(t)
			must(o.Pull(bg, ref, images.PullOptions{}))(t)
			have(t, o, img.Digest, "S", "B")
		})
	}
}

func TestTLS(t *testing.T) {
	h := must(registry.New(t.TempDir()))(t)
	srv := httptest.NewTLSServer(h)
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "https://")
	ref := host + "/x:1"
	s, _ := newStore(t)
	importAs(t, s, ref)
	// An unknown authority is trouble, not an answer.
	_, err := s.Push(bg, ref, images.PushOptions{})
	refused(t, err, fault.Unavailable, "registry.unavailable")

	certs := t.TempDir()
	check(t, os.MkdirAll(filepath.Join(certs, host), 0o755))
	file := filepath.Join(certs, host, "ca.crt")
	check(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o644))
	dir := filepath.Join(t.TempDir(), "images")
	s = must(images.Open(images.Config{Dir: dir, CertsDir: certs}))(t)
	importAs(t, s, ref)
	must(s.Push(bg, ref, images.PushOptions{}))(t)
	must(s.Pull(bg, ref, images.PullOptions{}))(t)

	check(t, os.WriteFile(file, []byte("no certificate"), 0o644))
	_, err = s.Pull(bg, ref, images.PullOptions{})
	refused(t, err, fault.Invalid, "registry.certificate")
}

func TestReferences(t *testing.T) {
	for in, want := range map[string]string{
		"busybox": "index.docker.io/library/busybox:latest", "docker.io/a/b:c": "index.docker.io/a/b:c",
		"localhost:5000/a/b": "localhost:5000/a/b:latest", "reg.example/a_b/c-d.e:T_1": "reg.example/a_b/c-d.e:T_1",
		"reg.example/a:1@sha256:" + strings.Repeat("ab", 32): "reg.example/a@sha256:" + strings.Repeat("ab", 32),
		// Refused.
		"": "", "A": "", "a b": "", "a\n": "", "a/../b": "", "reg.example/../a": "", "reg.example//a": "", "a@sha512:" + strings.Repeat("ab", 64): "",
		"a@sha256:ab": "", "reg.example/a:" + strings.Repeat("t", 129): "", strings.Repeat("a", 2000): "", "https://reg.example/a": "", "reg.example/a#b": "", "-a/../..": "", "a:..": "", "a:.": "", "a:-x": "", "reg.example/a:b..c": "reg.example/a:b..c",
		"reg.example/a@sha256:" + strings.Repeat("AB", 32): "",
	} {
		got, err := images.ParseReference(in)
		if want == "" {
			if err == nil {
				t.Errorf("%q -> %q", in, got)
			} else {
				refused(t, err, fault.Invalid, "image.reference")
			}
		} else if err != nil || got != want {
			t.Errorf("%q -> %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestPlatforms(t *testing.T) {
	host, _ := serve(t)
	s, _ := newStore(t)
	var list []string
	for _, p := range []string{"linux/arm64", "linux/arm/v7", "linux/s390x"} {
		ref := host + "/x:" + strings.ReplaceAll(p, "/", "-")
		img := must(s.Import(bg, bytes.NewReader(rootfs(t, file{name: "p", body: p})), ref, images.ImportOptions{Platform: p}))(t)
		if img.Platform != p {
			t.Errorf("%s: %s", p, img.Platform)
		}
		must(s.Push(bg, ref, images.PushOptions{}))(t)
		raw := must(http.Get("http://" + host + "/v2/x/manifests/" + img.Digest))(t)
		part := append(strings.Split(p, "/"), "")
		list = append(list, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d,"platform":{"os":%q,"architecture":%q,"variant":%q}}`, img.Digest, raw.ContentLength, part[0], part[1], part[2]))
		raw.Body.Close()
	}
	ref := host + "/x:all"
	put(t, ref, "application/vnd.oci.image.index.v1+json", []byte(`{"schemaVersion":2,"manifests":[`+strings.Join(list, ",")+`]}`))
	for p, want := range map[string]string{"linux/arm64": "linux/arm64", "linux/arm": "linux/arm/v7", "linux/arm/v7": "linux/arm/v7"} {
		o, _ := newStore(t)
		if got := must(o.Pull(bg, ref, images.PullOptions{Platform: p}))(t); got.Platform != want {
			t.Errorf("%s: %s", p, got.Platform)
		}
	}
	o, _ := newStore(t)
	_, err := o.Pull(bg, ref, images.PullOptions{Platform: "linux/riscv64"})
	refused(t, err, fault.NotFound, "image.platform")
	for _, p := range []string{"linux", "linux/", "/x", "a/b/c/d", strings.Repeat("a", 99) + "/b"} {
		_, err = o.Pull(bg, ref, images.PullOptions{Platform: p})
		refused(t, err, fault.Invalid, "image.platform")
	}
}

// A connection that breaks halfway is trouble, not tampering, and a disk that
// is full is neither.
func TestCutAndFull(t *testing.T) {
	dir := t.TempDir()
	h := must(registry.New(dir))(t)
	var cut atomic.Value
	cut.Store("nothing")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, cut.Load().(string)) {
			w.Header().Set("Content-Length", "4000000")
			w.Write([]byte("half"))
			panic(http.ErrAbortHandler)
		}
		h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	ref := strings.TrimPrefix(srv.URL, "http://") + "/x:1"
	s, _ := newStore(t)
	noise := make([]byte, 3<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	img := importAs(t, s, ref, file{name: "noise", body: string(noise)})
	must(s.Push(bg, ref, images.PushOptions{}))(t)
	o, _ := newStore(t)
	var err error
	for _, what := range []string{img.ID, img.Layers[0].Digest} {
		cut.Store(what)
		_, err = o.Pull(bg, ref, images.PullOptions{})
		refused(t, err, fault.Unavailable, "registry.unavailable")
	}
	cut.Store("nothing")

	if os.Geteuid() != 0 {
		t.Skip("the rest needs root, to mount a small file system")
	}
	small := t.TempDir()
	check(t, unix.Mount("tmpfs", small, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { check(t, unix.Unmount(small, 0)) })
	f := must(images.Open(images.Config{Dir: filepath.Join(small, "images")}))(t)
	_, err = f.Pull(bg, ref, images.PullOptions{})
	refused(t, err, fault.Unavailable, "image.no-space")
	_, err = f.Import(bg, bytes.NewReader(archive(t, file{name: "noise", body: string(noise)})), "reg.example/x", images.ImportOptions{})
	refused(t, err, fault.Unavailable, "image.no-space")
	for _, d := range []string{"tmp", "layers", "blobs/sha256"} {
		if es := must(os.ReadDir(filepath.Join(small, "images", d)))(t); len(es) != 0 {
			t.Errorf("%s/%s is left", d, es[0].Name())
		}
	}
	importAs(t, f, "reg.example/fits") // and it goes on
	check(t, unix.Mount("", small, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	must(f.Unpack(bg, must(f.Resolve(bg, "reg.example/fits"))(t)))(t) // reading needs no writing
	_, err = f.Tag(bg, "reg.example/fits", "reg.example/other")
	refused(t, err, fault.Unavailable, "image.store-access")
}
