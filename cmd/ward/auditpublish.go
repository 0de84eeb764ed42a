package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/fault"
)

// maxCheckpoint bounds a checkpoint that is read from a file; ours have 300 bytes.
const maxCheckpoint = 8 << 10

// readCheckpoint reads a checkpoint that somebody kept.
func readCheckpoint(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, invalid("audit.checkpoint", err.Error(), "name a file made by ward audit checkpoint")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCheckpoint+1))
	if err == nil && len(b) > maxCheckpoint {
		err = fmt.Errorf("%s has more than %d bytes", path, maxCheckpoint)
	}
	if err != nil {
		return nil, invalid("audit.checkpoint", err.Error(), "name a file made by ward audit checkpoint")
	}
	return b, nil
}

// damaged ends a command that found the log damaged as ward audit verify does.
func damaged(cmd *cobra.Command, err error) error {
	if errors.Is(err, audit.ErrDamaged) {
		fmt.Fprintln(cmd.ErrOrStderr(), "ward: "+printable(err.Error()))
		return exitCode(fault.LogDamaged)
	}
	return err
}

func newAuditPublish(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "publish DIRECTORY", Short: "Bring a directory up to date with the log as static files (C2SP tlog-tiles)", Args: exactly(1, "a DIRECTORY"),
		Long: "Writes what the directory does not have yet: records, hashes, and last the signed checkpoint. Any\n" +
			"web server can serve it, and any tool for C2SP tlog-tiles checks it. Whoever can read it reads the\n" +
			"records. A log that does not continue what the directory holds is refused: exit 5.",
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, args []string) error {
			l, vkey, err := a.ownKey()
			if err != nil {
				return err
			}
			p, err := audit.Publish(l.Audit(), args[0], vkey)
			if err := damaged(cmd, err); err != nil {
				return publishFault(err)
			}
			return say(cmd, fmt.Sprintf("published: %d records of %s, %d of them new, in %d files", p.Size, p.Origin, p.Size-p.Before, p.Files))
		},
	}
}

// publishFault gives an error that has no class one.
func publishFault(err error) error {
	var code exitCode
	if errors.As(err, &code) || fault.ClassOf(err) != fault.Internal {
		return err
	}
	return invalid("audit.publish", err.Error(), "name a directory that this log alone is published to")
}

func newAuditCheckpoint(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "checkpoint [OPTIONS]", Short: "Check the log and print its newest signed checkpoint, to be kept elsewhere", Args: exactly(0, "no arguments"),
		Long: "Kept where this host cannot change it, the checkpoint shows later whether what was recorded up to\n" +
			"now is still what the log says: ward audit verify --checkpoint FILE.",
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, vkey, err := a.ownKey()
			if err != nil {
				return err
			}
			r, err := audit.Verify(l.Audit(), audit.Expect{VKey: vkey})
			if err := damaged(cmd, err); err != nil {
				return err
			}
			if out == "" {
				_, err := cmd.OutOrStdout().Write(r.Checkpoint)
				return err
			}
			return os.WriteFile(out, r.Checkpoint, 0o644)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "write it to a `file`")
	return cmd
}

func newAuditConsistency(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "consistency SIZE", Short: "Prove that the log now continues the one that had SIZE records", Args: exactly(1, "a SIZE"),
		Long: "Prints the body of a C2SP tlog-witness add-checkpoint request: the old size, the consistency proof\n" +
			"and the newest checkpoint. Whoever kept a checkpoint of SIZE records checks it without the log.",
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, args []string) error {
			old, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return usage("SIZE is a number of records, not %.32q", args[0])
			}
			l, vkey, err := a.ownKey()
			if err != nil {
				return err
			}
			b, err := audit.Consistency(l.Audit(), vkey, old)
			if err := damaged(cmd, err); err != nil {
				return publishFault(err)
			}
			_, err = cmd.OutOrStdout().Write(b)
			return err
		},
	}
}
