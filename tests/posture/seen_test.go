package posture

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// facts are what is known of a process, or wanted: values by key.
type facts map[string]string

// counters are the lines of /proc/PID/status that only count or number.
var counters = []string{
	"Name", "State", "Tgid", "Ngid", "Pid", "PPid", "FDSize", "NStgid", "NSpid", "NSpgid", "NSsid", "HugetlbPages", "untag_mask",
	"SigQ", "SigPnd", "ShdPnd", "Cpus_allowed_list", "Mems_allowed_list", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches",
	"x86_Thread_features", "x86_Thread_features_locked", "arch_status",
}

// perThread are what each thread has for itself and all must have alike.
var perThread = []string{"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters"}

// look reads all that /proc has to say about a process. Names of namespaces
// come from known, by link.
func look(t *testing.T, pid int, known map[string]string) facts {
	t.Helper()
	p := process{t, filepath.Join("/proc", strconv.Itoa(pid))}
	f := facts{}
	p.status(f)
	p.threads(known)
	p.namespaces(f, known)
	p.settings(f)
	p.limits(f)
	p.cgroups(f)
	return f
}

type process struct {
	t   *testing.T
	dir string
}

func (p process) read(name string) string {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

func (p process) link(name string) string {
	p.t.Helper()
	s, err := os.Readlink(filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p process) list(name string) (names []string) {
	p.t.Helper()
	es, err := os.ReadDir(filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

func oneSpace(s string) string { return strings.Join(strings.Fields(s), " ") }

func (p process) status(f facts) {
	for line := range strings.Lines(p.read("status")) {
		key, value, _ := strings.Cut(line, ":")
		if strings.HasPrefix(key, "Vm") || strings.HasPrefix(key, "Rss") || slices.Contains(counters, key) {
			continue
		}
		f["status/"+key] = oneSpace(value)
	}
}

// threads reports a thread that has other rights than its process's first.
func (p process) threads(known map[string]string) {
	first := map[string]string{}
	for i, task := range p.list("task") {
		thread := process{p.t, filepath.Join(p.dir, "task", task)}
		f := facts{}
		b, err := os.ReadFile(filepath.Join(thread.dir, "status"))
		if err != nil {
			continue // it ended since
		}
		for line := range strings.Lines(string(b)) {
			if key, value, _ := strings.Cut(line, ":"); slices.Contains(perThread, key) {
				f[key] = oneSpace(value)
			}
		}
		thread.namespaces(f, known)
		for key, value := range f {
			if i == 0 {
				first[key] = value
			} else if first[key] != value {
				p.t.Errorf("thread %s: %s is %q, of the first thread %q", task, key, value, first[key])
			}
		}
	}
}

func (p process) namespaces(f facts, known map[string]string) {
	for _, name := range p.list("ns") {
		link := p.link("ns/" + name)
		whose, ok := known[link]
		if !ok {
			whose = link
		}
		f["ns/"+name] = whose
	}
}

func (p process) settings(f facts) {
	for _, name := range []string{"personality", "loginuid", "sessionid", "oom_score_adj", "coredump_filter", "timerslack_ns", "uid_map", "gid_map", "projid_map", "setgroups"} {
		f["attr/"+name] = oneSpace(p.read(name))
	}
	f["attr/timens"] = "the host's"
	if strings.ContainsAny(p.read("timens_offsets"), "123456789") {
		f["attr/timens"] = "its own"
	}
	for _, name := range []string{"cwd", "root", "exe"} {
		f["link/"+name] = p.link(name)
	}
	stat := p.read("stat")
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]) // from the third on
	f["sched/nice"], f["sched/rt_priority"], f["sched/policy"] = fields[19-3], fields[40-3], fields[41-3]
	f["cmdline"] = words(p.read("cmdline"))
	env := strings.Split(strings.TrimSuffix(p.read("environ"), "\x00"), "\x00")
	slices.Sort(env)
	f["environ"] = strings.Join(env, " ")
}

func words(s string) string {
	return strings.ReplaceAll(strings.TrimSuffix(s, "\x00"), "\x00", " ")
}

func (p process) limits(f facts) {
	text := p.read("limits")
	for line := range strings.Lines(text) {
		if len(line) > 26 && strings.HasPrefix(line, "Max") {
			f["limit/"+strings.TrimSpace(line[:26])] = oneSpace(line[26:])
		}
	}
}

func (p process) cgroups(f facts) {
	for line := range strings.Lines(p.read("cgroup")) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		f["cgroup/"+parts[1]] = parts[2]
	}
}

// open adds the process's descriptors: by number, or how many of each kind.
func (p process) open(f facts, numbered bool, shorten func(string) string) {
	counts := map[string]int{}
	for _, fd := range p.list("fd") {
		target, err := os.Readlink(filepath.Join(p.dir, "fd", fd))
		if err != nil {
			continue // closed since
		}
		kind := p.kind(fd, shorten(target))
		if numbered {
			f["fd/"+fd] = kind
		}
		counts[kind]++
	}
	for kind, n := range counts {
		if !numbered {
			f["fd/"+kind] = strconv.Itoa(n)
		}
	}
}

// kind says what a descriptor is and, of what has a direction, which.
func (p process) kind(fd, target string) string {
	kind, _, _ := strings.Cut(target, ":[")
	if inside, ok := strings.CutPrefix(target, "anon_inode:"); ok {
		return strings.Trim(inside, "[]")
	}
	if kind == "socket" {
		return kind
	}
	if kind == os.DevNull {
		kind = "null"
	}
	mode := ""
	for line := range strings.Lines(p.read("fdinfo/" + fd)) {
		if octal, ok := strings.CutPrefix(line, "flags:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(octal), 8, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			mode = []string{"r", "w", "rw", "?"}[n&3]
		}
	}
	return kind + " " + mode
}

// mount is one line of a mount table.
// device tells two mounts with the same options apart: our /proc from the host's.
type mount struct{ at, what, propagation, device string }

func (p process) mounts() (all []mount) {
	for line := range strings.Lines(p.read("mountinfo")) {
		m := strings.Fields(line)
		sep := slices.Index(m, "-")
		if sep < 6 || len(m) < sep+4 {
			p.t.Fatalf("mountinfo: %s", line)
		}
		all = append(all, mount{m[4], fmt.Sprintf("%s %s %s %s - %s", m[sep+1], m[sep+2], m[3], m[5], m[sep+3]), strings.Join(m[6:sep], " "), m[2]})
	}
	return all
}

// addMounts adds a mount table but for what is the host's. Where two mounts
// lie over each other both count.
func (f facts) addMounts(all, host []mount) {
	for _, m := range all {
		if slices.ContainsFunc(host, func(h mount) bool { return h.at == m.at && h.what == m.what && h.device == m.device }) && m.propagation == "" {
			continue
		}
		key := "mount/ " + m.at
		for f[key] != "" {
			key += " again"
		}
		f[key] = m.what + m.propagation
	}
}

// processes lists the ids of the processes for which is holds, of their
// command lines.
func processes(is func(cmdline string) bool) (pids []int) {
	es, _ := os.ReadDir("/proc")
	for _, e := range es {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
			if err == nil && is(string(bytes.ReplaceAll(b, []byte{0}, []byte{' '}))) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
