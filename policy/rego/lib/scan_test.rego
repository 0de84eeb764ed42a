package ward.lib.scan_test

import data.ward.lib.evidence_test
import data.ward.lib.scan

predicate := "/evidence/attestations/2/predicate"

result(value) := evidence_test.about(evidence_test.put(concat("", [predicate, "/scanner/result"]), value))

at(now) := evidence_test.about(evidence_test.put("/now", now))

test_trivy if {
	some r in scan.reports with input as evidence_test.about([])
	r.format == "trivy"
	r.version == "0.60.0"
	r.scanner == "pkg:github/aquasecurity/trivy@0.60.0"
	r.started == "2026-03-02T03:00:00Z"
	r.digest == data.ward.example.image.checksum
	r.finished == "2026-03-02T03:00:12Z"
	r.findings == {
		{
			"ids": {"CVE-2025-11111"}, "severity": "CRITICAL", "package": "libxml2", "version": "2.9.14+dfsg-1.3", "fixed": "2.9.14+dfsg-1.4",
			"purl": "pkg:deb/debian/libxml2@2.9.14%2Bdfsg-1.3?arch=amd64&distro=debian-12.9",
		},
		{
			"ids": {"CVE-2024-22222"}, "severity": "LOW", "package": "libc6", "version": "2.36-9+deb12u9", "fixed": "",
			"purl": "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64&distro=debian-12.9",
		},
	}
	count([f | some f in r.findings; scan.fixable(f)]) == 1
}

test_trivy_nothing_found if {
	some r in scan.reports with input as result({"SchemaVersion": 2})
	r.findings == set()
	r.format == "trivy"
}

test_grype if {
	some r in scan.reports with input as result({"matches": [{
		"vulnerability": {"id": "GHSA-1", "severity": "High", "fix": {"versions": ["2", "3"], "state": "fixed"}},
		"relatedVulnerabilities": [{"id": "CVE-2025-1"}],
		"artifact": {"name": "a", "version": "1", "purl": "pkg:npm/a@1"},
	}]})
	r.format == "grype"
	r.findings == {{"ids": {"GHSA-1", "CVE-2025-1"}, "severity": "HIGH", "package": "a", "version": "1", "fixed": "2,3", "purl": "pkg:npm/a@1"}}
}

test_in_toto if {
	some r in scan.reports with input as result([{"id": "CVE-2025-1", "severity": [{"method": "nvd", "score": "5.2"}, {"method": "cvss", "score": 9.1}]}, {"id": "CVE-2025-2", "severity": [{"score": "high"}, {"score": null}, 7]}])
	r.format == "in-toto"
	r.findings == {
		{"ids": {"CVE-2025-1"}, "severity": "CRITICAL", "package": "", "version": "", "fixed": "", "purl": ""},
		{"ids": {"CVE-2025-2"}, "severity": "UNKNOWN", "package": "", "version": "", "fixed": "", "purl": ""},
	}
	scan.of_score(7) == "HIGH"
	scan.of_score(4) == "MEDIUM"
	scan.of_score(0.1) == "LOW"
}

test_fresh if {
	scan.scanned_within("24h", {}) with input as at("2026-03-02T12:00:00Z")
	scan.scanned_within("24h", {}) with input as at("2026-03-03T03:00:12Z")
	not scan.scanned_within("24h", {}) with input as at("2026-03-03T03:00:13Z")

	# From the future.
	not scan.scanned_within("24h", {}) with input as at("2026-03-02T03:00:11Z")
	count(scan.findings_within("24h")) == 2 with input as at("2026-03-02T12:00:00Z")
	scan.findings_within("24h") == set() with input as at("2026-03-04T12:00:00Z")
	not scan.scanned_within("24h", {}) with input as evidence_test.about(evidence_test.put(concat("", [predicate, "/metadata/scanFinishedOn"]), "today"))
	not scan.scanned_within("24h", {}) with input as data.ward.example

	# Of another image.
	not scan.scanned_within("24h", {}) with input as evidence_test.about(evidence_test.put("/evidence/attestations/2/digest", "sha256:22"))
}

test_signed if {
	scan.scanned_within("24h", {"authority": "security"}) with input as evidence_test.about([])
	not scan.scanned_within("24h", {"authority": "ci"}) with input as evidence_test.about([])
}

# What cannot be read may have found anything.
test_unreadable if {
	every value in [null, {}, "CVE", {"SchemaVersion": 3}, {"matches": {}}, 7] {
		not scan.scanned_within("24h", {}) with input as result(value)
	}
	both := evidence_test.about([{"op": "add", "path": "/evidence/attestations/-", "value": json.patch(
		data.ward.example_evidence.attestations[2],
		[{"op": "replace", "path": "/predicate/scanner/result", "value": {}}],
	)}])
	not scan.scanned_within("24h", {}) with input as both
}

test_hides_nothing if {
	second := evidence_test.about([{"op": "add", "path": "/evidence/attestations/-", "value": json.patch(
		data.ward.example_evidence.attestations[2],
		[{"op": "replace", "path": "/predicate/scanner/result", "value": {"SchemaVersion": 2}}, {"op": "replace", "path": "/predicate/metadata/scanFinishedOn", "value": "2026-03-02T11:00:00Z"}],
	)}])
	count(scan.fresh_reports("24h")) == 2 with input as second
	count(scan.findings_within("24h")) == 2 with input as second
}

test_severities if {
	reached := {[have, want] |
		some have in ["NONE", "LOW", "MODERATE", "HIGH", "CRITICAL", "UNKNOWN", "", "SEVERE"]
		some want in ["LOW", "MEDIUM", "HIGH", "CRITICAL"]
		scan.at_least({"severity": have}, want)
	}
	reached == {["LOW", "LOW"], ["MODERATE", "LOW"], ["MODERATE", "MEDIUM"], ["HIGH", "LOW"], ["HIGH", "MEDIUM"], ["HIGH", "HIGH"]} | {[have, want] |
		some have in ["CRITICAL", "UNKNOWN", "", "SEVERE"]
		some want in ["LOW", "MEDIUM", "HIGH", "CRITICAL"]
	}
}
