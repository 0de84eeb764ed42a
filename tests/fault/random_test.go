package fault

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

// lives are whole lives of a container, as scripts.
var lives = []string{
	`ward run --rm IMAGE sh -c "echo MARK; sleep 0.05"`,
	`ward run -d --name NAME IMAGE sh -c "echo MARK; sleep 600"; ward stop -t 0 NAME; ward rm NAME`,
	`ward create --name NAME IMAGE sh -c "echo MARK; exit 3"; ward start -a NAME; ward start NAME; ward wait NAME; ward rm NAME`,
	`ward run -d --rm --name NAME IMAGE sleep 600; ward kill NAME`,
	`ward run -d --name NAME IMAGE sleep 600; ward rename NAME NAMEx; ward restart -t 0 NAMEx; ward rm -f NAMEx`,
	`ward run -d --restart on-failure:3 --name NAME IMAGE sh -c "echo MARK; exit 1"; sleep 0.2; ward rm -f NAME`,
	`ward volume create NAME; ward run --rm -v NAME:/v IMAGE touch /v/x; ward volume rm NAME`,
	`ward run --rm -v /anonymous IMAGE touch /anonymous/x`,
	`ward run -d --name NAME IMAGE sleep 600; ward exec NAME sh -c "echo MARK; sleep 0.02" && ack exec.exit; ward exec -d NAME sleep 600 && ack exec.start; ward rm -f NAME`,
	`ward run -d --name NAME IMAGE sleep 600; script -qec "ward exec -it NAME sh -c 'echo MARK; sleep 0.05'" /dev/null </dev/null; ward rm -f NAME`,
	`ward run -d --name NAME --tmpfs /w IMAGE sleep 600; ward cp rootfs.tar NAME:/w && ack container.copy; ward cp NAME:/w/rootfs.tar NAME.tar && ack container.copy; ward rm -f NAME; rm -f NAME.tar`,
	`ward run -d --name NAME --memory 64m IMAGE sleep 600; ward update --memory 48m --memory-swap 48m NAME && ack container.updated; ward pause NAME; ward unpause NAME; ward rm -f NAME`,

	// Of callers of ward-oci; the shell is one.
	`ward-oci create -b SLEEP ID </dev/null >ID.out 2>&1 && ack oci.intent; ward-oci start ID && ack run.start; ward-oci exec ID sh -c "echo MARK"; ward-oci kill ID KILL; ward-oci delete --force ID`,
	`ward-oci run -b ECHO ID </dev/null >ID.out 2>&1 && ack run.start`,
	`ward-oci run -d -b SLEEP ID </dev/null >ID.out 2>&1 && ack run.start; ward-oci exec -d ID sleep 600 </dev/null >ID.out 2>&1 && ack exec.start; ward-oci pause ID; ward-oci resume ID; ward-oci delete --force ID`,
	`ward-oci create -b SLEEP ID </dev/null >ID.out 2>&1 && ack oci.intent; ward-oci delete ID; ward-oci run -d -b SLEEP ID </dev/null >ID.out 2>&1; ward-oci pause ID; ward-oci delete --force ID`,
}

// preamble is what each script begins with. What a life has been told that it
// is done it notes, with the type of the record that then has to be there.
const preamble = `ack() { echo "$1" >>acknowledged; }; `

// shell is a life of the container of that name. It does not end in a
// command of ward's, which the shell would execute in its own place.
func shell(w *lab.Ward, life, name string, flags ...string) *exec.Cmd {
	text := strings.NewReplacer("IMAGE", image, "NAME", name, "MARK", marker, "ID", filepath.Base(w.Dir)+"-"+name,
		"SLEEP", filepath.Join(w.Dir, "sleep"), "ECHO", filepath.Join(w.Dir, "echo")).Replace(preamble+life) + "; true"
	cmd := exec.Command("sh", append(flags, "-c", text)...)
	cmd.Env, cmd.Dir, cmd.WaitDelay = w.Env, w.Dir, 5*time.Second
	return cmd
}

// TestRandomKills kills a random process, of whichever life is under way, at a
// random moment, five hundred times (or WARD_KILLS). Nothing that is left may need hands: the
// next command works, every container that is left can be removed, and every
// run has exactly one end.
func TestRandomKills(t *testing.T) {
	lab.NeedsRoot(t)
	t.Parallel()
	rounds, wards := 500, 4
	if testing.Short() {
		rounds = 8
	}
	if s := os.Getenv("WARD_KILLS"); s != "" {
		rounds, _ = strconv.Atoi(s)
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("WARD_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	for i := range wards {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			w := newWard(t)
			callers(t, w)
			for round := range rounds / wards {
				life := lives[rng.IntN(len(lives))]
				victim := kill(t, w, rng, life, fmt.Sprint("c", round))
				restored(t, w)
				acknowledged(t, w)
				if t.Failed() {
					t.Fatalf("WARD_SEED=%d, ward %d, round %d: after killing %s in %s", seed, i, round, victim, life)
				}
			}
			clean(t, w)
		})
	}
}

// kill runs a life and kills one of its processes, or the shell that runs it.
func kill(t *testing.T, w *lab.Ward, rng *rand.Rand, life, name string) string {
	t.Helper()
	cmd := shell(w, life, name)
	// Its own group, so that a script that goes on after the kill can be ended.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Duration(rng.IntN(400_000)) * time.Microsecond)
	victims := w.Processes()
	slices.Sort(victims)
	victims = append(victims, strconv.Itoa(cmd.Process.Pid)+" the script")
	victim := victims[rng.IntN(len(victims))]
	pid, err := strconv.Atoi(strings.Fields(victim)[0])
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
	// Half of the scripts go on, as a user would; the others are given up too.
	if rng.IntN(2) == 0 {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	_ = cmd.Wait()
	return victim
}

// restored does what a user would do next, and checks that this is enough.
func restored(t *testing.T, w *lab.Ward) {
	t.Helper()
	// A start whose command was killed may still be on its way.
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		// In this order: a command that ends between the two has made its container.
		quiet := len(w.Processes()) == 0
		ids := strings.Fields(w.Must("ps", "-aq", "--no-trunc"))
		if deleteOCI(t, w) == 0 && len(ids) == 0 && quiet {
			break
		}
		if len(ids) == 0 {
			continue
		}
		if r := w.Do(append([]string{"rm", "-f", "-v"}, ids...)...); r.Code != 0 && !strings.Contains(r.Stderr, "No such container") {
			t.Errorf("rm -f: exit %d\n%s", r.Code, r.Stderr)
		}
	}
	if r := w.Do("volume", "prune", "-a", "-f"); r.Code != 0 {
		t.Errorf("volume prune: exit %d\n%s", r.Code, r.Stderr)
	}
	deleted(t, w)
	settled(t, w, "")
	changesEnded(t, w)
}

// TestCrowd starts and removes two hundred containers from sixteen processes
// at once: nothing is left, and no two that lived at the same time had the
// same range of ids.
func TestCrowd(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	callers(t, w)
	w.Patience = 5 * time.Minute
	containers, workers := 200, 16
	if testing.Short() {
		containers = 32
	}
	jobs := make(chan int)
	results := make(chan string)
	for range workers {
		go func() {
			for i := range jobs {
				name := fmt.Sprint("crowd", i)
				life := lives[i%len(lives)]
				cmd := shell(w, strings.ReplaceAll(life, "ward start -a NAME", "(ward start -a NAME || true)"), name, "-e")
				out, err := cmd.CombinedOutput()
				if err != nil {
					results <- fmt.Sprintf("%s: %v\n%s", life, err, out)
				} else {
					results <- ""
				}
			}
		}()
	}
	go func() {
		for i := range containers {
			jobs <- i
		}
		close(jobs)
	}()
	for range containers {
		if r := <-results; r != "" {
			t.Error(r)
		}
	}
	restored(t, w)
	acknowledged(t, w)
	ownRanges(t, w)
	clean(t, w)
}

// ownRanges follows the record: who has which range of ids, and until when.
func ownRanges(t *testing.T, w *lab.Ward) {
	t.Helper()
	owner, most := map[uint32]string{}, 0
	for _, e := range w.Records() {
		var d struct {
			Container string
			Base      uint32 `json:"id_base"`
		}
		if err := json.Unmarshal(e.Data, &d); err != nil && len(e.Data) > 0 {
			t.Fatal(err)
		}
		switch e.Type {
		case audit.RunIntent:
			if o := owner[d.Base]; d.Base == 0 || o != "" && o != d.Container {
				t.Errorf("container %.12s has the range %d of %.12s", d.Container, d.Base, o)
			}
			owner[d.Base] = d.Container
			most = max(most, len(owner))
		case audit.RunExit, audit.RunLost, audit.ContainerRemove:
			for base, o := range owner {
				// An end frees the range of a container that goes with it; one
				// that stays has it still, and a later start will say so.
				if o == e.Run {
					delete(owner, base)
				}
			}
		}
	}
	if most < 2 {
		t.Error("no two containers lived at the same time: nothing was tested")
	}
}
