package images

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"testing"
	"time"
)

func TestSilentRegistry(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	c := &idleConn{a, 600 * time.Millisecond}
	go func() {
		for range 4 { // slow but alive, longer in all than the bound
			time.Sleep(200 * time.Millisecond)
			b.Write([]byte("x"))
		}
	}()
	buf := make([]byte, 1)
	for range 4 {
		if _, err := c.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("silence: %v", err)
	}
}

// A long upload is not silence: its answer may be waited for all the while.
func TestSlowUpload(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	c := &idleConn{a, 600 * time.Millisecond}
	go func() {
		buf := make([]byte, 1)
		for range 8 {
			time.Sleep(150 * time.Millisecond)
			b.Read(buf)
		}
		b.Write([]byte("y"))
	}()
	answer := make(chan error)
	go func() {
		_, err := c.Read(make([]byte, 1))
		answer <- err
	}()
	for range 8 {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
}

func TestRedirects(t *testing.T) {
	req := func(u string) *http.Request {
		p, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		return &http.Request{URL: p}
	}
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"https://reg.example/v2/", "https://cdn.example/x", true},
		{"https://reg.example/v2/", "https://203.0.113.7/x", true},
		{"https://10.0.0.1/v2/", "https://10.0.0.1/x", true},
		{"http://127.0.0.1:5000/v2/", "http://127.0.0.1:9000/x", true},
		{"https://reg.example/v2/", "http://127.0.0.1/x", false},
		{"https://reg.example/v2/", "http://localhost:80/x", false},
		{"https://reg.example/v2/", "https://[::1]/x", false},
		{"https://reg.example/v2/", "https://169.254.169.254/latest/meta-data", false},
		{"https://reg.example/v2/", "https://192.168.1.1/", false},
		{"https://reg.example/v2/", "https://0.0.0.0/", false},
		{"https://reg.example/v2/", "https://[fd00::1]/", false},
	} {
		if err := fewRedirects(req(c.to), []*http.Request{req(c.from)}); (err == nil) != c.ok {
			t.Errorf("%s -> %s: %v", c.from, c.to, err)
		}
	}
	via := []*http.Request{req("https://a.example"), req("https://a.example"), req("https://a.example"), req("https://a.example"), req("https://a.example")}
	if fewRedirects(req("https://a.example"), via) == nil {
		t.Error("a sixth redirect was followed")
	}
}
