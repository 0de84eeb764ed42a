package launcher

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// maxOpens bounds how often one name is resolved anew.
const maxOpens = 1 << 14

// openat2 is unix.Openat2 for names that somebody else made. The kernel gives up
// with EAGAIN on a ".." if anything at all was renamed or mounted on the machine
// while it looked: it cannot tell then that the name led nowhere else. It says
// nothing about the name, and whoever cannot be outrun by chance cannot be so
// for long.
func openat2(dir int, name string, how *unix.OpenHow) (fd int, err error) {
	for range maxOpens {
		if fd, err = unix.Openat2(dir, name, how); !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
		runtime.Gosched()
	}
	return fd, err
}
