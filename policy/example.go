package policy

import (
	_ "embed"
	"encoding/json"
)

// attestedEvidence is evidence with attestations of every kind, for the image
// of exampleInput. Rego tests find it as data.ward.example_evidence.
//
//go:embed testdata/attestations/evidence.json
var attestedEvidence []byte

func exampleEvidence() map[string]any {
	var m map[string]any
	if err := json.Unmarshal(attestedEvidence, &m); err != nil {
		panic(err) // compiled in
	}
	return m
}

// exampleInput is a run that every shipped level allows. Rego tests find it as
// data.ward.example and change what they are about.
const exampleInput = `{
  "version": 1,
  "point": "run",
  "now": "2026-01-02T12:00:00Z",
  "actor": {"uid": 1000, "loginuid": 1000, "pid": 4242, "exe": "/usr/bin/ward", "tty": "pts/0"},
  "image": {
    "ref": "registry.example/team/app:1.2",
    "host": "registry.example", "repo": "team/app", "tag": "1.2",
    "checksum": "sha256:1111111111111111111111111111111111111111111111111111111111111111",
    "index": "",
    "id": "sha256:2222222222222222222222222222222222222222222222222222222222222222",
    "platform": "linux/amd64", "os": "linux", "arch": "amd64",
    "labels": {}, "env": ["PATH=/usr/bin:/bin"], "user": "", "created_time": "2026-01-01T00:00:00Z",
    "fullRepo": "registry.example/team/app", "isCanonical": false, "variant": "", "volumes": [], "workingDir": "", "createdTime": "2026-01-01T00:00:00Z",
    "hasProvenance": false, "provenance": {
      "predicateType": "", "buildType": "", "builderID": "", "invocationID": "", "startedOn": "", "finishedOn": "",
      "configSource": {"uri": "", "digest": {}, "path": ""}
    },
    "signatures": [{
      "kind": "self-signed", "type": "bundle-v0.3", "timestamps": [],
      "signer": {
        "certificateIssuer": "", "subjectAlternativeName": "", "issuer": "", "buildSignerURI": "", "runnerEnvironment": "",
        "sourceRepositoryURI": "", "sourceRepositoryDigest": "", "sourceRepositoryRef": "", "buildTrigger": ""
      }
    }]
  },
  "evidence": {
    "verified": true,
    "digest": "sha256:1111111111111111111111111111111111111111111111111111111111111111",
    "signers": [{"policy": "team", "authority": "key", "kind": "key", "key_id": "sha256:3333333333333333333333333333333333333333333333333333333333333333", "format": "bundle"}]
  },
  "run": {
    "name": "example", "hostname": "example",
    "args": ["/bin/app"], "env_names": ["PATH"], "cwd": "/",
    "user": {"uid": 1000, "gid": 1000, "groups": []},
    "capabilities": [], "no_new_privs": true, "read_only": true, "init": false,
    "network": "none",
    "mounts": [{"type": "tmpfs", "source": "", "target": "/tmp", "read_only": false}],
    "limits": {
      "memory": 536870912, "swap": 0, "pids": 512, "cpus": 1, "reservation": 0, "shm": 67108864, "cpu_shares": 0, "io_weight": 0,
      "cpu_set": "", "mem_set": "", "io": [], "oom_score_adj": 0, "ulimits": [{"type": "RLIMIT_NOFILE", "soft": 4096, "hard": 4096}]
    },
    "sysctls": [], "devices": [],
    "seccomp": {"profile": "default", "digest": "", "narrows": true, "extra": []}, "security_opt": [], "labels": {},
    "landlock": {"abi": 7, "paths": true, "abstract_sockets": false, "tcp": false, "tcp_bind": [], "tcp_connect": [], "missing": ""},
    "masked_paths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
    "readonly_paths": ["/proc/sys"],
    "requested": {"cap_add": [], "cap_drop": [], "network": "", "user": ""}
  },
  "oci": {
    "op": "", "id": "", "bundle": "", "spec_digest": "", "annotations": {}, "namespaces": [], "shared_pid": false,
    "rootfs": "", "hooks": [], "inheritable": [], "ambient": []
  },
  "exec": {
    "purpose": "", "args": ["/bin/sh"], "env_names": ["PATH"], "cwd": "/", "user": {"uid": 1000, "gid": 1000, "groups": []},
    "capabilities": [], "terminal": false, "stdin": false, "requested_user": ""
  },
  "cp": {"direction": "out", "path": "/etc/app.conf", "archive": false, "follow_links": false},
  "attach": {"stdin": false, "terminal": false},
  "restart": {"by": "", "count": 0, "exit_code": 0},
  "pull": {"for": "", "platform": ""},
  "build": {"step": "", "dockerfile": "", "stage": "", "target": "", "arg_names": []},
  "ci": {"kind": "", "file": "", "name": ""},
  "k8s": {
    "operation": "", "kind": "", "namespace": "", "name": "", "container": "", "role": "", "user": "", "groups": [],
    "privileged": false, "host_network": false, "host_pid": false, "host_ipc": false, "host_process": false, "host_ports": [],
    "probe_hosts": [], "proc_mount": "", "run_as_non_root": false, "run_as_root": false, "volume_types": []
  },
  "host": {
    "kernel": "6.12.0", "cgroup": "v2", "os": "linux", "arch": "amd64", "rootless": false,
    "memory": 8589934592, "cpus": 4
  },
  "document": null,
  "unknowns": [],
  "unmapped": []
}`

func example() map[string]any {
	var m map[string]any
	if err := json.Unmarshal([]byte(exampleInput), &m); err != nil {
		panic(err) // a constant; a test reads it
	}
	return m
}
