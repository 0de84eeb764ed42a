package verify

import (
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// Bounds on identities: what a policy may ask for, and what a certificate may
// say, which ends up in the record of the decision.
const (
	maxIdentities = 64
	maxPattern    = 1024
	maxClaim      = 2048
	maxCertNames  = 16
	punycodeMark  = "xn--"
)

// Claims are what a certificate authority such as Fulcio wrote into a
// certificate about the build that signed. A field is empty where the
// certificate does not say.
type Claims struct {
	// Repository is the source repository's URL; for certificates before 2023
	// GitHub's owner/name.
	Repository   string `json:"repository,omitempty"`
	RepositoryID string `json:"repository_id,omitempty"`
	Owner        string `json:"owner,omitempty"`
	OwnerID      string `json:"owner_id,omitempty"`
	// Visibility is the repository's when it signed: public, private, internal.
	Visibility string `json:"visibility,omitempty"`
	// Ref and SHA are what was built: refs/heads/main, and the commit.
	Ref string `json:"ref,omitempty"`
	SHA string `json:"sha,omitempty"`
	// Workflow is the URI of the top-level build instructions.
	Workflow       string `json:"workflow,omitempty"`
	WorkflowDigest string `json:"workflow_digest,omitempty"`
	WorkflowName   string `json:"workflow_name,omitempty"`
	// Builder is the URI of the build instructions that signed.
	Builder       string `json:"builder,omitempty"`
	BuilderDigest string `json:"builder_digest,omitempty"`
	// Trigger is the event that began the build: push, schedule, …
	Trigger string `json:"trigger,omitempty"`
	// Runner is github-hosted or self-hosted, or another platform's word.
	Runner string `json:"runner,omitempty"`
	// Run is the URL of the build's run.
	Run string `json:"run,omitempty"`
}

// claimsOf takes the claims out of the extensions; nil if there are none.
func claimsOf(e certificate.Extensions) *Claims {
	c := Claims{
		// Certificates made before 2023 have only the older fields.
		Repository: first(e.SourceRepositoryURI, e.GithubWorkflowRepository), RepositoryID: e.SourceRepositoryIdentifier,
		Owner: e.SourceRepositoryOwnerURI, OwnerID: e.SourceRepositoryOwnerIdentifier,
		Visibility: e.SourceRepositoryVisibilityAtSigning,
		Ref:        first(e.SourceRepositoryRef, e.GithubWorkflowRef), SHA: first(e.SourceRepositoryDigest, e.GithubWorkflowSHA),
		Workflow: e.BuildConfigURI, WorkflowDigest: e.BuildConfigDigest, WorkflowName: e.GithubWorkflowName,
		Builder: e.BuildSignerURI, BuilderDigest: e.BuildSignerDigest,
		Trigger: first(e.BuildTrigger, e.GithubWorkflowTrigger), Runner: e.RunnerEnvironment, Run: e.RunInvocationURI,
	}
	if c == (Claims{}) {
		return nil
	}
	return &c
}

func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}

// holder is who a certificate says its key belongs to.
type holder struct {
	issuer   string
	subjects []string
	claims   *Claims
}

// holderOf reads a certificate that has been verified. A name that could be
// taken for another one makes the whole certificate unusable: an authority
// that certifies such a name was tricked or is careless, and which of several
// readings is meant is not for us to guess.
func holderOf(cert *x509.Certificate) (holder, error) {
	ext, err := certificate.ParseExtensions(cert.Extensions)
	if err != nil {
		return holder{}, fmt.Errorf("certificate extensions: %w", err)
	}
	h := holder{issuer: ext.Issuer, claims: claimsOf(ext)}
	for _, e := range cert.Extensions {
		// Two forms of one fact; a reader of the other must see the same.
		//lint:ignore SA1019 it is the older form that is looked for
		if e.Id.Equal(certificate.OIDIssuer) && string(e.Value) != ext.Issuer {
			return holder{}, errors.New("the certificate names two issuers")
		}
	}
	for _, u := range cert.URIs {
		h.subjects = append(h.subjects, u.String())
	}
	h.subjects = append(h.subjects, cert.EmailAddresses...)
	if other, _ := cryptoutils.UnmarshalOtherNameSAN(cert.Extensions); other != "" {
		h.subjects = append(h.subjects, other)
	}
	if len(h.subjects) == 0 {
		return holder{}, errors.New("the certificate names no URI or e-mail address")
	}
	if len(h.subjects) > maxCertNames {
		return holder{}, fmt.Errorf("the certificate bears %d names, at most %d are looked at", len(h.subjects), maxCertNames)
	}
	for _, s := range h.subjects {
		if err := plainName(s); err != nil {
			return holder{}, fmt.Errorf("the certificate's name %q %w", clip(s), err)
		}
	}
	if h.issuer != "" {
		if err := plainName(h.issuer); err != nil {
			return holder{}, fmt.Errorf("the certificate's issuer %q %w", clip(h.issuer), err)
		}
	}
	return h, plainClaims(h.claims)
}

// plainName refuses what does not look like what it is: NUL and other control
// characters (a C program stops reading there), spaces, and everything beyond
// ASCII, where letters of several scripts look alike.
func plainName(s string) error {
	if s == "" || len(s) > maxClaim {
		return fmt.Errorf("has %d bytes, 1 to %d are allowed", len(s), maxClaim)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return fmt.Errorf("has the byte 0x%02x, which is not a printable ASCII character", s[i])
		}
	}
	return nil
}

// plainClaims bounds the claims. They may hold any text, but no control
// characters: they are printed and recorded.
func plainClaims(c *Claims) error {
	if c == nil {
		return nil
	}
	for _, s := range []string{c.Repository, c.RepositoryID, c.Owner, c.OwnerID, c.Visibility, c.Ref, c.SHA, c.Workflow, c.WorkflowDigest,
		c.WorkflowName, c.Builder, c.BuilderDigest, c.Trigger, c.Runner, c.Run} {
		if len(s) > maxClaim || strings.ToValidUTF8(s, "") != s || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
			return fmt.Errorf("the certificate claims %q, which is too long or holds control characters", clip(s))
		}
	}
	return nil
}

// identity is whom a keyless authority accepts. Both halves must match.
type identity struct{ issuer, subject namePattern }

func (i identity) String() string { return i.subject.String() + " by " + i.issuer.String() }

// match returns the name under which the holder is accepted.
func (i identity) match(h holder) (string, bool) {
	if !i.issuer.match(h.issuer) {
		return "", false
	}
	for _, s := range h.subjects {
		if i.subject.match(s) {
			return s, true
		}
	}
	return "", false
}

// namePattern is one exact name, or an expression for the whole of it. The
// zero value matches no name, not even the empty one.
type namePattern struct {
	exact string
	re    *regexp.Regexp
	text  string // the expression as written
	all   bool   // that expression takes anything
	any   bool   // nothing is asked about this half
}

// exactly matches that name alone, byte for byte.
func exactly(s string) (namePattern, error) {
	if err := plainName(s); err != nil {
		return namePattern{}, err
	}
	return namePattern{exact: s}, nil
}

// wholly compiles an expression that has to match a name from its first to
// its last byte: "github.com/team" as a search would also find
// "https://evil.example/github.com/team".
func wholly(expr string) (namePattern, error) {
	if expr == "" || len(expr) > maxPattern {
		return namePattern{}, fmt.Errorf("has %d bytes, 1 to %d are allowed", len(expr), maxPattern)
	}
	// The expression is compiled alone first: "a)|(b" would otherwise change
	// what our brackets mean.
	if _, err := syntax.Parse(expr, syntax.Perl); err != nil {
		return namePattern{}, err
	}
	re, err := regexp.Compile(`\A(?:` + expr + `)\z`)
	if err != nil {
		return namePattern{}, err
	}
	// No name that is accepted holds this byte: only an expression that would
	// take anything matches it.
	return namePattern{re: re, text: expr, all: re.MatchString("\x01")}, nil
}

func (p namePattern) match(s string) bool {
	switch {
	case p.any:
		return true
	case p.exact != "":
		return s == p.exact
	case p.re == nil || s == "":
		return false
	}
	// A domain in punycode may be shown as one that looks like another. Only
	// who writes it so means it.
	if strings.Contains(strings.ToLower(s), punycodeMark) && !strings.Contains(strings.ToLower(p.text), punycodeMark) {
		return false
	}
	return p.re.MatchString(s)
}

func (p namePattern) String() string {
	switch {
	case p.any:
		return "anyone"
	case p.re != nil:
		return "/" + p.text + "/"
	}
	return p.exact
}

// newPattern is one of an exact name and an expression; neither means any.
func newPattern(exact, expr string) (namePattern, error) {
	switch {
	case exact != "" && expr != "":
		return namePattern{}, errors.New("a name and an expression for it; one of them is enough")
	case exact != "":
		return exactly(exact)
	case expr != "":
		return wholly(expr)
	}
	return namePattern{any: true}, nil
}
