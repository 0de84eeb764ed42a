package launcher_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ward-project/ward/sandbox"
)

// TestInside looks at a container from inside, with exact expectations.
func TestInside(t *testing.T) {
	r := newRig(t)
	t.Run("status", func(t *testing.T) {
		status := fields(r.sh("cat /proc/self/status").out)
		for k, want := range payloadStatus {
			switch k {
			case "Uid", "Gid":
				want = "0 0 0 0"
			case "Groups":
				want = ""
			}
			if status[k] != want {
				t.Errorf("%s is %q, not %q", k, status[k], want)
			}
		}
		if status["Pid"] == "" || status["NSpid"] != status["Pid"] {
			t.Errorf("pid %s, NSpid %s", status["Pid"], status["NSpid"])
		}
	})
	t.Run("descriptors", func(t *testing.T) {
		// 3 is the directory ls reads.
		out := r.run(r.plan("/bin/ls", "/proc/self/fd")).out
		if out != "0\n1\n2\n3\n" {
			t.Errorf("open descriptors:\n%s", out)
		}
		out = r.sh("for f in 0 1 2; do readlink /proc/self/fd/$f; done").out
		for line := range strings.Lines(out) {
			if !strings.HasPrefix(line, "pipe:[") {
				t.Errorf("a descriptor of the host's: %s", line)
			}
		}
	})
	t.Run("mounts", func(t *testing.T) { insideMounts(t, r) })
	t.Run("files", func(t *testing.T) {
		p := r.plan("/bin/sh", "-c", "hostname; cat /etc/hostname; stat -c %u:%g /bin/busybox; cat /etc/hosts; id; pwd")
		want := fmt.Sprintf("%s\n%s\n0:0\n127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\nuid=0 gid=0\n/\n",
			p.Hostname, p.Hostname, p.Hostname)
		if got := r.run(p).out; got != want {
			t.Errorf("%q instead of %q", got, want)
		}
	})
	t.Run("writes", func(t *testing.T) { insideWrites(t, r) })
	t.Run("processes", func(t *testing.T) {
		if out := r.sh("echo /proc/[0-9]*").out; out != "/proc/1\n" {
			t.Errorf("sees processes %s", out)
		}
	})
	t.Run("masked", func(t *testing.T) {
		out := r.sh("for f in " + strings.Join(sandbox.MaskedPaths(), " ") +
			`; do if [ -d $f ]; then ls -A $f; elif [ -e $f ]; then cat $f; fi; done`).out
		if out != "" {
			t.Errorf("masked paths show %q", out)
		}
	})
	t.Run("devices", func(t *testing.T) {
		out := r.run(r.plan("/bin/sh", "-c", "cd /dev; echo *; cat null; head -c4 zero | od -An -tx1; ls -d pts/*")).out
		if strings.TrimPrefix(out, "core ") != "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\n 00 00 00 00\npts/ptmx\n" {
			t.Errorf("/dev: %q", out)
		}
	})
}

func insideMounts(t *testing.T, r *rig) {
	p := r.plan("/bin/cat", "/proc/self/mountinfo")
	p.Root.Writable = true
	if out := r.run(p).out; strings.Contains(out, r.dir) || strings.Contains(out, p.Run) {
		t.Errorf("host paths show:\n%s", out)
	}
	out := r.run(r.plan("/bin/cat", "/proc/self/mountinfo")).out
	top := map[string]string{} // of mounts over mounts the last can be reached
	var got []string
	for line := range strings.Lines(out) {
		top[strings.Fields(line)[4]] = line
	}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if top[f[4]] != line {
			continue
		}
		sep := slices.Index(f, "-")
		target, flags, kind := f[4], strings.Split(f[5], ","), f[sep+1]
		got = append(got, target)
		if kind == "devtmpfs" {
			t.Errorf("the host's devices show: %s", line)
		}
		if !strings.Contains(line, "nr_inodes=1,") && !slices.Contains(flags, "nosuid") {
			t.Errorf("%s can carry set-user-id programs: %s", target, line)
		}
		readOnly := slices.Contains(flags, "ro")
		writable := []string{"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/tmp", "/run"}
		null := strings.HasPrefix(target, "/proc/") && f[3] == "/null" // masked by the null device
		if !readOnly && !slices.Contains(writable, target) && !null {
			t.Errorf("%s is writable: %s", target, line)
		}
		for _, host := range []string{r.dir, "/var/lib", "/root"} {
			if strings.Contains(line, host) {
				t.Errorf("a host path shows: %s", line)
			}
		}
	}
	for _, want := range []string{"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/tmp", "/run",
		"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/proc/sys", "/proc/sysrq-trigger", "/proc/kcore", "/sys/firmware"} {
		if _, err := os.Stat(want); strings.HasPrefix(want, "/proc/") && err != nil {
			continue // not in this kernel
		}
		if !slices.Contains(got, want) {
			t.Errorf("%s is not mounted; mounted are %v", want, got)
		}
	}
}

func insideWrites(t *testing.T, r *rig) {
	out := r.sh(`for f in /x /bin/x /etc/x /etc/hosts /etc/resolv.conf /proc/sys/kernel/hostname /proc/sysrq-trigger \
		/sys/x /sys/fs/cgroup/x /proc/1/attr/current; do (echo x >$f) 2>/dev/null && echo "wrote $f"; done
		for f in /tmp/x /run/x /dev/shm/x; do echo x >$f && cat $f; done
		(dd if=/dev/zero of=/tmp/full bs=1M count=1000 2>/dev/null) && echo "/tmp has no bound"; true`).out
	if out != "x\nx\nx\n" {
		t.Errorf("%q", out)
	}
	p := r.plan("/bin/sh", "-c", "echo kept >/x; cat /x; chmod 4755 /x; stat -c '%u %a' /x")
	p.Root.Writable = true
	if out := r.run(p).out; out != "kept\n0 4755\n" {
		t.Errorf("a writable root gave %q", out)
	}
	if out := r.sh("cat /x 2>&1").out; strings.Contains(out, "kept") {
		t.Error("one container's writes show in another's")
	}
}

func TestProcessSettings(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "id -u; id -g; id -G; pwd; echo $A; grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status")
	p.Process.UID, p.Process.GID, p.Process.Groups = 1000, 1001, []uint32{5, 6}
	p.Process.Cwd = "/home"
	p.Process.Env = append(p.Process.Env, "A=b c")
	p.Process.Capabilities = []string{"CAP_NET_BIND_SERVICE"}
	got := r.run(p).out
	// Without an ambient set only root gets capabilities by executing.
	want := "1000\n1001\n1001 5 6\n/home\nb c\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n" +
		"CapEff:\t0000000000000000\nCapBnd:\t0000000000000400\nCapAmb:\t0000000000000000\n"
	if got != want {
		t.Errorf("%q instead of %q", got, want)
	}
	p = r.plan("/bin/grep", "-E", "Cap(Inh|Prm|Eff|Bnd|Amb)", "/proc/self/status")
	p.Process.Capabilities = []string{"CAP_NET_BIND_SERVICE"}
	want = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000400\nCapEff:\t0000000000000400\nCapBnd:\t0000000000000400\nCapAmb:\t0000000000000000\n"
	if got := r.run(p).out; got != want {
		t.Errorf("as root: %q", got)
	}
}

func TestHostNetwork(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "readlink /proc/self/ns/net; (echo x >/sys/x) 2>/dev/null && echo wrote; ls /sys/class/net | wc -l")
	p.Network = sandbox.NetworkHost
	out := strings.Fields(r.run(p).out)
	if len(out) != 2 || out[0] != procLink(t, os.Getpid(), "ns/net") {
		t.Errorf("%v", out)
	}
	if out := r.sh("ls /sys/class/net").out; out != "lo\n" {
		t.Errorf("without a network it has %q", out)
	}
}
