package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/verify"
)

// The parts below read their files when they are asked, not before: a trust
// policy that does not parse must refuse the run, on record, and not merely
// break the command that would have recorded it. Reading anew for every
// question also means that a key withdrawn a moment ago is withdrawn; what they
// keep between questions is what came of the same bytes.

// TrustDir is a Verifier over the trust policies in dir.
func TrustDir(dir string) Verifier { return verify.NewDirectory(dir).WithRego(policy.Inline{}) }

// PolicyDir is a Decider over the shipped policies and those in dir.
func PolicyDir(dir string) Decider { return policy.NewDirectory(policy.Config{Dir: dir}) }

// LauncherPath finds ward-launch beside this program or in libexec, never
// through PATH: whoever sets PATH must not choose what runs as root.
func LauncherPath() (string, error) {
	exe, err := os.Executable()
	if err == nil {
		exe, err = filepath.EvalSymlinks(exe)
	}
	if err != nil {
		return "", fault.Wrap(fault.Unavailable, "launcher.missing", err, "")
	}
	dir := filepath.Dir(exe)
	beside := filepath.Join(dir, "ward-launch")
	libexec := filepath.Join(filepath.Dir(dir), "libexec", "ward", "ward-launch")
	if _, err := os.Stat(beside); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(libexec); err == nil {
			return libexec, nil
		}
	}
	return beside, nil
}

type launcherAt string

// LauncherAt is a Launcher that starts the program at path.
func LauncherAt(path string) Launcher { return launcherAt(path) }

func (p launcherAt) Launch(ctx context.Context, plan []byte, r receipt.Receipt, io sandbox.Stdio, lock *os.File) (*sandbox.Running, error) {
	l, err := p.open()
	if err != nil {
		return nil, err
	}
	return l.Launch(ctx, plan, r, io, lock)
}

func (p launcherAt) Exec(ctx context.Context, plan, container []byte, r receipt.Receipt, io sandbox.Stdio) (*sandbox.Running, error) {
	l, err := p.open()
	if err != nil {
		return nil, err
	}
	return l.Exec(ctx, plan, container, r, io)
}

func (p launcherAt) Files(ctx context.Context, runtimeDir string, req sandbox.FilesRequest) (*sandbox.Files, error) {
	l, err := p.open()
	if err != nil {
		return nil, err
	}
	return l.Files(ctx, runtimeDir, req)
}

func (p launcherAt) open() (*sandbox.Launcher, error) {
	if os.Geteuid() != 0 {
		return nil, fault.New(fault.Unavailable, "launcher.rootless", "running containers as an ordinary user is not there yet",
			"run it as root; everything but running works as any user")
	}
	return sandbox.NewLauncher(string(p))
}

func (p launcherAt) StoppedFiles(ctx context.Context, plan []byte, r receipt.Receipt, lock *os.File, req sandbox.FilesRequest) (*sandbox.Files, error) {
	l, err := p.open()
	if err != nil {
		return nil, err
	}
	return l.StoppedFiles(ctx, plan, r, lock, req)
}
