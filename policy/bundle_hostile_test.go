package policy_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

// hostile are archives that nobody should take apart further than it takes to
// see what they are.
func hostile(t testing.TB) map[string][]byte {
	t.Helper()
	file := func(name string, size int) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(size), Mode: 0o644}
	}
	zeros := func(h tar.Header) []byte { return make([]byte, h.Size) }
	one := func(hs ...tar.Header) []byte { return archiveOf(t, hs, zeros) }
	many := []tar.Header{}
	for i := range 600 {
		many = append(many, file(fmt.Sprintf("%d.rego", i), 0))
	}
	large := []tar.Header{}
	for i := range 12 {
		large = append(large, file(fmt.Sprintf("%d.rego", i), 1<<20))
	}
	good := one(file("a.rego", 1))
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 64 {
		if _, err := z.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{
		"empty": nil, "not gzip": []byte("PK\x03\x04"), "not tar": gzipped(t, []byte(strings.Repeat("x", 2000))), "no entries": one(),
		"half": good[:len(good)/2], "checksum": append(append([]byte{}, good[:len(good)-8]...), 1, 2, 3, 4, 5, 6, 7, 8),
		"two archives": append(append([]byte{}, good...), good...), "rubbish behind": append(append([]byte{}, good...), 'x'),
		"bomb": bomb.Bytes(), "many": one(many...), "large in all": one(large...), "large": one(file("a.rego", 1<<20+1)),
		"twice": one(file("a.rego", 1), file("./a.rego", 1)), "twice with slash": one(file("a.rego", 1), file("/a.rego", 1)),
		"behind the end": gzipped(t, append(untarred(t, good), append(make([]byte, 512), "x"...)...)),
	}
	for _, name := range []string{"../a.rego", "/../a.rego", "x/../../a.rego", "x/./a.rego", "//a.rego", "x//a.rego", "..", "a\\b.rego", "a\nb.rego", "\x1b[31m.rego", strings.Repeat("a/", 300) + "a.rego", "a\xff.rego"} {
		out["name "+fmt.Sprintf("%.20q", name)] = one(file(name, 1))
	}
	for kind, h := range map[string]tar.Header{
		"link":     {Name: "a.rego", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
		"hardlink": {Name: "a.rego", Typeflag: tar.TypeLink, Linkname: "b.rego"},
		"device":   {Name: "a.rego", Typeflag: tar.TypeChar},
		"fifo":     {Name: "a.rego", Typeflag: tar.TypeFifo},
	} {
		out[kind] = one(h)
	}
	return out
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(b)
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func untarred(t testing.TB, archive []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := out.ReadFrom(z); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestBundleHostile(t *testing.T) {
	key := pairOf(t, "ES256")
	for name, archive := range hostile(t) {
		_, err := policy.Open(policy.Config{Dir: bundled(t, key.trusted("release", "*"), "team.tar.gz", string(archive))})
		var f *fault.Error
		if !errors.As(err, &f) || f.Class != fault.Invalid || f.Rule != "policy.bundle" || len(f.Cause) > 2000 || strings.ContainsAny(f.Cause, "\x1b\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	big := strings.Repeat("x", policy.MaxBundle+1)
	_, err := policy.Open(policy.Config{Dir: bundled(t, key.trusted("release", "*"), "team.tar.gz", big)})
	refused(t, err, fault.Invalid, "policy.size", "team.tar.gz")
}

// No bytes but those that the key signed make a bundle.
func FuzzBundle(f *testing.F) {
	key := pairOf(f, "ES256")
	good := key.build(f, "release", team("1"))
	f.Add(good)
	for _, archive := range hostile(f) {
		if len(archive) < 1<<16 {
			f.Add(archive)
		}
	}
	signed := untarred(f, good)
	cfg := policy.Config{Dir: bundled(f, key.trusted("release", "team"))}
	f.Fuzz(func(t *testing.T, archive []byte) {
		if len(archive) > 1<<20 {
			return
		}
		b, err := policy.TryBundle(cfg, "team", archive)
		if err != nil {
			return
		}
		if b.Revision != "1" || b.Key != "release" {
			t.Fatal(b)
		}
		// Laid out in another way, perhaps, but file by file what was signed.
		want, got := entriesOf(t, gzipped(t, signed)), entriesOf(t, archive)
		for name, text := range got {
			if !strings.HasSuffix(name, "/") && !bytes.Equal(want["/"+strings.TrimLeft(name, "./")], text) && !strings.Contains(name, ".signatures.json") && !strings.HasSuffix(name, ".json") && !strings.HasSuffix(name, ".manifest") {
				t.Fatalf("%s is %q", name, text)
			}
		}
	})
}
