// Command getppid calls getppid(2) as often as its argument says and prints
// the processor time of one call in nanoseconds. It is the cheapest call there
// is, so it shows best what a system-call filter costs.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	n, err := strconv.Atoi(os.Args[len(os.Args)-1])
	if err != nil || n < 1 {
		fmt.Fprintln(os.Stderr, "usage: getppid CALLS")
		os.Exit(2)
	}
	runtime.LockOSThread()
	before := now()
	for range n {
		syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0)
	}
	fmt.Printf("%.1f\n", float64(now()-before)/float64(n))
}

// now is this thread's processor time in nanoseconds.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return t.Nano()
}
