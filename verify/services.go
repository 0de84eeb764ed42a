package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/sigstore/rekor/pkg/generated/client/entries"
	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"

	"github.com/ward-project/ward/internal/fault"
)

// Services are who is asked when something is signed. None is assumed: what
// has no address is not asked.
type Services struct {
	// FulcioURL is the certificate authority that vouches for the holder of
	// Token, an OpenID Connect identity token.
	FulcioURL string
	Token     string
	// RekorURL is a transparency log (Rekor v1), TimestampURL the whole address
	// of an RFC 3161 timestamp authority.
	RekorURL, TimestampURL string
	// TrustedRoot is a trusted_root.json. What the services answer is checked
	// by it before anything is handed out.
	TrustedRoot []byte
}

// ServicesOf reads a signing config, as sigstore gives them out: one service of
// each kind that is in force now. It has no token and no trust root.
func ServicesOf(signingConfig []byte) (Services, error) {
	bad := func(err error) (Services, error) {
		return Services{}, fault.Wrap(fault.Invalid, "sign.config", err, "give a sigstore signing config (v0.2)")
	}
	if _, err := strictJSON(signingConfig); err != nil {
		return bad(err)
	}
	c, err := root.NewSigningConfigFromJSON(signingConfig)
	if err != nil {
		return bad(err)
	}
	var s Services
	for _, of := range []struct {
		dst      *string
		list     []root.Service
		versions []uint32
	}{
		{&s.FulcioURL, c.FulcioCertificateAuthorityURLs(), sign.FulcioAPIVersions},
		{&s.RekorURL, c.RekorLogURLs(), []uint32{1}},
		{&s.TimestampURL, c.TimestampAuthorityURLs(), sign.TimestampAuthorityAPIVersions},
	} {
		if len(of.list) == 0 {
			continue
		}
		one, err := root.SelectService(of.list, of.versions, time.Now())
		if err != nil {
			return bad(err)
		}
		*of.dst = one.URL
	}
	return s, nil
}

const (
	serviceTimeout = 30 * time.Second
	maxAnswer      = 1 << 20
	maxToken       = 16 << 10
)

// check refuses services that could not give a signature that lasts.
func (s Services) check(keyless bool) error {
	bad := func(rule, cause, remedy string) error { return fault.New(fault.Invalid, rule, cause, remedy) }
	for name, address := range map[string]string{"--fulcio-url": s.FulcioURL, "--rekor-url": s.RekorURL, "--timestamp-server-url": s.TimestampURL} {
		if address == "" {
			continue
		}
		if err := mayAsk(address); err != nil {
			return bad("sign.address", fmt.Sprintf("%s: %v", name, err), "give an https address, or http on this machine alone")
		}
	}
	switch {
	case keyless && s.FulcioURL == "":
		return bad("sign.no-authority", "no certificate authority is named; ward has no default one", "give --fulcio-url or --signing-config, or sign with --key")
	case keyless && s.Token == "":
		return bad("sign.no-token", "there is no identity token", "give --identity-token TOKEN|FILE, or set SIGSTORE_ID_TOKEN")
	case keyless && len(s.Token) > maxToken:
		return bad("sign.no-token", "the identity token is too long to be one", "give a token, or the file it is in")
	case keyless && s.RekorURL == "" && s.TimestampURL == "":
		return bad("sign.no-time", "nobody is named to witness when it was signed: the certificate is good for minutes, and so would the signature be",
			"give --timestamp-server-url, --rekor-url or --signing-config")
	case len(s.TrustedRoot) == 0:
		return bad("sign.no-root", "there is no trust root to check by what the services answer", "give --trusted-root FILE, or ward trust root add default FILE")
	}
	return nil
}

// mayAsk says whether an address may be asked: the token is a secret, and goes
// over plain http to nobody but this machine.
func mayAsk(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%.200q is not an address", address)
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http":
		return fmt.Errorf("%.200q is not an https address", address)
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("%.200q is plain http to another machine", address)
	}
	return nil
}

// bounded is a transport that follows no redirect, asks nobody it may not and
// reads no answer without end.
type bounded struct{ base http.RoundTripper }

func newTransport() http.RoundTripper {
	return bounded{&http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: serviceTimeout,
		MaxResponseHeaderBytes: 64 << 10, DisableKeepAlives: true,
	}}
}

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := mayAsk(req.URL.String()); err != nil {
		return nil, err
	}
	resp, err := b.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		resp.Body.Close()
		return nil, fmt.Errorf("%s sends elsewhere (%d); the token goes nowhere it was not meant for", req.URL.Host, resp.StatusCode)
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer+1), resp.Body}
	return resp, nil
}

// rekor is the part of a Rekor v1 client that signing needs, over bounded.
type rekor struct {
	client *http.Client
	url    string
}

// CreateLogEntry implements sign.RekorClient.
func (r rekor) CreateLogEntry(p *entries.CreateLogEntryParams, _ ...entries.ClientOption) (*entries.CreateLogEntryCreated, error) {
	body, err := json.Marshal(p.ProposedEntry)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(p.Context, http.MethodPost, r.url+"/api/v1/log/entries", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusCreated {
		return nil, fmt.Errorf("the log %s answers %d: %s", r.url, resp.StatusCode, clip(string(b)))
	}
	return createdEntry(b)
}

// createdEntry reads the log's answer. What it says is checked later, by the
// trust root; here it must only be whole.
func createdEntry(b []byte) (*entries.CreateLogEntryCreated, error) {
	var payload models.LogEntry
	if err := json.Unmarshal(b, &payload); err != nil || len(payload) != 1 {
		return nil, fmt.Errorf("the log answers with %d entries (%v)", len(payload), err)
	}
	for uuid, e := range payload {
		if e.Body == nil || e.LogID == nil || e.LogIndex == nil || e.IntegratedTime == nil || e.Verification == nil || e.Verification.InclusionProof == nil {
			break
		}
		return &entries.CreateLogEntryCreated{ETag: uuid, Payload: payload}, nil
	}
	return nil, errors.New("the log leaves out parts of its entry")
}

// GetLogEntryByUUID implements sign.RekorClient. It is asked for after a
// conflict only, and no two signatures are the same.
func (r rekor) GetLogEntryByUUID(*entries.GetLogEntryByUUIDParams, ...entries.ClientOption) (*entries.GetLogEntryByUUIDOK, error) {
	return nil, errors.New("the log has this entry already")
}

func (s Services) rekorClient() rekor {
	return rekor{&http.Client{Transport: newTransport(), Timeout: serviceTimeout}, trimSlash(s.RekorURL)}
}

func trimSlash(s string) string {
	for len(s) > 0 && s[len(s)-1] == '/' {
		s = s[:len(s)-1]
	}
	return s
}

// serviceFault is what a service's failure is to whoever wanted to sign.
func serviceFault(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fault.New(fault.Unavailable, "sign.service", "a signing service: "+clip(printableText(err.Error())), "see that the address is right, the service up and the token fresh")
}

// printableText takes out what a stranger's answer could drive a terminal by.
func printableText(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
