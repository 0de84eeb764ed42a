package registry

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// referrers lists the manifests whose subject is digest (OCI 1.1).
func (h *handler) referrers(w http.ResponseWriter, r *http.Request, name, digest string) error {
	dir, err := h.repo(name)
	if err != nil {
		return err
	}
	if err := onlyGet(r); err != nil {
		return err
	}
	if _, err := v1.NewHash(digest); err != nil {
		return &apiError{http.StatusBadRequest, "DIGEST_INVALID", "invalid digest"}
	}
	idx := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	es, err := os.ReadDir(filepath.Join(dir, "manifests"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	want := r.URL.Query().Get("artifactType")
	for _, e := range es {
		if !hexName(e.Name()) {
			continue // being written
		}
		d, ok, err := referrer(dir, "sha256:"+e.Name(), digest)
		if err != nil {
			return err
		}
		if ok && (want == "" || want == d.ArtifactType) {
			idx.Manifests = append(idx.Manifests, d)
		}
	}
	if want != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	answer(w, http.StatusOK, string(types.OCIImageIndex), idx)
	return nil
}

func referrer(dir, ref, subject string) (v1.Descriptor, bool, error) {
	m, err := load(dir, ref)
	if err != nil {
		return v1.Descriptor{}, false, err
	}
	var doc v1.Manifest
	if json.Unmarshal(m.Body, &doc) != nil || doc.Subject == nil || doc.Subject.Digest.String() != subject {
		return v1.Descriptor{}, false, nil
	}
	d := v1.Descriptor{
		MediaType: m.Type, Size: int64(len(m.Body)), Annotations: doc.Annotations,
		Digest: v1.Hash{Algorithm: "sha256", Hex: m.Hex}, ArtifactType: doc.ArtifactType,
	}
	if d.ArtifactType == "" {
		d.ArtifactType = string(doc.Config.MediaType)
	}
	return d, true, nil
}
