package policy

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"

	"github.com/ward-project/ward/internal/fault"
)

// testTime bounds one Rego test.
const testTime = 10 * time.Second

// Test runs Rego tests (rules test_… in files *_test.rego) and reports them to
// w as "opa test" does. Without dirs it runs the shipped policies' tests and
// those of the policy directory; with dirs, the tests of each, against the
// policy in it instead of the policy directory's. A test that fails is
// fault.Denied; a policy that does not compile, fault.Invalid; a directory
// without tests, fault.NotFound.
func (e *Engine) Test(ctx context.Context, w io.Writer, dirs ...string) error {
	given := len(dirs) > 0
	if !given {
		files, err := fs.Glob(shipped, "rego/*_test.rego")
		if err != nil {
			return err
		}
		var tests []source
		for _, f := range files {
			tests = append(tests, shippedSource(strings.TrimPrefix(f, "rego/")))
		}
		if err := test(ctx, w, "", nil, tests); err != nil || e.cfg.Dir == "" {
			return err
		}
		dirs = []string{e.cfg.Dir}
	}
	for _, dir := range dirs {
		sources, err := readDir(dir, true)
		if err != nil {
			return err
		}
		hasTests := slices.ContainsFunc(sources, func(s source) bool { return strings.HasSuffix(s.name, "_test.rego") })
		if given && !hasTests {
			return fault.New(fault.NotFound, "policy.no-tests", fmt.Sprintf("there are no tests (*_test.rego) in %s", dir), "name the directory that holds them")
		}
		if !hasTests {
			continue
		}
		if err := test(ctx, w, dir, sources, nil); err != nil {
			return err
		}
	}
	return nil
}

// test runs the tests among sources and more, with every shipped level loaded.
func test(ctx context.Context, w io.Writer, dir string, sources, more []source) error {
	g, err := readGrants(dir, sources)
	if err != nil {
		return err
	}
	data, err := userData(sources)
	if err != nil {
		return err
	}
	ward := g.document(g.level, true)
	ward["example"] = example()
	data["ward"] = ward
	for _, point := range sorted(decisionFiles) {
		if point != PointRun && (!asRun[point] || extended[point]) && !replaces(point, sources) {
			more = append(more, shippedSource(decisionFiles[point]))
		}
	}
	more = append(more, shippedSource("privileged.rego"))
	modules, err := parse(append(sourcesOf(PointRun, Restricted, true, sources), more...))
	if err != nil {
		return err
	}
	c := ast.NewCompiler().WithCapabilities(capabilities()).WithSchemas(inputTypes()).WithEnablePrintStatements(true)
	store := inmem.NewFromObjectWithOpts(data, inmem.OptRoundTripOnWrite(false))
	txn, err := store.NewTransaction(ctx, storage.TransactionParams{})
	if err != nil {
		return err
	}
	defer store.Abort(ctx, txn)
	results, err := tester.NewRunner().SetCompiler(c).SetStore(store).SetModules(modules).
		CapturePrintOutput(true).RaiseBuiltinErrors(true).SetTimeout(testTime).SetParallel(1).RunTests(ctx, txn)
	if err != nil {
		return syntax(err)
	}
	failed := 0
	counted := make(chan *tester.Result)
	go func() {
		defer close(counted)
		for r := range results {
			if !r.Pass() && !r.Skip {
				failed++
			}
			counted <- r
		}
	}()
	report := tester.PrettyReporter{Output: w}
	if err := report.Report(counted); err != nil {
		return err
	}
	if failed > 0 {
		return fault.New(fault.Denied, "policy.test", fmt.Sprintf("%d policy tests fail", failed), "mend the policy or its tests")
	}
	return nil
}
