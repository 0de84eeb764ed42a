# The decision asked for at point "attach": may this caller have the
# streams of this container. Files of the policy directory in this package add to deny, warn
# and obligations; nothing can take away from them.
package ward.attach

decision := {
	"allow": (count(deny) + count(violations)) == 0,
	"deny": deny,
	"warn": warn,
	"obligations": obligations,
}

# What the container runs by is judged as it would be if it started now.
violations := data.ward.levels[data.ward.level].violations

deny contains {
	"code": code,
	"msg": sprintf(text.msg, values),
	"fix": sprintf(text.fix, values),
	"evidence": {"input": text.input, "values": values, "expected": text.expected},
} if {
	some [code, values] in violations
	text := data.ward.messages[code]
}

# What has to be there to be judged: a rule about what is undefined would deny
# nothing.
deny contains {"code": "attach.input", "msg": "the policy input lacks something the policy has to see", "fix": "use a ward and a policy of the same version"} if {
	not complete
}

complete := [input.attach.stdin, input.attach.terminal]

warn contains {} if false

obligations contains {} if false
