package policy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
)

// doubling makes x60 of 2^60 elements out of x0, in no memory to speak of.
func doubling(use string) string {
	var b strings.Builder
	b.WriteString("package ward.run\ndeny contains {\"msg\": sprintf(\"%v\", [y])} if {\n\tx0 := [input.run.name]\n")
	for i := range 60 {
		fmt.Fprintf(&b, "\tx%d := [x%d, x%d]\n", i+1, i, i)
	}
	return b.String() + "\ty := " + use + "\n}\n"
}

// TestCostlyPoliciesAreStopped: whatever a policy does, the answer comes in
// time, and it is not an allow.
func TestCostlyPoliciesAreStopped(t *testing.T) {
	if testing.Short() {
		t.Skip("each takes its whole allowance")
	}
	for name, body := range map[string]string{
		"endless range":         `deny contains "x" if count([x | some x in numbers.range(1, 1000000000000)]) > 3`,
		"endless comprehension": `deny contains "x" if { a := numbers.range(1, 10000); count([1 | some x in a; some y in a; some z in a; x + y == z]) < 0 }`,
		"doubled string":        `deny contains "x" if { ` + doubledString(40) + ` }`,
		"multiplied string":     `deny contains "x" if { s := concat("", ["x" | some i in numbers.range(1, 100000)]); r := replace(s, "x", s); count(r) > 3 }`,
		"multiplied separator":  `deny contains "x" if { l := ["x" | some i in numbers.range(1, 100000)]; r := concat(concat("", l), l); count(r) > 3 }`,
		"multiplied pattern":    `deny contains "x" if { s := concat("", ["x" | some i in numbers.range(1, 100000)]); r := regex.replace(s, "x", s); count(r) > 3 }`,
		"padded format":         `deny contains "x" if { f := concat("", ["%9999999d" | some i in numbers.range(1, 10000)]); a := numbers.range(1, 10000); count(sprintf(f, a)) > 3 }`,
		"large set":             `deny contains sprintf("%0999d", [x]) if some x in numbers.range(1, 900000)`,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); stopped(t, "package ward.run\n"+body+"\n") })
	}
	for name, use := range map[string]string{
		"marshalled": "json.marshal(x60)", "printed": `sprintf("%v", [x60])`, "compared": "[x60 == z60, x60][1]", "returned": "x60",
	} {
		t.Run("shared value "+name, func(t *testing.T) {
			t.Parallel()
			text := doubling(use)
			if name == "compared" {
				text = strings.Replace(text, "\ty :=", strings.ReplaceAll(strings.ReplaceAll(text[strings.Index(text, "\tx0"):strings.Index(text, "\ty :=")], "x", "z"), "input.run.name", "input.run.hostname")+"\ty :=", 1)
			}
			stopped(t, text)
		})
	}
}

func doubledString(n int) string {
	var b strings.Builder
	b.WriteString(`s0 := "xxxxxxxxxxxxxxxx"; `)
	for i := range n {
		fmt.Fprintf(&b, `s%d := concat("", [s%d, s%d]); `, i+1, i, i)
	}
	return b.String() + fmt.Sprintf("count(s%d) > 3", n)
}

// stopped decides in a process of its own, as ward does: an evaluation that
// does not notice that it was stopped ends with the process.
func stopped(t *testing.T, text string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestDecideInChild$", "-test.v")
	cmd.Env = append(os.Environ(), "WARD_TEST_POLICY_DIR="+dir(t, "a.rego", text))
	start := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(start)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	rss := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss >> 10
	_, answer, _ := strings.Cut(string(out), "answer: ")
	answer, _, _ = strings.Cut(answer, "\n")
	t.Logf("%v, %d MiB: %s", took.Round(time.Millisecond), rss, answer)
	if !strings.HasPrefix(answer, "unavailable policy.") && !strings.HasPrefix(answer, "denied policy.result") {
		t.Errorf("got %q", out)
	}
	// Generous: the machine may be busy. Without the bounds these never end,
	// or take all memory there is.
	if took > 30*time.Second || rss > 2048 {
		t.Errorf("took %v and %d MiB", took, rss)
	}
}

func TestDecideInChild(t *testing.T) {
	d := os.Getenv("WARD_TEST_POLICY_DIR")
	if d == "" {
		t.Skip("runs in a child of TestCostlyPoliciesAreStopped")
	}
	e, err := policy.Open(policy.Config{Dir: d})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := e.Decide(t.Context(), good())
	var f *fault.Error
	switch {
	case answer.Allowed():
		t.Fatal("allowed")
	case errors.As(err, &f):
		fmt.Println("answer:", f.Class, f.Rule, f.Cause)
	case err == nil:
		fmt.Println("answer: denied", codes(answer.Reasons())[0], answer.Reasons()[0].Msg)
	default:
		t.Fatal(err)
	}
}

func TestResultIsBounded(t *testing.T) {
	e := open(t, "a.rego", `package ward.run
deny contains sprintf("%d", [x]) if some x in numbers.range(1, 10001)`)
	denied(t, decide(t, e, good()), "policy.result")

	e = open(t, "a.rego", `package ward.run
deny contains {"code": "x", "msg": sprintf("%03d", [x])} if some x in numbers.range(1, 200)`)
	d := decide(t, e, good())
	if n := len(d.Reasons()); d.Allowed() || n != 65 || d.Reasons()[64].Code != "policy.more" {
		t.Fatal(n)
	}

	e = open(t, "a.rego", `package ward.run
deny contains concat("", ["é" | some x in numbers.range(1, 20000)])`)
	if d := decide(t, e, good()); d.Allowed() || len(d.Reasons()[0].Msg) > 1100 {
		t.Fatal(len(d.Reasons()[0].Msg))
	}
}

func TestCallerGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d, err := open(t).Decide(ctx, good())
	refused(t, err, fault.Unavailable, "policy.cancelled")
	denied(t, d, "policy.undecided")
}

// Nested beyond reason: the parser must refuse, not exhaust the stack.
func TestDeeplyNestedFilesAreRefused(t *testing.T) {
	deep := strings.Repeat("[", 500_000)
	for file, text := range map[string]string{
		"a.rego": "package ward.run\nx := " + deep,
		"b.rego": "package ward.run\nx := " + strings.Repeat("{x | x := ", 50_000),
		"c.rego": "package ward.run\ndeny contains \"x\" if " + strings.Repeat("not ", 100_000) + "true",
		"a.json": `{"a":` + deep,
		"a.yaml": "a: " + deep,
		"b.yaml": "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n",
	} {
		t.Run(file, func(t *testing.T) {
			_, err := policy.Open(policy.Config{Dir: dir(t, file, text)})
			if fault.ClassOf(err) != fault.Invalid {
				t.Fatal(err)
			}
		})
	}
}

func TestConcurrentDecisions(t *testing.T) {
	e := open(t, "grants.json", `{"networks": ["host"]}`)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			in := good()
			if i%2 == 0 {
				in.Run.Capabilities = []string{"CAP_SYS_ADMIN"}
			}
			d, err := e.Decide(t.Context(), in)
			if err != nil || d.Allowed() != (i%2 == 1) {
				t.Errorf("%d: %v %v", i, err, d.Reasons())
			}
		})
	}
	wg.Wait()
}
