package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// loadPolicies reads the whole trust directory, and returns the digest of what
// it read. It is all or nothing: a file left out might have been the one that
// asks for a second signature.
func loadPolicies(dir string) ([]policy, string, error) {
	files, sum, err := readPolicies(dir)
	if err != nil {
		return nil, "", err
	}
	all, err := files.parse()
	return all, sum, err
}

// policyFiles are the policy files of a trust directory, as they were read.
type policyFiles []struct {
	path string
	text []byte
}

// readPolicies reads the files, and returns the digest of their names and
// contents.
func readPolicies(dir string) (policyFiles, string, error) {
	names, err := trustFiles(dir)
	if err != nil {
		return nil, "", err
	}
	sum := sha256.New()
	files := make(policyFiles, len(names))
	for i, name := range names {
		files[i].path = filepath.Join(dir, name)
		if files[i].text, err = readTrustFile(files[i].path); err != nil {
			return nil, "", trustError(files[i].path, 0, reason(err))
		}
		fmt.Fprintf(sum, "%s\x00%d\x00", name, len(files[i].text))
		sum.Write(files[i].text)
	}
	return files, "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// parse returns the policies in the order of their names.
func (files policyFiles) parse() ([]policy, error) {
	var all []policy
	first := map[string]string{}
	for _, f := range files {
		policies, err := parsePolicies(f.path, f.text)
		if err != nil {
			return nil, err
		}
		for _, p := range policies {
			if other, dup := first[p.name]; dup {
				return nil, trustError(p.file, p.line, fmt.Sprintf("policy %q is also defined in %s", p.name, other))
			}
			first[p.name] = p.file
		}
		all = append(all, policies...)
	}
	slices.SortFunc(all, func(a, b policy) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

// trustFiles lists the policy files of dir in order. A name that is neither
// .yaml, .yml nor hidden is an error and not skipped: its author may believe
// it to be in force.
func trustFiles(dir string) ([]string, error) {
	st, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, trustError(dir, 0, reason(err))
	}
	if err := ownersOnly(st); err != nil {
		return nil, trustError(dir, 0, err.Error())
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, trustError(dir, 0, reason(err))
	}
	var names []string
	for _, e := range entries {
		n := e.Name()
		switch ext := filepath.Ext(n); {
		case strings.HasPrefix(n, "."):
		case n == rootsDir && e.IsDir(): // trust roots, read where a policy names one
		case ext == ".yaml" || ext == ".yml":
			names = append(names, n)
		default:
			return nil, trustError(filepath.Join(dir, n), 0, "is not a .yaml file")
		}
	}
	if len(names) > maxTrustFiles {
		return nil, trustError(dir, 0, fmt.Sprintf("holds more than %d files", maxTrustFiles))
	}
	return names, nil
}

// ownersOnly refuses what everybody may write: trust would be anybody's to give.
func ownersOnly(st fs.FileInfo) error {
	if st.Mode().Perm()&0o002 != 0 && st.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("may be written by everybody (mode %v): chmod o-w it", st.Mode().Perm())
	}
	return nil
}

func readTrustFile(path string) ([]byte, error) {
	return readChecked(path, maxTrustFile, ownersOnly)
}

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	return readChecked(path, limit, func(fs.FileInfo) error { return nil })
}

func readChecked(path string, limit int64, check func(fs.FileInfo) error) ([]byte, error) {
	// Without O_NONBLOCK a FIFO in the directory would hang every run.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if err := check(st); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return b, nil
}

// reason drops the path from an error of package os; the caller names it.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
