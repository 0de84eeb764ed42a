package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
)

// Bounds on the policy directory. Parsing and compiling cannot be interrupted,
// so what goes into them is bounded.
const (
	maxFile    = 1 << 20
	maxSources = 4 << 20
	maxFiles   = 256
)

// source is one file that takes part in the decision.
type source struct {
	name  string // inside the directory
	shown string // in messages
	text  []byte
	// bundle is the verified bundle that it is of, if any.
	bundle *Bundle
	// foreign is the directory of policies for another program that it is in.
	foreign string
}

func (s source) is(ext ...string) bool { return slices.Contains(ext, path.Ext(s.name)) }

// readDirWith reads the policy files of dir, sorted by name. A missing directory
// holds none. Hidden files, backups, notes and (unless tests) Rego tests are
// left out; anything else it does not know is an error, because a policy that
// is silently not in force is worse than none. For tests, which decide nothing,
// it does not matter who else can write the files.
//
// Bundles are verified with the keys of a file, "" being the one beside the
// directory, which is read only if there is a bundle.
func readDirWith(dir, keysPath string, tests bool) ([]source, error) {
	return readAll(dir, keysPath, "", tests)
}

// readDirBut leaves one file out.
func readDirBut(dir, keysPath, but string) ([]source, error) {
	return readAll(dir, keysPath, but, false)
}

func readAll(dir, keysPath, but string, tests bool) ([]source, error) {
	if dir == "" {
		return nil, nil
	}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unreadable(dir, err)
	}
	defer root.Close()
	d, err := root.Open(".")
	if err != nil {
		return nil, unreadable(dir, err)
	}
	defer d.Close()
	if !tests {
		if err := private(d, dir); err != nil {
			return nil, err
		}
	}
	entries, err := d.ReadDir(maxFiles + 1)
	if err != nil && err != io.EOF {
		return nil, unreadable(dir, err)
	}
	if len(entries) > maxFiles {
		return nil, fault.New(fault.Invalid, "policy.size", fmt.Sprintf("policy directory %s holds more than %d files", dir, maxFiles), "put fewer, larger files there")
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	var out []source
	var keys *bundleKeys
	total := 0
	for _, e := range entries {
		name := e.Name()
		if ignored(name) || name == but || !tests && strings.HasSuffix(name, "_test.rego") {
			continue
		}
		if (name == conftestDir || name == buildxDir) && e.IsDir() {
			found, err := readForeign(root, dir, name, tests)
			if err != nil {
				return nil, err
			}
			for _, f := range found {
				total += len(f.text)
			}
			out = append(out, found...)
			continue
		}
		s := source{name: name, shown: filepath.Join(dir, name)}
		bundled := strings.HasSuffix(name, bundleSuffix) && !e.IsDir()
		if !bundled && !s.is(".rego", ".json", ".yaml", ".yml") || e.IsDir() {
			return nil, fault.New(fault.Invalid, "policy.layout", fmt.Sprintf("%s is neither a policy (.rego), data (.json, .yaml), nor a bundle (.tar.gz)", s.shown), "move it out of the policy directory, or put a dot before its name")
		}
		if s.text, err = readFile(root, s, !tests); err != nil {
			return nil, err
		}
		found := []source{s}
		if bundled {
			if keys == nil {
				k, err := readBundleKeys(cmp.Or(keysPath, KeysFile(dir)))
				if err != nil {
					return nil, err
				}
				keys = &k
			}
			if found, err = readBundle(s, *keys, tests); err != nil {
				return nil, err
			}
		}
		for _, f := range found {
			total += len(f.text)
		}
		if total > maxSources {
			return nil, fault.New(fault.Invalid, "policy.size", fmt.Sprintf("the files of %s are more than %d bytes together", dir, maxSources), "put less there")
		}
		out = append(out, found...)
	}
	return out, apart(out)
}

// apart refuses bundles that claim the same part of data, and files of the
// directory in a part that a bundle claims: what is meant to be one bundle's
// alone would be somebody else's too. Packages of ward's points are everybody's.
func apart(sources []source) error {
	var bundles []*Bundle
	for _, s := range sources {
		if s.bundle == nil || slices.Contains(bundles, s.bundle) {
			continue
		}
		for _, other := range bundles {
			for _, a := range s.bundle.roots {
				for _, b := range other.roots {
					if overlap(a, b) && !strings.HasPrefix(a, "ward/") && !strings.HasPrefix(b, "ward/") {
						return fault.New(fault.Invalid, "policy.bundle", fmt.Sprintf("bundles %s and %s both claim %q of data", other.Name, s.bundle.Name, longer(a, b)),
							`give each its own roots in its .manifest: {"roots": ["NAME", "ward/run"]}`)
					}
				}
			}
		}
		bundles = append(bundles, s.bundle)
	}
	return nil
}

func longer(a, b string) string {
	if len(a) > len(b) {
		return a
	}
	return b
}

// bundlesOf are the bundles that sources are of, in order of their names.
func bundlesOf(sources []source) []Bundle {
	var out []Bundle
	for _, s := range sources {
		if s.bundle != nil && path.Base(s.name) == manifestFile {
			out = append(out, *s.bundle)
		}
	}
	return out
}

// claimed is the bundle other than s's own that claims a part of data.
func claimed(at string, own *Bundle, sources []source) *Bundle {
	if at == "ward" || strings.HasPrefix(at, "ward/") {
		return nil
	}
	for _, s := range sources {
		if b := s.bundle; b != nil && b != own && slices.ContainsFunc(b.roots, func(r string) bool { return overlap(at, r) && !strings.HasPrefix(r, "ward/") }) {
			return b
		}
	}
	return nil
}

func readFile(root *os.Root, s source, strict bool) ([]byte, error) {
	// O_NONBLOCK: opening a fifo must not hang every run.
	f, err := root.OpenFile(s.name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, unreadable(s.shown, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		return nil, unreadable(s.shown, err)
	}
	if strict {
		if err := private(f, s.shown); err != nil {
			return nil, err
		}
	}
	most := maxFile
	if strings.HasSuffix(s.name, bundleSuffix) {
		most = MaxBundle
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err != nil {
		return nil, unreadable(s.shown, err)
	}
	if len(b) > most {
		return nil, fault.New(fault.Invalid, "policy.size", fmt.Sprintf("%s is larger than %d bytes", s.shown, most), "split it")
	}
	return b, nil
}

// private refuses what others could have written: whoever can write a policy
// can grant himself everything.
func private(f *os.File, shown string) error {
	st, err := f.Stat()
	if err != nil {
		return unreadable(shown, err)
	}
	if st.Mode().Perm()&0o022 != 0 {
		return fault.New(fault.Invalid, "policy.writable", fmt.Sprintf("%s can be written by others (mode %v)", shown, st.Mode().Perm()), "chmod go-w "+shown)
	}
	var sys unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &sys); err != nil {
		return unreadable(shown, err)
	}
	if me := os.Geteuid(); sys.Uid != 0 && int(sys.Uid) != me {
		return fault.New(fault.Invalid, "policy.owner", fmt.Sprintf("%s belongs to uid %d, neither to root nor to uid %d", shown, sys.Uid, me), "chown it")
	}
	return nil
}

// ignored names are what editors, packagers and readers leave beside policies.
func ignored(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") {
		return true
	}
	for _, mark := range []string{".dpkg-", ".rpm"} {
		if strings.Contains(name, mark) {
			return true
		}
	}
	return slices.Contains([]string{".md", ".txt", ".bak", ".orig", ".disabled", ".swp"}, path.Ext(name))
}

// revision is the digest of the sources that decide, with their names and
// lengths, so that no two sets of files have the same one.
func revision(level string, sources []source) string {
	h := sha256.New()
	fmt.Fprintf(h, "ward policy v1 %q\n", level)
	for _, s := range sources {
		fmt.Fprintf(h, "%q %d\n", s.name, len(s.text))
		h.Write(s.text)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

func unreadable(shown string, err error) error {
	return &fault.Error{
		Class: fault.Invalid, Rule: "policy.unreadable", Cause: fmt.Sprintf("policy %s cannot be read: %v", shown, err),
		Remedy: "make it a file that ward can read, or remove it", Err: err,
	}
}
