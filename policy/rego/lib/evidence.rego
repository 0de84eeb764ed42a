# What verification found about the image that is asked about. Everything in
# ward.lib begins here: evidence for another image is no evidence, and a
# statement about another digest says nothing.
package ward.lib.evidence

verified if {
	input.evidence.verified == true
	input.evidence.digest == input.image.checksum
	input.image.checksum != ""
}

# The image's manifest, and the index it was chosen from.
digests contains input.image.checksum if verified

digests contains input.image.index if {
	verified
	input.image.index != ""
}

# Who signed the image. Nobody signed what a policy lets in unseen.
signers contains s if {
	verified
	some s in input.evidence.signers
	s.kind != "static"
}

# Every statement about this image whose signature a trust policy accepts.
attestations contains a if {
	verified
	some a in input.evidence.attestations
	a.digest in digests
	some s in a.signers
	s.kind != "static"
}

# Those of a predicate type, or of a version of it ("https://spdx.dev/Document").
of_type(type) := {a |
	some a in attestations
	startswith(concat("", [text(a, ["predicate_type"]), "/"]), concat("", [type, "/"]))
}

# A signer that has every member of want: {"kind": "keyless", "issuer": "…",
# "claims": {"runner": "github-hosted"}}. {} is anybody.
is(signer, want) if {
	is_object(signer)
	object.subset(signer, want)
}

# Something that one such signer signed: an attestation, or what the library
# makes of one.
by(signed, want) if {
	some s in signed.signers
	s.kind != "static"
	is(s, want)
}

now := time.parse_rfc3339_ns(input.now)

# Nanoseconds since 1970 of a time as attestations write it; undefined for
# anything else, which a built-in would make an error of the whole policy.
instant(text) := time.parse_rfc3339_ns(text) if {
	is_string(text)
	regex.match(`^(19[7-9]\d|20\d\d|21\d\d)-(0[1-9]|1[0-2])-([01]\d|2[0-8])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`, text)
}

instant(text) := time.parse_rfc3339_ns(text) if {
	is_string(text)
	regex.match(`^(19[7-9]\d|20\d\d|21\d\d)-((0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`, text)
}

# The 29th of February, in the years that have one.
instant(text) := time.parse_rfc3339_ns(text) if {
	is_string(text)
	regex.match(`^(19(7[26]|8[048]|9[26])|2[01]([02468][048]|[13579][26]))-02-29T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`, text)
	not startswith(text, "2100-")
}

# What stands at a path of an attestation, if it is of the kind that is asked
# for: a built-in that is given something else is an error of the whole policy.
text(doc, path) := v if {
	is_object(doc)
	v := object.get(doc, path, "")
	is_string(v)
} else := ""

list(doc, path) := v if {
	is_object(doc)
	v := object.get(doc, path, [])
	is_array(v)
} else := []

members(doc, path) := v if {
	is_object(doc)
	v := object.get(doc, path, {})
	is_object(v)
} else := {}

texts(doc, path) := [v | some v in list(doc, path); is_string(v)]
