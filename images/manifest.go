package images

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ward-project/ward/internal/fault"
)

func badDocument(rule, format string, a ...any) *fault.Error {
	return fault.New(fault.Invalid, rule, fmt.Sprintf(format, a...), "rebuild the image with a tool that follows the OCI image specification")
}

// kindOf says what a media type is: "manifest", "index", or "" for neither.
func kindOf(mt types.MediaType) string {
	switch mt {
	case types.OCIManifestSchema1, types.DockerManifestSchema2:
		return "manifest"
	case types.OCIImageIndex, types.DockerManifestList:
		return "index"
	}
	return ""
}

// checkDocument says what the document b is, served or described as mt. A
// document that could be read as two things is refused (CVE-2021-41190): one
// party would verify the index and another run the manifest.
func checkDocument(b []byte, mt types.MediaType) (kind string, err error) {
	kind = kindOf(mt)
	if kind == "" {
		return "", badDocument("image.media-type", "document of media type %.100q is neither an image manifest nor an index", mt)
	}
	top, err := topLevel(b)
	if err != nil {
		return "", badDocument("image.manifest", "%s is not one JSON object: %v", kind, err)
	}
	var own types.MediaType
	if raw, ok := top["mediatype"]; ok {
		if err := json.Unmarshal(raw, &own); err != nil {
			return "", badDocument("image.manifest", "mediaType of the %s is not a string", kind)
		}
		if own != mt {
			return "", badDocument("image.media-type", "document says it is %.100q but is served as %.100q", own, mt)
		}
	}
	_, manifests := top["manifests"]
	_, layers := top["layers"]
	_, config := top["config"]
	_, fsLayers := top["fslayers"]
	if manifests && (layers || config || fsLayers) {
		return "", badDocument("image.ambiguous", "document holds both manifests and layers, so two readers may see two images")
	}
	if manifests != (kind == "index") || fsLayers {
		return "", badDocument("image.media-type", "document served as %.100q does not have that form", mt)
	}
	return kind, nil
}

// topLevel returns the members of the object b by lower-cased name. A name
// that appears twice is an error, also when it differs only in case: Go takes
// the last one and ignores case, others take the first and do not.
func topLevel(b []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("no object (%v)", err)
	}
	top := map[string]json.RawMessage{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key := strings.ToLower(t.(string))
		if _, ok := top[key]; ok {
			return nil, fmt.Errorf("member %.60q appears twice", t)
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		top[key] = v
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows the object")
	}
	return top, nil
}

// parseManifest reads an image manifest and checks every descriptor in it.
func (s *Store) parseManifest(b []byte, mt types.MediaType) (*v1.Manifest, error) {
	kind, err := checkDocument(b, mt)
	if err != nil {
		return nil, err
	}
	if kind != "manifest" {
		return nil, badDocument("image.media-type", "an index stands where an image manifest is needed")
	}
	m := new(v1.Manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, badDocument("image.manifest", "image manifest: %v", err)
	}
	if m.SchemaVersion != 2 {
		return nil, badDocument("image.manifest", "image manifest has schemaVersion %d, not 2", m.SchemaVersion)
	}
	if m.Config.MediaType != types.OCIConfigJSON && m.Config.MediaType != types.DockerConfigJSON {
		return nil, badDocument("image.not-an-image", "manifest's config is %.100q: this is an artifact, not a container image", m.Config.MediaType)
	}
	if len(m.Layers) == 0 || len(m.Layers) > maxLayers {
		return nil, badDocument("image.bounds", "image has %d layers; 1 to %d are allowed", len(m.Layers), maxLayers)
	}
	if err := checkDescriptor(m.Config, maxConfig); err != nil {
		return nil, err
	}
	var total int64
	for _, l := range m.Layers {
		if err := checkDescriptor(l, s.cfg.MaxImageBytes); err != nil {
			return nil, err
		}
		if !isLayer(l.MediaType) {
			return nil, badDocument("image.layer-type", "layer %s has media type %.100q, which is not supported", l.Digest, l.MediaType)
		}
		if total += l.Size; total > s.cfg.MaxImageBytes {
			return nil, badDocument("image.bounds", "image's layers exceed %d bytes", s.cfg.MaxImageBytes)
		}
	}
	return m, nil
}

func isLayer(mt types.MediaType) bool {
	switch mt {
	case types.OCILayer, types.OCIUncompressedLayer, types.OCILayerZStd, types.DockerLayer, types.DockerUncompressedLayer:
		return true
	}
	return false
}

func checkDescriptor(d v1.Descriptor, limit int64) error {
	if d.Digest.Algorithm != "sha256" {
		return badDocument("image.manifest", "descriptor has no sha256 digest")
	}
	if d.Size < 0 || d.Size > limit {
		return badDocument("image.bounds", "blob %s claims %d bytes; 0 to %d are allowed", d.Digest, d.Size, limit)
	}
	if len(d.URLs) > 0 {
		// The bytes would come from wherever the image says.
		return badDocument("image.foreign", "blob %s is to be fetched from foreign URLs", d.Digest)
	}
	return nil
}

// choose picks from index b the manifest for platform ("" means this machine).
func choose(b []byte, platform string) (v1.Descriptor, error) {
	var idx v1.IndexManifest
	if err := json.Unmarshal(b, &idx); err != nil {
		return v1.Descriptor{}, badDocument("image.manifest", "image index: %v", err)
	}
	if idx.SchemaVersion != 2 {
		return v1.Descriptor{}, badDocument("image.manifest", "image index has schemaVersion %d, not 2", idx.SchemaVersion)
	}
	want, err := wantPlatform(platform)
	if err != nil {
		return v1.Descriptor{}, err
	}
	var have []string
	for _, d := range idx.Manifests {
		if kindOf(d.MediaType) != "manifest" || d.Platform == nil || d.Platform.OS == "unknown" {
			continue // attestations, nested indexes
		}
		if matches(*d.Platform, want) {
			return d, checkDescriptor(d, maxManifest)
		}
		if len(have) < 20 {
			have = append(have, platformString(d.Platform.OS, d.Platform.Architecture, d.Platform.Variant))
		}
	}
	return v1.Descriptor{}, fault.New(fault.NotFound, "image.platform",
		fmt.Sprintf("image has nothing for platform %s; it has %s", platformString(want.OS, want.Architecture, want.Variant), strings.Join(have, ", ")),
		"ask for another platform with --platform")
}

func wantPlatform(p string) (v1.Platform, error) {
	if p == "" {
		return v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, nil
	}
	part := strings.Split(p, "/")
	if len(part) < 2 || len(part) > 3 || len(p) > 64 || slices.Contains(part, "") {
		return v1.Platform{}, fault.New(fault.Invalid, "image.platform", fmt.Sprintf("platform %.64q is not OS/ARCH[/VARIANT]", p), "write it like linux/arm64")
	}
	want := v1.Platform{OS: part[0], Architecture: part[1]}
	if len(part) == 3 {
		want.Variant = part[2]
	}
	return want, nil
}

func matches(have, want v1.Platform) bool {
	return have.OS == want.OS && have.Architecture == want.Architecture &&
		(want.Variant == "" || have.Variant == want.Variant)
}

func platformString(os, arch, variant string) string {
	return strings.TrimSuffix(os+"/"+arch+"/"+variant, "/")
}

// configDoc is what is read of an image config: a fraction of v1.ConfigFile,
// whose reflection alone costs a fresh process a good part of a Resolve.
type configDoc struct {
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Variant      string    `json:"variant"`
	Created      time.Time `json:"created"`
	RootFS       struct {
		DiffIDs []v1.Hash `json:"diff_ids"`
	} `json:"rootfs"`
	Config struct {
		User, WorkingDir      string
		Env, Entrypoint, Cmd  []string
		Labels                map[string]string
		ExposedPorts, Volumes map[string]struct{}
		StopSignal            string
		Healthcheck           *struct {
			Test                                          []string
			Interval, Timeout, StartPeriod, StartInterval time.Duration
			Retries                                       int
		}
	} `json:"config"`
}

// toImage reads the config and makes the Image of manifest m.
func toImage(m *v1.Manifest, config []byte) (Image, error) {
	if _, err := topLevel(config); err != nil {
		return Image{}, badDocument("image.config", "image config is not one JSON object: %v", err)
	}
	var c configDoc
	if err := json.Unmarshal(config, &c); err != nil {
		return Image{}, badDocument("image.config", "image config: %v", err)
	}
	if c.OS == "" || c.Architecture == "" {
		return Image{}, badDocument("image.config", "image config names no os or architecture")
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return Image{}, badDocument("image.config", "image config lists %d layers and the manifest %d", len(c.RootFS.DiffIDs), len(m.Layers))
	}
	img := Image{
		ID:       m.Config.Digest.String(),
		Platform: platformString(c.OS, c.Architecture, c.Variant),
		Created:  c.Created,
		Config: RunConfig{
			User: c.Config.User, WorkingDir: c.Config.WorkingDir, Env: c.Config.Env,
			Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd, Labels: c.Config.Labels,
			ExposedPorts: slices.Sorted(maps.Keys(c.Config.ExposedPorts)),
			Volumes:      slices.Sorted(maps.Keys(c.Config.Volumes)),
			StopSignal:   c.Config.StopSignal,
			Healthcheck:  (*Healthcheck)(c.Config.Healthcheck),
		},
	}
	for i, l := range m.Layers {
		d := c.RootFS.DiffIDs[i]
		if d.Algorithm != "sha256" {
			return Image{}, badDocument("image.config", "diffID %d is not a sha256 digest", i)
		}
		img.Layers = append(img.Layers, Layer{l.Digest.String(), d.String(), string(l.MediaType), l.Size})
		img.Size += l.Size
	}
	for _, v := range img.Config.Volumes {
		if !path.IsAbs(v) || path.Clean(v) != strings.TrimSuffix(v, "/") && v != "/" {
			// CVE-2022-23648: a volume path with ".." copied host files in.
			return Image{}, badDocument("image.config", "volume %.200q is not a clean absolute path", v)
		}
	}
	return img, nil
}
