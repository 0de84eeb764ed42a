package export

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Options are what a destination needs beside its name. Secrets are not among
// its parts: they come from files, or from the environment.
type Options struct {
	// CA, Cert and Key are PEM files: who may vouch for the receiver (the
	// system's authorities if empty), and who we are.
	CA, Cert, Key string
	// Token is the content of a token file or variable, without line break.
	Token string
	// HTTPStyle is how http:// and https:// are spoken to.
	HTTPStyle string
	// Index is the index or data stream of style elastic.
	Index string
	// RotateBytes is the size at which a file is put aside; 0 is never.
	RotateBytes int64
	// Format is what events are written in.
	Format Format
}

// Destination is where to export to, not yet opened.
type Destination struct {
	// Name is what it was called, without secrets.
	Name string
	// pause is how long to gather records before they are sent.
	pause time.Duration
	open  func(state json.RawMessage) (sink, error)
}

// ParseDestination understands "-", a path, or a URL; see docs/audit-export.md.
func ParseDestination(to string, o Options) (Destination, error) {
	d := Destination{Name: to}
	scheme, _, isURL := strings.Cut(to, "://")
	if !isURL {
		switch {
		case to == "":
			return d, fmt.Errorf("%w: no destination", ErrConfig)
		case to == "-":
			d.open = openStdout
			return d, nil
		}
		abs, err := filepath.Abs(to)
		if err != nil {
			return d, err
		}
		d.Name = abs
		if strings.HasSuffix(to, "/") {
			d.Name += "/"
			d.open = func(json.RawMessage) (sink, error) { return openDir(abs) }
			return d, nil
		}
		d.open = func(state json.RawMessage) (sink, error) { return openFile(abs, o.RotateBytes, state) }
		return d, nil
	}
	u, err := url.Parse(to)
	if err != nil {
		return d, fmt.Errorf("%w: the destination is not a URL", ErrConfig) // it may hold a password
	}
	if u.User != nil {
		return d, fmt.Errorf("%w: a password in a destination is seen by everybody on the host: use --token-file", ErrConfig)
	}
	open, ok := schemes[scheme]
	if !ok {
		return d, fmt.Errorf("%w: no destination %.40q", ErrConfig, scheme+"://")
	}
	return d, open(&d, u, o)
}

// schemes are the destinations with a URL.
var schemes = map[string]func(*Destination, *url.URL, Options) error{}

// clientTLS is the TLS configuration towards server: verified, always.
func (o Options) clientTLS(server string) (*tls.Config, error) {
	c := &tls.Config{ServerName: server, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrConfig, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: %s holds no certificate", ErrConfig, o.CA)
		}
	}
	if (o.Cert == "") != (o.Key == "") {
		return nil, fmt.Errorf("%w: a client certificate needs both a file with it and one with its key", ErrConfig)
	}
	if o.Cert != "" {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrConfig, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// clearOnly allows a destination without TLS on this host alone.
func clearOnly(u *url.URL) error {
	if h := u.Hostname(); h != "localhost" && !net.ParseIP(h).IsLoopback() {
		return fmt.Errorf("%w: %s without TLS is for loopback addresses alone", ErrConfig, u.Scheme)
	}
	return nil
}

var errNotLoopback = errors.New("the name is not one of this host's loopback addresses")

// onLoopback is a last look at where a name led.
func onLoopback(c net.Conn) error {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		return errors.Join(errNotLoopback, c.Close())
	}
	return nil
}

// hostPort is the address of u, with a default port.
func hostPort(u *url.URL, port string) string {
	if p := u.Port(); p != "" {
		port = p
	}
	return net.JoinHostPort(u.Hostname(), port)
}
