// Package cli runs the built programs as a user does, one script a subject.
//
// A script that shows a refusal also shows what is not there afterwards: no
// container, mount, cgroup, process or half a layer, and one more run.denied
// record that says why.
package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ward-project/ward/tests/lab"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "ward-launch" {
		interfere() // does not return
	}
	os.Exit(lab.Main(m))
}

// TestScripts runs every script of this directory against a ward of its own.
func TestScripts(t *testing.T) {
	lab.NeedsRoot(t)
	files, err := filepath.Glob("*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(file, ".txt"), func(t *testing.T) {
			t.Parallel()
			s := &script{ward: lab.New(t)}
			testscript.Run(t, testscript.Params{
				Files:               []string{file},
				RequireExplicitExec: true,
				RequireUniqueNames:  true,
				Setup:               s.setup,
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"exits":    s.exits,
					"until":    s.until,
					"refused":  s.refused,
					"recorded": s.recorded,
					"gone":     s.gone,
					"rootfs":   s.rootfs,
					"vouch":    s.vouch,
					"bundle":   s.bundle,
					"registry": s.registry,
					"tamper":   s.tamper,
					"publish":  s.publish,
					"graft":    s.graft,
					"flip":     s.flip,
					"launcher": s.launcher,
					"capture":  s.capture,
				},
			})
		})
	}
}
