// Command logtools has other people's code judge what ward says of its audit
// log: Tessera's fsck reads a published log, torchwood checks a receipt. It is
// in a module of its own: nothing of this is linked into ward.
//
//	logtools fsck VKEY DIRECTORY
//	logtools proof VKEY ENTRY PROOF
//	logtools known VKEY DATABASE	has a litewitness know the log
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"filippo.io/torchwood"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "logtools:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return errors.New("usage: logtools fsck VKEY DIRECTORY | proof VKEY ENTRY PROOF | known VKEY DATABASE")
	}
	v, err := note.NewVerifier(args[1])
	if err != nil {
		return err
	}
	switch {
	case args[0] == "fsck" && len(args) == 3:
		return check(v, args[2])
	case args[0] == "proof" && len(args) == 4:
		return prove(v, args[2], args[3])
	case args[0] == "known" && len(args) == 3:
		return known(v.Name(), args[1], args[2])
	}
	return errors.New("unknown command " + args[0])
}

// check has Tessera read every file and compare every hash. With one worker it
// waits for ever on a damaged file, so it gets four, and a bound.
func check(v note.Verifier, dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- fsck.New(v.Name(), v, &client.FileFetcher{Root: dir}, leaves, fsck.Opts{N: 4}).Check(ctx)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func leaves(bundle []byte) ([][]byte, error) {
	var b api.EntryBundle
	if err := b.UnmarshalText(bundle); err != nil {
		return nil, err
	}
	var out [][]byte
	for _, e := range b.Entries {
		out = append(out, rfc6962.DefaultHasher.HashLeaf(e))
	}
	return out, nil
}

func prove(v note.Verifier, entry, proof string) error {
	e, err := os.ReadFile(entry)
	if err != nil {
		return err
	}
	p, err := os.ReadFile(proof)
	if err != nil {
		return err
	}
	policy := torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(v.Name()), torchwood.SingleVerifierPolicy(v))
	return torchwood.VerifyProof(policy, tlog.RecordHash(e), p)
}

// known does what witnessctl would, which cannot be built: its other half is
// not on the module proxy.
func known(origin, vkey, database string) error {
	db, err := sqlite.OpenConn(database, sqlite.OpenReadWrite)
	if err != nil {
		return err
	}
	defer db.Close()
	empty, err := tlog.TreeHash(0, nil)
	if err != nil {
		return err
	}
	if err := sqlitex.Execute(db, "INSERT INTO log (origin, tree_size, tree_hash) VALUES (?, 0, ?)", &sqlitex.ExecOptions{Args: []any{origin, empty.String()}}); err != nil {
		return err
	}
	return sqlitex.Execute(db, "INSERT INTO key (origin, key) VALUES (?, ?)", &sqlitex.ExecOptions{Args: []any{origin, vkey}})
}
