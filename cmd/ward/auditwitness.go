package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/mod/sumdb/note"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/audit/witness"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
)

// witnessPolicy is where this host's witnesses are named.
func witnessPolicy(l engine.Layout) string { return filepath.Join(l.Etc, "witness.policy") }

// cosignedDir is where a log's cosigned checkpoints lie.
func cosignedDir(log string) string { return filepath.Join(log, "witness") }

// readWitnesses reads a witness policy; false if there is no file.
func readWitnesses(path, origin string) (witness.Policy, bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return witness.Policy{}, false, nil
	}
	var p witness.Policy
	if err == nil {
		defer f.Close()
		var b []byte
		if b, err = io.ReadAll(io.LimitReader(f, witness.MaxPolicy+1)); err == nil {
			p, err = witness.ParsePolicy(b, origin)
		}
	}
	if err != nil {
		return p, false, invalid("witness.policy", path+": "+err.Error(), "correct the file; docs/audit-format.md describes it")
	}
	return p, true, nil
}

// witnessed is the part of ward audit verify that is about witnesses.
type witnessed struct {
	file    string
	require bool

	policy witness.Policy
	there  bool
	kept   []witness.Cosigned
	found  witness.Level
}

func (w *witnessed) register(fs *pflag.FlagSet) {
	fs.StringVar(&w.file, "witness-policy", "", "the witnesses and their quorum are in this `file`, not in this host's")
	fs.BoolVar(&w.require, "require-witnesses", false, "exit 1 unless the quorum of witnesses vouches for the log")
}

// read adds what witnesses have cosigned of the log in dir to what it must
// continue.
func (w *witnessed) read(l engine.Layout, dir string, want *audit.Expect) error {
	log, err := note.NewVerifier(want.VKey)
	if err != nil {
		return nil // said by what verifies with it
	}
	path := w.file
	if path == "" {
		path = witnessPolicy(l)
	}
	if w.policy, w.there, err = readWitnesses(path, log.Name()); err != nil {
		return err
	}
	if !w.there && (w.file != "" || w.require) {
		return invalid("witness.policy", path+" does not exist", "name the witnesses in it, or give --witness-policy FILE")
	}
	if w.kept, err = w.policy.Kept(cosignedDir(dir), log); err != nil {
		return invalid("witness.kept", err.Error(), "move the file away if you know why it does not verify")
	}
	for _, c := range w.kept {
		want.Checkpoints = append(want.Checkpoints, c.Note)
	}
	w.found = w.policy.Level(w.kept)
	return nil
}

// level says against whom the log holds.
func (w *witnessed) level(r audit.Report) string {
	alone := " (whoever holds the log's key could have rewritten it)"
	switch {
	case !w.there || len(w.policy.Witnesses) == 0:
		return r.Level + alone
	case !w.found.Met || w.found.Size == 0:
		return fmt.Sprintf("%s%s\n  witnesses: %d of %d signed, which is not the quorum", r.Level, alone, w.found.Cosigned, w.found.Witnesses)
	}
	return fmt.Sprintf("witnessed: %d of %d signed, their quorum vouches for the first %d records since %s\n  tail   %d records after them rest on the log's key alone",
		w.found.Cosigned, w.found.Witnesses, w.found.Size, w.found.Time.Format(time.RFC3339), r.Size-w.found.Size)
}

// demand refuses if witnesses were required and do not vouch.
func (w *witnessed) demand() error {
	if !w.require || w.found.Met && w.found.Size > 0 {
		return nil
	}
	return fault.New(fault.Unverified, "witness.quorum", fmt.Sprintf("%d of %d witnesses signed, which is not the quorum", w.found.Cosigned, w.found.Witnesses),
		"ask them: ward audit witness update")
}

func newAuditWitness(a *app) *cobra.Command {
	group := &cobra.Command{Use: "witness", Short: "Others who vouch for how far the log has come"}
	group.AddCommand(newWitnessUpdate(a), newWitnessList(a))
	return group
}

// withWitnesses reads what both commands need.
func (a *app) withWitnesses(do func(l engine.Layout, vkey string, log note.Verifier, p witness.Policy) error) error {
	l, vkey, err := a.ownKey()
	if err != nil {
		return err
	}
	log, err := note.NewVerifier(vkey)
	if err != nil {
		return invalid("audit.key", err.Error(), "restore "+pinned(l))
	}
	p, there, err := readWitnesses(witnessPolicy(l), log.Name())
	if err == nil && !there {
		err = invalid("witness.policy", witnessPolicy(l)+" does not exist", "name the witnesses in it; docs/audit-format.md describes it")
	}
	if err != nil {
		return err
	}
	return do(l, vkey, log, p)
}

func newWitnessUpdate(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "update", Short: "Have the witnesses sign the newest checkpoint: exit 0 quorum, 3 not", Args: exactly(0, "no arguments"),
		Long: "Asks each witness of witness.policy that has an address, and keeps what it signs. Let a timer do\n" +
			"it. A witness that has seen another log under this name ends it with exit 1, and is on record.",
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withWitnesses(func(l engine.Layout, vkey string, log note.Verifier, p witness.Policy) error {
				return a.askWitnesses(cmd, l, vkey, log, p)
			})
		},
	}
}

func (a *app) askWitnesses(cmd *cobra.Command, l engine.Layout, vkey string, log note.Verifier, p witness.Policy) error {
	dir := cosignedDir(l.Audit())
	proofs := map[int64][]byte{}
	proof := func(old int64) ([]byte, error) {
		if proofs[old] == nil {
			b, err := audit.Consistency(l.Audit(), vkey, old)
			if errors.Is(err, audit.ErrInvalid) {
				return nil, witness.ErrShorter
			}
			if err != nil {
				return nil, err
			}
			proofs[old] = b
		}
		return proofs[old], nil
	}
	var conflict error
	for _, w := range p.Witnesses {
		if w.URL == "" {
			continue
		}
		c, err := w.Update(cmd.Context(), dir, log, proof)
		if err != nil {
			switch f := fault.As(err); {
			case f.Rule == witness.RuleConflict:
				conflict = errors.Join(conflict, f, a.recordConflict(cmd.Context(), w.Name, f.Cause))
			case f.Class == fault.Unavailable: // others may be enough
				fmt.Fprintln(cmd.ErrOrStderr(), "ward: "+printable(err.Error()))
			default:
				return damaged(cmd, err)
			}
			continue
		}
		if err := say(cmd, printable(fmt.Sprintf("%s: %d records, %s", w.Name, c.Size, c.Time.Format(time.RFC3339)))); err != nil {
			return err
		}
	}
	if conflict != nil {
		return conflict
	}
	kept, err := p.Kept(dir, log)
	if err != nil {
		return invalid("witness.kept", err.Error(), "move the file away if you know why it does not verify")
	}
	if level := p.Level(kept); !level.Met {
		return fault.New(fault.Unavailable, "witness.quorum", fmt.Sprintf("%d of %d witnesses signed, which is not the quorum", level.Cosigned, level.Witnesses), "ask again later")
	}
	return nil
}

// recordConflict puts on record that a witness has seen another log.
func (a *app) recordConflict(ctx context.Context, name, cause string) error {
	log, err := a.log(ctx)
	if err != nil {
		return err
	}
	err = log.Append(ctx, audit.Record{Type: audit.WitnessConflict, Actor: audit.Caller(), Data: audit.WitnessEvent{Witness: name, Cause: cause}})
	return errors.Join(err, log.Close())
}

func newWitnessList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "Print how far each witness has signed", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withWitnesses(func(l engine.Layout, _ string, log note.Verifier, p witness.Policy) error {
				kept, err := p.Kept(cosignedDir(l.Audit()), log)
				if err != nil {
					return invalid("witness.kept", err.Error(), "move the file away if you know why it does not verify")
				}
				for _, w := range p.Witnesses {
					line := w.Name + "  nothing yet"
					for _, c := range kept {
						if c.Witness == w.Name {
							line = fmt.Sprintf("%s  %d records  %s", w.Name, c.Size, c.Time.Format(time.RFC3339))
						}
					}
					if err := say(cmd, printable(line+"  "+w.URL)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}
