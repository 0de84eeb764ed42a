package images

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"github.com/ward-project/ward/internal/fault"
)

// ImportOptions are the true options of Import.
type ImportOptions struct {
	// Platform is "os/arch[/variant]"; empty means linux on this machine.
	Platform string
	// Config is how the image is to be run; the zero value says nothing.
	Config RunConfig
	// Created is the image's time; zero means now. The same archive imported
	// with the same options is the same image, digest and all.
	Created time.Time
}

// Import makes a one-layer image of the root file system in archive (tar, also
// gzip or zstd) and names it ref. The archive is unpacked as it is read, so a
// hostile one is refused here, whole, and nothing of it stays.
func (s *Store) Import(ctx context.Context, archive io.Reader, ref string, opt ImportOptions) (Image, error) {
	img, err := s.importImage(ctx, archive, ref, opt)
	return img, diskFault(err)
}

func (s *Store) importImage(ctx context.Context, archive io.Reader, ref string, opt ImportOptions) (Image, error) {
	r, err := parseReference(ref)
	if err != nil {
		return Image{}, err
	}
	if _, ok := r.(name.Digest); ok {
		return Image{}, fault.New(fault.Invalid, "image.reference", fmt.Sprintf("%s: an imported image cannot be named by digest", ref), "name it with a tag")
	}
	platform, err := wantPlatform(opt.Platform)
	if err != nil {
		return Image{}, err
	}
	w, err := s.begin(ctx)
	if err != nil {
		return Image{}, err
	}
	defer w.end()
	layer, diffID, err := s.importLayer(ctx, archive)
	if err != nil {
		return Image{}, fmt.Errorf("import %s: %w", r.Name(), err)
	}
	if opt.Created.IsZero() {
		opt.Created = time.Now()
	}
	config, err := json.Marshal(configFile(platform, opt, diffID))
	if err != nil {
		return Image{}, err
	}
	m := &v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		Config:        v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: digestOf(config), Size: int64(len(config))},
		Layers:        []v1.Descriptor{layer},
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		return Image{}, err
	}
	// Through the same door as somebody else's image.
	if _, err := s.parseManifest(manifest, m.MediaType); err != nil {
		return Image{}, err
	}
	img, err := toImage(m, config)
	if err != nil {
		return Image{}, err
	}
	for _, b := range [][]byte{config, manifest} {
		if _, err := s.writeBlob(b); err != nil {
			return Image{}, err
		}
	}
	img.Reference, img.Digest = r.Name(), digestOf(manifest).String()
	entry := newEntry(img, m.MediaType, int64(len(manifest)), digestOf(manifest))
	err = s.changeIndex(ctx, func(idx *v1.IndexManifest) error { return setRef(idx, r.Name(), entry) })
	return img, err
}

func configFile(p v1.Platform, opt ImportOptions, diffID v1.Hash) *v1.ConfigFile {
	set := func(list []string) map[string]struct{} {
		var m map[string]struct{}
		for _, v := range list {
			if m == nil {
				m = map[string]struct{}{}
			}
			m[v] = struct{}{}
		}
		return m
	}
	c := opt.Config
	created := v1.Time{Time: opt.Created.UTC().Truncate(time.Second)}
	return &v1.ConfigFile{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, Created: created,
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diffID}},
		History: []v1.History{{Created: created, CreatedBy: "ward import"}},
		Config: v1.Config{
			User: c.User, WorkingDir: c.WorkingDir, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd,
			Labels: c.Labels, ExposedPorts: set(c.ExposedPorts), Volumes: set(c.Volumes), StopSignal: c.StopSignal,
		},
	}
}

// importLayer stores the archive as a gzip blob and as a sealed layer in one
// pass. The gzip stream names no file and no time, so it is reproducible.
func (s *Store) importLayer(ctx context.Context, archive io.Reader) (v1.Descriptor, v1.Hash, error) {
	fail := func(err error) (v1.Descriptor, v1.Hash, error) { return v1.Descriptor{}, v1.Hash{}, err }
	f, err := os.CreateTemp(s.path("tmp"), "blob-*")
	if err != nil {
		return fail(err)
	}
	defer os.Remove(f.Name()) // finds nothing once renamed
	defer f.Close()
	out := newSum(nil)
	z := gzip.NewWriter(io.MultiWriter(f, counter{out}))
	b, err := s.buildLayer(ctx, archive, z)
	if err != nil {
		b.drop()
		return fail(err)
	}
	if err := z.Close(); err != nil {
		b.drop()
		return fail(err)
	}
	digest := out.digest()
	if err := s.placeBlob(f, digest); err != nil {
		b.drop()
		return fail(err)
	}
	diffID := b.diffID
	if err := s.mendLayers(Image{Layers: []Layer{{DiffID: diffID.String()}}}); err != nil {
		b.drop()
		return fail(err)
	}
	if err := b.place(); err != nil {
		return fail(err)
	}
	return v1.Descriptor{MediaType: types.OCILayer, Digest: digest, Size: out.n}, diffID, nil
}

// counter hashes and counts what is written to it.
type counter struct{ s *sum }

func (c counter) Write(p []byte) (int, error) {
	c.s.h.Write(p)
	c.s.n += int64(len(p))
	return len(p), nil
}
