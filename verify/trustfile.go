package verify

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ward-project/ward/internal/fault"
)

// policy is one ClusterImagePolicy, reduced to what is enforced.
type policy struct {
	name        string
	file        string
	line        int
	mode        string
	globs       []glob
	authorities []authority
	// signed is what it asks of the name in a signature.
	signed signedName
	// rule judges what the authorities found, if there is one.
	rule  *inlineRego
	reach reach
	notes []note // annotations of ours
}

// Bounds on trust files. They are the owner's, but a mistake (a disk image
// named .yaml) must not take the host down.
const (
	maxTrustFile        = 256 << 10
	maxTrustFiles       = 256
	maxPoliciesPerFile  = 256
	maxGlobsPerPolicy   = 256
	maxAuthorities      = 64
	policyAPIVersion    = "policy.sigstore.dev/v1beta1"
	policyKind          = "ClusterImagePolicy"
	modeWarn            = "warn"
	remedyFixTrustFile  = "correct or remove the file; nothing is verified until then"
	ruleTrustPolicy     = "trust.policy"
	defaultAuthorityFmt = "authority-%d"
)

// reader turns YAML nodes of one file into policies. It works on nodes and not
// on structs because every error must name its line, and because a struct
// decoder would let through what it does not know.
type reader struct{ file string }

func (r reader) errorf(n *yaml.Node, format string, args ...any) error {
	return trustError(r.file, n.Line, fmt.Sprintf(format, args...))
}

func trustError(file string, line int, msg string) error {
	where := file
	if line > 0 {
		where += ":" + strconv.Itoa(line)
	}
	return fault.New(fault.Invalid, ruleTrustPolicy, where+": "+msg, remedyFixTrustFile)
}

// parsePolicies reads all policies of one file: one or more YAML documents,
// each a ClusterImagePolicy or a List of them as kubectl prints it.
func parsePolicies(file string, b []byte) ([]policy, error) {
	r := reader{file}
	d := yaml.NewDecoder(bytes.NewReader(b))
	var all []policy
	for {
		var doc yaml.Node
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			line, msg := yamlError(err)
			return nil, trustError(file, line, msg)
		}
		if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
			continue // "---" with nothing behind it
		}
		if err := r.plain(&doc); err != nil {
			return nil, err
		}
		if err := r.document(doc.Content[0], &all); err != nil {
			return nil, err
		}
		if len(all) > maxPoliciesPerFile {
			return nil, r.errorf(&doc, "more than %d policies in one file", maxPoliciesPerFile)
		}
	}
	if len(all) == 0 {
		return nil, trustError(file, 0, "holds no ClusterImagePolicy")
	}
	return all, nil
}

// yamlError splits "yaml: line 3: what" so that the line can stand where an
// editor looks for it. (No regexp: compiling one costs every start of ward.)
func yamlError(err error) (line int, msg string) {
	msg = strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if n, after, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(n); err == nil {
				return line, after
			}
		}
	}
	return 0, msg
}

// plain refuses anchors, aliases, merges and tags of one's own: they let a
// line mean something that is written elsewhere.
func (r reader) plain(n *yaml.Node) error {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return r.errorf(n, "YAML anchors and aliases are not accepted")
	case n.Tag == "!!merge" || strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!"):
		return r.errorf(n, "YAML tag %s is not accepted", n.Tag)
	}
	for _, c := range n.Content {
		if err := r.plain(c); err != nil {
			return err
		}
	}
	return nil
}

// fields calls the function for each key of a mapping. A key without a
// function, or written twice, is an error.
func (r reader) fields(n *yaml.Node, what string, known map[string]func(*yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return r.errorf(n, "%s must be a mapping", what)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		f, ok := known[k.Value]
		if !ok || k.Kind != yaml.ScalarNode {
			return r.errorf(k, "unknown field %q in %s", k.Value, what)
		}
		if seen[k.Value] {
			return r.errorf(k, "field %q is written twice in %s", k.Value, what)
		}
		seen[k.Value] = true
		if v.Kind != yaml.ScalarNode {
			v.Line = k.Line // a block begins below its key; the key is what to look at
		}
		if err := f(v); err != nil {
			return err
		}
	}
	return nil
}

// items calls f for each element of a non-empty sequence.
func (r reader) items(n *yaml.Node, what string, limit int, f func(int, *yaml.Node) error) error {
	if n.Kind != yaml.SequenceNode {
		return r.errorf(n, "%s must be a list", what)
	}
	if len(n.Content) == 0 {
		return r.errorf(n, "%s is empty", what)
	}
	if len(n.Content) > limit {
		return r.errorf(n, "%s has more than %d entries", what, limit)
	}
	for i, c := range n.Content {
		if err := f(i, c); err != nil {
			return err
		}
	}
	return nil
}

// str stores a scalar string.
func (r reader) str(dst *string, what string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
			return r.errorf(n, "%s must be a string", what)
		}
		*dst = n.Value
		return nil
	}
}

// ignored accepts a field that means nothing here.
func ignored(*yaml.Node) error { return nil }

// unsupported refuses a field that means something we cannot do: leaving it
// out would verify less than the policy's author asked for.
func (r reader) unsupported(what, instead string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		return r.errorf(n, "%s is not supported yet%s", what, instead)
	}
}

var hashes = map[string]crypto.Hash{"": crypto.SHA256, "sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}
