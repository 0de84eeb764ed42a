package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// move is one thing a request could leave out or ask less of, with what could
// be done about it instead in the grants document.
type move struct {
	// path is the member of the input it changes.
	path string
	// ways are what can be done, the last one least: each says it in the words
	// of the command line and changes an input.
	ways []way
	// grant adds to a grants document what would allow the thing; nil where
	// nothing can be granted. It may be called more than once.
	grant func(g *scopeDoc)
	// number, if set, is a limit to be lowered no further than needed.
	number *number
}

type way struct {
	do    string
	apply func(in map[string]any)
}

// number is a limit in the input: now it is at, and low is sure to be little.
type number struct {
	key     string
	at, low int64
	flag    func(v int64) string
}

// scopeDoc is what is added to a grants document: for one image, and limits,
// which are the same for all.
type scopeDoc struct {
	image  map[string][]string
	limits map[string]json.Number
}

func (s *scopeDoc) add(member, value string) {
	if !slices.Contains(s.image[member], value) {
		s.image[member] = append(s.image[member], value)
	}
}

// maxMoves bounds how much of a request is tried: each costs decisions.
const maxMoves = 96

// dig finds a member of nested objects.
func dig(m map[string]any, path ...string) any {
	var v any = m
	for _, p := range path {
		o, _ := v.(map[string]any)
		v = o[p]
	}
	return v
}

func list(m map[string]any, path ...string) []any { l, _ := dig(m, path...).([]any); return l }

func text(v any, key string) string {
	m, _ := v.(map[string]any)
	s, _ := m[key].(string)
	return s
}

// put sets a member of nested objects that are there.
func put(m map[string]any, v any, path ...string) {
	o := m
	for _, p := range path[:len(path)-1] {
		next, ok := o[p].(map[string]any)
		if !ok {
			return
		}
		o = next
	}
	o[path[len(path)-1]] = v
}

// drop takes the elements that match out of a list.
func drop(m map[string]any, match func(any) bool, path ...string) {
	if l := list(m, path...); l != nil {
		put(m, slices.DeleteFunc(slices.Clone(l), match), path...)
	}
}

func equals(s string) func(any) bool { return func(v any) bool { return v == s } }

// moves are all that the request behind an input could ask less of, as far as
// the input says. What a person may want to keep most comes first.
func moves(in map[string]any) []move {
	var out []move
	for _, more := range []func(map[string]any) []move{evidenceMoves, mountMoves, listMoves, optionMoves, limitMoves, userMoves, entranceMoves} {
		out = append(out, more(in)...)
	}
	return out
}

// evidenceMoves is a signature where there is none that counts.
func evidenceMoves(in map[string]any) []move {
	digest, _ := dig(in, "image", "checksum").(string)
	signed := slices.ContainsFunc(list(in, "evidence", "signers"), func(s any) bool { return text(s, "kind") != "static" })
	if digest == "" || signed && dig(in, "evidence", "verified") == true && dig(in, "evidence", "digest") == digest {
		return nil
	}
	ref, _ := dig(in, "image", "ref").(string)
	m := move{path: "evidence", ways: []way{{
		do: fmt.Sprintf("sign the image and trust the key: ward sign --key KEY %s; ward trust add --key PUB GLOB", ref),
		apply: func(in map[string]any) {
			in["evidence"] = map[string]any{"verified": true, "digest": digest, "signers": []any{map[string]any{"kind": "key"}}}
		},
	}}}
	if dig(in, "evidence", "verified") == true {
		m.grant = func(g *scopeDoc) { g.add("evidence", "static") }
	}
	return []move{m}
}

func mountMoves(in map[string]any) []move {
	var out []move
	for _, mount := range list(in, "run", "mounts") {
		kind, source, target := text(mount, "type"), text(mount, "source"), text(mount, "target")
		if kind == "tmpfs" || target == "" {
			continue
		}
		o, _ := mount.(map[string]any)
		same := func(v any) bool { return text(v, "target") == target && text(v, "type") == kind }
		what := source
		if kind != "bind" {
			what = text(mount, "name")
		}
		m := move{path: "run.mounts", ways: []way{{do: fmt.Sprintf("run without -v %s:%s", what, target), apply: func(in map[string]any) { drop(in, same, "run", "mounts") }}}}
		if kind == "bind" && o["read_only"] != true {
			m.ways = append([]way{{do: fmt.Sprintf("mount it read-only: -v %s:%s:ro", source, target), apply: func(in map[string]any) {
				l := slices.Clone(list(in, "run", "mounts"))
				for i, v := range l {
					if same(v) {
						changed := cloned(v)
						put(changed, true, "read_only")
						l[i] = changed
					}
				}
				put(in, l, "run", "mounts")
			}}}, m.ways...)
		}
		if kind == "bind" {
			value := source
			if o["read_only"] == true {
				value += ":ro"
			}
			m.grant = func(g *scopeDoc) { g.add("binds", value) }
		}
		out = append(out, m)
	}
	return out
}

// listMoves are the parts of lists that one flag each asks for.
func listMoves(in map[string]any) []move {
	var out []move
	for _, v := range list(in, "run", "capabilities") {
		name, _ := v.(string)
		short := strings.TrimPrefix(name, "CAP_")
		out = append(out, move{path: "run.capabilities", grant: func(g *scopeDoc) { g.add("capabilities", short) }, ways: []way{{do: "run without --cap-add " + short, apply: func(in map[string]any) {
			drop(in, equals(name), "run", "capabilities")
			drop(in, equals(name), "exec", "capabilities")
			drop(in, func(v any) bool { return v == short || v == name }, "run", "requested", "cap_add")
		}}}})
	}
	for _, v := range list(in, "exec", "capabilities") {
		name, _ := v.(string)
		if !slices.Contains(list(in, "run", "capabilities"), v) {
			out = append(out, move{path: "exec.capabilities", ways: []way{{do: "without " + name + " for this process", apply: func(in map[string]any) { drop(in, equals(name), "exec", "capabilities") }}}})
		}
	}
	for _, v := range list(in, "run", "sysctls") {
		name := text(v, "name")
		out = append(out, move{path: "run.sysctls", grant: func(g *scopeDoc) { g.add("sysctls", name) }, ways: []way{{do: "run without --sysctl " + name, apply: func(in map[string]any) {
			drop(in, func(v any) bool { return text(v, "name") == name }, "run", "sysctls")
		}}}})
	}
	for _, v := range list(in, "run", "devices") {
		source := text(v, "source")
		out = append(out, move{path: "run.devices", grant: func(g *scopeDoc) { g.add("devices", source) }, ways: []way{{do: "run without --device " + source, apply: func(in map[string]any) {
			drop(in, func(v any) bool { return text(v, "source") == source }, "run", "devices")
		}}}})
	}
	for _, v := range list(in, "unmapped") {
		field := text(v, "path")
		out = append(out, move{path: "unmapped", ways: []way{{do: "take " + field + " out of the document", apply: func(in map[string]any) {
			drop(in, func(o any) bool { return text(o, "path") == field }, "unmapped")
		}}}})
	}
	return out
}

// optionMoves are what single options ask for.
func optionMoves(in map[string]any) []move {
	var out []move
	if n, _ := dig(in, "run", "network").(string); n != "none" && n != "" {
		out = append(out, move{path: "run.network", grant: func(g *scopeDoc) { g.add("networks", n) }, ways: []way{{do: "run with --network none", apply: func(in map[string]any) {
			put(in, "none", "run", "network")
			put(in, "none", "run", "requested", "network")
		}}}})
	}
	for _, v := range list(in, "run", "security_opt") {
		opt, _ := v.(string)
		out = append(out, move{path: "run.security_opt", grant: grantCalls(in, opt), ways: []way{{do: "run without --security-opt " + opt, apply: func(in map[string]any) {
			drop(in, equals(opt), "run", "security_opt")
			switch {
			case strings.HasPrefix(opt, "seccomp"):
				put(in, map[string]any{"profile": "default", "digest": "", "narrows": true, "extra": []any{}}, "run", "seccomp")
			case strings.HasPrefix(opt, "no-new-privileges"):
				put(in, true, "run", "no_new_privs")
			case strings.HasPrefix(opt, "systempaths"), strings.HasPrefix(opt, "unmask"):
				put(in, []any{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"}, "run", "masked_paths")
			}
		}}}})
	}
	if dig(in, "run", "read_only") == false {
		out = append(out, move{path: "run.read_only", ways: []way{{do: "run with --read-only", apply: func(in map[string]any) { put(in, true, "run", "read_only") }}}})
	}
	return out
}

// grantCalls grants the system calls that a filter from a file adds.
func grantCalls(in map[string]any, opt string) func(*scopeDoc) {
	extra := list(in, "run", "seccomp", "extra")
	if !strings.HasPrefix(opt, "seccomp") || len(extra) == 0 {
		return nil
	}
	return func(g *scopeDoc) {
		for _, name := range extra {
			if s, ok := name.(string); ok {
				g.add("seccomp", s)
			}
		}
	}
}

func limitMoves(in map[string]any) []move {
	var out []move
	for _, l := range []struct {
		key, flag string
		low, unit int64
	}{{"memory", "--memory", 6 << 20, 1}, {"swap", "--memory-swap, beyond --memory,", 0, 1}, {"pids", "--pids-limit", 16, 1}, {"cpus", "--cpus", 10, 1000}, {"cpu_shares", "--cpu-shares", 2, 1}} {
		n, ok := dig(in, "run", "limits", l.key).(json.Number)
		f, err := n.Float64()
		if !ok || err != nil || f > 1<<62 || f < -1<<62 {
			continue
		}
		at := int64(f * float64(l.unit)) // cpus in thousandths
		if at >= 0 && at <= l.low && !(at == 0 && l.low > 0 && l.key != "cpu_shares") {
			continue
		}
		asNumber := func(v int64) json.Number {
			if l.unit == 1 {
				return json.Number(strconv.FormatInt(v, 10))
			}
			return json.Number(strconv.FormatFloat(float64(v)/float64(l.unit), 'g', -1, 64))
		}
		flag := func(v int64) string { return fmt.Sprintf("give %s at most %s", l.flag, asNumber(v)) }
		out = append(out, move{
			path: "run.limits." + l.key, number: &number{key: l.key, at: at, low: l.low, flag: flag},
			grant: func(g *scopeDoc) {
				if at > 0 {
					g.limits[l.key] = n
				}
			},
			ways: []way{{do: flag(l.low), apply: func(in map[string]any) { put(in, asNumber(l.low), "run", "limits", l.key) }}},
		})
	}
	return out
}

// value is the way that lowers a limit to v.
func (m move) value(v int64) way {
	n := m.number
	return way{do: n.flag(v), apply: func(in map[string]any) {
		put(in, json.Number(strconv.FormatInt(v, 10)), "run", "limits", n.key)
		if n.key == "cpus" {
			put(in, json.Number(strconv.FormatFloat(float64(v)/1000, 'g', -1, 64)), "run", "limits", n.key)
		}
	}}
}

func userMoves(in map[string]any) []move {
	var out []move
	user := map[string]any{"uid": json.Number("1000"), "gid": json.Number("1000"), "groups": []any{}}
	if dig(in, "run", "user", "uid") == json.Number("0") {
		out = append(out, move{path: "run.user.uid", ways: []way{{do: "run with --user 1000:1000, or another that is not 0", apply: func(in map[string]any) { put(in, user, "run", "user") }}}})
	}
	if dig(in, "point") == PointExec && dig(in, "exec", "user", "uid") == json.Number("0") {
		out = append(out, move{path: "exec.user.uid", ways: []way{{do: "ward exec with --user 1000:1000, or another that is not 0", apply: func(in map[string]any) { put(in, user, "exec", "user") }}}})
	}
	return out
}

// entranceMoves are what is asked for beyond what the container runs by.
func entranceMoves(in map[string]any) []move {
	var out []move
	point, _ := dig(in, "point").(string)
	for _, f := range []struct{ point, section, key, do string }{
		{PointExec, "exec", "stdin", "ward exec without -i"}, {PointExec, "exec", "terminal", "ward exec without -t"},
		{PointAttach, "attach", "stdin", "ward attach with --no-stdin"},
		{PointCp, "cp", "archive", "ward cp without -a"}, {PointCp, "cp", "follow_links", "ward cp without -L"},
		{PointOCI, "oci", "shared_pid", "give the container a PID namespace of its own"},
	} {
		if point == f.point && dig(in, f.section, f.key) == true {
			out = append(out, move{path: f.section + "." + f.key, ways: []way{{do: f.do, apply: func(in map[string]any) { put(in, false, f.section, f.key) }}}})
		}
	}
	return out
}

// cloned is a deep copy of decoded JSON.
func cloned(v any) map[string]any {
	c, _ := copied(v).(map[string]any)
	return c
}

func copied(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = copied(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = copied(e)
		}
		return out
	}
	return v
}
