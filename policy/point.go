package policy

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// The points at which ward asks. Each has a decision of its own,
// data.ward.<point>.decision; a point that is not listed is not decided about,
// which is no.
const (
	// PointRun is a container of ward's own.
	PointRun = "run"
	// PointOCI is what a caller of ward-oci asks for.
	PointOCI = "oci"
	// PointExec is another process in a container of ward's own that runs,
	// PointCp files copied into one or out of one.
	PointExec = "exec"
	PointCp   = "cp"
	// PointUpdate is a change of a container's limits.
	PointUpdate = "update"
	// PointAttach is a client that gets the streams of a container that runs.
	PointAttach = "attach"
)

// decisionFiles are the shipped files with the decision of each point. A file
// of the same name in the policy directory replaces it.
var decisionFiles = map[string]string{PointRun: "decision.rego", PointOCI: "oci.rego", PointExec: "exec.rego", PointCp: "cp.rego", PointUpdate: "update.rego",
	PointAttach: "attach.rego"}

// ownPackages are where the rules of a policy directory may be.
func ownPackage(pkg string) bool {
	point, ok := strings.CutPrefix(pkg, "data.ward.")
	_, known := decisionFiles[point]
	return ok && known
}

// decisionRef is data.ward.<point>.decision.
func decisionRef(point string) *ast.Term {
	return ast.RefTerm(ast.VarTerm("data"), ast.StringTerm("ward"), ast.StringTerm(point), ast.StringTerm("decision"))
}

// sourcesOf are the Rego files that decide at a point: those of the level
// (which judges ward's own containers), the directory's, and the shipped decision unless the
// directory has one of its own.
func sourcesOf(point, level string, granted bool, sources []source) []source {
	var out []source
	if point != PointOCI {
		for _, f := range levelFiles[level] {
			out = append(out, shippedSource(f))
		}
		if granted {
			out = append(out, shippedSource(grantsRules))
		}
	}
	for _, s := range sources {
		if s.is(".rego") {
			out = append(out, s)
		}
	}
	if !replaces(point, sources) {
		out = append(out, shippedSource(decisionFiles[point]))
	}
	return out
}

// replaces says whether the directory has the decision of a point.
func replaces(point string, sources []source) bool {
	return slices.ContainsFunc(sources, func(s source) bool { return s.name == decisionFiles[point] })
}

// besides is the place of a file beside another.
func besides(shown, name string) string { return filepath.Join(filepath.Dir(shown), name) }
