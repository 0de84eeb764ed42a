# Software bills of materials: SPDX 2 and CycloneDX, in one form.
package ward.lib.sbom

import data.ward.lib.evidence
import data.ward.lib.purl

# The documents about this image: format, signers, digest, made, and the body.
documents contains d if {
	some a in evidence.of_type("https://spdx.dev/Document")
	d := {"format": spdx(a.predicate), "made": evidence.text(a.predicate, ["creationInfo", "created"]), "signers": a.signers, "digest": a.digest, "body": a.predicate}
}

documents contains d if {
	some a in evidence.of_type("https://cyclonedx.org/bom")
	d := {"format": cyclonedx(a.predicate), "made": evidence.text(a.predicate, ["metadata", "timestamp"]), "signers": a.signers, "digest": a.digest, "body": a.predicate}
}

spdx(doc) := "spdx" if {
	startswith(evidence.text(doc, ["spdxVersion"]), "SPDX-2.")
	is_array(doc.packages)
} else := "unknown"

cyclonedx(doc) := "cyclonedx" if {
	doc.bomFormat == "CycloneDX"
} else := "unknown"

# There is one, and each that there is can be read.
complete if {
	count(documents) > 0
	every d in documents {
		d.format != "unknown"
	}
}

# What all documents name, each as name, version, purl, licenses (expressions), format.
packages contains p if {
	some d in documents
	d.format == "spdx"
	some e in d.body.packages
	p := {
		"name": evidence.text(e, ["name"]), "version": evidence.text(e, ["versionInfo"]), "format": "spdx",
		"purl": spdx_purl(e), "licenses": spdx_licenses(e),
	}
}

packages contains p if {
	some d in documents
	d.format == "cyclonedx"
	some e in components(d.body)
	p := {
		"name": cyclonedx_name(e), "version": evidence.text(e, ["version"]), "format": "cyclonedx",
		"purl": evidence.text(e, ["purl"]), "licenses": cyclonedx_licenses(e),
	}
}

# Components may hold components; two levels down are read.
components(doc) := array.concat(first, array.concat(second, third)) if {
	first := evidence.list(doc, ["components"])
	second := [c | some e in first; some c in evidence.list(e, ["components"])]
	third := [c | some e in second; some c in evidence.list(e, ["components"])]
}

spdx_purl(e) := r.referenceLocator if {
	some r in e.externalRefs
	r.referenceType == "purl"
	is_string(r.referenceLocator)
} else := ""

# What was concluded counts; if nothing was, what was declared.
spdx_licenses(e) := {l} if {
	l := stated([evidence.text(e, ["licenseConcluded"]), evidence.text(e, ["licenseDeclared"])])[0]
} else := set()

stated(list) := [l | some l in list; not l in {"", "NOASSERTION", "NONE"}]

cyclonedx_name(e) := concat("/", [evidence.text(e, ["group"]), evidence.text(e, ["name"])]) if {
	evidence.text(e, ["group"]) != ""
} else := evidence.text(e, ["name"])

cyclonedx_licenses(e) := {l |
	some entry in evidence.list(e, ["licenses"])
	some path in [["license", "id"], ["license", "name"], ["expression"]]
	l := evidence.text(entry, path)
	l != ""
}

# The packages that a package URL speaks of: "pkg:deb/debian/libxml2" is every
# version of it.
matching(pattern) := {p |
	want := purl.parse(pattern)
	some p in packages
	purl.covers_parts(want, purl.parse(p.purl))
}

versions(pattern) := {p.version | some p in matching(pattern)}

named(name) := {p | some p in packages; p.name == name}

# The licences an expression names, without the words between.
license_ids(expression) := {id |
	some word in split(replace(replace(expression, "(", " "), ")", " "), " ")
	id := trim_space(word)
	not id in {"", "AND", "OR", "WITH"}
}

# An expression that can be met with these licences alone: one alternative of
# "OR" must be wholly among them. Where there are parentheses, all of it must.
license_within(expression, allowed) if {
	not contains(expression, "(")
	some alternative in split(expression, " OR ")
	every one in split(alternative, " AND ") {
		trim_space(one) in allowed
	}
}

license_within(expression, allowed) if {
	contains(expression, "(")
	every id in license_ids(expression) {
		id in allowed
	}
}

# The packages whose licence is not among these, or that name none.
licensed_otherwise(allowed) := {p |
	some p in packages
	not licensed(p, allowed)
}

licensed(p, allowed) if {
	count(p.licenses) > 0
	every l in p.licenses {
		license_within(l, allowed)
	}
}
