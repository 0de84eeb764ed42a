package images

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ward-project/ward/internal/fault"
)

// repository reads from one repository. Authentication, scheme and retries are
// go-containerregistry's; the reads are ours, because what comes back must be
// bounded (4 MiB, not 100) and a digest mismatch must be a typed error.
type repository struct {
	repo   name.Repository
	client *http.Client
	base   http.RoundTripper // guarded, for go-containerregistry's writer
}

func (s *Store) openRepository(ctx context.Context, repo name.Repository, scope string) (*repository, error) {
	base, err := s.transport(repo.RegistryStr())
	if err != nil {
		return nil, err
	}
	auth, err := authn.Resolve(ctx, authn.DefaultKeychain, repo)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "registry.credentials", fmt.Errorf("credentials for %s: %w", repo.RegistryStr(), err), "check ~/.docker/config.json and its credential helper")
	}
	retry := transport.NewRetry(base,
		transport.WithRetryBackoff(transport.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Jitter: 0.1, Steps: 3}),
		transport.WithRetryStatusCodes(http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout))
	t, err := transport.NewWithContext(ctx, repo.Registry, auth, retry, []string{repo.Scope(scope)})
	if err != nil {
		return nil, remoteFault(repo.Name(), err)
	}
	return &repository{repo, &http.Client{Transport: t, CheckRedirect: fewRedirects}, base}, nil
}

// fewRedirects follows a registry to its storage, but not from the network
// into this machine or a private one: what is asked there would be asked with
// our rights (a cloud's metadata service, a neighbour's admin port).
func fewRedirects(r *http.Request, via []*http.Request) error {
	if len(via) >= 5 {
		return errors.New("more than five redirects")
	}
	from, to := via[0].URL.Hostname(), r.URL.Hostname()
	ip := net.ParseIP(to)
	inward := loopback(to) || ip != nil && (ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified())
	if inward && to != from && !loopback(from) {
		return fault.New(fault.Denied, "registry.redirect", fmt.Sprintf("%s redirects to %s, which is not on its side of the network", from, to), "use a registry whose storage has a public address or its own name")
	}
	return nil
}

// transport is the bottom of every connection to a registry.
func (s *Store) transport(host string) (http.RoundTripper, error) {
	t := remote.DefaultTransport.(*http.Transport).Clone()
	dial := (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &idleConn{c, maxIdle}, nil
	}
	t.ResponseHeaderTimeout = maxIdle
	roots, err := s.authorities(host)
	if err != nil {
		return nil, err
	}
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	return guard{t}, nil
}

// maxIdle is how long a registry may say nothing, in the middle of a layer too:
// as long as it takes to hash a pushed one.
const maxIdle = 2 * time.Minute

// idleConn is a connection whose reads do not wait for ever: a registry that
// stops sending would hold a pull, and the locks it has, as long as it likes.
type idleConn struct {
	net.Conn
	idle time.Duration
}

// Read waits at most c.idle for the next bytes.
func (c *idleConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write puts the deadline of a pending read off: net/http waits for the answer
// while it is still sending, which for a large layer takes long.
func (c *idleConn) Write(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// authorities returns the system's certificate authorities plus those placed
// for host in CertsDir, or nil for the system's alone.
func (s *Store) authorities(host string) (*x509.CertPool, error) {
	if s.cfg.CertsDir == "" {
		return nil, nil
	}
	files, err := filepath.Glob(filepath.Join(s.cfg.CertsDir, host, "*.crt"))
	if err != nil || len(files) == 0 {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		if !pool.AppendCertsFromPEM(b) {
			return nil, fault.New(fault.Invalid, "registry.certificate", fmt.Sprintf("%s holds no PEM certificate", f), "replace the file")
		}
	}
	return pool, nil
}

// guard refuses plain HTTP to anything but this machine, whoever asks for it:
// the scheme go-containerregistry guesses for private networks, a redirect, a
// token server named in a challenge. Credentials would travel in clear, and
// whoever is on the path could answer "no such signature".
type guard struct{ next http.RoundTripper }

func (g guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !loopback(r.URL.Hostname()) {
		return nil, fault.New(fault.Denied, "registry.plain-http", fmt.Sprintf("%s would be asked over plain http", r.URL.Host), "give the registry a TLS certificate; plain http is for loopback addresses only")
	}
	return g.next.RoundTrip(r)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// remoteFault classifies what came back from registry traffic about what.
// Down, missing and unauthorized must stay three different things.
func remoteFault(what string, err error) error {
	var known *fault.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	err = fmt.Errorf("%s: %w", what, err)
	var te *transport.Error
	if !errors.As(err, &te) {
		return fault.Wrap(fault.Unavailable, "registry.unavailable", err, "check that the registry runs and can be reached, then try again")
	}
	switch te.StatusCode {
	case http.StatusNotFound:
		return fault.Wrap(fault.NotFound, "image.missing", err, "check the name and tag; ward push makes an image available")
	case http.StatusUnauthorized, http.StatusForbidden:
		return fault.Wrap(fault.Denied, "registry.unauthorized", err, "log in to the registry (docker login writes the credentials ward reads), or check that you may use this repository")
	}
	return fault.Wrap(fault.Unavailable, "registry.unavailable", err, "try again; if it persists, look at the registry's log")
}

// get asks for one resource; the caller closes the body.
func (r *repository) get(ctx context.Context, kind, id string, accept ...types.MediaType) (*http.Response, error) {
	u := url.URL{Scheme: r.repo.Scheme(), Host: r.repo.RegistryStr(), Path: fmt.Sprintf("/v2/%s/%s/%s", r.repo.RepositoryStr(), kind, id)}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, a := range accept {
		req.Header.Add("Accept", string(a))
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// manifest fetches a manifest or index by tag or digest. want is its digest if
// known, and size too (-1 if not); the bytes are believed only if they hash so.
func (r *repository) manifest(ctx context.Context, id string, want v1.Hash, size int64) ([]byte, types.MediaType, v1.Hash, error) {
	what := fmt.Sprintf("manifest %s of %s", id, r.repo.Name())
	fail := func(err error) ([]byte, types.MediaType, v1.Hash, error) {
		return nil, "", v1.Hash{}, remoteFault(what, err)
	}
	resp, err := r.get(ctx, "manifests", id, types.OCIImageIndex, types.OCIManifestSchema1, types.DockerManifestList, types.DockerManifestSchema2)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	b, err := readBounded(resp.Body, maxManifest, what)
	if err != nil {
		return fail(err)
	}
	got := digestOf(b)
	if want != (v1.Hash{}) && (got != want || size >= 0 && int64(len(b)) != size) {
		return fail(tampered("%s hashes to %s (%d bytes)", what, got, len(b)))
	}
	// By tag, what the registry says it sends must be what it sends.
	if h, err := v1.NewHash(resp.Header.Get("Docker-Content-Digest")); err == nil && h.Algorithm == "sha256" && h != got {
		return fail(tampered("%s hashes to %s, the registry says %s", what, got, h))
	}
	mt, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return b, types.MediaType(strings.TrimSpace(mt)), got, nil
}

// blob opens a blob; its reader verifies nothing.
func (r *repository) blob(ctx context.Context, h v1.Hash) (io.ReadCloser, error) {
	resp, err := r.get(ctx, "blobs", h.String())
	if err != nil {
		var te *transport.Error
		if errors.As(err, &te) && te.StatusCode == http.StatusNotFound {
			return nil, fault.New(fault.Unavailable, "registry.incomplete", fmt.Sprintf("registry has the manifest but not blob %s of %s", h, r.repo.Name()), "push the image again")
		}
		return nil, remoteFault("blob "+h.String(), err)
	}
	return resp.Body, nil
}

// classed makes trouble with what is read remote trouble, so that trouble with
// where it is written is not taken for it.
type classed struct {
	r    io.Reader
	what string
}

func (c classed) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF {
		err = remoteFault(c.what, err)
	}
	return n, err
}

// smallBlob fetches a blob of at most limit bytes whole and verifies it.
func (r *repository) smallBlob(ctx context.Context, d v1.Descriptor, limit int64) ([]byte, error) {
	if err := checkDescriptor(d, limit); err != nil {
		return nil, err
	}
	rc, err := r.blob(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	b, err := readBounded(rc, d.Size, "blob "+d.Digest.String())
	if err != nil {
		var known *fault.Error
		if errors.As(err, &known) { // more bytes than the descriptor says
			return nil, tampered("blob %s is longer than the %d bytes its descriptor says", d.Digest, d.Size)
		}
		return nil, remoteFault("blob "+d.Digest.String(), err)
	}
	if got := digestOf(b); got != d.Digest {
		return nil, tampered("blob %s hashes to %s", d.Digest, got)
	}
	return b, nil
}

// referrers lists what refers to h: by the API, or by the tag that stands in
// for it where the registry has none. Only a 404 of the tag means "none".
func (r *repository) referrers(ctx context.Context, h v1.Hash) ([]v1.Descriptor, error) {
	what := fmt.Sprintf("referrers of %s in %s", h, r.repo.Name())
	var b []byte
	resp, err := r.get(ctx, "referrers", h.String(), types.OCIImageIndex)
	var te *transport.Error
	switch {
	case err == nil:
		defer resp.Body.Close()
		if b, err = readBounded(resp.Body, maxManifest, what); err != nil {
			return nil, remoteFault(what, err)
		}
	case errors.As(err, &te) && (te.StatusCode == http.StatusNotFound || te.StatusCode == http.StatusBadRequest || te.StatusCode == http.StatusNotAcceptable || te.StatusCode == http.StatusMethodNotAllowed):
		b, _, _, err = r.manifest(ctx, "sha256-"+h.Hex, v1.Hash{}, -1)
		if fault.ClassOf(err) == fault.NotFound {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	default:
		return nil, remoteFault(what, err)
	}
	var idx v1.IndexManifest
	if err := json.Unmarshal(b, &idx); err != nil {
		return nil, badDocument("image.attachment", "%s: %v", what, err)
	}
	return idx.Manifests, nil
}
