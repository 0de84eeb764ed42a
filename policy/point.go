package policy

import (
	"path/filepath"
	"slices"
	"strings"
)

// The points at which ward asks. Each has a decision of its own,
// data.ward.<point>.decision; a point that is not listed is not decided about,
// which is no.
const (
	// PointRun is a container of ward's own; PointRestart one that ran before.
	PointRun     = "run"
	PointRestart = "restart"
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
	// PointPull is an image that is to be fetched, PointBuild an image or a
	// command that a build needs.
	PointPull  = "pull"
	PointBuild = "build"
	// PointCI is a gate in a pipeline, PointK8s a container of a Pod that is to
	// be admitted: both ask what would be decided about a run.
	PointCI  = "ci"
	PointK8s = "k8s"
)

// decisionFiles are the shipped files with the decision of each point. A file
// of the same name in the policy directory replaces it.
var decisionFiles = map[string]string{
	PointRun: "decision.rego", PointRestart: "restart.rego", PointOCI: "oci.rego", PointExec: "exec.rego", PointCp: "cp.rego",
	PointUpdate: "update.rego", PointAttach: "attach.rego", PointPull: "pull.rego", PointBuild: "build.rego", PointCI: "ci.rego", PointK8s: "k8s.rego",
}

// asRun are the points that are answered as a run is: by the decision of
// PointRun, whatever it is, and the denials, warnings and obligations of their
// own package on top. A container must not get in at one door that another
// keeps it out of.
var asRun = map[string]bool{PointRestart: true, PointCI: true, PointK8s: true}

// extended are the points of asRun whose own package has shipped rules.
var extended = map[string]bool{PointCI: true, PointK8s: true}

// ownPackages are where the rules of a policy directory may be.
func ownPackage(pkg string) bool {
	point, ok := strings.CutPrefix(pkg, "data.ward.")
	_, known := decisionFiles[point]
	return ok && known
}

// sourcesOf are the Rego files that decide at a point: those of the level
// (which judges ward's own containers), the directory's, and the shipped decision unless the
// directory has one of its own.
func sourcesOf(point, level string, granted bool, sources []source) []source {
	var out []source
	if point != PointOCI && point != PointPull {
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
	base := deciding(point, sources)
	if !replaces(base, sources) {
		out = append(out, shippedSource(decisionFiles[base]))
	}
	if base != point && extended[point] {
		out = append(out, shippedSource(decisionFiles[point]))
	}
	return out
}

// deciding is the point whose decision is asked for: the point itself, or
// PointRun for one that is answered as a run is and has no decision of its own.
func deciding(point string, sources []source) string {
	if asRun[point] && !replaces(point, sources) {
		return PointRun
	}
	return point
}

// replaces says whether the directory has the decision of a point.
func replaces(point string, sources []source) bool {
	return slices.ContainsFunc(sources, func(s source) bool { return s.name == decisionFiles[point] })
}

// besides is the place of a file beside another.
func besides(shown, name string) string { return filepath.Join(filepath.Dir(shown), name) }
