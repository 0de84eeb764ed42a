# The baseline policy: the Kubernetes Pod Security Standards' "baseline", and
# what ward adds to every level: a verified image and finite limits.
# docs/policy.md lists the controls one by one.
package ward.levels.baseline

import data.ward.fix
import data.ward.grants

# --- what ward adds ---------------------------------------------------------

deny contains {
	"code": "baseline.evidence",
	"msg": sprintf("image %v is not verified: no trusted signature is known for it", [input.image.checksum]),
	"fix": sprintf("sign it (ward sign --key KEY %v) and trust the key (ward trust add --key PUB GLOB)", [input.image.ref]),
} if {
	not input.evidence.verified == true
}

deny contains {
	"code": "baseline.evidence-digest",
	"msg": sprintf("the evidence is about %v, not about the image's digest %v", [input.evidence.digest, input.image.checksum]),
	"fix": "run the digest that was verified",
} if {
	input.evidence.verified == true
	not input.evidence.digest in {input.image.checksum, input.image.index}
}

deny contains {
	"code": sprintf("baseline.limits-%v", [kind]),
	"msg": sprintf("%v is not limited (%v)", [kind, input.run.limits[kind]]),
	"fix": sprintf("give a limit: --%v", [flags[kind]]),
} if {
	some kind, _ in flags
	not input.run.limits[kind] > 0
}

deny contains {
	"code": sprintf("baseline.limits-%v", [kind]),
	"msg": sprintf("%v limit %v is above the maximum, %v", [kind, input.run.limits[kind], maximum[kind]]),
	"fix": sprintf("lower --%v, or %v", [flags[kind], sprintf(fix.limits, [kind, input.run.limits[kind]])]),
} if {
	some kind, _ in flags
	not input.run.limits[kind] <= maximum[kind]
}

deny contains {
	"code": "baseline.limits-swap",
	"msg": sprintf("swap of %v bytes on top of memory is not within 0 to %v", [input.run.limits.swap, maximum.memory]),
	"fix": "lower --memory-swap",
} if {
	not swap_bounded
}

swap_bounded if {
	input.run.limits.swap >= 0
	input.run.limits.swap <= maximum.memory
}

flags := {"memory": "memory BYTES", "pids": "pids-limit N", "cpus": "cpus N"}

maximum := object.union({"memory": input.host.memory, "pids": 32768, "cpus": input.host.cpus}, object.get(grants, "limits", {}))

# --- Host Namespaces ---------------------------------------------------------

deny contains {
	"code": "baseline.host-namespaces",
	"msg": sprintf("network %q is not allowed: it is not the container's own", [input.run.network]),
	"fix": sprintf("use --network none, or %v", [sprintf(fix.networks, [input.run.network])]),
} if {
	input.run.network != "none"
	not input.run.network in granted("networks")
}

# --- Capabilities ------------------------------------------------------------

addable := {
	"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
	"NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}

held := {trim_prefix(c, "CAP_") | some c in input.run.capabilities}

deny contains {
	"code": "baseline.capabilities",
	"msg": sprintf("capability %v is not allowed at level %v", [c, data.ward.level]),
	"fix": sprintf("run without --cap-add %v, or %v", [c, sprintf(fix.capabilities, [c])]),
} if {
	some c in held
	not c in addable
	not c in granted("capabilities")
}

# --- HostPath Volumes --------------------------------------------------------

# A type nobody has thought of is refused like a bind mount that nobody granted.
deny contains {
	"code": "baseline.host-path",
	"msg": sprintf("%v mount of %q at %q is not allowed", [m.type, m.source, m.target]),
	"fix": sprintf("run without it, or %v", [sprintf(fix.binds, [m.source])]),
} if {
	some m in input.run.mounts
	m.type != "tmpfs"
	not bind_granted(m)
}

bind_granted(m) if {
	m.type == "bind"
	clean(m.source)
	some g in granted("binds")
	covers(trim_suffix(g, ":ro"), m.source)
	mode_granted(m, g)
}

mode_granted(m, _) if m.read_only

mode_granted(_, g) if not endswith(g, ":ro")

covers(dir, path) if dir == path

covers(dir, path) if startswith(path, concat("", [dir, "/"]))

# A grant is about the directory itself, never about where ".." leads to.
clean(path) if {
	startswith(path, "/")
	p := concat("", [path, "/"])
	every bad in {"//", "/./", "/../"} { not contains(p, bad) }
}

# --- AppArmor, SELinux, /proc Mount Type, Seccomp ----------------------------

options := {replace(o, ":", "=") | some o in input.run.security_opt}

unsafe_option := {
	"apparmor=unconfined": "apparmor",
	"label=disable": "selinux",
	"systempaths=unconfined": "proc-mount",
	"seccomp=unconfined": "seccomp",
}

deny contains {
	"code": sprintf("baseline.%v", [unsafe_option[o]]),
	"msg": sprintf("security option %q takes a protection away", [o]),
	"fix": sprintf("run without --security-opt %v", [o]),
} if {
	some o in options
	unsafe_option[o]
}

deny contains {
	"code": "baseline.selinux",
	"msg": sprintf("security option %q sets an SELinux identity that is not a container's", [o]),
	"fix": sprintf("run without --security-opt %v", [o]),
} if {
	some o in options
	strings.any_prefix_match(o, {"label=user=", "label=role=", "label=type="})
	not o in {"label=type=container_t", "label=type=container_init_t", "label=type=container_kvm_t", "label=type=container_engine_t"}
}

deny contains {
	"code": "baseline.proc-mount",
	"msg": sprintf("mount at %q covers what the kernel shows and ward protects", [m.target]),
	"fix": "mount it elsewhere in the container",
} if {
	some m in input.run.mounts
	some dir in {"/proc", "/sys"}
	covers(dir, m.target)
}

deny contains {
	"code": "baseline.proc-mount",
	"msg": sprintf("path %v of the kernel is not masked", [path]),
	"fix": "run without --security-opt unmask or systempaths",
} if {
	some path in {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"}
	not path in input.run.masked_paths
}

deny contains {
	"code": "baseline.seccomp",
	"msg": "the system-call filter is off (unconfined)",
	"fix": "run without --security-opt seccomp=unconfined",
} if {
	input.run.seccomp.profile == "unconfined"
}

# --- grants ------------------------------------------------------------------

repository := concat("/", [input.image.host, input.image.repo])

# What the grants document gives: to every image, and to this one.
granted(kind) := {v | some v in grants[kind]} | {v |
	some pattern, scope in grants.images
	glob.match(pattern, ["/"], repository)
	some v in scope[kind]
}
