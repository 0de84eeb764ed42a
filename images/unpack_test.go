package images_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
)

// importErr imports an archive into a fresh store and checks that, if it is
// refused, nothing of it stays.
func importErr(t *testing.T, b []byte, cfg images.Config) error {
	t.Helper()
	cfg.Dir = filepath.Join(t.TempDir(), "images")
	s := must(images.Open(cfg))(t)
	_, err := s.Import(t.Context(), bytes.NewReader(b), "host.example/x:1", images.ImportOptions{})
	if err == nil {
		return nil
	}
	for _, d := range []string{"layers", "blobs/sha256", "tmp", "damaged"} {
		if es := must(os.ReadDir(filepath.Join(cfg.Dir, d)))(t); len(es) != 0 {
			t.Errorf("refused (%v), but %s/%s is left", err, d, es[0].Name())
		}
	}
	if _, err := os.Lstat(filepath.Join(cfg.Dir, "index.json")); err == nil {
		t.Error("refused, but index.json was written")
	}
	return err
}

func TestHostileArchives(t *testing.T) {
	decoy := filepath.Join(t.TempDir(), "decoy")
	if err := os.WriteFile(decoy, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Dir(decoy)
	dir := file{name: "d/", typ: tar.TypeDir}
	x := func(name, value string) map[string]string { return map[string]string{"SCHILY.xattr." + name: value} }
	for name, c := range map[string]struct {
		rule  string
		files []file
	}{
		"dotdot":                     {"image.entry", []file{{name: "../x", body: "x"}}},
		"dotdot inside":              {"image.entry", []file{dir, {name: "d/../../x", body: "x"}}},
		"dotdot harmless":            {"image.entry", []file{dir, {name: "d/../x", body: "x"}}},
		"absolute":                   {"image.entry", []file{{name: decoy, body: "x"}}},
		"symlink parent out":         {"image.entry", []file{{name: "l", typ: tar.TypeSymlink, link: out}, {name: "l/decoy", body: "x"}}},
		"symlink parent up":          {"image.entry", []file{{name: "l", typ: tar.TypeSymlink, link: "../../../.."}, {name: "l/tmp/x", body: "x"}}},
		"symlink parent inside":      {"image.entry", []file{dir, {name: "l", typ: tar.TypeSymlink, link: "d"}, {name: "l/x", body: "x"}}},
		"symlink grandparent":        {"image.entry", []file{dir, {name: "d/l", typ: tar.TypeSymlink, link: out}, {name: "d/l/new/x", body: "x"}}},
		"whiteout through a symlink": {"image.entry", []file{{name: "l", typ: tar.TypeSymlink, link: out}, {name: "l/.wh.decoy"}}},
		"opaque through a symlink":   {"image.entry", []file{{name: "l", typ: tar.TypeSymlink, link: out}, {name: "l/.wh..wh..opq"}}},
		"beneath a file":             {"image.entry", []file{{name: "f", body: "x"}, {name: "f/x", body: "x"}}},
		"hardlink absolute":          {"image.entry", []file{{name: "h", typ: tar.TypeLink, link: decoy}}},
		"hardlink dotdot":            {"image.entry", []file{{name: "h", typ: tar.TypeLink, link: "../../../.." + decoy}}},
		"hardlink through a symlink": {"image.entry", []file{{name: "l", typ: tar.TypeSymlink, link: out}, {name: "h", typ: tar.TypeLink, link: "l/decoy"}}},
		"hardlink to nothing":        {"image.entry", []file{{name: "h", typ: tar.TypeLink, link: "nothing"}}},
		"hardlink to a directory":    {"image.entry", []file{dir, {name: "h", typ: tar.TypeLink, link: "d"}}},
		"hardlink to itself":         {"image.entry", []file{{name: "f", body: "x"}, {name: "f", typ: tar.TypeLink, link: "f"}}},
		"hardlink to a whiteout":     {"image.entry", []file{{name: ".wh.w"}, {name: "h", typ: tar.TypeLink, link: "w"}}},
		"hardlink to its own child":  {"image.entry", []file{dir, {name: "d/f", body: "x"}, {name: "d", typ: tar.TypeLink, link: "d/f"}}},
		"char device":                {"image.device", []file{{name: "null", typ: tar.TypeChar}}},
		"block device":               {"image.device", []file{{name: "sda", typ: tar.TypeBlock}}},
		"forged whiteout device":     {"image.device", []file{{name: "w", typ: tar.TypeChar}}},
		"whiteout of nothing":        {"image.entry", []file{{name: ".wh."}}},
		"whiteout of dot":            {"image.entry", []file{dir, {name: "d/.wh.."}}},
		"whiteout of dotdot":         {"image.entry", []file{dir, {name: "d/.wh..."}}},
		"whiteout of a whiteout":     {"image.entry", []file{{name: ".wh..wh.x"}}},
		"aufs bookkeeping":           {"image.entry", []file{{name: ".wh..wh.plnk", typ: tar.TypeDir}}},
		"whiteout as a directory":    {"image.entry", []file{{name: ".wh.d", typ: tar.TypeDir}}},
		"whiteout as a link":         {"image.entry", []file{{name: ".wh.d", typ: tar.TypeSymlink, link: "x"}}},
		"whiteout with content":      {"image.entry", []file{{name: ".wh.d", body: "x"}}},
		"beneath a whiteout":         {"image.entry", []file{{name: ".wh.d/x", body: "x"}}},
		"root as a symlink":          {"image.entry", []file{{name: "./", typ: tar.TypeSymlink, link: out}}},
		"long component":             {"image.entry", []file{{name: strings.Repeat("a", 256), body: "x"}}},
		"long path":                  {"image.entry", []file{{name: strings.Repeat("a/", 2100) + "x", body: "x"}}},
		"owner beyond the range":     {"image.owner", []file{{name: "f", uid: 65536}}},
		"owner huge":                 {"image.owner", []file{{name: "f", uid: 1 << 31}}},
		"trusted opaque":             {"image.entry", []file{{name: "d", typ: tar.TypeDir, pax: x("trusted.overlay.opaque", "y")}}},
		"trusted redirect":           {"image.entry", []file{{name: "d", typ: tar.TypeDir, pax: x("trusted.overlay.redirect", "/etc")}}},
		"user metacopy":              {"image.entry", []file{{name: "f", pax: x("user.overlay.metacopy", "")}}},
		"acl":                        {"image.entry", []file{{name: "f", pax: x("system.posix_acl_access", "x")}}},
		"xattr of a link":            {"image.entry", []file{{name: "l", typ: tar.TypeSymlink, link: "x", pax: x("user.a", "b")}}},
		"xattr giant":                {"image.entry", []file{{name: "f", pax: x("user.a", strings.Repeat("b", 70000))}}},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, importErr(t, archive(t, c.files...), images.Config{}), fault.Invalid, c.rule)
		})
	}
	if b, err := os.ReadFile(decoy); err != nil || string(b) != "untouched" {
		t.Fatalf("decoy: %q %v", b, err)
	}
	if es, _ := os.ReadDir(out); len(es) != 1 {
		t.Fatalf("something was made beside the decoy: %v", es)
	}
}

func TestBounds(t *testing.T) {
	small := images.Config{MaxLayerBytes: 1 << 20, MaxLayerEntries: 100}
	var many []file
	for i := range 101 {
		many = append(many, file{name: fmt.Sprint(i)})
	}
	refused(t, importErr(t, archive(t, many...), small), fault.Invalid, "image.bounds")

	// 64 MiB of zeros in a few kilobytes: the bound stops it, not the disk.
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "zero", Typeflag: tar.TypeReg, Size: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	w.Write(make([]byte, 64<<20))
	w.Close()
	z.Close()
	refused(t, importErr(t, bomb.Bytes(), small), fault.Invalid, "image.bounds")

	// The same hidden behind the end of the archive, where no entry shows it.
	var tail bytes.Buffer
	z = gzip.NewWriter(&tail)
	z.Write(archive(t, file{name: "f", body: "x"}))
	z.Write(make([]byte, 64<<20))
	z.Close()
	refused(t, importErr(t, tail.Bytes(), small), fault.Invalid, "image.bounds")

	// A sparse file that claims a terabyte is refused by its claim.
	refused(t, importErr(t, sparse("1099511627776", 1), images.Config{}), fault.Invalid, "image.bounds")
	if err := importErr(t, sparse("1048576", 1), images.Config{}); err != nil {
		t.Fatalf("an honest sparse file: %v", err)
	}

	// So are several that only together claim too much.
	refused(t, importErr(t, sparse("700000", 2), small), fault.Invalid, "image.bounds")

	for name, b := range map[string][]byte{
		"truncated":      rootfs(t)[:1540],
		"truncated gzip": compress(t, "gzip", rootfs(t))[:100],
		"not an archive": bytes.Repeat([]byte("no archive "), 100),
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, importErr(t, b, images.Config{}), fault.Invalid, "image.layer")
		})
	}
}

// sparse are n GNU PAX 1.0 sparse files of the given size with one byte of data.
func sparse(size string, n int) []byte {
	var b bytes.Buffer
	record := func(k, v string) string {
		n := len(k) + len(v) + 3
		for len(fmt.Sprint(n))+len(k)+len(v)+3 != n {
			n = len(fmt.Sprint(n)) + len(k) + len(v) + 3
		}
		return fmt.Sprintf("%d %s=%s\n", n, k, v)
	}
	pax := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "giant") + record("GNU.sparse.realsize", size)
	data := []byte("1\n0\n1\n")
	data = append(data, make([]byte, 512-len(data))...)
	data = append(data, 'x')
	put := func(typ byte, body []byte) {
		h := make([]byte, 512)
		copy(h, "giant")
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00        ", len(body)))
		h[156] = typ
		copy(h[257:], "ustar\x0000")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		b.Write(h)
		b.Write(body)
		b.Write(make([]byte, (512-len(body)%512)%512))
	}
	for range n {
		put('x', []byte(pax))
		put('0', data)
	}
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

func compress(t testing.TB, how string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	switch how {
	case "gzip":
		z := gzip.NewWriter(&out)
		z.Write(b)
		z.Close()
	case "zstd":
		z := must(zstd.NewWriter(&out))(t)
		z.Write(b)
		z.Close()
	default:
		out.Write(b)
	}
	return out.Bytes()
}

func TestUnpackedAsArchived(t *testing.T) {
	for _, how := range []string{"plain", "gzip", "zstd"} {
		t.Run(how, func(t *testing.T) {
			s, _ := newStore(t)
			b := archive(t,
				file{name: "./", typ: tar.TypeDir, mode: 0o711, uid: 7},
				file{name: "deep/er/f", body: "one", mode: 0o4751, uid: 65535, pax: map[string]string{"SCHILY.xattr.user.note": "v", "SCHILY.xattr.security.selinux": "ignored"}},
				file{name: "twice", body: "first"},
				file{name: "twice", body: "second", mode: 0o600},
				file{name: "dir", typ: tar.TypeDir},
				file{name: "dir/gone", body: "x"},
				file{name: "dir", body: "now a file"},
				file{name: "file", body: "x"},
				file{name: "file", typ: tar.TypeDir, mode: 0o555},
				file{name: "file/in", body: "x"},
				file{name: "link", typ: tar.TypeSymlink, link: "/etc/shadow", uid: 3},
				file{name: "hard", typ: tar.TypeLink, link: "deep/er/f"},
				file{name: "hardlink of a link", typ: tar.TypeLink, link: "link"},
				file{name: "pipe", typ: tar.TypeFifo, mode: 0o640},
				file{name: "shut", typ: tar.TypeDir, mode: 0o1},
				file{name: "shut/f", body: "x"},
			)
			img := must(s.Import(t.Context(), bytes.NewReader(compress(t, how, b)), "host.example/x", images.ImportOptions{}))(t)
			dir := must(s.Unpack(t.Context(), img))(t)[0]
			owner := func(uid uint32) uint32 {
				if os.Geteuid() != 0 {
					return uint32(os.Geteuid()) // the kernel refuses chown
				}
				return uid
			}
			for name, want := range map[string]struct{ mode, uid uint32 }{
				".":         {unix.S_IFDIR | 0o711, 7},
				"deep":      {unix.S_IFDIR | 0o755, 0},
				"deep/er/f": {unix.S_IFREG | 0o4751, 65535},
				"hard":      {unix.S_IFREG | 0o4751, 65535},
				"twice":     {unix.S_IFREG | 0o600, 0},
				"dir":       {unix.S_IFREG | 0o755, 0},
				"file":      {unix.S_IFDIR | 0o555, 0},
				"link":      {unix.S_IFLNK | 0o777, 3},

				"hardlink of a link": {unix.S_IFLNK | 0o777, 3},
				"pipe":               {unix.S_IFIFO | 0o640, 0},
				"shut":               {unix.S_IFDIR | 0o1, 0},
			} {
				var st unix.Stat_t
				if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
					t.Errorf("%s: %v", name, err)
				} else if st.Mode != want.mode || st.Uid != owner(want.uid) {
					t.Errorf("%s: mode %o uid %d, want %o %d", name, st.Mode, st.Uid, want.mode, owner(want.uid))
				}
			}
			if b, _ := os.ReadFile(filepath.Join(dir, "twice")); string(b) != "second" {
				t.Errorf("twice: %q", b)
			}
			x := make([]byte, 10)
			if n, err := unix.Getxattr(filepath.Join(dir, "hard"), "user.note", x); err != nil || string(x[:n]) != "v" {
				t.Errorf("user.note: %q %v", x[:max(n, 0)], err)
			}
			if n, err := unix.Getxattr(filepath.Join(dir, "hard"), "security.selinux", x); err == nil && string(x[:n]) == "ignored" {
				t.Error("security.selinux came from the archive")
			}
			if os.Geteuid() != 0 {
				os.Chmod(filepath.Join(dir, "shut"), 0o700) // for the test's own clean-up
				os.Chmod(filepath.Join(dir, "file"), 0o700)
			}
		})
	}
}
