package profile

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

// interpret runs program on a call as the kernel does.
func interpret(t *testing.T, program []byte, arch, nr uint32, args [maxArgs]uint64) uint32 {
	t.Helper()
	data := binary.LittleEndian.AppendUint32(nil, nr)
	data = binary.LittleEndian.AppendUint32(data, arch)
	data = binary.LittleEndian.AppendUint64(data, 0)
	for _, a := range args {
		data = binary.LittleEndian.AppendUint64(data, a)
	}
	var acc uint32
	for pc := 0; ; pc++ {
		i := program[8*pc:]
		k := binary.LittleEndian.Uint32(i[4:])
		jump := func(yes bool) {
			if yes {
				pc += int(i[2])
			} else {
				pc += int(i[3])
			}
		}
		switch code := binary.LittleEndian.Uint16(i); code {
		case opLoad:
			acc = binary.LittleEndian.Uint32(data[k:])
		case opAnd:
			acc &= k
		case opReturn:
			return k
		case opJump:
			pc += int(k)
		case opEqual:
			jump(acc == k)
		case opGreater:
			jump(acc > k)
		case opGreaterEqual:
			jump(acc >= k)
		default:
			t.Fatalf("instruction %#x", code)
		}
	}
}

func expected(v Verdict) uint32 {
	switch {
	case v.Allow:
		return retAllow
	case v.Quiet:
		return retErrno | uint32(v.Errno)
	}
	return retNotify
}

// TestProgramSaysWhatTheFilterSays compares the two forms of the default
// filter for every call and arguments at the edges of every condition.
func TestProgramSaysWhatTheFilterSays(t *testing.T) {
	f, err := Default().Filter()
	if err != nil {
		t.Fatal(err)
	}
	compare(t, f, 60)
	p, _ := f.Program()
	t.Logf("%d instructions", len(p)/8)
}

// TestProgramOfRandomRules does the same for rules nobody would write.
func TestProgramOfRandomRules(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		p := Profile{Name: "random", DefaultErrno: enosys}
		for range rnd.IntN(60) {
			r := Rule{Names: []string{callNames[rnd.IntN(60)]}, Action: Allow}
			if rnd.IntN(2) == 0 {
				r.Action, r.Errno, r.Quiet = Refuse, 1+uint(rnd.IntN(100)), rnd.IntN(2) == 0
			}
			for range rnd.IntN(4) {
				a := Arg{Index: uint(rnd.IntN(maxArgs)), Op: ops[rnd.IntN(len(ops))], Value: edge(rnd, 0)}
				if a.Op == MaskedEqual {
					a.Mask = 1 | edge(rnd, a.Value)
				}
				r.Args = append(r.Args, a)
			}
			p.Rules = append(p.Rules, r)
		}
		f, err := p.Filter()
		if err != nil {
			t.Fatal(err)
		}
		compare(t, f, 40)
	}
}

func compare(t *testing.T, f *Filter, tries int) {
	t.Helper()
	program, err := f.Program()
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	values := []uint64{0}
	for _, rules := range f.calls {
		for _, r := range rules {
			for _, a := range r.Args {
				values = append(values, a.Value, a.Mask)
			}
		}
	}
	for nr := range len(callNames) + 50 {
		for range tries {
			var args [maxArgs]uint64
			for i := range args {
				args[i] = edge(rnd, values[rnd.IntN(len(values))])
			}
			want := f.Answer(nr, args)
			if got := interpret(t, program, auditArch, uint32(nr), args); got != expected(want) {
				t.Fatalf("call %d %#x: program returns %#x, filter says %+v", nr, args, got, want)
			}
		}
	}
}

// edge returns a value near v, or one that differs in the upper half alone.
func edge(rnd *rand.Rand, v uint64) uint64 {
	switch rnd.IntN(8) {
	case 0:
		return rnd.Uint64()
	case 1:
		return v + 1
	case 2:
		return v - 1
	case 3:
		return v ^ 1<<rnd.IntN(64)
	case 4:
		return v | 1<<32
	case 5:
		return uint64(rnd.IntN(20))
	}
	return v
}

// TestForeignCallsKill: a call of another architecture, and on amd64 one of
// the x32 kind, ends the process; a tracer's "no call" is left alone.
func TestForeignCallsKill(t *testing.T) {
	f, err := Default().Filter()
	if err != nil {
		t.Fatal(err)
	}
	program, err := f.Program()
	if err != nil {
		t.Fatal(err)
	}
	var none [maxArgs]uint64
	if got := interpret(t, program, 0x40000003, 1, none); got != retKill {
		t.Errorf("i386: %#x", got)
	}
	if got := interpret(t, program, auditArch, 0xffffffff, none); got != retAllow {
		t.Errorf("no call: %#x", got)
	}
	if runtime.GOARCH == "amd64" {
		if got := interpret(t, program, auditArch, 0x40000001, none); got != retKill {
			t.Errorf("x32: %#x", got)
		}
	}
}

func TestFilterRefusesNonsense(t *testing.T) {
	for name, p := range map[string]Profile{
		"no default":          {},
		"unknown action":      {DefaultErrno: 1, Rules: []Rule{{Names: []string{"read"}, Action: "log"}}},
		"refusal without":     {DefaultErrno: 1, Rules: []Rule{{Names: []string{"read"}, Action: Refuse}}},
		"errno 4096":          {DefaultErrno: 1, Rules: []Rule{{Names: []string{"read"}, Action: Refuse, Errno: 4096}}},
		"allowance with":      {DefaultErrno: 1, Rules: []Rule{{Names: []string{"read"}, Action: Allow, Errno: 1}}},
		"seventh argument":    {DefaultErrno: 1, Rules: []Rule{{Names: []string{"read"}, Action: Allow, Args: []Arg{{Index: 6, Op: Equal}}}}},
		"unknown comparison":  {DefaultErrno: 1, Rules: []Rule{{Names: []string{"read"}, Action: Allow, Args: []Arg{{Op: "~"}}}}},
		"mask without masked": {DefaultErrno: 1, Rules: []Rule{{Names: []string{"read"}, Action: Allow, Args: []Arg{{Op: Equal, Mask: 1}}}}},
	} {
		if _, err := p.Filter(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCallTable(t *testing.T) {
	for nr, name := range callNames {
		if name == "" {
			continue
		}
		if got, ok := CallNumber(name); !ok || got != nr {
			t.Errorf("%s: %d, %v", name, got, ok)
		}
	}
	if _, ok := CallName(-1); ok {
		t.Error("call -1 has a name")
	}
	if _, ok := CallName(1 << 30); ok {
		t.Error("call 2^30 has a name")
	}
	// What the profile names, some architecture must have; a misspelt name
	// would never be noticed otherwise.
	elsewhere := []string{"get_thread_area", "set_thread_area"}
	for _, r := range Default().Rules {
		for _, n := range r.Names {
			if _, ok := CallNumber(n); !ok && runtime.GOARCH == "amd64" && !slices.Contains(elsewhere, n) {
				t.Errorf("%s is no call", n)
			}
		}
	}
}
