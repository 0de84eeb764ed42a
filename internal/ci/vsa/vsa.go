// Package vsa writes SLSA verification summaries: statements that an image was
// verified against a policy, for those who trust the verifier and want to see
// neither the policy nor what it was shown.
//
// It promises the fields and forms of https://slsa.dev/verification_summary/v1
// and claims no SLSA level: what was verified is ward's own policy, and a level
// of that name says so. It signs nothing and knows nothing of keys.
package vsa

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ward-project/ward/internal/fault"
)

// PredicateType is the type of the statement that a summary is.
const PredicateType = "https://slsa.dev/verification_summary/v1"

// DefaultVerifier is the verifier's id where nobody has given a better one.
const DefaultVerifier = "https://github.com/ward-project/ward/gate"

// Facts are what a summary says. All but Trust and Inputs are required.
type Facts struct {
	// Verifier is a URI: who verified. Consumers accept pairs of it and a signer.
	Verifier string
	// Version is ward's.
	Version string
	At      time.Time
	// Reference is the image's full name, Digest its manifest's.
	Reference, Digest string
	// Level is the policy's, Revision the digest of everything it consists of.
	Level, Revision string
	// Decided is the digest of what was decided on, as in the audit log; Trust
	// that of the trust policies.
	Decided, Trust string
	// Inputs are all signatures and attestations that were looked at.
	Inputs []Input
}

// Input is one signature or attestation.
type Input struct {
	MediaType string
	// Digest is that of its bytes, "sha256:…".
	Digest string
}

// descriptor is in-toto's ResourceDescriptor.
type descriptor struct {
	URI         string            `json:"uri,omitempty"`
	Digest      map[string]string `json:"digest"`
	MediaType   string            `json:"mediaType,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Predicate is the summary of a verification that was passed; there is none of
// one that was not.
func Predicate(f Facts) ([]byte, error) {
	bad := func(format string, a ...any) ([]byte, error) {
		return nil, fault.New(fault.Invalid, "ci.vsa", fmt.Sprintf(format, a...), "")
	}
	if u, err := url.Parse(f.Verifier); err != nil || u.Scheme == "" || len(f.Verifier) > 1024 {
		return bad("the verifier %.100q is no URI", f.Verifier)
	}
	digests := []string{f.Digest, f.Revision, f.Decided}
	if f.Trust != "" {
		digests = append(digests, f.Trust)
	}
	for _, d := range digests {
		if !isDigest(d) {
			return bad("a summary names everything by its digest, and %.80q is none", d)
		}
	}
	if f.At.IsZero() || f.Reference == "" || f.Level == "" {
		return bad("a summary without time, image or policy")
	}
	notes := map[string]string{"level": f.Level, "input": f.Decided}
	if f.Trust != "" {
		notes["trust"] = f.Trust
	}
	inputs := []descriptor{}
	for _, in := range f.Inputs {
		d := descriptor{Digest: digestSet(in.Digest), MediaType: in.MediaType}
		if d.Digest == nil {
			return bad("an input named %.80q", in.Digest)
		}
		if !slices.ContainsFunc(inputs, func(o descriptor) bool { return o.Digest["sha256"] == d.Digest["sha256"] }) {
			inputs = append(inputs, d)
		}
	}
	return json.Marshal(struct {
		Verifier     any          `json:"verifier"`
		TimeVerified string       `json:"timeVerified"`
		ResourceURI  string       `json:"resourceUri"`
		Policy       descriptor   `json:"policy"`
		Inputs       []descriptor `json:"inputAttestations"`
		Result       string       `json:"verificationResult"`
		Levels       []string     `json:"verifiedLevels"`
		SLSA         string       `json:"slsaVersion"`
	}{
		map[string]any{"id": f.Verifier, "version": map[string]string{"ward": f.Version}},
		f.At.UTC().Format(time.RFC3339), ResourceURI(f.Reference, f.Digest),
		descriptor{URI: "urn:ward:policy:" + url.PathEscape(f.Level), Digest: digestSet(f.Revision), Annotations: notes},
		inputs, "PASSED", []string{"WARD_" + strings.ToUpper(f.Level)}, "1.0",
	})
}

// ResourceURI is the image as a package URL of type oci.
func ResourceURI(reference, digest string) string {
	name, _, _ := strings.Cut(reference, "@")
	repo, tag := name, ""
	if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") {
		repo, tag = name[:i], name[i+1:]
	}
	q := "?repository_url=" + url.PathEscape(repo)
	if tag != "" {
		q += "&tag=" + url.QueryEscape(tag)
	}
	return "pkg:oci/" + url.PathEscape(repo[strings.LastIndex(repo, "/")+1:]) + "@" + url.QueryEscape(digest) + q
}

func isDigest(d string) bool {
	hex, ok := strings.CutPrefix(d, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

func digestSet(d string) map[string]string {
	if !isDigest(d) {
		return nil
	}
	return map[string]string{"sha256": strings.TrimPrefix(d, "sha256:")}
}
