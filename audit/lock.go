package audit

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockTimeout is how long a writer waits for the others. A lock is held for
// one small write, so this much means that its holder is stopped or stuck.
var lockTimeout = 2 * time.Second

// flock takes the exclusive lock on f, or fails with ErrLocked and the
// holder's name at the deadline. It polls: a blocking flock(2) cannot be
// bounded without signals, and in a goroutine it would outlive its caller and
// take the lock later. The pauses are random so that waiters do not march in
// step.
func flock(f *os.File, deadline time.Time) error {
	for pause := 20 * time.Microsecond; ; pause = min(2*pause, time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err == unix.EINTR:
			continue
		case err != unix.EWOULDBLOCK:
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		case time.Now().After(deadline):
			return fmt.Errorf("%w: %s%s", ErrLocked, f.Name(), lockHolders(f))
		}
		time.Sleep(pause/2 + rand.N(pause))
	}
}

func funlock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != unix.EINTR {
			return err
		}
	}
}

// lockHolders names the processes that hold a flock on f, from /proc/locks;
// empty where the kernel does not say (another PID namespace, hidden /proc).
func lockHolders(f *os.File) string {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return ""
	}
	p, err := os.Open("/proc/locks")
	if err != nil {
		return ""
	}
	defer p.Close()
	inode := ":" + strconv.FormatUint(st.Ino, 10)
	var out []string
	for sc := bufio.NewScanner(p); sc.Scan(); {
		// "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF"; waiters have "->"
		// in the second field. The device is left out of the comparison: btrfs
		// shows another one here than in stat(2).
		w := strings.Fields(sc.Text())
		if len(w) < 6 || w[1] != "FLOCK" || !strings.HasSuffix(w[5], inode) {
			continue
		}
		out = append(out, processName(w[4]))
	}
	if len(out) == 0 {
		return ""
	}
	return " is held by " + strings.Join(out, ", ")
}

// processName is "pid 12 (ward, stopped)".
func processName(pid string) string {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return "pid " + pid
	}
	s := string(b)
	i, j := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if i < 0 || j < i || len(s) < j+3 {
		return "pid " + pid
	}
	state := ""
	if c := s[j+2]; c == 'T' || c == 't' {
		state = ", stopped"
	}
	return fmt.Sprintf("pid %s (%s%s)", pid, s[i+1:j], state)
}
