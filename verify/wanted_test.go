package verify_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/tests/sigstore"
	"github.com/ward-project/ward/verify"
)

// spoken stands for what evaluates Rego, which this package does not link:
// "yes" is compliant. tests/cli has the real one.
type spoken struct{ asked *[]string }

func (s spoken) Compliant(_ context.Context, name, source string, document []byte, now time.Time) (bool, string, error) {
	*s.asked = append(*s.asked, source+" "+string(document))
	switch {
	case now.IsZero() || !strings.Contains(name, ".yaml:"):
		return true, "", errors.New("asked without time or place")
	case strings.HasPrefix(source, "find "):
		return strings.Contains(string(document), strings.TrimSpace(strings.TrimPrefix(source, "find "))), "not found\x1b", nil
	case source == "broken":
		return true, "", fault.New(fault.Invalid, "policy.syntax", name+": rego_parse_error", "")
	case source == "endless":
		return true, "", fault.New(fault.Unavailable, "policy.cost", "stopped", "")
	}
	return source == "yes", "because", nil
}

func judged(t testing.TB, dir string) (*verify.Verifier, *[]string) {
	asked := &[]string{}
	return open(t, dir).WithRego(spoken{asked}), asked
}

// asking is an authority by key that asks for attestations, each "TYPE" or
// "TYPE RULE".
func asking(k keyPair, want ...string) string {
	out := strings.Replace(byKey(k.pem), "- key", "- name: scans\n      key", 1) + "      attestations:\n"
	for i, w := range want {
		kind, rule, _ := strings.Cut(w, " ")
		out += "        - name: a" + string(rune('0'+i)) + "\n          predicateType: " + kind + "\n"
		if rule != "" {
			out += "          policy:\n            type: rego\n            data: " + rule + "\n"
		}
	}
	return out
}

func TestAuthorityAsksForAttestations(t *testing.T) {
	k, stranger, dir := newKey(t), newKey(t), t.TempDir()
	scan := func(k keyPair, text string) verify.Material {
		return k.attest(t, verify.KindEnvelope, stating(imageDigest, vulnType, `{"text":"`+text+`"}`))
	}
	good, bad := scan(k, "good"), scan(k, "bad")
	slsa := k.attest(t, verify.KindBundle, stating(imageDigest, slsaType, `{}`))
	omitted := subject()
	omitted.Omitted = []verify.OmittedAttestation{{PredicateType: vulnType, Digest: imageDigest, Size: 1 << 30, Reason: "too large"}}
	other := omitted
	other.Omitted = []verify.OmittedAttestation{{PredicateType: sbomType, Digest: imageDigest, Size: 1 << 30, Reason: "too large"}}
	for name, c := range map[string]struct {
		want  []string
		s     verify.Subject
		m     []verify.Material
		rule  string // "" is yes
		class fault.Class
	}{
		"there":                     {[]string{"vuln"}, subject(), []verify.Material{good}, "", 0},
		"by its whole name":         {[]string{vulnType}, subject(), []verify.Material{good}, "", 0},
		"a signature does not do":   {[]string{"vuln"}, subject(), []verify.Material{k.sign(t, verify.KindCosign, imageDigest)}, "trust.no-attestation", fault.Unverified},
		"nothing at all":            {[]string{"vuln"}, subject(), nil, "trust.no-attestation", fault.Unverified},
		"another type":              {[]string{"vuln"}, subject(), []verify.Material{slsa}, "trust.no-attestation", fault.Unverified},
		"a stranger's":              {[]string{"vuln"}, subject(), []verify.Material{scan(stranger, "good")}, "trust.no-attestation", fault.Unverified},
		"two of two":                {[]string{"vuln", "slsaprovenance1"}, subject(), []verify.Material{good, slsa}, "", 0},
		"one of two":                {[]string{"vuln", "slsaprovenance1"}, subject(), []verify.Material{good}, "trust.no-attestation", fault.Unverified},
		"compliant":                 {[]string{"vuln find good"}, subject(), []verify.Material{good}, "", 0},
		"not compliant":             {[]string{"vuln find good"}, subject(), []verify.Material{bad}, "trust.rule", fault.Unverified},
		"one of several is enough":  {[]string{"vuln find good"}, subject(), []verify.Material{bad, good}, "", 0},
		"another's is not judged":   {[]string{"vuln find good"}, subject(), []verify.Material{scan(stranger, "good")}, "trust.no-attestation", fault.Unverified},
		"omitted":                   {[]string{"vuln"}, omitted, nil, "trust.omitted", fault.Unverified},
		"another omitted":           {[]string{"vuln"}, other, nil, "trust.no-attestation", fault.Unverified},
		"omitted, another is there": {[]string{"vuln"}, omitted, []verify.Material{good}, "", 0},
		"broken Rego":               {[]string{"vuln broken"}, subject(), []verify.Material{good}, "trust.policy", fault.Invalid},
		"endless Rego":              {[]string{"vuln endless"}, subject(), []verify.Material{good}, "policy.cost", fault.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, dir, "a.yaml", cip("scanned", "**", asking(k, c.want...)))
			v, _ := judged(t, dir)
			e, err := v.Verify(t.Context(), c.s, c.m)
			if c.rule != "" {
				refused(t, e, err, c.class, c.rule)
				return
			}
			if err != nil || !e.Signed() || e.Signers()[0].Authority != "scans" || e.Signers()[0].Policy != "scanned" {
				t.Fatalf("%+v %v", e, err)
			}
		})
	}
	// Without anybody to judge the answer is no.
	write(t, dir, "a.yaml", cip("scanned", "**", asking(k, "vuln yes")))
	e, err := open(t, dir).Verify(t.Context(), subject(), []verify.Material{good})
	refused(t, e, err, fault.Unverified, "trust.rego")
	// The document is the statement itself, and is judged once.
	v, asked := judged(t, dir)
	if _, err := v.Verify(t.Context(), subject(), []verify.Material{good}); err != nil || len(*asked) != 1 ||
		(*asked)[0] != "yes "+stating(imageDigest, vulnType, `{"text":"good"}`) {
		t.Errorf("%q %v", *asked, err)
	}
}

// An authority that asks for attestations is believed about those alone, and
// what its rule does not find compliant does not reach policy as if it were.
func TestWhatAnAuthorityIsBelievedAbout(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	write(t, dir, "a.yaml", cip("scanned", "**", asking(k, "vuln find good")))
	v, _ := judged(t, dir)
	e, err := v.Verify(t.Context(), subject(), []verify.Material{
		k.attest(t, verify.KindEnvelope, stating(imageDigest, vulnType, `{"text":"good"}`)),
		k.attest(t, verify.KindEnvelope, stating(imageDigest, vulnType, `{"text":"bad"}`)),
		k.attest(t, verify.KindEnvelope, stating(imageDigest, slsaType, `{}`)),
	})
	if err != nil || len(e.Attestations()) != 1 || string(e.Attestations()[0].Predicate()) != `{"text":"good"}` {
		t.Fatalf("%+v %v", e.Attestations(), err)
	}
	b, _ := json.Marshal(e)
	var form struct{ Refused []verify.RefusedAttestation }
	if err := json.Unmarshal(b, &form); err != nil {
		t.Fatal(err)
	}
	rules := map[string]string{}
	for _, r := range form.Refused {
		rules[r.PredicateType] = r.Rule
	}
	if len(form.Refused) != 2 || rules[vulnType] != "trust.rule" || rules[slsaType] != "trust.no-attestation" {
		t.Errorf("%+v", form.Refused)
	}
}

// A policy's own Rego sees what its authorities found, as a cluster shows it.
func TestPolicyOverAllAuthorities(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	a := sigstore.New(t)
	putRoot(t, dir, "default", a.Root())
	rule := func(r string) string { return "  policy:\n    type: rego\n    data: " + r + "\n" }
	authorities := asking(k, "vuln") + strings.TrimPrefix(identityYAML, "  authorities:\n")
	ms := []verify.Material{k.attest(t, verify.KindEnvelope, stating(imageDigest, vulnType, `{}`)), witnessed(a, verify.KindCosign, imageDigest, sigstore.Signing{Extensions: ci, NoStamp: true})}
	write(t, dir, "a.yaml", cip("both", "registry.example.com/**", authorities+rule("yes")))
	v, asked := judged(t, dir)
	e, err := v.Verify(t.Context(), subject(), ms)
	if err != nil || len(e.Signers()) != 2 || len(*asked) != 1 {
		t.Fatalf("%+v %v", e.Signers(), err)
	}
	var doc map[string]map[string]map[string]any
	if err := json.Unmarshal([]byte(strings.TrimPrefix((*asked)[0], "yes ")), &doc); err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(doc)
	scans, _ := json.Marshal(doc["authorityMatches"]["scans"]["attestations"])
	sig, _ := json.Marshal(doc["authorityMatches"]["ci"]["signatures"])
	if !strings.Contains(string(scans), `{"a0":[{"digest":"`+digestOf(ms[0].Payload)+`"`) || !strings.Contains(string(scans), `"predicateType":"`+vulnType+`"`) ||
		!strings.Contains(string(sig), `"githubWorkflowRepo":"team/app"`) || !strings.Contains(string(sig), `"issuer":"`+sigstore.Issuer+`"`) {
		t.Errorf("%s", got)
	}
	write(t, dir, "a.yaml", cip("both", "registry.example.com/**", authorities+rule("no")))
	v, _ = judged(t, dir)
	e, err = v.Verify(t.Context(), subject(), ms)
	refused(t, e, err, fault.Unverified, "trust.rule")
	// It is not asked where no authority is satisfied, and cannot help there.
	write(t, dir, "a.yaml", cip("both", "registry.example.com/**", authorities+rule("yes")))
	v, asked = judged(t, dir)
	e, err = v.Verify(t.Context(), subject(), nil)
	if refused(t, e, err, fault.Unverified, "trust.no-attestation"); len(*asked) != 0 {
		t.Errorf("%q", *asked)
	}
	// Over a static authority too: then it alone decides.
	write(t, dir, "a.yaml", cip("both", "registry.example.com/**", "  authorities:\n    - static: {action: pass}\n"+rule("find static")))
	v, _ = judged(t, dir)
	if e, err = v.Verify(t.Context(), subject(), nil); err != nil || e.Signed() {
		t.Errorf("%+v %v", e, err)
	}
	write(t, dir, "a.yaml", cip("both", "registry.example.com/**", "  authorities:\n    - static: {action: pass}\n"+rule("no")))
	v, _ = judged(t, dir)
	e, err = v.Verify(t.Context(), subject(), nil)
	refused(t, e, err, fault.Unverified, "trust.rule")
}

// Static pass lets an image through to policy, marked as nobody's word.
func TestStaticPass(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	write(t, dir, "a.yaml", cip("open", "registry.example.com/**", "  authorities:\n    - static:\n        action: pass\n"))
	v := open(t, dir)
	e, err := v.Verify(t.Context(), subject(), nil)
	if err != nil || !e.Verified() || e.Signed() || len(e.Signers()) != 1 || e.Signers()[0].Kind != verify.KindStatic || e.Signers()[0].KeyID != "" || e.Digest() != imageDigest {
		t.Fatalf("%+v %v", e, err)
	}
	// What is stated is not believed by nobody.
	if e, err = v.Verify(t.Context(), subject(), []verify.Material{k.attest(t, verify.KindEnvelope, stating(imageDigest, vulnType, `{}`))}); err != nil || len(e.Attestations()) != 0 {
		t.Fatalf("%+v %v", e.Attestations(), err)
	}
	// Another policy for the same image asks all the same.
	write(t, dir, "b.yaml", cip("signed", "registry.example.com/team/*", byKey(k.pem)))
	v = open(t, dir)
	e, err = v.Verify(t.Context(), subject(), nil)
	refused(t, e, err, fault.Unverified, "trust.unsigned")
	if e, err = v.Verify(t.Context(), subject(), []verify.Material{k.sign(t, verify.KindCosign, imageDigest)}); err != nil || !e.Signed() {
		t.Fatalf("%+v %v", e, err)
	}
}

// A policy that only warns lets an image through to policy, says so, and
// counts as nobody's word.
func TestWarn(t *testing.T) {
	k, other, dir := newKey(t), newKey(t), t.TempDir()
	write(t, dir, "a.yaml", cip("trial", "**", "  mode: warn\n"+byKey(k.pem)))
	v := open(t, dir)
	e, err := v.Verify(t.Context(), subject(), []verify.Material{other.sign(t, verify.KindCosign, imageDigest)})
	if err != nil || !e.Verified() || e.Signed() || len(e.Policies()) != 0 {
		t.Fatalf("%+v %v", e, err)
	}
	if w := e.Warnings(); len(w) != 1 || w[0].Policy != "trial" || w[0].Rule != "trust.wrong-key" || w[0].Cause == "" {
		t.Fatalf("%+v", w)
	}
	if b, err := json.Marshal(e); err != nil || !strings.Contains(string(b), `"warnings":[{"policy":"trial","rule":"trust.wrong-key"`) {
		t.Fatalf("%s %v", b, err)
	}
	if e, err = v.Verify(t.Context(), subject(), []verify.Material{k.sign(t, verify.KindCosign, imageDigest)}); err != nil || !e.Signed() || len(e.Warnings()) != 0 {
		t.Fatalf("%+v %v", e, err)
	}
	// Beside one that is enforced it takes nothing away.
	write(t, dir, "b.yaml", cip("signed", "**", byKey(other.pem)))
	v = open(t, dir)
	e, err = v.Verify(t.Context(), subject(), nil)
	refused(t, e, err, fault.Unverified, "trust.unsigned")
	if e, err = v.Verify(t.Context(), subject(), []verify.Material{other.sign(t, verify.KindCosign, imageDigest)}); err != nil || !e.Signed() || len(e.Warnings()) != 1 || !slices.Equal(e.Policies(), []string{"signed"}) {
		t.Fatalf("%+v %v", e, err)
	}
	// What cannot be read is no warning.
	write(t, dir, "b.yaml", cip("trial2", "**", "  mode: warn\n"+asking(k, "vuln broken")))
	v, _ = judged(t, dir)
	e, err = v.Verify(t.Context(), subject(), []verify.Material{k.attest(t, verify.KindEnvelope, stating(imageDigest, vulnType, `{}`))})
	refused(t, e, err, fault.Invalid, "trust.policy")
}

// A policy for other resources says nothing here; one for some Pods asks, and
// lets nothing in by itself.
func TestMatch(t *testing.T) {
	k := newKey(t)
	signed := []verify.Material{k.sign(t, verify.KindCosign, imageDigest)}
	for match, want := range map[string]string{
		"{resource: pods, version: v1}":                                                                    "",
		"{resource: pods, version: \"*\"}":                                                                 "",
		"{group: apps, resource: deployments, version: v1}":                                                "trust.no-policy",
		"{resource: pods, version: v2}":                                                                    "trust.no-policy",
		"{group: apps, resource: pods, version: v1}":                                                       "trust.no-policy",
		"{resource: pods, version: v1, selector: {matchLabels: {a: b}}}":                                   "trust.no-policy",
		"{resource: pods, version: v1, selector: {matchLabels: {a: b}}}, {resource: pods, version: \"*\"}": "",
	} {
		dir := t.TempDir()
		write(t, dir, "a.yaml", cip("matched", "**", byKey(k.pem)+"  match: ["+match+"]\n"))
		e, err := open(t, dir).Verify(t.Context(), subject(), signed)
		if want != "" {
			refused(t, e, err, fault.Unverified, want)
		} else if err != nil || !e.Signed() {
			t.Errorf("%s: %v", match, err)
		}
		// Beside a policy that lets in, one that may be meant is asked too.
		other := newKey(t)
		write(t, dir, "b.yaml", cip("all", "**", byKey(other.pem)))
		e, err = open(t, dir).Verify(t.Context(), subject(), []verify.Material{other.sign(t, verify.KindCosign, imageDigest)})
		if strings.Contains(match, "deployments") || strings.Contains(match, "v2") || strings.Contains(match, "apps") {
			if err != nil || !e.Signed() {
				t.Errorf("%s: %v", match, err)
			}
		} else {
			refused(t, e, err, fault.Unverified, "trust.wrong-key")
		}
	}
}
