package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/verify"
)

// app is what the commands share: where this ward keeps its things, and how
// to open each part of it.
type app struct{ root string }

func (a *app) layout() (engine.Layout, error) { return engine.NewLayout(a.root) }

// log opens the audit log. The first command of a new ward creates it; a ward
// that has any other state and no log is one whose log was taken away, and
// nothing is done there until somebody says so with "ward audit init".
func (a *app) log(ctx context.Context) (*audit.Log, error) {
	l, err := a.layout()
	if err != nil {
		return nil, err
	}
	log, err := audit.Open(l.Audit())
	if errors.Is(err, audit.ErrNoLog) {
		if err = a.createLog(ctx, l, false); err == nil {
			log, err = audit.Open(l.Audit())
		}
	}
	if err != nil {
		return nil, unrecordable(l, err)
	}
	return log, nil
}

// createLog makes the log of a new ward; with force also where state exists.
func (a *app) createLog(ctx context.Context, l engine.Layout, force bool) error {
	if err := os.MkdirAll(l.Lib, 0o711); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	lock, err := fsx.WaitLock(ctx, filepath.Join(l.Lib, "lock"))
	if err != nil {
		return err
	}
	defer lock.Unlock()
	es, err := os.ReadDir(l.Lib)
	if err != nil {
		return err
	}
	for _, e := range es {
		if !force && e.Name() != "lock" && e.Name() != "audit" {
			return audit.ErrNoLog
		}
	}
	// The key of an earlier log, pinned elsewhere, outlives all of Lib: taking
	// the log away whole must not look like a new ward, nor replace the pin.
	if !force && !exists(l.Audit()) && exists(pinned(l)) {
		return audit.ErrNoLog
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	err = audit.Create(audit.Config{Dir: l.Audit(), Host: host})
	if errors.Is(err, os.ErrExist) && !force {
		return nil // somebody was faster, or it is damaged: opening will say
	}
	if err != nil {
		return err
	}
	return pinKey(l)
}

// pinKey keeps the new log's public key outside of it, for ward audit verify.
func pinKey(l engine.Layout) error {
	vkey, err := audit.VKey(l.Audit())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.Etc, 0o755); err != nil {
		return err
	}
	return fsx.WriteFile(pinned(l), []byte(vkey+"\n"), 0o644)
}

// unrecordable says why nothing can be recorded, and so nothing done.
func unrecordable(l engine.Layout, err error) error {
	remedy := "see ward audit verify"
	switch {
	case errors.Is(err, audit.ErrNoLog):
		remedy = "restore " + l.Audit() + " from a backup, or begin a new log on purpose: ward audit init"
	case errors.Is(err, audit.ErrKey):
		remedy = "restore the signing key in " + l.Audit() + "; it is never made anew for an existing log"
	case errors.Is(err, audit.ErrReadOnly):
		remedy = "make " + l.Audit() + " writable for this user"
	case errors.Is(err, audit.ErrFull):
		remedy = "free space on the file system of " + l.Audit()
	}
	return fault.Wrap(fault.Unrecorded, "audit.open", fmt.Errorf("audit log %s: %w", l.Audit(), err), remedy)
}

// store opens the image store. In a new ward the log comes first, also for a
// command that records nothing: state without a log looks like a log taken
// away.
func (a *app) store(ctx context.Context) (*images.Store, error) {
	l, err := a.layout()
	if err != nil {
		return nil, err
	}
	if !exists(l.Audit()) {
		log, err := a.log(ctx)
		if err != nil {
			return nil, err
		}
		if err := log.Close(); err != nil {
			return nil, err
		}
	}
	return openStore(l)
}

func openStore(l engine.Layout) (*images.Store, error) {
	return images.Open(images.Config{Dir: l.Images(), CertsDir: filepath.Join(l.Etc, "certs.d")})
}

func (a *app) verifier() (*verify.Verifier, error) {
	l, err := a.layout()
	if err != nil {
		return nil, err
	}
	v, err := verify.Open(l.Trust())
	if err != nil {
		return nil, err
	}
	return v.WithRego(policy.Inline{}), nil
}

func (a *app) policies() (*policy.Engine, error) {
	l, err := a.layout()
	if err != nil {
		return nil, err
	}
	return policy.Open(policy.Config{Dir: l.Policy()})
}

// engine opens every part. The log comes first: what cannot be recorded is
// not even looked at.
func (a *app) engine(ctx context.Context) (*engine.Engine, *audit.Log, error) {
	log, err := a.log(ctx)
	if err != nil {
		return nil, nil, err
	}
	l, err := a.layout()
	if err != nil {
		return nil, nil, err
	}
	e, err := a.assemble(l, log)
	return e, log, err
}

func (a *app) assemble(l engine.Layout, log *audit.Log) (*engine.Engine, error) {
	store, err := openStore(l)
	if err != nil {
		return nil, err
	}
	launcher, err := engine.LauncherPath()
	if err != nil {
		return nil, err
	}
	return engine.New(engine.Config{
		Layout: l, Resolver: store, Rootfs: store, Log: log, Floor: sandbox.DefaultFloor(),
		Verifier: engine.TrustDir(l.Trust()), Decider: engine.Policies(l, log), Launcher: engine.LauncherAt(launcher),
		Keep: a.startKeeper,
	})
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// printable keeps names and messages of others from driving the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}
