package ci

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"encoding/xml"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ward-project/ward/tests/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// bench is a ward that signs, a registry, and a repository with a clone of it.
type bench struct {
	t    *testing.T
	ward *lab.Ward
	reg  *lab.Registry
	// repo is what the runner has checked out.
	repo string
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, ward: lab.New(t)}
	b.reg = b.ward.Registry()
	for _, name := range []string{"good", "unsigned"} {
		ref := b.reg.Addr + "/demo/" + name + ":1"
		// Another content for each: a signature is for a digest, whatever its name.
		b.ward.Busybox(ref, tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755})
		if name == "good" {
			b.ward.Vouch(ref)
		}
		b.ward.Must("push", ref)
	}
	origin := filepath.Join(b.ward.Dir, "origin")
	b.git(b.ward.Dir, "init", "-q", "-b", "main", origin)
	b.write(filepath.Join(origin, ".ward/trust.d"), filepath.Join(b.ward.Root, "etc/trust.d"))
	for name, image := range map[string]string{"compose.yaml": "good", "bad compose.yaml": "unsigned"} {
		b.put(filepath.Join(origin, name), "services:\n  web:\n    image: "+b.reg.Addr+"/demo/"+image+":1\n")
	}
	b.git(origin, "add", ".")
	b.git(origin, "commit", "-qm", "all of it")
	b.repo = filepath.Join(b.ward.Dir, "clone")
	b.git(b.ward.Dir, "clone", "-q", "--depth", "1", "file://"+origin, b.repo)
	return b
}

func (b *bench) put(file, text string) {
	b.t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// write copies the files of a directory.
func (b *bench) write(to, from string) {
	b.t.Helper()
	es, err := os.ReadDir(from)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range es {
		text, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			b.t.Fatal(err)
		}
		b.put(filepath.Join(to, e.Name()), string(text))
	}
}

var gitEnv = []string{"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
	"GIT_AUTHOR_NAME=x", "GIT_AUTHOR_EMAIL=x@example.com", "GIT_COMMITTER_NAME=x", "GIT_COMMITTER_EMAIL=x@example.com"}

func (b *bench) git(dir string, args ...string) string {
	b.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), gitEnv...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// asks runs a pipeline with these variables, each step as its runner would,
// and returns the status of the job and what it printed.
func (b *bench) asks(p pipeline, vars map[string]string) (int, string) {
	b.t.Helper()
	temp, err := os.MkdirTemp(b.ward.Dir, "runner-")
	if err != nil {
		b.t.Fatal(err)
	}
	values := maps.Clone(p.env)
	maps.Copy(values, vars)
	// A runner's own ward has nothing to say: the script has to bring all.
	env := slices.DeleteFunc(slices.Clone(b.ward.Env), func(kv string) bool { return strings.HasPrefix(kv, "WARD_") || strings.HasPrefix(kv, "TMPDIR=") })
	env = append(append(env, gitEnv...), "TMPDIR="+temp, "RUNNER_TEMP="+temp, "GITHUB_ENV="+filepath.Join(temp, "env"), "GITHUB_PATH="+filepath.Join(temp, "path"))
	for k, v := range values {
		if !strings.Contains(k, ".") {
			env = append(env, k+"="+v)
		}
	}
	var all strings.Builder
	for _, s := range p.steps {
		cmd := exec.Command(s.shell[0], append(slices.Clone(s.shell[1:]), s.script)...)
		cmd.Dir, cmd.Env = b.repo, env
		for k, v := range s.env {
			cmd.Env = append(cmd.Env, k+"="+b.expand(v, values))
		}
		// What steps hand on, in GitHub's way.
		if set, err := os.ReadFile(filepath.Join(temp, "env")); err == nil {
			cmd.Env = append(cmd.Env, strings.Fields(string(set))...)
		}
		r := b.ward.Finish(cmd)
		all.WriteString(r.Stdout + r.Stderr)
		if r.Code != 0 {
			return r.Code, all.String()
		}
	}
	return 0, all.String()
}

// expand puts the inputs into an expression of GitHub's.
func (b *bench) expand(v string, inputs map[string]string) string {
	b.t.Helper()
	return regexp.MustCompile(`\$\{\{ (.*?) \}\}`).ReplaceAllStringFunc(v, func(m string) string {
		value, ok := inputs[strings.TrimSpace(m[3:len(m)-2])]
		if !ok {
			b.t.Errorf("no input %s", m)
		}
		return value
	})
}

// systems are the runners, how their files are read, and how each is told what
// to ask about and which commit's configuration decides.
var systems = []struct {
	name string
	read func() (pipeline, error)
	vars func(images, files []string) map[string]string
	// said is what a denial looks like to the runner.
	said string
}{
	{"github", github, func(images, files []string) map[string]string {
		return map[string]string{"inputs.images": strings.Join(images, "\n"), "inputs.files": strings.Join(files, "\n"), "inputs.config-ref": "main"}
	}, `(?m)^::error title=ward gate%3A trust\.unsigned::`},
	{"gitlab", gitlab, spaced("CI_DEFAULT_BRANCH", "main"), `trust\.unsigned`},
	{"jenkins", jenkins, spaced("WARD_CONFIG_BRANCH", "main"), `trust\.unsigned`},
	{"travis", travis, spaced("TRAVIS_BRANCH", "main"), `(?m)^not ok 1 - `},
}

func spaced(branch, value string) func(images, files []string) map[string]string {
	return func(images, files []string) map[string]string {
		return map[string]string{"WARD_IMAGES": strings.Join(images, " "), "WARD_FILES": strings.Join(files, " "), branch: value}
	}
}

// The same question has the same answer in every pipeline, and only an allow
// lets the job go on.
func TestPipelines(t *testing.T) {
	b := newBench(t)
	good, unsigned, nowhere := b.reg.Addr+"/demo/good:1", b.reg.Addr+"/demo/unsigned:1", "127.0.0.1:1/demo/good:1"
	for _, sys := range systems {
		p, err := sys.read()
		if err != nil || len(p.steps) == 0 {
			t.Fatalf("%s: %d steps, %v", sys.name, len(p.steps), err)
		}
		for _, tc := range []struct {
			name          string
			images, files []string
			code          int
		}{
			{"allowed", []string{good}, nil, 0},
			{"allowed file", nil, []string{"compose.yaml"}, 0},
			{"denied", []string{unsigned}, nil, 1},
			{"one of two denied", []string{good, unsigned}, []string{"compose.yaml"}, 1},
			{"not known", []string{nowhere}, nil, 3},
			{"not there", []string{b.reg.Addr + "/demo/nothing:1"}, nil, 2},
			{"nothing asked", nil, nil, 2},
			{"an image like a flag", []string{"--offline"}, nil, 2},
			{"an image like a pattern", []string{"*"}, nil, 2},
		} {
			for _, report := range p.reports {
				os.Remove(filepath.Join(b.repo, report))
			}
			code, out := b.asks(p, sys.vars(tc.images, tc.files))
			if code != tc.code {
				t.Errorf("%s, %s: exit %d, want %d\n%s", sys.name, tc.name, code, tc.code, out)
			}
			if tc.name == "denied" && !regexp.MustCompile(sys.said).MatchString(b.told(p, out)) {
				t.Errorf("%s does not say so:\n%s", sys.name, out)
			}
			asked := len(tc.images)+len(tc.files) > 0
			for _, report := range p.reports {
				b.report(sys.name+", "+tc.name, report, asked)
			}
		}
	}
	if b.git(b.repo, "status", "--porcelain", "--untracked-files=no") != "" {
		t.Error("a script changed the checkout")
	}
}

// told is all that a runner shows: output and reports.
func (b *bench) told(p pipeline, out string) string {
	for _, report := range p.reports {
		text, _ := os.ReadFile(filepath.Join(b.repo, report))
		out += string(text)
	}
	return out
}

// report checks that a runner gets a report it can read.
func (b *bench) report(what, file string, want bool) {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.repo, file))
	if (err == nil) != want && want {
		b.t.Errorf("%s: no report %s", what, file)
		return
	}
	if err != nil {
		return
	}
	switch filepath.Ext(file) {
	case ".xml":
		var suites struct {
			Suites []struct {
				Cases []struct{} `xml:"testcase"`
			} `xml:"testsuite"`
		}
		if err := xml.NewDecoder(bytes.NewReader(text)).Decode(&suites); err != nil || len(suites.Suites) == 0 || len(suites.Suites[0].Cases) == 0 {
			b.t.Errorf("%s: %s: %v\n%s", what, file, err, text)
		}
	default:
		var v map[string]any
		if err := json.Unmarshal(text, &v); err != nil || len(v) == 0 {
			b.t.Errorf("%s: %s: %v\n%s", what, file, err, text)
		}
	}
}

// Who opens a pull request does not choose who is trusted: what the branch says
// that it is to be merged into decides, whatever is checked out.
func TestPullRequestsBringNoTrust(t *testing.T) {
	b := newBench(t)
	ref := b.reg.Addr + "/demo/evil:1"
	keys := filepath.Join(b.ward.Dir, "evil")
	if err := os.Mkdir(keys, 0o700); err != nil {
		t.Fatal(err)
	}
	other := b.ward.Root + "-of-another"
	as := func(args ...string) {
		t.Helper()
		cmd := b.ward.Command(append([]string{"--root", other}, args...)...)
		if r := b.ward.Finish(cmd); r.Code != 0 {
			t.Fatalf("%v: %s", args, r.Stderr)
		}
	}
	as("import", filepath.Join(b.ward.Dir, "rootfs.tar"), ref)
	as("key", "generate", "--out", keys)
	as("sign", "--key", filepath.Join(keys, "cosign.key"), ref)
	as("push", ref)
	as("trust", "add", "--key", filepath.Join(keys, "cosign.pub"), "**")
	if err := os.RemoveAll(filepath.Join(b.repo, ".ward")); err != nil {
		t.Fatal(err)
	}
	b.write(filepath.Join(b.repo, ".ward/trust.d"), filepath.Join(other, "etc/trust.d"))
	b.git(b.repo, "checkout", "-q", "-b", "request")
	b.git(b.repo, "add", ".")
	b.git(b.repo, "commit", "-qm", "trust me")
	for _, sys := range systems {
		p, err := sys.read()
		if err != nil {
			t.Fatal(err)
		}
		if code, out := b.asks(p, sys.vars([]string{ref}, nil)); code != 1 {
			t.Errorf("%s: exit %d\n%s", sys.name, code, out)
		}
	}
}

// What comes from outside is never part of a script, where it would be a
// command.
func TestNothingIsPastedIntoScripts(t *testing.T) {
	for _, sys := range systems {
		p, err := sys.read()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range p.steps {
			if strings.Contains(s.script, "${{") || strings.Contains(s.script, "eval ") {
				t.Errorf("%s: step %q pastes", sys.name, s.name)
			}
		}
	}
	var workflow map[string]any
	text, err := read("github/workflow.yml", &workflow)
	if err != nil || !strings.Contains(string(text), "contents: read") || strings.Contains(string(text), "pull_request_target") {
		t.Errorf("workflow.yml: %v", err)
	}
}
