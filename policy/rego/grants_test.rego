package ward.granted_test

import data.ward.granted

grants(members) := object.union({"binds": [], "binds_ro": [], "capabilities": [], "networks": [], "sysctls": [], "devices": [], "seccomp": [], "evidence": [], "images": {}}, members)

bind(source, read_only) := {"type": "bind", "source": source, "target": "/x", "read_only": read_only}

mounted(mounts, members) := v if {
	v := {m.source | some m in granted.mounts} with input as json.patch(data.ward.example, [{"op": "replace", "path": "/run/mounts", "value": mounts}])
		with data.ward.grants as grants(members)
}

test_nothing_granted if {
	granted.networks == set() with input as data.ward.example with data.ward.grants as grants({})
	granted.capabilities == set() with input as data.ward.example with data.ward.grants as grants({})
	mounted([bind("/srv", true)], {}) == set()
}

test_at_or_below if {
	mounts := [bind("/srv/data", false), bind("/srv/data/sub/dir", false), bind("/srv/database", false), bind("/srv", false), bind("/", false)]
	mounted(mounts, {"binds": ["/srv/data"]}) == {"/srv/data", "/srv/data/sub/dir"}
}

test_read_only if {
	mounts := [bind("/a", true), bind("/b", false)]
	mounted(mounts, {"binds_ro": ["/a", "/b"]}) == {"/a"}
	mounted(mounts, {"binds": ["/a", "/b"]}) == {"/a", "/b"}
}

test_only_binds if {
	mounted([object.union(bind("/srv", true), {"type": "rbind"})], {"binds": ["/srv"]}) == set()
}

test_networks_and_capabilities if {
	granted.networks == {"host"} with input as data.ward.example with data.ward.grants as grants({"networks": ["host"]})
	granted.capabilities == {"NET_RAW"} with input as data.ward.example with data.ward.grants as grants({"capabilities": ["NET_RAW"]})
}

test_seccomp if {
	granted.seccomp == {"io_uring_setup"} with input as data.ward.example with data.ward.grants as grants({"seccomp": ["io_uring_setup"]})
}

test_sysctls_and_devices if {
	granted.sysctls == {"kernel.sem"} with input as data.ward.example with data.ward.grants as grants({"sysctls": ["kernel.sem"]})
	granted.devices == {"/dev/fuse"} with input as data.ward.example with data.ward.grants as grants({"devices": ["/dev/fuse"]})
}

# The example is registry.example/team/app.
test_image_patterns if {
	every pattern, given in {
		"registry.example/team/app": {"host"},
		"registry.example/team/*": {"host"},
		"registry.example/**": {"host"},
		"**": {"host"},
		"registry.example/*": set(),
		"registry.example/team/app2": set(),
		"team/app": set(),
		"*": set(),
	} {
		granted.networks == given with input as data.ward.example with data.ward.grants as grants({"images": {pattern: {"networks": ["host"]}}})
	}
}
