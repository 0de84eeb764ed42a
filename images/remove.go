package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1"

	"github.com/ward-project/ward/internal/fault"
)

// Remove takes the name ref from its image and, when that was the last one,
// the image with its layers and signatures. An ID removes all its names.
// Given a digest, inUse says whether a container needs that image; one in use
// keeps its last name (fault.Invalid, rule "image.in-use"); nil means none is.
// It returns what is gone: "untagged REF" and "deleted DIGEST".
//
// Space is given back at once unless another process is pulling, importing or
// unpacking; then the next Remove does it.
func (s *Store) Remove(ctx context.Context, ref string, inUse func(digest string) bool) ([]string, error) {
	var removed []string
	err := s.changeIndex(ctx, func(idx *v1.IndexManifest) error {
		e, err := find(idx, ref)
		if err != nil {
			return err
		}
		byID := !byName(idx, ref)
		kept := idx.Manifests[:0:0]
		for _, o := range idx.Manifests {
			gone := o.Annotations[keyRef] == e.Annotations[keyRef] || byID && o.Digest == e.Digest
			if gone {
				removed = append(removed, "untagged "+o.Annotations[keyRef])
			} else {
				kept = append(kept, o)
			}
		}
		if !named(kept, e.Digest) {
			if inUse != nil && inUse(e.Digest.String()) {
				return fault.New(fault.Invalid, "image.in-use", fmt.Sprintf("image %s (%s) is used by a container", e.Annotations[keyRef], e.Digest), "remove the container first: ward ps -a, ward rm CONTAINER")
			}
			removed = append(removed, "deleted "+e.Digest.String())
		}
		idx.Manifests = kept
		return nil
	})
	if err != nil {
		return nil, err
	}
	return removed, diskFault(s.collect())
}

// byName says whether find would find ref as a name.
func byName(idx *v1.IndexManifest, ref string) bool {
	r, err := parseReference(ref)
	if hex, _ := asID(ref); err != nil || len(hex) == 64 {
		return false
	}
	_, ok := findName(idx, r)
	return ok
}

// collect deletes what no entry of the index leads to. It does nothing while
// somebody works: what they have fetched is not in the index yet.
func (s *Store) collect() error {
	w, err := s.alone()
	if w == nil || err != nil {
		return err
	}
	defer w.end()
	idx, err := s.readIndex()
	if err != nil {
		return err
	}
	live := map[string]bool{} // hex of blobs and diffIDs, "a:"+hex of subjects
	for _, e := range idx.Manifests {
		if err := s.mark(e, live); err != nil {
			// What cannot be read cannot be followed: keep everything.
			return fmt.Errorf("image %s: nothing is deleted while it is damaged: %w", e.Annotations[keyRef], err)
		}
	}
	for _, d := range []struct{ dir, prefix string }{{"layers", ""}, {"blobs/sha256", ""}, {"attachments", "a:"}, {"attestations", "a:"}} {
		es, err := os.ReadDir(s.path(d.dir))
		if errors.Is(err, fs.ErrNotExist) && d.dir == "attestations" {
			continue // a store of before there were any
		}
		if err != nil {
			return err
		}
		for _, e := range es {
			if live[d.prefix+e.Name()] {
				continue
			}
			if err := s.discard(d.dir, e.Name()); err != nil {
				return err
			}
		}
	}
	return s.sweep()
}

// discard removes one thing by first renaming it into tmp/: a crash halfway
// leaves no layer directory with half its files under a believable name.
func (s *Store) discard(dir, name string) error {
	t, err := os.MkdirTemp(s.path("tmp"), "gone-*")
	if err != nil {
		return err
	}
	if err := os.Rename(s.path(dir, name), t+"/x"); err != nil {
		return err
	}
	return removeTree(t)
}

func (s *Store) mark(e v1.Descriptor, live map[string]bool) error {
	live[e.Digest.Hex], live["a:"+e.Digest.Hex] = true, true
	if h := strings.TrimPrefix(e.Annotations[keyIndex], "sha256:"); h != "" {
		live[h], live["a:"+h] = true, true
	}
	b, err := s.readBlob(e.Digest, maxManifest)
	if err != nil {
		return err
	}
	m, err := s.parseManifest(b, e.MediaType)
	if err != nil {
		return err
	}
	live[m.Config.Digest.Hex] = true
	for _, l := range m.Layers {
		live[l.Digest.Hex] = true
	}
	config, err := s.readBlob(m.Config.Digest, maxConfig)
	if err != nil {
		return err
	}
	var c v1.ConfigFile
	if err := json.Unmarshal(config, &c); err != nil {
		return err
	}
	for _, d := range c.RootFS.DiffIDs {
		live[d.Hex] = true
	}
	return nil
}
