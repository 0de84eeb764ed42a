# The decision asked for at point "oci": may this caller of ward-oci have this
# container, this process in one, this change of one? What a trusted caller's specification asks
# for is the caller's business; who is one, and for what, is the grants
# document's. Without it nobody is. docs/oci.md explains it.
package ward.oci

decision := {"allow": count(deny) == 0, "deny": deny, "warn": warn, "obligations": obligations}

# The caller is the parent process of ward-oci, as the kernel describes it.
trusted contains c if {
	some c in data.ward.grants.oci.callers
	c.exe == input.actor.exe
	c.uid == input.actor.uid
}

deny contains {
	"code": "oci.caller",
	"msg": sprintf("%v (user %v) is not a caller that may start containers here", [input.actor.exe, input.actor.uid]),
	"fix": sprintf(`name it in %v: {"oci": {"callers": [{"exe": "%v", "uid": %v}]}}`, [data.ward.grants.oci.file, input.actor.exe, input.actor.uid]),
} if {
	count(trusted) == 0
}

# What a container can gain by. To hold it back, or to end it, takes a trusted
# caller and no more.
gains if not holds

holds if input.oci.op in {"pause", "kill", "delete"}

# An image that is named must be verified, whoever names it.
deny contains {
	"code": "oci.evidence",
	"msg": sprintf("image %v is not verified: no signature that is trusted for it", [input.image.checksum]),
	"fix": "sign it (ward sign --key KEY REF) and trust the key (ward trust add --key PUB GLOB)",
} if {
	gains
	input.image.checksum != ""
	not verified
}

# A bundle that names none is for callers that may start any.
deny contains {
	"code": "oci.bundle",
	"msg": sprintf("bundle %v names no image that could be verified", [input.oci.bundle]),
	"fix": sprintf(`have the caller set the annotation org.ward.image.digest, or give it "bundles": "any" in %v`, [data.ward.grants.oci.file]),
} if {
	gains
	count(trusted) > 0
	not verified
	not any_bundle
}

deny contains {
	"code": "oci.shared-pid",
	"msg": "the container has no PID namespace of its own: the kernel would not end it with its monitor",
	"fix": sprintf(`ask for one, or give the caller "shared_pid": true in %v`, [data.ward.grants.oci.file]),
} if {
	gains
	count(trusted) > 0
	not input.oci.shared_pid == false
	not shared_pid
}

# What has to be there to be judged: a rule about what is undefined would deny
# nothing.
deny contains {"code": "oci.input", "msg": "the policy input lacks something the policy has to see", "fix": "use a ward and a policy of the same version"} if {
	not complete
}

complete := [input.actor.exe, input.actor.uid, input.image.checksum, input.oci.op, input.oci.bundle, input.oci.shared_pid, data.ward.grants.oci.file]

verified if {
	input.image.checksum != ""
	input.evidence.verified == true
	input.evidence.digest == input.image.checksum

	# What a trust policy lets in unsigned needs a grant, and here there is none.
	some s in input.evidence.signers
	s.kind != "static"
}

any_bundle if {
	some c in trusted
	c.bundles == "any"
}

shared_pid if {
	some c in trusted
	c.shared_pid == true
}

warn contains {} if false

obligations contains {} if false
