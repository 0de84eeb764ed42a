package images_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/images/registry"
	"github.com/ward-project/ward/internal/fault"
)

// registries are the registries that everything must work against.
var registries = map[string]func(testing.TB) string{
	"ours":      func(t testing.TB) string { host, _ := serve(t); return host },
	"no api":    serveWithoutReferrers,
	"docker's":  serveDocker,
	"lists odd": serveOddReferrers,
	"localhost": func(t testing.TB) string {
		host, _ := serve(t)
		return strings.Replace(host, "127.0.0.1", "localhost", 1)
	},
}

// serveWithoutReferrers is a registry from before OCI 1.1.
func serveWithoutReferrers(t testing.TB) string {
	h := must(registry.New(t.TempDir()))(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/referrers/") {
			http.NotFound(w, r)
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// serveOddReferrers lists the config's media type as artifact type, as
// go-containerregistry's own registry does.
func serveOddReferrers(t testing.TB) string {
	h := must(registry.New(t.TempDir()))(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/referrers/") {
			h.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		b := strings.ReplaceAll(rec.Body.String(), `"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json"`, `"artifactType":"application/vnd.oci.empty.v1+json"`)
		w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
		w.WriteHeader(rec.Code)
		w.Write([]byte(b))
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// serveDocker runs Debian's docker-registry on a loopback port.
func serveDocker(t testing.TB) string {
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("needs docker-registry (Debian package of that name)")
	}
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	conf := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), addr)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "serve", conf)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for range 200 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return addr
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("docker-registry did not start: %s", out.String())
	return ""
}

func TestRegistriesBothWays(t *testing.T) {
	for name, serve := range registries {
		t.Run(name, func(t *testing.T) {
			ref := serve(t) + "/team/app:v1"
			a, _ := newStore(t)
			img := must(a.Import(bg, bytes.NewReader(rootfs(t)), ref, images.ImportOptions{}))(t)
			// Two keys may sign the same payload; a bundle may come later.
			for _, att := range []images.Attachment{cosignAtt(img.Digest, "KEY1"), cosignAtt(img.Digest, "KEY2"), bundleAtt(img.Digest, "ONE")} {
				for range 2 { // attaching is idempotent
					if err := a.Attach(bg, att); err != nil {
						t.Fatal(err)
					}
				}
			}
			for range 2 { // so is pushing
				must(a.Push(bg, ref, images.PushOptions{}))(t)
			}
			b, _ := newStore(t)
			if got := must(b.Pull(bg, ref, images.PullOptions{}))(t); got.Digest != img.Digest {
				t.Fatal(got.Digest)
			}
			have(t, b, img.Digest, "KEY1", "KEY2", "ONE")

			// Somebody else adds theirs: none is lost.
			for _, att := range []images.Attachment{cosignAtt(img.Digest, "KEY3"), bundleAtt(img.Digest, "TWO")} {
				if err := b.Attach(bg, att); err != nil {
					t.Fatal(err)
				}
			}
			c, _ := newStore(t) // knows the image, has none of the signatures
			must(c.Import(bg, bytes.NewReader(rootfs(t)), ref, images.ImportOptions{Created: img.Created, Config: img.Config}))(t)
			must(b.Push(bg, ref, images.PushOptions{}))(t)
			must(c.Push(bg, ref, images.PushOptions{}))(t)
			must(a.Pull(bg, ref, images.PullOptions{}))(t)
			have(t, a, img.Digest, "KEY1", "KEY2", "KEY3", "ONE", "TWO")
			must(c.Pull(bg, strings.TrimSuffix(ref, ":v1")+"@"+img.Digest, images.PullOptions{}))(t)
			have(t, c, img.Digest, "KEY1", "KEY2", "KEY3", "ONE", "TWO")
		})
	}
}

// have fails unless exactly these signatures are kept for digest.
func have(t testing.TB, s *images.Store, digest string, want ...string) {
	t.Helper()
	list := must(s.Attachments(bg, digest))(t)
	for _, w := range want {
		n := 0
		for _, a := range list {
			if a.Annotations["dev.cosignproject.cosign/signature"] == w || bytes.Contains(a.Payload, []byte(`"`+w+`"`)) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("signature %s is there %d times", w, n)
		}
	}
	if len(list) != len(want) {
		t.Errorf("%d signatures, want %d", len(list), len(want))
	}
}

// Signers at once may overwrite each other's tag, which no client can prevent;
// each keeps its own signature, and pushing again brings it back.
func TestSigningAtOnce(t *testing.T) {
	host, _ := serve(t)
	ref := host + "/x:1"
	s, _ := newStore(t)
	img := must(s.Import(bg, bytes.NewReader(rootfs(t)), ref, images.ImportOptions{}))(t)
	must(s.Push(bg, ref, images.PushOptions{}))(t)
	var wg sync.WaitGroup
	var want []string
	signers := make([]*images.Store, 3)
	for i := range signers {
		key := fmt.Sprintf("KEY%d", i)
		want = append(want, key)
		o, _ := newStore(t)
		signers[i] = o
		must(o.Pull(bg, ref, images.PullOptions{}))(t)
		check(t, o.Attach(bg, cosignAtt(img.Digest, key)))
		wg.Go(func() {
			if _, err := o.Push(bg, ref, images.PushOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, o := range signers {
		must(o.Push(bg, ref, images.PushOptions{}))(t)
	}
	must(s.Pull(bg, ref, images.PullOptions{}))(t)
	have(t, s, img.Digest, want...)
}

func TestAttachmentBounds(t *testing.T) {
	s, dir := newStore(t)
	d := "sha256:" + strings.Repeat("ab", 32)
	good := cosignAtt(d, "S")
	for name, change := range map[string]func(*images.Attachment){
		"no subject":     func(a *images.Attachment) { a.Subject = "../../x" },
		"no payload":     func(a *images.Attachment) { a.Payload = nil },
		"large payload":  func(a *images.Attachment) { a.Payload = make([]byte, 1<<20+1) },
		"large text":     func(a *images.Attachment) { a.Annotations["x"] = strings.Repeat("x", 1<<20) },
		"no signature":   func(a *images.Attachment) { delete(a.Annotations, "dev.cosignproject.cosign/signature") },
		"unknown kind":   func(a *images.Attachment) { a.Kind = "notary" },
		"not a bundle":   func(a *images.Attachment) { a.Kind = images.KindBundle },
		"subject sha512": func(a *images.Attachment) { a.Subject = "sha512:" + strings.Repeat("ab", 64) },
	} {
		a := cosignAtt(d, "S")
		change(&a)
		if err := s.Attach(bg, a); fault.ClassOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range 64 {
		if err := s.Attach(bg, cosignAtt(d, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, s.Attach(bg, good), fault.Invalid, "image.attachments")
	if n := len(must(s.Attachments(bg, d))(t)); n != 64 {
		t.Errorf("%d", n)
	}
	// A file that does not read is never left out.
	es := must(os.ReadDir(filepath.Join(dir, "attachments", hex(d))))(t)
	if err := os.WriteFile(filepath.Join(dir, "attachments", hex(d), es[0].Name()), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.Attachments(bg, d)
	refused(t, err, fault.Invalid, "image.attachment")
}

func TestTooManySignaturesRemote(t *testing.T) {
	host, _ := serve(t)
	ref := host + "/x:1"
	s, _ := newStore(t)
	img := must(s.Import(bg, bytes.NewReader(rootfs(t)), ref, images.ImportOptions{}))(t)
	must(s.Push(bg, ref, images.PushOptions{}))(t)
	layer := fmt.Sprintf(`{"mediaType":"x","digest":"%s","size":2,"annotations":{"dev.cosignproject.cosign/signature":"x"}}`, img.ID)
	body := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[` + strings.TrimSuffix(strings.Repeat(layer+",", 65), ",") + `]}`
	put(t, host+"/x:sha256-"+hex(img.Digest)+".sig", "application/vnd.oci.image.manifest.v1+json", []byte(body))
	_, err := s.Pull(bg, ref, images.PullOptions{})
	refused(t, err, fault.Invalid, "image.attachments")
}
