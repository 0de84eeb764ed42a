# Tests of site.rego: ward policy test. data.ward.example is an input that every
# shipped level allows; a test changes what it is about.
package site_test

import data.ward.run

decide(patch) := d if d := run.decision with input as json.patch(data.ward.example, patch)

warned(patch) := {w.code | some w in decide(patch).warn}

test_example_is_allowed if {
	d := decide([])
	d.allow
	count(d.warn) == 0
}

test_root_is_warned_about if {
	warned([{"op": "replace", "path": "/run/user/uid", "value": 0}]) == {"site.root"}
}
