package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/sigstore/sigstore-go/pkg/tuf"
	"github.com/theupdateframework/go-tuf/v2/metadata/fetcher"

	"github.com/ward-project/ward/internal/fault"
)

// tufDir keeps what the last update saw, inside the directory of trust roots:
// without it an older, validly signed answer could not be told from a newer.
const tufDir = ".tuf"

// updateTimeout bounds each request of an update.
const updateTimeout = 30 * time.Second

// RootUpdate says where a trust root comes from.
type RootUpdate struct {
	// Name is the trust root's in dir.
	Name string
	// Mirror is the address of a TUF repository; sigstore's public one if "".
	Mirror string
	// TUFRoot is the root.json that the repository's keys are checked with at
	// first; required with Mirror, ward's own copy of sigstore's without.
	TUFRoot []byte
}

// TrustRootUpdate fetches trusted_root.json from a TUF repository, whose
// signatures, expiry and versions are checked, and keeps it in dir. It is the
// only function of this package that uses the network, and is called by
// nothing but a person's command. changed says whether there was a newer one.
func TrustRootUpdate(ctx context.Context, dir string, u RootUpdate) (path string, changed bool, err error) {
	const target = "trusted_root.json"
	if (u.Mirror == "") != (len(u.TUFRoot) == 0) {
		return "", false, fault.New(fault.Invalid, "usage", "a mirror and the root.json to check it with belong together", "give both, or neither for sigstore's public repository")
	}
	old, err := TrustRootRead(dir, u.Name)
	if err != nil {
		return "", false, err
	}
	f := fetcher.NewDefaultFetcher()
	f.SetHTTPClient(&http.Client{Timeout: updateTimeout, Transport: untilDone{ctx, http.DefaultTransport}})
	opts := &tuf.Options{
		Root: u.TUFRoot, RepositoryBaseURL: u.Mirror, CachePath: filepath.Join(dir, rootsDir, tufDir), Fetcher: f, Context: ctx,
	}
	if u.Mirror == "" {
		opts.Root, opts.RepositoryBaseURL = tuf.DefaultRoot(), tuf.DefaultMirror
	}
	c, err := tuf.New(opts)
	if err != nil {
		return "", false, notUpdated(ctx, opts, err)
	}
	b, err := c.GetTarget(target)
	if err != nil {
		return "", false, notUpdated(ctx, opts, err)
	}
	if old != nil && bytes.Equal(b, old) {
		return rootPath(dir, u.Name), false, nil
	}
	path, err = TrustRootAdd(dir, u.Name, b, true)
	return path, err == nil, err
}

func notUpdated(ctx context.Context, o *tuf.Options, err error) error {
	if ctx.Err() != nil {
		err = errors.Join(err, ctx.Err())
	}
	return fault.New(fault.Unavailable, "trust.update", fmt.Sprintf("no trust root from %s: %s", o.RepositoryBaseURL, clip(err.Error())),
		"the trust root stays as it is; try again where there is a network, or ward trust root add NAME FILE")
}

// untilDone ends requests with a context that the library does not pass on.
type untilDone struct {
	ctx  context.Context
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (w untilDone) RoundTrip(r *http.Request) (*http.Response, error) {
	return w.next.RoundTrip(r.WithContext(w.ctx))
}
