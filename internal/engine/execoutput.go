package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// ExecResult is how a process in a container ended, and what it wrote.
type ExecResult struct {
	Exit sandbox.Exit
	// Output is the beginning of both its streams, as they came.
	Output []byte
}

// ExecOutput is Exec for whoever wants the result: it waits for the process to
// end and returns the first limit bytes of what it wrote. When ctx ends first
// the process is killed, and the error matches ctx's; ExecResult then has what
// it had written. A command that cannot be executed is a *sandbox.StartError.
func (e *Engine) ExecOutput(ctx context.Context, req ExecRequest, limit int64) (ExecResult, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return ExecResult{}, err
	}
	defer r.Close()
	req.Stdin, req.Terminal = false, nil
	started, err := e.Exec(ctx, req, Stdio{Out: w, Err: w})
	err = errors.Join(err, w.Close())
	if err != nil {
		return ExecResult{}, err
	}
	read := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(r, limit))
		read <- b
		io.Copy(io.Discard, r) // the rest must not stop the process
	}()
	exit, err := started.Process.Wait(ctx)
	if err != nil && ctx.Err() != nil {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		kerr := e.SignalExec(late, started.Container, started.ID, syscall.SIGKILL)
		if _, werr := started.Process.Wait(late); werr != nil {
			kerr = errors.Join(kerr, werr)
		}
		err = fmt.Errorf("exec: %w", errors.Join(ctx.Err(), kerr))
	}
	return ExecResult{Exit: exit, Output: <-read}, err
}

// SignalExec sends sig to a process that was started in a container.
func (e *Engine) SignalExec(ctx context.Context, c Container, exec string, sig syscall.Signal) error {
	err := e.withMonitor(c, func(m *sandbox.Monitor) error { return m.SignalExec(ctx, exec, sig) })
	if errors.Is(err, fault.NotFound) {
		return nil // it was faster
	}
	return err
}

// ResizeExec gives the terminal of such a process another size.
func (e *Engine) ResizeExec(ctx context.Context, c Container, exec string, size sandbox.Terminal) error {
	return e.withMonitor(c, func(m *sandbox.Monitor) error { return m.Resize(ctx, exec, size) })
}

// Execs are the ids of the processes that were started in a container and
// still run; none if it does not.
func (e *Engine) Execs(ctx context.Context, c Container) ([]string, error) {
	var ids []string
	err := e.report(c, func(m *sandbox.Monitor) (err error) {
		ids, err = m.Execs(ctx)
		return err
	})
	return ids, err
}
