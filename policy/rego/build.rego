# The decision asked for at point "build": may a build take this image in (step
# "from"), or run this command (step "run"). Files of the policy directory in
# this package add to deny, warn and obligations; nothing can take away.
package ward.build

decision := {
	"allow": (count(deny) + count(violations)) == 0,
	"deny": deny,
	"warn": warn,
	"obligations": obligations,
}

# A command is judged as a container that runs it. An image that is taken in
# runs nothing yet: what there is to judge is the evidence for it.
violations contains v if {
	some v in data.ward.levels[data.ward.level].violations
	not waits(v[0])
}

waits(code) if {
	input.build.step == "from"
	not startswith(code, "baseline.evidence")
}

deny contains {
	"code": code,
	"msg": sprintf(text.msg, values),
	"fix": sprintf(text.fix, values),
	"evidence": {"input": text.input, "values": values, "expected": text.expected},
} if {
	some [code, values] in violations
	text := data.ward.messages[code]
}

deny contains {
	"code": "build.step",
	"msg": sprintf("%q is not a step of a build", [input.build.step]),
	"fix": "use a ward and a policy of the same version",
} if {
	not input.build.step in {"from", "run"}
}

deny contains {"code": "build.input", "msg": "the policy input lacks something the policy has to see", "fix": "use a ward and a policy of the same version"} if {
	not complete
}

# For a step "from" too: what baseline.input asks for there is more.
complete := [input.build.step, input.image.checksum, input.image.ref, input.evidence]

warn contains {} if false

obligations contains {} if false
