package registry

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1"

	"github.com/ward-project/ward/internal/fsx"
)

// blobs keeps blobs in dir, each under the hex digits of its digest.
// go-containerregistry's own hashes a whole layer for every HEAD request,
// leaves broken uploads behind and does not flush.
type blobs struct{ dir string }

func (b blobs) path(h v1.Hash) (string, error) {
	if h.Algorithm != "sha256" || !hexName(h.Hex) {
		return "", registry.ErrNotFound
	}
	return filepath.Join(b.dir, "sha256", h.Hex), nil
}

// Stat returns a blob's size in bytes, or registry.ErrNotFound.
func (b blobs) Stat(_ context.Context, _ string, h v1.Hash) (int64, error) {
	p, err := b.path(h)
	if err != nil {
		return 0, err
	}
	st, err := os.Stat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, registry.ErrNotFound
	}
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// Get opens a blob, or returns registry.ErrNotFound.
func (b blobs) Get(_ context.Context, _ string, h v1.Hash) (io.ReadCloser, error) {
	p, err := b.path(h)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, registry.ErrNotFound
	}
	return f, err
}

// Put stores a blob durably; rc fails at its end if the content does not hash
// to h, and then nothing is stored.
func (b blobs) Put(_ context.Context, _ string, h v1.Hash, rc io.ReadCloser) error {
	defer rc.Close()
	p, err := b.path(h)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(b.dir, "upload-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // finds nothing once renamed
	_, err = io.Copy(f, rc)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), p); err != nil {
		return err
	}
	return fsx.SyncDir(filepath.Dir(p))
}

// Delete removes a blob, or returns registry.ErrNotFound.
func (b blobs) Delete(_ context.Context, _ string, h v1.Hash) error {
	p, err := b.path(h)
	if err != nil {
		return err
	}
	if err := os.Remove(p); errors.Is(err, fs.ErrNotExist) {
		return registry.ErrNotFound
	} else if err != nil {
		return err
	}
	return nil
}
