package forge

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"runtime"
	"time"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
)

// Layer is a layer's archive and what the manifest claims of it.
type Layer struct {
	Archive []byte
	// Size is what the manifest says; 0 is the archive's own.
	Size int64
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type manifest struct {
	Schema      int               `json:"schemaVersion"`
	MediaType   string            `json:"mediaType"`
	Config      descriptor        `json:"config"`
	Layers      []descriptor      `json:"layers"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Push puts an image into a repository, by tag "1", and returns its digest.
// Nothing about it is checked.
func (r *Registry) Push(repo string, layers ...Layer) (digest string, err error) {
	m := manifest{Schema: 2, MediaType: manifestType, Annotations: map[string]string{"title": "forged"}}
	diffs := []string{}
	for _, l := range layers {
		d, err := r.blob(repo, l.Archive)
		if err != nil {
			return "", err
		}
		if l.Size == 0 {
			l.Size = int64(len(l.Archive))
		}
		diffs = append(diffs, d)
		m.Layers = append(m.Layers, descriptor{MediaType: layerType, Digest: d, Size: l.Size})
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "author": "forged", "created": time.Now().UTC().Format(time.RFC3339Nano),
		"config": map[string]any{"Cmd": []string{Ends}, "Labels": map[string]string{"repo": repo}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	if err != nil {
		return "", err
	}
	m.Config = descriptor{MediaType: configType, Size: int64(len(config))}
	if m.Config.Digest, err = r.blob(repo, config); err != nil {
		return "", err
	}
	r.mu.Lock()
	r.configs[m.Config.Digest] = true
	r.mu.Unlock()
	b, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	return r.manifest(repo, "1", manifestType, b)
}

// The programs in a root file system of Rootfs.
const (
	// Ends ends at once, with success; Waits waits for a signal.
	Ends  = "/bin/ends"
	Waits = "/bin/waits"
)

// Rootfs is the archive of a root file system with two programs, and extra
// entries behind them. An error says that there are none for this machine.
func Rootfs(extra ...Entry) ([]byte, error) {
	ends, waits, err := programs()
	if err != nil {
		return nil, err
	}
	all := []Entry{}
	for _, d := range []string{"bin/", "dev/", "etc/", "proc/", "run/", "sys/", "tmp/"} {
		all = append(all, Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: 0o755}})
	}
	all = append(all, program(Ends, ends), program(Waits, waits))
	return Archive(append(all, extra...)...)
}

func program(path string, code []byte) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: path[1:], Mode: 0o755}, Body: code}
}

// Entry is an entry of an archive.
type Entry struct {
	tar.Header
	Body []byte
}

// Archive is a tar archive of exactly these entries. An entry whose header
// claims more than its body has ends the archive: that is what it is for.
func Archive(entries ...Entry) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Format, h.ModTime = tar.FormatPAX, time.Unix(1e9, 0)
		if h.Size == 0 {
			h.Size = int64(len(e.Body))
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, fmt.Errorf("forge: %w", err)
		}
		if _, err := w.Write(e.Body); err != nil {
			return nil, fmt.Errorf("forge: %w", err)
		}
		if h.Size > int64(len(e.Body)) {
			return b.Bytes(), nil
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("forge: %w", err)
	}
	return b.Bytes(), nil
}
