package ward.levels.restricted_test

import data.ward.levels.baseline
import data.ward.levels.restricted

broken(patch) := v if v := restricted.violations with input as json.patch(data.ward.example, patch)

set_to(path, value) := [{"op": "add", "path": path, "value": value}]

test_example_violates_nothing if broken([]) == set()

test_capabilities if {
	every c in baseline.addable - {"NET_BIND_SERVICE"} {
		broken(set_to("/run/capabilities", [concat("", ["CAP_", c])])) == {["restricted.capabilities", [c]]}
	}
	broken(set_to("/run/capabilities", ["CAP_NET_BIND_SERVICE"])) == set()
}

test_granted_capability if {
	broken(set_to("/run/capabilities", ["CAP_CHOWN"])) == set() with data.ward.granted.capabilities as {"CHOWN"}
}

test_other_capabilities_are_said_once if {
	broken(set_to("/run/capabilities", ["CAP_SYS_ADMIN"])) == {["baseline.capabilities", ["SYS_ADMIN"]]}
}

test_privilege_escalation if {
	broken(set_to("/run/no_new_privs", false)) == {["restricted.privilege-escalation", []]}
	broken([{"op": "remove", "path": "/run/no_new_privs"}]) == {["restricted.privilege-escalation", []]}
}

# Restricted is all of baseline: nothing baseline refuses gets through.
test_all_of_baseline if {
	every patch in [
		set_to("/evidence", null),
		set_to("/run/limits/memory", 0),
		set_to("/run/network", "host"),
		set_to("/run/mounts/-", {"type": "bind", "source": "/", "target": "/host", "read_only": true}),
		set_to("/run/security_opt", ["apparmor=unconfined"]),
		set_to("/run/masked_paths", []),
		set_to("/run/seccomp/profile", "unconfined"),
	] {
		count(broken(patch)) > 0
	}
}
