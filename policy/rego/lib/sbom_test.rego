package ward.lib.sbom_test

import data.ward.lib.evidence_test
import data.ward.lib.sbom

spdx(value) := evidence_test.about(evidence_test.put("/evidence/attestations/4/predicate", value))

cyclonedx(value) := evidence_test.about(evidence_test.put("/evidence/attestations/5/predicate", value))

libxml2 := "pkg:deb/debian/libxml2@2.9.14%2Bdfsg-1.3?arch=amd64&distro=debian-12.9"

test_both if {
	{d.format | some d in sbom.documents} == {"spdx", "cyclonedx"} with input as evidence_test.about([])
	{d.made | some d in sbom.documents} == {"2026-03-01T10:03:00Z"} with input as evidence_test.about([])
	sbom.complete with input as evidence_test.about([])
	every f in ["spdx", "cyclonedx"] {
		found := {p | some p in sbom.packages; p.format == f} with input as evidence_test.about([])
		found == {
			{"name": "libxml2", "version": "2.9.14+dfsg-1.3", "format": f, "purl": libxml2, "licenses": {"MIT"}},
			{"name": "github.com/team/app", "version": "v1.4.2", "format": f, "purl": "pkg:golang/github.com/team/app@v1.4.2", "licenses": {"Apache-2.0"}},
		}
	}
}

test_incomplete if {
	not sbom.complete with input as data.ward.example
	every broken in [{}, null, "x", {"spdxVersion": "SPDX-3.0", "packages": [{"name": "a"}]}, {"spdxVersion": "SPDX-2.3"}, {"spdxVersion": "SPDX-2.3", "packages": "all"}] {
		not sbom.complete with input as spdx(broken)
		{p.format | some p in sbom.packages} == {"cyclonedx"} with input as spdx(broken)
	}
	every broken in [{}, null, {"bomFormat": "Other", "components": [{"name": "a"}]}] {
		not sbom.complete with input as cyclonedx(broken)
		{p.format | some p in sbom.packages} == {"spdx"} with input as cyclonedx(broken)
	}
}

test_asked_by_purl if {
	sbom.versions("pkg:deb/debian/libxml2") == {"2.9.14+dfsg-1.3"} with input as evidence_test.about([])
	count(sbom.matching("pkg:deb/debian/libxml2@2.9.14%2Bdfsg-1.3")) == 2 with input as evidence_test.about([])
	sbom.matching("pkg:deb/debian/libxml2@1") == set() with input as evidence_test.about([])
	sbom.matching("libxml2") == set() with input as evidence_test.about([])
	count(sbom.named("libxml2")) == 2 with input as evidence_test.about([])
}

declared(members) := p.licenses if {
	some p in sbom.packages with input as spdx({"spdxVersion": "SPDX-2.3", "packages": [object.union({"name": "only"}, members)]})
	p.name == "only"
}

located(refs) := p.purl if {
	some p in sbom.packages with input as spdx({"spdxVersion": "SPDX-2.3", "packages": [{"name": "only", "externalRefs": refs}]})
	p.name == "only"
}

test_which_purl if {
	located([{"referenceType": "cpe23Type", "referenceLocator": "cpe:2.3:a"}, {"referenceType": "purl", "referenceLocator": "pkg:npm/a"}]) == "pkg:npm/a"
	located([{"referenceType": "cpe23Type", "referenceLocator": "cpe:2.3:a"}]) == ""
	located([{"referenceType": "purl", "referenceLocator": 7}]) == ""
}

test_which_license if {
	declared({"licenseConcluded": "MIT", "licenseDeclared": "GPL-3.0-only"}) == {"MIT"}
	declared({"licenseConcluded": "NOASSERTION", "licenseDeclared": "GPL-3.0-only"}) == {"GPL-3.0-only"}
	declared({"licenseConcluded": "NONE", "licenseDeclared": "NOASSERTION"}) == set()
	declared({}) == set()
}

test_components if {
	doc := {"bomFormat": "CycloneDX", "components": [{
		"group": "org.example", "name": "a", "version": "1", "licenses": [{"expression": "MIT OR Apache-2.0"}, {"license": {"name": "Own"}}],
		"components": [{"name": "b", "components": [{"name": "c"}]}],
	}]}
	found := {p | some p in sbom.packages; p.format == "cyclonedx"} with input as cyclonedx(doc)
	{p.name | some p in found} == {"org.example/a", "b", "c"}
	some a in found
	a.name == "org.example/a"
	a.licenses == {"MIT OR Apache-2.0", "Own"}
	some b in found
	b.name == "b"
	b.licenses == set()
}

test_expressions if {
	sbom.license_ids("(MIT OR Apache-2.0) AND GPL-2.0-only WITH Classpath-exception-2.0") == {"MIT", "Apache-2.0", "GPL-2.0-only", "Classpath-exception-2.0"}
	sbom.license_ids("") == set()
	every e in ["MIT", "MIT OR GPL-3.0-only", "GPL-3.0-only OR MIT AND BSD-3-Clause", "(MIT AND BSD-3-Clause)"] {
		sbom.license_within(e, {"MIT", "BSD-3-Clause"})
	}
	every e in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "(MIT OR GPL-3.0-only)", "MIT WITH x", "", "MIT OR", "(MIT OR BSD-3-Clause OR Zlib) AND GPL-3.0-only"] {
		not sbom.license_within(e, {"BSD-3-Clause"})
	}
}

test_licensed_otherwise if {
	sbom.licensed_otherwise({"MIT", "Apache-2.0"}) == set() with input as evidence_test.about([])
	{p.name | some p in sbom.licensed_otherwise({"MIT"})} == {"github.com/team/app"} with input as evidence_test.about([])
	not sbom.licensed({"licenses": set()}, {"MIT"})
}
