package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

func TestIntendIsProvedByItsPermit(t *testing.T) {
	l, dir := newLog(t)
	for i := range 40 {
		p := intend(t, l, fmt.Sprint("run", i))
		s, err := p.Receipt().Verify(l.VKey())
		if err != nil {
			t.Fatal(err)
		}
		if s.Origin != l.Origin() || s.Index != int64(i)+1 || s.TreeSize != int64(i)+2 ||
			s.Type != string(RunIntent) || s.Run != fmt.Sprint("run", i) || s.Plan != testPlan() {
			t.Fatalf("%+v", s)
		}
	}
	if r := verified(t, dir, l.VKey()); r.Size != 41 || r.Level != LevelLocalKey || r.Origin != l.Origin() {
		t.Fatalf("%+v", r)
	}
}

func TestZeroPermitProvesNothing(t *testing.T) {
	l, _ := newLog(t)
	if _, err := (Permit{}).Receipt().Verify(l.VKey()); err == nil {
		t.Fatal("a zero Permit gave a receipt that verifies")
	}
}

func TestRecordsReadBack(t *testing.T) {
	l, dir := newLog(t)
	before := time.Now()
	intend(t, l, "r1")
	a := Actor{UID: 7, LoginUID: 8, PID: 9, StartTime: 10, Exe: "/x", TTY: "pts/1"}
	want := Denied{Stage: "verify", Class: "unverified", Rule: "trust.unsigned", Cause: "c\n\x00<é>", Image: Image{Reference: "app"}}
	if err := l.Append(t.Context(), Record{Type: RunDenied, Run: "r2", Actor: a, Data: want}, Record{Type: RunLost, Run: "r3"}); err != nil {
		t.Fatal(err)
	}
	es := entries(t, dir)
	var types []Type
	for i, e := range es {
		types = append(types, e.Type)
		if e.Index != int64(i) || e.Host != "host-1.example" || e.Boot != bootID() || e.Mono <= 0 {
			t.Fatalf("%+v", e)
		}
		if i > 0 && (e.Time.Before(before.Add(-time.Second)) || e.Time.After(time.Now().Add(time.Second))) {
			t.Fatalf("record %d of %v", i, e.Time)
		}
	}
	if !slices.Equal(types, []Type{LogGenesis, RunIntent, RunDenied, RunLost}) {
		t.Fatal(types)
	}
	var got Denied
	decode(t, es[2].Data, &got)
	if got.Cause != want.Cause || got.Rule != want.Rule || es[2].Actor != a || es[2].Run != "r2" {
		t.Fatalf("%+v %+v", got, es[2])
	}
	if strings.ContainsAny(string(es[2].Leaf), "\n") || !strings.Contains(string(es[1].Leaf), "<&>") {
		t.Fatalf("leaf is not one greppable line: %s", es[2].Leaf)
	}
	n := 0
	if err := Read(dir, 2, func(e Entry) error { n++; return nil }); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	stop := errors.New("stop")
	if err := Read(dir, 0, func(Entry) error { return stop }); err != stop {
		t.Fatal(err)
	}
}

func TestProveEveryRecord(t *testing.T) {
	l, dir := newLog(t)
	for i := range 21 {
		appendExit(t, l, fmt.Sprint(i), i)
	}
	for _, e := range entries(t, dir) {
		r, err := Prove(dir, e.Index)
		if err != nil {
			t.Fatal(err)
		}
		s, err := r.Verify(l.VKey())
		if err != nil || s.Index != e.Index || s.TreeSize != 22 || string(s.Leaf) != string(e.Leaf) {
			t.Fatalf("%d: %+v %v", e.Index, s, err)
		}
	}
	for _, i := range []int64{-1, 22} {
		if _, err := Prove(dir, i); !errors.Is(err, ErrInvalid) {
			t.Fatalf("record %d: %v", i, err)
		}
	}
}

func TestInvalidRecordsAreRefused(t *testing.T) {
	l, dir := newLog(t)
	in := testIntent("r")
	for name, tt := range map[string]struct {
		in   Intent
		want error
	}{
		"no run":      {Intent{Plan: in.Plan}, ErrInvalid},
		"no plan":     {Intent{Run: "r"}, ErrInvalid},
		"bad plan":    {Intent{Run: "r", Plan: "sha256:" + strings.Repeat("AB", 32)}, ErrInvalid},
		"bad JSON":    {Intent{Run: "r", Plan: in.Plan, Evidence: json.RawMessage("{")}, ErrInvalid},
		"a huge list": {Intent{Run: "r", Plan: in.Plan, Args: []string{strings.Repeat("x", maxLeaf)}}, ErrTooLarge},
	} {
		p, err := l.Intend(t.Context(), tt.in)
		if !errors.Is(err, tt.want) || p.Receipt().Bytes() != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	big := Record{Type: RunExit, Data: Exit{Error: strings.Repeat("x", maxLeaf-1000)}}
	for name, tt := range map[string]struct {
		rs   []Record
		want error
	}{
		"no type":      {[]Record{{}}, ErrInvalid},
		"an intent":    {[]Record{{Type: RunIntent, Run: "r", Plan: in.Plan}}, ErrInvalid},
		"a genesis":    {[]Record{{Type: LogGenesis}}, ErrInvalid},
		"a recovery":   {[]Record{{Type: LogRecovered}}, ErrInvalid},
		"a big batch":  {slices.Repeat([]Record{big}, 20), ErrTooLarge},
		"one of them":  {[]Record{{Type: RunExit}, {}}, ErrInvalid},
		"not for JSON": {[]Record{{Type: RunExit, Data: func() {}}}, ErrInvalid},
	} {
		if err := l.Append(t.Context(), tt.rs...); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := l.Append(t.Context(), slices.Repeat([]Record{big}, 16)...); err != nil {
		t.Errorf("a batch at the bound: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Intend(ctx, in); !errors.Is(err, context.Canceled) {
		t.Errorf("hung up before: %v", err)
	}
	if n := verified(t, dir, l.VKey()).Size; n != 17 {
		t.Errorf("%d records", n)
	}
}

func TestClosedLog(t *testing.T) {
	l, _ := newLog(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Intend(t.Context(), testIntent("r")); !errors.Is(err, ErrClosed) {
		t.Errorf("intend: %v", err)
	}
	if err := l.Append(t.Context(), Record{Type: RunExit}); !errors.Is(err, ErrClosed) {
		t.Errorf("append: %v", err)
	}
	if err := l.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("close: %v", err)
	}
}

// Two Logs, as two processes would, see each other's records at once.
func TestTwoWritersOneLog(t *testing.T) {
	a, dir := newLog(t)
	b := openLog(t, dir)
	for i := range 10 {
		for _, l := range []*Log{a, b} {
			p := intend(t, l, "r")
			if s, err := p.Receipt().Verify(a.VKey()); err != nil || s.TreeSize-1 != s.Index {
				t.Fatal(i, s, err)
			}
		}
	}
	if r := verified(t, dir, a.VKey()); r.Size != 21 {
		t.Fatal(r.Size)
	}
}

// Callers at once share writes and flushes; each gets a proof of its own record.
func TestConcurrentCallers(t *testing.T) {
	l, dir := newLog(t)
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 20 {
				run := fmt.Sprintf("%d-%d", g, i)
				p, err := l.Intend(context.Background(), testIntent(run))
				if err != nil {
					t.Error(err)
					return
				}
				if s, err := p.Receipt().Verify(l.VKey()); err != nil || s.Run != run {
					t.Errorf("%s: %+v %v", run, s, err)
				}
			}
		})
	}
	wg.Wait()
	r := verified(t, dir, l.VKey())
	if r.Size != 16*20+1 {
		t.Fatalf("%d records", r.Size)
	}
	t.Logf("%d records in %d commits", r.Size, r.Commits)
}

// Callers at once share them on one processor too, where none of them runs
// while another has not come to its write.
func TestCallersShareAFlush(t *testing.T) {
	l, dir := newLog(t)
	before := verified(t, dir, l.VKey()).Commits
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := l.Append(context.Background(), Record{Type: RunExit, Run: "r", Data: Exit{}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := verified(t, dir, l.VKey()).Commits - before; n > 8 {
		t.Errorf("16 records in %d commits", n)
	}
}

func TestTreeAgreesWithTlog(t *testing.T) {
	var st tree
	var all grown
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(ix []int64) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for _, i := range ix {
			out = append(out, stored[i])
		}
		return out, nil
	})
	for n := int64(0); n < 200; n++ {
		h := tlog.RecordHash(fmt.Append(nil, n))
		hs, err := tlog.StoredHashesForRecordHash(n, h, read)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hs...)
		base := st.clone()
		st.add(h)
		all.leaves = append(all.leaves, h)
		want, err := tlog.TreeHash(n+1, read)
		if err != nil || st.root() != want || st.size != n+1 {
			t.Fatalf("size %d: %v %v %v", n+1, st.root(), want, err)
		}
		for _, g := range []grown{all, {base: base, leaves: []tlog.Hash{h}}} {
			p, err := g.prove(n)
			if err != nil {
				t.Fatal(err)
			}
			if err := tlog.CheckRecord(p, n+1, want, n, h); err != nil {
				t.Fatal(err)
			}
		}
	}
}
