package verify

// TrustDigest is the digest ("sha256:…") of the trust directory's content when
// it was read, as in the evidence of what it verifies.
func (v *Verifier) TrustDigest() string { return v.trust }
