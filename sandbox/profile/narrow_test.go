package profile

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func mustFilter(t *testing.T, rules ...Rule) *Filter {
	t.Helper()
	f, err := Profile{Name: "test", DefaultErrno: enosys, Rules: rules}.Filter()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func masked(mask, value uint64) Arg { return Arg{Op: MaskedEqual, Mask: mask, Value: value} }

func TestBeyondDefault(t *testing.T) {
	base, err := Default().Filter()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		rules []Rule
		want  []string
	}{
		"nothing":               {nil, nil},
		"itself":                {Default().Rules, nil},
		"a part":                {[]Rule{allow("", "read write")}, nil},
		"conditions on top":     {[]Rule{allow("", "read", arg(2, Less, 5))}, nil},
		"unlisted":              {[]Rule{allow("", "read swapcontext io_uring_setup")}, []string{"io_uring_setup"}},
		"refused":               {[]Rule{allow("", "mount")}, []string{"mount"}},
		"refused, conditional":  {[]Rule{allow("", "mount", arg(0, Equal, 7))}, []string{"mount"}},
		"clone bare":            {[]Rule{allow("", "clone")}, []string{"clone"}},
		"clone as Docker":       {[]Rule{allow("", "clone", masked(0x7e020000, 0))}, nil},
		"clone stricter":        {[]Rule{allow("", "clone", masked(0x7f020000, 0))}, nil},
		"clone wider mask":      {[]Rule{allow("", "clone", masked(0x6e020000, 0))}, []string{"clone"}},
		"clone exactly fork":    {[]Rule{allow("", "clone", arg(0, Equal, 17))}, nil},
		"clone exactly newuser": {[]Rule{allow("", "clone", arg(0, Equal, 0x10000011))}, []string{"clone"}},
		"socket but vsock":      {[]Rule{allow("", "socket", arg(0, NotEqual, 40))}, []string{"socket"}},
		"socket unix":           {[]Rule{allow("", "socket", arg(0, Equal, 1))}, nil},
		"socket unix stream":    {[]Rule{allow("", "socket", arg(0, Equal, 1), arg(1, Equal, 1))}, nil},
		"socket 3":              {[]Rule{allow("", "socket", arg(0, Equal, 3))}, []string{"socket"}},
		"socket other argument": {[]Rule{allow("", "socket", arg(1, Equal, 1))}, []string{"socket"}},
		"socket unix, high":     {[]Rule{allow("", "socket", arg(0, Equal, 1<<32|1))}, []string{"socket"}},
		"two, one wide":         {[]Rule{allow("", "socket", arg(0, Equal, 1)), allow("", "socket", arg(0, LessEqual, 2))}, []string{"socket"}},
		"allowed and refused":   {[]Rule{allow("", "ptrace"), refuse("", eperm, "ptrace")}, nil},
	} {
		if got := mustFilter(t, c.rules...).Beyond(base); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, not %v", name, got, c.want)
		}
	}
}

// TestBeyondIsSound: whatever Beyond does not name is within the base, for
// random rules and arguments at their edges.
func TestBeyondIsSound(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	narrow := 0
	random := func() []Rule {
		var rules []Rule
		for range 1 + rnd.IntN(4) {
			r := Rule{Names: []string{"read"}, Action: Allow}
			if rnd.IntN(4) == 0 {
				r.Action, r.Errno = Refuse, 1
			}
			for i := range uint(2) {
				if rnd.IntN(3) == 0 {
					continue
				}
				a := Arg{Index: i, Op: ops[rnd.IntN(len(ops))], Value: uint64(rnd.IntN(8))}
				if a.Op == MaskedEqual {
					a.Mask = 1 + uint64(rnd.IntN(7))
				}
				r.Args = append(r.Args, a)
			}
			rules = append(rules, r)
		}
		return rules
	}
	for range 20000 {
		base, mine := mustFilter(t, random()...), mustFilter(t, random()...)
		if len(mine.Beyond(base)) > 0 {
			continue
		}
		narrow++
		for x := range uint64(10) {
			for y := range uint64(10) {
				args := [maxArgs]uint64{x, y}
				if mine.Answer(0, args).Allow && !base.Answer(0, args).Allow {
					t.Fatalf("%v is allowed by %+v and not by %+v", args, mine.calls[0], base.calls[0])
				}
			}
		}
	}
	if narrow < 500 {
		t.Errorf("only %d of the pairs were found to narrow: nothing is tried", narrow)
	}
}

func TestLacks(t *testing.T) {
	full := allow("", "read write execve exit_group")
	if got := mustFilter(t, full).Lacks(); got != "" {
		t.Errorf("lacks %s", got)
	}
	for _, rules := range [][]Rule{
		nil, {allow("", "write execve exit_group")}, {allow("", "write execve exit_group"), allow("", "read", arg(0, Equal, 1))},
		{full, refuse("", eperm, "read", arg(0, Equal, 9))},
	} {
		if got := mustFilter(t, rules...).Lacks(); got != "read" {
			t.Errorf("%v: lacks %q", rules, got)
		}
	}
}

func TestNeverIsNotInTheDefault(t *testing.T) {
	base, err := Default().Filter()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range never {
		nr, ok := CallNumber(name)
		if !ok {
			continue // of another architecture
		}
		if name != "clone" && base.Answer(nr, [maxArgs]uint64{}).Allow {
			t.Errorf("%s is allowed by default and never to be allowed", name)
		}
	}
}
