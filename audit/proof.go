package audit

// Proof is the data of doctor.proof: that forged images were shown to the doors
// of this host, and what came of it.
type Proof struct {
	// Outcome is "proved", "failed" or "inconclusive"; Error says why a proof
	// could not be made.
	Outcome string `json:"outcome"`
	Error   string `json:"error,omitempty"`
	// Trials is how many there were: Refused as they had to be, Admitted though
	// they had to be refused, refused Otherwise; Controls are good images that
	// were let in.
	Trials    int `json:"trials"`
	Refused   int `json:"refused"`
	Admitted  int `json:"admitted"`
	Otherwise int `json:"otherwise"`
	Controls  int `json:"controls"`
	// Failures are trials that did not come out as they had to; not all if there
	// are many. Skipped says what was not tried.
	Failures []string `json:"failures,omitempty"`
	Skipped  []string `json:"skipped,omitempty"`
	// Level and Revision are the policy's, Trust is the digest of the trust
	// policies, Build the program's.
	Level    string `json:"level"`
	Revision string `json:"revision"`
	Trust    string `json:"trust"`
	Build    string `json:"build"`
}
