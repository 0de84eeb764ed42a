package verify

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/ward-project/ward/internal/fault"
)

// misses is what was found out while no authority of a policy was satisfied.
type misses struct {
	// digest is what a trusted key signed instead of this image, or "".
	digest string
	// misnamed says that one who is trusted signed this image under a name that
	// the policy does not take for it; name is that, "" in a bundle.
	misnamed bool
	name     string
	// format says that signatureFormat left a signature out.
	format bool
	// closest is the signature that came closest to being accepted.
	closest miss
}

// note keeps the reason that says most.
func (m *misses) note(err error) {
	var one miss
	var none errNoRoot
	if errors.As(err, &none) {
		one = miss{rankRoot, ruleNoRoot, none.what}
	} else if !errors.As(err, &one) {
		return
	}
	if one.rank > m.closest.rank {
		m.closest = one
	}
}

// refusal picks the most telling reason: a trusted key that signed something
// else says more than a stranger's signature, and that more than noise.
func (p policy) refusal(s Subject, claims []claim, missed misses, stated int) error {
	var attestations, malformed, certified int
	var bad error
	for _, c := range claims {
		switch {
		case errors.Is(c.bad, errNotSignature):
			attestations++
		case c.bad != nil:
			malformed, bad = malformed+1, c.bad
		case c.certified:
			certified++
		}
	}
	accepted, denials := p.wants()
	remedy := "ward sign --key KEY " + s.Reference
	refuse := func(rule, cause, remedy string) error {
		return fault.New(fault.Unverified, rule, label(s)+cause, remedy)
	}
	stating := slices.ContainsFunc(p.authorities, func(a authority) bool { return len(a.wanted) > 0 })
	switch {
	case missed.closest.rule != "" && (stating || missed.closest.rank >= rankRule):
		return refuse(missed.closest.rule, fmt.Sprintf(" does not satisfy trust policy %q: %s", p.name, clip(missed.closest.cause)), mend(missed.closest.rule, remedy, p))
	case len(accepted) == 0:
		return refuse("trust.denied", fmt.Sprintf(" is refused by trust policy %q%s", p.name, denials), "change "+p.file)
	case len(claims) == 0 && stated == 0:
		return refuse("trust.unsigned", fmt.Sprintf(" is not signed (trust policy %q)", p.name), remedy)
	case attestations == len(claims):
		return refuse("trust.unsigned", fmt.Sprintf(" carries attestations but no signature (trust policy %q)", p.name), remedy)
	case missed.digest != "":
		return refuse("trust.wrong-digest", fmt.Sprintf(": a key trusted by policy %q signed another image (%s), not this one", p.name, missed.digest), remedy)
	case missed.misnamed:
		return refuse("trust.wrong-name", fmt.Sprintf(" was signed under the name %q, but trust policy %q asks for %s", clip(missed.name), p.name, p.signed),
			remedy+"; cosign and ward sign repositories, without tag: matchRepository takes those")
	case missed.closest.rule != "":
		return refuse(missed.closest.rule, fmt.Sprintf(": no signature satisfies trust policy %q (%s): %s", p.name,
			strings.Join(accepted, ", "), clip(missed.closest.cause)), mend(missed.closest.rule, remedy, p))
	case malformed > 0 && malformed+attestations == len(claims):
		return refuse("trust.malformed", fmt.Sprintf(": no signature can be read: %s (trust policy %q)", clip(bad.Error()), p.name), remedy)
	}
	cause := fmt.Sprintf(": none of its signatures (%d) is by a key that trust policy %q accepts (%s)",
		len(claims)-attestations, p.name, strings.Join(accepted, ", "))
	if certified > 0 && !p.keyless() {
		cause += "; the policy accepts no signatures with a certificate (keyless)"
	}
	if missed.format {
		cause += "; the policy's signatureFormat leaves some out"
	}
	return refuse("trust.wrong-key", cause, remedy+" with a key the policy accepts")
}

// clip bounds a text that quotes a signature: it goes into the record of the
// refusal, and a stranger must not decide how long that is.
func clip(s string) string {
	const most = 300
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// mend says what to do about a refusal by rule.
func mend(rule, sign string, p policy) string {
	switch rule {
	case ruleNoRoot:
		return "ward trust root add NAME FILE, or ward trust root update where there is a network"
	case "trust.no-attestation":
		return strings.Replace(sign, "ward sign --key KEY", "ward attest --key KEY --type TYPE --predicate FILE", 1)
	case "trust.omitted":
		return "make the attestation smaller or remove it from the registry, then pull the image again"
	case "trust.rule", "trust.rego":
		return "attest what the policy asks for, or change " + p.file
	case "trust.clock":
		return "set this machine's clock"
	case "trust.identity", "trust.key-window":
		return "have it signed by whom the policy accepts, or change " + p.file
	case "trust.threshold":
		return sign + " with another key the policy accepts"
	}
	return "sign it again: with a log entry or timestamp and a certificate that the policy's trust root vouches for"
}

// wants lists whose signature would satisfy the policy, keys by their ids and
// the others by name, and the messages of its "static: fail" authorities.
func (p policy) wants() (accepted []string, denials string) {
	for _, a := range p.authorities {
		if a.key != nil {
			for _, k := range a.key.keys {
				accepted = append(accepted, k.id)
			}
		}
		if a.keyless != nil {
			for _, i := range a.keyless.identities {
				accepted = append(accepted, i.String())
			}
		}
		if a.static != nil && a.static.message != "" {
			denials += ": " + a.static.message
		}
	}
	slices.Sort(accepted)
	return slices.Compact(accepted), denials
}

// keyless says whether any authority accepts certificates.
func (p policy) keyless() bool {
	return slices.ContainsFunc(p.authorities, func(a authority) bool { return a.keyless != nil })
}

func noPolicy(ref name.Reference, s Subject, partly []policy) error {
	if len(partly) > 0 {
		return fault.New(fault.Unverified, "trust.no-policy", fmt.Sprintf("no trust policy matches %s but those for some Pods (%q), which let nothing in by themselves",
			label(s), partly[0].name), "add a policy without match.selector")
	}
	glob := ref.Context().Name() + ":*"
	if _, tagged := ref.(name.Tag); !tagged {
		glob = ref.Context().Name() + "@*"
	}
	return fault.New(fault.Unverified, "trust.no-policy",
		fmt.Sprintf("no trust policy matches %s", label(s)), fmt.Sprintf("ward trust add --key PUB '%s'", glob))
}

// label names the image by what was typed and what it is.
func label(s Subject) string {
	if strings.Contains(s.Reference, s.Digests[0]) {
		return s.Reference
	}
	return s.Reference + " (" + s.Digests[0] + ")"
}
