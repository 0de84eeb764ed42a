package images

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// makeOpaque makes overlayfs show nothing of the layers below in d.
func (a *applier) makeOpaque(d *os.File) error {
	err := unix.Fsetxattr(int(d.Fd()), a.opaqueName, []byte("y"), 0)
	if err == unix.EPERM && a.opaqueName == "trusted.overlay.opaque" {
		// Root of a user namespace: as an ordinary user.
		a.opaqueName = "user.overlay.opaque"
		return a.makeOpaque(d)
	}
	if err != nil {
		return fmt.Errorf("mark directory opaque: %w", err)
	}
	return nil
}

// hide makes a whiteout: the device 0/0, which an ordinary user may make too
// since Linux 5.8. A whiteout is about the layers below; what this layer itself
// puts there stays, whichever comes first in the archive.
func (a *applier) hide(parent *os.File, e *entry) error {
	fd := int(parent.Fd())
	had, err := kindAt(fd, e.base)
	if err != nil {
		return err
	}
	switch had {
	case 0:
		return unix.Mknodat(fd, e.base, unix.S_IFCHR, 0)
	case unix.S_IFDIR:
		d, err := openAt(fd, e.base, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer d.Close()
		return a.makeOpaque(d)
	}
	return nil
}
