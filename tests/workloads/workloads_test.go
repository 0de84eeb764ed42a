package workloads

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// patience is for one command: a busy machine with two processors compiles
// slowly. The smoke tests give up sooner wherever they wait for something.
const patience = 4 * time.Minute

// TestWorkloads runs every row of the table, and again without each flag.
func TestWorkloads(t *testing.T) {
	lab.NeedsRoot(t)
	if testing.Short() {
		t.Skip("starts databases and compilers: not with -short")
	}
	w := lab.New(t)
	w.Patience = patience
	w.Busybox("work/busybox:1", smokeFiles(t)...)
	w.Vouch("work/busybox:1")
	importDebian(t, w)
	w.Vouch("work/debian:1")
	t.Run("run", func(t *testing.T) {
		for _, wl := range workloads {
			t.Run(wl.name, func(t *testing.T) {
				t.Parallel()
				wl.run(t, w)
			})
		}
	})
	t.Run("needs", func(t *testing.T) {
		for _, wl := range workloads {
			for i, o := range wl.flags {
				t.Run(wl.name+" "+o.flag, func(t *testing.T) {
					t.Parallel()
					wl.needs(t, w, i)
				})
			}
		}
	})
	w.Gone(t)
}

// importDebian hands the archive over in a pipe: a second copy on disk would
// cost more time than the import.
func importDebian(t *testing.T, w *lab.Ward) {
	t.Helper()
	rootfs := debian(t)
	start := time.Now()
	cmd := w.Command("import", "-", "work/debian:1")
	r, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = r
	files := smokeFiles(t)
	sent := make(chan error, 1)
	go func() {
		err := withSmoke(rootfs, pipe, files)
		sent <- errors.Join(err, pipe.Close())
	}()
	res := w.Finish(cmd)
	r.Close() // a writer that is still at it gets EPIPE
	if err := <-sent; err != nil || res.Code != 0 {
		t.Fatalf("import: exit %d, archive: %v\n%s", res.Code, err, res.Stderr)
	}
	t.Logf("imported the image in %.1f s", time.Since(start).Seconds())
}

// commandLine is the workload's command line with these flags.
func (wl workload) commandLine(flags ...string) []string {
	args := []string{"run", "--rm"}
	for _, f := range flags {
		args = append(args, strings.Fields(f)...)
	}
	args = append(append(args, "work/"+wl.image+":1"), wl.command...)
	return append(args, filepath.Join("/", smokeDir, wl.smoke))
}

func (wl workload) run(t *testing.T, w *lab.Ward) {
	start := time.Now()
	flags := []string{"--name " + wl.name}
	for _, o := range wl.flags {
		flags = append(flags, o.flag)
	}
	r := w.Do(wl.commandLine(flags...)...)
	if r.Code != 0 || !strings.HasSuffix(r.Stdout, "smoke-ok\n") {
		t.Errorf("exit %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
	}
	t.Logf("%.1f s", time.Since(start).Seconds())
	wl.refusals(t, w)
}

// needs runs it without one of its flags.
func (wl workload) needs(t *testing.T, w *lab.Ward, without int) {
	var flags []string
	for i, o := range wl.flags {
		if i == without {
			o.flag = o.less
		}
		flags = append(flags, o.flag)
	}
	r := w.Do(wl.commandLine(flags...)...)
	if r.Code == 0 || r.Code == 125 || strings.Contains(r.Stdout, "smoke-ok") {
		t.Errorf("exit %d without it, want a failure of the smoke test\n%s", r.Code, r.Stderr)
	}
	t.Logf("exit %d: %.300s", r.Code, r.Stderr)
}

// refusals compares what the record says the filter refused with the table.
func (wl workload) refusals(t *testing.T, w *lab.Ward) {
	t.Helper()
	denied := map[string]uint64{}
	run := ""
	for _, e := range w.Records() {
		switch e.Type {
		case audit.RunIntent:
			var intent audit.Intent
			if decode(t, e, &intent); intent.Name == wl.name {
				run = e.Run
			}
		case audit.RunDeniedSyscalls:
			var calls audit.DeniedSyscalls
			if decode(t, e, &calls); e.Run == run {
				for _, c := range calls.Syscalls {
					denied[c.Name] = c.Count
				}
			}
		}
	}
	if run == "" {
		t.Error("the run is not on record")
	}
	for _, r := range wl.refused {
		if denied[r.call] == 0 {
			t.Errorf("%s was not refused, and the table says it is", r.call)
		}
		t.Logf("%s was refused %d times: %s", r.call, denied[r.call], r.why)
		delete(denied, r.call)
	}
	for call, n := range denied {
		t.Errorf("%s was refused %d times, and nobody says why that is right", call, n)
	}
}

func decode(t *testing.T, e audit.Entry, into any) {
	t.Helper()
	var rec struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(e.Leaf, &rec); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(rec.Data, into); err != nil {
		t.Fatal(err)
	}
}
