package ward.levels.baseline_test

import data.ward.levels.baseline

# broken is the codes and values that the example violates once patched.
broken(patch) := v if v := baseline.violations with input as json.patch(data.ward.example, patch)

set_to(path, value) := [{"op": "add", "path": path, "value": value}]

test_example_violates_nothing if broken([]) == set()

test_evidence_missing if {
	v := ["baseline.evidence", [data.ward.example.image.checksum, data.ward.example.image.ref]]
	v in broken(set_to("/evidence", null))
	v in broken(set_to("/evidence", {}))
	v in broken(set_to("/evidence/verified", false))
	v in broken(set_to("/evidence/verified", "true"))
	v in broken(set_to("/evidence/digest", ""))
	v in broken(set_to("/evidence/digest", "sha256:3333"))
}

test_limits_below if {
	["baseline.limits-memory", [0, 8589934592]] in broken(set_to("/run/limits/memory", 0))
	["baseline.limits-memory", [-1, 8589934592]] in broken(set_to("/run/limits/memory", -1))
	["baseline.limits-swap", [-1, 8589934592]] in broken(set_to("/run/limits/swap", -1))
	["baseline.limits-pids", [0, 32768]] in broken(set_to("/run/limits/pids", 0))
	["baseline.limits-pids", [-1, 32768]] in broken(set_to("/run/limits/pids", -1))
	["baseline.limits-cpus", [0, 4]] in broken(set_to("/run/limits/cpus", 0))
	["baseline.limits-cpus", [-0.5, 4]] in broken(set_to("/run/limits/cpus", -0.5))
}

test_limits_above if {
	["baseline.limits-memory", [8589934593, 8589934592]] in broken(set_to("/run/limits/memory", 8589934593))
	["baseline.limits-swap", [8589934593, 8589934592]] in broken(set_to("/run/limits/swap", 8589934593))
	["baseline.limits-pids", [32769, 32768]] in broken(set_to("/run/limits/pids", 32769))
	["baseline.limits-cpus", [4.01, 4]] in broken(set_to("/run/limits/cpus", 4.01))
	["baseline.limits-cpu_shares", [4097, 4096]] in broken(set_to("/run/limits/cpu_shares", 4097))
}

test_limits_at_the_maximum if {
	broken([
		{"op": "replace", "path": "/run/limits", "value": {"memory": 8589934592, "swap": 8589934592, "pids": 32768, "cpus": 4, "cpu_shares": 4096}},
	]) == set()
}

test_limits_of_an_unknown_host if {
	count(broken(set_to("/host/memory", 0))) > 0
	count(broken(set_to("/host/cpus", 0))) > 0
}

test_limits_raised_and_lowered if {
	broken(set_to("/run/limits/pids", 40000)) == set() with data.ward.limits as {"pids": 40000}
	["baseline.limits-pids", [512, 100]] in broken([]) with data.ward.limits as {"pids": 100}
	["baseline.limits-memory", [536870912, 1048576]] in broken([]) with data.ward.limits as {"memory": 1048576}
}

test_host_network if broken(set_to("/run/network", "host")) == {["baseline.host-namespaces", ["host"]]}

test_unknown_network if broken(set_to("/run/network", "")) == {["baseline.host-namespaces", [""]]}

test_addable_capabilities if {
	broken(set_to("/run/capabilities", [concat("", ["CAP_", c]) | some c in [
		"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
		"NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
	]])) == set()
}

test_other_capabilities if {
	every c in ["SYS_ADMIN", "NET_RAW", "NET_ADMIN", "SYS_PTRACE", "BPF", "DAC_READ_SEARCH", "ALL", "", "cap_chown"] {
		broken(set_to("/run/capabilities", [concat("", ["CAP_", c])])) == {["baseline.capabilities", [c]]}
	}
}

test_bind_mount if {
	m := {"type": "bind", "source": "/srv/data", "target": "/data", "read_only": true}
	broken(set_to("/run/mounts/-", m)) == {["baseline.host-path", ["bind", "/srv/data", "/data"]]}
}

test_unknown_mount_type if {
	m := {"type": "rbind", "source": "/", "target": "/data", "read_only": true}
	broken(set_to("/run/mounts/-", m)) == {["baseline.host-path", ["rbind", "/", "/data"]]}
}

test_volumes_and_verified_images if {
	every m in [
		{"type": "volume", "name": "data", "source": "", "target": "/data"},
		{"type": "image", "name": "r/i:1", "source": "", "checksum": "sha256:1", "verified": true, "target": "/data"},
	] {
		broken(set_to("/run/mounts/-", m)) == set()
	}
	every m in [
		{"type": "volume", "name": "data", "source": "/etc", "target": "/data"},
		{"type": "volume", "name": "data", "target": "/data", "source": "/"},
		{"type": "image", "name": "r/i:1", "source": "", "verified": false, "target": "/data"},
		{"type": "image", "name": "r/i:1", "source": "", "target": "/data"},
	] {
		count(broken(set_to("/run/mounts/-", m))) == 1
	}
}

test_security_options if {
	every option, code in {
		"apparmor=unconfined": "baseline.apparmor",
		"apparmor:unconfined": "baseline.apparmor",
		"label=disable": "baseline.selinux",
		"label:type:spc_t": "baseline.selinux",
		"label=user:root": "baseline.selinux",
		"label=role:system_r": "baseline.selinux",
		"label=type:container_t2": "baseline.selinux",
		"seccomp=unconfined": "baseline.seccomp",
		"seccomp=/etc/passwd": "baseline.seccomp",
		"systempaths=unconfined": "baseline.proc-mount",
		"unmask=ALL": "baseline.proc-mount",
		"proc-opts=hidepid=0": "baseline.proc-mount",
		"brand-new": "baseline.security-opt",
		"": "baseline.security-opt",
	} {
		broken(set_to("/run/security_opt", [option])) == {[code, [replace(option, ":", "=")]]}
	}
}

test_harmless_security_options if {
	broken(set_to("/run/security_opt", [
		"no-new-privileges", "no-new-privileges:true", "no-new-privileges=false", "apparmor=docker-default",
		"apparmor=localhost/mine", "seccomp=default", "label=type:container_t", "label=level:s0:c1,c2",
	])) == set()
}

test_unmasked_paths if {
	every path in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"] {
		rest := [p | some p in data.ward.example.run.masked_paths; p != path]
		broken(set_to("/run/masked_paths", rest)) == {["baseline.proc-mount-masks", [path]]}
	}
}

own(members) := [
	{"op": "replace", "path": "/run/seccomp", "value": object.union({"profile": "custom", "digest": "sha256:1", "narrows": true, "extra": []}, members)},
	{"op": "replace", "path": "/run/security_opt", "value": ["seccomp=/etc/mine.json"]},
]

test_seccomp_of_its_own if {
	broken(own({})) == set()
	wider := own({"narrows": false, "extra": ["io_uring_setup", "socket"]})
	broken(wider) == {["baseline.seccomp-extra", ["io_uring_setup"]], ["baseline.seccomp-extra", ["socket"]]}
	broken(wider) == set() with data.ward.granted.seccomp as {"io_uring_setup", "socket"}
	broken(wider) == {["baseline.seccomp-extra", ["socket"]]} with data.ward.granted.seccomp as {"io_uring_setup"}
	broken(own({"narrows": false})) == {["baseline.seccomp-profile", ["custom"]]}
}

test_sysctls if {
	broken(set_to("/run/sysctls", [{"name": "net.ipv4.tcp_syncookies", "value": "1"}])) == set()
	broken(set_to("/run/sysctls", [{"name": "net.ipv4.ip_forward", "value": "1"}])) == {["baseline.sysctls", ["net.ipv4.ip_forward"]]}
	broken(set_to("/run/sysctls", [{"name": "net.ipv4.ip_forward", "value": "1"}])) == set()
		with data.ward.granted.sysctls as {"net.ipv4.ip_forward"}
}

test_devices if {
	d := {"source": "/dev/fuse", "target": "/dev/fuse", "access": "rw"}
	broken(set_to("/run/devices", [d])) == {["baseline.devices", ["/dev/fuse"]]}
	broken(set_to("/run/devices", [d])) == set() with data.ward.granted.devices as {"/dev/fuse"}
}

test_landlock if {
	off := [
		{"op": "replace", "path": "/run/landlock/missing", "value": "off"},
		{"op": "replace", "path": "/run/security_opt", "value": ["landlock=off"]},
	]
	broken(off) == {["baseline.landlock", []]}
	broken(off) == set() with data.ward.granted.landlock as {"off"}
	broken(set_to("/run/landlock/missing", "kernel")) == set()
}

test_tcp_ports if {
	ports := [{"op": "replace", "path": "/run/landlock/tcp_bind", "value": ["80", "443"]}, {"op": "replace", "path": "/run/landlock/tcp_connect", "value": ["*"]}]
	broken(ports) == {["baseline.tcp-bind", ["80"]], ["baseline.tcp-bind", ["443"]], ["baseline.tcp-connect", ["*"]]}
	broken(ports) == {["baseline.tcp-bind", ["443"]]} with data.ward.granted.tcp_bind as {"80"} with data.ward.granted.tcp_connect as {"*"}
	broken(ports) == {["baseline.tcp-connect", ["*"]]} with data.ward.granted.tcp_bind as {"*"}
}

test_no_seccomp if {
	broken(set_to("/run/seccomp/profile", "unconfined")) == {["baseline.seccomp-profile", ["unconfined"]]}
	broken(set_to("/run/seccomp/profile", "")) == {["baseline.seccomp-profile", [""]]}
}

test_privileges_can_be_gained if broken(set_to("/run/no_new_privs", false)) == set()

# Baseline is about what is held, not about who: PSS leaves root alone here.
test_root if broken(set_to("/run/user/uid", 0)) == set()

test_granted if {
	broken(set_to("/run/network", "host")) == set() with data.ward.granted.networks as {"host"}
	broken(set_to("/run/capabilities", ["CAP_NET_RAW"])) == set() with data.ward.granted.capabilities as {"NET_RAW"}
	m := {"type": "bind", "source": "/srv/data", "target": "/data", "read_only": true}
	broken(set_to("/run/mounts/-", m)) == set() with data.ward.granted.mounts as {m}
}

test_without_lists_of_grants if {
	every lists in [{}, {"networks": [], "capabilities": []}, {"networks": [], "mounts": []}, {"capabilities": [], "mounts": []}] {
		["baseline.input", []] in broken([]) with data.ward.granted as lists
	}
	["baseline.input", []] in broken([{"op": "remove", "path": "/run/mounts"}])
}
