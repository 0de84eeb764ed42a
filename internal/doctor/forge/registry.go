package forge

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Fault is what the registry does to the answers about one repository.
type Fault string

// The faults. Each changes bytes and leaves the headers, digests included.
const (
	FlipLayer    Fault = "layer"
	FlipConfig   Fault = "config"
	FlipManifest Fault = "manifest"
	// GrowManifest makes manifests larger than any client should read.
	GrowManifest Fault = "oversized-manifest"
)

// Registry serves what was forged. Its handler is the one of ward registry
// serve; forging writes into it directly.
type Registry struct {
	// Addr is its host and port.
	Addr    string
	handler http.Handler
	server  *http.Server

	mu     sync.Mutex
	faults map[string]Fault
	// configs are the digests of what is a configuration and no layer.
	configs map[string]bool
}

// Serve serves h on a free port of the loopback interface until Close.
func Serve(h http.Handler) (*Registry, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("forge: %w", err)
	}
	r := &Registry{Addr: l.Addr().String(), handler: h, faults: map[string]Fault{}, configs: map[string]bool{}}
	r.server = &http.Server{Handler: http.HandlerFunc(r.serve), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = r.server.Serve(l) }() // ends with Close
	return r, nil
}

// Close stops serving.
func (r *Registry) Close() error { return r.server.Close() }

// Break makes a repository's answers faulty from now on.
func (r *Registry) Break(repo string, f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults[repo] = f
}

// answer holds a response back, to be altered.
type answer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(code int)        { a.code = code }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	repo, kind, name := split(req.URL.Path)
	r.mu.Lock()
	f, config := r.faults[repo], r.configs[name]
	r.mu.Unlock()
	if f == "" || req.Method != http.MethodGet {
		r.handler.ServeHTTP(w, req)
		return
	}
	a := &answer{header: w.Header(), code: http.StatusOK}
	r.handler.ServeHTTP(a, req)
	b := a.body.Bytes()
	if a.code == http.StatusOK && len(b) > 0 {
		b = alter(b, f, kind, config)
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	w.WriteHeader(a.code)
	_, _ = w.Write(b) // who hung up does not want it
}

func alter(b []byte, f Fault, kind string, config bool) []byte {
	switch {
	case f == FlipManifest && kind == "manifests":
		// In a name, so that it stays a document that says something.
		if i := bytes.Index(b, []byte("forged")); i >= 0 {
			b[i] ^= 1
		}
	case f == GrowManifest && kind == "manifests":
		b = append(b, bytes.Repeat([]byte{' '}, 5<<20)...)
	case f == FlipConfig && kind == "blobs" && config:
		if i := bytes.Index(b, []byte("forged")); i >= 0 {
			b[i] ^= 1
		}
	case f == FlipLayer && kind == "blobs" && !config:
		b[len(b)/2] ^= 1
	}
	return b
}

// split takes the path of a request apart: /v2/<repo>/<kind>/<name>.
func split(path string) (repo, kind, name string) {
	path, _ = strings.CutPrefix(path, "/v2/")
	for _, k := range []string{"manifests", "blobs"} {
		if i := strings.LastIndex(path, "/"+k+"/"); i >= 0 {
			return path[:i], k, path[i+len(k)+2:]
		}
	}
	return "", "", ""
}

// put gives the handler something to keep.
func (r *Registry) put(method, path, mediaType string, body []byte) error {
	req, err := http.NewRequest(method, "http://"+r.Addr+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("forge: %w", err)
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	req.RequestURI = req.URL.RequestURI()
	a := &answer{header: http.Header{}, code: http.StatusOK}
	r.handler.ServeHTTP(a, req)
	if a.code/100 != 2 {
		return fmt.Errorf("forge: %s %s: %d %s", method, path, a.code, a.body.String())
	}
	return nil
}

func (r *Registry) blob(repo string, b []byte) (digest string, err error) {
	digest = digestOf(b)
	return digest, r.put(http.MethodPost, "/v2/"+repo+"/blobs/uploads/?digest="+digest, "application/octet-stream", b)
}

func (r *Registry) manifest(repo, tag, mediaType string, b []byte) (digest string, err error) {
	return digestOf(b), r.put(http.MethodPut, "/v2/"+repo+"/manifests/"+tag, mediaType, b)
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
