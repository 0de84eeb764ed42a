package ward.lib.vex_test

import data.ward.lib.evidence_test
import data.ward.lib.vex

document := "/evidence/attestations/3/predicate"

finding := {
	"ids": {"CVE-2025-11111", "GHSA-1"}, "severity": "CRITICAL",
	"purl": "pkg:deb/debian/libxml2@2.9.14%2Bdfsg-1.3?arch=amd64&distro=debian-12.9",
}

product := "pkg:oci/app@sha256%3A1111111111111111111111111111111111111111111111111111111111111111?repository_url=registry.example%2Fteam"

saying(statements) := evidence_test.about(evidence_test.put(concat("", [document, "/statements"]), statements))

# A statement that excuses the finding, with some members otherwise.
statement(members) := object.union({"vulnerability": {"name": "CVE-2025-11111"}, "products": [{"@id": product}], "status": "fixed"}, members)

excuses(statements) if vex.excused(finding, {}) with input as saying(statements)

test_example if {
	vex.excused(finding, {}) with input as evidence_test.about([])
	vex.excused(finding, {"authority": "security"}) with input as evidence_test.about([])
	not vex.excused(finding, {"authority": "ci"}) with input as evidence_test.about([])
	vex.remaining({finding, {"ids": {"CVE-2024-33333"}, "purl": finding.purl}}, {}) == {{"ids": {"CVE-2024-33333"}, "purl": finding.purl}} with input as evidence_test.about([])
	vex.remaining({finding}, {}) == {finding} with input as data.ward.example
	{s.document | some s in vex.statements} == {"https://openvex.dev/docs/public/vex-0f4b6f1d"} with input as evidence_test.about([])
	count(vex.statements) == 2 with input as evidence_test.about([])
}

test_names if {
	excuses([statement({})])
	excuses([statement({"vulnerability": "CVE-2025-11111"})])
	excuses([statement({"vulnerability": {"name": "CVE-2025-9", "aliases": ["GHSA-1"]}})])
	excuses([statement({"vulnerability": {"@id": "GHSA-1"}})])
	not excuses([statement({"vulnerability": {"name": "CVE-2025-1111"}})])
	not excuses([statement({"vulnerability": {"name": ""}})])
	not excuses([statement({"vulnerability": null})])
}

test_statuses if {
	not excuses([statement({"status": "affected"})])
	not excuses([statement({"status": "under_investigation"})])
	not excuses([statement({"status": "not_affected"})])
	not excuses([statement({"status": ""})])
	not excuses([statement({"status": "affected", "justification": "component_not_present"})])
	not excuses([statement({"status": ["fixed"]})])
	excuses([statement({"status": "not_affected", "justification": "component_not_present"})])
	excuses([statement({"status": "not_affected", "impact_statement": "never called"})])
}

test_products if {
	digest := "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	every p in [
		{"@id": digest}, {"@id": concat("", ["registry.example/team/app@", digest])}, {"identifiers": {"purl": product}}, product,
		{"@id": "app", "hashes": {"sha-256": trim_prefix(digest, "sha256:")}},
		{"@id": "pkg:oci/app?repository_url=registry.example%2Fteam"}, {"@id": "pkg:oci/app?repository_url=registry.example/team/app"},
		{"@id": "pkg:deb/debian/libxml2@2.9.14%2Bdfsg-1.3"}, {"@id": "pkg:deb/debian/libxml2"},
		{"@id": product, "subcomponents": [{"@id": "pkg:deb/debian/libxml2"}]}, {"@id": product, "subcomponents": ["pkg:deb/debian/zlib", "pkg:deb/debian/libxml2"]},
	] {
		excuses([statement({"products": [p]})])
	}
	every p in [
		{"@id": "pkg:oci/app"}, {"@id": "pkg:oci/app@sha256%3A22"}, {"@id": "pkg:oci/app@sha256%3A22?repository_url=registry.example%2Fteam"}, {"@id": "pkg:deb/app?repository_url=registry.example%2Fteam"},
		{"@id": product, "subcomponents": ["pkg:deb/debian/zlib"]}, {"@id": product, "subcomponents": [7]}, {"@id": product, "subcomponents": [{}]}, {"@id": "pkg:deb/debian/libxml2", "subcomponents": ["pkg:deb/debian/zlib"]}, {"@id": "pkg:oci/app?repository_url=registry.example%2Fother"}, {"@id": "app"}, {"@id": ""}, {},
		{"@id": "pkg:deb/debian/libxml2@2.9"}, {"@id": "pkg:deb/debian/zlib"}, {"@id": product, "subcomponents": [{"@id": "pkg:deb/debian/zlib"}]},
		{"@id": product, "subcomponents": [{"@id": "pkg:deb/debian/libxml2@1"}]}, {"@id": "app", "hashes": {"sha-256": ""}}, {"@id": "app", "hashes": {"sha-512": trim_prefix(digest, "sha256:")}}, 7,
	] {
		not excuses([statement({"products": [p]})])
	}
	not excuses([statement({"products": []})])
}

test_newest_holds if {
	early := {"timestamp": "2026-03-02T06:00:00Z"}
	late := {"timestamp": "2026-03-02T07:00:00Z"}
	excuses([statement(object.union(early, {"status": "affected"})), statement(late)])
	not excuses([statement(early), statement(object.union(late, {"status": "affected"}))])

	# Of the same moment, no is no.
	not excuses([statement(early), statement(object.union(early, {"status": "under_investigation"}))])

	# Brought up to date.
	excuses([statement(object.union(early, {"last_updated": "2026-03-02T08:00:00Z"})), statement(object.union(late, {"status": "affected"}))])
}

test_times if {
	excuses([statement({"timestamp": "2026-03-02T12:00:00Z"})])
	not excuses([statement({"timestamp": "2026-03-02T12:00:01Z"})])
	not excuses([statement({"timestamp": "yesterday"})])
}

test_another_image if {
	not vex.excused(finding, {}) with input as evidence_test.about(evidence_test.put("/evidence/attestations/3/digest", "sha256:22"))
	not vex.excused(finding, {}) with input as evidence_test.about(evidence_test.put("/evidence/attestations/3/signers/0/kind", "static"))
}
