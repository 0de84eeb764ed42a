# OpenVEX: what somebody who may say so knows about a finding.
package ward.lib.vex

import data.ward.lib.evidence
import data.ward.lib.purl

# Every statement of every OpenVEX document, with the time it was made. One
# that has no time, or one in the future, cannot be put in order and is none.
statements contains s if {
	some a in evidence.of_type("https://openvex.dev/ns")
	some st in a.predicate.statements
	made := evidence.instant(stamp(st, a.predicate))
	made <= evidence.now
	s := {
		"names": vulnerability(st.vulnerability),
		"products": [product(p) | some p in evidence.list(st, ["products"])],
		"status": evidence.text(st, ["status"]),
		"justification": evidence.text(st, ["justification"]),
		"impact": evidence.text(st, ["impact_statement"]),
		"time": made,
		"document": evidence.text(a.predicate, ["@id"]),
		"signers": a.signers,
	}
}

stamp(st, doc) := t if {
	times := [t | some o in [st, doc]; some k in ["last_updated", "timestamp"]; t := evidence.text(o, [k]); t != ""]
	t := times[0]
}

# In version 0.0.1 of OpenVEX a vulnerability is its name.
vulnerability(v) := {v} if is_string(v)

vulnerability(v) := {n | some n in array.concat([evidence.text(v, ["name"]), evidence.text(v, ["@id"])], evidence.texts(v, ["aliases"])); n != ""} if is_object(v)

# What a product names, each name with the package URL that it is, if it is one.
product(p) := {"ids": {p}, "hash": "", "urls": urls({p}), "parts": []} if is_string(p)

product(p) := {
	"ids": identifiers(p),
	"hash": lower(evidence.text(p, ["hashes", "sha-256"])),
	"urls": urls(identifiers(p)),
	"parts": [urls(part(c)) | some c in evidence.list(p, ["subcomponents"])],
} if {
	is_object(p)
}

urls(ids) := [u | some i in ids; u := purl.parse(i)]

# A part that cannot be read is one that nothing is.
part(c) := {c} if {
	is_string(c)
} else := identifiers(c) if {
	is_object(c)
} else := set()

identifiers(o) := {i | some i in [evidence.text(o, ["@id"]), evidence.text(o, ["identifiers", "purl"])]; i != ""}

by_name[name] contains s if {
	some s in statements
	some name in s.names
}

# Made once: asked for one name, by_name would look through all statements.
index := by_name

# The statements about a finding in this image that somebody with all the
# members of want signed.
about(finding, want) := {s |
	some id in finding.ids
	some s in index[id]
	evidence.by(s, want)
	concerned(s.products, package_of(finding))
}

package_of(finding) := found if {
	found := purl.parse(finding.purl)
} else := {"type": ""}

# A product is the package itself, or this image, and then a part of it that is
# named, if any is.
concerned(products, found) if {
	some p in products
	some u in p.urls
	purl.covers_parts(u, found)
	partly(p.parts, found)
}

concerned(products, found) if {
	some p in products
	this_image(p)
	partly(p.parts, found)
}

partly([], _)

partly(parts, found) if {
	some urls in parts
	some u in urls
	purl.covers_parts(u, found)
}

this_image(p) if {
	some digest in evidence.digests
	p.hash == trim_prefix(digest, "sha256:")
}

this_image(p) if {
	some id in p.ids
	some digest in evidence.digests
	strings.any_suffix_match(id, {digest, concat("", ["@", digest])})
}

this_image(p) if {
	some u in p.urls
	u.version in evidence.digests
}

# Every version of it, where the repository is named in full.
this_image(p) if {
	some u in p.urls
	u.type == "oci"
	u.version == ""
	some ["repository_url", url] in u.qualifiers
	input.image.fullRepo in {url, concat("/", [url, u.name])}
}

# The newest statement says that the finding does not matter here, and no other
# of the same moment says otherwise.
excused(finding, want) if {
	said := about(finding, want)
	newest := max({s.time | some s in said})
	every s in said {
		settles(s, newest)
	}
}

settles(s, newest) if s.time < newest

settles(s, _) if clears(s)

clears(s) if s.status == "fixed"

# OpenVEX wants a reason for this one; without it, it is none.
clears(s) if {
	s.status == "not_affected"
	concat("", [s.justification, s.impact]) != ""
}

# The findings that are left.
remaining(findings, want) := {f | some f in findings; not excused(f, want)}
