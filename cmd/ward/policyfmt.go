package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/policy"
)

// layingOut is what is done with the files that would look different.
type layingOut struct{ list, diff, write, fail bool }

func newPolicyFmt(*app) *cobra.Command {
	var f layingOut
	cmd := &cobra.Command{
		Use: "fmt [OPTIONS] [FILE|DIR...]", Short: "Lay out Rego files as opa fmt does; without a FILE, standard input",
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.list && f.diff || f.write && (f.list || f.diff) {
				return usage("of --list, --diff and --write only one can be given")
			}
			if len(args) == 0 {
				return f.stdin(cmd)
			}
			changed := 0
			for _, arg := range args {
				err := filepath.WalkDir(arg, func(path string, d fs.DirEntry, err error) error {
					if err != nil {
						return fault.Wrap(fault.NotFound, "policy.missing", err, "name a Rego file, or a directory of them")
					}
					if d.IsDir() || filepath.Ext(path) != ".rego" {
						return nil
					}
					did, err := f.file(cmd.OutOrStdout(), path)
					if did {
						changed++
					}
					return err
				})
				if err != nil {
					return err
				}
			}
			if f.fail && changed > 0 {
				return exitCode(1)
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.list, "list", "l", false, "name the files that would change")
	fs.BoolVarP(&f.diff, "diff", "d", false, "show what would change")
	fs.BoolVarP(&f.write, "write", "w", false, "change the files")
	fs.BoolVar(&f.fail, "fail", false, "exit with 1 if anything would change")
	return cmd
}

func (f layingOut) stdin(cmd *cobra.Command) error {
	if f.write || f.list {
		return usage("standard input has no file to write or to name")
	}
	text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), policy.MaxFile+1))
	if err != nil {
		return err
	}
	out, err := policy.Format("standard input", text)
	if err != nil {
		return err
	}
	if err := f.show(cmd.OutOrStdout(), "stdin", text, out); err != nil {
		return err
	}
	if f.fail && !bytes.Equal(text, out) {
		return exitCode(1)
	}
	return nil
}

// file does one, and says whether it is not laid out as it should be.
func (f layingOut) file(w io.Writer, path string) (bool, error) {
	st, err := os.Lstat(path)
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return false, fault.Wrap(fault.Invalid, "policy.unreadable", err, "name a Rego file")
	}
	if st.Size() > policy.MaxFile {
		return false, invalid("policy.size", fmt.Sprintf("%s is larger than %d bytes", path, policy.MaxFile), "split it")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return false, fault.Wrap(fault.Invalid, "policy.unreadable", err, "")
	}
	out, err := policy.Format(path, text)
	if err != nil {
		return false, err
	}
	changed := !bytes.Equal(text, out)
	if changed && f.write {
		// Whole or not at all: half a policy must not come into force.
		return true, fsx.WriteFile(path, out, st.Mode().Perm())
	}
	if f.write || f.list && !changed {
		return changed, nil
	}
	if f.list {
		_, err := fmt.Fprintln(w, printable(path))
		return true, err
	}
	return changed, f.show(w, path, text, out)
}

func (f layingOut) show(w io.Writer, name string, before, after []byte) error {
	out := after
	if f.diff {
		out = diff.Diff(name+".orig", before, name, after)
	}
	_, err := w.Write(out) // as it is: what is written on is a policy
	return err
}
