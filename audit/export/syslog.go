package export

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"
)

func init() {
	schemes["syslog+tls"] = syslogStream
	schemes["syslog+tcp"] = syslogStream
	schemes["syslog+unix"] = syslogDatagram
}

// syslog sends RFC 5424 messages, each with its length before it (RFC 6587,
// RFC 5425). The protocol has no acknowledgement, so one is made of what it
// has: after a batch the sender closes its direction, and waits until the
// receiver, who sees that only when it has read everything, closes the other.
// A receiver that dies with something unread resets the connection instead.
type syslog struct {
	addr string
	tls  *tls.Config // nil on loopback
}

// syslogPatience is how long a receiver may take for one batch.
const syslogPatience = 30 * time.Second

func syslogStream(d *Destination, u *url.URL, o Options) error {
	s := &syslog{addr: hostPort(u, "6514")}
	if u.Scheme == "syslog+tls" {
		var err error
		if s.tls, err = o.clientTLS(u.Hostname()); err != nil {
			return err
		}
	} else if err := clearOnly(u); err != nil {
		return err
	}
	d.pause = time.Second // each batch is a connection
	d.open = func(json.RawMessage) (sink, error) { return s, nil }
	return nil
}

func (s *syslog) send(ctx context.Context, ms []message) error {
	ctx, cancel := context.WithTimeout(ctx, syslogPatience)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, tcp := raw, raw.(*net.TCPConn)
	if s.tls == nil {
		if err := onLoopback(raw); err != nil {
			return refused("%w", err)
		}
	} else {
		t := tls.Client(raw, s.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			return handshakeError(err)
		}
		conn = t
	}
	var b bytes.Buffer
	for _, m := range ms {
		msg := syslogMessage(m)
		fmt.Fprintf(&b, "%d ", len(msg))
		b.Write(msg)
	}
	if _, err := conn.Write(b.Bytes()); err != nil {
		return err
	}
	if t, ok := conn.(*tls.Conn); ok {
		if err := t.CloseWrite(); err != nil {
			return err
		}
	}
	if err := tcp.CloseWrite(); err != nil {
		return err
	}
	return drained(conn)
}

// drained waits for the receiver's end of the connection. Some close it
// without TLS's farewell; what matters is that they do not reset it.
func drained(conn net.Conn) error {
	n, err := io.Copy(io.Discard, io.LimitReader(conn, 64<<10))
	switch {
	case n >= 64<<10:
		return errors.New("the receiver talks")
	case err == nil, errors.Is(err, io.ErrUnexpectedEOF):
		return nil
	}
	return fmt.Errorf("not acknowledged: %w", err)
}

// handshakeError tells a receiver that is not who it should be, which stays
// so, from one that cannot be reached.
func handshakeError(err error) error {
	var verification *tls.CertificateVerificationError
	if errors.As(err, &verification) {
		return refused("%w", err)
	}
	return err
}

func (*syslog) state() json.RawMessage { return nil }
func (*syslog) close() error           { return nil }

// syslogMessage is one RFC 5424 message: facility 13, log audit. The event is
// the text; what a receiver routes by is structured data. 32473 is the
// enterprise number that RFC 5612 sets aside for those who have none.
func syslogMessage(m message) []byte {
	// OCSF's 1 to 4 as syslog's informational, notice, warning, error.
	severity := []int{6, 6, 5, 4, 3}[m.severity()]
	var b bytes.Buffer
	fmt.Fprintf(&b, "<%d>1 %s %s ward %d %s [ward@32473", 13<<3|severity, m.Time.UTC().Format("2006-01-02T15:04:05.000000Z"),
		syslogName(m.Host, 255), m.Actor.PID, syslogName(string(m.Type), 32))
	for _, p := range [][2]string{{"id", m.ID}, {"leaf", m.LeafHash}, {"run", m.Run}, {"decision", m.Decision}, {"rule", m.Rule}, {"class", m.Class}} {
		if p[1] != "" {
			fmt.Fprintf(&b, ` %s="%s"`, p[0], strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`).Replace(plain(p[1])))
		}
	}
	b.WriteString("] ")
	b.Write(m.body)
	return b.Bytes()
}

// syslogName is printable ASCII without spaces, at most n bytes, never empty.
func syslogName(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || r == utf8.RuneError {
			return '_'
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), n)]
}

// datagrams are messages to a socket on this host, one each: what the socket
// took counts as acknowledged.
type datagrams struct {
	path string
	form func(message) []byte
}

func syslogDatagram(d *Destination, u *url.URL, _ Options) error {
	path := u.Path
	if path == "" || u.Host != "" {
		return fmt.Errorf("%w: syslog+unix:///PATH names a socket", ErrConfig)
	}
	d.open = func(json.RawMessage) (sink, error) { return datagrams{path, syslogMessage}, nil }
	return nil
}

func (s datagrams) send(ctx context.Context, ms []message) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "unixgram", s.path)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for _, m := range ms {
		if err := c.SetWriteDeadline(time.Now().Add(syslogPatience)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err := c.Write(s.form(m)); err != nil {
			return fmt.Errorf("%s: %w", m.ID, err)
		}
	}
	return nil
}

func (datagrams) state() json.RawMessage { return nil }
func (datagrams) close() error           { return nil }
