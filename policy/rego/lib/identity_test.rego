package ward.lib.identity_test

import data.ward.lib.evidence_test
import data.ward.lib.identity

workflow := "https://github.com/team/app/.github/workflows/release.yml@refs/tags/v1.4.2"

certified(claims) := evidence_test.about([{"op": "add", "path": "/evidence/signers/0/claims", "value": claims}])

test_signed_by if {
	identity.signed_by({"policy": "team", "authority": "ci"}) with input as evidence_test.about([])
	identity.signed_by({}) with input as evidence_test.about([])
	not identity.signed_by({"authority": "security"}) with input as evidence_test.about([])
	not identity.signed_by({}) with input as evidence_test.about(evidence_test.put("/evidence/verified", false))
}

test_key if {
	identity.key("sha256:33") with input as evidence_test.about(evidence_test.put("/evidence/signers/0", {"kind": "key", "key_id": "sha256:33"}))
	not identity.key("sha256:44") with input as evidence_test.about(evidence_test.put("/evidence/signers/0", {"kind": "key", "key_id": "sha256:33"}))
	not identity.key("") with input as evidence_test.about([])
}

test_keyless if {
	identity.keyless(identity.github, workflow) with input as evidence_test.about([])
	not identity.keyless("https://accounts.google.com", workflow) with input as evidence_test.about([])
	not identity.keyless(identity.github, concat("", [workflow, "0"])) with input as evidence_test.about([])
	not identity.keyless(identity.github, workflow) with input as evidence_test.about(evidence_test.put("/evidence/signers/0/kind", "certificate"))
}

test_keyless_like if {
	identity.keyless_like(identity.github, "https://github.com/team/app/.github/workflows/release.yml@refs/tags/*") with input as evidence_test.about([])
	identity.keyless_like(identity.github, "https://github.com/team/**") with input as evidence_test.about([])
	not identity.keyless_like(identity.github, "https://github.com/team/*") with input as evidence_test.about([])
	not identity.keyless_like(identity.github, "https://github.com/team/app/.github/workflows/release.yml@refs/tags/v1") with input as evidence_test.about([])
	not identity.keyless_like(identity.github, "**") with input as evidence_test.about(evidence_test.put("/evidence/signers/0/kind", "certificate"))
	not identity.keyless_like("https://gitlab.com", "**") with input as evidence_test.about([])
}

test_workflow if {
	w := identity.workflow({"kind": "keyless", "issuer": identity.github, "subject": workflow})
	w == {"repository": "team/app", "workflow": ".github/workflows/release.yml", "ref": "refs/tags/v1.4.2", "kind": "tag", "name": "v1.4.2"}
	every s in [
		{"kind": "key", "issuer": identity.github, "subject": workflow},
		{"kind": "keyless", "issuer": "https://evil.example", "subject": workflow},
		{"kind": "keyless", "issuer": identity.github, "subject": "https://github.com/team/app/.github/workflows/a.yml@evil@refs/tags/v1"},
		{"kind": "keyless", "issuer": identity.github, "subject": concat("", ["https://evil.example/", workflow])},
	] {
		not identity.workflow(s)
	}
}

test_source if {
	in_tag := certified({"repository": "https://github.com/team/app", "ref": "refs/tags/v1"})
	identity.from_tag_of("https://github.com/team/app") with input as in_tag
	not identity.from_tag_of("https://github.com/team") with input as in_tag
	not identity.from_branch_of("https://github.com/team/app", "v1") with input as in_tag
	in_branch := certified({"repository": "https://github.com/team/app", "ref": "refs/heads/main"})
	identity.from_branch_of("https://github.com/team/app", "main") with input as in_branch
	not identity.from_branch_of("https://github.com/team/app", "mai") with input as in_branch
	not identity.from_tag_of("https://github.com/team/app") with input as in_branch
	not identity.from_tag_of("https://github.com/team/app") with input as evidence_test.about([])
	identity.source({"kind": "keyless", "claims": {"repository": "a", "ref": "b"}}).repository == "a"
	not identity.source({"kind": "keyless", "claims": {"repository": "", "ref": "b"}})
	not identity.source({"kind": "keyless", "claims": {"repository": "a", "ref": ""}})
	not identity.from_branch_of("https://github.com/other/app", "main") with input as in_branch
	not identity.source({"kind": "key", "claims": {"repository": "a", "ref": "b"}})
	identity.ref_kind("refs/pull/7/merge") == "pull"
	identity.ref_kind("main") == "other"
	identity.ref_name("refs/heads/a/b") == "a/b"
}
