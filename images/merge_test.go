package images_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
)

// layered is an image of several layers, made of as many imports.
func layered(t testing.TB, s *images.Store, layers ...[]byte) images.Image {
	t.Helper()
	img := images.Image{Reference: "layered"}
	for i, l := range layers {
		one := must(s.Import(t.Context(), bytes.NewReader(l), fmt.Sprintf("host.example/l%d", i), images.ImportOptions{}))(t)
		img.Layers = append(img.Layers, one.Layers...)
	}
	return img
}

func TestMergedLookup(t *testing.T) {
	s, _ := newStore(t)
	layers := mergeLayers(t)
	img := layered(t, s, layers...)
	for name, want := range mergeWant {
		b, err := s.File(t.Context(), img, "/"+name, 100)
		switch {
		case want == "" && fault.ClassOf(err) != fault.NotFound:
			t.Errorf("%s: %q %v; want it gone", name, b, err)
		case want != "" && (err != nil || string(b) != want):
			t.Errorf("%s: %q %v; want %q", name, b, err, want)
		}
	}
	for _, name := range []string{"link", "linkdir/f", "d", "pipe", "big", "/", "d/../link"} {
		_, err := s.File(t.Context(), img, name, 100)
		refused(t, err, fault.Invalid, "image.file")
	}
}

// mergeLayers are three layers in which everything overlayfs merges happens.
func mergeLayers(t testing.TB) [][]byte {
	return [][]byte{
		archive(t,
			file{name: "d/low", body: "low"}, file{name: "d/both", body: "low"},
			file{name: "gone", body: "x"}, file{name: "gonedir/f", body: "x"},
			file{name: "opq/low", body: "x"}, file{name: "redo/low", body: "x"}, file{name: "redo2/low", body: "x"}, file{name: "redo3/low", body: "x"},
			file{name: "filetodir", body: "x"}, file{name: "dirtofile/f", body: "x"},
			file{name: "back", body: "x"}, file{name: "samefile", body: "low"},
			file{name: "real/f", body: "real"}, file{name: "linkdir", typ: tar.TypeSymlink, link: "real"},
			file{name: "link", typ: tar.TypeSymlink, link: "real/f"},
			file{name: "pipe", typ: tar.TypeFifo}, file{name: "big", body: strings.Repeat("b", 101)}),
		archive(t,
			file{name: "d/both", body: "mid"}, file{name: "d/mid", body: "mid"},
			file{name: ".wh.gone"}, file{name: ".wh.gonedir"}, file{name: ".wh.back"},
			file{name: "opq/mid", body: "mid"}, file{name: "opq/.wh..wh..opq"},
			// Removed and made again in one layer, in each possible order.
			file{name: ".wh.redo"}, file{name: "redo/mid", body: "mid"},
			file{name: "redo2/mid", body: "mid"}, file{name: ".wh.redo2"},
			file{name: ".wh.redo3"}, file{name: "redo3", typ: tar.TypeDir}, file{name: "redo3/mid", body: "mid"},
			file{name: ".wh.samefile"}, file{name: "samefile", body: "mid"},
			file{name: "filetodir/f", body: "mid"}, file{name: "dirtofile", body: "mid"}),
		archive(t, file{name: "back", body: "top"}, file{name: "opq/top", body: "top"}),
	}
}

var mergeWant = map[string]string{
	"d/low": "low", "d/both": "mid", "d/mid": "mid", "gone": "", "gonedir/f": "",
	"opq/low": "", "opq/mid": "mid", "opq/top": "top", "back": "top",
	"redo/low": "", "redo/mid": "mid", "redo2/low": "", "redo2/mid": "mid", "redo3/low": "", "redo3/mid": "mid",
	"samefile": "mid", "filetodir/f": "mid", "dirtofile": "mid", "nothing": "", "d/nothing/x": "",
}

// The kernel is the judge of what our whiteouts mean.
func TestMergedByTheKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	s, _ := newStore(t)
	l := mergeLayers(t)
	for name, layers := range map[string][][]byte{
		"three": l,
		// The middle one also comes first: the merge is the same.
		"twice": {l[1], l[0], l[1], l[2]},
	} {
		t.Run(name, func(t *testing.T) {
			img := layered(t, s, layers...)
			dirs := must(s.Unpack(bg, img))(t)
			for name, want := range mergeWant {
				b, err := s.File(bg, img, name, 100)
				if err != nil && fault.ClassOf(err) != fault.NotFound || string(b) != want {
					t.Errorf("%s: lookup finds %q (%v), want %q", name, b, err, want)
				}
			}
			got, err := mountAndRead(t.TempDir(), dirs)
			check(t, err)
			for name, want := range mergeWant {
				if got[name] != want {
					t.Errorf("%s: overlayfs shows %q, want %q", name, got[name], want)
				}
			}
		})
	}
}

// mountAndRead merges dirs in a mount namespace of its own, which ends with it.
func mountAndRead(mnt string, dirs []string) (got map[string]string, err error) {
	lower := slices.Clone(dirs)
	slices.Reverse(lower)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread and its namespace end together
		if err = unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return
		}
		if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return
		}
		if err = unix.Mount("overlay", mnt, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(lower, ":")); err != nil {
			return
		}
		got = map[string]string{}
		for name := range mergeWant {
			b, _ := os.ReadFile(filepath.Join(mnt, name))
			got[name] = string(b)
		}
	}()
	<-done
	return got, err
}

func TestCheckRoot(t *testing.T) {
	for _, name := range []string{"dev", "proc", "sys", "etc"} {
		for what, f := range map[string]file{
			"symlink": {name: name, typ: tar.TypeSymlink, link: "/elsewhere"},
			"file":    {name: name, body: "x"},
			"fifo":    {name: name, typ: tar.TypeFifo},
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				s, _ := newStore(t)
				img := layered(t, s, plainRoot(t), archive(t, f))
				refused(t, s.CheckRoot(t.Context(), img), fault.Invalid, "image.root-symlink")
				// A layer above that puts a directory there mends it.
				img = layered(t, s, archive(t, f), archive(t, file{name: name, typ: tar.TypeDir}))
				if err := s.CheckRoot(t.Context(), img); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// plainRoot has every directory that the checks look at.
func plainRoot(t testing.TB) []byte {
	return archive(t, file{name: "bin", typ: tar.TypeDir}, file{name: "dev", typ: tar.TypeDir}, file{name: "etc", typ: tar.TypeDir})
}
