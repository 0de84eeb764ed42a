package cli

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// interfere is this test program in the launcher's place: it stands between
// gate and launcher, alters what passes as its mode says, and becomes the real
// launcher. Whatever it does, the real one must refuse.
func interfere() {
	if err := alter(); err != nil {
		fmt.Fprintln(os.Stderr, "interfere:", err)
		os.Exit(99)
	}
}

func alter() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(self + ".mode")
	if err != nil {
		return err
	}
	mode, real, _ := strings.Cut(string(b), "\n")
	plan, err := content(sandbox.FDPlan)
	if err != nil {
		return err
	}
	proof, err := content(sandbox.FDReceipt)
	if err != nil {
		return err
	}
	seals := sandbox.Seals
	switch mode {
	case "altered-plan":
		plan = bytes.Replace(plan, []byte("innocent"), []byte("guilty!!"), 1)
	case "altered-receipt":
		proof[len(proof)/2] ^= 1
	case "no-receipt":
		proof = nil
	case "unsealed-plan":
		seals = 0
	case "replayed-receipt":
		// The first run's receipt is kept and given to the second.
		saved := self + ".saved"
		if old, err := os.ReadFile(saved); err == nil {
			proof = old
		} else if err := os.WriteFile(saved, proof, 0o600); err != nil {
			return err
		}
	default:
		return fmt.Errorf("no such mode: %q", mode)
	}
	if err := replace(sandbox.FDPlan, plan, seals); err != nil {
		return err
	}
	if err := replace(sandbox.FDReceipt, proof, sandbox.Seals); err != nil {
		return err
	}
	// The Go runtime marked what we inherited close-on-exec only if it opened
	// it; these it did not.
	return syscall.Exec(real, []string{"ward-launch"}, nil)
}

// content reads a descriptor without taking it over: an os.File would close it.
func content(fd int) ([]byte, error) {
	b := make([]byte, 1<<20)
	n, err := unix.Pread(fd, b, 0)
	return b[:max(n, 0)], err
}

func replace(fd int, b []byte, seals int) error {
	m, err := unix.MemfdCreate("altered", unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	if _, err := unix.Pwrite(m, b, 0); err != nil && len(b) > 0 {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(m), unix.F_ADD_SEALS, seals); err != nil {
		return err
	}
	if err := unix.Dup2(m, fd); err != nil {
		return err
	}
	return unix.Close(m)
}
