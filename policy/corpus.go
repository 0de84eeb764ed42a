package policy

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Case is an input that was made up, to compare policies where nothing, or not
// enough, has been recorded.
type Case struct {
	Name  string
	Input []byte
}

// made is the example input with members set, each to a JSON text.
type made struct {
	name    string
	members map[string]string
}

// bind is a list of one bind mount.
func bind(source, readOnly string) string {
	return fmt.Sprintf(`[{"type":"bind","name":"","source":%q,"checksum":"","verified":false,"target":"/mnt","read_only":%s,"exec":false}]`, source, readOnly)
}

// filter is a system-call filter.
func filter(profile, narrows, extra string) string {
	return fmt.Sprintf(`{"profile":%q,"digest":"","narrows":%s,"extra":%s}`, profile, narrows, extra)
}

// requests are what people ask for, mostly one thing at a time: what a policy
// is about is which of these it lets pass. A function, so that a run does not
// pay for making them.
func requests() []made {
	return []made{
		{"plain", nil},
		{"root inside", map[string]string{"run.user.uid": `0`, "run.user.gid": `0`}},
		{"writable root", map[string]string{"run.read_only": `false`}},
		{"network host", map[string]string{"run.network": `"host"`, "run.requested.network": `"host"`}},
		{"bind /srv/data", map[string]string{"run.mounts": bind("/srv/data", "false")}},
		{"bind /srv/data read-only", map[string]string{"run.mounts": bind("/srv/data", "true")}},
		{"bind /etc read-only", map[string]string{"run.mounts": bind("/etc", "true")}},
		{"bind /home", map[string]string{"run.mounts": bind("/home", "false")}},
		{"bind /", map[string]string{"run.mounts": bind("/", "false")}},
		{"bind docker.sock", map[string]string{"run.mounts": bind("/run/docker.sock", "false")}},
		{"volume", map[string]string{"run.mounts": `[{"type":"volume","name":"data","source":"","checksum":"","verified":false,"target":"/data","read_only":false,"exec":false}]`}},
		{"image mounted, not verified", map[string]string{"run.mounts": `[{"type":"image","name":"registry.example/x:1","source":"","checksum":"","verified":false,"target":"/x","read_only":true,"exec":false}]`}},
		{"all of PSS baseline's capabilities", map[string]string{"run.capabilities": `["CAP_AUDIT_WRITE","CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_FOWNER","CAP_FSETID","CAP_KILL","CAP_MKNOD","CAP_NET_BIND_SERVICE","CAP_SETFCAP","CAP_SETGID","CAP_SETPCAP","CAP_SETUID","CAP_SYS_CHROOT"]`}},
		{"gain privileges", map[string]string{"run.no_new_privs": `false`, "run.security_opt": `["no-new-privileges=false"]`}},
		{"no system-call filter", map[string]string{"run.seccomp": filter("unconfined", "false", "[]"), "run.security_opt": `["seccomp=unconfined"]`}},
		{"a filter that narrows", map[string]string{"run.seccomp": filter("custom", "true", "[]"), "run.security_opt": `["seccomp=/p.json"]`}},
		{"a filter that adds io_uring", map[string]string{"run.seccomp": filter("custom", "false", `["io_uring_setup"]`), "run.security_opt": `["seccomp=/p.json"]`}},
		{"AppArmor off", map[string]string{"run.security_opt": `["apparmor=unconfined"]`}},
		{"SELinux off", map[string]string{"run.security_opt": `["label=disable"]`}},
		{"kernel paths shown", map[string]string{"run.masked_paths": `[]`, "run.security_opt": `["systempaths=unconfined"]`}},
		{"a safe kernel setting", map[string]string{"run.sysctls": `[{"name":"net.ipv4.tcp_syncookies","value":"1"}]`}},
		{"net.ipv4.ip_forward", map[string]string{"run.sysctls": `[{"name":"net.ipv4.ip_forward","value":"1"}]`}},
		{"device /dev/fuse", map[string]string{"run.devices": `[{"source":"/dev/fuse","target":"/dev/fuse","access":"rwm"}]`}},
		{"device /dev/kvm", map[string]string{"run.devices": `[{"source":"/dev/kvm","target":"/dev/kvm","access":"rwm"}]`}},
		{"all the host's memory", map[string]string{"run.limits.memory": `8589934592`}},
		{"more than the host's memory", map[string]string{"run.limits.memory": `8589934593`}},
		{"no memory limit", map[string]string{"run.limits.memory": `0`}},
		{"swap", map[string]string{"run.limits.swap": `1073741824`}},
		{"40000 processes", map[string]string{"run.limits.pids": `40000`}},
		{"all processors", map[string]string{"run.limits.cpus": `4`}},
		{"more processors than there are", map[string]string{"run.limits.cpus": `4.5`}},
		{"ten thousand processor shares", map[string]string{"run.limits.cpu_shares": `10000`}},
		{"a tag that moves", map[string]string{"image.ref": `"registry.example/team/app:latest"`, "image.tag": `"latest"`}},
		{"another registry", map[string]string{"image.ref": `"docker.io/library/nginx:1"`, "image.host": `"docker.io"`, "image.repo": `"library/nginx"`}},
		{"an old image", map[string]string{"image.created_time": `"2020-01-01T00:00:00Z"`}},
		{"not verified", map[string]string{"evidence": `null`}},
		{"verified for another image", map[string]string{"evidence.digest": `"sha256:` + strings.Repeat("9", 64) + `"`}},
		{"let in without a signature", map[string]string{"evidence.signers": `[{"kind":"static"}]`}},
		{"at night", map[string]string{"now": `"2026-01-02T00:30:00Z"`}},
		{"asked for by root", map[string]string{"actor.uid": `0`, "actor.loginuid": `4294967295`}},
	}
}

// capabilitiesAsked are tried one at a time, too.
func capabilitiesAsked() []string {
	return []string{
		"CAP_NET_BIND_SERVICE", "CAP_CHOWN", "CAP_SETUID", "CAP_DAC_OVERRIDE", "CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_BPF",
	}
}

// entrances are what is asked for of a container that runs, and by callers of
// ward-oci.
func entrances() []made {
	return []made{
		{"exec", map[string]string{"point": `"exec"`}},
		{"exec as root", map[string]string{"point": `"exec"`, "exec.user.uid": `0`}},
		{"exec with a terminal", map[string]string{"point": `"exec"`, "exec.terminal": `true`, "exec.stdin": `true`}},
		{"exec by a health check", map[string]string{"point": `"exec"`, "exec.purpose": `"health"`}},
		{"exec with more than the container has", map[string]string{"point": `"exec"`, "exec.capabilities": `["CAP_CHOWN"]`}},
		{"cp out", map[string]string{"point": `"cp"`}},
		{"cp in", map[string]string{"point": `"cp"`, "cp.direction": `"in"`, "cp.path": `"/etc/passwd"`}},
		{"attach", map[string]string{"point": `"attach"`}},
		{"attach with standard input", map[string]string{"point": `"attach"`, "attach.stdin": `true`}},
		{"update", map[string]string{"point": `"update"`}},
		{"update beyond the host's memory", map[string]string{"point": `"update"`, "run.limits.memory": `8589934593`}},
		{"restart by the keeper", map[string]string{"point": `"restart"`, "restart.by": `"keeper"`, "restart.count": `3`}},
		{"restart with host network", map[string]string{"point": `"restart"`, "run.network": `"host"`}},
		{"oci by containerd", map[string]string{"point": `"oci"`, "oci.op": `"create"`, "oci.bundle": `"/run/b"`, "actor.exe": `"/usr/bin/containerd-shim-runc-v2"`, "actor.uid": `0`}},
		{"oci by somebody", map[string]string{"point": `"oci"`, "oci.op": `"create"`, "oci.bundle": `"/run/b"`, "actor.exe": `"/home/x/sh"`}},
		{"pull", map[string]string{"point": `"pull"`, "pull.for": `"pull"`, "image.checksum": `""`}},
		{"ci", map[string]string{"point": `"ci"`}},
		{"ci with host network", map[string]string{"point": `"ci"`, "run.network": `"host"`}},
		{"k8s", map[string]string{"point": `"k8s"`, "k8s.run_as_non_root": `true`}},
		{"k8s as anybody", map[string]string{"point": `"k8s"`}},
		{"k8s privileged", map[string]string{"point": `"k8s"`, "k8s.run_as_non_root": `true`, "k8s.privileged": `true`}},
		{"build from an image", map[string]string{"point": `"build"`, "build.step": `"from"`}},
		{"build runs a command", map[string]string{"point": `"build"`, "build.step": `"run"`}},
	}
}

// Corpus are the built-in cases, the same ones every time.
func Corpus() ([]Case, error) {
	var out []Case
	all := requests()
	for _, c := range capabilitiesAsked() {
		all = append(all[:len(all):len(all)], made{strings.TrimPrefix(c, "CAP_"), map[string]string{"run.capabilities": `["` + c + `"]`}})
	}
	for _, m := range append(all[:len(all):len(all)], entrances()...) {
		in := example()
		for _, path := range sorted(m.members) {
			var v any
			if err := json.Unmarshal([]byte(m.members[path]), &v); err != nil {
				return nil, fmt.Errorf("case %s: %s: %w", m.name, path, err)
			}
			put(in, v, splitPath(path)...)
		}
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		out = append(out, Case{Name: m.name, Input: b})
	}
	return out, nil
}
