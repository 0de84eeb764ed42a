# The restricted policy: the Kubernetes Pod Security Standards' "restricted",
# which is all of baseline and the controls below. Running as non-root is not
# among them: see docs/policy.md.
package ward.levels.restricted

import data.ward.levels.baseline
import data.ward.fix

deny contains reason if some reason in baseline.deny

# --- Capabilities ------------------------------------------------------------

deny contains {
	"code": "restricted.capabilities",
	"msg": sprintf("capability %v is not allowed at level restricted: only NET_BIND_SERVICE may be added", [c]),
	"fix": sprintf("run without --cap-add %v, or %v", [c, sprintf(fix.capabilities, [c])]),
} if {
	some c in baseline.held
	c in baseline.addable # others are denied by baseline already
	c != "NET_BIND_SERVICE"
	not c in baseline.granted("capabilities")
}

# --- Privilege Escalation ----------------------------------------------------

deny contains {
	"code": "restricted.privilege-escalation",
	"msg": "the process could gain privileges: no_new_privs is off",
	"fix": "run without --security-opt no-new-privileges=false",
} if {
	not input.run.no_new_privs == true
}

# --- Seccomp -----------------------------------------------------------------

deny contains {
	"code": "restricted.seccomp",
	"msg": "no system-call filter is named",
	"fix": "run with the default seccomp profile",
} if {
	input.run.seccomp.profile == ""
}
