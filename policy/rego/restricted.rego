# The restricted policy: the Kubernetes Pod Security Standards' "restricted",
# which is all of baseline and the controls below. Running as non-root is not
# among them: docs/policy.md says why.
package ward.levels.restricted

import data.ward.levels.baseline

violations contains v if some v in baseline.violations

# PSS Capabilities: of what baseline lets a container add, only this one.
violations contains ["restricted.capabilities", [name]] if {
	some name in baseline.held
	name in baseline.addable
	name != "NET_BIND_SERVICE"
	not name in data.ward.granted.capabilities
}

# PSS Privilege Escalation.
violations contains ["restricted.privilege-escalation", []] if not input.run.no_new_privs == true
