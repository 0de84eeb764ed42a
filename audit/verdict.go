package audit

import "encoding/json"

// Verdict is the data of gate.decision: what was asked about and what the
// answer was. Nothing was started.
type Verdict struct {
	// Outcome is "allow", "deny", "invalid" or "indeterminate".
	Outcome string `json:"outcome"`
	Point   string `json:"point"`
	// File and Resource say where it stands, if in a file: "compose.yaml",
	// "services.web".
	File     string `json:"file,omitempty"`
	Resource string `json:"resource,omitempty"`
	Image    Image  `json:"image"`
	// Stage, Class, Rule, Cause and Remedy are those of a Denied.
	Stage  string `json:"stage,omitempty"`
	Class  string `json:"class,omitempty"`
	Rule   string `json:"rule,omitempty"`
	Cause  string `json:"cause,omitempty"`
	Remedy string `json:"remedy,omitempty"`
	// Evidence, Decision and Input are those of an Intent.
	Evidence json.RawMessage `json:"evidence,omitempty"`
	Decision json.RawMessage `json:"decision,omitempty"`
	Input    string          `json:"input,omitempty"`
}

// Summary is the data of gate.summary: a verification summary that was signed
// about an image that was allowed.
type Summary struct {
	Image Image `json:"image"`
	// Verifier is who it says verified, Format its form.
	Verifier string `json:"verifier"`
	Format   string `json:"format"`
	// KeyID is the key that signed it.
	KeyID string `json:"key_id,omitempty"`
	// Revision is the policy's; Input that of the decision (and of its
	// gate.decision), Payload the digest of what was signed, with its signature.
	Revision string `json:"revision"`
	Input    string `json:"input"`
	Payload  string `json:"payload"`
	// Uploaded says that it was to be sent to the image's registry, too.
	Uploaded bool `json:"uploaded,omitempty"`
}

// fit makes a verdict that is not an allow small enough, as Denied's does.
func (d Verdict) fit() Verdict {
	d.Cause, d.Remedy = clip(d.Cause, keptText), clip(d.Remedy, keptText)
	d.File, d.Resource, d.Image.Reference = clip(d.File, keptName), clip(d.Resource, keptName), clip(d.Image.Reference, keptName)
	for _, s := range []*string{&d.Outcome, &d.Stage, &d.Class, &d.Rule, &d.Point, &d.Image.Digest, &d.Input} {
		*s = clip(*s, keptWord)
	}
	if len(d.Decision) > keptDecision {
		d.Decision = nil
	}
	if len(d.Evidence) > keptDecision {
		d.Evidence = nil
	}
	return d
}
