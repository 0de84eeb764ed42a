package export

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

func init() { schemes["nats"], schemes["nats+tls"] = natsStream, natsStream }

// nats publishes to a JetStream stream and waits for its acknowledgement of
// each event. The message id lets the stream drop what is sent again within
// its window. It speaks the part of the protocol that this takes.
type nats struct {
	addr, subject, token string
	tls                  *tls.Config // nil on loopback

	conn  net.Conn
	r     *bufio.Reader
	inbox string
	max   int // what the server takes in one message
}

const (
	natsPatience = 30 * time.Second
	natsLine     = 64 << 10
)

func natsStream(d *Destination, u *url.URL, o Options) error {
	s := &nats{addr: hostPort(u, "4222"), subject: strings.TrimPrefix(u.Path, "/"), token: o.Token}
	if s.subject == "" {
		s.subject = "ward.audit"
	}
	if strings.ContainsFunc(s.subject, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '*' || r == '>' || r == '/' }) || len(s.subject) > 200 {
		return fmt.Errorf("%w: %.100q is not a subject to publish to", ErrConfig, s.subject)
	}
	if u.Scheme == "nats+tls" {
		var err error
		if s.tls, err = o.clientTLS(u.Hostname()); err != nil {
			return err
		}
	} else if err := clearOnly(u); err != nil {
		return err
	}
	d.open = func(json.RawMessage) (sink, error) { return s, nil }
	return nil
}

func (s *nats) send(ctx context.Context, ms []message) (err error) {
	ctx, cancel := context.WithTimeout(ctx, natsPatience)
	defer cancel()
	defer func() {
		if err != nil { // what is under way on this connection is anybody's guess
			s.close()
		}
	}()
	if s.conn == nil {
		if err := s.connect(ctx); err != nil {
			return err
		}
	}
	conn := s.conn
	if err := conn.SetDeadline(time.Now().Add(natsPatience)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var b bytes.Buffer
	for i, m := range ms {
		head := "NATS/1.0\r\nNats-Msg-Id: " + plain(m.ID) + "\r\n\r\n"
		if len(head)+len(m.body) > s.max {
			return refused("%s: %d bytes, the server takes %d: set --max-bytes", m.ID, len(m.body), s.max)
		}
		fmt.Fprintf(&b, "HPUB %s %s.%d %d %d\r\n%s%s\r\n", s.subject, s.inbox, i, len(head), len(head)+len(m.body), head, m.body)
	}
	if _, err := conn.Write(b.Bytes()); err != nil {
		return err
	}
	return s.acknowledged(ms)
}

// connect says hello, with TLS as the server's greeting asks for, and waits
// until the server answers: then it has let us in.
func (s *nats) connect(ctx context.Context) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return err
	}
	s.conn, s.r = conn, bufio.NewReaderSize(conn, natsLine)
	if err := conn.SetDeadline(time.Now().Add(natsPatience)); err != nil {
		return err
	}
	if s.tls == nil {
		if err := onLoopback(conn); err != nil {
			return refused("%w", err)
		}
	}
	line, err := s.line()
	if err != nil {
		return err
	}
	var info struct {
		JetStream  bool `json:"jetstream"`
		Headers    bool `json:"headers"`
		MaxPayload int  `json:"max_payload"`
	}
	greeting, ok := strings.CutPrefix(line, "INFO ")
	if !ok || json.Unmarshal([]byte(greeting), &info) != nil {
		return fmt.Errorf("not a NATS server: %.100q", plain(line))
	}
	if !info.Headers {
		return refused("the server takes no headers, and so no message ids")
	}
	if s.tls != nil {
		t := tls.Client(conn, s.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			return handshakeError(err)
		}
		s.conn, s.r = t, bufio.NewReaderSize(t, natsLine)
	}
	s.max = info.MaxPayload
	hello := map[string]any{"verbose": false, "pedantic": false, "headers": true, "no_responders": true, "lang": "go", "version": "1", "protocol": 1, "name": "ward audit export"}
	if user, pass, ok := strings.Cut(s.token, ":"); ok {
		hello["user"], hello["pass"] = user, pass
	} else if s.token != "" {
		hello["auth_token"] = s.token
	}
	h, err := json.Marshal(hello)
	if err != nil {
		return err
	}
	s.inbox = fmt.Sprintf("_INBOX.ward%x", time.Now().UnixNano())
	if _, err := fmt.Fprintf(s.conn, "CONNECT %s\r\nSUB %s.* 1\r\nPING\r\n", h, s.inbox); err != nil {
		return err
	}
	for {
		switch line, err := s.line(); {
		case err != nil:
			return err
		case line == "PONG":
			return nil
		case strings.HasPrefix(line, "-ERR"):
			return natsError(line)
		}
	}
}

// natsError: what is about rights or size stays so.
func natsError(line string) error {
	err := fmt.Errorf("NATS: %s", clip(plain(line), 200))
	for _, s := range []string{"Authorization", "Permissions", "Maximum Payload", "Invalid"} {
		if strings.Contains(line, s) {
			return refused("%w", err)
		}
	}
	return err
}

func (s *nats) line() (string, error) {
	b, err := s.r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// acknowledged reads until every event of the batch is answered for.
func (s *nats) acknowledged(ms []message) error {
	answered := make([]bool, len(ms))
	for left := len(ms); left > 0; {
		line, err := s.line()
		if err != nil {
			return err
		}
		f := strings.Fields(line)
		switch {
		case len(f) == 0, f[0] == "PONG", f[0] == "+OK", f[0] == "INFO":
			continue
		case f[0] == "PING":
			if _, err := io.WriteString(s.conn, "PONG\r\n"); err != nil {
				return err
			}
			continue
		case f[0] == "-ERR":
			return natsError(line)
		case f[0] != "MSG" && f[0] != "HMSG" || len(f) < 4:
			return fmt.Errorf("NATS: %.100q is not expected", plain(line))
		}
		size, err := strconv.Atoi(f[len(f)-1])
		if err != nil || size < 0 || size > natsLine {
			return fmt.Errorf("NATS: message of %.20q bytes", f[len(f)-1])
		}
		body := make([]byte, size+2)
		if _, err := io.ReadFull(s.r, body); err != nil {
			return err
		}
		n, err := strconv.Atoi(strings.TrimPrefix(f[1], s.inbox+"."))
		if err != nil || n < 0 || n >= len(ms) {
			return fmt.Errorf("NATS: message for %.100q", plain(f[1]))
		}
		if f[0] == "HMSG" {
			return fmt.Errorf("no stream takes %s (%s)", s.subject, clip(plain(string(body)), 60))
		}
		if err := natsAck(body[:size]); err != nil {
			return fmt.Errorf("%s: %w", ms[n].ID, err)
		}
		if !answered[n] {
			answered[n], left = true, left-1
		}
	}
	return nil
}

// natsAck reads a stream's acknowledgement.
func natsAck(b []byte) error {
	var a struct {
		Stream string `json:"stream"`
		Seq    uint64 `json:"seq"`
		Error  *struct {
			Code        int    `json:"code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	switch err := json.Unmarshal(b, &a); {
	case err != nil:
		return fmt.Errorf("not an acknowledgement: %w", err)
	case a.Error != nil && a.Error.Code/100 == 4:
		return refused("%d %s", a.Error.Code, clip(plain(a.Error.Description), 200))
	case a.Error != nil:
		return fmt.Errorf("%d %s", a.Error.Code, clip(plain(a.Error.Description), 200))
	case a.Stream == "" || a.Seq == 0:
		return errors.New("the answer is not a stream's")
	}
	return nil
}

func (*nats) state() json.RawMessage { return nil }

func (s *nats) close() error {
	if s.conn == nil {
		return nil
	}
	c := s.conn
	s.conn = nil
	return c.Close()
}
