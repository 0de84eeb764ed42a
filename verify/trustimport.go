package verify

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/ward-project/ward/internal/fault"
)

// ImportedTrust is what importing a file comes to.
type ImportedTrust struct {
	// Path is the file in the trust directory; "" if none was to be written.
	Path string
	// YAML is what stands there: ClusterImagePolicies.
	YAML []byte
	// Left says what of the source has no equal or is asked for more strictly
	// here. What is left out lets no image in.
	Left []string
}

// TrustImport reads trust from another tool's file: ClusterImagePolicies, taken as
// they are, or a containers-policy.json(5), translated. It writes NAME.yaml
// into dir (name is the source's unless given; nothing is written with
// dryRun), never over a file that is there, and only if the directory as a
// whole is understood with it.
func TrustImport(dir, path, name string, dryRun bool) (ImportedTrust, error) {
	b, err := readBounded(path, maxTrustFile)
	if err != nil {
		return ImportedTrust{}, fault.Wrap(fault.Invalid, "trust.import", err, "name a containers-policy.json, or a file of ClusterImagePolicies")
	}
	im := ImportedTrust{YAML: b}
	if first := bytes.TrimLeft(b, " \t\r\n"); len(first) > 0 && first[0] == '{' && !bytes.Contains(b, []byte(policyKind)) {
		if im.YAML, im.Left, err = fromContainersPolicy(path, b); err != nil {
			return im, err
		}
		if len(im.YAML) == 0 {
			return im, fault.New(fault.Invalid, "trust.import", path+": nothing in it can be imported: "+strings.Join(im.Left, "; "),
				"write a ClusterImagePolicy by hand: docs/trust.md")
		}
	}
	if name == "" {
		name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	if !validPolicyName(name) {
		return im, fault.New(fault.Invalid, "trust.name", fmt.Sprintf("%q is not a policy name", name), "give one with --name: lower-case letters, digits, - and .")
	}
	target := filepath.Join(dir, name+".yaml")
	added, err := parsePolicies(target, im.YAML)
	if err != nil {
		return im, err
	}
	there, _, err := loadPolicies(dir)
	if err != nil {
		return im, err
	}
	for i, p := range added {
		for _, q := range append(there, added[:i]...) {
			if p.name == q.name {
				return im, policyExists(p.name, q.file)
			}
		}
	}
	if dryRun {
		return im, nil
	}
	im.Path, err = createPolicy(dir, name, im.YAML)
	return im, err
}

// TrustExport returns the policies in dir as one YAML stream, as they stand in
// their files: all of them, or the files that hold the named ones.
func TrustExport(dir string, names []string) ([]byte, error) {
	policies, _, err := loadPolicies(dir)
	if err != nil {
		return nil, err
	}
	files := map[string]bool{}
	for _, name := range names {
		found := false
		for _, p := range policies {
			if p.name == name {
				files[p.file], found = true, true
			}
		}
		if !found {
			return nil, fault.New(fault.NotFound, "trust.not-found", fmt.Sprintf("no trust policy is called %q", name), "ward trust list")
		}
	}
	var out bytes.Buffer
	done := map[string]bool{}
	for _, p := range policies {
		if done[p.file] || len(names) > 0 && !files[p.file] {
			continue
		}
		done[p.file] = true
		b, err := readTrustFile(p.file)
		if err != nil {
			return nil, trustError(p.file, 0, reason(err))
		}
		if b = bytes.TrimSpace(b); !bytes.HasPrefix(b, []byte("---")) {
			out.WriteString("---\n")
		}
		out.Write(b)
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}
