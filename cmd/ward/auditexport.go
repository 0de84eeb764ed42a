package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/audit/export"
	"github.com/ward-project/ward/internal/fault"
)

// exportTokenEnv holds a token for the receiver; --token-file names a file with
// one. An argument would be seen by everybody on the host.
const exportTokenEnv = "WARD_EXPORT_TOKEN"

type exportFlags struct {
	to, format, name, from, key, tokenFile, rotate string
	follow, noRecord                               bool
	batch                                          int
	maxBytes                                       int
	patience                                       time.Duration
	options                                        export.Options
}

func newAuditExport(a *app) *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use: "export --to DESTINATION [OPTIONS]", Short: "Give the records to another system, at least once and in order", Args: exactly(0, "no arguments"),
		Long: "Sends every record to DESTINATION, and remembers how far it acknowledged: \"-\" (standard output), a file, a\n" +
			"directory (with \"/\" at its end: one sealed file for each batch), syslog+tls://HOST:PORT, syslog+tcp:// (loopback),\n" +
			"syslog+unix:///SOCKET, journald://, otlp+https://HOST:PORT, otlp+http:// (loopback), https://, http:// (loopback),\n" +
			"nats+tls://HOST:PORT/SUBJECT, nats:// (loopback).\n" +
			"Exit 0 all sent, 1 refused by the receiver, 2 usage, 3 receiver unavailable, 5 the log is damaged.",
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.config(a, cmd)
			if err != nil {
				return err
			}
			return exported(cmd, cfg, export.Run(cmd.Context(), cfg))
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.to, "to", "", "where to: a path, \"-\", or a URL")
	fs.StringVar(&f.format, "format", "jsonl", "`schema`: "+strings.Join(export.Formats(), ", "))
	fs.BoolVarP(&f.follow, "follow", "f", false, "go on with what is recorded from now on")
	fs.StringVar(&f.name, "name", "", "cursor's `name`, for several exports to one destination; standard output has no cursor without it")
	fs.StringVar(&f.from, "from", "0", "first `index` for a new cursor, or now")
	fs.StringVar(&f.key, "log-key", "", "the log's public `key`, or a file with it")
	fs.StringVar(&f.options.CA, "ca", "", "PEM `file` with the authorities that may vouch for the receiver, in place of the system's")
	fs.StringVar(&f.options.Cert, "cert", "", "PEM `file` with a client certificate")
	fs.StringVar(&f.options.Key, "key", "", "PEM `file` with its key")
	fs.StringVar(&f.tokenFile, "token-file", "", "`file` with the receiver's token (or set "+exportTokenEnv+")")
	fs.StringVar(&f.options.HTTPStyle, "http-style", "ndjson", "what http:// and https:// speak: hec, elastic, loki, ndjson")
	fs.StringVar(&f.options.Index, "index", "ward-audit", "`index` or data stream of --http-style elastic")
	fs.StringVar(&f.rotate, "rotate", "", "put a file aside when it has this `size` (64m)")
	fs.IntVar(&f.batch, "batch", 500, "how many records are sent at once")
	fs.IntVar(&f.maxBytes, "max-bytes", 0, "leave the record itself out of an event that is larger")
	fs.BoolVar(&f.noRecord, "no-record", false, "leave all records out: what they say in short, and their hashes")
	fs.DurationVar(&f.patience, "patience", 0, "how long to try a receiver that does not answer (default 1m; with --follow for ever)")
	cmd.AddCommand(newExportStatus(a), newExportForget(a))
	return cmd
}

func (f *exportFlags) config(a *app, cmd *cobra.Command) (export.Config, error) {
	var cfg export.Config
	l, err := a.layout()
	if err != nil {
		return cfg, err
	}
	if f.to == "" {
		return cfg, usage("ward audit export needs --to")
	}
	if f.options.Format, err = export.ParseFormat(f.format); err != nil {
		return cfg, exportFault(err)
	}
	if f.options.Token, err = exportToken(f.tokenFile); err != nil {
		return cfg, err
	}
	if f.rotate != "" {
		if f.options.RotateBytes, err = units.RAMInBytes(f.rotate); err != nil {
			return cfg, usage("--rotate: %v", err)
		}
	}
	vkey, _, err := verifierKey(l, f.key)
	if err != nil {
		return cfg, err
	}
	cfg = export.Config{
		Dir: l.Audit(), VKey: vkey, Name: f.name, Format: f.options.Format, Follow: f.follow,
		Batch: f.batch, MaxBytes: f.maxBytes, NoRecord: f.noRecord, Patience: f.patience,
		Say: func(s string) { fmt.Fprintln(cmd.ErrOrStderr(), "ward: "+printable(s)) },
	}
	if cfg.To, err = export.ParseDestination(f.to, f.options); err != nil {
		return cfg, exportFault(err)
	}
	if cfg.Name == "" && f.to != "-" {
		sum := sha256.Sum256([]byte(cfg.To.Name + "\n" + f.format))
		cfg.Name = f.format + "-" + hex.EncodeToString(sum[:6])
	}
	if cfg.Patience == 0 && !f.follow {
		cfg.Patience = time.Minute
	}
	if f.from == "now" {
		cfg.Now = true
	} else if _, err := fmt.Sscanf(f.from, "%d", &cfg.From); err != nil || fmt.Sprint(cfg.From) != f.from || cfg.From < 0 {
		return cfg, usage("--from %.32q is not an index, nor now", f.from)
	}
	return cfg, nil
}

// exportToken reads a secret from a file or the environment.
func exportToken(file string) (string, error) {
	if file == "" {
		return os.Getenv(exportTokenEnv), nil
	}
	f, err := os.Open(file)
	if err != nil {
		return "", invalid("export.token", err.Error(), "name a file with the receiver's token")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 16<<10+1))
	token := strings.TrimSpace(string(b))
	if err != nil || len(b) > 16<<10 || token == "" {
		return "", invalid("export.token", file+" holds no token", "put the token into it, on one line")
	}
	return token, nil
}

// exported gives an export's end its class and exit code.
func exported(cmd *cobra.Command, cfg export.Config, err error) error {
	if errors.Is(err, audit.ErrDamaged) {
		fmt.Fprintln(cmd.ErrOrStderr(), "ward: export stopped: "+printable(err.Error())+
			"\n  remedy: see ward audit verify; to begin with another log on purpose: ward audit export forget "+cfg.Name)
		return exitCode(fault.LogDamaged)
	}
	return exportFault(err)
}

func exportFault(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, export.ErrConfig), errors.Is(err, audit.ErrInvalid):
		return fault.Wrap(fault.Invalid, "export.usage", err, "see ward audit export --help")
	case errors.Is(err, export.ErrCursor):
		return fault.Wrap(fault.Invalid, "export.cursor", err, "choose another --name, or begin anew: ward audit export forget NAME")
	case errors.Is(err, audit.ErrNoLog):
		return fault.Wrap(fault.NotFound, "export.log", err, "there is a log after the first command of a new ward")
	case errors.Is(err, export.ErrLocked):
		return fault.Wrap(fault.Unavailable, "export.locked", err, "stop the other one, or choose another --name")
	case errors.Is(err, export.ErrRefused):
		return fault.Wrap(fault.Denied, "export.refused", err, "mend what the receiver says, then export again: nothing was skipped")
	case errors.Is(err, export.ErrUnavailable):
		return fault.Wrap(fault.Unavailable, "export.unavailable", err, "export again when it is there: nothing was skipped")
	}
	return err
}

func newExportStatus(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "status", Short: "Say how far each destination is behind, and what is wrong with it", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			list, err := export.List(l.Audit())
			if err != nil {
				return exportFault(err)
			}
			if format == "json" {
				return indented(cmd.OutOrStdout(), list)
			}
			var rows []row
			for _, s := range list {
				state := "stopped"
				if s.Running {
					state = "running"
				}
				if s.Error != "" {
					state = "failing"
				}
				rows = append(rows, row{"Name": s.Name, "State": state, "Next": s.Next, "Lag": s.Lag, "Format": s.Format, "To": printable(s.To), "Error": printable(s.Error)})
			}
			return listing(cmd.OutOrStdout(), format, []column{{"NAME", "Name"}, {"STATE", "State"}, {"NEXT", "Next"}, {"LAG", "Lag"}, {"FORMAT", "Format"}, {"TO", "To"}, {"ERROR", "Error"}}, rows)
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "json, or a Go template")
	return cmd
}

func newExportForget(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "forget NAME", Short: "Remove a cursor, so that its export begins anew", Args: exactly(1, "the NAME of a cursor"),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.layout()
			if err != nil {
				return err
			}
			return exportFault(export.Forget(l.Audit(), args[0]))
		},
	}
}
