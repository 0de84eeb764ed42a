package cli

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

// script is one script's ward and what its commands keep between them.
type script struct {
	ward  *lab.Ward
	proxy *proxy
	reg   *exec.Cmd
}

func (s *script) setup(env *testscript.Env) error {
	keep := env.Vars
	env.Vars = append(slices.Clone(s.ward.Env), "W="+s.ward.Dir, "BIN="+lab.Bin())
	for _, kv := range keep {
		if k, _, _ := strings.Cut(kv, "="); k == "WORK" || k == "$" || k == "/" || k == ":" {
			env.Vars = append(env.Vars, kv)
		}
	}
	env.Defer(func() {
		s.stopRegistry()
		if s.proxy != nil {
			s.proxy.close()
		}
	})
	return nil
}

// run executes a command and returns its exit code.
func run(ts *testscript.TestScript, args []string) int {
	err := ts.Exec(args[0], args[1:]...)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v: %v", args, err)
	}
	if exit != nil {
		return exit.ExitCode()
	}
	return 0
}

// exits CODE COMMAND…: the command ends with exactly this code.
func (s *script) exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := run(ts, args[1:]); (got == want) == neg {
		ts.Fatalf("exit %d, want %v%d\n%s", got, map[bool]string{true: "anything but "}[neg], want, ts.ReadFile("stderr"))
	}
}

// until COMMAND…: the command succeeds, sooner or later.
func (s *script) until(ts *testscript.TestScript, neg bool, args []string) {
	for deadline := time.Now().Add(30 * time.Second); run(ts, args) != 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("%v never succeeded", args)
		}
	}
}

// refused [-unrecorded] RULE COMMAND…: exit 125; one error with cause, rule
// and remedy; a run.denied record of that rule (unless there can be none);
// and nothing that was not there before.
func (s *script) refused(ts *testscript.TestScript, neg bool, args []string) {
	record := true
	if args[0] == "-unrecorded" {
		record, args = false, args[1:]
	}
	rule := regexp.MustCompile(`(?m)^  rule: +(` + args[0] + `) \(`)
	before, denied := s.there(), s.denied(args[0])
	code := run(ts, args[1:])
	errs := ts.ReadFile("stderr")
	if code != 125 {
		ts.Fatalf("exit %d, want 125\n%s", code, errs)
	}
	if !rule.MatchString(errs) || len(regexp.MustCompile(`(?m)^  rule:`).FindAllString(errs, -1)) != 1 {
		ts.Fatalf("not one refusal by rule %s:\n%s", args[0], errs)
	}
	if first, _, _ := strings.Cut(errs, "\n"); len(strings.TrimPrefix(first, "ward: ")) < 10 {
		ts.Fatalf("no cause:\n%s", errs)
	}
	if !regexp.MustCompile(`(?m)^  remedy: \S`).MatchString(errs) {
		ts.Fatalf("no remedy:\n%s", errs)
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("a refusal wrote to standard output: %q", out)
	}
	if record {
		if now := s.denied(args[0]); now != denied+1 {
			ts.Fatalf("%d run.denied records by rule %s, want %d", now, args[0], denied+1)
		}
	}
	s.same(ts, before)
}

// there lists what a refusal may not add to.
func (s *script) there() []string {
	found := s.ward.Leftovers()
	for _, pattern := range []string{"lib/containers/*", "run/c/*", "lib/images/layers/*", "lib/images/tmp/*"} {
		m, _ := filepath.Glob(filepath.Join(s.ward.Root, pattern))
		found = append(found, m...)
	}
	slices.Sort(found)
	return found
}

// same waits a moment for what is being torn down.
func (s *script) same(ts *testscript.TestScript, before []string) {
	var added []string
	for range 50 {
		added = slices.DeleteFunc(s.there(), func(x string) bool { return slices.Contains(before, x) })
		// A layer that is whole and has its name may stay: it is a cache.
		added = slices.DeleteFunc(added, func(x string) bool {
			_, err := os.Stat(filepath.Join(x, "seal.json"))
			return err == nil
		})
		if len(added) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	ts.Fatalf("left behind:\n%s", strings.Join(added, "\n"))
}

func (s *script) denied(rule string) int {
	re := regexp.MustCompile(`"rule":"(` + rule + `)"`)
	n := 0
	for _, e := range s.records() {
		if e.Type == audit.RunDenied && re.Match(e.Leaf) {
			n++
		}
	}
	return n
}

func (s *script) records() []audit.Entry {
	var all []audit.Entry
	// A log that is not there or damaged has what was read before the damage.
	_ = audit.Read(filepath.Join(s.ward.Root, "lib/audit"), 0, func(e audit.Entry) error {
		all = append(all, e)
		return nil
	})
	return all
}

// recorded TYPE [REGEXP]: the log has a record of this type whose JSON matches.
func (s *script) recorded(ts *testscript.TestScript, neg bool, args []string) {
	re := regexp.MustCompile(strings.Join(args[1:], " "))
	for _, e := range s.records() {
		if string(e.Type) == args[0] && re.Match(e.Leaf) {
			if neg {
				ts.Fatalf("on record: %s", e.Leaf)
			}
			return
		}
	}
	if !neg {
		ts.Fatalf("no %s record matches %q", args[0], re)
	}
}

// gone: this ward has no process, mount or cgroup on the machine.
func (s *script) gone(ts *testscript.TestScript, _ bool, _ []string) {
	var left []string
	for range 100 {
		if left = s.ward.Leftovers(); len(left) == 0 {
			return
		}
		time.Sleep(30 * time.Millisecond)
	}
	ts.Fatalf("left on the machine:\n%s", strings.Join(left, "\n"))
}

// rootfs FILE [ODDITY]: writes a root file system's archive; see image_test.go.
func (s *script) rootfs(ts *testscript.TestScript, _ bool, args []string) {
	var odd string
	if len(args) > 1 {
		odd = args[1]
	}
	extra, err := oddity(odd)
	ts.Check(err)
	ts.Check(lab.Rootfs(ts.MkAbs(args[0]), extra...))
}

// vouch REF: signs it with the script's own key and trusts that for all images.
func (s *script) vouch(ts *testscript.TestScript, _ bool, args []string) {
	key := filepath.Join(s.ward.Dir, "cosign.key")
	if _, err := os.Stat(key); errors.Is(err, fs.ErrNotExist) {
		ts.Check(ts.Exec("ward", "key", "generate", "--out", s.ward.Dir))
		ts.Check(ts.Exec("ward", "trust", "add", "--key", filepath.Join(s.ward.Dir, "cosign.pub"), "**"))
	}
	ts.Check(ts.Exec("ward", "sign", "--key", key, args[0]))
}

// flip FILE TEXT: changes one bit of the byte where TEXT first is in the file;
// with an empty TEXT, of the byte in the middle.
func (s *script) flip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	at := len(b) / 2
	if len(args) > 1 {
		if at = strings.Index(string(b), args[1]); at < 0 {
			ts.Fatalf("%q is not in %s", args[1], args[0])
		}
	}
	b[at] ^= 1
	// In place: the file stays the one others have open.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteAt(b[at:at+1], int64(at))
	ts.Check(err)
	ts.Check(f.Close())
}

// capture NAME [REGEXP]: puts the last standard output, or the first group of
// the regular expression in it, into the environment.
func (s *script) capture(ts *testscript.TestScript, _ bool, args []string) {
	out := strings.TrimSpace(ts.ReadFile("stdout"))
	if len(args) > 1 {
		m := regexp.MustCompile(args[1]).FindStringSubmatch(out)
		if m == nil {
			ts.Fatalf("%q does not match:\n%s", args[1], out)
		}
		out = m[len(m)-1]
	}
	ts.Setenv(args[0], out)
}

// registry start|stop: `ward registry serve` on a free port; REG is its address.
func (s *script) registry(ts *testscript.TestScript, _ bool, args []string) {
	if args[0] == "stop" {
		s.stopRegistry()
		return
	}
	addr := "127.0.0.1:0"
	if a := ts.Getenv("REG"); a != "" {
		addr = a
	}
	log, err := os.Create(filepath.Join(s.ward.Dir, "registry.log"))
	ts.Check(err)
	defer log.Close()
	s.reg = s.ward.Command("registry", "serve", "--addr", addr, "--dir", filepath.Join(s.ward.Dir, "registry"))
	s.reg.Stdout, s.reg.Stderr = log, log
	ts.Check(s.reg.Start())
	re := regexp.MustCompile(`127\.0\.0\.1:[1-9][0-9]*`)
	for range 200 {
		b, err := os.ReadFile(log.Name())
		ts.Check(err)
		if m := re.Find(b); m != nil {
			ts.Setenv("REG", string(m))
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	b, _ := os.ReadFile(log.Name())
	ts.Fatalf("the registry says no address: %s", b)
}

func (s *script) stopRegistry() {
	if s.reg == nil {
		return
	}
	_ = s.reg.Process.Signal(os.Interrupt)
	timer := time.AfterFunc(5*time.Second, func() { _ = s.reg.Process.Kill() })
	_ = s.reg.Wait()
	timer.Stop()
	s.reg = nil
}

// launcher KIND: puts a ward whose launcher is wrong into PATH: missing,
// other-build, or one that alters what it is given (see interfere_test.go).
func (s *script) launcher(ts *testscript.TestScript, _ bool, args []string) {
	dir := filepath.Join(s.ward.Dir, "bin-"+args[0])
	ts.Check(os.Mkdir(dir, 0o755))
	ts.Check(copyFile(filepath.Join(lab.Bin(), "ward"), filepath.Join(dir, "ward")))
	ts.Setenv("PATH", dir+":"+ts.Getenv("PATH"))
	to := filepath.Join(dir, "ward-launch")
	switch args[0] {
	case "missing":
	case "other-build":
		ts.Check(lab.Build(dir, "another-build", "ward-launch"))
	default:
		self, err := os.Executable()
		ts.Check(err)
		ts.Check(copyFile(self, to))
		ts.Check(os.WriteFile(to+".mode", []byte(args[0]+"\n"+filepath.Join(lab.Bin(), "ward-launch")), 0o600))
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}
