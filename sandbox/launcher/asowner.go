package launcher

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// asOwner runs fn on a thread whose new files belong to id, with all other
// rights as they are. On an id-mapped mount nobody else can make files.
func asOwner(id int, fn func() error) error {
	// Unlocked only when the thread is as it was: Go then ends one that is not
	// with its goroutine, and the launcher does not get further anyway.
	runtime.LockOSThread()
	err := fileIDs(id)
	if err == nil {
		err = raiseAll()
	}
	if err == nil {
		err = fn()
	}
	if back := errors.Join(fileIDs(0), raiseAll()); back != nil {
		return errors.Join(err, back)
	}
	runtime.UnlockOSThread()
	return err
}

// fileIDs sets the ids by which the kernel judges this thread's file access,
// and reads them back: these two calls do not fail.
func fileIDs(id int) error {
	for _, set := range []func(int) (int, error){unix.SetfsgidRetGid, unix.SetfsuidRetUid} {
		if _, err := set(id); err != nil {
			return err
		}
		if now, err := set(-1); err != nil || now != id {
			return fmt.Errorf("file ids of %d: the kernel says %d (%w)", id, now, err)
		}
	}
	return nil
}

// raiseAll makes effective what the thread may have; with other file ids than
// the root's the kernel has taken the rights over files off.
func raiseAll() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	for i := range data {
		data[i].Effective = data[i].Permitted
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
