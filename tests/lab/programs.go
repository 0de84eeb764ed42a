// Package lab sets up wards to be tried out: the programs, built from this
// source; a throw-away root directory; images made on the spot.
//
// It promises that what it made is gone afterwards, also when a test fails,
// and that it kills only what it started. It is for tests alone.
package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// bin is the directory of the built programs, set by Main.
var bin string

// Main builds the programs, runs a package's tests and removes the programs
// again. WARD_BIN names a directory that has them already.
func Main(m *testing.M) int {
	if dir := os.Getenv("WARD_BIN"); dir != "" {
		bin = dir
		return m.Run()
	}
	if os.Geteuid() != 0 { // every test will skip; building is for nothing
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "ward-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := Build(dir, "lab-"+filepath.Base(dir), "ward", "ward-oci", "ward-launch", "ward-init"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	bin = dir
	return m.Run()
}

// Bin is the directory of the programs under test.
func Bin() string { return bin }

// Build builds these programs into dir under the given build name, as the
// Makefile does.
func Build(dir, name string, programs ...string) error {
	for _, prog := range programs {
		cgo, tags, ld := "0", "", "-s -w"
		if prog == "ward-launch" {
			cgo, tags, ld = "1", "seccomp netgo osusergo", ld+static()
		}
		set := "github.com/ward-project/ward/sandbox.Build=" + name
		if prog == "ward-init" {
			set = "main.mark=ward-init:" + name + ":"
		}
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags", tags,
			"-ldflags", ld+" -X "+set,
			"-o", filepath.Join(dir, prog), "./cmd/"+prog)
		cmd.Dir = sourceRoot()
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", prog, err, out)
		}
	}
	return nil
}

// static is what makes the launcher a static program, where it can be one.
func static() string {
	cmd := exec.Command("gcc", "-static", "-o", "/dev/null", "-x", "c", "-", "-lseccomp")
	cmd.Stdin = strings.NewReader("int seccomp_api_get(void); int main(void) { return seccomp_api_get() > 99; }")
	if cmd.Run() != nil {
		return ""
	}
	return ` -linkmode external -extldflags "-static"`
}

func sourceRoot() string {
	_, file, _, _ := runtime.Caller(0)
	if root := filepath.Dir(filepath.Dir(filepath.Dir(file))); filepath.IsAbs(root) {
		return root
	}
	// -trimpath took the directory away; tests run in their package's own.
	wd, err := os.Getwd()
	if err != nil {
		return "."
	}
	for d := wd; d != "/"; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d
		}
	}
	return wd
}
