package images_test

import (
	"archive/tar"
	"bytes"
	"context"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/images/registry"
	"github.com/ward-project/ward/internal/fault"
)

// file is one entry of a test archive.
type file struct {
	name, link, body string
	typ              byte
	mode             int64
	uid              int
	size             int64 // instead of len(body)
	pax              map[string]string
}

func archive(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Linkname: f.link, Typeflag: f.typ, Mode: f.mode, Uid: f.uid, Gid: f.uid, Size: int64(len(f.body)), PAXRecords: f.pax}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if f.size != 0 {
			h.Size = f.size
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// rootfs is a small, proper root file system.
func rootfs(t testing.TB, more ...file) []byte {
	return archive(t, append([]file{
		{name: "./", typ: tar.TypeDir},
		{name: "./bin/", typ: tar.TypeDir},
		{name: "./bin/busybox", body: "#!busybox\n"},
		{name: "./bin/sh", typ: tar.TypeLink, link: "./bin/busybox"},
		{name: "./etc/", typ: tar.TypeDir},
		{name: "./etc/passwd", body: "root:x:0:0::/:/bin/sh\n", mode: 0o644},
		{name: "./dev/", typ: tar.TypeDir},
		{name: "./proc/", typ: tar.TypeDir},
		{name: "./sbin", typ: tar.TypeSymlink, link: "bin"},
	}, more...)...)
}

func newStore(t testing.TB) (*images.Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "images")
	s, err := images.Open(images.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

// serve runs our registry and returns its host:port and directory.
func serve(t testing.TB) (host, dir string) {
	t.Helper()
	dir = t.TempDir()
	h, err := registry.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), dir
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// refused fails unless err has the class and the rule.
func refused(t testing.TB, err error, class fault.Class, rule string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted; want %v %s", class, rule)
	}
	if e := fault.As(err); e.Class != class || e.Rule != rule {
		t.Fatalf("got %v %q (%v), want %v %q", e.Class, e.Rule, err, class, rule)
	}
	if fault.As(err).Remedy == "" {
		t.Fatalf("no remedy: %v", err)
	}
}

func cosignAtt(digest, sig string) images.Attachment {
	return images.Attachment{Subject: digest, Kind: images.KindCosign, MediaType: "application/vnd.dev.cosign.simplesigning.v1+json",
		Payload: []byte(`{"critical":{"image":{"docker-manifest-digest":"` + digest + `"}}}`), Annotations: map[string]string{"dev.cosignproject.cosign/signature": sig}}
}

func bundleAtt(digest, what string) images.Attachment {
	return images.Attachment{Subject: digest, Kind: images.KindBundle, MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		Payload: []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","messageSignature":{"signature":"` + what + `"}}`)}
}

func TestFromArchiveToOtherStore(t *testing.T) {
	ctx := t.Context()
	host, _ := serve(t)
	a, _ := newStore(t)
	ref := host + "/demo/busybox:1"
	img := must(a.Import(ctx, bytes.NewReader(rootfs(t)), ref, images.ImportOptions{Config: images.RunConfig{Cmd: []string{"/bin/sh"}}}))(t)
	if err := a.Attach(ctx, cosignAtt(img.Digest, "AAAA")); err != nil {
		t.Fatal(err)
	}
	if err := a.Attach(ctx, bundleAtt(img.Digest, "BBBB")); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	if d := must(a.Push(ctx, ref, images.PushOptions{Progress: &said}))(t); d != img.Digest {
		t.Fatalf("pushed %s, imported %s", d, img.Digest)
	}
	b, _ := newStore(t)
	got := must(b.Pull(ctx, ref, images.PullOptions{Progress: &said}))(t)
	if got.Digest != img.Digest || got.ID != img.ID || got.Reference != ref || got.Config.Cmd[0] != "/bin/sh" {
		t.Fatalf("%+v", got)
	}
	if !strings.Contains(said.String(), "digest: "+img.Digest) {
		t.Errorf("progress: %s", said.String())
	}
	atts := must(b.Attachments(ctx, img.Digest))(t)
	if len(atts) != 2 {
		t.Fatalf("%d attachments", len(atts))
	}
	dirs := must(b.Unpack(ctx, got))(t)
	if len(dirs) != 1 {
		t.Fatal(dirs)
	}
	if p := must(b.File(ctx, got, "/etc/passwd", 1<<20))(t); string(p) != "root:x:0:0::/:/bin/sh\n" {
		t.Fatalf("%q", p)
	}
	if err := b.CheckRoot(ctx, got); err != nil {
		t.Fatal(err)
	}
	if l := must(b.List(ctx))(t); len(l) != 1 || l[0].Digest != img.Digest {
		t.Fatalf("%+v", l)
	}
}

var bg = context.Background()
