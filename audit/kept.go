package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fsx"
)

// keptDir holds, beside the journal, what records name by digest because it is
// too large for them: one file each, named for the SHA-256 of its content.
const keptDir = "kept"

// maxKept bounds one such file.
const maxKept = 16 << 20

// Keep puts b beside the log in dir and returns its digest ("sha256:…"). It is
// durable when Keep returns, so a record that names it can follow: after a
// crash there is at worst a file that no record names, never a record whose
// file was not written. Keeping the same bytes again makes a damaged file good.
func Keep(dir string, b []byte) (string, error) {
	if len(b) > maxKept {
		return "", fmt.Errorf("%w: %d bytes to be kept, at most %d", ErrTooLarge, len(b), maxKept)
	}
	sum := sha256.Sum256(b)
	name := hex.EncodeToString(sum[:])
	if err := makeDir(filepath.Join(dir, keptDir)); err != nil {
		return "", classify(err)
	}
	if err := fsx.WriteFile(filepath.Join(dir, keptDir, name), b, 0o400); err != nil {
		return "", classify(err)
	}
	return "sha256:" + name, nil
}

// Kept reads what Keep put there. The log does not cover these files but by
// their digest, so nothing is returned that does not have it; what is missing is
// fs.ErrNotExist.
func Kept(dir, digest string) ([]byte, error) {
	if !isDigest(digest) {
		return nil, fmt.Errorf("%w: %.80q is no digest", ErrInvalid, digest)
	}
	path := filepath.Join(dir, keptDir, digest[len("sha256:"):])
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxKept {
		return nil, fmt.Errorf("%w: %s is no file of at most %d bytes", ErrInvalid, path, maxKept)
	}
	var b bytes.Buffer
	b.Grow(int(st.Size()))
	if _, err := b.ReadFrom(io.LimitReader(f, maxKept)); err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(b.Bytes()); "sha256:"+hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("%w: the content of %s is not what its name says", ErrInvalid, path)
	}
	return b.Bytes(), nil
}
