package launcher_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// A payload can hand its output's descriptor to a process outside (by a socket
// in a shared directory), which then outlives it. The run must end all the
// same, and its end be on record, whether the other is silent or writes.
func TestOutputHeldByAnother(t *testing.T) {
	for _, name := range []string{"silent", "writing"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			proc, err := r.launch(r.plan("/bin/sh", "-c", "echo mine; sleep 1"), sandbox.Stdio{})
			if err != nil {
				t.Fatal(err)
			}
			held, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", proc.HostPID()), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			if name == "writing" {
				go func() {
					for b := make([]byte, 4096); ; {
						if _, err := held.Write(b); err != nil {
							return
						}
					}
				}()
			}
			ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
			defer cancel()
			exit, err := proc.Wait(ctx)
			if err != nil {
				unix.Kill(proc.MonitorPID(), unix.SIGKILL)
				t.Fatalf("the run does not end: %v", err)
			}
			if !strings.Contains(exit.Error, "stdout: another process") {
				t.Errorf("the exit says %q", exit.Error)
			}
		})
	}
}

// A bind of a directory that the scratch is mounted below must not carry the
// scratch, with the launcher's own state, into the container.
func TestBindsDoNotShowTheScratch(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "grep ' /host' /proc/self/mountinfo | grep ' - [a-z]* ward '; ls -d /host/*/state/"+"*/exec.fifo 2>/dev/null; echo end")
	p.Mounts = []sandbox.Mount{{Type: sandbox.MountBind, Source: "/mnt", Target: "/host", ReadOnly: true}}
	if out := r.run(p).out; out != "end\n" {
		t.Errorf("the container sees\n%s", out)
	}
}

// The image's /etc/passwd is looked at for the home directory when the
// environment has none: as a fifo it must not hold up the start.
func TestPasswdIsAFifo(t *testing.T) {
	r := newRig(t)
	if err := unix.Mkfifo(filepath.Join(r.layer, "etc/passwd"), 0o666); err != nil {
		t.Fatal(err)
	}
	p := r.plan("/bin/true")
	p.Process.Env = append(p.Process.Env, "HOME=")
	if exit := r.run(p).exit; exit.Code != 0 {
		t.Errorf("%+v", exit)
	}
}

// What is made in a shared directory for a mount below it stays the host's: to
// give it away by name is a race with everybody who can rename there.
func TestNothingOfABindIsGivenAway(t *testing.T) {
	r := newRig(t)
	data := t.TempDir()
	p := r.plan("/bin/true")
	p.Mounts = []sandbox.Mount{
		{Type: sandbox.MountBind, Source: data, Target: "/d"},
		{Type: sandbox.MountTmpfs, Target: "/d/sub", Size: 1 << 20, Mode: 0o755},
	}
	r.run(p)
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(data, "sub"), &st); err != nil || st.Uid != 0 || st.Gid != 0 {
		t.Errorf("the host's directory belongs to %d:%d (%v)", st.Uid, st.Gid, err)
	}
}

// An image's link must not turn a mount into the container's root.
func TestMountTargetIsTheRoot(t *testing.T) {
	r := newRig(t)
	if err := os.Symlink("/", filepath.Join(r.layer, "data")); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	p := r.plan("/bin/true")
	p.Mounts = []sandbox.Mount{{Type: sandbox.MountBind, Source: data, Target: "/data", Exec: true}}
	if _, err := r.try(p, ""); fault.As(err).Rule != "launch.root-symlink" {
		t.Errorf("%v", err)
	}
	if made, err := os.ReadDir(data); err != nil || len(made) > 0 {
		t.Errorf("made on the host: %v %v", made, err)
	}
}
