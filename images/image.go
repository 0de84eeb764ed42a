package images

import "time"

// Image is one image for one platform, as found in the local store.
type Image struct {
	// Reference is the full name it was found under, registry included:
	// "host/repo:tag", or "host/repo@sha256:…" where no tag names it.
	Reference string `json:"reference"`
	// Digest is the manifest's digest: the image's identity.
	Digest string `json:"digest"`
	// Index is the digest of the index it was chosen from, or "".
	Index string `json:"index,omitempty"`
	// ID is the config's digest, which is what Docker calls the image ID.
	ID string `json:"id"`
	// Platform is "os/architecture[/variant]".
	Platform string `json:"platform"`
	// Size is the sum of the layers' sizes in bytes as they are transferred.
	Size int64 `json:"size"`
	// Created is the time in the config, or zero. It is the image's claim.
	Created time.Time `json:"created"`
	// Config says how the image wants to be run.
	Config RunConfig `json:"config"`
	// Layers are lowest first.
	Layers []Layer `json:"layers"`
}

// Layer is one layer of an image.
type Layer struct {
	// Digest is that of the blob, DiffID that of the archive inside it.
	Digest    string `json:"digest"`
	DiffID    string `json:"diff_id"`
	MediaType string `json:"media_type"`
	// Size is the blob's, in bytes.
	Size int64 `json:"size"`
}

// RunConfig is what an image says about how to run it. All of it is the
// image's own claim: hostile until policy has seen it.
type RunConfig struct {
	User         string            `json:"user,omitempty"`
	WorkingDir   string            `json:"working_dir,omitempty"`
	Env          []string          `json:"env,omitempty"`
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	ExposedPorts []string          `json:"exposed_ports,omitempty"`
	Volumes      []string          `json:"volumes,omitempty"`
	StopSignal   string            `json:"stop_signal,omitempty"`
	Healthcheck  *Healthcheck      `json:"healthcheck,omitempty"`
}

// Healthcheck is how an image says its health can be found out. Test begins
// with NONE, CMD or CMD-SHELL (Docker image specification 1.2).
type Healthcheck struct {
	Test          []string      `json:"test"`
	Interval      time.Duration `json:"interval,omitempty"`
	Timeout       time.Duration `json:"timeout,omitempty"`
	StartPeriod   time.Duration `json:"start_period,omitempty"`
	StartInterval time.Duration `json:"start_interval,omitempty"`
	Retries       int           `json:"retries,omitempty"`
}
