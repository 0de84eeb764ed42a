package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ward-project/ward/audit"
)

// patience is how long one command may take.
const patience = time.Minute

// victim is a ward that is shown forgeries.
type victim struct {
	cfg  ProveConfig
	root string
	// ctx is that of the one proof it lives for.
	ctx context.Context
	// seen is how many records have been looked at.
	seen int64
	// err is the first thing that kept a trial from being made.
	err error
}

// prepare gives it copies of a host's policy and, if any, trust policies.
func (v *victim) prepare(policies, trusted string) error {
	etc := filepath.Join(v.root, "etc")
	if err := copyDir(filepath.Join(etc, "policy.d"), policies); err != nil {
		return err
	}
	if trusted == "" {
		return nil
	}
	return copyDir(filepath.Join(etc, "trust.d"), trusted)
}

// result is how a command ended.
type result struct {
	code int
	said string
}

// do runs a program to its end in the victim's name.
func (v *victim) do(program string, args ...string) result {
	ctx, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + v.cfg.Dir, "WARD_ROOT=" + v.root, "LANG=C.UTF-8"}
	cmd.Dir, cmd.WaitDelay = v.cfg.Dir, 5*time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		v.fail(fmt.Errorf("%s %s: %w", filepath.Base(program), strings.Join(args, " "), errors.Join(err, ctx.Err())))
		return result{-1, out.String()}
	}
	return result{cmd.ProcessState.ExitCode(), out.String()}
}

func (v *victim) fail(err error) {
	if v.err == nil {
		v.err = err
	}
}

func (v *victim) ward(args ...string) result { return v.do(v.cfg.Ward, args...) }

// must runs a command that a trial needs and that is none.
func (v *victim) must(args ...string) {
	if r := v.ward(args...); r.code != 0 {
		v.fail(fmt.Errorf("ward %s: exit %d: %s", strings.Join(args, " "), r.code, short(r.said)))
	}
}

// add makes a trial and adds it to the proof, unless something kept it, or one
// before it, from being made: what was not tried came out in no way.
func (v *victim) add(p *Proof, t Trial, program string, args ...string) {
	if v.err != nil {
		return
	}
	if t = v.try(t, program, args...); v.err == nil {
		p.Trials = append(p.Trials, t)
	}
}

// try makes one trial: the command, and what the audit log says of it.
func (v *victim) try(t Trial, program string, args ...string) Trial {
	v.refusal() // what came before is not about this
	r := v.do(program, args...)
	t.In = r.code == 0
	t.GotClass, t.GotRule = v.refusal()
	if !t.OK() {
		t.Said = short(r.said)
	}
	return t
}

// refusal is the last refusal on record since it was asked for last.
func (v *victim) refusal() (class, rule string) {
	err := audit.Read(filepath.Join(v.root, "lib", "audit"), v.seen, func(e audit.Entry) error {
		v.seen = e.Index + 1
		var d struct{ Outcome, Class, Rule string }
		switch e.Type {
		case audit.RunDenied, audit.ExecDenied, audit.ImagePullDenied, audit.GateDecision:
			if err := json.Unmarshal(e.Data, &d); err != nil {
				return err
			}
			if d.Rule != "" {
				class, rule = d.Class, d.Rule
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, audit.ErrNoLog) {
		v.fail(err)
	}
	return class, rule
}

// flip changes a bit of a file in place, and flip again changes it back.
func (v *victim) flip(path string) {
	b, err := os.ReadFile(path)
	if err == nil && len(b) > 0 {
		f, ferr := os.OpenFile(path, os.O_WRONLY, 0)
		if err = ferr; err == nil {
			_, err = f.WriteAt([]byte{b[len(b)/2] ^ 1}, int64(len(b)/2))
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		v.fail(err)
	}
}

// blob is a file of its image store.
func (v *victim) blob(digest string) string {
	return filepath.Join(v.root, "lib", "images", "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
}

// end removes what still runs.
func (v *victim) end() {
	v.ctx = context.WithoutCancel(v.ctx)
	r := v.ward("ps", "-aq")
	for _, id := range strings.Fields(r.said) {
		if r.code == 0 {
			v.ward("rm", "-f", id)
		}
	}
}
