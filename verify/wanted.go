package verify

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ward-project/ward/internal/fault"
)

// Evaluator judges documents by the Rego in trust policies. It is given from
// outside: this package evaluates nothing, and without one says no.
type Evaluator interface {
	// Compliant says whether source (a module, called name in messages) finds
	// the document compliant at that time, and if not, why. It is bounded.
	Compliant(ctx context.Context, name, source string, document []byte, now time.Time) (ok bool, why string, err error)
}

// Bounds on what a policy may ask of attestations, and on the time that its
// Rego takes altogether.
const (
	maxWanted   = 64
	maxRegoTime = 10 * time.Second
)

// wanted is one attestation that an authority asks for.
type wanted struct {
	name          string
	predicateType string
	rule          *inlineRego // nil: its being there is enough
}

// inlineRego is a module in a trust policy.
type inlineRego struct {
	where, source string
}

// judge has a document judged. A refusal is a miss; what stops everything is a
// fault.
func (r *inlineRego) judge(ctx context.Context, set setting, what string, document []byte) error {
	sum := sha256.Sum256(document)
	key := r.where + "\x00" + string(sum[:])
	err, known := set.judged[key]
	if !known {
		if err = r.ask(ctx, set, what, document); set.judged != nil {
			set.judged[key] = err
		}
	}
	return err
}

func (r *inlineRego) ask(ctx context.Context, set setting, what string, document []byte) error {
	if set.rego == nil {
		return miss{rankRule, "trust.rego", r.where + ": there is nobody here to judge by the policy's Rego"}
	}
	if strings.Contains(r.source, "time.now_ns") {
		// A moment later it may say something else: nothing to keep.
		set.clock.note(set.clock.at.Add(1))
	}
	ok, why, err := set.rego.Compliant(ctx, r.where, r.source, document, set.clock.at)
	switch {
	case fault.ClassOf(err) == fault.Invalid:
		return fault.New(fault.Invalid, ruleTrustPolicy, err.Error(), remedyFixTrustFile)
	case err != nil:
		return fault.Wrap(fault.Unavailable, "trust.rego", fmt.Errorf("%s: %w", r.where, err), "make the policy's Rego cheaper")
	case !ok:
		return miss{rankRule, "trust.rule", fmt.Sprintf("%s is not compliant by %s: %s", what, r.where, plainText(why))}
	}
	return nil
}

// satisfied says whether all that the authority asks for is stated by whom it
// believes, and returns those statements by the name under which they are
// asked for. As in a cluster one of several is enough for each.
func (a authority) satisfied(ctx context.Context, set setting, words []word, missed *misses) (map[string][]word, error) {
	ctx, cancel := context.WithTimeout(ctx, maxRegoTime)
	defer cancel()
	found := map[string][]word{}
	for _, w := range a.wanted {
		var absent error = miss{rankAbsent, "trust.no-attestation", fmt.Sprintf("there is no attestation of type %s by anybody whom authority %q accepts", w.predicateType, a.name)}
		for _, said := range words {
			if said.claim.said.predicateType != w.predicateType {
				continue
			}
			if w.rule != nil {
				err := w.rule.judge(ctx, set, "the attestation "+said.claim.filed, said.claim.said.text)
				if fault.ClassOf(err) == fault.Invalid || fault.ClassOf(err) == fault.Unavailable {
					return nil, err
				}
				if err != nil {
					missed.note(err)
					absent = nil
					continue
				}
			}
			found[w.name] = append(found[w.name], said)
		}
		if len(found[w.name]) > 0 {
			continue
		}
		if o := set.stated.omittedOf(w.predicateType); o != nil {
			absent = miss{rankOmitted, "trust.omitted", fmt.Sprintf("an attestation of type %s could not be judged, as one was not kept: %s", w.predicateType, o.Reason)}
		}
		if absent != nil {
			missed.note(absent)
		}
		return nil, nil
	}
	return found, nil
}

// omittedOf is what was not kept and may be of that type.
func (st *stated) omittedOf(predicateType string) *OmittedAttestation {
	if st == nil {
		return nil
	}
	for i, o := range st.omitted {
		if o.PredicateType == "" || o.PredicateType == predicateType {
			return &st.omitted[i]
		}
	}
	return nil
}

// judgeStated is judge for an authority that asks for attestations: those are
// asked for instead of a signature on the image, as in a cluster.
func (a authority) judgeStated(ctx context.Context, s Subject, set setting, claims []claim, missed *misses) ([]Signer, map[string][]word, error) {
	words, err := a.believed(ctx, s, set, claims, missed, map[string]string{})
	if err != nil {
		return nil, nil, err
	}
	found, err := a.satisfied(ctx, set, words, missed)
	if err != nil || found == nil {
		return nil, nil, err
	}
	var signers []Signer
	for _, w := range a.wanted {
		for _, signer := range found[w.name][0].signers {
			if !containsSigner(signers, signer) {
				signers = append(signers, signer)
			}
		}
	}
	return signers, found, nil
}

func containsSigner(list []Signer, s Signer) bool {
	for _, have := range list {
		if have.same(s) && have.Digest == s.Digest {
			return true
		}
	}
	return false
}

// accepted are the statements that pass on to policy: all that the authority
// believes, or where it asks for some, those that it asks for and that its
// Rego finds compliant.
func (a authority) accepted(ctx context.Context, set setting, words []word, why map[string]string) ([]word, error) {
	if len(a.wanted) == 0 {
		return words, nil
	}
	ctx, cancel := context.WithTimeout(ctx, maxRegoTime)
	defer cancel()
	var out []word
	for _, said := range words {
		reason := "trust.no-attestation" // not one that it was asked for
		for _, w := range a.wanted {
			if w.predicateType != said.claim.said.predicateType {
				continue
			}
			if w.rule == nil {
				reason = ""
				break
			}
			err := w.rule.judge(ctx, set, "the attestation "+said.claim.filed, said.claim.said.text)
			if fault.ClassOf(err) == fault.Invalid || fault.ClassOf(err) == fault.Unavailable {
				return nil, err
			}
			if reason = ""; err == nil {
				break
			}
			reason = "trust.rule"
		}
		if reason == "" {
			out = append(out, said)
		} else {
			why[said.claim.filed] = reason
		}
	}
	return out, nil
}

// result is what a policy's own Rego is asked about: the authorities that were
// satisfied, in the words of policy-controller.
type result struct {
	Matches map[string]*match `json:"authorityMatches"`
}

type match struct {
	Signatures   []matchedSignature            `json:"signatures,omitempty"`
	Attestations map[string][]matchedStatement `json:"attestations,omitempty"`
	Static       bool                          `json:"static,omitempty"`
}

type matchedSignature struct {
	ID      string `json:"id,omitempty"`
	Subject string `json:"subject,omitempty"`
	Issuer  string `json:"issuer,omitempty"`
	Trigger string `json:"githubWorkflowTrigger,omitempty"`
	SHA     string `json:"githubWorkflowSha,omitempty"`
	Name    string `json:"githubWorkflowName,omitempty"`
	Repo    string `json:"githubWorkflowRepo,omitempty"`
	Ref     string `json:"githubWorkflowRef,omitempty"`
}

type matchedStatement struct {
	matchedSignature
	PredicateType string `json:"predicateType,omitempty"`
	Digest        string `json:"digest,omitempty"`
}

func matchedOf(s Signer) matchedSignature {
	// A key signs a digest once; a certificate's key is its own.
	m := matchedSignature{ID: strings.TrimPrefix(s.KeyID, "sha256:"), Subject: s.Subject, Issuer: s.Issuer}
	if c := s.Claims; c != nil {
		m.Trigger, m.SHA, m.Name, m.Ref = c.Trigger, c.SHA, c.WorkflowName, c.Ref
		m.Repo = strings.TrimPrefix(c.Repository, "https://github.com/")
	}
	return m
}

func matchOf(signers []Signer, found map[string][]word) *match {
	m := &match{}
	if found == nil {
		for _, s := range signers {
			if m.Static = s.Kind == KindStatic; !m.Static {
				m.Signatures = append(m.Signatures, matchedOf(s))
			}
		}
		return m
	}
	m.Attestations = map[string][]matchedStatement{}
	for name, words := range found {
		for _, w := range words {
			for _, s := range w.signers {
				m.Attestations[name] = append(m.Attestations[name], matchedStatement{matchedOf(s), w.claim.said.predicateType, w.claim.filed})
			}
		}
	}
	return m
}

// ruled has the policy's own Rego judge what its authorities found.
func (p policy) ruled(ctx context.Context, set setting, r result) error {
	if p.rule == nil {
		return nil
	}
	document, err := json.Marshal(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, maxRegoTime)
	defer cancel()
	return p.rule.judge(ctx, set, "what its authorities found", document)
}

// attestations reads what an authority asks for besides.
func (r reader) attestations(n *yaml.Node, a *authority) error {
	names := map[string]bool{}
	return r.items(n, "attestations", maxWanted, func(_ int, n *yaml.Node) error {
		var w wanted
		var kind string
		err := r.fields(n, "attestations", map[string]func(*yaml.Node) error{
			"name":          r.str(&w.name, "attestations.name"),
			"predicateType": r.str(&kind, "attestations.predicateType"),
			"policy": func(n *yaml.Node) (err error) {
				w.rule, err = r.rego(n, "attestations.policy")
				return err
			},
		})
		switch {
		case err != nil:
			return err
		case w.name == "" || names[w.name]:
			return r.errorf(n, "an attestation needs a name of its own")
		case kind == "":
			return r.errorf(n, "attestation %q: predicateType is missing", w.name)
		}
		names[w.name] = true
		w.predicateType = kind
		if k, ok := predicateKinds[kind]; ok {
			w.predicateType = k.uri
		} else if _, err := url.ParseRequestURI(kind); err != nil || plainName(kind) != nil {
			return r.errorf(n, "attestation %q: predicateType %q is neither a URI nor one of cosign's short names", w.name, clip(kind))
		}
		if w.predicateType == signPredicate {
			return r.errorf(n, "attestation %q: %s is the type of a signature", w.name, signPredicate)
		}
		a.wanted = append(a.wanted, w)
		return nil
	})
}

// rego reads a module that stands in the file.
func (r reader) rego(n *yaml.Node, what string) (*inlineRego, error) {
	var kind, data string
	at := n
	no := func(f, instead string) func(*yaml.Node) error { return r.unsupported(what+"."+f, instead) }
	inFile := "; put the policy itself into " + what + ".data"
	err := r.fields(n, what, map[string]func(*yaml.Node) error{
		"type":              r.str(&kind, what+".type"),
		"data":              func(n *yaml.Node) error { at = n; return r.str(&data, what+".data")(n) },
		"remote":            no("remote", inFile),
		"configMapRef":      no("configMapRef", inFile),
		"fetchConfigFile":   r.unset(what + ".fetchConfigFile"),
		"includeSpec":       r.unset(what + ".includeSpec"),
		"includeObjectMeta": r.unset(what + ".includeObjectMeta"),
		"includeTypeMeta":   r.unset(what + ".includeTypeMeta"),
	})
	switch {
	case err != nil:
		return nil, err
	case kind == "cue":
		return nil, r.errorf(n, "%s.type cue is not supported; write it in rego", what)
	case kind != "rego":
		return nil, r.errorf(n, "%s.type %q is not rego", what, clip(kind))
	case strings.TrimSpace(data) == "":
		return nil, r.errorf(n, "%s.data is missing or empty", what)
	}
	return &inlineRego{where: r.file + ":" + strconv.Itoa(at.Line), source: data}, nil
}

// unset takes a switch that is off: what it would add is not known here.
func (r reader) unset(what string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind == yaml.ScalarNode && n.Tag == "!!bool" && n.Value == "false" {
			return nil
		}
		return r.errorf(n, "%s is not supported: a host has no such object; write it as run policy instead", what)
	}
}
