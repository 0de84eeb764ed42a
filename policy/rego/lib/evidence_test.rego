package ward.lib.evidence_test

import data.ward.lib.evidence

# The image of the example, as the attestations of every kind describe it, nine
# hours after it was scanned.
about(patch) := json.patch(data.ward.example, array.concat([{"op": "replace", "path": "/evidence", "value": data.ward.example_evidence}, {"op": "replace", "path": "/now", "value": "2026-03-02T12:00:00Z"}], patch))

put(path, value) := [{"op": "replace", "path": path, "value": value}]

test_whose if {
	evidence.verified with input as about([])
	count(evidence.signers) == 1 with input as about([])
	{a.predicate_type | some a in evidence.attestations} == {
		"https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2", "https://cosign.sigstore.dev/attestation/vuln/v1",
		"https://openvex.dev/ns", "https://spdx.dev/Document", "https://cyclonedx.org/bom",
	} with input as about([])
}

test_nothing_unverified if {
	every patch in [
		put("/evidence/verified", false), put("/evidence/verified", "true"), put("/evidence/digest", "sha256:22"), put("/image/checksum", "sha256:22"),
		put("/evidence", null), array.concat(put("/evidence/digest", ""), put("/image/checksum", "")),
	] {
		not evidence.verified with input as about(patch)
		evidence.signers == set() with input as about(patch)
		evidence.attestations == set() with input as about(patch)
		evidence.digests == set() with input as about(array.concat(patch, put("/image/index", "sha256:44")))
	}
}

test_static_signs_nothing if {
	evidence.signers == set() with input as about(put("/evidence/signers/0/kind", "static"))
	count(evidence.attestations) == 5 with input as about(put("/evidence/attestations/0/signers/0/kind", "static"))
	not evidence.by({"signers": [{"kind": "static"}]}, {})
	evidence.by({"signers": [{"kind": "key"}]}, {})
}

test_other_digests if {
	count(evidence.attestations) == 5 with input as about(put("/evidence/attestations/0/digest", "sha256:22"))
	count(evidence.attestations) == 5 with input as about(put("/evidence/attestations/0/digest", ""))
	count(evidence.attestations) == 6 with input as about(array.concat(put("/evidence/attestations/0/digest", "sha256:22"), put("/image/index", "sha256:22")))
}

test_types if {
	count(evidence.of_type("https://spdx.dev/Document")) == 1 with input as about([])
	count(evidence.of_type("https://spdx.dev/Document")) == 1 with input as about(put("/evidence/attestations/4/predicate_type", "https://spdx.dev/Document/v2.3"))
	count(evidence.of_type("https://spdx.dev/Document")) == 0 with input as about(put("/evidence/attestations/4/predicate_type", "https://spdx.dev/Documents"))
	count(evidence.of_type("https://slsa.dev/provenance")) == 2 with input as about([])
	count(evidence.of_type("https://slsa.dev/provenance/v1")) == 1 with input as about([])
}

test_wanted if {
	s := {"kind": "keyless", "policy": "team", "claims": {"runner": "github-hosted", "ref": "refs/heads/main"}}
	evidence.is(s, {})
	evidence.is(s, {"policy": "team", "claims": {"runner": "github-hosted"}})
	not evidence.is(s, {"policy": "other"})
	not evidence.is(s, {"claims": {"runner": "self-hosted"}})
	not evidence.is(s, {"authority": "ci"})
}

test_instants if {
	evidence.instant("2026-03-02T03:00:12Z") == 1772420412000000000
	evidence.instant("2026-03-02T04:00:12.5+01:00") == 1772420412500000000
	every text in [
		"", "yesterday", "2026-03-02", "2026-13-02T03:00:12Z", "2026-02-29T03:00:12Z", "2026-02-30T03:00:12Z", "2026-04-31T03:00:12Z",
		"0001-01-01T00:00:00Z", "9999-01-01T00:00:00Z", "2100-02-29T00:00:00Z", "2026-03-02T24:00:12Z", "2026-03-02T03:60:12Z", " 2026-03-02T03:00:12Z", 7, null, {},
	] {
		not evidence.instant(text)
	}
	every text in ["2024-02-29T00:00:00Z", "2000-02-29T00:00:00Z", "2026-04-30T00:00:00Z", "2026-12-31T00:00:00Z", "2026-01-29T23:59:59.999999999Z", "1972-02-29T00:00:00Z", "2026-08-31T00:00:00Z"] {
		is_number(evidence.instant(text))
	}
}

test_texts if {
	evidence.text({"a": {"b": "c"}}, ["a", "b"]) == "c"
	every doc in [{}, {"a": 1}, {"a": {"b": 1}}, {"a": {"b": null}}, null, [], "a"] {
		evidence.text(doc, ["a", "b"]) == ""
	}
}

test_kinds if {
	evidence.list({"a": {"b": ["c"]}}, ["a", "b"]) == ["c"]
	evidence.members({"a": {"b": {"c": 1}}}, ["a", "b"]) == {"c": 1}
	evidence.texts({"a": ["b", 1, null]}, ["a"]) == ["b"]
	every doc in [{}, {"a": 1}, {"a": {"b": 1}}, {"a": {"b": null}}, {"a": {"b": "text"}}, null, [], "a"] {
		evidence.list(doc, ["a", "b"]) == []
		evidence.members(doc, ["a", "b"]) == {}
		evidence.texts(doc, ["a", "b"]) == []
	}
	not evidence.is("nobody", {})
}
