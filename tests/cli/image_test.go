package cli

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ward-project/ward/tests/lab"
)

// oddity is what a root file system has that it should not.
func oddity(kind string) ([]tar.Header, error) {
	link := func(at, to string) []tar.Header {
		return []tar.Header{{Typeflag: tar.TypeSymlink, Name: at, Linkname: to, Mode: 0o777}}
	}
	file := func(at string) []tar.Header {
		return []tar.Header{{Typeflag: tar.TypeReg, Name: at, Mode: 0o644, PAXRecords: map[string]string{"WARD.body": "escaped\n"}}}
	}
	switch kind {
	case "":
		return nil, nil
	case "dev-link":
		return append(link("dev", "/elsewhere"), tar.Header{Typeflag: tar.TypeDir, Name: "elsewhere/", Mode: 0o755}), nil
	case "proc-link":
		return append(link("proc", "/elsewhere"), tar.Header{Typeflag: tar.TypeDir, Name: "elsewhere/", Mode: 0o755}), nil
	case "dotdot":
		return file("../escaped"), nil
	case "absolute":
		return file("/tmp/ward-escaped"), nil
	case "through-link":
		return append(link("way", "/tmp"), file("way/ward-escaped")...), nil
	case "hardlink-out":
		return []tar.Header{{Typeflag: tar.TypeLink, Name: "shadow", Linkname: "../../../../etc/passwd", Mode: 0o644}}, nil
	case "device":
		return []tar.Header{{Typeflag: tar.TypeBlock, Name: "dev/disk", Devmajor: 254, Devminor: 0, Mode: 0o666}}, nil
	}
	if _, ok := declared[kind]; ok {
		return []tar.Header{
			{Typeflag: tar.TypeDir, Name: "data/", Mode: 0o755, Uid: 1000, Gid: 1000},
			{Typeflag: tar.TypeReg, Name: "data/seed", Mode: 0o640, Uid: 1000, Gid: 1000, PAXRecords: map[string]string{"WARD.body": "seed\n"}},
			// What it leads to is on the host only.
			{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "/var/lib/dpkg", Mode: 0o777},
		}, nil
	}
	return nil, fmt.Errorf("no such oddity: %q", kind)
}

// declared are the volumes that an image's configuration declares.
var declared = map[string]string{
	"volume": "/data", "volume-dotdot": "/data/../../../../var/lib/dpkg", "volume-proc": "/proc", "volume-root": "/",
	"volume-relative": "data", "volume-link": "/link",
}

// publish REF KIND: puts an image into a registry as a stranger would, with
// tools that check nothing. KIND is an oddity of its layer.
func (s *script) publish(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(args[0], name.Insecure)
	ts.Check(err)
	kind := ""
	if len(args) > 1 {
		kind = args[1]
	}
	var img v1.Image = empty.Image
	extra, err := oddity(kind)
	ts.Check(err)
	file := filepath.Join(s.ward.Dir, "published.tar")
	ts.Check(lab.Rootfs(file, extra...))
	body, err := os.ReadFile(file)
	ts.Check(err)
	img, err = mutate.AppendLayers(img, static.NewLayer(body, types.OCIUncompressedLayer))
	ts.Check(err)
	img = mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON)
	cfg, err := img.ConfigFile()
	ts.Check(err)
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", "amd64"
	if v, ok := declared[kind]; ok {
		cfg.Config.Volumes = map[string]struct{}{v: {}}
	}
	img, err = mutate.ConfigFile(img, cfg)
	ts.Check(err)
	ts.Check(remote.Write(ref, img))
}

// graft FROM TO: gives image TO the signature that image FROM has in its
// registry, under TO's own name for signatures.
func (s *script) graft(ts *testscript.TestScript, _ bool, args []string) {
	tag := func(text string) name.Tag {
		ref, err := name.ParseReference(text, name.Insecure)
		ts.Check(err)
		d, err := remote.Head(ref)
		ts.Check(err)
		return ref.Context().Tag("sha256-" + d.Digest.Hex + ".sig")
	}
	sig, err := remote.Image(tag(args[0]))
	ts.Check(err)
	ts.Check(remote.Write(tag(args[1]), sig))
}

// proxy stands between ward and a registry and alters answers.
type proxy struct {
	mode   atomic.Value // string
	server *http.Server
}

func (p *proxy) close() { _ = p.server.Close() }

// tamper MODE: what the proxy at PROXY does to the registry's answers: none,
// layer, config, manifest (one bit of each flipped), oversized-manifest, down.
func (s *script) tamper(ts *testscript.TestScript, _ bool, args []string) {
	if s.proxy != nil {
		s.proxy.mode.Store(args[0])
		return
	}
	target, err := url.Parse("http://" + ts.Getenv("REG"))
	ts.Check(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	p := &proxy{}
	p.mode.Store(args[0])
	rp := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		ModifyResponse: p.alter,
	}
	p.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.mode.Load() == "down" {
			http.Error(w, "the registry is down", http.StatusBadGateway)
			return
		}
		rp.ServeHTTP(w, r)
	})}
	go func() { _ = p.server.Serve(l) }()
	s.proxy = p
	ts.Setenv("PROXY", l.Addr().String())
}

// alter changes the answers the mode names, and leaves their headers.
func (p *proxy) alter(r *http.Response) error {
	mode, _ := p.mode.Load().(string)
	if r.Request.Method != http.MethodGet || r.StatusCode != http.StatusOK || mode == "none" {
		return nil
	}
	manifest := strings.Contains(r.Request.URL.Path, "/manifests/")
	blob := strings.Contains(r.Request.URL.Path, "/blobs/")
	if !manifest && !blob {
		return nil
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	config := blob && bytes.HasPrefix(bytes.TrimSpace(b), []byte("{"))
	switch {
	case mode == "manifest" && manifest:
		b = flipIn(b, "sha256:") // the first digest in it: a valid document that says something else
	case mode == "config" && config:
		b = flipIn(b, "amd64")
	case mode == "layer" && blob && !config:
		b[len(b)/2] ^= 1
	case mode == "oversized-manifest" && manifest:
		b = append(b, bytes.Repeat([]byte(" "), 5<<20)...)
		r.Header.Set("Content-Length", fmt.Sprint(len(b)))
		r.ContentLength = int64(len(b))
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	return nil
}

// flipIn changes one bit of the last hex digit or letter after mark.
func flipIn(b []byte, mark string) []byte {
	i := bytes.Index(b, []byte(mark))
	if i < 0 {
		return b
	}
	at := i + len(mark)
	if mark == "amd64" {
		at = i
	}
	if b[at] ^= 1; b[at] == '`' || b[at] == ':' || b[at] == 'g' { // keep it hexadecimal
		b[at] ^= 3
	}
	return b
}
