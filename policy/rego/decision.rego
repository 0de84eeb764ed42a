# The decision asked for at point "run". Files of the policy directory in this
# package add to deny, warn and obligations; nothing can take away from them.
package ward.run

decision := {
	"allow": count(deny) == 0,
	"deny": deny,
	"warn": warn,
	"obligations": obligations,
}

# Indexed by level, not imported: only the level in force is loaded.
deny contains reason if some reason in data.ward.levels[data.ward.level].deny

# Without this a level that is not loaded would deny nothing.
deny contains {
	"code": "policy.level",
	"msg": sprintf("no policy of level %v is loaded", [data.ward.level]),
	"fix": "name a shipped level in the grants document",
} if {
	not data.ward.levels[data.ward.level].deny
}

warn contains {} if false

obligations contains {} if false
