package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// plant makes files below dir: "name/" is a directory, "name=>to" a link,
// "-name" a whiteout, "name!" an opaque directory.
func plant(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		var err error
		link, to, isLink := strings.Cut(n, "=>")
		p := filepath.Join(dir, strings.TrimPrefix(strings.TrimRight(link, "/!"), "-"))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		switch {
		case isLink:
			err = os.Symlink(to, p)
		case strings.HasPrefix(n, "-"):
			err = unix.Mknod(p, unix.S_IFCHR, 0)
		case strings.HasSuffix(n, "!"):
			if err = os.MkdirAll(p, 0o755); err == nil {
				err = unix.Setxattr(p, "user.overlay.opaque", []byte("y"), 0)
			}
		case strings.HasSuffix(n, "/"):
			err = os.MkdirAll(p, 0o755)
		default:
			err = os.WriteFile(p, []byte(n), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func differences(t *testing.T, upper string, lower ...string) (string, error) {
	t.Helper()
	u, err := openTop(upper)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	var ls []*os.File
	defer func() { closeAll(ls) }()
	for _, l := range lower {
		f, err := openTop(l)
		if err != nil {
			t.Fatal(err)
		}
		ls = append(ls, f)
	}
	d := differ{}
	_, err = d.directory(u, ls, "/")
	var out []string
	for _, c := range d.changes {
		out = append(out, fmt.Sprintf("%c %s", c.Kind, c.Path))
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(a[2:], b[2:]) })
	return strings.Join(out, ","), err
}

func TestDiff(t *testing.T) {
	low, high, up := t.TempDir(), t.TempDir(), t.TempDir()
	plant(t, low, "etc/a", "etc/b", "gone/x", "replaced/x", "replaced/y", "hidden/z", "file", "same/deep/f", "dirtofile/x", "link=>etc")
	plant(t, high, "etc/c", "-gone", "hidden!", "hidden/new")
	for _, c := range []struct {
		name, want string
		upper      []string
	}{
		{"nothing", "", nil},
		{"launcher's mount points", "", []string{"dev/", "proc/", "sys/", "etc/hosts", "etc/resolv.conf", "etc/hostname"}},
		{"changed and added", "C /etc,C /etc/a,A /etc/d", []string{"etc/a", "etc/d"}},
		{"in the upper layer", "C /etc,C /etc/c", []string{"etc/c"}},
		{"deleted", "C /etc,D /etc/b,D /file", []string{"etc/-", "-file"}},
		{"gone below already", "A /gone,A /gone/x", []string{"gone/x"}},
		{"whiteout of nothing", "", []string{"-nothing", "-gone"}},
		{"opaque", "C /replaced,C /replaced/x,D /replaced/y", []string{"replaced!", "replaced/x"}},
		{"opaque below", "C /hidden,A /hidden/z", []string{"hidden/z"}},
		{"copied up, not changed", "", []string{"same/deep/"}},
		{"a directory became a file", "C /dirtofile", []string{"dirtofile"}},
		{"a file became a directory", "C /file,A /file/x", []string{"file/x"}},
		{"a link is not followed", "C /link", []string{"link=>/etc"}},
		{"out of the tree", "A /out", []string{"out=>/etc"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(up, strings.ReplaceAll(c.name, " ", "-"))
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, n := range c.upper {
				if n == "etc/-" { // a whiteout in a directory
					plant(t, dir, "etc/")
					if err := unix.Mknod(filepath.Join(dir, "etc/b"), unix.S_IFCHR, 0); err != nil {
						t.Fatal(err)
					}
					continue
				}
				plant(t, dir, n)
			}
			if got, err := differences(t, dir, high, low); err != nil || got != c.want {
				t.Errorf("%q (%v), want %q", got, err, c.want)
			}
		})
	}
}

// A container can nest directories deeper than any path is long.
func TestDiffOfAVeryDeepTree(t *testing.T) {
	top := t.TempDir()
	dir, err := openTop(top)
	if err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		if err := unix.Mkdirat(int(dir.Fd()), "d", 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := openIn(dir, "d")
		dir.Close()
		if dir = next; err != nil {
			t.Fatal(err)
		}
	}
	dir.Close()
	if _, err := differences(t, top, t.TempDir()); err == nil || !strings.Contains(err.Error(), "directories deep") || len(err.Error()) > 1000 {
		t.Errorf("%.2000s", err)
	}
	if err := os.RemoveAll(top); err != nil { // t.TempDir's own way is by path
		t.Error(err)
	}
}
