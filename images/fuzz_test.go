package images

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

func FuzzReference(f *testing.F) {
	for _, s := range []string{
		"busybox", "busybox:1", "a/b", "docker.io/a", "localhost:5000/a/b:c", "[::1]:5000/a", "a@sha256:" + strings.Repeat("ab", 32),
		"a:b@sha256:" + strings.Repeat("ab", 32), "a/../b", "a//b", "/a", "a/", "A", "a:", "a@", "a@sha512:ab", "http://a/b", "a b", "a\nb", "é", "a__b", "a___b", "a--b", "a-_b", "a.", "-a", "a..b", "a:..", "a:.", "a:-", "a:b..c", "a/.b", "x.io/%2e%2e/a", "x.io/a?b", "x.io/a#b", "u:p@x.io/a",
	} {
		f.Add(s)
	}
	component := regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$`)
	f.Fuzz(func(t *testing.T, s string) {
		if isComponent(s) != component.MatchString(s) && !strings.HasSuffix(s, "\n") {
			t.Fatalf("component %q", s)
		}
		full, err := ParseReference(s)
		if err != nil {
			if fault.ClassOf(err) != fault.Invalid {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		again, err := ParseReference(full)
		if err != nil || again != full {
			t.Fatalf("%q -> %q -> %q, %v", s, full, again, err)
		}
		_, rest, ok := strings.Cut(full, "/")
		if !ok || strings.ContainsAny(full, "?#%\\ \n") {
			t.Fatalf("%q -> %q", s, full)
		}
		for _, c := range strings.FieldsFunc(rest, func(r rune) bool { return r == ':' || r == '@' }) {
			for p := range strings.SplitSeq(c, "/") {
				if p == "" || p[0] == '.' || p[0] == '-' {
					t.Fatalf("%q -> %q", s, full)
				}
			}
		}
	})
}

func FuzzDocument(f *testing.F) {
	layer := `{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:` + strings.Repeat("ab", 32) + `","size":1}`
	for _, s := range []string{
		`{"schemaVersion":2,"config":` + strings.Replace(layer, "layer.v1.tar", "config.v1+json", 1) + `,"layers":[` + layer + `]}`,
		`{"schemaVersion":2,"manifests":[` + layer + `]}`, `{"manifests":[],"layers":[]}`, `{"Layers":[],"layers":[]}`, `{}`, `[]`, `{"a":`, `{}{}`,
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	s := &Store{Config{MaxImageBytes: 1 << 30}}
	f.Fuzz(func(t *testing.T, b []byte, index bool) {
		mt := types.OCIManifestSchema1
		if index {
			mt = types.OCIImageIndex
		}
		if kind, err := checkDocument(b, mt); err == nil {
			// Judged again by another reader of JSON: exact names, first wins.
			var doc map[string]any
			if err := json.Unmarshal(b, &doc); err != nil {
				t.Fatalf("accepted and does not parse: %v", err)
			}
			_, m := doc["manifests"]
			_, l := doc["layers"]
			if m && l || m && kind != "index" {
				t.Fatalf("ambiguous document accepted as %s: %s", kind, b)
			}
		}
		if index {
			if d, err := choose(b, ""); err == nil && checkDescriptor(d, maxManifest) != nil {
				t.Fatal("chose an unchecked descriptor")
			}
			return
		}
		if m, err := s.parseManifest(b, mt); err == nil && (len(m.Layers) == 0 || len(m.Layers) > maxLayers) {
			t.Fatal("layers")
		} else if err == nil {
			toImage(m, b)
		}
	})
}

func FuzzEntry(f *testing.F) {
	for _, n := range []string{"a", "./", "a/b", "../a", "/a", "a/../b", ".wh.a", ".wh..wh..opq", ".wh..", "a/.wh.", ".wh.a/b", "a\x00b", strings.Repeat("a/", 3000)} {
		f.Add(n, "a", byte(tar.TypeReg), int64(0), 0)
		f.Add("a", n, byte(tar.TypeLink), int64(0), 65536)
	}
	f.Fuzz(func(t *testing.T, name, link string, typ byte, size int64, uid int) {
		e, err := checkEntry(&tar.Header{Name: name, Linkname: link, Typeflag: typ, Size: size, Uid: uid})
		if err != nil {
			return
		}
		for _, p := range []string{e.dir, e.base, e.link} {
			if strings.HasPrefix(p, "/") || p != "" && !filepath.IsLocal(p) || strings.Contains(p, "\x00") {
				t.Fatalf("%q %q -> %q", name, link, p)
			}
			if strings.HasPrefix(filepath.Base(p), whiteout) && p != e.link {
				t.Fatalf("%q -> %q would be a whiteout in the layer", name, p)
			}
		}
		if strings.Contains(e.base, "/") || uid < 0 || uid > maxID || typ == tar.TypeChar || typ == tar.TypeBlock {
			t.Fatalf("%q accepted", name)
		}
	})
}

// FuzzArchive gives the applier any bytes; whatever comes of it, nothing is
// touched outside, and nothing inside is what a layer must not hold.
func FuzzArchive(f *testing.F) {
	seed := func(hs ...tar.Header) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range hs {
			h.Mode = 0o755
			if h.Typeflag == 0 {
				h.Typeflag = tar.TypeReg
			}
			if err := w.WriteHeader(&h); err != nil {
				f.Fatal(err)
			}
		}
		w.Close()
		f.Add(b.Bytes())
	}
	seed(tar.Header{Name: "d/", Typeflag: tar.TypeDir}, tar.Header{Name: "d/.wh..wh..opq"}, tar.Header{Name: ".wh.d"})
	seed(tar.Header{Name: "l", Linkname: "../..", Typeflag: tar.TypeSymlink}, tar.Header{Name: "l/decoy"})
	seed(tar.Header{Name: "a"}, tar.Header{Name: "h", Linkname: "a", Typeflag: tar.TypeLink}, tar.Header{Name: "a", Typeflag: tar.TypeDir}, tar.Header{Name: "a", Typeflag: tar.TypeFifo})
	seed(tar.Header{Name: "x", PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}})
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		decoy := filepath.Join(dir, "decoy")
		if err := os.WriteFile(decoy, []byte("x"), 0o604); err != nil {
			t.Fatal(err)
		}
		var before, after unix.Stat_t
		if err := unix.Stat(decoy, &before); err != nil {
			t.Fatal(err)
		}
		a, err := newApplier(filepath.Join(dir, "fs"), 1<<20, 1000)
		if err != nil {
			t.Fatal(err)
		}
		a.apply(bytes.NewReader(b))
		a.close()
		if err := unix.Stat(decoy, &after); err != nil || before.Ctim != after.Ctim || before.Nlink != after.Nlink {
			t.Fatalf("decoy touched: %v", err)
		}
		if es, _ := os.ReadDir(dir); len(es) != 2 {
			t.Fatalf("made outside: %v", es)
		}
		filepath.WalkDir(filepath.Join(dir, "fs"), func(p string, d os.DirEntry, _ error) error {
			var st unix.Stat_t
			if unix.Lstat(p, &st) != nil {
				return nil
			}
			if k := st.Mode & unix.S_IFMT; k == unix.S_IFBLK || k == unix.S_IFCHR && st.Rdev != 0 || st.Uid > maxID {
				t.Fatalf("%s: mode %o", p, st.Mode)
			}
			if strings.HasPrefix(filepath.Base(p), whiteout) {
				t.Fatalf("%s looks like a whiteout", p)
			}
			return nil
		})
		if err := removeTree(filepath.Join(dir, "fs")); err != nil {
			t.Fatal(err)
		}
	})
}
