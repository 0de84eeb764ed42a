package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/policy"
)

// policies are a Decider that refuses what policy bundles that were rolled back
// decide. Which bundle of a name was the newest is in the audit log; newest.json
// only saves reading it.
type policies struct {
	inner  Decider
	layout Layout
	log    Recorder
	// silent says that nothing is recorded, and so no bundle becomes the newest.
	silent bool
}

// Policies is a Decider over the shipped policies and the policy directory. A
// bundle that is newer than all before is put on record before it decides.
func Policies(l Layout, log Recorder) Decider {
	return &policies{inner: PolicyDir(l.Policy()), layout: l, log: log}
}

func (p *policies) Decide(ctx context.Context, in policy.Input) (policy.Decision, error) {
	dec, err := p.inner.Decide(ctx, in)
	if err != nil {
		return policy.Decision{}, err
	}
	newest, known, err := p.layout.newest()
	if err != nil {
		return policy.Decision{}, err
	}
	bundles := dec.Bundles()
	if !known && len(bundles) == 0 {
		return dec, nil
	}
	if !known {
		if newest, err = newestOnRecord(p.layout); err != nil {
			return policy.Decision{}, err
		}
		// Remembered now, so that taking the bundle away too is noticed.
		if !p.silent && len(newest) > 0 {
			if err := p.layout.changeNewest(ctx, func(policy.Newest) error { return nil }); err != nil {
				return policy.Decision{}, err
			}
		}
	}
	newer, err := newest.Check(bundles)
	if err != nil {
		return policy.Decision{}, err
	}
	if len(newer) > 0 && !p.silent {
		err = p.advance(ctx, bundles)
	}
	if err != nil {
		return policy.Decision{}, err
	}
	return dec, nil
}

// quietly is a Decider for questions that are not put on record.
func quietly(d Decider) Decider {
	if p, ok := d.(*policies); ok {
		quiet := *p
		quiet.silent = true
		return &quiet
	}
	return d
}

// advance records bundles that are newer than all before, then remembers them:
// a record too many does no harm, one too few would.
func (p *policies) advance(ctx context.Context, bundles []policy.Bundle) error {
	return p.layout.changeNewest(ctx, func(newest policy.Newest) error {
		newer, err := newest.Check(bundles) // somebody else may have been faster
		if err != nil {
			return err
		}
		for _, b := range newer {
			if err := recordBundle(ctx, p.log, audit.PolicyBundle, newest[b.Name], b); err != nil {
				return err
			}
			newest[b.Name] = b
		}
		return nil
	})
}

// recordBundle returns when it is on record that a bundle was changed.
func recordBundle(ctx context.Context, log Recorder, change string, was, now policy.Bundle) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err := log.Append(ctx, audit.Record{Type: audit.PolicyChange, Actor: audit.Caller(), Data: audit.PolicyEvent{
		Change: change, Revision: now.Revision, Previous: was.Revision, Bundle: rawJSON(now),
	}})
	if err != nil {
		return fault.Wrap(fault.Unrecorded, "audit.append", err, "a change of policy counts only once it is on record: see ward audit verify")
	}
	return nil
}

func (l Layout) newestFile() string { return filepath.Join(l.Lib, "policy", "newest.json") }

// maxNewest bounds the file: a few hundred bytes a bundle.
const maxNewest = 1 << 20

// newest are the newest bundles as they are remembered.
func (l Layout) newest() (n policy.Newest, known bool, err error) {
	b, err := os.ReadFile(l.newestFile())
	if errors.Is(err, fs.ErrNotExist) {
		return policy.Newest{}, false, nil
	}
	if err == nil && len(b) > maxNewest {
		err = fmt.Errorf("it is larger than %d bytes", maxNewest)
	}
	if err == nil {
		err = json.Unmarshal(b, &n)
	}
	if err == nil && n == nil {
		err = errors.New("it holds nothing")
	}
	if err != nil {
		return nil, false, fault.Wrap(fault.Invalid, "policy.newest", fmt.Errorf("%s: %w", l.newestFile(), err), "remove it: it is made anew from the audit log")
	}
	return n, true, nil
}

// newestOnRecord reads the whole log for what became of bundles.
func newestOnRecord(l Layout) (policy.Newest, error) {
	n := policy.Newest{}
	err := audit.Read(l.Audit(), 0, func(e audit.Entry) error {
		if e.Type != audit.PolicyChange || !bytes.Contains(e.Data, []byte(`"bundle":`)) {
			return nil
		}
		var ev audit.PolicyEvent
		var b policy.Bundle
		if err := json.Unmarshal(e.Data, &ev); err != nil {
			return err
		}
		if err := json.Unmarshal(ev.Bundle, &b); err != nil {
			return err
		}
		if n[b.Name] = b; ev.Change == audit.PolicyUnsafeRemove {
			delete(n, b.Name)
		}
		return nil
	})
	if errors.Is(err, audit.ErrNoLog) {
		return n, nil
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unrecorded, "audit.read", fmt.Errorf("which policy bundles were in force: %w", err), "see ward audit verify")
	}
	return n, nil
}

// lockWait is how long a change of what is remembered waits for another.
const lockWait = 10 * time.Second

// changeNewest changes what is remembered, one process at a time.
func (l Layout) changeNewest(ctx context.Context, change func(policy.Newest) error) error {
	dir := filepath.Dir(l.newestFile())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fault.Wrap(fault.Unrecorded, "policy.newest", err, "make "+dir+" writable: which bundle was the newest has to be remembered")
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	lock, err := fsx.WaitLock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return fault.Wrap(fault.Unavailable, "policy.newest", err, "try again")
	}
	defer lock.Unlock()
	newest, known, err := l.newest()
	if err == nil && !known {
		newest, err = newestOnRecord(l)
	}
	if err != nil {
		return err
	}
	if err := change(newest); err != nil {
		return err
	}
	b, err := json.Marshal(newest)
	if err == nil {
		err = fsx.WriteFile(l.newestFile(), b, 0o644)
	}
	if err != nil {
		return fault.Wrap(fault.Unrecorded, "policy.newest", err, "make "+dir+" writable: which bundle was the newest has to be remembered")
	}
	return nil
}

// InstallBundle puts a signed bundle into the policy directory, on record,
// unless one of its name that is newer was there. With unsafeRollback it goes
// back to an older one, and the record says so.
func InstallBundle(ctx context.Context, l Layout, log Recorder, name string, archive []byte, unsafeRollback bool) (policy.Bundle, error) {
	b, err := policy.TryBundle(policy.Config{Dir: l.Policy()}, name, archive)
	if err != nil {
		return b, err
	}
	err = l.changeNewest(ctx, func(newest policy.Newest) error {
		was := newest[name]
		_, refused := policy.Newest{name: was}.Check([]policy.Bundle{b})
		change := audit.PolicyBundle
		if _, known := newest[name]; known && refused != nil {
			if !unsafeRollback {
				return refused
			}
			change = audit.PolicyUnsafeRollback
		}
		if err := recordBundle(ctx, log, change, was, b); err != nil {
			return err
		}
		newest[name] = b
		return nil
	})
	if err != nil {
		return b, err
	}
	// Only now: until then the bundle before it holds.
	if err := os.MkdirAll(l.Policy(), 0o755); err != nil {
		return b, fault.Wrap(fault.Invalid, "policy.bundle", err, "make the policy directory writable")
	}
	if err := fsx.WriteFile(policy.BundleFile(l.Policy(), name), archive, 0o644); err != nil {
		return b, fault.Wrap(fault.Invalid, "policy.bundle", err, "make the policy directory writable, and install it again")
	}
	return b, nil
}

// UnsafeRemoveBundle gives a bundle up, on record: what it denied is not denied
// any more.
func UnsafeRemoveBundle(ctx context.Context, l Layout, log Recorder, name string) error {
	file := policy.BundleFile(l.Policy(), name)
	err := l.changeNewest(ctx, func(newest policy.Newest) error {
		was, known := newest[name]
		if _, err := os.Lstat(file); !known && err != nil {
			return fault.New(fault.NotFound, "policy.bundle", fmt.Sprintf("there is no policy bundle %.80q", name), "ward policy bundle list names them")
		}
		was.Name = name
		if err := recordBundle(ctx, log, audit.PolicyUnsafeRemove, was, was); err != nil {
			return err
		}
		delete(newest, name)
		return nil
	})
	if err != nil {
		return err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.Invalid, "policy.bundle", err, "make the policy directory writable, and remove it again")
	}
	return nil
}
