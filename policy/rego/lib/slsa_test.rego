package ward.lib.slsa_test

import data.ward.lib.evidence_test
import data.ward.lib.slsa

all := found if found := slsa.provenances with input as evidence_test.about([])

one(version) := p if {
	some p in all
	p.version == version
}

# The provenance of version 1 with something else in it.
changed(path, value) := p if {
	found := slsa.provenances with input as evidence_test.about([{"op": "add", "path": concat("", ["/evidence/attestations/0/predicate", path]), "value": value}])
	some p in found
	p.version == "1"
}

test_both if {
	{p.version | some p in all} == {"1", "0.2"}
	every p in all {
		p.digest == data.ward.example.image.checksum
		p.source == "https://github.com/team/app"
		p.ref == "refs/tags/v1.4.2"
		p.path == ".github/workflows/release.yml"
		p.commit == "5f0c2a1b3c4d5e6f708192a3b4c5d6e7f8091a2b"
		p.started == "2026-03-01T09:58:11Z"
		p.finished == "2026-03-01T10:02:47Z"
		slsa.from(p, "github.com/team/app")
		slsa.from(p, "https://github.com/team/app")
		slsa.tag(p) == "v1.4.2"
		not slsa.branch(p)
		not slsa.from(p, "github.com/team/ap")
		not slsa.from(p, "")
		slsa.by(p, {"authority": "ci"})
		not slsa.by(p, {"authority": "security"})
	}
	one("1").builder == "https://github.com/team/app/.github/workflows/release.yml@refs/tags/v1.4.2"
	one("1").build_type == "https://actions.github.io/buildtypes/workflow/v1"
	one("1").invocation == "https://github.com/team/app/actions/runs/1234567890/attempts/1"
	one("1").parameters.workflow.ref == "refs/tags/v1.4.2"
	one("0.2").invocation == "1234567890-1"
	one("0.2").build_type == "https://github.com/slsa-framework/slsa-github-generator/container@v1"
	one("0.2").parameters == {}
	one("1").materials == {{"uri": "git+https://github.com/team/app@refs/tags/v1.4.2", "digest": {"gitCommit": "5f0c2a1b3c4d5e6f708192a3b4c5d6e7f8091a2b"}}}
	count(one("0.2").materials) == 1
}

test_none_for_another if {
	slsa.provenances == set() with input as evidence_test.about(evidence_test.put("/image/checksum", "sha256:22"))
	slsa.provenances == set() with input as data.ward.example
}

test_sparse if {
	p := slsa.provenances with input as evidence_test.about([
		{"op": "replace", "path": "/evidence/attestations/0/predicate", "value": {"buildDefinition": {}}},
		{"op": "replace", "path": "/evidence/attestations/1/predicate", "value": {}},
	])
	{q.version | some q in p} == {"1", "0.2"}
	every q in p {
		q.builder == ""
		q.source == ""
		q.ref == ""
		q.commit == ""
		not slsa.built_by(q, "")
		not slsa.from(q, "")
		slsa.level(q, {"": 3}) == 1
	}
	broken := slsa.provenances with input as evidence_test.about(evidence_test.put("/evidence/attestations/0/predicate", "what"))
	count(broken) == 1
}

test_builders if {
	slsa.built_by(one("1"), "https://github.com/team/app/.github/workflows/release.yml")
	slsa.built_by(one("1"), one("1").builder)
	not slsa.built_by(one("1"), "https://github.com/team/app/.github/workflows/release")
	not slsa.built_by(one("1"), "https://github.com/team")
	slsa.signed_by_builder(one("1"))
	not slsa.signed_by_builder(one("0.2"))
}

test_builder_is_named if {
	every p in [{"builder": "", "signers": [{"kind": "keyless", "subject": ""}]}, {"builder": "b", "signers": [{"kind": "key", "subject": "b"}]}] {
		not slsa.signed_by_builder(p)
	}
	not slsa.built_by({"builder": "@v1"}, "")
}

test_version_is_the_type if {
	p := slsa.provenances with input as evidence_test.about([{"op": "add", "path": "/evidence/attestations/1/predicate/buildDefinition", "value": {}}])
	count(p) == 2
}

test_origins if {
	buildkit := changed("/buildDefinition/externalParameters", {"configSource": {"uri": "https://github.com/team/app.git#refs/heads/main", "path": "Dockerfile"}})
	buildkit.source == "https://github.com/team/app"
	buildkit.ref == "refs/heads/main"
	buildkit.path == "Dockerfile"
	slsa.branch(buildkit) == "main"
	whole := changed("/buildDefinition/externalParameters", {"source": {"uri": "git+https://github.com/team/app", "ref": "refs/heads/x"}})
	whole.source == "https://github.com/team/app"
	whole.ref == "refs/heads/x"
	text := changed("/buildDefinition/externalParameters", {"source": "git+https://github.com/team/app@refs/tags/v2"})
	text.source == "https://github.com/team/app"
	text.ref == "refs/tags/v2"
	none := changed("/buildDefinition/externalParameters", {})
	none.source == ""
}

test_commits if {
	changed("/buildDefinition/resolvedDependencies/-", {"uri": "git+https://github.com/team/app", "digest": {"gitCommit": "00"}}).commit == ""
	changed("/buildDefinition/resolvedDependencies/-", {"uri": "git+https://github.com/other/app", "digest": {"gitCommit": "00"}}).commit == one("1").commit
	changed("/buildDefinition/resolvedDependencies", []).commit == ""
	slsa.commit("", [{"uri": "", "digest": {"sha1": "00"}}]) == ""
}

test_levels if {
	own := "https://github.com/team/app/.github/workflows/release.yml"
	generator := "https://github.com/slsa-framework/slsa-github-generator/.github/workflows/generator_container_slsa3.yml"
	slsa.level(one("1"), {}) == 1
	slsa.level(one("1"), {own: 2}) == 2
	slsa.level(one("1"), {generator: 3}) == 1

	# Somebody else than the builder signed, so its name is only a claim.
	slsa.level(one("0.2"), {generator: 3}) == 1
	slsa.level(one("0.2"), {generator: {"level": 3, "signer": {"kind": "keyless", "policy": "team"}}}) == 3
	slsa.level(one("0.2"), {generator: {"level": 3, "signer": {"kind": "key"}}}) == 1
	slsa.level(one("1"), {generator: {"level": 3, "signer": {}}}) == 1
	slsa.level(one("1"), {own: {"level": 2, "signer": {}}}) == 2
	slsa.level({"builder": "b", "signers": [{"kind": "keyless", "subject": "b"}]}, {"b": {"level": 2, "signer": {"policy": "team"}}}) == 1
	slsa.level({"builder": "b", "signers": [{"kind": "keyless", "subject": "b"}]}, {"b": 2}) == 2
}
