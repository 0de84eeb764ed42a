package policy

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ward-project/ward/internal/fault"
)

// bundleSuffix is how the name of an OPA bundle ends in a policy directory;
// what is before it is the bundle's name.
const bundleSuffix = ".tar.gz"

// Bounds on one bundle, before anything in it is believed.
const (
	// MaxBundle is the largest archive.
	MaxBundle = 4 << 20
	// maxUnpacked bounds the archive unpacked, with its headers.
	maxUnpacked = 8 << 20
	maxEntries  = 512
	maxPath     = 512
)

// Names of files with a meaning in a bundle.
const (
	manifestFile   = ".manifest"
	signaturesFile = ".signatures.json"
	dataFile       = "data.json"
)

// Bundle is an OPA bundle whose signature was verified.
type Bundle struct {
	// Name is the file's, without ".tar.gz".
	Name string `json:"name"`
	// Revision is the manifest's; Serial its metadata.serial, if it has one.
	Revision string `json:"revision"`
	Serial   int64  `json:"serial,omitempty"`
	// Digest is "sha256:…" of the archive, Key the name of the key it was
	// verified with.
	Digest string `json:"digest"`
	Key    string `json:"key"`

	order order
	roots []string
}

// unpack takes a bundle apart into files by name, without a leading slash.
// Nothing of it is believed: every bound holds for whoever made the archive.
func unpack(archive []byte) (map[string][]byte, error) {
	raw := bytes.NewReader(archive)
	z, err := gzip.NewReader(raw)
	if err != nil {
		return nil, err
	}
	z.Multistream(false) // two archives in one file: which one was meant?
	limited := &io.LimitedReader{R: z, N: maxUnpacked + 1}
	files := map[string][]byte{}
	for t, n := tar.NewReader(limited), 0; ; n++ {
		h, err := t.Next()
		if limited.N <= 0 {
			return nil, fmt.Errorf("unpacked it is more than %d bytes", maxUnpacked)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if n >= maxEntries {
			return nil, fmt.Errorf("it has more than %d entries", maxEntries)
		}
		name, err := entryName(h)
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		if _, twice := files[name]; twice {
			return nil, fmt.Errorf("%q is in it twice", name)
		}
		if h.Size > maxFile {
			return nil, fmt.Errorf("%q is larger than %d bytes", name, maxFile)
		}
		if files[name], err = io.ReadAll(io.LimitReader(t, maxFile+1)); err != nil {
			return nil, err
		}
	}
	// To the end, where gzip has its checksum; what is behind it nobody reads.
	rest, err := io.ReadAll(limited)
	switch {
	case err != nil:
		return nil, err
	case limited.N <= 0:
		return nil, fmt.Errorf("unpacked it is more than %d bytes", maxUnpacked)
	case len(bytes.Trim(rest, "\x00")) > 0 || raw.Len() > 0:
		return nil, errors.New("something follows the archive")
	}
	return files, nil
}

// entryName is the name of an entry that may be in a bundle.
func entryName(h *tar.Header) (string, error) {
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
		return "", fmt.Errorf("%.100q is neither a file nor a directory", h.Name)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse") {
			return "", fmt.Errorf("%.100q is a sparse file", h.Name)
		}
	}
	name := strings.TrimPrefix(strings.TrimPrefix(h.Name, "."), "/")
	if strings.HasPrefix(h.Name, ".") && !strings.HasPrefix(h.Name, "./") {
		name = h.Name // .manifest
	}
	if h.Typeflag == tar.TypeDir && strings.Trim(name, "/.") == "" {
		return ".", nil
	}
	name = strings.TrimSuffix(name, "/")
	if name == "" || len(name) > maxPath || path.Clean(name) != name || path.IsAbs(name) || name == ".." || strings.HasPrefix(name, "../") ||
		!utf8.ValidString(name) || strings.ContainsAny(name, "\\\x00") || plain(name) != name {
		return "", fmt.Errorf("%.100q is not a clean path", h.Name)
	}
	return name, nil
}

// readBundle is the sources of a bundle that a key of keys signed. Whatever is
// wrong with it is an error: a bundle that is there and does not count would
// look as if it did.
func readBundle(s source, keys bundleKeys, tests bool) ([]source, error) {
	b := &Bundle{Name: strings.TrimSuffix(s.name, bundleSuffix)}
	if !bundleName.MatchString(b.Name) {
		return nil, badBundle(s, errors.New("its name is not made of small letters, digits, dot, dash, underscore"))
	}
	sum := sha256.Sum256(s.text)
	b.Digest = "sha256:" + hex.EncodeToString(sum[:])
	files, err := unpack(s.text)
	if err != nil {
		return nil, badBundle(s, err)
	}
	docs, err := understood(s, files)
	if err != nil {
		return nil, err
	}
	// What is in the files counts from here on.
	if b.Key, err = keys.verify(s, b.Name, files); err != nil {
		return nil, err
	}
	if err := b.read(s, docs[manifestFile]); err != nil {
		return nil, err
	}
	var out []source
	for _, name := range sorted(files) {
		if name == signaturesFile || !tests && strings.HasSuffix(name, "_test.rego") {
			continue
		}
		if path.Base(name) == dataFile {
			if err := b.within(s, placedAt(name), docs[name]); err != nil {
				return nil, err
			}
		}
		out = append(out, source{name: s.name + "/" + name, shown: s.shown + "/" + name, text: files[name], bundle: b})
	}
	return out, nil
}

// understood refuses a bundle with a file that ward would have to ignore, and
// reads its documents strictly: the signature is about what a lax reader makes
// of them.
func understood(s source, files map[string][]byte) (map[string]map[string]any, error) {
	docs := map[string]map[string]any{}
	for _, name := range sorted(files) {
		switch base := path.Base(name); {
		case name == manifestFile, name == signaturesFile, base == dataFile:
			doc, err := document(source{name: dataFile, shown: s.shown + "/" + name, text: files[name]})
			if err != nil {
				return nil, err
			}
			docs[name] = doc
		case path.Ext(name) == ".rego":
		default:
			return nil, badBundle(s, fmt.Errorf("%q is neither Rego nor %s", name, dataFile))
		}
	}
	if docs[manifestFile] == nil {
		return nil, badBundle(s, errors.New("it has no .manifest, and so no revision"))
	}
	if docs[signaturesFile] == nil {
		return nil, fault.New(fault.Unverified, "policy.bundle-unsigned", s.shown+" is not signed: it has no .signatures.json",
			"sign it (opa build --bundle --signing-key KEY, or opa sign), or take it out of the policy directory")
	}
	return docs, nil
}

// placedAt is where the data of a bundle's data.json stands: the directories
// above it.
func placedAt(name string) []string {
	dir := path.Dir(name)
	if dir == "." {
		return nil
	}
	return strings.Split(dir, "/")
}

// read takes the manifest's members; one that is not known could mean anything.
func (b *Bundle) read(s source, m map[string]any) error {
	bad := func(format string, args ...any) error {
		return badBundle(s, fmt.Errorf("its manifest: "+format, args...))
	}
	b.roots = []string{""}
	for _, key := range sorted(m) {
		ok := true
		switch v := m[key]; key {
		case "revision":
			b.Revision, ok = v.(string)
		case "roots":
			b.roots, ok = rootsOf(v)
		case "rego_version":
			if ok = fmt.Sprint(v) == "1"; !ok {
				return bad("it is written in Rego v%v; ward reads v1 (build it with opa 1.x after opa fmt --v0-v1)", v)
			}
		case "file_rego_versions":
			of, isMap := v.(map[string]any)
			for _, version := range of {
				ok = ok && fmt.Sprint(version) == "1"
			}
			ok = ok && isMap
		case "metadata":
			meta, isMap := v.(map[string]any)
			if ok = isMap; ok {
				if name, there := meta["name"]; there && name != b.Name {
					return bad("it is called %.100q there, and %.100q here", name, b.Name)
				}
				if b.Serial, ok = serialOf(meta["serial"]); !ok {
					return bad("metadata.serial is not a whole number from 1")
				}
			}
		default:
			return bad("ward does not know %q", key)
		}
		if !ok {
			return bad("%s is not understood", key)
		}
	}
	var err error
	if b.order, err = orderOf(b.Revision, b.Serial); err != nil {
		return bad("%v", err)
	}
	for i, r := range b.roots {
		for _, other := range b.roots[i+1:] {
			if overlap(r, other) {
				return bad("its roots %q and %q overlap", r, other)
			}
		}
	}
	return nil
}

// rootsOf reads roots as OPA does, without slashes around.
func rootsOf(v any) ([]string, bool) {
	l, ok := v.([]any)
	out := []string{}
	for _, e := range l {
		r, isText := e.(string)
		ok = ok && isText
		out = append(out, strings.Trim(r, "/"))
	}
	return out, ok && len(out) <= maxEntries
}

// within refuses data outside of the bundle's roots.
func (b *Bundle) within(s source, at []string, v any) error {
	where := strings.Join(at, "/")
	if slices.ContainsFunc(b.roots, func(r string) bool { return below(where, r) }) {
		return nil
	}
	if m, ok := v.(map[string]any); ok && slices.ContainsFunc(b.roots, func(r string) bool { return below(r, where) }) {
		for _, k := range sorted(m) {
			if err := b.within(s, append(slices.Clone(at), k), m[k]); err != nil {
				return err
			}
		}
		return nil
	}
	return badBundle(s, fmt.Errorf("data at %q is outside of its roots", where))
}

// below says whether a path is at or below a root.
func below(p, root string) bool {
	return root == "" || p == root || strings.HasPrefix(p, root+"/")
}

func overlap(a, b string) bool { return below(a, b) || below(b, a) }

func badBundle(s source, err error) error {
	return &fault.Error{
		Class: fault.Invalid, Rule: "policy.bundle", Cause: plain(fmt.Sprintf("bundle %s: %v", s.shown, err)),
		Remedy: "build it anew with opa build, or take it out of the policy directory", Err: err,
	}
}

// TryBundle says what would be in force if a file with this content were in the
// policy directory under a bundle's name: its signature verifies, and the whole
// policy compiles with it.
func TryBundle(cfg Config, name string, archive []byte) (Bundle, error) {
	if !bundleName.MatchString(name) {
		return Bundle{}, fault.New(fault.Invalid, "policy.bundle", fmt.Sprintf("%.80q is not a bundle's name", name), "use small letters, digits, dot, dash, underscore")
	}
	file := name + bundleSuffix
	sources, err := readDirWith(cfg.Dir, cfg.Keys, false)
	if err != nil {
		// The one that is there may be what has to be replaced.
		sources, err = readDirBut(cfg.Dir, cfg.Keys, file)
	}
	if err != nil {
		return Bundle{}, err
	}
	sources = slices.DeleteFunc(sources, func(s source) bool { return s.bundle != nil && s.bundle.Name == name })
	keys, err := readBundleKeys(cmp.Or(cfg.Keys, KeysFile(cfg.Dir)))
	if err != nil {
		return Bundle{}, err
	}
	found, err := readBundle(source{name: file, shown: filepath.Join(cfg.Dir, file), text: archive}, keys, false)
	if err != nil {
		return Bundle{}, err
	}
	sources = append(sources, found...)
	if err := apart(sources); err != nil {
		return Bundle{}, err
	}
	for _, point := range sorted(decisionFiles) {
		cfg.Point = point
		if _, err := open(cfg, sources); err != nil {
			return Bundle{}, err
		}
	}
	return *found[0].bundle, nil
}

// BundleFile is where a bundle of this name lies in a policy directory.
func BundleFile(dir, name string) string { return filepath.Join(dir, name+bundleSuffix) }

// Bundles are the signed bundles that take part.
func (e *Engine) Bundles() []Bundle { return slices.Clone(e.bundles) }
