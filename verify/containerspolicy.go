package verify

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ward-project/ward/internal/fault"
)

// maxScopes bounds the scopes of a containers-policy.json.
const maxScopes = 1024

// fromContainersPolicy turns a containers-policy.json(5) into
// ClusterImagePolicies. What has no equal is left out, which lets nothing in,
// and named in left; an error means that the file cannot be understood.
func fromContainersPolicy(file string, b []byte) (out []byte, left []string, err error) {
	bad := func(err error) error {
		return fault.New(fault.Invalid, "trust.import", file+": "+err.Error(), "mend the file; see containers-policy.json(5)")
	}
	v, err := strictJSON(b)
	if err != nil {
		return nil, nil, bad(err)
	}
	top, ok := v.(map[string]any)
	if !ok {
		return nil, nil, bad(errors.New("not a JSON object"))
	}
	if err := onlyKeys(top, "default", "transports"); err != nil {
		return nil, nil, bad(err)
	}
	im := containersImport{file: file}
	if err := im.scope("", top["default"]); err != nil { // without a default the file means nothing
		return nil, nil, bad(fmt.Errorf("default: %w", err))
	}
	transports, ok := top["transports"].(map[string]any)
	if !ok && top["transports"] != nil {
		return nil, nil, bad(errors.New("transports is not an object"))
	}
	for _, transport := range slices.Sorted(maps.Keys(transports)) {
		scopes, ok := transports[transport].(map[string]any)
		if !ok || len(scopes) > maxScopes {
			return nil, nil, bad(fmt.Errorf("transports.%s is not an object of at most %d scopes", transport, maxScopes))
		}
		if transport != "docker" {
			im.left = append(im.left, fmt.Sprintf("transport %s: ward asks every image from a registry, whatever it came by", transport))
			continue
		}
		for _, scope := range slices.Sorted(maps.Keys(scopes)) {
			if err := im.scope(scope, scopes[scope]); err != nil {
				return nil, nil, bad(fmt.Errorf("transports.docker.%q: %w", scope, err))
			}
		}
	}
	im.overlaps()
	return im.out.Bytes(), im.left, nil
}

// containersImport is the work on one file.
type containersImport struct {
	file string
	out  bytes.Buffer
	left []string
	// accepting are the scopes that became policies which can be satisfied.
	accepting []string
}

// scope writes the policies of one scope: one for each requirement, as all of
// a scope's have to be met.
func (im *containersImport) scope(scope string, v any) error {
	list, ok := v.([]any)
	if !ok || len(list) == 0 || len(list) > maxAuthorities {
		return fmt.Errorf("not a list of 1 to %d requirements", maxAuthorities)
	}
	var docs bytes.Buffer
	accepts := true
	for i, item := range list {
		req, ok := item.(map[string]any)
		if !ok {
			return fmt.Errorf("requirement %d is not an object", i+1)
		}
		kind, err := text(req, "type")
		if err != nil {
			return fmt.Errorf("requirement %d: %w", i+1, err)
		}
		var why string
		switch kind {
		case "reject":
			if err := onlyKeys(req, "type"); err != nil {
				return fmt.Errorf("requirement %d: %w", i+1, err)
			}
			accepts = false
			if scope != "" {
				writePolicy(&docs, importName(scope, i), scopeGlobs(scope), "", "    - static:\n        action: fail\n        message: "+quoted("rejected by "+im.file)+"\n")
			}
		case "insecureAcceptAnything":
			why = "it accepts images that nobody signed"
		case "signedBy":
			why = "signedBy asks for GPG signatures, which ward does not read; sign with cosign"
		case "sigstoreSigned":
			why, err = im.sigstore(&docs, scope, i, req)
		default:
			err = fmt.Errorf("type %.64q is not known", kind)
		}
		if err != nil {
			return fmt.Errorf("requirement %d: %w", i+1, err)
		}
		if why != "" { // half of what a scope asks for would be weaker than all of it
			im.left = append(im.left, named(scope)+": "+why)
			return nil
		}
	}
	if accepts {
		im.accepting = append(im.accepting, scope)
	}
	_, err := docs.WriteTo(&im.out)
	return err
}

// sigstore writes the policy of one sigstoreSigned requirement, or says why
// there is none like it.
func (im *containersImport) sigstore(docs *bytes.Buffer, scope string, i int, req map[string]any) (why string, err error) {
	for k := range req {
		switch k {
		case "type", "keyPath", "keyPaths", "keyData", "keyDatas", "signedIdentity":
		case "fulcio", "pki":
			return k + " is not imported: write a keyless authority with a trust root (docs/trust.md)", nil
		case "rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas":
			return "a transparency log's key is not imported: write an authority with ctlog and a trust root (docs/trust.md)", nil
		default:
			return "", fmt.Errorf("unknown key %.64q", k)
		}
	}
	pem, err := importKeys(req)
	if err != nil {
		return "", err
	}
	identity, err := signedIdentity(req["signedIdentity"])
	if err != nil {
		return "", err
	}
	var a strings.Builder
	a.WriteString("    - key:\n        data: |\n")
	for line := range strings.Lines(pem) {
		a.WriteString("          " + strings.TrimSpace(line) + "\n")
	}
	writePolicy(docs, importName(scope, i), scopeGlobs(scope), identity, a.String())
	return "", nil
}

// importKeys collects the public keys of a requirement, any of which will do.
// Exactly one of the four ways to name them has to be used.
func importKeys(req map[string]any) (string, error) {
	var out strings.Builder
	ways := 0
	for _, way := range []struct {
		key        string
		list, path bool
	}{{"keyPath", false, true}, {"keyPaths", true, true}, {"keyData", false, false}, {"keyDatas", true, false}} {
		v, there := req[way.key]
		if !there {
			continue
		}
		ways++
		values := []any{v}
		if way.list {
			values, _ = v.([]any)
		}
		if len(values) == 0 || len(values) > maxAuthorities {
			return "", fmt.Errorf("%s is not a list of 1 to %d keys", way.key, maxAuthorities)
		}
		for _, v := range values {
			s, ok := v.(string)
			if !ok {
				return "", fmt.Errorf("%s is not text", way.key)
			}
			b, err := base64.StdEncoding.DecodeString(s)
			if way.path {
				b, err = readBounded(s, maxTrustFile)
			}
			if err != nil {
				return "", fmt.Errorf("%s: %w", way.key, err)
			}
			out.WriteString(strings.TrimSpace(string(b)) + "\n")
		}
	}
	if ways != 1 {
		return "", errors.New("exactly one of keyPath, keyPaths, keyData and keyDatas is needed")
	}
	return out.String(), nil
}

// signedIdentity is the requirement on the signature's name as the annotation
// spells it. Absent it is what containers-policy.json(5) says.
func signedIdentity(v any) (string, error) {
	if v == nil {
		return "matchRepoDigestOrExact", nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		return "", errors.New("signedIdentity is not an object")
	}
	kind, err := text(m, "type")
	if err != nil {
		return "", fmt.Errorf("signedIdentity: %w", err)
	}
	words, keys := []string{kind}, map[string][]string{
		"exactReference": {"dockerReference"}, "exactRepository": {"dockerRepository"}, "remapIdentity": {"prefix", "signedPrefix"}}[kind]
	for _, k := range keys {
		s, err := text(m, k)
		if err != nil {
			return "", fmt.Errorf("signedIdentity: %w", err)
		}
		words = append(words, s)
	}
	if err := onlyKeys(m, append(keys, "type")...); err != nil {
		return "", fmt.Errorf("signedIdentity: %w", err)
	}
	n, err := parseSignedName(strings.Join(words, " "))
	if err != nil {
		return "", fmt.Errorf("signedIdentity: %w", err)
	}
	return n.String(), nil
}

// overlaps says where ward asks for more than the file did: there the closest
// scope alone counts, here every policy that matches.
func (im *containersImport) overlaps() {
	for _, wide := range im.accepting {
		for _, narrow := range im.accepting {
			if narrow != wide && within(narrow, wide) {
				im.left = append(im.left, fmt.Sprintf("%s lies within %s: images there now need the signatures of both", named(narrow), named(wide)))
			}
		}
	}
}

// within says whether every image of one scope is also in another.
func within(narrow, wide string) bool {
	if wide == "" {
		return true
	}
	if domain, any := strings.CutPrefix(wide, "*."); any {
		host, _, _ := strings.Cut(narrow, "/")
		return strings.HasSuffix(host, "."+domain)
	}
	rest, ok := strings.CutPrefix(narrow, wide)
	return ok && (strings.HasPrefix(rest, "/") || strings.Contains(wide, "/") && rest != "" && strings.ContainsAny(rest[:1], ":@"))
}

// scopeGlobs are the globs that match the images of a scope, no more.
func scopeGlobs(scope string) []string {
	host, path, _ := strings.Cut(scope, "/")
	last := path[strings.LastIndexByte(path, '/')+1:]
	switch {
	case scope == "":
		return []string{"**"}
	case path == "":
		return []string{host + "/**"}
	case strings.ContainsAny(last, ":@"):
		return []string{scope}
	}
	return []string{scope + ":*", scope + "@*", scope + "/**"}
}

func named(scope string) string {
	if scope == "" {
		return "default"
	}
	return scope
}

func importName(scope string, i int) string {
	return ruleName(named(scope), fmt.Sprint("import", i))
}

// quoted writes text that YAML reads as exactly that.
func quoted(s string) string { return fmt.Sprintf("%q", strings.ToValidUTF8(s, "?")) }

// writePolicy writes one ClusterImagePolicy document.
func writePolicy(b *bytes.Buffer, name string, globs []string, identity, authority string) {
	fmt.Fprintf(b, "---\napiVersion: %s\nkind: %s\nmetadata:\n  name: %s\n", policyAPIVersion, policyKind, quoted(name))
	if identity != "" {
		fmt.Fprintf(b, "  annotations:\n    %s: %s\n", signedNameAnnotation, quoted(identity))
	}
	b.WriteString("spec:\n  images:\n")
	for _, g := range globs {
		fmt.Fprintf(b, "    - glob: %s\n", quoted(g))
	}
	b.WriteString("  authorities:\n" + authority)
}
