# SLSA provenance, versions 0.2 and 1, in one form.
package ward.lib.slsa

import data.ward.lib.evidence

# One for each provenance attestation of this image. What a statement does not
# say is "".
provenances contains p if {
	some a in evidence.of_type("https://slsa.dev/provenance")
	a.predicate_type != "https://slsa.dev/provenance/v0.2"
	is_object(a.predicate.buildDefinition)
	origin := origin1(evidence.members(a.predicate, ["buildDefinition", "externalParameters"]))
	p := {
		"version": "1",
		"builder": evidence.text(a.predicate, ["runDetails", "builder", "id"]),
		"build_type": evidence.text(a.predicate, ["buildDefinition", "buildType"]),
		"source": repository(origin.uri),
		"ref": ref(origin),
		"path": origin.path,
		"commit": commit(repository(origin.uri), evidence.list(a.predicate, ["buildDefinition", "resolvedDependencies"])),
		"invocation": evidence.text(a.predicate, ["runDetails", "metadata", "invocationId"]),
		"started": evidence.text(a.predicate, ["runDetails", "metadata", "startedOn"]),
		"finished": evidence.text(a.predicate, ["runDetails", "metadata", "finishedOn"]),
		"parameters": evidence.members(a.predicate, ["buildDefinition", "externalParameters"]),
		"materials": materials(evidence.list(a.predicate, ["buildDefinition", "resolvedDependencies"])),
		"signers": a.signers,
		"digest": a.digest,
	}
}

provenances contains p if {
	some a in evidence.of_type("https://slsa.dev/provenance/v0.2")
	origin := {
		"uri": evidence.text(a.predicate, ["invocation", "configSource", "uri"]),
		"ref": "",
		"path": evidence.text(a.predicate, ["invocation", "configSource", "entryPoint"]),
	}
	p := {
		"version": "0.2",
		"builder": evidence.text(a.predicate, ["builder", "id"]),
		"build_type": evidence.text(a.predicate, ["buildType"]),
		"source": repository(origin.uri),
		"ref": ref(origin),
		"path": origin.path,
		"commit": commit(repository(origin.uri), array.concat([evidence.members(a.predicate, ["invocation", "configSource"])], evidence.list(a.predicate, ["materials"]))),
		"invocation": evidence.text(a.predicate, ["metadata", "buildInvocationID"]),
		"started": evidence.text(a.predicate, ["metadata", "buildStartedOn"]),
		"finished": evidence.text(a.predicate, ["metadata", "buildFinishedOn"]),
		"parameters": evidence.members(a.predicate, ["invocation", "parameters"]),
		"materials": materials(evidence.list(a.predicate, ["materials"])),
		"signers": a.signers,
		"digest": a.digest,
	}
}

# Where the build's definition came from: GitHub's workflow, BuildKit's
# configSource, or the source of the generators.
origin1(parameters) := {"uri": evidence.text(parameters, ["workflow", "repository"]), "ref": evidence.text(parameters, ["workflow", "ref"]), "path": evidence.text(parameters, ["workflow", "path"])} if {
	is_object(parameters.workflow)
} else := {"uri": evidence.text(parameters, ["configSource", "uri"]), "ref": "", "path": evidence.text(parameters, ["configSource", "path"])} if {
	is_object(parameters.configSource)
} else := {"uri": evidence.text(parameters, ["source", "uri"]), "ref": evidence.text(parameters, ["source", "ref"]), "path": ""} if {
	is_object(parameters.source)
} else := {"uri": evidence.text(parameters, ["source"]), "ref": evidence.text(parameters, ["ref"]), "path": ""}

# A repository without the transport in front, the ref behind and ".git".
repository(uri) := trim_suffix(regex.replace(trim_prefix(uri, "git+"), `(@refs/|#).*$`, ""), ".git")

ref(origin) := origin.ref if {
	origin.ref != ""
} else := concat("", ["refs/", split(origin.uri, "@refs/")[1]]) if {
	contains(origin.uri, "@refs/")
} else := split(origin.uri, "#")[1] if {
	contains(origin.uri, "#")
} else := ""

# The one commit of the source that was built; "" if none is named, or several.
commit(source, dependencies) := c if {
	source != ""
	commits := {d |
		some m in dependencies
		repository(evidence.text(m, ["uri"])) == source
		some algorithm in {"gitCommit", "sha1"}
		d := evidence.text(m, ["digest", algorithm])
		d != ""
	}
	count(commits) == 1
	some c in commits
} else := ""

materials(list) := {m |
	some e in list
	m := {"uri": evidence.text(e, ["uri"]), "digest": evidence.members(e, ["digest"])}
}

# Signed by somebody who has all of these members.
by(p, want) if evidence.by(p, want)

# Built by this builder, at whatever version of it ("…/release.yml" for
# "…/release.yml@refs/tags/v1").
built_by(p, id) if {
	id != ""
	p.builder == id
}

built_by(p, id) if {
	id != ""
	startswith(p.builder, concat("", [id, "@"]))
}

# Built from this repository, with or without "https://".
from(p, source) if {
	p.source != ""
	trim_prefix(p.source, "https://") == trim_suffix(trim_prefix(source, "https://"), ".git")
}

tag(p) := trim_prefix(p.ref, "refs/tags/") if startswith(p.ref, "refs/tags/")

branch(p) := trim_prefix(p.ref, "refs/heads/") if startswith(p.ref, "refs/heads/")

# The builder itself signed: the certificate's name is the builder's.
signed_by_builder(p) if {
	p.builder != ""
	some s in p.signers
	s.kind == "keyless"
	s.subject == p.builder
}

# The build level that a provenance is worth. A level is a property of the
# builder, which no provenance can prove: builders says whom you believe, as
# {id: level} for a builder that signs itself, or {id: {"level": n, "signer":
# want}} where somebody else signs for it. Anything else is level 1.
level(p, builders) := max((({1} | {n |
	some id, n in builders
	is_number(n)
	built_by(p, id)
	signed_by_builder(p)
}) | {b.level |
	some id, b in builders
	is_object(b)
	built_by(p, id)
	evidence.by(p, b.signer)
}))
