// Package registry is a small OCI registry kept on disk, for demonstrations,
// tests and machines that need no more: blobs and uploads are
// go-containerregistry's, manifests, tags, referrers and the catalogue are
// files of ours, because go-containerregistry keeps those in memory only.
//
// It promises that what was pushed is there after a restart, that a manifest is
// stored only if it hashes to the digest it is pushed by, and that names from
// the network never become paths: every file name is a digest, a checked tag or
// an escaped repository name. Manifests and blobs are served as they are on
// disk: finding out that somebody changed them is the client's duty.
//
// It does not promise to be fit for the open network: there is no
// authentication, no garbage collection, and an upload is held in memory until
// it is whole, at most MaxUpload bytes.
package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ward-project/ward/internal/fsx"
)

const (
	// MaxUpload bounds one request's body in bytes.
	MaxUpload   = 1 << 30
	maxManifest = 4 << 20
)

// New returns a handler for the registry API over the files in dir, which is
// made if it is not there. One process at a time may serve a directory.
func New(dir string) (http.Handler, error) {
	for _, d := range []string{dir, filepath.Join(dir, "blobs", "sha256"), filepath.Join(dir, "repositories")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("registry: %w", err)
		}
	}
	quiet := log.New(io.Discard, "", 0)
	inner := registry.New(
		registry.WithBlobHandler(blobs{filepath.Join(dir, "blobs")}),
		registry.Logger(quiet))
	return &handler{filepath.Join(dir, "repositories"), inner}, nil
}

type handler struct {
	dir   string
	blobs http.Handler
}

// Compiled when first asked: this package is linked into a program that is
// started far more often than it serves.
var (
	repoName = pattern(`^[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*$`)
	tagName  = pattern(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	hexName  = pattern(`^[0-9a-f]{64}$`)
)

func pattern(p string) func(string) bool {
	re := sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(p) })
	return func(s string) bool { return re().MatchString(s) }
}

// apiError is what the registry API answers instead of content.
type apiError struct {
	status        int
	code, message string
}

func (e *apiError) Error() string { return e.message }

func unknown(what string) *apiError {
	return &apiError{http.StatusNotFound, what, strings.ToLower(strings.ReplaceAll(what, "_", " "))}
}

// ServeHTTP answers one request of the OCI distribution API.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, MaxUpload)
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if !ok || rest == "" {
		h.blobs.ServeHTTP(w, r)
		return
	}
	var err error
	part := strings.Split(rest, "/")
	n := len(part)
	switch {
	case rest == "_catalog":
		err = h.catalog(w, r)
	case n >= 3 && part[n-2] == "manifests":
		err = h.manifest(w, r, strings.Join(part[:n-2], "/"), part[n-1])
	case n >= 3 && part[n-2] == "tags" && part[n-1] == "list":
		err = h.tags(w, r, strings.Join(part[:n-2], "/"))
	case n >= 3 && part[n-2] == "referrers":
		err = h.referrers(w, r, strings.Join(part[:n-2], "/"), part[n-1])
	case n >= 3 && (part[n-2] == "blobs" || part[n-2] == "uploads" || part[n-3] == "blobs"):
		h.blobs.ServeHTTP(w, r)
		return
	default:
		err = unknown("NAME_UNKNOWN")
	}
	if err == nil {
		return
	}
	var api *apiError
	if !errors.As(err, &api) {
		api = &apiError{http.StatusInternalServerError, "UNKNOWN", err.Error()}
	}
	answer(w, api.status, "application/json", map[string]any{
		"errors": []map[string]string{{"code": api.code, "message": api.message}},
	})
}

func answer(w http.ResponseWriter, status int, contentType string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, nil
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	w.WriteHeader(status)
	w.Write(b) // the client may be gone, which is no concern of ours
}

// repo returns the directory of a repository. Its name is escaped into one
// component: "a" and "a/b" may both exist and neither is inside the other.
func (h *handler) repo(name string) (string, error) {
	if len(name) > 200 || !repoName(name) {
		return "", &apiError{http.StatusBadRequest, "NAME_INVALID", "invalid repository name"}
	}
	return filepath.Join(h.dir, url.PathEscape(name)), nil
}

func onlyGet(r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return &apiError{http.StatusMethodNotAllowed, "UNSUPPORTED", "method not allowed"}
	}
	return nil
}

func (h *handler) catalog(w http.ResponseWriter, r *http.Request) error {
	if err := onlyGet(r); err != nil {
		return err
	}
	es, err := os.ReadDir(h.dir)
	if err != nil {
		return err
	}
	names := []string{}
	for _, e := range es {
		if n, err := url.PathUnescape(e.Name()); err == nil {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	answer(w, http.StatusOK, "application/json", map[string]any{"repositories": names})
	return nil
}

func (h *handler) tags(w http.ResponseWriter, r *http.Request, name string) error {
	dir, err := h.repo(name)
	if err != nil {
		return err
	}
	if err := onlyGet(r); err != nil {
		return err
	}
	es, err := os.ReadDir(filepath.Join(dir, "tags"))
	if errors.Is(err, fs.ErrNotExist) {
		return unknown("NAME_UNKNOWN")
	}
	if err != nil {
		return err
	}
	tags := []string{}
	for _, e := range es {
		if tagName(e.Name()) && e.Name() > r.URL.Query().Get("last") {
			tags = append(tags, e.Name())
		}
	}
	answer(w, http.StatusOK, "application/json", map[string]any{"name": name, "tags": tags})
	return nil
}

// stored is a manifest as it is on disk, with the media type it was pushed as.
type stored struct {
	Type types.MediaType
	Body []byte
	Hex  string
}

// load reads the manifest that ref, a tag or a digest, names.
func load(dir, ref string) (stored, error) {
	var mt string
	hex, isDigest := strings.CutPrefix(ref, "sha256:")
	if !isDigest {
		if !tagName(ref) {
			return stored{}, unknown("MANIFEST_UNKNOWN")
		}
		b, err := os.ReadFile(filepath.Join(dir, "tags", ref))
		if errors.Is(err, fs.ErrNotExist) {
			return stored{}, unknown("MANIFEST_UNKNOWN")
		}
		if err != nil {
			return stored{}, err
		}
		d, t, _ := strings.Cut(string(b), " ")
		hex, mt = strings.TrimPrefix(d, "sha256:"), t
	}
	if !hexName(hex) {
		return stored{}, unknown("MANIFEST_UNKNOWN")
	}
	body, err := os.ReadFile(filepath.Join(dir, "manifests", hex))
	if errors.Is(err, fs.ErrNotExist) {
		return stored{}, unknown("MANIFEST_UNKNOWN")
	}
	if err != nil {
		return stored{}, err
	}
	if isDigest {
		b, err := os.ReadFile(filepath.Join(dir, "types", hex))
		if err != nil {
			return stored{}, err
		}
		mt = string(b)
	}
	return stored{types.MediaType(mt), body, hex}, nil
}

func (h *handler) manifest(w http.ResponseWriter, r *http.Request, name, ref string) error {
	dir, err := h.repo(name)
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		m, err := load(dir, ref)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", string(m.Type))
		w.Header().Set("Content-Length", fmt.Sprint(len(m.Body)))
		w.Header().Set("Docker-Content-Digest", "sha256:"+m.Hex)
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodGet {
			w.Write(m.Body) // the client may be gone, which is no concern of ours
		}
		return nil
	case http.MethodPut:
		return h.put(w, r, dir, name, ref)
	case http.MethodDelete:
		return remove(w, dir, ref)
	}
	return &apiError{http.StatusMethodNotAllowed, "UNSUPPORTED", "method not allowed"}
}

func (h *handler) put(w http.ResponseWriter, r *http.Request, dir, name, ref string) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxManifest+1))
	if err != nil {
		return &apiError{http.StatusBadRequest, "MANIFEST_INVALID", err.Error()}
	}
	if len(body) > maxManifest {
		return &apiError{http.StatusRequestEntityTooLarge, "SIZE_INVALID", "manifest is too large"}
	}
	var doc struct {
		Subject *v1.Descriptor `json:"subject"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return &apiError{http.StatusBadRequest, "MANIFEST_INVALID", err.Error()}
	}
	mt := r.Header.Get("Content-Type")
	if mt == "" || len(mt) > 200 {
		return &apiError{http.StatusBadRequest, "MANIFEST_INVALID", "no media type"}
	}
	digest, err := digestOf(body)
	if err != nil {
		return err
	}
	if strings.Contains(ref, ":") && ref != digest.String() {
		return &apiError{http.StatusBadRequest, "DIGEST_INVALID", "manifest hashes to " + digest.String()}
	}
	if !strings.Contains(ref, ":") && !tagName(ref) {
		return &apiError{http.StatusBadRequest, "TAG_INVALID", "invalid tag"}
	}
	for _, d := range []string{"tags", "types", "manifests"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	// The type before the manifest before the tag: what is found is whole. The
	// type a digest was first pushed as stays: who pushes the same bytes as
	// something else must not change what others get.
	err = fsx.CreateFile(filepath.Join(dir, "types", digest.Hex), []byte(mt), 0o600)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := fsx.WriteFile(filepath.Join(dir, "manifests", digest.Hex), body, 0o600); err != nil {
		return err
	}
	if !strings.Contains(ref, ":") {
		if err := fsx.WriteFile(filepath.Join(dir, "tags", ref), []byte(digest.String()+" "+mt), 0o600); err != nil {
			return err
		}
	}
	if doc.Subject != nil {
		w.Header().Set("OCI-Subject", doc.Subject.Digest.String())
	}
	w.Header().Set("Location", "/v2/"+name+"/manifests/"+digest.String())
	w.Header().Set("Docker-Content-Digest", digest.String())
	w.WriteHeader(http.StatusCreated)
	return nil
}

func remove(w http.ResponseWriter, dir, ref string) error {
	if _, err := load(dir, ref); err != nil {
		return err
	}
	path := filepath.Join(dir, "tags", ref)
	if hex, ok := strings.CutPrefix(ref, "sha256:"); ok {
		path = filepath.Join(dir, "manifests", hex)
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func digestOf(b []byte) (v1.Hash, error) {
	h, _, err := v1.SHA256(strings.NewReader(string(b)))
	return h, err
}
