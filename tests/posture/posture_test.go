// Package posture looks at the processes of a running container, and at our
// own, from outside: all that /proc says of them against one table.
//
// It does not look from inside, and does not try anything: that is for
// tests/escape and the tests of sandbox/launcher.
package posture

import (
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/tests/lab"
)

func TestMain(m *testing.M) {
	// What this program was started with is not for the wards it looks at.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		panic(err)
	}
	defaultSignals()
	os.Exit(lab.Main(m))
}

// defaultSignals undoes what this program's starter had it ignore: our own
// programs that are plain Go inherit it, and the table does not know it.
func defaultSignals() {
	var ignored struct {
		handler, flags, restorer uintptr
		mask                     uint64
	}
	for sig := uintptr(32); sig <= 64; sig++ { // the others Go's runtime looks after
		var now = ignored
		_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&now)), 8, 0, 0)
		if e == 0 && now.handler == 1 {
			unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&ignored)), 0, 8, 0, 0)
		}
	}
}

const image = "demo/busybox:1"

// lot is a ward, and what the words of the table mean in it.
type lot struct {
	*testing.T
	ward *lab.Ward
	// host are the mounts of the host before the test and now.
	host  []mount
	known map[string]string
	words map[string]string
}

func TestPosture(t *testing.T) {
	w := lab.New(t)
	w.Env = append(w.Env, "SECRET=of-the-caller")
	l := &lot{T: t, ward: w, host: l0(t)}
	w.Busybox(image)
	w.Vouch(image)

	// A careless caller's descriptor is nobody else's.
	careless, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer careless.Close()
	run := w.Command("--root", w.Root, "run", "-d", "--name", "kept", "--restart", "always", image, "sh", "-c", "sleep 2001; true")
	run.ExtraFiles = []*os.File{careless}
	made := w.Finish(run)
	if made.Code != 0 {
		t.Fatalf("%+v", made)
	}
	id := strings.TrimSpace(made.Stdout)
	first, mon := l.container(id)
	l.check("first process", first, contained+firstProcess)
	l.check("child", l.child("sleep 2001 ", id), contained+childProcess)
	l.check("monitor", mon, monitor)
	l.check("keeper", l.find("ward --root "+w.Root+" keep "+id), keeper)

	if out := w.Must("exec", "-d", "kept", "sleep", "2003"); strings.TrimSpace(out) != "" {
		t.Errorf("exec -d says %q", out)
	}
	l.check("exec", l.child("sleep 2003 ", id), contained+execProcess)
	l.check("monitor with exec", mon, monitor+monitorWithExec)

	cmd := w.Command("run", "--name", "fg", image, "sleep", "2005")
	cmd.Args[0] = "ward"
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	l.foreground(cmd)
	w.Must("rm", "-f", "kept")
	w.Gone(t)
}

func l0(t *testing.T) []mount { return process{t, "/proc/self"}.mounts() }

// foreground looks at a "ward run" that waits, and at its monitor.
func (l *lot) foreground(cmd *exec.Cmd) {
	for range 200 {
		if r := l.ward.Do("inspect", "-f", "{{.State.Running}} {{.Id}}", "fg"); strings.HasPrefix(r.Stdout, "true ") {
			_, mon := l.container(strings.Fields(r.Stdout)[1])
			l.check("foreground", cmd.Process.Pid, foreground)
			l.check("monitor of a foreground run", mon, monitor+"fd/pipe w: 2\n")
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	l.ward.Must("rm", "-f", "fg")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 137 {
		l.Errorf("the foreground run ended with %v", err)
	}
}

// container reads who a container's first process and monitor are, and what
// the table's words mean for it.
func (l *lot) container(id string) (first, monitor int) {
	l.Helper()
	pids := strings.Fields(l.ward.Must("inspect", "-f", "{{.State.Pid}} {{.MonitorPid}} {{.Plan.id_map.base}}", id))
	first, monitor = l.number(pids[0]), l.number(pids[1])
	base := l.number(pids[2])
	l.known = map[string]string{}
	for _, of := range []struct {
		name string
		pid  int
	}{{"container", first}, {"monitor", monitor}, {"host", os.Getpid()}} { // the last one wins: what is the host's is nobody's own
		p := process{l.T, filepath.Join("/proc", strconv.Itoa(of.pid))}
		for _, ns := range p.list("ns") {
			l.known[p.link("ns/"+ns)] = of.name
		}
	}
	l.words = map[string]string{
		"BASE": strconv.Itoa(base), "TTY": strconv.Itoa(base + 5), "ID": id, "SHORT": id[:12], "HOME": l.ward.Dir,
		"LIB": filepath.Join(l.ward.Root, "lib"), "ROOT": l.ward.Root, "BIN": lab.Bin(), "WORK": l.ward.Dir,
		"LOWER": "/mnt/layers/0", "UPPER": "/mnt/upper/upper", "STAGE": "/mnt/upper/work",
	}
	if !overlayTakesDescriptors(l.T) {
		l.words["LOWER"], l.words["UPPER"], l.words["STAGE"] = "/proc/self/fd/13", "/proc/self/fd/14", "/proc/self/fd/15"
	}
	return first, monitor
}

func (l *lot) number(s string) int {
	l.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		l.Fatal(err)
	}
	return n
}

// child waits for the process of container id whose command line begins so.
func (l *lot) child(cmdline, id string) int {
	l.Helper()
	for range 100 {
		for _, pid := range processes(func(s string) bool { return strings.HasPrefix(s, cmdline) }) {
			if b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup")); err == nil && strings.Contains(string(b), id) {
				return pid
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	l.Fatalf("there is no process %q", cmdline)
	return 0
}

func (l *lot) find(cmdline string) int {
	l.Helper()
	var pids []int
	for range 400 { // a second keeper waits for a while, and ends
		if pids = processes(func(s string) bool { return strings.TrimSpace(s) == cmdline }); len(pids) == 1 {
			return pids[0]
		}
		time.Sleep(20 * time.Millisecond)
	}
	l.Fatalf("%d processes %q", len(pids), cmdline)
	return 0
}

// check compares all that is seen of a process with what the table says. It
// looks again for a moment: descriptors come and go.
func (l *lot) check(name string, pid int, table string) {
	l.Run(name, func(t *testing.T) {
		caller := look(t, os.Getpid(), l.known)
		caller["environ"] = strings.Join(slices.Sorted(slices.Values(l.ward.Env)), " ")
		want := l.want(t, table, caller)
		var diff []string
		for range 40 {
			if diff = compare(l.seen(t, pid, want), want); len(diff) == 0 {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Errorf("process %d:\n%s", pid, strings.Join(diff, "\n"))
	})
}

func (l *lot) seen(t *testing.T, pid int, want facts) facts {
	f := look(t, pid, l.known)
	p := process{t, filepath.Join("/proc", strconv.Itoa(pid))}
	_, numbered := want["fd/0"]
	p.open(f, numbered, func(target string) string {
		target = strings.TrimPrefix(target, filepath.Join(l.ward.Root, "lib/audit")+"/")
		return strings.TrimPrefix(target, filepath.Join(l.ward.Root, "lib")+"/")
	})
	switch f["ns/mnt"] {
	case "container":
		f.addMounts(p.mounts(), nil)
		for key, value := range f {
			if strings.HasPrefix(key, "mount/") && strings.Contains(key+value, l.ward.Dir) {
				t.Errorf("%s: %s shows where ward's directories are", key, value)
			}
		}
	case "monitor":
		f.addMounts(p.mounts(), append(l0(t), l.host...))
	}
	return f
}

// want reads a table; a later line replaces an earlier one.
func (l *lot) want(t *testing.T, table string, caller facts) facts {
	f := facts{}
	assigned := regexp.MustCompile(`=[A-Z]+\b`)
	word := regexp.MustCompile(`\b[A-Z]{2,5}\b`)
	put := func(key, value string) {
		if value == "caller" {
			var ok bool
			if value, ok = caller[key]; !ok {
				t.Errorf("the caller has no %s", key)
			}
		}
		f[key] = value
	}
	for line := range strings.Lines(strings.TrimSpace(table)) {
		line, v2 := strings.CutPrefix(line, "v2 ")
		if v2 && len(l.hierarchies()) > 0 {
			continue
		}
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if key == "" && !ok {
			continue
		}
		mean := func(s string) string {
			return word.ReplaceAllStringFunc(s, func(w string) string {
				if m, ok := l.words[w]; ok {
					return m
				}
				return w
			})
		}
		key, value = mean(key), strings.TrimSpace(value)
		if key == "environ" { // names of variables are no words
			value = assigned.ReplaceAllStringFunc(value, func(s string) string { return "=" + mean(s[1:]) })
		} else {
			value = mean(value)
		}
		switch head, all := strings.CutSuffix(key, "*"); {
		case all && head == "cgroup/":
			for k := range caller {
				if strings.HasPrefix(k, head) {
					put(k, value)
				}
			}
		case all:
			for _, h := range l.hierarchies() {
				put(head+h, value)
			}
		default:
			put(key, value)
		}
	}
	if _, inside := f["mount/ /sys"]; inside {
		for _, c := range covered {
			if _, err := os.Stat(c.path); err == nil {
				within := strings.TrimPrefix(c.path, "/proc")
				f["mount/ "+c.path] = strings.ReplaceAll(strings.ReplaceAll(coverings[c.with], "PATH", within), "BASE", l.words["BASE"])
			}
		}
	}
	if slices.ContainsFunc(l.host, func(m mount) bool {
		return strings.HasPrefix(m.what, "tmpfs ") && strings.HasSuffix(m.what, ",inode64")
	}) {
		for key, value := range f { // CONFIG_TMPFS_INODE64: every tmpfs says so
			if strings.HasPrefix(key, "mount/") && strings.HasPrefix(value, "tmpfs ") {
				f[key] = value + ",inode64"
			}
		}
	}
	return f
}

// overlayTakesDescriptors reports whether the kernel knows an overlay's
// directories by descriptor, since Linux 6.13; before, ward names them by
// /proc/self/fd, and that is what the mount table shows.
func overlayTakesDescriptors(t *testing.T) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	version := strings.Split(unix.ByteSliceToString(u.Release[:]), ".")
	major, _ := strconv.Atoi(version[0])
	minor, _ := strconv.Atoi(version[1])
	return major > 6 || major == 6 && minor >= 13
}

// hierarchies are the names of the host's control groups of version 1.
func (l *lot) hierarchies() (names []string) {
	for _, m := range l0(l.T) {
		if strings.HasPrefix(m.what, "cgroup ") {
			names = append(names, filepath.Base(m.at))
		}
	}
	return names
}

// compare lists what differs, both ways.
func compare(seen, want facts) (diff []string) {
	keys := map[string]bool{}
	for _, f := range []facts{seen, want} {
		for k := range f {
			keys[k] = true
		}
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		s, isSeen := seen[k]
		w, isWanted := want[k]
		switch {
		case !isWanted:
			diff = append(diff, k+": "+s+"   (the table does not know it)")
		case !isSeen:
			diff = append(diff, k+": "+w+"   (it is not there)")
		case !like(w, s):
			diff = append(diff, k+": "+s+"   (and not "+w+")")
		}
	}
	return diff
}

// like reports whether s is pattern, where a * in it is anything.
func like(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(s)
}
