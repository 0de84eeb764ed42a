package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
)

// pinned is where this host keeps its log's public key, away from the log: a
// log checked against a key that lies in it proves nothing.
func pinned(l engine.Layout) string { return filepath.Join(l.Etc, "audit.vkey") }

func newAuditVerify(a *app) *cobra.Command {
	var dir, key, origin, proof, seen string
	var minSize int64
	var every bool
	var w witnessed
	cmd := &cobra.Command{
		Use: "verify [OPTIONS]", Short: "Check every byte of the log, or a receipt: exit 0 whole, 5 damaged", Args: exactly(0, "no arguments"),
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			vkey, from, err := verifierKey(l, key)
			if err != nil {
				return err
			}
			if proof != "" {
				return verifyReceipt(cmd, proof, vkey)
			}
			if dir == "" {
				dir = l.Audit()
			}
			want := audit.Expect{VKey: vkey, Origin: origin, MinSize: minSize, EverySignature: every}
			if seen != "" {
				b, err := readCheckpoint(seen)
				if err != nil {
					return err
				}
				want.Checkpoints = append(want.Checkpoints, b)
			}
			if err := w.read(l, dir, &want); err != nil {
				return err
			}
			r, err := audit.Verify(dir, want)
			if errors.Is(err, audit.ErrDamaged) {
				return damaged(cmd, err)
			}
			if err != nil {
				return invalid("audit.verify", err.Error(), "name the log with --dir and its key with --key")
			}
			fmt.Fprintf(cmd.OutOrStdout(), "whole: %d records in %d commits, %d bytes\n  origin %s\n  root   %s\n  key    from %s\n  level  %s\n",
				r.Size, r.Commits, r.Bytes, r.Origin, r.Root, from, w.level(r))
			return w.demand()
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&dir, "dir", "", "check the log in this `directory`, not this host's")
	fs.StringVar(&key, "key", "", "the log's public `key`, or a file with it")
	fs.StringVar(&origin, "origin", "", "the log's `name`; the key's unless given")
	fs.Int64Var(&minSize, "min-size", 0, "how many records it is known to have had")
	fs.StringVar(&seen, "checkpoint", "", "a checkpoint `file` kept elsewhere: the log must continue what it was signed for")
	fs.BoolVar(&every, "all-signatures", false, "check every checkpoint's signature, not the last one's")
	w.register(fs)
	fs.StringVar(&proof, "receipt", "", "check a receipt `file` from ward audit prove instead; needs only the key")
	return cmd
}

// verifierKey is the key given, or the one pinned on this host.
func verifierKey(l engine.Layout, key string) (vkey, from string, err error) {
	from = key
	if key == "" {
		from = pinned(l)
	} else if strings.Count(key, "+") >= 2 && !exists(key) {
		return key, "the command line", nil
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return "", "", invalid("audit.key", "no key to check with: "+err.Error(), "give the log's public key with --key")
	}
	return strings.TrimSpace(string(b)), from, nil
}

// maxReceipt bounds a receipt that is read from a file.
const maxReceipt = 256 << 10

func verifyReceipt(cmd *cobra.Command, path, vkey string) error {
	f, err := os.Open(path)
	if err != nil {
		return invalid("audit.receipt", err.Error(), "name a file made by ward audit prove")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxReceipt))
	if err != nil {
		return err
	}
	r, err := receipt.Parse(b)
	var s receipt.Statement
	if err == nil {
		s, err = r.Verify(vkey)
	}
	if err != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "ward: receipt: "+printable(err.Error()))
		return exitCode(fault.LogDamaged)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "proved: record %d of the %d in log %s\n  %s\n", s.Index, s.TreeSize, s.Origin, printable(string(s.Leaf)))
	return nil
}

// ownKey is this host's layout, and the public key of its log.
func (a *app) ownKey() (engine.Layout, string, error) {
	l, err := a.layout()
	if err != nil {
		return l, "", err
	}
	vkey, _, err := verifierKey(l, "")
	return l, vkey, err
}
