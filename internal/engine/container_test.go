package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
)

func newEngine(t *testing.T) (*Engine, *rig) {
	t.Helper()
	r := newRig(t)
	e, err := New(r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e, r
}

func reserveOne(t *testing.T, e *Engine, name string) *slot {
	t.Helper()
	s, err := e.reserve(t.Context(), Container{ID: newID(), Name: name, Created: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRangesOfIdsAreNeverShared(t *testing.T) {
	e, _ := newEngine(t)
	const n = 40
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := map[uint32]bool{}
	for range n {
		wg.Go(func() {
			id := newID()
			s, err := e.reserve(t.Context(), Container{ID: id, Name: randomName(id), Created: time.Now()})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if b := s.container.IDBase; seen[b] || b < idBase || b%sandbox.IDRange != 0 {
				t.Errorf("range %d given twice, or out of bounds", b)
			}
			seen[s.container.IDBase] = true
		})
	}
	wg.Wait()
	if len(seen) != n {
		t.Fatalf("%d ranges for %d containers", len(seen), n)
	}
}

func TestANameIsTakenOnce(t *testing.T) {
	e, _ := newEngine(t)
	s := reserveOne(t, e, "web")
	_, err := e.reserve(t.Context(), Container{ID: newID(), Name: "web", Created: time.Now()})
	if !errors.Is(err, fault.Invalid) || !strings.Contains(fault.As(err).Remedy, "ward rm web") {
		t.Fatalf("%v", err)
	}
	if err := s.abandon(); err != nil {
		t.Fatal(err)
	}
	reserveOne(t, e, "web")
}

func TestACrashBetweenReserveAndIntentLeavesARecordAndNothingElse(t *testing.T) {
	e, r := newEngine(t)
	s := reserveOne(t, e, "gone")
	if err := e.Reap(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c, err := e.load(s.container.ID); err != nil || c.Status.Phase != "" {
		t.Fatalf("a container somebody holds was reaped: %+v %v", c.Status, err)
	}
	if err := s.lock.Unlock(); err != nil { // what the kernel does for a dead gate
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing left to do
		if err := e.Reap(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c, err := e.Find(t.Context(), "gone")
	if err != nil || c.Status.Phase != sandbox.PhaseExited || c.Status.Exit.Code != lostCode {
		t.Fatalf("%+v %v", c.Status, err)
	}
	lost := 0
	if err := audit.Read(r.cfg.Layout.Audit(), 0, func(en audit.Entry) error {
		if en.Type == audit.RunLost && en.Run == c.ID {
			lost++
		}
		return nil
	}); err != nil || lost != 1 {
		t.Fatalf("%d run.lost, %v", lost, err)
	}
	if err := e.Remove(t.Context(), audit.Actor{}, c, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Find(t.Context(), "gone"); !errors.Is(err, fault.NotFound) {
		t.Fatalf("%v", err)
	}
}

func TestARunHasOneOutcomeAlsoWhenTheMonitorDiesAfterRecordingIt(t *testing.T) {
	e, r := newEngine(t)
	s := reserveOne(t, e, "late")
	run := s.container.ID
	if err := sandbox.WriteStatus(s.dir, sandbox.Status{Phase: sandbox.PhaseRunning}); err != nil {
		t.Fatal(err)
	}
	if err := r.log.Append(t.Context(), audit.Record{Type: audit.RunExit, Run: run, Data: audit.Exit{Code: 7}}); err != nil {
		t.Fatal(err)
	}
	if err := s.lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	c, err := e.Find(t.Context(), "late")
	if err != nil || c.Status.Phase != sandbox.PhaseExited || c.Status.Exit.Code != 7 {
		t.Fatalf("%+v %v", c.Status, err)
	}
	outcomes := 0
	if err := audit.Read(r.cfg.Layout.Audit(), 0, func(en audit.Entry) error {
		if en.Run == run {
			outcomes++
		}
		return nil
	}); err != nil || outcomes != 1 {
		t.Fatalf("%d outcomes, %v", outcomes, err)
	}
}

func TestASpoiledStatusIsALostRunAndNothingMore(t *testing.T) {
	e, _ := newEngine(t)
	for name, content := range map[string]string{"empty": "", "half": `{"phase":"runn`} {
		s := reserveOne(t, e, name)
		if err := os.WriteFile(filepath.Join(s.dir, "status.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := e.Find(t.Context(), name); err != nil || c.Status.Phase != "" {
			t.Fatalf("%s, held: %+v %v", name, c.Status, err)
		}
		if err := s.lock.Unlock(); err != nil {
			t.Fatal(err)
		}
		if c, err := e.Find(t.Context(), name); err != nil || c.Status.Phase != sandbox.PhaseExited {
			t.Fatalf("%s: %+v %v", name, c.Status, err)
		}
	}
}

func TestASpoiledRecordStopsNobody(t *testing.T) {
	e, r := newEngine(t)
	good, s := reserveOne(t, e, "good"), reserveOne(t, e, "spoiled")
	for name, content := range map[string]string{"empty": "", "half": `{"id":"`} {
		if err := os.WriteFile(filepath.Join(s.dir, recordFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := e.Reap(t.Context()); err != nil {
			t.Fatalf("%s, held: %v", name, err)
		}
	}
	if _, err := e.reserve(t.Context(), Container{ID: newID(), Name: "new", Created: time.Now()}); err == nil {
		t.Fatal("a range of ids was given without knowing all that are taken")
	}
	if err := s.lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	cs, err := e.List(t.Context())
	if err != nil || len(cs) != 1 || cs[0].ID != good.container.ID {
		t.Fatalf("%v %v", cs, err)
	}
	lost := false
	if err := audit.Read(r.cfg.Layout.Audit(), 0, func(en audit.Entry) error {
		lost = lost || en.Type == audit.RunLost && en.Run == s.container.ID
		return nil
	}); err != nil || !lost {
		t.Fatalf("its end is not on record (%v)", err)
	}
}

func TestHalfMadeAndHalfRemovedDirectoriesGo(t *testing.T) {
	e, r := newEngine(t)
	for _, suffix := range []string{newSuffix, goneSuffix} {
		dir := r.cfg.Layout.container(newID() + suffix)
		if err := os.MkdirAll(filepath.Join(dir, "upper"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if cs, err := e.List(t.Context()); err != nil || len(cs) != 0 {
		t.Fatalf("%v %v", cs, err)
	}
	s := reserveOne(t, e, "x")
	left, err := os.ReadDir(r.cfg.Layout.containers())
	if err != nil || len(left) != 1 || left[0].Name() != s.container.ID {
		t.Fatalf("%v %v", left, err)
	}
}

func TestContainersToBeRemovedAreSweptByTheNextCommand(t *testing.T) {
	e, _ := newEngine(t)
	id := newID()
	s, err := e.reserve(t.Context(), Container{ID: id, Name: "brief", Created: time.Now(), Remove: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := sandbox.WriteStatus(s.dir, sandbox.Status{Phase: sandbox.PhaseExited, Exit: &sandbox.Exit{}}); err != nil {
		t.Fatal(err)
	}
	if cs, err := e.List(t.Context()); err != nil || len(cs) != 1 {
		t.Fatalf("removed under its monitor's hands: %v %v", cs, err)
	}
	if err := s.lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if cs, err := e.List(t.Context()); err != nil || len(cs) != 0 {
		t.Fatalf("%v %v", cs, err)
	}
}

func TestNames(t *testing.T) {
	for _, bad := range []string{"", "-a", "a b", "a/b", "..", ".a", "a\n", strings.Repeat("a", 129), "ä"} {
		if checkName(bad) == nil {
			t.Errorf("%q is no name", bad)
		}
	}
	for range 200 {
		if id := newID(); len(id) != 64 || checkName(randomName(id)) != nil {
			t.Fatalf("%s %s", id, randomName(id))
		}
	}
}

func TestCommand(t *testing.T) {
	img := images.Image{Config: images.RunConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"a", "b"}}}
	for want, req := range map[string]Request{
		"/entry a b": {},
		"/entry x":   {Args: []string{"x"}},
		"/other":     {Entrypoint: []string{"/other"}},
		"/other x":   {Entrypoint: []string{"/other"}, Args: []string{"x"}},
		"x":          {Entrypoint: []string{}, Args: []string{"x"}},
	} {
		if got, err := command(req, img); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%v %v, want %s", got, err, want)
		}
	}
	if _, err := command(Request{Entrypoint: []string{}}, img); err == nil {
		t.Error("no command was accepted")
	}
}

func TestObligationsOnlyTighten(t *testing.T) {
	p := sandbox.Plan{Limits: sandbox.Limits{Memory: 100, PIDs: 10, CPUQuota: 1000, CPUPeriod: 1000}}
	p.Process.Capabilities = []string{"CAP_CHOWN", "CAP_KILL"}
	for _, o := range []policy.Obligations{
		{}, {MaxMemory: 1 << 40, MaxPIDs: 1 << 30, MaxCPUs: 1e9, DropCapabilities: []string{"CAP_SYS_ADMIN"}},
		{MaxMemory: 50, MaxPIDs: 5, MaxCPUs: 0.5, ReadOnlyRoot: true, DropCapabilities: []string{"CAP_KILL"}},
	} {
		q, err := tighten(p, o)
		if err != nil {
			t.Fatal(err)
		}
		if q.Limits.Memory > p.Limits.Memory || q.Limits.PIDs > p.Limits.PIDs || q.Limits.CPUQuota > p.Limits.CPUQuota ||
			len(q.Process.Capabilities) > len(p.Process.Capabilities) || q.Root.Writable {
			t.Errorf("%+v loosened: %+v", o, q)
		}
	}
	if q, err := tighten(p, policy.Obligations{MaxMemory: 50, DropCapabilities: []string{"CAP_KILL"}}); err != nil || q.Limits.Memory != 50 || len(q.Process.Capabilities) != 1 {
		t.Errorf("not tightened: %+v", q)
	}
	if len(p.Process.Capabilities) != 2 {
		t.Error("the draft itself was changed")
	}
}

func TestDefaultLimitsFitTheHost(t *testing.T) {
	for _, c := range []struct {
		req  Request
		host int
		want int64
	}{{Request{}, 1, 100_000}, {Request{}, 2, 200_000}, {Request{}, 64, 200_000}, {Request{Resources: Resources{CPUs: 3}}, 1, 300_000}, {Request{Resources: Resources{CPUs: 1e300}}, 4, -1}} {
		if l, err := limits(c.req, c.host); err != nil || l.CPUQuota != c.want || l.Memory <= 0 || l.PIDs <= 0 {
			t.Errorf("%v processors of %d: %+v", c.req.CPUs, c.host, l)
		}
	}
}

func TestCapabilities(t *testing.T) {
	got, err := capabilities([]string{"net_bind_service", "CAP_CHOWN", "KILL"}, []string{"KILL"})
	if err != nil || strings.Join(got, " ") != "CAP_CHOWN CAP_NET_BIND_SERVICE" {
		t.Fatalf("%v %v", got, err)
	}
	if got, err := capabilities(nil, []string{"ALL"}); err != nil || len(got) != 0 {
		t.Fatalf("%v %v", got, err)
	}
	if _, err := capabilities([]string{"SYS_ADMIM"}, nil); !errors.Is(err, fault.Invalid) {
		t.Fatalf("a capability that does not exist: %v", err)
	}
}

func TestALayerThatComesTwiceIsNamedOnce(t *testing.T) {
	img := images.Image{Layers: []images.Layer{{DiffID: "a"}, {DiffID: "b"}, {DiffID: "a"}}}
	got, err := layers(img, []string{"/b", "/a"})
	if err != nil || len(got) != 2 || got[0] != (sandbox.Layer{DiffID: "b", Path: "/b"}) || got[1] != (sandbox.Layer{DiffID: "a", Path: "/a"}) {
		t.Fatalf("%+v %v", got, err)
	}
	for _, wrong := range [][]string{nil, {"/b"}, {"/b", "/a", "/c"}} {
		if _, err := layers(img, wrong); err == nil {
			t.Errorf("%v was taken for the layers", wrong)
		}
	}
}

func TestEnvironment(t *testing.T) {
	img := images.Image{Config: images.RunConfig{Env: []string{"A=image", "B=image"}}}
	got := strings.Join(environment(Request{Env: []string{"A=mine", "C=", "HOME=/h"}}, img, "host", "/root"), " ")
	if want := "A=mine B=image C= HOME=/h " + defaultPath + " HOSTNAME=host"; got != want {
		t.Fatalf("%s\nwant %s", got, want)
	}
}
