package launcher

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// Launch is the main function of ward-launch as it is started by ward. It does
// not return: it becomes the monitor, or reports why nothing runs and exits.
// Whatever it had started by then dies with it.
func Launch() {
	// This image lives for some ten milliseconds and then is executed over:
	// collecting its garbage would be work for nothing.
	debug.SetGCPercent(-1)
	giveUp(launch())
}

// giveUp tells the caller why nothing runs, and ends.
func giveUp(err error) {
	m := sandbox.Message{Kind: sandbox.MessageError, Error: fault.As(err), Code: startCode(err)}
	if err := sandbox.Send(sandbox.FDControl, m); err != nil {
		fmt.Fprintln(os.Stderr, "ward-launch:", err, "while reporting:", m.Error.Cause)
	}
	os.Exit(1)
}

// launch is the whole of a start, top to bottom. Each step's place matters:
// nothing is read before the mounts are private, nothing is made before plan
// and receipt are accepted, and all privilege is gone before the payload runs.
func launch() error {
	host, err := enclose()
	if err != nil {
		return err
	}
	if err := fairShare(); err != nil {
		return err
	}
	plan, err := accept()
	if err != nil {
		return err
	}
	if err := sandbox.Send(sandbox.FDControl, sandbox.Message{Kind: sandbox.MessageReady}); err != nil {
		return fmt.Errorf("caller: %w", err)
	}
	s, err := newScratch(plan)
	if err != nil {
		return err
	}
	if err := writeEtc(plan, s); err != nil {
		return fmt.Errorf("container's /etc: %w", err)
	}
	if err := rootTree(plan, s); err != nil {
		return err
	}
	pipes, err := newPipes(plan)
	if err != nil {
		return err
	}
	box, err := prepare(plan, s, pipes)
	if err != nil {
		return err
	}
	// From here on the container exists, stopped before its payload.
	if err := checkLimits(box.cgroups, plan.Limits); err != nil {
		return errors.Join(err, box.destroy())
	}
	h, err := handOver(plan, s, pipes, box, host)
	if err != nil {
		return errors.Join(err, box.destroy())
	}
	// Returns only on failure.
	return errors.Join(h.become(), box.destroy())
}
