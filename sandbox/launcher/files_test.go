package launcher_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// CVE-2018-15664: while files are copied out and in, the container swaps a
// directory for a link to the host's. What comes out is never the host's, and
// nothing of the host's is written.
func TestFilesSwapRace(t *testing.T) {
	r := newRig(t)
	decoys := t.TempDir()
	decoy := filepath.Join(decoys, "f")
	if err := os.WriteFile(decoy, []byte("decoy of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 12) + strings.TrimPrefix(decoys, "/")
	p := r.plan("/bin/sh", "-c", `cd /w; mkdir real; echo inside > real/f; ln -s `+up+` up; ln -s `+decoys+` abs; ln -s /proc/1/root`+decoys+` magic
		while :; do for l in up abs magic; do rm -rf d; cp -r real d; rm -rf d; cp -P $l d; done; done`)
	p.Mounts = []sandbox.Mount{{Type: sandbox.MountTmpfs, Target: "/w", Size: 1 << 20, Mode: 0o777}}
	os.Symlink("busybox", filepath.Join(r.layer, "bin/cp"))
	os.Symlink("busybox", filepath.Join(r.layer, "bin/rm"))
	os.Symlink("busybox", filepath.Join(r.layer, "bin/ln"))
	c := r.inhabit(p)
	got := 0
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		for _, follow := range []bool{true, false} {
			for _, path := range []string{"/w/d/f", "/w/d/"} {
				f, err := r.launcher.Files(t.Context(), c.plan.Host.RuntimeDir, sandbox.FilesRequest{Path: path, Follow: follow})
				if err != nil {
					continue
				}
				data, err := f.Receive()
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(data)
				if bytes.Contains(b, []byte("decoy of the host")) {
					t.Fatal("the host's file came out")
				}
				if bytes.Contains(b, []byte("inside")) {
					got++
				}
				f.Close()
			}
		}
		f, err := r.launcher.Files(t.Context(), c.plan.Host.RuntimeDir, sandbox.FilesRequest{In: true, Path: "/w/d"})
		if err != nil {
			continue
		}
		w, err := f.Send(sandbox.FilesTarget{Dir: "/w/d", Name: "f"})
		if err != nil {
			t.Fatal(err)
		}
		fw := sandbox.NewFileWriter(w)
		if err := fw.Next(sandbox.FileEntry{Name: ".", Type: sandbox.FileRegular, Size: 4, Mode: 0o644}); err == nil {
			fw.Write([]byte("into"))
			fw.Close()
		}
		f.Result()
		f.Close()
	}
	if b, err := os.ReadFile(decoy); err != nil || string(b) != "decoy of the host" {
		t.Errorf("the host's file is %q, %v", b, err)
	}
	if es, err := os.ReadDir(decoys); err != nil || len(es) != 1 {
		t.Errorf("beside it are %v, %v", es, err)
	}
	if got == 0 {
		t.Error("nothing at all came out: the test proves nothing")
	}
	t.Logf("%d copies of the container's own", got)
}

// The process that copies is nobody the container can see or trace, and has no
// rights but about files.
func TestFilesPosture(t *testing.T) {
	r := newRig(t)
	c := r.inhabit(sleeper(r))
	f, err := r.launcher.Files(t.Context(), c.plan.Host.RuntimeDir, sandbox.FilesRequest{Path: "/bin"})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := filepath.Join("/proc", strconv.Itoa(f.PID()))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Uid:\t100000\t100000\t100000\t100000\n", "Gid:\t100000\t100000\t100000\t100000\n", "Groups:\t \n",
		"CapInh:\t0000000000000000\n", "CapPrm:\t000000000000001f\n", "CapEff:\t000000000000001f\n", "CapBnd:\t000000000000001f\n",
		"CapAmb:\t0000000000000000\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(string(status), line) {
			t.Errorf("no %q in\n%s", line, status)
		}
	}
	ns := func(dir, name string) string { s, _ := os.Readlink(filepath.Join(dir, "ns", name)); return s }
	container := filepath.Join("/proc", strconv.Itoa(c.proc.HostPID()))
	for name, same := range map[string]bool{"user": true, "mnt": true, "pid": false} {
		if (ns(dir, name) == ns(container, name)) != same {
			t.Errorf("%s namespace: %s, the container's is %s", name, ns(dir, name), ns(container, name))
		}
	}
	// Not dumpable: its files in /proc are the host's root's.
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "environ"), &st); err != nil || st.Uid != 0 {
		t.Errorf("it is dumpable: %d, %v", st.Uid, err)
	}
	if out := c.sh("ls /proc"); strings.Contains(out, strconv.Itoa(f.PID())) {
		t.Errorf("the container sees it: %s", out)
	}
}
