package main

import (
	"encoding/json"
	"io"
	"slices"

	"github.com/spf13/cobra"

	reports "github.com/ward-project/ward/internal/ci/report"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
	"github.com/ward-project/ward/verify"
)

func newPolicyCheck(a *app) *cobra.Command {
	var f runFlags
	var format string
	cmd := &cobra.Command{
		Use:   "check [RUN OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Say what ward run would decide: exit 0 allow, 1 deny, 3 unknown",
		Long: "Pass a local image through verification and policy with the options of ward run, and say\n" +
			"what would happen. It asks no registry, starts nothing, records nothing.",
		Args:        atLeast(1, "an IMAGE"),
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{"text", "pretty", "json", "junit"}, format) {
				return usage("--format %.32q is not there: use pretty, json or junit", format)
			}
			req, err := f.request(cmd.Flags(), args)
			if err != nil {
				return err
			}
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				ev, dec, err := eng.Check(cmd.Context(), req)
				if err != nil {
					return err
				}
				if err := writeCheck(cmd.OutOrStdout(), format, req.Image, ev, dec); err != nil {
					return err
				}
				if !dec.Allowed() {
					return exitCode(1)
				}
				return nil
			})
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&format, "format", "pretty", "`pretty|json|junit`")
	cmd.Flags().StringVarP(&format, "output", "o", "pretty", "the same")
	return cmd
}

func writeCheck(w io.Writer, format, image string, ev verify.Evidence, dec policy.Decision) error {
	switch format {
	case "json":
		return indented(w, map[string]any{"decision": dec, "evidence": ev, "input": json.RawMessage(dec.Input())})
	case "junit":
		res := reports.Result{Image: image, Outcome: reports.Deny, Stage: "decide", Reasons: question{}.reasons(dec.Reasons()), Warn: question{}.reasons(dec.Warnings())}
		if dec.Allowed() {
			res.Outcome, res.Stage = reports.Allow, ""
		}
		return reports.Write(w, "junit", reports.New(sandbox.Build, []reports.Result{res}))
	}
	return dec.WriteText(w)
}
