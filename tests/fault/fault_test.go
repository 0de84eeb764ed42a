// Package fault kills ward and its parts at every step and looks at what is
// left: no payload without a durable record, no container without its monitor,
// no run without exactly one end, and nothing that needs hands to clean up.
package fault

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

// Most of a test's time here is waiting: for a moment to kill at, for the
// kernel to be done with what was killed. So more of them run at a time than
// there are processors.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("6")
	}
	os.Exit(lab.Collect(m))
}

const image = "fault.example/busybox:1"

// marker is what a payload that ran has written.
const marker = "the-payload-ran"

func newWard(t *testing.T) *lab.Ward {
	t.Helper()
	w := lab.New(t)
	w.Busybox(image)
	w.Vouch(image)
	w.Must("run", "--rm", image, "true") // unpacks the layer: not what is killed here
	return w
}

// ends are the record types that end a run; each run has exactly one.
var ends = map[audit.Type]bool{audit.RunExit: true, audit.RunLost: true, audit.RunDenied: true}

// settled checks everything that has to hold after a crash, once the next
// command has run.
func settled(t *testing.T, w *lab.Ward, output string) {
	t.Helper()
	// The monitor may have survived, and may be ending a container.
	for deadline := time.Now().Add(10 * time.Second); len(w.Processes()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("still there: %v", w.Processes())
			break
		}
	}
	intents, outcome, execs := map[string]bool{}, map[string][]audit.Type{}, map[string][]audit.Type{}
	if r := w.Do("ps", "-a"); r.Code != 0 {
		t.Errorf("the next command does not work: exit %d\n%s", r.Code, r.Stderr)
	}
	for _, e := range w.Records() {
		var d struct{ Exec string }
		_ = json.Unmarshal(e.Data, &d)
		if e.Type == audit.RunIntent || e.Type == audit.OCIIntent && d.Exec == "" {
			intents[e.Run] = true
		}
		if e.Type == audit.ExecExit || e.Type == audit.ExecDenied {
			execs[d.Exec] = append(execs[d.Exec], e.Type)
		}
		if ends[e.Type] {
			outcome[e.Run] = append(outcome[e.Run], e.Type)
		}
	}
	if strings.Contains(output, marker) && len(intents) < 2 { // the first is newWard's
		t.Error("a payload ran without an intent on record")
	}
	for run := range intents {
		if len(outcome[run]) != 1 {
			t.Errorf("run %.12s has these ends, not one: %v", run, outcome[run])
		}
	}
	// One that was killed on its way in has none: the end of its run is its end.
	for exec, ends := range execs {
		if len(ends) > 1 {
			t.Errorf("process %.12s has more ends than one: %v", exec, ends)
		}
	}
	if r := w.Do("audit", "verify"); r.Code != 0 {
		t.Errorf("the log does not verify: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	// What was on its way in or out when its maker was killed is not a
	// container any more, and goes with the next run: see clean.
	for _, c := range w.Containers() {
		if filepath.Ext(c) == "" {
			t.Errorf("a container is left though it had --rm: %v", c)
		}
	}
	if m, _ := filepath.Glob(filepath.Join(w.Root, "run/c/*")); len(m) != 0 {
		t.Errorf("runtime directories left: %v", m)
	}
	w.Gone(t)
}

// clean checks that a run which goes well leaves nothing at all, neither its
// own nor of those that were killed before.
func clean(t *testing.T, w *lab.Ward) {
	t.Helper()
	w.Must("run", "--rm", image, "true")
	w.Must("ps", "-a")
	if c := w.Containers(); len(c) != 0 {
		t.Errorf("left of killed runs: %v", c)
	}
	w.Gone(t)
}

// straced runs a ward command under strace -f; the trace is returned with
// standard output.
func straced(t *testing.T, w *lab.Ward, strace []string, args ...string) (trace, stdout string) {
	t.Helper()
	return stracedProgram(t, w, strace, "ward", args...)
}

// stracedProgram is straced for another of ward's programs.
func stracedProgram(t *testing.T, w *lab.Ward, strace []string, program string, args ...string) (trace, stdout string) {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("strace is missing: make deps-test")
	}
	file := filepath.Join(w.Dir, "trace")
	cmd := w.Command(args...)
	cmd.Args[0] = filepath.Join(lab.Bin(), program)
	cmd.Args = append(append([]string{"strace", "-f", "-y", "-qq", "-s", "256", "-e", "signal=none", "-o", file}, strace...), cmd.Args...)
	cmd.Path = path
	r := w.Finish(cmd)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.ToValidUTF8(b, nil)), r.Stdout
}
