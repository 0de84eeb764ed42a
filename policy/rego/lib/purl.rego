# Package URLs: pkg:TYPE/NAMESPACE/NAME@VERSION?QUALIFIERS#SUBPATH.
package ward.lib.purl

# The parts of a package URL; undefined for what is none.
parse(s) := {
	"type": lower(m[1]),
	"namespace": decode(trim_right(m[2], "/")),
	"name": decode(m[3]),
	"version": decode(trim_prefix(m[4], "@")),
	"qualifiers": {[key, value] |
		some pair in split(trim_prefix(m[5], "?"), "&")
		pair != ""
		key := split(pair, "=")[0]
		value := decode(substring(pair, count(key) + 1, -1))
	},
} if {
	is_string(s)
	count(s) <= 2048
	found := regex.find_all_string_submatch_n(`^pkg:/*([A-Za-z0-9.+-]+)/((?:[^/@?#]+/)*)([^/@?#]+)(@[^?#]*)?(\?[^#]*)?(?:#.*)?$`, s, 1)
	m := found[0]
}

# Percent-decoded; as it is where that cannot be done. A plus is a plus here.
decode(s) := urlquery.decode(replace(s, "+", "%2B")) if {
	regex.match(`^([^%]|%[0-9A-Fa-f]{2})*$`, s)
} else := s

# b is a package that a speaks of: type, namespace and name are the same, and
# so are version and qualifiers as far as a names them.
covers(a, b) if {
	p := parse(a)
	q := parse(b)
	covers_parts(p, q)
}

covers_parts(p, q) if {
	p.type == q.type
	p.namespace == q.namespace
	p.name == q.name
	p.version in {"", q.version}
	every pair in p.qualifiers {
		qualified(q, pair)
	}
}

qualified(q, pair) if pair in q.qualifiers

qualified(q, pair) if not pair[0] in {key | some [key, _] in q.qualifiers}
