package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/engine/oci"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// app is what the commands share: the global flags, and how to open what they
// need.
type app struct {
	debug, systemd                           bool
	logFile, logFormat, root, rootless, ward string

	log    *os.File
	layout engine.Layout
}

// open reads the global flags, before any command does anything.
func (a *app) open(*cobra.Command) error {
	if a.logFile != "" {
		f, err := os.OpenFile(a.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return fault.Wrap(fault.Invalid, "usage", err, "")
		}
		a.log = f
	}
	if a.logFormat != "text" && a.logFormat != "json" && a.logFormat != "" {
		return usage("invalid log-format: %s", a.logFormat)
	}
	switch a.rootless {
	case "auto", "":
	default:
		if _, err := strconv.ParseBool(a.rootless); err != nil {
			return usage("--rootless is true, false or auto, not %q", a.rootless)
		}
	}
	if os.Geteuid() != 0 {
		return fault.New(fault.Unavailable, "launcher.rootless", "running containers as an ordinary user is not there yet", "run it as root")
	}
	var err error
	if a.layout, err = engine.NewLayout(a.ward); err != nil {
		return err
	}
	if a.root == "" {
		a.root = filepath.Join(a.layout.Run, "oci")
	}
	if a.root, err = filepath.Abs(a.root); err != nil {
		return err
	}
	if a.root == "/" {
		return usage("Option --root argument should not be set to /")
	}
	return nil
}

// report says why nothing was done: in the log, in its format, and to whoever
// reads standard error.
func (a *app) report(msg string) {
	now := time.Now().Format(time.RFC3339)
	line := fmt.Sprintf("time=%q level=error msg=%q\n", now, msg)
	if a.logFormat == "json" {
		b, err := json.Marshal(struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
			Time  string `json:"time"`
		}{"error", msg, now})
		if err == nil {
			line = string(b) + "\n"
		}
	}
	if a.log == nil {
		fmt.Fprint(os.Stderr, line)
		return
	}
	if _, err := a.log.WriteString(line); err != nil {
		fmt.Fprintln(os.Stderr, "ward-oci: log:", err)
	}
	fmt.Fprintln(os.Stderr, msg)
}

func (a *app) launcher() (*sandbox.Launcher, error) {
	path, err := engine.LauncherPath()
	if err != nil {
		return nil, err
	}
	return sandbox.NewLauncher(path)
}

// gate opens every part of the gate. The log comes first: what cannot be
// recorded is not even looked at.
func (a *app) gate() (*oci.Gate, error) {
	log, err := a.audit()
	if err != nil {
		return nil, err
	}
	actor, err := oci.Caller()
	if err != nil {
		return nil, errors.Join(err, a.unknownCaller(log, err))
	}
	store, err := images.Open(images.Config{Dir: a.layout.Images(), CertsDir: filepath.Join(a.layout.Etc, "certs.d")})
	if err != nil {
		return nil, err
	}
	launcher, err := a.launcher()
	if err != nil {
		return nil, err
	}
	return oci.New(oci.Config{Layout: a.layout, Resolver: store, Verifier: engine.TrustDir(a.layout.Trust()),
		Decider: engine.Policies(a.layout, log), Log: log, Launcher: launcher, Actor: actor})
}

// cleaner is what kills and deletes: root's, which needs nothing but the log
// and the launcher, or that of a caller whom policy trusts.
func (a *app) cleaner(ctx context.Context, verb sandbox.OCIVerb, id string) (*oci.Cleaner, error) {
	actor := oci.Parent()
	if actor.UID != 0 || os.Getuid() != 0 { // of a double fork the parent is init
		g, err := a.gate()
		if err != nil {
			return nil, err
		}
		return g.Cleaner(ctx, verb, a.root, id)
	}
	log, err := a.audit()
	if err != nil {
		return nil, err
	}
	launcher, err := a.launcher()
	if err != nil {
		return nil, err
	}
	return oci.NewCleaner(oci.Config{Layout: a.layout, Log: log, Launcher: launcher, Actor: actor})
}

func (a *app) audit() (*audit.Log, error) {
	log, err := audit.Open(a.layout.Audit())
	if err != nil {
		remedy := "see ward audit verify"
		if errors.Is(err, audit.ErrNoLog) {
			remedy = "begin one: ward audit init"
		}
		return nil, fault.Wrap(fault.Unrecorded, "audit.open", fmt.Errorf("audit log %s: %w", a.layout.Audit(), err), remedy)
	}
	return log, nil
}

// unknownCaller records a request whose caller cannot be told.
func (a *app) unknownCaller(log *audit.Log, why error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	f := fault.As(why)
	return log.Append(ctx, audit.Record{Type: audit.RunDenied, Actor: audit.Caller(), Data: audit.Denied{
		Stage: "resolve", Class: f.Class.Error(), Rule: f.Rule, Cause: f.Cause, Remedy: f.Remedy, Point: "oci"}})
}

// operate has the launcher do something with a container that exists.
func (a *app) operate(cmd *cobra.Command, req sandbox.OCIRequest) error {
	l, err := a.launcher()
	if err != nil {
		return err
	}
	if req.Root == "" {
		req.Root = a.root
	}
	return l.Operate(cmd.Context(), req, a.files())
}

func (a *app) files() sandbox.OCIFiles {
	return sandbox.OCIFiles{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Log: a.log}
}
