// Package ci runs the scripts of deploy/ci as the pipelines they are for would:
// taken out of the very files, by the shell and with the variables that each
// runner promises, in a clone of a repository, with the built programs and a
// registry on the loopback interface.
package ci

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// step is one script of a pipeline's file.
type step struct {
	name string
	// shell is how the runner calls it; the script follows.
	shell  []string
	script string
	// env is what the step itself sets, with the runner's expressions in it.
	env map[string]string
}

// pipeline is a file of deploy/ci taken apart.
type pipeline struct {
	steps []step
	// env are the defaults of its variables.
	env map[string]string
	// reports are the files that it hands to the runner.
	reports []string
}

// read parses a file below deploy/ci strictly into v.
func read(file string, v any) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join("..", "..", "deploy", "ci", file))
	if err != nil || v == nil {
		return b, err
	}
	d := yaml.NewDecoder(strings.NewReader(string(b)))
	d.KnownFields(true)
	return b, d.Decode(v)
}

// github takes the composite action apart.
func github() (pipeline, error) {
	var f struct {
		Name, Description string
		Inputs            map[string]struct{ Description, Default string }
		Runs              struct {
			Using string
			Steps []struct {
				Name, Shell, Run string
				Env              map[string]string
			}
		}
	}
	if _, err := read("github/action.yml", &f); err != nil {
		return pipeline{}, err
	}
	p := pipeline{env: map[string]string{}}
	for name, in := range f.Inputs {
		p.env["inputs."+name] = in.Default
	}
	for _, s := range f.Runs.Steps {
		if s.Shell != "bash" || f.Runs.Using != "composite" {
			return p, fmt.Errorf("step %q: not a bash step of a composite action", s.Name)
		}
		p.steps = append(p.steps, step{s.Name, []string{"bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"}, s.Run, s.Env})
	}
	p.reports = []string{f.Inputs["sarif"].Default}
	return p, nil
}

// gitlab takes the template apart. The runner makes one script of all lines.
func gitlab() (pipeline, error) {
	var f map[string]struct {
		Stage     string
		Variables map[string]string
		Script    []string
		Artifacts struct {
			When    string
			Reports struct{ Junit string }
		}
	}
	if _, err := read("gitlab/ward-gate.gitlab-ci.yml", &f); err != nil {
		return pipeline{}, err
	}
	job := f[".ward-gate"]
	if len(f) != 1 || job.Artifacts.When != "always" {
		return pipeline{}, fmt.Errorf("want one job, whose report is kept also when it fails")
	}
	return pipeline{
		steps:   []step{{"script", []string{"sh", "-e", "-c"}, strings.Join(job.Script, "\n"), nil}},
		env:     job.Variables,
		reports: []string{job.Artifacts.Reports.Junit},
	}, nil
}

// jenkins takes the Jenkinsfile apart; what it is otherwise only Jenkins knows.
func jenkins() (pipeline, error) {
	b, err := read("jenkins/Jenkinsfile", nil)
	if err != nil {
		return pipeline{}, err
	}
	p := pipeline{env: map[string]string{}}
	for _, m := range regexp.MustCompile(`(?s)\bsh '''(.*?)'''`).FindAllStringSubmatch(string(b), -1) {
		p.steps = append(p.steps, step{"sh", []string{"sh", "-xe", "-c"}, m[1], nil})
	}
	for _, m := range regexp.MustCompile(`(?m)^ +(WARD_\w+) = '(.*)'$`).FindAllStringSubmatch(string(b), -1) {
		p.env[m[1]] = m[2]
	}
	for _, m := range regexp.MustCompile(`(?:testResults|artifacts): '(.*?)'`).FindAllStringSubmatch(string(b), -1) {
		p.reports = append(p.reports, m[1])
	}
	return p, nil
}

// travis takes the file apart. An entry of script is evaluated in the build's
// shell, and its status is the build's.
func travis() (pipeline, error) {
	var f struct {
		Language        string
		Env             struct{ Global []string }
		Install, Script []string
	}
	if _, err := read("travis/.travis.yml", &f); err != nil {
		return pipeline{}, err
	}
	p := pipeline{env: map[string]string{}}
	for _, kv := range f.Env.Global {
		k, v, _ := strings.Cut(kv, "=")
		p.env[k] = strings.Trim(v, `"`)
	}
	for _, s := range append(f.Install, f.Script...) {
		p.steps = append(p.steps, step{"script", []string{"bash", "-c"}, s, nil})
	}
	return p, nil
}
