package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/volume"
	"github.com/ward-project/ward/sandbox"
)

// mountFlags are the flags that mount something.
type mountFlags struct {
	volumes, mounts, tmpfs, volumesFrom []string
	volumeDriver                        string
}

func (f *mountFlags) register(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&f.volumes, "volume", "v", nil, "mount a volume or a host directory: `[SOURCE:]TARGET[:ro]`")
	fs.StringArrayVar(&f.mounts, "mount", nil, "mount `type=volume|bind|tmpfs|image,source=…,target=…`")
	fs.StringArrayVar(&f.tmpfs, "tmpfs", nil, "mount a tmpfs: `TARGET[:size=…,mode=…,uid=…,gid=…,exec,ro]`")
	fs.StringArrayVar(&f.volumesFrom, "volumes-from", nil, "mount what another `CONTAINER[:ro]` mounts")
	fs.StringVar(&f.volumeDriver, "volume-driver", "", "local: there is no other")
}

func (f *mountFlags) allMounts(req *engine.Request) error {
	if err := volume.CheckDriver(f.volumeDriver); err != nil {
		return err
	}
	req.VolumesFrom = f.volumesFrom
	for _, group := range []struct {
		specs []string
		parse func(string) (sandbox.Mount, error)
	}{{f.volumes, parseVolume}, {f.mounts, parseMount}, {f.tmpfs, parseTmpfs}} {
		for _, spec := range group.specs {
			m, err := group.parse(spec)
			if err != nil {
				return err
			}
			req.Mounts = append(req.Mounts, m)
		}
	}
	return nil
}

func badMount(spec, why string) error {
	return invalid("run.mount", fmt.Sprintf("mount %.128q: %s", spec, why), "see ward run --help")
}

// parseVolume reads -v [SOURCE:]TARGET[:OPTIONS]: a host path, a volume's name,
// or nothing, which is a volume nobody names.
func parseVolume(spec string) (sandbox.Mount, error) {
	parts := strings.Split(spec, ":")
	m := sandbox.Mount{Type: sandbox.MountVolume, Exec: true, CopyUp: true}
	switch {
	case len(parts) > 3 || spec == "":
		return m, badMount(spec, "want [SOURCE:]TARGET[:ro]")
	case len(parts) == 1:
		m.Target = parts[0]
		return finishMount(spec, m)
	case parts[0] == "":
		return m, badMount(spec, "the source is empty; leave out the colon for a volume without a name")
	case strings.HasPrefix(parts[0], "/") || strings.HasPrefix(parts[0], "."):
		m.Type, m.Source, m.CopyUp = sandbox.MountBind, parts[0], false
	default:
		m.Name = parts[0]
	}
	m.Target = parts[1]
	if len(parts) == 3 {
		for _, o := range strings.Split(parts[2], ",") {
			if err := volumeOption(&m, o); err != nil {
				return m, badMount(spec, err.Error())
			}
		}
	}
	return finishMount(spec, m)
}

func volumeOption(m *sandbox.Mount, o string) error {
	switch o {
	case "ro":
		m.ReadOnly = true
	case "rw", "private", "rprivate":
	case "noexec":
		m.Exec = false
	case "nocopy":
		if m.Type != sandbox.MountVolume {
			return errors.New("only a volume is filled from the image")
		}
		m.CopyUp = false
	case "z", "Z":
		return fmt.Errorf("option %q sets SELinux labels, which ward does not", o)
	case "shared", "rshared", "slave", "rslave", "unbindable", "runbindable":
		return propagation(o)
	default:
		return fmt.Errorf("option %q is not there yet", o)
	}
	return nil
}

func propagation(p string) error {
	if p == "private" || p == "rprivate" {
		return nil
	}
	return fmt.Errorf("propagation %q would let mounts pass between the host and the container; only private and rprivate are there", p)
}

// mountKeys says which type a key of --mount is for.
var mountKeys = map[string]sandbox.MountType{
	"bind-propagation": sandbox.MountBind, "bind-recursive": sandbox.MountBind, "bind-nonrecursive": sandbox.MountBind,
	"volume-nocopy": sandbox.MountVolume, "volume-subpath": sandbox.MountVolume, "volume-driver": sandbox.MountVolume,
	"volume-label": sandbox.MountVolume, "volume-opt": sandbox.MountVolume,
	"image-subpath": sandbox.MountImage,
	"tmpfs-size":    sandbox.MountTmpfs, "tmpfs-mode": sandbox.MountTmpfs,
}

// parseMount reads --mount key=value,… as Docker does, as one line of CSV.
func parseMount(spec string) (sandbox.Mount, error) {
	m := mountSpec{Mount: sandbox.Mount{Exec: true, Type: sandbox.MountVolume}} // Docker's default type
	fields, err := csv.NewReader(strings.NewReader(spec)).Read()
	if err != nil {
		return m.Mount, badMount(spec, err.Error())
	}
	var keys []string
	for _, field := range fields {
		k, v, has := strings.Cut(field, "=")
		k = strings.ToLower(k)
		keys = append(keys, k)
		if err := m.set(k, v, has); err != nil {
			return m.Mount, badMount(spec, err.Error())
		}
	}
	switch m.Type {
	case sandbox.MountVolume:
		m.Name, m.Source, m.CopyUp = m.Source, "", !m.noCopy && m.Subpath == ""
	case sandbox.MountTmpfs:
		m.Exec = false
	case sandbox.MountImage:
		if m.Name, m.Source = m.Source, ""; m.Name == "" {
			return m.Mount, badMount(spec, "an image to mount needs a source")
		}
		if m.writable {
			return m.Mount, badMount(spec, "an image is mounted read-only")
		}
		m.ReadOnly = true
	case sandbox.MountBind:
	default:
		return m.Mount, badMount(spec, fmt.Sprintf("type %.32q is not there; use bind, volume, tmpfs or image", string(m.Type)))
	}
	for _, k := range keys {
		if want, special := mountKeys[k]; special && want != m.Type {
			return m.Mount, badMount(spec, fmt.Sprintf("%s is for mounts of type %s", k, want))
		}
	}
	return finishMount(spec, m.Mount)
}

// mountSpec is a --mount while its keys are read.
type mountSpec struct {
	sandbox.Mount
	// noCopy and writable were said, not merely left out.
	noCopy, writable bool
}

// set takes in one key.
func (m *mountSpec) set(k, v string, has bool) (err error) {
	flag := true // what "key" alone means
	if has && (k == "readonly" || k == "ro" || k == "volume-nocopy") {
		if flag, err = strconv.ParseBool(v); err != nil {
			return fmt.Errorf("%s=%.32q is not true or false", k, v)
		}
	} else if !has && k != "readonly" && k != "ro" && k != "volume-nocopy" {
		return fmt.Errorf("%.64q must be key=value", k)
	}
	switch k {
	case "type":
		m.Type = sandbox.MountType(strings.ToLower(v))
	case "source", "src":
		m.Source = v
	case "target", "destination", "dst":
		m.Target = v
	case "readonly", "ro":
		m.ReadOnly, m.writable = flag, !flag
	case "consistency": // means something on other systems only, as in Docker
	case "bind-propagation":
		return propagation(v)
	case "bind-recursive":
		if v != "enabled" {
			return fmt.Errorf("bind-recursive=%.32q is not there yet; what is mounted below comes along, read-only if the bind is", v)
		}
	case "volume-nocopy":
		m.noCopy = flag
	case "volume-subpath", "image-subpath":
		m.Subpath = strings.TrimSuffix(v, "/")
	case "volume-driver":
		return volume.CheckDriver(v)
	case "volume-label":
		return errors.New("volume-label is not there yet; make the volume first: ward volume create --label")
	case "tmpfs-size":
		m.Size, err = tmpfsSize(v)
	case "tmpfs-mode":
		m.Mode, err = mode(v)
	default:
		return fmt.Errorf("%.64q is not there yet", k)
	}
	return err
}

// parseTmpfs reads --tmpfs TARGET[:OPTIONS].
func parseTmpfs(spec string) (sandbox.Mount, error) {
	target, opts, _ := strings.Cut(spec, ":")
	m := sandbox.Mount{Type: sandbox.MountTmpfs, Target: target}
	for _, o := range strings.FieldsFunc(opts, func(r rune) bool { return r == ',' }) {
		k, v, _ := strings.Cut(o, "=")
		var err error
		switch k {
		case "ro":
			m.ReadOnly = true
		case "exec":
			m.Exec = true
		case "noexec":
			m.Exec = false
		case "rw":
			m.ReadOnly = false
		case "nosuid", "nodev", "private", "rprivate":
		case "suid", "dev":
			err = fmt.Errorf("option %q is not to be had: every mount is nosuid and nodev", o)
		case "size":
			m.Size, err = tmpfsSize(v)
		case "mode":
			m.Mode, err = mode(v)
		case "uid":
			m.UID, err = owner(v)
		case "gid":
			m.GID, err = owner(v)
		default:
			err = fmt.Errorf("option %q is not there yet", k)
		}
		if err != nil {
			return m, badMount(spec, err.Error())
		}
	}
	return finishMount(spec, m)
}

// tmpfsSize takes no zero, which is "unlimited" to the kernel, and no percent.
func tmpfsSize(s string) (int64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("size %.32q is not a finite number of bytes", s)
	}
	return n, nil
}

func mode(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o1777 {
		return 0, fmt.Errorf("%.32q is not an octal mode up to 1777", s)
	}
	return uint32(n), nil
}

func owner(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n >= sandbox.IDRange {
		return 0, fmt.Errorf("%.32q is not an id below %d", s, sandbox.IDRange)
	}
	return uint32(n), nil
}

// finishMount makes both ends absolute. A bind's source is resolved here,
// once: what policy decides about is what will be mounted.
func finishMount(spec string, m sandbox.Mount) (sandbox.Mount, error) {
	if !path.IsAbs(m.Target) {
		return m, badMount(spec, "the target must be an absolute path")
	}
	m.Target = path.Clean(m.Target)
	switch m.Type {
	case sandbox.MountTmpfs:
		if m.Source != "" {
			return m, badMount(spec, "a tmpfs has no source")
		}
		if m.Size == 0 {
			m.Size = sandbox.TmpfsSize
		}
		if m.Mode == 0 {
			m.Mode = 0o1777
		}
		return m, nil
	case sandbox.MountVolume:
		if m.Name == "" {
			if m.Subpath != "" {
				return m, badMount(spec, "a volume nobody named has no subpath yet")
			}
			return m, nil
		}
		return m, volume.CheckName(m.Name)
	case sandbox.MountImage:
		return m, nil
	}
	if m.Source == "" {
		return m, badMount(spec, "a bind needs a source")
	}
	src, err := filepath.Abs(m.Source)
	if err == nil {
		src, err = filepath.EvalSymlinks(src)
	}
	if err != nil {
		return m, badMount(spec, err.Error())
	}
	m.Source = src
	return m, nil
}
