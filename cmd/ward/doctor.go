package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/doctor"
	"github.com/ward-project/ward/internal/engine"
)

func newDoctor(a *app) *cobra.Command {
	var format string
	var prove bool
	cmd := &cobra.Command{
		Use: "doctor [--prove]", Short: "Say whether this host can do what ward promises; prove that its doors are shut", Args: exactly(0, "no arguments"),
		Long: "Look at the kernel, the programs, the audit log, who may write where, trust and policy:\n" +
			"exit 0 if all is well, 1 if not. Nothing is changed.\n\n" +
			"With --prove, forge images that must not be let in (unsigned, by strangers, too late, altered,\n" +
			"oversized, with archives that reach outside) and show them to every door, in a throw-away\n" +
			"ward with this host's policy: exit 0 if each is refused by the rule that is for it and good\n" +
			"images are let in, 1 if not, 3 if a door lets nothing in. The result is on this host's record.",
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "text" && format != "json" {
				return usage("--format %.32q is not there: use text or json", format)
			}
			if prove {
				return a.prove(cmd, format)
			}
			return a.examine(cmd, format)
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "`text|json`")
	cmd.Flags().BoolVar(&prove, "prove", false, "show forged images to every door")
	return cmd
}

func (a *app) examine(cmd *cobra.Command, format string) error {
	l, err := a.layout()
	if err != nil {
		return err
	}
	launcher, err := engine.LauncherPath()
	if err != nil {
		return err
	}
	vkey, err := os.ReadFile(pinned(l))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	cs := doctor.Examine(cmd.Context(), doctor.ExamineConfig{Layout: l, Launcher: launcher, VKey: strings.TrimSpace(string(vkey))})
	if format == "json" {
		err = indented(cmd.OutOrStdout(), cs)
	} else {
		for i := range cs {
			cs[i].Found = printable(cs[i].Found)
		}
		err = doctor.WriteText(cmd.OutOrStdout(), cs)
	}
	if err != nil {
		return err
	}
	if !doctor.Fit(cs) {
		return exitCode(1)
	}
	return nil
}

// prove tries every door and puts what came of it on record, also a proof that
// could not be made.
func (a *app) prove(cmd *cobra.Command, format string) error {
	log, err := a.log(cmd.Context())
	if err != nil {
		return err
	}
	defer log.Close()
	l, err := a.layout()
	if err != nil {
		return err
	}
	cfg := doctor.ProveConfig{Host: l, Root: os.Geteuid() == 0}
	if format == "text" {
		cfg.Say = func(what string) { cmd.PrintErrln("ward: " + what) }
	}
	if cfg.Ward, err = os.Executable(); err != nil {
		return err
	}
	if cfg.Ward, err = filepath.EvalSymlinks(cfg.Ward); err != nil {
		return err
	}
	if oci := filepath.Join(filepath.Dir(cfg.Ward), "ward-oci"); exists(oci) {
		cfg.OCI = oci
	}
	if cfg.Dir, err = os.MkdirTemp("", "ward-proof-"); err != nil {
		return err
	}
	defer os.RemoveAll(cfg.Dir)
	p, err := doctor.Prove(cmd.Context(), cfg)
	err = errors.Join(err, record(cmd.Context(), log, audit.Record{Type: audit.DoctorProof, Actor: audit.Caller(), Data: proofRecord(p, err)}))
	if err != nil {
		return err
	}
	if format == "json" {
		err = indented(cmd.OutOrStdout(), p)
	} else {
		var b strings.Builder
		if err = p.WriteText(&b); err == nil {
			err = say(cmd, strings.TrimSuffix(printable(b.String()), "\n"))
		}
	}
	switch {
	case err != nil:
		return err
	case p.Outcome == doctor.Failed:
		return exitCode(1)
	case p.Outcome != doctor.Proved:
		return exitCode(3)
	}
	return nil
}

// maxProofFailures is how many trials that did not come out right a record names.
const maxProofFailures = 20

func proofRecord(p doctor.Proof, failed error) audit.Proof {
	d := audit.Proof{Outcome: p.Outcome, Level: p.Level, Revision: p.Revision, Trust: p.Trust, Build: p.Build, Skipped: p.Skipped}
	d.Refused, d.Admitted, d.Otherwise, d.Controls = p.Counts()
	if failed != nil {
		d.Outcome, d.Error = doctor.Inconclusive, fmt.Sprintf("%.500s", failed.Error())
	}
	for _, t := range p.Trials {
		d.Trials++
		if !t.OK() && len(d.Failures) < maxProofFailures {
			d.Failures = append(d.Failures, fmt.Sprintf("%s: %.200s", t.Door, t.Case))
		}
	}
	return d
}
