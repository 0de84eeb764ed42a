// Prober prints what the kernel answers to system calls a container must not
// have. It is built by the tests and run inside one. With "storm N" it makes one
// such call N times from several threads, under a hail of signals.
package main

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// storm prints the error numbers it got and how often, and how long it took.
func storm(n int) {
	const threads = 4
	var mu sync.Mutex
	got := map[syscall.Errno]int{}
	stop := make(chan bool)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				// As the Go runtime does to make a goroutine give way.
				syscall.Kill(os.Getpid(), syscall.SIGURG)
			}
		}
	}()
	began := time.Now()
	var all sync.WaitGroup
	for range threads {
		all.Go(func() {
			for range n / threads {
				_, _, e := syscall.Syscall(syscall.SYS_PIVOT_ROOT, 0, 0, 0)
				mu.Lock()
				got[e]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	close(stop)
	fmt.Printf("%v %d\n", got, time.Since(began).Milliseconds())
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "storm" {
		n, err := strconv.Atoi(os.Args[2])
		if err != nil {
			panic(err)
		}
		storm(n)
		return
	}
	path := append([]byte("/tmp"), 0)
	p := uintptr(unsafe.Pointer(&path[0]))
	for _, c := range []struct {
		name string
		args [6]uintptr
		nr   uintptr
	}{
		{"unshare(NEWUSER)", [6]uintptr{0x10000000}, 272},
		{"clone(NEWUSER)", [6]uintptr{0x10000000 | 17}, 56},
		{"clone(NEWNS)", [6]uintptr{0x00020000 | 17}, 56},
		{"clone3", [6]uintptr{0, 0}, 435},
		{"setns", [6]uintptr{0, 0}, 308},
		{"mount", [6]uintptr{p, p, p, 4096}, 165},
		{"umount2", [6]uintptr{p}, 166},
		{"pivot_root", [6]uintptr{p, p}, 155},
		{"chroot", [6]uintptr{p}, 161},
		{"fsopen", [6]uintptr{p}, 430},
		{"open_tree", [6]uintptr{0, p, 1}, 428},
		{"move_mount", [6]uintptr{}, 429},
		{"mount_setattr", [6]uintptr{}, 442},
		{"socket(AF_ALG)", [6]uintptr{38, 5}, 41},
		{"socket(AF_VSOCK)", [6]uintptr{40, 1}, 41},
		{"socket(AF_PACKET)", [6]uintptr{17, 3}, 41},
		{"socket(AF_KEY)", [6]uintptr{15, 3, 2}, 41},
		{"socket(AF_UNIX)", [6]uintptr{1, 1}, 41},
		{"socket(AF_INET)", [6]uintptr{2, 1}, 41},
		{"socket(AF_INET,RAW)", [6]uintptr{2, 3, 1}, 41},
		{"keyctl", [6]uintptr{0, 0xfffffffd}, 250},
		{"add_key", [6]uintptr{p, p, p, 1, 0xfffffffd}, 248},
		{"bpf", [6]uintptr{}, 321},
		{"io_uring_setup", [6]uintptr{1, p}, 425},
		{"userfaultfd", [6]uintptr{}, 323},
		{"perf_event_open", [6]uintptr{}, 298},
		{"open_by_handle_at", [6]uintptr{}, 304},
		{"fanotify_init", [6]uintptr{}, 300},
		{"init_module", [6]uintptr{}, 175},
		{"kexec_load", [6]uintptr{}, 246},
		{"reboot", [6]uintptr{}, 169},
		{"syslog", [6]uintptr{2}, 103},
		{"settimeofday", [6]uintptr{}, 164},
		{"sethostname", [6]uintptr{p, 1}, 170},
		{"iopl", [6]uintptr{3}, 172},
		{"quotactl", [6]uintptr{}, 179},
		{"personality(ADDR_NO_RANDOMIZE)", [6]uintptr{0x0040000}, 135},
		{"personality(query)", [6]uintptr{0xffffffff}, 135},
		{"vmsplice of 1023", [6]uintptr{1023}, 278},
		{"uselib", [6]uintptr{p}, 134},
		{"ioctl(TIOCSTI)", [6]uintptr{1023, 0x5412, p}, 16},
		{"ioctl(TIOCSTI), high bits", [6]uintptr{1023, 1<<32 | 0x5412, p}, 16},
		{"ioctl(TIOCLINUX)", [6]uintptr{1023, 0x541c, p}, 16},
		{"ioctl(TIOCSETD)", [6]uintptr{1023, 0x5423, p}, 16},
		{"ioctl(TCGETS)", [6]uintptr{1023, 0x5401, p}, 16},
		{"no such call", [6]uintptr{}, 4000},
		{"getpid", [6]uintptr{}, 39},
	} {
		_, _, e := syscall.RawSyscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
		fmt.Printf("%s: %d\n", c.name, e)
	}
}
