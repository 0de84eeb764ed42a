package report

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/url"
	"path/filepath"
	"strings"
)

// The parts of SARIF 2.1.0 that a gate has something to say in.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool         `json:"tool"`
		Invocations []sarifInvocation `json:"invocations"`
		Results     []sarifResult     `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID   string    `json:"id"`
		Help *sarifMsg `json:"help,omitempty"`
	}
	sarifMsg struct {
		Text string `json:"text"`
	}
	// sarifInvocation says whether the question was answered. There are no times
	// in it: those of the audit log are the ones that hold.
	sarifInvocation struct {
		ExecutionSuccessful bool          `json:"executionSuccessful"`
		ExitCode            int           `json:"exitCode"`
		Notifications       []sarifNotice `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNotice struct {
		Level      string          `json:"level"`
		Message    sarifMsg        `json:"message"`
		Descriptor sarifDescriptor `json:"descriptor"`
		Locations  []sarifLocation `json:"locations"`
	}
	sarifDescriptor struct {
		ID string `json:"id"`
	}
	sarifResult struct {
		RuleID       string            `json:"ruleId"`
		RuleIndex    int               `json:"ruleIndex"`
		Kind         string            `json:"kind"`
		Level        string            `json:"level"`
		Message      sarifMsg          `json:"message"`
		Locations    []sarifLocation   `json:"locations"`
		Fingerprints map[string]string `json:"partialFingerprints"`
		Properties   map[string]string `json:"properties"`
	}
	sarifLocation struct {
		Physical *sarifPhysical `json:"physicalLocation,omitempty"`
		Logical  []sarifLogical `json:"logicalLocations"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
	}
	sarifLogical struct {
		FullyQualifiedName string `json:"fullyQualifiedName"`
		Kind               string `json:"kind"`
	}
)

// sarif writes a run whose results are the rules that spoke. What could not be
// answered is no result: the run was then not successful, and says why.
func sarif(w io.Writer, r Report) error {
	run := sarifRun{
		Tool:        sarifTool{sarifDriver{Name: "ward", Version: line(r.Version), Rules: []sarifRule{}}},
		Invocations: []sarifInvocation{{ExecutionSuccessful: true, ExitCode: r.Exit()}},
		Results:     []sarifResult{},
	}
	inv := &run.Invocations[0]
	index := map[string]int{}
	for _, res := range r.Results {
		add := func(rs Reason, kind, level string) {
			i, there := index[rs.Code]
			if !there {
				i = len(run.Tool.Driver.Rules)
				index[rs.Code] = i
				rule := sarifRule{ID: line(rs.Code)}
				if rs.Fix != "" {
					rule.Help = &sarifMsg{line(rs.Fix)}
				}
				run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, rule)
			}
			run.Results = append(run.Results, sarifResult{
				RuleID: line(rs.Code), RuleIndex: i, Kind: kind, Level: level, Message: sarifMsg{line(res.Image + ": " + rs.Msg)},
				Locations: res.locations(rs), Fingerprints: map[string]string{"ward/v1": res.fingerprint(rs)},
				Properties: map[string]string{"image": line(res.Image), "digest": line(res.Digest), "outcome": res.Outcome},
			})
		}
		switch res.Outcome {
		case Allow:
			add(Reason{Code: "gate.allow", Msg: "would be let in"}, "pass", "none")
		case Invalid, Indeterminate:
			inv.ExecutionSuccessful = false
			for _, rs := range res.problems() {
				inv.Notifications = append(inv.Notifications, sarifNotice{"error", sarifMsg{line(res.Image + ": " + rs.Msg)}, sarifDescriptor{line(rs.Code)}, res.locations(rs)})
			}
		default:
			for _, rs := range res.problems() {
				add(rs, "fail", "error")
			}
		}
		for _, rs := range res.Warn {
			add(rs, "fail", "warning")
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(sarifLog{"https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json", "2.1.0", []sarifRun{run}})
}

func (r Result) locations(rs Reason) []sarifLocation {
	l := sarifLocation{Logical: []sarifLogical{{line(strings.TrimSpace(r.Resource + " " + r.Image)), "resource"}}}
	if r.File != "" {
		l.Physical = &sarifPhysical{Artifact: sarifArtifact{fileURI(r.File)}}
		if at := r.lineOf(rs); at > 0 {
			l.Physical.Region = &sarifRegion{at}
		}
	}
	return []sarifLocation{l}
}

// fileURI is a file's name as a reference: relative as it was given, or a
// file: URI.
func fileURI(name string) string {
	if name == "-" {
		return "stdin"
	}
	u := url.URL{Path: filepath.ToSlash(filepath.Clean(line(name)))}
	if filepath.IsAbs(name) {
		u.Scheme = "file"
	}
	return u.String()
}

// fingerprint stays the same when lines move and tags change, so that a finding
// is known again in the next run.
func (r Result) fingerprint(rs Reason) string {
	name, _, _ := strings.Cut(r.Image, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{r.File, r.Resource, name, rs.Code}, "\x00")))
	return hex.EncodeToString(sum[:])
}
