package images

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"

	"github.com/google/go-containerregistry/pkg/v1"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
)

func (s *Store) blobPath(h v1.Hash) string { return s.path("blobs", "sha256", h.Hex) }

func tampered(format string, a ...any) *fault.Error {
	return fault.New(fault.Invalid, "image.digest", fmt.Sprintf(format, a...), "pull the image again from a registry you trust; if it persists, somebody changes what is served")
}

func digestOf(b []byte) v1.Hash {
	sum := sha256.Sum256(b)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// parseDigest accepts "sha256:" and 64 hex digits and nothing else.
func parseDigest(d string) (v1.Hash, error) {
	h, err := v1.NewHash(d)
	if err != nil || h.Algorithm != "sha256" {
		return v1.Hash{}, fault.New(fault.Invalid, "image.digest-form", fmt.Sprintf("%.100q is not a sha256 digest", d), "give sha256: and 64 hexadecimal digits")
	}
	return h, nil
}

// readBlob reads a small blob and believes it only if it hashes to its name.
func (s *Store) readBlob(h v1.Hash, limit int64) ([]byte, error) {
	f, err := os.Open(s.blobPath(h))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "image.incomplete", fmt.Sprintf("blob %s is not in the store", h), "pull the image again")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := readBounded(f, limit, "blob "+h.String())
	if err != nil {
		return nil, err
	}
	if got := digestOf(b); got != h {
		return nil, tampered("stored blob %s hashes to %s", h, got)
	}
	return b, nil
}

// readBounded reads all of r, or refuses it when there is more than limit.
func readBounded(r io.Reader, limit int64, what string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	if int64(len(b)) > limit {
		return nil, fault.New(fault.Invalid, "image.bounds", fmt.Sprintf("%s is larger than %d bytes", what, limit), "use an image whose documents are within the bound")
	}
	return b, nil
}

// writeBlob stores b under its digest. The caller has begun work.
func (s *Store) writeBlob(b []byte) (v1.Hash, error) {
	h := digestOf(b)
	// Also when a file of that name is there: it may have been changed.
	if old, err := s.readBlob(h, int64(len(b))); err == nil && len(old) == len(b) {
		return h, nil
	}
	return h, fsx.WriteFile(s.blobPath(h), b, 0o600)
}

// blobIntact says whether blob h is there with its size and content.
func (s *Store) blobIntact(h v1.Hash, size int64) (bool, error) {
	f, err := os.Open(s.blobPath(h))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() != size {
		return false, err
	}
	sum := newSum(f)
	if _, err := io.Copy(io.Discard, sum); err != nil {
		return false, err
	}
	return sum.digest() == h, nil
}

// storeBlob streams r into the store as blob want of exactly size bytes. The
// file gets its name only after the last byte has been hashed and flushed, so
// a name in blobs/ always means whole content. The caller has begun work.
func (s *Store) storeBlob(r io.Reader, want v1.Hash, size int64) error {
	f, err := os.CreateTemp(s.path("tmp"), "blob-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // finds nothing once renamed
	defer f.Close()
	sum := newSum(io.LimitReader(r, size+1))
	if _, err := io.Copy(f, sum); err != nil {
		return err
	}
	if sum.n != size {
		return tampered("blob %s has %s%d bytes, its descriptor says %d", want, atLeast(sum.n > size), min(sum.n, size+1), size)
	}
	if got := sum.digest(); got != want {
		return tampered("blob %s hashes to %s", want, got)
	}
	return s.placeBlob(f, want)
}

func atLeast(b bool) string {
	if b {
		return "at least "
	}
	return ""
}

// placeBlob flushes f and renames it to blob h.
func (s *Store) placeBlob(f *os.File, h v1.Hash) error {
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), s.blobPath(h)); err != nil {
		return err
	}
	return fsx.SyncDir(s.path("blobs", "sha256"))
}

// sum hashes and counts what is read through it.
type sum struct {
	r io.Reader
	h hash.Hash
	n int64
}

func newSum(r io.Reader) *sum { return &sum{r: r, h: sha256.New()} }

func (s *sum) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.h.Write(p[:n])
	s.n += int64(n)
	return n, err
}

func (s *sum) digest() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(s.h.Sum(nil))}
}
