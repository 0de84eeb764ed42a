package images

import (
	"net/http"
	"net/url"
	"testing"
)

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
