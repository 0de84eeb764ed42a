package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/verify"
)

// Status is how a check came out.
type Status string

// The statuses. Only Bad makes a host unfit; Note is worth knowing.
const (
	Good Status = "ok"
	Note Status = "note"
	Bad  Status = "bad"
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Found is what is there; Remedy what to do if it is not as it should be.
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"`
}

// Fit says that nothing is bad. Nothing looked at is not fit.
func Fit(cs []Check) bool {
	for _, c := range cs {
		if c.Status != Good && c.Status != Note {
			return false
		}
	}
	return len(cs) > 0
}

// ExamineConfig is what is examined. All fields are required but VKey, which is
// empty where no key is pinned.
type ExamineConfig struct {
	Layout engine.Layout
	// Launcher is the launcher's path.
	Launcher string
	// VKey is the log's public key as it is pinned away from the log.
	VKey string
}

// Examine looks at the host and changes nothing.
func Examine(ctx context.Context, cfg ExamineConfig) []Check {
	var cs []Check
	for _, f := range []func(context.Context, ExamineConfig) []Check{kernel, cgroups, programsOf, record, writers, exports, trusted, decided} {
		cs = append(cs, f(ctx, cfg)...)
	}
	return cs
}

// WriteText writes checks for people.
func WriteText(w io.Writer, cs []Check) error {
	var b strings.Builder
	for _, c := range cs {
		fmt.Fprintf(&b, "%-5s %-18s %s\n", c.Status, c.Name, c.Found)
		if c.Remedy != "" && c.Status != Good {
			fmt.Fprintf(&b, "%-24s remedy: %s\n", "", c.Remedy)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// check is a Check that is good or bad.
func check(name string, good bool, found, remedy string) Check {
	c := Check{Name: name, Status: Good, Found: found, Remedy: remedy}
	if !good {
		c.Status = Bad
	}
	return c
}

func text(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func kernel(context.Context, ExamineConfig) []Check {
	h := policy.ThisHost()
	cs := []Check{check("machine", h.OS == "linux" && (h.Arch == "amd64" || h.Arch == "arm64"), h.OS+"/"+h.Arch+", Linux "+h.Kernel, "use Linux on amd64 or arm64")}
	max := text("/proc/sys/user/max_user_namespaces")
	cs = append(cs, check("user namespaces", max != "" && max != "0", "at most "+or(max, "none"), "sysctl user.max_user_namespaces=10000"))
	actions := " " + text("/proc/sys/kernel/seccomp/actions_avail") + " "
	cs = append(cs, check("seccomp", strings.Contains(actions, " user_notif ") && strings.Contains(actions, " errno "),
		or(strings.TrimSpace(actions), "not there"), "use a kernel with CONFIG_SECCOMP_FILTER, Linux 5.9 or newer"))
	overlay := strings.Contains(text("/proc/filesystems")+"\n", "\toverlay\n")
	_, err := os.Stat("/sys/module/overlay")
	cs = append(cs, check("overlay", overlay || err == nil, map[bool]string{true: "there", false: "not loaded"}[overlay || err == nil], "modprobe overlay"))
	// The newest call that starting a container needs; asked about nothing.
	err = unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: ^uint64(0)})
	cs = append(cs, check("id-mapped mounts", !errors.Is(err, unix.ENOSYS), map[bool]string{true: "the kernel has them", false: "the kernel has none"}[!errors.Is(err, unix.ENOSYS)], "use Linux 5.12 or newer"))
	abi := sandbox.LandlockABI()
	c := Check{Name: "landlock", Status: Good, Found: fmt.Sprintf("ABI %d", abi)}
	if abi < 6 {
		c.Status, c.Remedy = Note, "with Linux 6.12 paths, TCP ports and abstract sockets are confined too (docs/policy.md, Landlock)"
	}
	return append(cs, c)
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func cgroups(context.Context, ExamineConfig) []Check {
	kind := policy.ThisHost().Cgroup
	var have string
	if kind == "v2" {
		have = text("/sys/fs/cgroup/cgroup.controllers")
	} else {
		for line := range strings.Lines(text("/proc/cgroups")) {
			if f := strings.Fields(line); len(f) == 4 && f[3] == "1" {
				have += " " + f[0]
			}
		}
	}
	var missing []string
	for _, c := range []string{"memory", "pids", "cpu"} {
		if !strings.Contains(" "+have+" ", " "+c+" ") {
			missing = append(missing, c)
		}
	}
	found := kind + ", with" + " " + strings.TrimSpace(have)
	if len(missing) > 0 {
		found = kind + ", without " + strings.Join(missing, ", ")
	}
	cs := []Check{check("cgroups", kind != "" && len(missing) == 0, or(found, "not mounted"), "boot with these controllers (cgroup_enable=memory); limits that cannot be applied refuse every run")}
	if os.Geteuid() != 0 {
		cs = append(cs, Check{Name: "user", Status: Note, Found: fmt.Sprintf("uid %d", os.Geteuid()), Remedy: "starting containers needs root; everything else does not"})
	}
	return cs
}

// maxProgram bounds the launcher when it is searched for its build.
const maxProgram = 256 << 20

func programsOf(_ context.Context, cfg ExamineConfig) []Check {
	if _, err := sandbox.NewLauncher(cfg.Launcher); err != nil {
		return []Check{check("launcher", false, err.Error(), "install ward-launch beside ward (make install)")}
	}
	same, err := contains(cfg.Launcher, sandbox.Build)
	if err != nil {
		return []Check{check("launcher", false, err.Error(), "")}
	}
	initProgram := filepath.Join(filepath.Dir(cfg.Launcher), sandbox.InitName)
	cs := []Check{check("launcher", same, fmt.Sprintf("%s, build %s", cfg.Launcher, map[bool]string{true: sandbox.Build, false: "another than " + sandbox.Build}[same]),
		"install ward and ward-launch from the same build")}
	same, err = contains(initProgram, "ward-init:"+sandbox.Build+":")
	c := check("init", err == nil && same, initProgram+", of the same build", "")
	if c.Status != Good {
		c.Status, c.Found, c.Remedy = Note, initProgram+" is missing or of another build", "install it beside ward-launch; without it there is no --init"
	}
	return append(cs, c)
}

// contains says whether a program has a text in it: programs carry their build.
func contains(path, what string) (bool, error) {
	st, err := os.Stat(path)
	if err != nil || st.Size() > maxProgram {
		return false, errors.Join(err, sizeError(st))
	}
	b, err := os.ReadFile(path)
	return bytes.Contains(b, []byte(what)), err
}

func sizeError(st fs.FileInfo) error {
	if st != nil && st.Size() > maxProgram {
		return fmt.Errorf("%s has %d bytes", st.Name(), st.Size())
	}
	return nil
}

// record checks the audit log, all of it.
func record(_ context.Context, cfg ExamineConfig) []Check {
	dir := cfg.Layout.Audit()
	if cfg.VKey == "" {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return []Check{{Name: "audit log", Status: Note, Found: "there is none yet", Remedy: "the first command that changes something begins it"}}
		}
		return []Check{check("audit log", false, "its public key is not pinned in "+cfg.Layout.Etc, "restore audit.vkey there, or begin a new log on purpose: ward audit init")}
	}
	r, err := audit.Verify(dir, audit.Expect{VKey: cfg.VKey})
	if err != nil {
		return []Check{check("audit log", false, err.Error(), "see ward audit verify")}
	}
	return []Check{check("audit log", true, fmt.Sprintf("%d records, verified against the pinned key", r.Size), "")}
}

// writers looks for what others than root and ward's user could change or read.
func writers(_ context.Context, cfg ExamineConfig) []Check {
	l := cfg.Layout
	var open []string
	look := func(path string, forbidden fs.FileMode) {
		st, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			open = append(open, err.Error())
			return
		}
		if m := st.Mode().Perm() & forbidden; m != 0 {
			open = append(open, fmt.Sprintf("%s has mode %04o", path, st.Mode().Perm()))
		}
		if s, ok := st.Sys().(*unix.Stat_t); ok && s.Uid != 0 && int(s.Uid) != os.Geteuid() {
			open = append(open, fmt.Sprintf("%s is user %d's", path, s.Uid))
		}
	}
	for _, dir := range []string{l.Lib, l.Run, l.Etc, l.Trust(), l.Policy(), filepath.Join(l.Trust(), "roots"), l.Images(), l.Audit()} {
		look(dir, 0o022)
		es, _ := os.ReadDir(dir) // what is not there has no files
		for _, e := range es {
			if dir == l.Trust() || dir == l.Policy() || dir == l.Etc {
				look(filepath.Join(dir, e.Name()), 0o022)
			}
		}
	}
	keys := filepath.Join(l.Audit(), "journal", "key")
	look(keys, 0o077)
	es, _ := os.ReadDir(keys)
	for _, e := range es {
		look(filepath.Join(keys, e.Name()), 0o077)
	}
	return []Check{check("permissions", len(open) == 0, or(strings.Join(open, "; "), "nobody else may write configuration and state, or read the log's key"), "chmod and chown what is named")}
}

func trusted(_ context.Context, cfg ExamineConfig) []Check {
	ps, err := verify.TrustList(cfg.Layout.Trust())
	switch {
	case err != nil:
		return []Check{check("trust", false, err.Error(), "nothing is let in until that is mended")}
	case len(ps) == 0:
		return []Check{check("trust", false, "there is no trust policy, so nothing is let in", "ward trust add --key PUB GLOB")}
	}
	return []Check{check("trust", true, fmt.Sprintf("%d trust policies", len(ps)), "")}
}

// decided compiles the policy of every point.
func decided(_ context.Context, cfg ExamineConfig) []Check {
	var found string
	for _, point := range policy.Points() {
		e, err := policy.Open(policy.Config{Dir: cfg.Layout.Policy(), Point: point})
		if err != nil {
			return []Check{check("policy", false, "at point "+point+": "+err.Error(), "nothing is let in there until that is mended: ward policy test")}
		}
		if point == policy.PointRun {
			found = "level " + e.Level() + ", revision " + e.Revision()
		}
	}
	return []Check{check("policy", true, found, "")}
}
