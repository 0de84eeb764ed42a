# The decision asked for at point "run". Files of the policy directory in this
# package add to deny, warn and obligations; nothing can take away from them.
package ward.run

# Counting violations too: one without a message must not get lost.
decision := {
	"allow": (count(deny) + count(violations)) == 0,
	"deny": deny,
	"warn": warn,
	"obligations": obligations,
}

# Indexed by level, not imported: only the level in force is loaded. If it were
# not, this would be undefined, and so would the decision.
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

# A trust policy that is not satisfied and only warns.
warn contains {
	"code": "baseline.evidence-warn",
	"msg": sprintf("trust policy %v is not satisfied (%v): %v", [w.policy, w.rule, w.cause]),
	"fix": "have the image signed or attested as the trust policy asks",
} if {
	some w in input.evidence.warnings
}

obligations contains {} if false
