package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
)

// Annotations of an entry in index.json. The first is OCI's own.
const (
	keyRef   = "org.opencontainers.image.ref.name"
	keyIndex = "dev.ward.image.index" // digest of the index the image was chosen from
	keyID    = "dev.ward.image.id"    // config digest, to look an ID up without reading manifests
)

const maxIndexFile = 16 << 20

// readIndex returns the store's index.json. It needs no lock: the file is
// replaced by rename.
func (s *Store) readIndex() (*v1.IndexManifest, error) {
	f, err := os.Open(s.path("index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := readBounded(f, maxIndexFile, "index.json")
	if err != nil {
		return nil, err
	}
	idx := new(v1.IndexManifest)
	if err := json.Unmarshal(b, idx); err != nil {
		return nil, fault.New(fault.Invalid, "image.store", fmt.Sprintf("%s: %v", s.path("index.json"), err), "restore the file, or move it away and pull the images again")
	}
	return idx, nil
}

// changeIndex applies change to index.json under the lock, durably. It waits
// at most ten seconds for other processes: the lock is only held for this.
func (s *Store) changeIndex(ctx context.Context, change func(*v1.IndexManifest) error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	l, err := fsx.WaitLock(ctx, s.path("locks", "index"))
	if errors.Is(err, fsx.ErrLocked) {
		return fault.Wrap(fault.Unavailable, "image.store-busy", err, "try again")
	}
	if err != nil {
		return diskFault(err)
	}
	defer l.Unlock()
	idx, err := s.readIndex()
	if err != nil {
		return err
	}
	if err := change(idx); err != nil {
		return err
	}
	b, err := json.Marshal(idx)
	if err != nil {
		return err
	}
	return diskFault(fsx.WriteFile(s.path("index.json"), b, 0o600))
}

// setRef makes ref name d in idx. The image that lost the name stays, under
// its digest, unless another entry of the same repository still names it.
func setRef(idx *v1.IndexManifest, ref string, d v1.Descriptor) error {
	r, err := parseReference(ref)
	if err != nil {
		return err
	}
	kept := idx.Manifests[:0:0]
	var lost []v1.Descriptor
	for _, e := range idx.Manifests {
		if e.Annotations[keyRef] == r.Name() {
			lost = append(lost, e)
		} else {
			kept = append(kept, e)
		}
	}
	d.Annotations[keyRef] = r.Name()
	kept = append(kept, d)
	for _, e := range lost {
		if named(kept, e.Digest) {
			continue
		}
		e.Annotations[keyRef] = r.Context().Digest(e.Digest.String()).Name()
		kept = append(kept, e)
	}
	idx.Manifests = kept
	return nil
}

func named(es []v1.Descriptor, d v1.Hash) bool {
	for _, e := range es {
		if e.Digest == d {
			return true
		}
	}
	return false
}

// load reads and checks the image of an index entry, from the bytes up.
func (s *Store) load(e v1.Descriptor) (Image, []byte, error) {
	if err := checkDescriptor(e, maxManifest); err != nil {
		return Image{}, nil, err
	}
	b, err := s.readBlob(e.Digest, maxManifest)
	if err != nil {
		return Image{}, nil, err
	}
	m, err := s.parseManifest(b, e.MediaType)
	if err != nil {
		return Image{}, nil, err
	}
	config, err := s.readBlob(m.Config.Digest, maxConfig)
	if err != nil {
		return Image{}, nil, err
	}
	img, err := toImage(m, config)
	if err != nil {
		return Image{}, nil, err
	}
	img.Reference, img.Digest, img.Index = e.Annotations[keyRef], e.Digest.String(), e.Annotations[keyIndex]
	return img, config, nil
}
