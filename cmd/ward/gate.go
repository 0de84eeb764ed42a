package main

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/ci/manifest"
	reports "github.com/ward-project/ward/internal/ci/report"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/policy"
	"github.com/ward-project/ward/sandbox"
)

// gateFlags are the flags of ward gate.
type gateFlags struct {
	files, outputs []string
	pull           string
	offline        bool
	pin, inPlace   bool
	stdin          bool
	vsa            vsaFlags
}

// question is one image to ask about, and what answered.
type question struct {
	engine.GateRequest
	// line is where the image stands in its file, equivalent the options of
	// run it was read as.
	line       int
	equivalent []string
	// container is where it stands in a file, nil for an image that was named.
	container *manifest.Container
}

func newGate(a *app) *cobra.Command {
	var f gateFlags
	cmd := &cobra.Command{
		Use:   "gate [OPTIONS] IMAGE... | gate [OPTIONS] -f FILE... | gate --stdin [OPTIONS]",
		Short: "Answer for a pipeline whether images would be let in: exit 0 allow, 1 deny, 2 usage, 3 unknown",
		Long: "Resolve, verify and decide about images, as ward run does at its start, and start nothing.\n" +
			"An image that is not in the store is looked at in its registry: manifest, configuration and\n" +
			"what hangs on it, no layers; only the latter is kept. Every answer is on the audit record.\n\n" +
			"Over all images a deny wins, then a mistake in what was asked (2), then what could not be\n" +
			"known (3). Flags are also read from the environment: WARD_GATE_OUTPUT for --output and so on;\n" +
			"a flag is stronger.",
		Annotations: map[string]string{"exit": gateVerb},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fromEnvironment(cmd.Flags()); err != nil {
				return err
			}
			return a.gate(cmd, f, args)
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVarP(&f.files, "file", "f", nil, "a compose `file` or Kubernetes objects; - is standard input")
	fs.StringSliceVarP(&f.outputs, "output", "o", []string{"text"}, "`FORM[=FILE]`, any number of: "+strings.Join(reports.Formats(), ", "))
	fs.StringVar(&f.pull, "pull", "missing", "ask a registry: missing, always or never")
	fs.BoolVar(&f.stdin, "stdin", false, "answer for each line of standard input, an image or {\"image\": NAME, \"id\": TEXT}, with a line of JSON, until it ends")
	fs.BoolVar(&f.offline, "offline", false, "open no socket: the same as --pull never")
	fs.BoolVar(&f.pin, "pin", false, "write the file to standard output, admitted images with their digests; the report goes to standard error")
	fs.BoolVar(&f.inPlace, "in-place", false, "with --pin: write the files themselves")
	f.vsa.register(cmd)
	return cmd
}

// fromEnvironment sets the flags that were not given from WARD_GATE_<FLAG>.
func fromEnvironment(fs *pflag.FlagSet) error {
	var bad error
	fs.VisitAll(func(fl *pflag.Flag) {
		name := "WARD_GATE_" + strings.ToUpper(strings.ReplaceAll(fl.Name, "-", "_"))
		if v, set := os.LookupEnv(name); set && !fl.Changed && fl.Name != "help" && bad == nil {
			if err := fs.Set(fl.Name, v); err != nil {
				bad = usage("%s=%.64q: %v", name, v, err)
			}
		}
	})
	return bad
}

func (f gateFlags) check(args []string) error {
	if err := f.checkOutputs(); err != nil {
		return err
	}
	if !slices.Contains([]engine.PullPolicy{engine.PullMissing, engine.PullAlways, engine.PullNever}, engine.PullPolicy(f.pull)) {
		return invalid("run.pull", "--pull "+f.pull+" is not known", "use missing, always or never")
	}
	if f.offline && f.pull == string(engine.PullAlways) {
		return usage("--offline and --pull always contradict each other")
	}
	if f.stdin {
		return f.stdinAlone(args)
	}
	if len(args) == 0 && len(f.files) == 0 {
		return usage("ward gate needs an IMAGE or a file (-f)")
	}
	if err := f.vsa.check(f); err != nil {
		return err
	}
	if f.inPlace && (!f.pin || len(f.files) == 0 || slices.Contains(f.files, "-")) {
		return usage("--in-place goes with --pin and files")
	}
	if f.pin && !f.inPlace && len(f.files) > 1 {
		return usage("--pin writes one file to standard output; use --in-place for several")
	}
	return nil
}

// policy is the pull policy in force.
func (f gateFlags) policy() engine.PullPolicy {
	if f.offline {
		return engine.PullNever
	}
	return engine.PullPolicy(f.pull)
}

func (a *app) gate(cmd *cobra.Command, f gateFlags, args []string) error {
	if err := f.check(args); err != nil {
		return err
	}
	if f.stdin {
		return a.gateStdin(cmd, f)
	}
	files, err := f.read()
	if err != nil {
		return err
	}
	eng, log, err := a.engine(cmd.Context())
	if log != nil {
		defer log.Close()
	}
	if err != nil {
		return err
	}
	var answers []answer
	for _, q := range f.questions(args, files) {
		v, err := eng.Gate(cmd.Context(), q.GateRequest)
		if err != nil {
			return err // not on record, so there is no answer
		}
		answers = append(answers, answer{q, v})
	}
	told := f.tell(cmd, files, answers)
	if !f.vsa.wanted() {
		return told
	}
	var code exitCode
	err = a.summarize(cmd, f.vsa, answers, log)
	if err != nil && errors.As(told, &code) {
		// What was answered decides; that it could not be attested is said.
		report(cmd.ErrOrStderr(), cmd, err)
		return told
	}
	return errors.Join(told, err)
}

// answer is a question with what was answered.
type answer struct {
	question
	verdict engine.Verdict
}

// tell writes the report, and the files with pinned images if asked to.
func (f gateFlags) tell(cmd *cobra.Command, files []*gateFile, answers []answer) error {
	out := cmd.OutOrStdout()
	if f.pin && !f.inPlace {
		out = cmd.ErrOrStderr()
	}
	var results []reports.Result
	for _, a := range answers {
		results = append(results, a.result(a.verdict))
	}
	r := reports.New(sandbox.Build, results)
	if err := f.write(out, r); err != nil {
		return err
	}
	if f.pin {
		if err := f.writePinned(cmd.OutOrStdout(), files, answers); err != nil {
			return err
		}
	}
	if code := r.Exit(); code != 0 {
		return exitCode(code)
	}
	return nil
}

// read reads all files before anything is asked.
func (f gateFlags) read() ([]*gateFile, error) {
	var all []*gateFile
	for _, name := range f.files {
		g, err := readGateFile(name)
		if err != nil {
			return nil, err
		}
		all = append(all, g)
	}
	return all, nil
}

// questions are all that is asked about, in the order given.
func (f gateFlags) questions(args []string, files []*gateFile) []question {
	var qs []question
	for _, image := range args {
		q := question{}
		q.Image, q.Actor, q.CI.Kind = image, audit.Caller(), "image"
		qs = append(qs, q)
	}
	for _, g := range files {
		for _, c := range g.containers {
			qs = append(qs, ask(c))
		}
	}
	for i := range qs {
		qs[i].Pull = f.policy()
	}
	return qs
}

// result is the answer to a question as reports have it.
func (q question) result(v engine.Verdict) reports.Result {
	r := reports.Result{
		File: q.CI.File, Line: q.line, Resource: q.CI.Name, Image: q.Image, Reference: v.Image.Reference, Digest: v.Image.Digest, Index: v.Image.Index,
		Outcome: string(v.Outcome), Stage: v.Stage, Unknown: v.Unknowns, Equivalent: q.equivalent,
	}
	if v.Evidence.Verified() {
		r.Evidence = encoded(v.Evidence)
	}
	if v.Decision.InputDigest() != "" {
		r.Decision = encoded(v.Decision)
		r.Reasons, r.Warn = q.reasons(v.Decision.Reasons()), q.reasons(v.Decision.Warnings())
	}
	if v.Refusal != nil && len(r.Reasons) == 0 {
		r.Reasons = []reports.Reason{{Code: v.Refusal.Rule, Msg: v.Refusal.Cause, Fix: v.Refusal.Remedy}}
	}
	return r
}

func (q question) reasons(rs []policy.Reason) []reports.Reason {
	var out []reports.Reason
	for _, r := range rs {
		out = append(out, reports.Reason{Code: r.Code, Msg: r.Msg, Fix: q.fileFix(r), Line: q.lineOf(r.Code, r.Msg)})
	}
	if q.K8s != nil {
		out = together(out)
	}
	return out
}

func encoded(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		b, _ = json.Marshal(fault.As(errors.Join(err)).Error())
	}
	return b
}
