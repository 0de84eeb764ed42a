package policy

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"

	"github.com/ward-project/ward/internal/fault"
)

// testTime bounds one Rego test.
const testTime = 10 * time.Second

// TestOptions say which Rego tests are run, and how they are reported.
type TestOptions struct {
	// Dirs hold the tests, each with the policy that they are about. Without
	// any, the shipped tests are run and those of the policy directory.
	Dirs []string
	// Format is "pretty" (also if empty), "json" or "junit".
	Format string
	// Run, if set, is a regular expression that the tests' names match.
	Run string
	// Verbose names each test, and shows how a failed one came about.
	Verbose bool
	// Coverage reports, as JSON, which lines were evaluated in place of how
	// the tests went; less than Threshold percent of them is a failure.
	Coverage  bool
	Threshold float64
}

// suite is what one round of tests is about: the files of a directory, and
// shipped ones.
type suite struct {
	dir           string
	sources, more []source
}

// Test runs Rego tests (rules test_… in files *_test.rego) and reports them to
// w in the forms of "opa test", or as JUnit does. A test that fails is
// fault.Denied; a policy that does not compile, fault.Invalid; a directory
// without tests, or a pattern that none matches, fault.NotFound.
func (e *Engine) Test(ctx context.Context, w io.Writer, opt TestOptions) error {
	report, err := opt.reporter(w)
	if err != nil {
		return err
	}
	suites, err := e.suites(opt.Dirs)
	if err != nil {
		return err
	}
	var all []*tester.Result
	covered := coverage{}
	for _, s := range suites {
		rs, err := s.run(ctx, opt, covered)
		if err != nil {
			return err
		}
		all = append(all, rs...)
	}
	if len(all) == 0 && opt.Run != "" {
		return fault.New(fault.NotFound, "policy.no-tests", fmt.Sprintf("no test's name matches %q", opt.Run), "names are like data.site_test.test_root; see them with --verbose")
	}
	failed := 0
	results := make(chan *tester.Result, len(all))
	for _, r := range all {
		if !r.Pass() && !r.Skip {
			failed++
		}
		results <- r
	}
	close(results)
	if opt.Coverage && failed == 0 {
		return covered.report(w, opt.Threshold)
	}
	if err := report.Report(results); err != nil {
		return err
	}
	if failed > 0 {
		return fault.New(fault.Denied, "policy.test", fmt.Sprintf("%d policy tests fail", failed), "mend the policy or its tests")
	}
	return nil
}

// suites are what there is to be run: shipped tests and the policy
// directory's, or those of each of dirs.
func (e *Engine) suites(dirs []string) ([]suite, error) {
	var out []suite
	given := len(dirs) > 0
	if !given {
		files, err := fs.Glob(shipped, "rego/*_test.rego")
		if err != nil {
			return nil, err
		}
		var tests []source
		for _, f := range files {
			tests = append(tests, shippedSource(strings.TrimPrefix(f, "rego/")))
		}
		ofLibrary, err := libraryTests()
		if err != nil {
			return nil, err
		}
		tests = append(tests, ofLibrary...)
		out = append(out, suite{more: tests})
		if e.cfg.Dir == "" {
			return out, nil
		}
		dirs = []string{e.cfg.Dir}
	}
	for _, dir := range dirs {
		sources, err := readDirWith(dir, e.cfg.Keys, true)
		if err != nil {
			return nil, err
		}
		hasTests := slices.ContainsFunc(sources, func(s source) bool { return strings.HasSuffix(s.name, "_test.rego") })
		if given && !hasTests {
			return nil, fault.New(fault.NotFound, "policy.no-tests", fmt.Sprintf("there are no tests (*_test.rego) in %s", dir), "name the directory that holds them")
		}
		if hasTests {
			out = append(out, suite{dir: dir, sources: sources})
		}
	}
	return out, nil
}

// run runs the tests of a suite, with every shipped level loaded.
func (s suite) run(ctx context.Context, opt TestOptions, covered coverage) ([]*tester.Result, error) {
	sources, more := native(s.sources), s.more
	g, err := readGrants(s.dir, sources)
	if err != nil {
		return nil, err
	}
	data, err := userData(sources)
	if err != nil {
		return nil, err
	}
	ward := g.document(g.level, true)
	ward["example"] = example()
	ward["example_evidence"] = exampleEvidence()
	data["ward"] = ward
	for _, point := range sorted(decisionFiles) {
		if point != PointRun && (!asRun[point] || extended[point]) && !replaces(point, sources) {
			more = append(more, shippedSource(decisionFiles[point]))
		}
	}
	more = append(more, shippedSource("privileged.rego"))
	modules, err := parse(append(sourcesOf(PointRun, Restricted, true, sources), more...))
	if err != nil {
		return nil, err
	}
	_, used, err := libraryModules(modules)
	if err != nil {
		return nil, err
	}
	maps.Copy(modules, used)
	c := ast.NewCompiler().WithCapabilities(capabilities()).WithSchemas(inputTypes()).WithEnablePrintStatements(true)
	store := inmem.NewFromObjectWithOpts(data, inmem.OptRoundTripOnWrite(false))
	txn, err := store.NewTransaction(ctx, storage.TransactionParams{})
	if err != nil {
		return nil, err
	}
	defer store.Abort(ctx, txn)
	r := tester.NewRunner().SetCompiler(c).SetStore(store).SetModules(modules).
		CapturePrintOutput(true).RaiseBuiltinErrors(true).SetTimeout(testTime).SetParallel(1).Filter(opt.Run)
	var tracer *cover.Cover
	if opt.Coverage {
		tracer = cover.New()
		r = r.SetCoverageQueryTracer(tracer)
	} else {
		r = r.EnableTracing(opt.Format != "json")
	}
	results, err := r.RunTests(ctx, txn)
	if err != nil {
		return nil, syntax(err)
	}
	var out []*tester.Result
	for r := range results {
		if r.Pass() {
			r.Trace = nil // only what failed is explained
		}
		out = append(out, r)
	}
	if opt.Coverage {
		covered.add(tracer, modules, s.dir == "")
	}
	return out, nil
}
