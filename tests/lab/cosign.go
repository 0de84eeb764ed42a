package lab

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Cosign is the real cosign, as other people run it.
type Cosign struct{ path, dir string }

// NewCosign finds it: WARD_COSIGN, or what make bin/tools/cosign has built. It
// works in dir, which gets an empty trusted root, or cosign would fetch one.
func NewCosign(t testing.TB, dir string) Cosign {
	t.Helper()
	path := Tool(t, "cosign", "WARD_COSIGN")
	root := `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`
	if err := os.WriteFile(filepath.Join(dir, "empty-root.json"), []byte(root), 0o600); err != nil {
		t.Fatal(err)
	}
	return Cosign{path, dir}
}

// Tool is the path of a program that make builds into bin/tools, or what the
// environment variable names.
func Tool(t testing.TB, name, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		path = filepath.Join("..", "..", "bin", "tools", name)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("needs the real %s: %v", name, err)
		}
		t.Skipf("needs the real %s (make bin/tools/%s, or %s): %v", name, name, variable, err)
	}
	return path
}

// Do runs cosign in its directory. Any way out but loopback is closed.
func (c Cosign) Do(t testing.TB, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.path, args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + c.dir, "COSIGN_PASSWORD=",
		"HTTPS_PROXY=http://127.0.0.1:9", "HTTP_PROXY=http://127.0.0.1:9", "NO_PROXY=127.0.0.1"}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatalf("cosign: %v", err)
	}
	return Result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// Must is Do for a command that has to succeed; it returns standard output.
func (c Cosign) Must(t testing.TB, args ...string) string {
	t.Helper()
	r := c.Do(t, args...)
	if r.Code != 0 {
		t.Fatalf("cosign %v: exit %d\n%s%s", args, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}
