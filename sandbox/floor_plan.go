package sandbox

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Bounds on what a plan may carry. They are far above any use and keep
// hostile input from becoming kernel memory or a slow check.
const (
	maxPaths          = 256
	maxMounts         = 256
	maxLayers         = 127
	maxStrings        = 16384
	maxGroups         = 256
	maxMemory   int64 = 1 << 50
	maxPIDs     int64 = 1 << 22
	maxCPUs     int64 = 8192
	maxPathSize       = 4095
	maxStarts         = 1 << 30
	// maxString is Linux's MAX_ARG_STRLEN: execve refuses one that is longer.
	maxString = 128<<10 - 1
	// minOutputFile is the largest piece of output that is kept as one.
	minOutputFile int64 = 64 << 10
)

func (f Floor) identity(p Plan) error {
	switch {
	case !isHex(p.Container):
		return below("container", fmt.Sprintf("%q is not a container id", p.Container), "")
	case !isHex(p.Run):
		return below("run", fmt.Sprintf("%q is not a run id", p.Run), "")
	case p.Start < 1 || p.Start > maxStarts:
		return below("start", fmt.Sprintf("%d is not the number of a start", p.Start), "")
	case !isDigest(p.Image.Digest):
		return below("image", fmt.Sprintf("%q is not an image digest", p.Image.Digest), "")
	case !isName(p.Name, 255, "_.-"):
		return below("name", fmt.Sprintf("%q is not a container name", p.Name), "use letters, digits, and _ . -")
	case !isName(p.Hostname, 64, ".-") || strings.HasSuffix(p.Hostname, "-") || strings.HasSuffix(p.Hostname, "."):
		return below("hostname", fmt.Sprintf("%q is not a host name", p.Hostname), "use letters, digits, dots and hyphens, 64 at most")
	}
	return nil
}

func (f Floor) process(p Plan) error {
	pr := p.Process
	if len(pr.Args) == 0 || pr.Args[0] == "" {
		return below("args", "there is no command to run", "name one after the image")
	}
	if len(pr.Args)+len(pr.Env) > maxStrings || len(pr.Groups) > maxGroups {
		return below("size", "too many arguments, environment entries or groups", "")
	}
	for _, list := range [][]string{pr.Args, pr.Env} {
		for _, s := range list {
			if len(s) > maxString {
				return below("size", fmt.Sprintf("an argument or environment entry has %d bytes and the kernel takes %d", len(s), maxString), "pass the name of a file instead")
			}
		}
	}
	for _, a := range pr.Args {
		if strings.ContainsRune(a, 0) {
			return below("args", "an argument contains a NUL byte", "")
		}
	}
	for _, e := range pr.Env {
		if i := strings.IndexByte(e, '='); i < 1 || strings.ContainsRune(e, 0) {
			return below("env", fmt.Sprintf("environment entry %q is not NAME=value", envName(e)), "")
		}
	}
	if err := cleanPath(pr.Cwd); err != nil {
		return below("cwd", fmt.Sprintf("working directory %q %v", pr.Cwd, err), "")
	}
	// CVE-2024-21626: a working directory reached through a leaked descriptor
	// in /proc/self/fd is outside the container.
	if within(pr.Cwd, "/proc") {
		return below("cwd", fmt.Sprintf("working directory %q is under /proc", pr.Cwd), "")
	}
	for _, id := range append([]uint32{pr.UID, pr.GID}, pr.Groups...) {
		if id >= p.IDMap.Size {
			return below("user", fmt.Sprintf("id %d is outside the container's %d ids", id, p.IDMap.Size), "")
		}
	}
	return nil
}

// envName keeps values, which may be secrets, out of error texts.
func envName(e string) string {
	name, _, _ := strings.Cut(e, "=")
	if len(name) > 64 {
		name = name[:64] + "…"
	}
	return name
}

func (f Floor) root(p Plan) error {
	return checkLayers(p.Root.Layers)
}

func checkLayers(layers []Layer) error {
	if n := len(layers); n == 0 || n > maxLayers {
		return below("layers", fmt.Sprintf("an image of %d layers cannot be run", n), "")
	}
	for _, l := range layers {
		if err := cleanPath(l.Path); err != nil || l.Path == "/" {
			return below("layers", fmt.Sprintf("layer directory %q is not an absolute, clean path below /", l.Path), "")
		}
		if !isDigest(l.DiffID) {
			return below("layers", fmt.Sprintf("%q is not a layer digest", l.DiffID), "")
		}
	}
	return nil
}

func (f Floor) host(p Plan) error {
	for name, dir := range map[string]string{
		"container": p.Host.ContainerDir, "runtime": p.Host.RuntimeDir, "audit": p.Host.AuditDir,
	} {
		if err := cleanPath(dir); err != nil || dir == "/" {
			return below("host", fmt.Sprintf("%s directory %q is not an absolute, clean path below /", name, dir), "")
		}
	}
	if n := len(p.Host.Keep); n == 0 || n > maxPaths {
		return below("host", "the plan does not say which directories are ward's", "")
	}
	for _, dir := range p.Host.Keep {
		if err := cleanPath(dir); err != nil || dir == "/" {
			return below("host", fmt.Sprintf("ward's directory %q is not an absolute, clean path below /", dir), "")
		}
	}
	if dir := p.Host.VolumeDir; dir != "" && (cleanPath(dir) != nil || dir == "/") {
		return below("host", fmt.Sprintf("volume directory %q is not an absolute, clean path below /", dir), "")
	}
	return nil
}

// cleanPath refuses every spelling of a path but the shortest: what is
// compared here must be what the kernel resolves.
func cleanPath(p string) error {
	switch {
	case !path.IsAbs(p):
		return errors.New("is not absolute")
	case path.Clean(p) != p:
		return errors.New("is not clean")
	case len(p) > maxPathSize:
		return errors.New("is too long")
	case strings.ContainsAny(p, "\x00\n"):
		return errors.New("contains a NUL or newline")
	}
	return nil
}

// within reports whether p is dir or below it; both clean and absolute.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && isHex(hex)
}

// isHex reports whether s is 64 lower-case hex digits.
func isHex(s string) bool {
	return len(s) == 64 && onlyHex(s)
}

func onlyHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// isName reports whether s is at most limit bytes of letters, digits and the
// marks, and starts with a letter or digit. Plain loops, not regexp: this
// package is initialised three times for every container.
func isName(s string, limit int, marks string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alnum && (i == 0 || strings.IndexByte(marks, c) < 0) {
			return false
		}
	}
	return s != "" && len(s) <= limit
}
