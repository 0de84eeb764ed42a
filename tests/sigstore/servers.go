package sigstore

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
)

// Servers are sigstore's own programs on this machine's loopback, and a tiny
// OpenID Connect issuer that Fulcio trusts. The programs bind ports of all
// addresses besides: they want a network namespace of their own.
type Servers struct {
	t testing.TB
	// IssuerURL, FulcioURL and TimestampURL are where they are.
	IssuerURL, FulcioURL, TimestampURL string
	key                                *rsa.PrivateKey
}

const (
	issuerAddr  = "127.0.0.1:8901"
	fulcioAddr  = "127.0.0.1:8902"
	stampsAddr  = "127.0.0.1:8905"
	tokenClient = "sigstore"
)

// Start starts them; fulcio and timestamps are paths of the programs.
func Start(t testing.TB, fulcio, timestamps, dir string) *Servers {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	s := &Servers{t, "http://" + issuerAddr, "http://" + fulcioAddr, "http://" + stampsAddr + "/api/v1/timestamp", key}
	Serve(t, issuerAddr, s.issuer())
	config := filepath.Join(dir, "fulcio.json")
	b, err := json.Marshal(map[string]any{"OIDCIssuers": map[string]any{s.IssuerURL: map[string]any{"IssuerURL": s.IssuerURL, "ClientID": tokenClient, "Type": "email"}}})
	check(t, err)
	check(t, os.WriteFile(config, b, 0o600))
	s.program(dir, fulcio, s.FulcioURL+"/healthz", "serve", "--config-path", config, "--ca", "ephemeralca", "--ct-log-url", "",
		"--host", "127.0.0.1", "--port", "8902", "--grpc-host", "127.0.0.1", "--grpc-port", "8903", "--metrics-port", "8904")
	s.program(dir, timestamps, "http://"+stampsAddr+"/ping", "serve", "--host", "127.0.0.1", "--port", "8905", "--timestamp-signer", "memory", "--disable-ntp-monitoring")
	return s
}

// Serve serves h at addr until the test ends.
func Serve(t testing.TB, addr string, h http.Handler) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	check(t, err)
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close() })
}

// program starts one and waits until it answers.
func (s *Servers) program(dir, path, ready string, args ...string) {
	s.t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "PATH=/usr/bin:/bin"}
	cmd.Stdout, cmd.Stderr = &log, &log
	check(s.t, cmd.Start())
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if s.t.Failed() {
			s.t.Logf("%s: %s", path, log.String())
		}
	})
	for range 600 {
		if resp, err := http.Get(ready); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Fatalf("%s does not answer", ready)
}

// issuer is as much of an OpenID Connect issuer as checks of tokens ask for.
func (s *Servers) issuer() http.Handler {
	mux := http.NewServeMux()
	answer := func(path string, v any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v)
		})
	}
	answer("/.well-known/openid-configuration", map[string]any{"issuer": s.IssuerURL, "jwks_uri": s.IssuerURL + "/keys", "authorization_endpoint": s.IssuerURL + "/auth",
		"token_endpoint": s.IssuerURL + "/token", "response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"}})
	answer("/keys", map[string]any{"keys": []any{map[string]any{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1",
		"n": url64(s.key.N.Bytes()), "e": url64(big.NewInt(int64(s.key.E)).Bytes())}}})
	return mux
}

// Token is an identity token for a mail address, good for that long.
func (s *Servers) Token(mail string, life time.Duration) string {
	s.t.Helper()
	now := time.Now()
	claims, err := json.Marshal(map[string]any{"iss": s.IssuerURL, "aud": tokenClient, "sub": "1", "email": mail, "email_verified": true,
		"iat": now.Add(-time.Minute).Unix(), "exp": now.Add(life).Unix()})
	check(s.t, err)
	text := url64([]byte(`{"alg":"RS256","kid":"1","typ":"JWT"}`)) + "." + url64(claims)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, sum[:])
	check(s.t, err)
	return text + "." + url64(sig)
}

func url64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Root is a trusted_root.json for the servers, and for the log of a, if given.
func (s *Servers) Root(a *Authority) []byte {
	s.t.Helper()
	var bundle struct {
		Chains []struct {
			Certificates []string `json:"certificates"`
		} `json:"chains"`
	}
	check(s.t, json.Unmarshal(s.get(s.FulcioURL+"/api/v2/trustBundle"), &bundle))
	since := time.Now().Add(-time.Hour)
	var cas []root.CertificateAuthority
	for _, c := range bundle.Chains {
		certs := parseAll(s.t, []byte(strings.Join(c.Certificates, "\n")))
		cas = append(cas, &root.FulcioCertificateAuthority{Root: certs[len(certs)-1], Intermediates: certs[:len(certs)-1], ValidityPeriodStart: since, URI: s.FulcioURL})
	}
	certs := parseAll(s.t, s.get(s.TimestampURL+"/certchain"))
	stamps := []root.TimestampingAuthority{&root.SigstoreTimestampingAuthority{
		Root: certs[len(certs)-1], Intermediates: certs[1 : len(certs)-1], Leaf: certs[0], ValidityPeriodStart: since, URI: s.TimestampURL,
	}}
	logs := map[string]*root.TransparencyLog{}
	if a != nil {
		logs[LogID(s.t, a.rekor.Public())] = transparency(s.t, a.rekor.Public(), RekorURL, since)
	}
	r, err := root.NewTrustedRoot(root.TrustedRootMediaType01, cas, map[string]*root.TransparencyLog{}, stamps, logs)
	check(s.t, err)
	b, err := r.MarshalJSON()
	check(s.t, err)
	return b
}

func (s *Servers) get(url string) []byte {
	s.t.Helper()
	resp, err := http.Get(url)
	check(s.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	check(s.t, err)
	return b
}

func parseAll(t testing.TB, b []byte) []*x509.Certificate {
	t.Helper()
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		check(t, err)
		certs, b = append(certs, c), rest
	}
	if len(certs) == 0 {
		t.Fatalf("no certificate in %.200s", b)
	}
	return certs
}
