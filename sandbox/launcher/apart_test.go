package launcher_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ward-project/ward/sandbox"
)

// TestOwnClocks: the clocks since boot start with the container, and processes
// of the container agree on them.
func TestOwnClocks(t *testing.T) {
	r := newRig(t)
	host, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	seconds := func(s string) float64 {
		t.Helper()
		f, err := strconv.ParseFloat(strings.Fields(s)[0], 64)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if seconds(string(host)) < 120 {
		t.Skip("needs a host that has been up for two minutes")
	}
	out := r.sh("cat /proc/uptime; busybox timeout 5 sleep 0.1; echo $?; cat /proc/self/timens_offsets").out
	if up := seconds(out); up < 0 || up > 60 {
		t.Errorf("up for %v seconds inside, %s", up, host)
	}
	if !strings.Contains(out, "\n0\n") || strings.Count(out, " -") != 2 {
		t.Errorf("%s", out)
	}
}

// TestOthersDoNotShow: what another user's processes are called and do is not
// to be seen, even in the same container.
func TestOthersDoNotShow(t *testing.T) {
	r := newRig(t)
	if err := os.WriteFile(filepath.Join(r.layer, "etc/passwd"), []byte("nobody:x:65534:65534::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := r.plan("/bin/sh", "-c", "busybox start-stop-daemon -S -c nobody -p /nowhere -a /bin/busybox -- sh -c 'ls -d /proc/[0-9]* | wc -l; cat /proc/1/cmdline; id -u'; ls -d /proc/1")
	p.Process.Capabilities = []string{"CAP_SETUID", "CAP_SETGID"}
	res := r.run(p)
	if out := res.out; strings.Contains(out, "start-stop") || !strings.HasSuffix(out, "\n65534\n/proc/1\n") {
		t.Errorf("%q %q", out, res.errOut)
	}
}

// TestOwnKeyring: the session keyring is the container's own, and keys cannot
// be asked for at all.
func TestOwnKeyring(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sleep", "1000")
	proc, err := r.launch(p, sandbox.Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.stop(proc)
	b, err := os.ReadFile("/proc/key-users")
	if err != nil {
		t.Skip("needs /proc/key-users")
	}
	if !strings.Contains(string(b), "\n"+strconv.Itoa(int(p.IDMap.Base))+": ") {
		t.Errorf("the container's root has no key:\n%s", b)
	}
}
