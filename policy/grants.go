package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/ward-project/ward/internal/fault"
)

// grants is the simple form of a local policy: what the grants document says
// beyond the shipped level. What is absent grants nothing.
type grants struct {
	level  string
	shown  string // the file, for messages; the file to make, if there is none
	exists bool
	text   []byte

	scope
	limits map[string]json.Number
	images map[string]scope
	// callers are trusted to start containers through ward-oci.
	callers []caller
	modes   modes
	// buildx are the points beside build where buildx's policies are asked.
	buildx []string
}

// scope is what can be granted to every image or to some.
type scope struct {
	binds, capabilities, networks, sysctls, devices, seccomp, evidence []string
	landlock, tcpBind, tcpConnect                                      []string
}

// document gives read-only binds a list of their own.
func (s scope) document() map[string]any {
	var rw, ro []string
	for _, b := range s.binds {
		if dir, only := strings.CutSuffix(b, ":ro"); only {
			ro = append(ro, dir)
		} else {
			rw = append(rw, b)
		}
	}
	return map[string]any{"binds": terms(rw), "binds_ro": terms(ro), "capabilities": terms(s.capabilities), "networks": terms(s.networks),
		"sysctls": terms(s.sysctls), "devices": terms(s.devices), "seccomp": terms(s.seccomp), "evidence": terms(s.evidence),
		"landlock": terms(s.landlock), "tcp_bind": terms(s.tcpBind), "tcp_connect": terms(s.tcpConnect)}
}

func terms(l []string) []any {
	out := make([]any, len(l))
	for i, s := range l {
		out[i] = s
	}
	return out
}

// grantFiles are the names a grants document can have.
var grantFiles = []string{"grants.json", "grants.yaml", "grants.yml"}

// readGrants finds and reads the grants document among the sources.
func readGrants(dir string, sources []source) (grants, error) {
	g := grants{level: Restricted, shown: path.Join(dir, grantFiles[0])}
	for _, s := range sources {
		if !slices.Contains(grantFiles, s.name) {
			continue
		}
		if g.exists {
			return g, badGrants(s, "%s and %s are both there: which one grants?", path.Base(g.shown), s.name)
		}
		g.exists, g.shown, g.text = true, s.shown, s.text
		doc, err := document(s)
		if err != nil {
			return g, err
		}
		if err := g.read(s, doc); err != nil {
			return g, err
		}
	}
	return g, nil
}

// read takes the document apart member by member. A member it does not know
// is an error: a misspelt one must not look as if it were in force.
func (g *grants) read(s source, doc map[string]any) error {
	for _, key := range sorted(doc) {
		v := doc[key]
		var err error
		switch key {
		case "level":
			level, ok := v.(string)
			if _, known := levelFiles[level]; !ok || !known {
				return badGrants(s, "level %v is not %q, %q or %q", v, Restricted, Baseline, Privileged)
			}
			g.level = level
		case "limits":
			g.limits, err = readLimits(s, v)
		case "images":
			err = g.readImages(s, v)
		case "oci":
			err = g.readOCI(s, v)
		case "buildx":
			g.buildx, err = readList(s, key, v, func(p string) string {
				if _, known := decisionFiles[p]; !known || p == PointOCI || p == PointPull {
					return "is not a point at which an image is known"
				}
				return ""
			})
		case "modes":
			g.modes, err = readModes(s, v)
		case "evidence":
			err = badGrants(s, "evidence is granted for some images, under images, not for all")
		default:
			err = g.scope.read(s, key, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *grants) readImages(s source, v any) error {
	m, ok := v.(map[string]any)
	if !ok {
		return badGrants(s, "images is not an object of image patterns")
	}
	g.images = map[string]scope{}
	for _, pattern := range sorted(m) {
		// The characters of names, and the star: what else a glob could be made
		// of either never matches or fails when it is first tried.
		if pattern == "" || strings.Trim(pattern, "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ._-/:*") != "" || strings.Contains(path.Base(pattern), ":") {
			return badGrants(s, "image pattern %q is not HOST/REPOSITORY, with * and **, without tag", pattern)
		}
		members, ok := m[pattern].(map[string]any)
		if !ok {
			return badGrants(s, "images.%s is not an object", pattern)
		}
		var sc scope
		for _, key := range sorted(members) {
			if err := sc.read(s, key, members[key]); err != nil {
				return err
			}
		}
		g.images[pattern] = sc
	}
	return nil
}

func (sc *scope) read(s source, key string, v any) (err error) {
	switch key {
	case "binds":
		sc.binds, err = readList(s, key, v, func(p string) string {
			p = strings.TrimSuffix(p, ":ro")
			if !path.IsAbs(p) || path.Clean(p) != p {
				return "is not a clean absolute path"
			}
			if p == "/" {
				return "would grant every file of the host"
			}
			return ""
		})
	case "capabilities":
		sc.capabilities, err = readList(s, key, v, func(c string) string {
			if !capabilityName("CAP_" + strings.TrimPrefix(c, "CAP_")) {
				return "is not one capability, like NET_ADMIN"
			}
			return ""
		})
		for i, c := range sc.capabilities {
			sc.capabilities[i] = strings.TrimPrefix(c, "CAP_")
		}
	case "networks":
		sc.networks, err = readList(s, key, v, func(n string) string {
			if n != "host" {
				return `is not a network that can be granted: "host"`
			}
			return ""
		})
	case "sysctls":
		sc.sysctls, err = readList(s, key, v, func(n string) string {
			if n == "" || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ._-") != "" {
				return "is not the name of a kernel setting, with dots"
			}
			return ""
		})
	case "devices":
		sc.devices, err = readList(s, key, v, func(p string) string {
			if !strings.HasPrefix(p, "/dev/") || path.Clean(p) != p {
				return "is not the clean path of a device"
			}
			return ""
		})
	case "seccomp":
		sc.seccomp, err = readList(s, key, v, func(n string) string {
			if n == "" || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
				return "is not the name of a system call"
			}
			return ""
		})
	case "evidence":
		sc.evidence, err = readList(s, key, v, func(n string) string {
			if n != "static" {
				return `is not evidence that can be granted: "static"`
			}
			return ""
		})
	case "landlock":
		sc.landlock, err = readList(s, key, v, func(w string) string {
			if w != "off" {
				return `is not what can be granted: "off"`
			}
			return ""
		})
	case "tcp_bind":
		sc.tcpBind, err = readPorts(s, key, v)
	case "tcp_connect":
		sc.tcpConnect, err = readPorts(s, key, v)
	default:
		err = badGrants(s, "%q is not something that can be granted", key)
	}
	return err
}

func readList(s source, key string, v any, wrong func(string) string) ([]string, error) {
	l, ok := v.([]any)
	if !ok {
		return nil, badGrants(s, "%s is not a list", key)
	}
	var out []string
	for _, e := range l {
		t, ok := e.(string)
		if !ok {
			return nil, badGrants(s, "%s holds %v, not a string", key, e)
		}
		if w := wrong(t); w != "" {
			return nil, badGrants(s, "%s: %q %s", key, t, w)
		}
		out = append(out, t)
	}
	return out, nil
}

// readLimits reads the maxima. Memory may be written as Docker does ("8g").
func readLimits(s source, v any) (map[string]json.Number, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, badGrants(s, "limits is not an object")
	}
	out := map[string]json.Number{}
	for _, key := range sorted(m) {
		var n json.Number
		ok := false
		switch key {
		case "memory", "swap":
			n, ok = bytesOf(m[key])
		case "pids", "cpu_shares":
			if n, ok = m[key].(json.Number); ok {
				i, err := n.Int64()
				ok = err == nil && i > 0
			}
		case "cpus":
			if n, ok = m[key].(json.Number); ok {
				f, err := n.Float64()
				ok = err == nil && f > 0 && f <= 1<<20
			}
		default:
			return nil, badGrants(s, "limits.%s is not memory, swap, pids, cpus or cpu_shares", key)
		}
		if !ok {
			return nil, badGrants(s, "limits.%s: %v is not a positive amount", key, m[key])
		}
		out[key] = n
	}
	return out, nil
}

// bytesOf reads a positive number of bytes: 1048576, "512m", "8g".
func bytesOf(v any) (json.Number, bool) {
	text, shift := "", 0
	switch v := v.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = v
		if i := strings.IndexAny(v, "bkmgt"); i > 0 && i == len(v)-1 {
			text, shift = v[:i], strings.IndexByte("bkmgt", v[i])*10
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 || n > (1<<62)>>shift {
		return "", false
	}
	return json.Number(strconv.FormatInt(n<<shift, 10)), true
}

// document is what the policies see as data.ward; granted says that grants.rego
// is loaded.
func (g grants) document(level string, granted bool) map[string]any {
	images := map[string]any{}
	for pattern, sc := range g.images {
		images[pattern] = sc.document()
	}
	limits := map[string]any{}
	for k, v := range g.limits {
		limits[k] = v
	}
	doc := g.scope.document()
	doc["images"] = images
	doc["oci"] = g.ociDocument()
	ward := map[string]any{"level": level, "grants": doc, "limits": limits, "messages": g.messages()}
	if !granted {
		// In place of grants.rego. It must be there: OPA takes the list out of
		// "not x in list" first, so that a rule with a list that is undefined
		// never comes to the "not".
		ward["granted"] = map[string]any{"networks": []any{}, "capabilities": []any{}, "mounts": []any{}, "sysctls": []any{}, "devices": []any{}, "seccomp": []any{}, "evidence": []any{},
			"landlock": []any{}, "tcp_bind": []any{}, "tcp_connect": []any{}}
	}
	return ward
}

// messages are the shipped texts, with the line of this grants document that
// would allow the thing in place of the marks.
func (g grants) messages() map[string]any {
	b, err := shipped.ReadFile("rego/messages.json")
	if err != nil {
		panic(err) // compiled in
	}
	m, err := document(source{name: "messages.json", shown: "messages.json", text: b})
	if err != nil {
		panic(err)
	}
	marks := strings.NewReplacer(
		"{binds}", g.where("binds", "%[2]v"),
		"{capabilities}", g.where("capabilities", "%[1]v"),
		"{networks}", g.where("networks", "%[1]v"),
		"{sysctls}", g.where("sysctls", "%[1]v"),
		"{seccomp}", g.where("seccomp", "%[1]v"),
		"{evidence}", g.where("evidence", "static"),
		"{devices}", g.where("devices", "%[1]v"),
		"{landlock}", g.where("landlock", "off"),
		"{tcp_bind}", g.where("tcp_bind", "%[1]v"),
		"{tcp_connect}", g.where("tcp_connect", "%[1]v"),
		"{limits.memory}", g.where("limits", "memory"),
		"{limits.swap}", g.where("limits", "swap"),
		"{limits.pids}", g.where("limits", "pids"),
		"{limits.cpus}", g.where("limits", "cpus"),
	)
	for _, text := range m {
		t := text.(map[string]any)
		t["fix"] = marks.Replace(t["fix"].(string))
	}
	return m
}

// where says which line of which file would allow value (of a list) or raise
// the maximum of it (of limits).
func (g grants) where(key, value string) string {
	whole, part := `["`+value+`"]`, `"`+value+`"`
	if key == "limits" {
		whole, part = `{"`+value+`": N}`, `"`+value+`": N`
	}
	file := strings.ReplaceAll(g.shown, "%", "%%") // it becomes part of a format
	if !g.exists {
		return fmt.Sprintf(`write {"%s": %s} to %s`, key, whole, file)
	}
	if n := g.line(key); n > 0 {
		return fmt.Sprintf(`add %s to "%s" in line %d of %s`, part, key, n, file)
	}
	return fmt.Sprintf(`add "%s": %s to %s`, key, whole, file)
}

// line finds the member key of the document, or 0.
func (g grants) line(key string) int {
	for i, l := range bytes.Split(g.text, []byte("\n")) {
		for _, form := range []string{`"` + key + `"`, key + ":"} {
			if t := bytes.TrimLeft(l, " \t{,"); bytes.HasPrefix(t, []byte(form)) {
				return i + 1
			}
		}
	}
	return 0
}

func badGrants(s source, format string, args ...any) error {
	return fault.New(fault.Invalid, "policy.grants", s.shown+": "+fmt.Sprintf(format, args...),
		"mend the file, or move it away: docs/policy.md shows its form")
}
