# Who signed the image.
package ward.lib.identity

import data.ward.lib.evidence

signers := evidence.signers

# Somebody with all of these members signed: {"policy": "team", "authority": "ci"}.
signed_by(want) if {
	some s in signers
	evidence.is(s, want)
}

# The holder of a key of a trust policy, by the key's hash.
key(id) if {
	some s in signers
	s.kind == "key"
	s.key_id == id
}

# Exactly this name, known to exactly this issuer.
keyless(issuer, subject) if {
	some s in signers
	s.kind == "keyless"
	s.issuer == issuer
	s.subject == subject
}

# A name that a glob matches in full; * stops at a slash, ** does not.
keyless_like(issuer, pattern) if {
	some s in signers
	s.kind == "keyless"
	s.issuer == issuer
	glob.match(pattern, ["/"], s.subject)
}

github := "https://token.actions.githubusercontent.com"

# The workflow of GitHub Actions that a signer is: repository, workflow and ref
# are those of the file that ran, which for a reusable workflow is not the
# repository that was built (see source).
workflow(s) := {"repository": m[1], "workflow": m[2], "ref": m[3], "kind": ref_kind(m[3]), "name": ref_name(m[3])} if {
	s.kind == "keyless"
	s.issuer == github
	found := regex.find_all_string_submatch_n(`^https://github\.com/([^/@]+/[^/@]+)/(\.github/workflows/[^/@]+)@(refs/[^@]+)$`, s.subject, 1)
	m := found[0]
}

# Where what was signed was made from, as the certificate says: repository,
# ref, kind, name. Undefined without a certificate that says so.
source(s) := {"repository": s.claims.repository, "ref": s.claims.ref, "kind": ref_kind(s.claims.ref), "name": ref_name(s.claims.ref)} if {
	s.kind == "keyless"
	s.claims.repository != ""
	s.claims.ref != ""
}

# Built from this repository ("https://github.com/team/app"), at a tag.
from_tag_of(repository) if {
	some s in signers
	source(s).repository == repository
	source(s).kind == "tag"
}

# Built from this repository, at this branch.
from_branch_of(repository, branch) if {
	some s in signers
	source(s).repository == repository
	source(s).ref == concat("", ["refs/heads/", branch])
}

ref_kind(ref) := "tag" if {
	startswith(ref, "refs/tags/")
} else := "branch" if {
	startswith(ref, "refs/heads/")
} else := "pull" if {
	startswith(ref, "refs/pull/")
} else := "other"

ref_name(ref) := trim_prefix(trim_prefix(ref, "refs/tags/"), "refs/heads/")
