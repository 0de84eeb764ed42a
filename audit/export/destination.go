package export

import (
	"encoding/json"
	"fmt"
	"net/url"
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
		return d, fmt.Errorf("%w: %.200q is not a URL", ErrConfig, to)
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
