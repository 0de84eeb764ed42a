package launcher

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// TestOCIExecIsForOneRun: a container of the same name that was made since has
// another image, perhaps, and nobody has judged a process in it.
func TestOCIExecIsForOneRun(t *testing.T) {
	plan := sandbox.OCIPlan{Run: strings.Repeat("a", 64), StateDir: filepath.Join(t.TempDir())}
	if err := ociSameRun(plan.StateDir, plan.Run); err == nil {
		t.Error("a container that no monitor watches was entered")
	}
	for run, rule := range map[string]string{strings.Repeat("b", 64): "oci.run", "": "oci.run", plan.Run: ""} {
		if err := sandbox.WriteStatus(plan.StateDir, sandbox.Status{Phase: sandbox.PhaseCreated, PID: 1, MonitorPID: 1, Run: run}); err != nil {
			t.Fatal(err)
		}
		if err := ociSameRun(plan.StateDir, plan.Run); (err == nil) != (rule == "") || err != nil && fault.As(err).Rule != rule {
			t.Errorf("run %q: %v", run, err)
		}
	}
}
