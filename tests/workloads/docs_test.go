package workloads

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table into docs/workloads.md")

const (
	docs  = "../../docs/workloads.md"
	begin = "<!-- workloads:begin -->\n"
	end   = "<!-- workloads:end -->\n"
)

// TestDocs keeps docs/workloads.md and the table the same.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(b), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", docs)
	}
	want := head + begin + table() + end + tail
	if want == string(b) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the table says: go test ./tests/workloads -run TestDocs -update", docs)
	}
	if err := os.WriteFile(docs, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func table() string {
	var s strings.Builder
	for _, wl := range workloads {
		fmt.Fprintf(&s, "### %s\n\n%s. Smoke test: [%s](../tests/workloads/smoke/%s).\n\n", wl.name, wl.title, wl.smoke, wl.smoke)
		if len(wl.flags) == 0 {
			s.WriteString("Needs no flag.\n\n")
			continue
		}
		s.WriteString("| flag | why |\n|---|---|\n")
		for _, o := range wl.flags {
			fmt.Fprintf(&s, "| `%s` | %s |\n", o.flag, o.why)
		}
		s.WriteString("\n")
	}
	return s.String()
}

// TestTable finds rows that prove nothing.
func TestTable(t *testing.T) {
	used := map[string]bool{}
	for _, wl := range workloads {
		if wl.name == "" || wl.title == "" || len(wl.command) == 0 || used[wl.name] {
			t.Errorf("%+v is incomplete or there twice", wl)
		}
		used[wl.name], used[wl.smoke] = true, true
		b, err := smoke.ReadFile("smoke/" + wl.smoke)
		if err != nil || !strings.Contains(string(b), "smoke-ok") {
			t.Errorf("%s: no smoke test that says when it is done (%v)", wl.name, err)
		}
		for _, r := range wl.refused {
			if r.call == "" || r.why == "" {
				t.Errorf("%s: a refusal of %q without a reason", wl.name, r.call)
			}
		}
		for _, o := range wl.flags {
			if !strings.HasPrefix(o.flag, "-") || o.why == "" {
				t.Errorf("%s: flag %q without a reason", wl.name, o.flag)
			}
		}
	}
	es, err := smoke.ReadDir("smoke")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if !used[e.Name()] {
			t.Errorf("smoke/%s belongs to no row", e.Name())
		}
	}
}
