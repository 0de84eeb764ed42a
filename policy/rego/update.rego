# The decision asked for at point "update": may this container have these
# limits from now on. input.run is the container as it would be. Files of the
# policy directory in this package add to deny, warn and obligations; nothing
# can take away from them.
package ward.update

decision := {
	"allow": (count(deny) + count(violations)) == 0,
	"deny": deny,
	"warn": warn,
	"obligations": obligations,
}

# It is judged as it would be if it started now.
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

warn contains {} if false

obligations contains {} if false
