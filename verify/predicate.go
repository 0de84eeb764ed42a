package verify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"time"
	"unicode/utf8"

	"github.com/ward-project/ward/internal/fault"
)

// customPredicate is the type of cosign's own "custom" predicate.
const customPredicate = "https://cosign.sigstore.dev/attestation/v1"

// maxPredicate bounds what is stated about an image: 8 MiB fill the 12 MiB
// that are kept of an attestation, in which they are in base64.
const maxPredicate = 8 << 20

// predicateKind is one of the short names that cosign has for predicate types.
type predicateKind struct {
	uri string
	// required are the fields without which cosign does not sign either.
	required []string
	// anyText takes what is no JSON, as a JSON string.
	anyText bool
}

var predicateKinds = map[string]predicateKind{
	"slsaprovenance":   {uri: "https://slsa.dev/provenance/v0.2", required: []string{"builder", "buildType"}},
	"slsaprovenance02": {uri: "https://slsa.dev/provenance/v0.2", required: []string{"builder", "buildType"}},
	"slsaprovenance1":  {uri: "https://slsa.dev/provenance/v1", required: []string{"buildDefinition", "runDetails"}},
	"link":             {uri: "https://in-toto.io/Link/v1", required: []string{"_type", "name", "materials", "products", "byproducts", "command", "environment"}},
	"spdx":             {uri: "https://spdx.dev/Document", anyText: true},
	"spdxjson":         {uri: "https://spdx.dev/Document"},
	"cyclonedx":        {uri: "https://cyclonedx.org/bom"},
	"vuln":             {uri: "https://cosign.sigstore.dev/attestation/vuln/v1", required: []string{"invocation", "scanner", "metadata"}},
	"openvex":          {uri: "https://openvex.dev/ns"},
	"custom":           {uri: customPredicate, anyText: true},
}

// PredicateType is the type that one of cosign's short names stands for
// (slsaprovenance, spdxjson, vuln, …), or the given URI.
func PredicateType(name string) (string, error) {
	if k, ok := predicateKinds[name]; ok {
		return k.uri, nil
	}
	if _, err := url.ParseRequestURI(name); err != nil || len(name) > 1024 || !printableASCII(name) {
		return "", fault.New(fault.Invalid, "attest.type", fmt.Sprintf("%.100q is neither a known predicate type nor a URI", name),
			"use slsaprovenance, slsaprovenance02, slsaprovenance1, link, spdx, spdxjson, cyclonedx, vuln, openvex, custom or a URI")
	}
	return name, nil
}

func printableASCII(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// NewPredicate reads a predicate from a file's content as cosign does for that
// type: "custom" wraps any text with the time, "spdx" is one JSON string, all
// others are JSON. Unlike cosign it signs every field that is there, also those
// that it does not know.
func NewPredicate(name string, content []byte, now time.Time) (uri string, predicate []byte, err error) {
	if uri, err = PredicateType(name); err != nil {
		return "", nil, err
	}
	if len(content) > maxPredicate {
		return "", nil, fault.New(fault.Invalid, "attest.predicate", fmt.Sprintf("the predicate has %d bytes, at most %d are signed", len(content), maxPredicate),
			"state less, or name a file by its digest")
	}
	kind := predicateKinds[name]
	if !kind.anyText {
		// cosign's own type, by its address, is wrapped too.
		if uri == customPredicate {
			kind = predicateKinds["custom"]
		} else {
			return uri, content, checkPredicate(name, kind, content)
		}
	}
	if !utf8.Valid(content) {
		return "", nil, fault.New(fault.Invalid, "attest.predicate", "the predicate is not UTF-8 text", "name a text file")
	}
	if uri != customPredicate {
		predicate, err = json.Marshal(string(content))
		return uri, predicate, err
	}
	predicate, err = json.Marshal(struct {
		Data      string
		Timestamp string
	}{string(content), now.UTC().Format(time.RFC3339)})
	return uri, predicate, err
}

// checkPredicate refuses what verifiers of that type could not read, or could
// read in two ways.
func checkPredicate(name string, kind predicateKind, content []byte) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "attest.predicate", "predicate of type "+name+": "+fmt.Sprintf(format, args...), "mend the predicate file, or choose another --type")
	}
	v, err := strictJSON(content)
	if err != nil {
		return bad("%v", err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return bad("it is not a JSON object")
	}
	for _, f := range kind.required {
		if _, there := m[f]; !there {
			return bad("field %q is missing", f)
		}
	}
	return nil
}

// Versions of in-toto statements.
const (
	// StatementV01 is what cosign writes for every attestation.
	StatementV01 = "https://in-toto.io/Statement/v0.1"
	// StatementV1 is what newer predicate types ask for.
	StatementV1 = "https://in-toto.io/Statement/v1"
)

// attested writes the statement that predicate holds for the image.
func attested(version, repository, digest, predicateType string, predicate []byte) ([]byte, error) {
	type subject struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // a predicate with <> would grow beyond its bound
	err := e.Encode(struct {
		Type          string          `json:"_type"`
		PredicateType string          `json:"predicateType"`
		Subject       []subject       `json:"subject"`
		Predicate     json.RawMessage `json:"predicate"`
	}{version, predicateType, []subject{{repository, map[string]string{"sha256": digest[len("sha256:"):]}}}, predicate})
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
