# Rules of this host's own, on top of the shipped level. They can add reasons to
# deny and to warn, and obligations; nothing here takes a denial away.
#
#   ward policy test     runs the tests in site_test.rego
#   ward policy check    says what ward run would decide
#   ward policy replay   says what would change for what has been asked for
#   ward policy fmt -w   lays this file out
package ward.run

# A warning lets through and is said, which is how to try out a rule.
warn contains {
	"code": "site.root",
	"msg": "the process runs as root inside the container",
	"fix": "run with --user 1000",
} if {
	input.run.user.uid == 0
}

# The same as a reason to deny:
#
# deny contains {
# 	"code": "site.root",
# 	"msg": "the process would run as root inside the container",
# 	"fix": "run with --user 1000",
# } if {
# 	input.run.user.uid == 0
# }
#
# Only images of one registry:
#
# deny contains {
# 	"code": "site.registry",
# 	"msg": sprintf("%v is not our registry", [input.image.host]),
# } if {
# 	input.image.host != "registry.example"
# }
#
# Whatever runs, runs with a read-only root and at most 1 GiB:
#
# obligations contains {"read_only_root": true, "max_memory": 1073741824}
