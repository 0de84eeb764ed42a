package witness

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// answering is a witness that gives those answers, one after the other, and
// then none. What it would be sent to elsewhere fails the test.
func answering(t *testing.T, status []int, answer []string) string {
	t.Helper()
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/add-checkpoint" || r.Method != http.MethodPost {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		if n == len(status) {
			w.WriteHeader(http.StatusGone)
			return
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status[n])
		io.WriteString(w, answer[n])
		n++
	}))
	t.Cleanup(s.Close)
	return s.URL
}
