# What is asked of a pipeline's file beyond what is asked of a run. The decision
# is that of point "run" and these on top.
package ward.ci

# What a file asks for and ward cannot judge is not ignored. Two fields that most
# compose files have got codes of their own, so that they can be excused alone.
deny contains {
	"code": object.get({"ports": "ci.ports", "networks": "ci.network", "network_mode": "ci.network"}, field.name, "ci.unmapped"),
	"msg": sprintf("%v (line %v): %v", [field.path, field.line, field.why]),
	"fix": "take it out of the file",
} if {
	some field in input.unmapped
}

deny contains {"code": "ci.input", "msg": "the policy input lacks something the policy has to see", "fix": "use a ward and a policy of the same version"} if {
	not input.unmapped
}
