package ward.run_test

import data.ward.run

test_example_is_allowed if {
	d := run.decision with input as data.ward.example
	d.allow == true
	d.deny == set()
	d.warn == set()
	d.obligations == set()
}

test_reason_has_code_msg_and_fix if {
	d := run.decision with input as json.patch(data.ward.example, [{"op": "add", "path": "/run/capabilities", "value": ["CAP_SYS_ADMIN"]}])
	d.allow == false
	some reason in d.deny
	reason.code == "baseline.capabilities"
	contains(reason.msg, "SYS_ADMIN")
	contains(reason.fix, "--cap-add SYS_ADMIN")
}

# A code nobody wrote a text for still denies.
test_violation_without_message if {
	d := run.decision with input as json.patch(data.ward.example, [{"op": "add", "path": "/run/network", "value": "host"}])
		with data.ward.messages as {}
	d.allow == false
	d.deny == set()
}

test_level_that_is_not_there if {
	not run.decision with input as data.ward.example with data.ward.level as "lenient"
}

test_baseline if {
	chown := json.patch(data.ward.example, [{"op": "add", "path": "/run/capabilities", "value": ["CAP_CHOWN"]}])
	run.decision.allow == false with input as chown
	run.decision.allow == true with input as chown with data.ward.level as "baseline"
}
