package launcher

import (
	"fmt"
	"os"
	"path"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// StoppedFiles is the main function of ward-launch as it is started to copy
// files of a container that does not run. It makes the container's file tree
// as a start would, in a mount namespace that ends with it, and starts nothing
// there: it becomes the process that copies (files.go), inside. It returns only
// on failure, which it has told its caller.
func StoppedFiles() {
	err := stoppedFiles()
	stat := sandbox.FilesStat{Error: fault.As(err)}
	if werr := sandbox.WriteFilesPacket(os.NewFile(sandbox.FDFilesControl, "control"), stat); werr != nil {
		fmt.Fprintln(os.Stderr, "ward-launch:", werr, "while reporting:", stat.Error.Cause)
	}
	os.Exit(1)
}

func stoppedFiles() error {
	host, err := enclose()
	if err != nil {
		return err
	}
	if err := host.close(); err != nil {
		return err
	}
	plan, err := acceptCopy()
	if err != nil {
		return err
	}
	s, err := newScratch(plan)
	if err != nil {
		return err
	}
	if err := writeEtc(plan, s); err != nil {
		return fmt.Errorf("container's /etc: %w", err)
	}
	userns, err := userNamespace(plan.IDMap)
	if err != nil {
		return err
	}
	defer userns.Close()
	if err := buildRoot(plan, s, userns); err != nil {
		return err
	}
	root, err := furnishStopped(plan, s, userns)
	if err != nil {
		return err
	}
	defer root.Close()
	return moveIn(root, userns)
}

// acceptCopy is accept for a copy: the receipt is of its record.
func acceptCopy() (sandbox.Plan, error) {
	raw, err := readSealed(sandbox.FDFilesPlan, sandbox.MaxPlan)
	if err != nil {
		return sandbox.Plan{}, fmt.Errorf("plan: %w", err)
	}
	proof, err := readSealed(sandbox.FDFilesReceipt, receipt.MaxSize)
	if err != nil {
		return sandbox.Plan{}, fmt.Errorf("receipt: %w", err)
	}
	plan, err := sandbox.DecodePlan(raw)
	if err != nil {
		return sandbox.Plan{}, err
	}
	if err := sameBuild(plan.Build); err != nil {
		return sandbox.Plan{}, err
	}
	if err := sandbox.DefaultFloor().Check(plan); err != nil {
		return sandbox.Plan{}, err
	}
	return plan, provedBy(plan.Host.AuditDir, audit.ContainerCopy, plan.Run, raw, proof)
}

// furnishStopped mounts on the root at s what belongs to the container while it
// does not run: volumes, binds, images, its files in /etc. In the place of what
// is in memory, and of what the kernel has only for processes, there is an empty
// directory that cannot be written: what would be copied there would not be
// there once it runs.
func furnishStopped(p sandbox.Plan, s *scratch, userns *os.File) (*os.File, error) {
	root, err := os.OpenFile(s.path("root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	t := &tree{root: root, ids: p.IDMap, userns: userns, stopped: true}
	err = func() error {
		if err := t.fill(p); err != nil {
			return err
		}
		for _, target := range []string{"/proc", "/sys", "/dev"} {
			if err := t.tmpfs(sandbox.Mount{Target: target, Mode: 0o755, Size: int64(os.Getpagesize())}, noexec); err != nil {
				return err
			}
		}
		if err := t.common(p, s); err != nil {
			return err
		}
		if p.Root.Writable {
			return nil
		}
		// Alone: what is mounted below has its own say.
		if err := unix.MountSetattr(int(root.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
		return nil
	}()
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// moveIn executes this program anew, which takes root for its own and enters
// userns before it has threads (enter.c). It keeps the conversation with its
// caller and the container's lock, and nothing else. It returns only on failure.
func moveIn(root, userns *os.File) error {
	for _, n := range []int{sandbox.FDFilesControl, sandbox.FDFilesData, sandbox.FDFilesLock, fd(root), fd(userns)} {
		if _, err := unix.FcntlInt(uintptr(n), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keep descriptor %d: %w", n, err)
		}
	}
	runtime.LockOSThread()
	err := unix.Exec("/proc/self/exe", []string{path.Base(os.Args[0]), CommandFilesInside, strconv.Itoa(fd(root)), strconv.Itoa(fd(userns))},
		[]string{"GOMAXPROCS=1"})
	return fmt.Errorf("move into the container's root: %w", err)
}

// CommandFilesInside is how that execution is told from others; enter.c knows it
// too.
const CommandFilesInside = "files-inside"
