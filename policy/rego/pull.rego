# The decision asked for at point "pull": may this image be fetched. It is asked
# before a byte of the image is read, so only names are known, and what is
# fetched is verified and judged before it runs. Files of the policy directory
# in this package add to deny, warn and obligations; nothing can take away.
package ward.pull

decision := {"allow": count(deny) == 0, "deny": deny, "warn": warn, "obligations": obligations}

deny contains {"code": "pull.input", "msg": "the policy input lacks something the policy has to see", "fix": "use a ward and a policy of the same version"} if {
	not complete
}

complete if {
	input.image.host != ""
	input.image.repo != ""
	input.pull.for != ""
}

warn contains {} if false

obligations contains {} if false
