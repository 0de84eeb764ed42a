# The baseline policy: the Kubernetes Pod Security Standards' "baseline", and
# what ward asks at every level: a verified image and finite limits.
# docs/policy.md lists the controls one by one.
#
# A violation is a code and the values its message names; messages.json has the
# texts. Splitting them keeps this cheap to compile, which every run pays. For
# the same reason data.ward.granted is computed (grants.rego) only if the policy
# directory has a grants document; otherwise it is three empty lists.
package ward.levels.baseline

# ward: everything the rules look at is there. OPA takes y out of "not x in y"
# first; if it is undefined the rule is, and violates nothing. So does a message
# whose value is undefined.
violations contains ["baseline.input", []] if not complete

complete := [
	input.image.checksum, input.image.ref, input.host.memory, input.host.cpus, input.run.limits.memory,
	input.run.limits.swap, input.run.limits.pids, input.run.limits.cpus, input.run.limits.cpu_shares, input.run.network, input.run.capabilities,
	input.run.mounts, input.run.security_opt, input.run.masked_paths, input.run.seccomp.profile,
	data.ward.granted.networks, data.ward.granted.capabilities, data.ward.granted.mounts, data.ward.limits,
	input.run.sysctls, input.run.devices, data.ward.granted.sysctls, data.ward.granted.devices,
	input.run.seccomp.narrows, input.run.seccomp.extra, data.ward.granted.seccomp, data.ward.granted.evidence,
	input.run.landlock.abi, input.run.landlock.paths, input.run.landlock.abstract_sockets, input.run.landlock.tcp,
	input.run.landlock.missing, input.run.landlock.tcp_bind, input.run.landlock.tcp_connect,
	data.ward.granted.landlock, data.ward.granted.tcp_bind, data.ward.granted.tcp_connect,
]

# ward: the evidence is for exactly this image.
violations contains ["baseline.evidence", [input.image.checksum, input.image.ref]] if not verified

verified if {
	input.evidence.verified == true
	input.evidence.digest == input.image.checksum
}

# ward: somebody signed. A trust policy can let an image in unseen; that counts
# where it is granted for the image.
violations contains ["baseline.evidence-static", [input.image.ref]] if {
	verified
	not signed
	not "static" in data.ward.granted.evidence
}

signed if {
	some s in input.evidence.signers
	s.kind != "static"
}

# ward: every limit is finite (zero or less is "no limit") and within its maximum.
violations contains [concat("", ["baseline.limits-", kind]), [input.run.limits[kind], maximum[kind]]] if {
	some kind, least in {"memory": 0, "swap": -1, "pids": 0, "cpus": 0, "cpu_shares": -1}
	not limited(kind, least)
}

limited(kind, least) if {
	input.run.limits[kind] > least
	input.run.limits[kind] <= maximum[kind]
}

maximum := object.union(
	{"memory": input.host.memory, "swap": input.host.memory, "pids": 32768, "cpus": input.host.cpus, "cpu_shares": input.host.cpus * 1024},
	data.ward.limits,
)

# PSS Host Namespaces: networks other than the container's own.
violations contains ["baseline.host-namespaces", [input.run.network]] if {
	input.run.network != "none"
	not input.run.network in data.ward.granted.networks
}

# ward: TCP ports of the host's network, each by its number.
violations contains [concat("", ["baseline.", kind]), [port]] if {
	some kind, ports in {"tcp-bind": input.run.landlock.tcp_bind, "tcp-connect": input.run.landlock.tcp_connect}
	some port in ports
	every p in [port, "*"] {
		not p in {"tcp-bind": data.ward.granted.tcp_bind, "tcp-connect": data.ward.granted.tcp_connect}[kind]
	}
}

# PSS Capabilities.
violations contains ["baseline.capabilities", [name]] if {
	some name in held
	not name in addable
	not name in data.ward.granted.capabilities
}

held := {trim_prefix(c, "CAP_") | some c in input.run.capabilities}

addable := {
	"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
	"NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}

# PSS HostPath Volumes, Volume Types. Nothing of these is the host's: memory, what
# ward keeps for containers, another image that is verified. A type nobody has
# thought of is refused like a bind.
violations contains ["baseline.host-path", [m.type, m.source, m.target]] if {
	some m in input.run.mounts
	not hostless(m)
	not m in data.ward.granted.mounts
}

hostless(m) if m.type == "tmpfs"

hostless(m) if {
	m.type == "volume"
	m.source == ""
}

hostless(m) if {
	m.type == "image"
	m.verified == true
}

# PSS Sysctls: the settings that reach nobody outside the container.
violations contains ["baseline.sysctls", [s.name]] if {
	some s in input.run.sysctls
	not s.name in safe_sysctls
	not s.name in data.ward.granted.sysctls
}

safe_sysctls := {
	"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports",
	"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout",
	"net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_keepalive_time",
	"net.ipv4.tcp_rmem", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_wmem",
}

# ward: devices of the host, each by its path.
violations contains ["baseline.devices", [d.source]] if {
	some d in input.run.devices
	not d.source in data.ward.granted.devices
}

# PSS AppArmor, SELinux, /proc Mount Type, Seccomp, as far as options ask for
# them. An option that is not known to be harmless is refused.
violations contains [object.get(option_codes, split(option, "=")[0], "baseline.security-opt"), [option]] if {
	some opt in input.run.security_opt
	option := replace(opt, ":", "=") # Docker's older spelling
	not option in safe_options
	not filter_of_its_own(option)
	not strings.any_prefix_match(option, {"apparmor=localhost/", "label=level="})
}

# A filter from a file is judged by what it is, below.
filter_of_its_own(option) if {
	startswith(option, "seccomp=")
	input.run.seccomp.profile == "custom"
}

option_codes := {
	"apparmor": "baseline.apparmor", "label": "baseline.selinux", "seccomp": "baseline.seccomp",
	"systempaths": "baseline.proc-mount", "unmask": "baseline.proc-mount", "proc-opts": "baseline.proc-mount",
}

safe_options := {
	"apparmor=docker-default", "apparmor=runtime/default", "seccomp=default",
	"label=type=container_t", "label=type=container_init_t", "label=type=container_kvm_t", "label=type=container_engine_t",
	"landlock=off", # judged by what it does, below
	"no-new-privileges", "no-new-privileges=true", "no-new-privileges=false",
}

# PSS /proc Mount Type: what every runtime masks is masked.
violations contains ["baseline.proc-mount-masks", [path]] if {
	some path in {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"}
	not path in input.run.masked_paths
}

# ward: a filter of the run's own only narrows the default one, but for calls
# that are granted by name.
violations contains ["baseline.seccomp-extra", [name]] if {
	some name in input.run.seccomp.extra
	not name in data.ward.granted.seccomp
}

violations contains ["baseline.seccomp-profile", [input.run.seccomp.profile]] if {
	not input.run.seccomp.narrows == true
	count(input.run.seccomp.extra) == 0
}

# ward: Landlock is not switched off.
violations contains ["baseline.landlock", []] if {
	input.run.landlock.missing == "off"
	not "off" in data.ward.granted.landlock
}

# PSS Seccomp: there is a filter.
violations contains ["baseline.seccomp-profile", [input.run.seccomp.profile]] if {
	input.run.seccomp.profile in {"", "unconfined"}
}
