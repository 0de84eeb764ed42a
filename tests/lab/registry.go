package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

// Registry is `ward registry serve` on the loopback interface.
type Registry struct {
	// Addr is its host and port, Dir where it keeps everything.
	Addr, Dir string
	cmd       *exec.Cmd
}

// Registry starts a registry that ends with the test.
func (w *Ward) Registry() *Registry {
	w.t.Helper()
	r := &Registry{Dir: filepath.Join(w.Dir, "registry")}
	log, err := os.Create(filepath.Join(w.Dir, "registry.log"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	r.cmd = w.Command("registry", "serve", "--dir", r.Dir)
	r.cmd.Stdout, r.cmd.Stderr = log, log
	if err := r.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(r.Stop)
	re := regexp.MustCompile(`127\.0\.0\.1:[1-9][0-9]*`)
	for range 400 {
		b, err := os.ReadFile(log.Name())
		if err != nil {
			w.t.Fatal(err)
		}
		if r.Addr = string(re.Find(b)); r.Addr != "" {
			return r
		}
		time.Sleep(25 * time.Millisecond)
	}
	w.t.Fatal("the registry says no address")
	return nil
}

// Stop ends it; what asks it then gets no answer.
func (r *Registry) Stop() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Signal(os.Interrupt)
	timer := time.AfterFunc(5*time.Second, func() { _ = r.cmd.Process.Kill() })
	_ = r.cmd.Wait()
	timer.Stop()
	r.cmd = nil
}
