package verify

import (
	"os"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// The rows follow the table of containers-policy.json(5), "signedIdentity".
func TestSignedName(t *testing.T) {
	const repo = "registry.example.com/team/app"
	for _, c := range []struct {
		ask, image, signed string
		want               bool
	}{
		{"matchExact", repo + ":1", repo + ":1", true},
		{"matchExact", repo + ":1", repo + ":2", false},
		{"matchExact", repo + ":latest", repo, false}, // what is not written does not count as latest
		{"matchExact", repo + "@" + someDigest, repo + "@" + someDigest, true},
		{"matchExact", repo + "@" + someDigest, repo + ":1", false},
		{"matchRepoDigestOrExact", repo + ":1", repo + ":1", true},
		{"matchRepoDigestOrExact", repo + ":1", repo + ":2", false},
		{"matchRepoDigestOrExact", repo + ":1", repo, false},
		{"matchRepoDigestOrExact", repo + "@" + someDigest, repo + ":2", true},
		{"matchRepoDigestOrExact", repo + "@" + someDigest, repo + "2:2", false},
		{"matchRepository", repo + ":1", repo, true},
		{"matchRepository", repo + ":1", repo + ":2", true},
		{"matchRepository", "busybox:1", "docker.io/library/busybox", true},
		{"matchRepository", repo + ":1", repo + "2", false},
		{"matchRepository", repo + ":1", "not a name", false},
		{"matchRepository", repo + ":1", "", false},
		{"exactReference " + repo + ":prod", "mirror.example.com/x:1", repo + ":prod", true},
		{"exactReference " + repo + ":prod", repo + ":prod", repo + ":test", false},
		{"exactReference " + repo + ":latest", repo + ":latest", repo, false},
		{"exactRepository " + repo, "mirror.example.com/x:1", repo + ":7", true},
		{"exactRepository " + repo, repo + ":1", repo + "2:1", false},
		{"remapIdentity mirror.example.com registry.example.com", "mirror.example.com/team/app:1", repo + ":1", true},
		{"remapIdentity mirror.example.com registry.example.com", "mirror.example.com:5000/team/app:1", "registry.example.com:5000/team/app:1", false},
		{"remapIdentity mirror.example.com/te registry.example.com/te", "mirror.example.com/team/app:1", repo + ":1", false},
		{"remapIdentity mirror.example.com/a/app " + repo, "mirror.example.com/a/app@" + someDigest, repo + ":3", true},
		{"remapIdentity docker.io/library mirror.example.com/hub", "busybox:1", "mirror.example.com/hub/busybox:1", true},
		{"remapIdentity other.example.com x.example.com", repo + ":1", repo + ":1", true},
	} {
		n, err := parseSignedName(c.ask)
		if err != nil {
			t.Errorf("%s: %v", c.ask, err)
			continue
		}
		ref, err := parseReference(c.image)
		if err != nil {
			t.Fatal(err)
		}
		if got := n.match(ref, c.signed); got != c.want {
			t.Errorf("%s: image %s, signed for %s: %v, want %v", c.ask, c.image, c.signed, got, c.want)
		}
	}
	ref, _ := parseReference(repo + ":1")
	if !(signedName{}).match(ref, "") || (signedName{kind: "later"}).match(ref, repo+":1") {
		t.Error("nothing asked is satisfied by anything, and what is not known by nothing")
	}
	for _, bad := range []string{"", " ", "matchAny", "matchExact x", "exactReference", "exactReference " + repo, "exactRepository a b",
		"exactRepository UPPER/case", "remapIdentity a", "remapIdentity a/ b", "remapIdentity a? b"} {
		if n, err := parseSignedName(bad); err == nil {
			t.Errorf("%q was read as %v", bad, n)
		}
	}
}

// A policy that asks for the name takes the key's word only for that name.
func TestPolicyAsksForTheSignedName(t *testing.T) {
	key, pub, err := GenerateKey(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(pub)
	if err != nil {
		t.Fatal(err)
	}
	plain := string(ruleYAML("p", "**", "sha256", pem))
	sign := func(ref, format string) Material {
		m, err := Sign(t.Context(), SignRequest{KeyPath: key, Reference: ref, Digest: testDigest, Format: format})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	test, prod := sign("ghcr.io/team/test", KindCosign), sign("ghcr.io/team/prod", KindCosign)
	judge := func(ask string, ms ...Material) error {
		policies, err := parsePolicies("p.yaml", []byte(strings.Replace(plain, "metadata:\n", "metadata:\n  annotations:\n    other: x\n    "+ask+"\n", 1)))
		if err != nil {
			return err
		}
		_, err = (&Verifier{policies: policies}).Verify(t.Context(), Subject{Reference: "ghcr.io/team/prod:1", Digests: []string{testDigest}}, ms)
		return err
	}
	if err := judge("ward.dev/signed-identity: matchRepository", test, prod); err != nil {
		t.Error(err)
	}
	if err := judge("more: x", test); err != nil {
		t.Errorf("without asking, the bytes count: %v", err)
	}
	for _, ms := range [][]Material{{test}, {sign("ghcr.io/team/prod", KindBundle)}} {
		if err := judge("ward.dev/signed-identity: matchRepository", ms...); fault.As(err).Rule != "trust.wrong-name" {
			t.Errorf("%v", err)
		}
	}
	for _, bad := range []string{"ward.dev/signed-identity: matchAll", "ward.dev/signed-identity: [matchExact]", "ward.dev/signed_identity: matchExact",
		"ward.dev/signed-identity: matchExact\n    ward.dev/signed-identity: matchRepository"} {
		if err := judge(bad, prod); fault.As(err).Rule != "trust.policy" {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
