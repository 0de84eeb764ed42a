package ward.oci_test

import data.ward.oci

caller := {"exe": "/usr/bin/shim", "uid": 0, "bundles": "verified", "shared_pid": false}

callers(list) := {"callers": list, "file": "/etc/ward/policy.d/grants.json"}

asked := json.patch(data.ward.example, [
	{"op": "replace", "path": "/point", "value": "oci"},
	{"op": "replace", "path": "/actor/exe", "value": "/usr/bin/shim"},
	{"op": "replace", "path": "/actor/uid", "value": 0},
	{"op": "replace", "path": "/oci/op", "value": "create"},
])

codes(patch, list) := v if {
	v := {d.code | some d in oci.decision.deny} with input as json.patch(asked, patch)
		with data.ward.grants.oci as callers(list)
}

unnamed := [{"op": "replace", "path": "/image/checksum", "value": ""}, {"op": "replace", "path": "/evidence", "value": null}]

test_trusted_caller if {
	codes([], [caller]) == set()
	codes([], []) == {"oci.caller"}
	codes([{"op": "remove", "path": "/actor/exe"}], [caller]) & {"oci.input"} == {"oci.input"}
}

test_bundles if {
	codes(unnamed, [caller]) == {"oci.bundle"}
	codes(unnamed, [object.union(caller, {"bundles": "any"})]) == set()
}

test_shared_pid if {
	shared := [{"op": "replace", "path": "/oci/shared_pid", "value": true}]
	codes(shared, [caller]) == {"oci.shared-pid"}
	codes(shared, [object.union(caller, {"shared_pid": true})]) == set()
	codes([{"op": "remove", "path": "/oci/shared_pid"}], [caller]) == {"oci.shared-pid", "oci.input"}
}

asked_for(op) := [{"op": "replace", "path": "/oci/op", "value": op}]

# Whatever is done to a container takes a trusted caller; what it could gain by
# takes an image that is trusted now, too.
test_ops if {
	every op in ["create", "exec", "start", "update", "resume", "pause", "kill", "delete"] {
		codes(asked_for(op), [caller]) == set()
		codes(asked_for(op), []) == {"oci.caller"}
	}
	every op in ["create", "exec", "start", "update", "resume", ""] {
		codes(array.concat(unnamed, asked_for(op)), [caller]) == {"oci.bundle"}
	}
	every op in ["pause", "kill", "delete"] {
		codes(array.concat(unnamed, asked_for(op)), [caller]) == set()
	}
	codes(array.concat(unnamed, [{"op": "remove", "path": "/oci/op"}]), [caller]) == {"oci.bundle", "oci.input"}
}
