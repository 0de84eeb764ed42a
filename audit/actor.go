package audit

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
)

// noLogin is the kernel's loginuid of a process nobody logged in for.
const noLogin = ^uint32(0)

// Actor is who asked, as the kernel says it.
type Actor struct {
	UID uint32 `json:"uid"`
	// LoginUID survives su and sudo; 4294967295 if nobody logged in.
	LoginUID uint32 `json:"loginuid"`
	PID      int    `json:"pid"`
	// StartTime is the process's start in clock ticks after boot: with the PID
	// it names one process, also after the PID was given away again.
	StartTime uint64 `json:"starttime"`
	Exe       string `json:"exe,omitempty"`
	TTY       string `json:"tty,omitempty"`
}

var caller = sync.OnceValue(readCaller)

// Caller is this process. It is read from /proc/self once; what cannot be
// read is left empty, since an actor is never a ground to allow anything.
func Caller() Actor { return caller() }

func readCaller() Actor {
	a := Actor{UID: uint32(os.Getuid()), LoginUID: noLogin, PID: os.Getpid()}
	a.read("/proc/self/")
	return a
}

// ProcessActor is another process, as /proc describes it. What cannot be read
// is left empty, but for its user, without whom there is no actor.
func ProcessActor(pid int) (Actor, error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	a := Actor{LoginUID: noLogin, PID: pid}
	b, err := os.ReadFile(dir + "status")
	if err != nil {
		return Actor{}, err
	}
	_, after, _ := strings.Cut(string(b), "\nUid:")
	ids := strings.Fields(after)
	if len(ids) == 0 {
		return Actor{}, fmt.Errorf("%sstatus names no user", dir)
	}
	uid, err := strconv.ParseUint(ids[0], 10, 32)
	if err != nil {
		return Actor{}, fmt.Errorf("%sstatus: %w", dir, err)
	}
	a.UID = uint32(uid)
	a.read(dir)
	return a, nil
}

func (a *Actor) read(dir string) {
	if b, err := os.ReadFile(dir + "loginuid"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32); err == nil {
			a.LoginUID = uint32(n)
		}
	}
	if exe, err := os.Readlink(dir + "exe"); err == nil {
		a.Exe = exe
	}
	if b, err := os.ReadFile(dir + "stat"); err == nil {
		a.StartTime, a.TTY = parseStat(string(b))
	}
}

// parseStat takes start time and terminal from /proc/PID/stat. The command
// name, in parentheses, may itself contain spaces and parentheses.
func parseStat(s string) (start uint64, tty string) {
	i := strings.LastIndexByte(s, ')')
	if i < 0 {
		return 0, ""
	}
	f := strings.Fields(s[i+1:])
	const ttyField, startField = 7 - 3, 22 - 3 // counted from field 3, the state
	if len(f) <= startField {
		return 0, ""
	}
	start, err := strconv.ParseUint(f[startField], 10, 64)
	if err != nil {
		return 0, ""
	}
	n, err := strconv.ParseInt(f[ttyField], 10, 32)
	if err != nil || n == 0 {
		return start, ""
	}
	dev := uint32(n)
	major, minor := dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	switch {
	case major >= 136 && major <= 143:
		return start, fmt.Sprintf("pts/%d", (major-136)<<20|minor)
	case major == 4 && minor < 64:
		return start, fmt.Sprintf("tty%d", minor)
	case major == 4:
		return start, fmt.Sprintf("ttyS%d", minor-64)
	}
	return start, fmt.Sprintf("%d:%d", major, minor)
}
