//go:build vm

package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// bound is the longest the machine may take, checks and all.
const bound = 300 * time.Second

// TestCgroupV2 boots the machine once; each check made in it is a subtest.
func TestCgroupV2(t *testing.T) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("needs QEMU: install qemu-system-x86")
	}
	k := findKernel(t)
	dir, err := os.MkdirTemp("", "ward-vm-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	begin := time.Now()
	archive := initramfs(t, dir, k)
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	console, err := boot(ctx, qemu, k.image, archive)
	if !slices.ContainsFunc(console, isUp) && ctx.Err() == nil {
		// The emulator, again: seen once, with two processors, where the early
		// kernel patches itself. Nothing of ours has run by then.
		t.Logf("the emulated kernel died before it was up, once more: %v\n%s", err, tail(console, 60))
		console, err = boot(ctx, qemu, k.image, archive)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, tail(console, 60))
	}
	report(t, console)
	t.Logf("built, booted and checked in %.0f s", time.Since(begin).Seconds())
}

func isUp(line string) bool { return strings.HasPrefix(line, "guest: up ") }

// boot runs the machine to its end, or ctx's, and returns what was on its
// console.
func boot(ctx context.Context, qemu, image, initramfs string) ([]string, error) {
	// Emulation alone (TCG): hardware virtualization is not to be had in most
	// virtual machines, and here speed is nothing to wait for. One processor:
	// with two in threads of their own QEMU 7.2 executes what the kernel is just
	// patching on the other (static keys, at the first cpu.max), which ends in an
	// oops, and two in one thread take four times as long.
	cmd := exec.CommandContext(ctx, qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35", "-accel", "tcg,thread=single", "-cpu", "max,la57=off", "-smp", "1", "-m", "1024",
		"-kernel", image, "-initrd", initramfs, "-serial", "stdio",
		// A disk that nobody reads again: what is written stays in memory.
		"-blockdev", "driver=null-co,node-name=disk,size=67108864,read-zeroes=on", "-device", "virtio-blk-pci,drive=disk",
		// Emulated time stamp counters run at the wrong speed; a crash ends it.
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=unstable clocksource=hpet "+
			"cryptomgr.notests random.trust_cpu=on lsm=landlock,lockdown,yama,integrity,apparmor,bpf")
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	console := read(out)
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return console, fmt.Errorf("the machine was stopped: %w (%s at most)", ctx.Err(), bound)
	case err != nil:
		return console, fmt.Errorf("qemu: %w", err)
	}
	for _, line := range console {
		if line == "guest: exit 0" {
			return console, nil
		}
	}
	return console, errors.New("the checks did not end well")
}

// read returns the lines of a console, of 4 MiB at most.
func read(r io.Reader) []string {
	var lines []string
	s := bufio.NewScanner(io.LimitReader(r, 4<<20))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		lines = append(lines, strings.TrimRight(s.Text(), "\r"))
	}
	// A machine that says more must not wait for a reader.
	_, _ = io.Copy(io.Discard, r)
	return lines
}

// report makes a subtest of each check, from the lines in which the guest says
// what it is at. A check that did not end has failed.
func report(t *testing.T, console []string) {
	t.Helper()
	var said []string
	name, passed := "", 0
	for _, line := range console {
		word := strings.Fields(strings.TrimPrefix(line, "guest: "))
		switch {
		case !strings.HasPrefix(line, "guest: ") || len(word) < 2:
			said = append(said, line)
		case word[0] == "begin":
			name, said = word[1], nil
		case word[0] == "pass" || word[0] == "fail":
			ok := word[0] == "pass" && word[1] == name
			t.Run(word[1], func(t *testing.T) {
				t.Log(strings.Join(word[2:], " "))
				if !ok {
					t.Error(strings.Join(said, "\n"))
				}
			})
			if ok {
				passed++
			}
			name, said = "", nil
		default:
			t.Log(line)
		}
	}
	if name != "" {
		t.Errorf("%s did not end\n%s", name, strings.Join(said, "\n"))
	}
	if passed == 0 {
		t.Errorf("no check passed\n%s", tail(console, 60))
	}
}

func tail(lines []string, n int) string {
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
