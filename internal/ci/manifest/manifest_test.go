package manifest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
)

func options(vars ...string) Options {
	return Options{Platform: "linux/amd64", Lookup: func(name string) (string, bool) {
		for _, kv := range vars {
			if k, v, _ := strings.Cut(kv, "="); k == name {
				return v, true
			}
		}
		return "", false
	}}
}

func read(t *testing.T, text string, vars ...string) []Container {
	t.Helper()
	cs, err := Read("dir/file.yaml", []byte(text), options(vars...))
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

func flags(c Container) []string {
	var out []string
	for _, f := range c.Flags {
		out = append(out, f.Name+"="+f.Value)
	}
	return out
}

func unmapped(c Container) []string {
	var out []string
	for _, u := range c.Unmapped {
		out = append(out, fmt.Sprintf("%d %s", u.Line, u.Name))
	}
	return out
}

// Every field that the compose specification gives a service is an option, or
// harmless, or named.
func TestComposeFields(t *testing.T) {
	for _, c := range []struct {
		field    string
		flags    []string
		unmapped string
	}{
		{"cap_add: [NET_ADMIN, SYS_TIME]", []string{"cap-add=NET_ADMIN", "cap-add=SYS_TIME"}, ""},
		{"cap_drop: [ALL]", []string{"cap-drop=ALL"}, ""},
		{"privileged: false", nil, ""},
		{"privileged: true", nil, "privileged"},
		{"network_mode: host", []string{"network=host"}, ""},
		{"network_mode: bridge", nil, "network_mode"},
		{"networks: [front]", nil, "networks"},
		{`ports: ["80:80"]`, nil, "ports"},
		{"expose: [80]", nil, ""},
		{"user: 1000", []string{"user=1000"}, ""},
		{`user: "1000:1000"`, []string{"user=1000:1000"}, ""},
		{"security_opt: [no-new-privileges, 'seccomp:p.json', seccomp=unconfined]", []string{"security-opt=no-new-privileges", "security-opt=seccomp=dir/p.json", "security-opt=seccomp=unconfined"}, ""},
		{"pids_limit: 10", []string{"pids-limit=10"}, ""},
		{"mem_limit: 64m", []string{"memory=64m"}, ""},
		{"cpus: 0.5", []string{"cpus=0.5"}, ""},
		{"sysctls: {net.ipv4.tcp_syncookies: 1}", []string{"sysctl=net.ipv4.tcp_syncookies=1"}, ""},
		{"sysctls: [net.ipv4.tcp_syncookies=1]", []string{"sysctl=net.ipv4.tcp_syncookies=1"}, ""},
		{"devices: ['/dev/fuse:/dev/fuse:rwm']", []string{"device=/dev/fuse:/dev/fuse:rwm"}, ""},
		{"devices: [{source: /dev/fuse, target: /dev/x}]", []string{"device=/dev/fuse:/dev/x"}, ""},
		{"devices: [vendor.com/gpu=all]", nil, "devices"},
		{"device_cgroup_rules: ['c 1:3 mr']", nil, "device_cgroup_rules"},
		{"tmpfs: /run", []string{"tmpfs=/run"}, ""},
		{"ulimits: {nofile: {soft: 1, hard: 2}, nproc: 3}", []string{"ulimit=nofile=1:2", "ulimit=nproc=3"}, ""},
		{"environment: {A: b, C: null}", []string{"env=A=b", "env=C"}, ""},
		{"deploy: {resources: {limits: {memory: 1g, pids: 5}, reservations: {devices: [{capabilities: [gpu]}]}}}", []string{"memory=1g", "pids-limit=5"}, "devices"},
		{"pid: host", nil, "pid"}, {"ipc: host", nil, "ipc"}, {"ipc: private", nil, ""}, {"uts: host", nil, "uts"}, {"userns_mode: host", nil, "userns_mode"},
		{"cgroup: host", nil, "cgroup"}, {"cgroup_parent: x", nil, "cgroup_parent"}, {"runtime: other", nil, "runtime"},
		{"build: .", nil, "build"}, {"pull_policy: build", nil, "pull_policy"}, {"pull_policy: always", nil, ""},
		{"extends: {file: other.yaml, service: x}", nil, "extends"},
		{"secrets: [s]", nil, "secrets"}, {"configs: [c]", nil, "configs"}, {"volumes_from: [x]", nil, "volumes_from"}, {"links: [x]", nil, "links"},
		{"gpus: all", nil, "gpus"}, {"use_api_socket: true", nil, "use_api_socket"}, {"credential_spec: {file: x}", nil, "credential_spec"},
		{"post_start: [{command: x, user: root, privileged: true}]", nil, "post_start"},
		{"storage_opt: {size: 1G}", nil, "storage_opt"}, {"mac_address: x", nil, "mac_address"},
		{"platform: linux/amd64", nil, ""}, {"platform: linux/s390x", nil, "platform"},
		{"brand_new_field: 1", nil, "brand_new_field"},
		{"x-note: anything", nil, ""}, {"restart: always", nil, ""}, {"depends_on: [x]", nil, ""}, {"healthcheck: {test: [CMD, x]}", nil, ""},
		{"init: true", []string{"init=true"}, ""},
		{"extra_hosts: ['a:1.2.3.4', 'b=1.2.3.5']", []string{"add-host=a:1.2.3.4", "add-host=b:1.2.3.5"}, ""},
		{"blkio_config: {weight: 10, device_read_bps: [{path: /dev/sda, rate: 1m}]}", []string{"blkio-weight=10", "device-read-bps=/dev/sda:1m"}, ""},
		{"logging: {driver: local, options: {max-size: 1m}}", []string{"log-driver=local", "log-opt=max-size=1m"}, ""},
		{"logging: {driver: syslog, tag: x}", []string{"log-driver=syslog"}, "tag"},
		{"volumes: [/anon]", []string{"volume=/anon"}, ""},
		{"volumes: [{type: tmpfs, target: /t, tmpfs: {size: 1m}}]", []string{"mount=type=tmpfs,target=/t,tmpfs-size=1m"}, ""},
		{"volumes: [{type: npipe, source: x, target: /t}]", nil, "volumes"},
		{"volumes: ['/a:/b:rshared']", nil, "volumes"},
		{"volumes: ['~/x:/b']", nil, "volumes"},
	} {
		cs := read(t, "services:\n  web:\n    image: r.example/app:1\n    read_only: true\n    "+c.field+"\n")
		if got := flags(cs[0])[1:]; !slices.Equal(got, c.flags) && len(got)+len(c.flags) > 0 {
			t.Errorf("%s: flags %q, want %q", c.field, got, c.flags)
		}
		want := []string(nil)
		if c.unmapped != "" {
			want = []string{"5 " + c.unmapped}
		}
		if got := unmapped(cs[0]); !slices.Equal(got, want) {
			t.Errorf("%s: unmapped %q, want %q", c.field, got, want)
		}
	}
}

func TestComposeBinds(t *testing.T) {
	cs := read(t, "services:\n  web:\n    image: a\n    volumes:\n      - ./data:/data:ro\n      - /srv:/srv\n      - {type: bind, source: /x, target: /y, read_only: true}\n      - data:/z\nvolumes:\n  data:\n")
	want := []Bind{{"dir/data", "/data", true, 5}, {"/srv", "/srv", false, 6}, {"/x", "/y", true, 7}}
	if !slices.Equal(cs[0].Binds, want) {
		t.Errorf("binds %+v", cs[0].Binds)
	}
	// A volume can be declared to be a directory of the host.
	cs = read(t, "services:\n  web:\n    image: a\n    volumes: [data:/z]\nvolumes:\n  data:\n    driver_opts: {type: none, o: bind, device: /}\n")
	if got := unmapped(cs[0]); !slices.Equal(got, []string{"7 driver_opts"}) {
		t.Errorf("unmapped %q", got)
	}
}

func TestComposeMergesAndVariables(t *testing.T) {
	cs := read(t, `
x-base: &base
  image: "${REG:-r.example}/app:${TAG}"
  cap_add: [CHOWN]
services:
  one:
    <<: *base
  two:
    <<: [*base]
    image: other:$TAG
`, "TAG=7")
	if cs[0].Image != "r.example/app:7" || cs[1].Image != "other:7" || cs[0].Line != 3 || cs[1].Line != 10 {
		t.Errorf("%+v", cs)
	}
	if !slices.Contains(flags(cs[1]), "cap-add=CHOWN") {
		t.Errorf("flags %q", flags(cs[1]))
	}
	for in, want := range map[string]string{"$$x": "$x", "${A-b}": "b", "${E:-b}": "b", "${E-b}": "", "${E+x}": "x", "${E:+x}": "", "${A:-${TAG}}": "7", "a${TAG}b": "a7b"} {
		got, err := interpolate(in, options("TAG=7", "E=").Lookup, 0)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"$A", "${A}", "${A:?why}", "${", "$", "${}", "${A;x}", "${E:?no}", strings.Repeat("${A:-", 20) + strings.Repeat("}", 20)} {
		if got, err := interpolate(in, options("E=").Lookup, 0); err == nil {
			t.Errorf("%s is %q", in, got)
		}
	}
}

// What can be read in two ways, or not at all, is an error that names its line.
func TestFilesThatAreRefused(t *testing.T) {
	bomb := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := range 12 {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	for name, c := range map[string]struct{ text, want string }{
		"twice":       {"services:\n  a:\n    image: x\n    image: y\n", "file.yaml:4: "},
		"not yaml":    {"services:\n\t- x\n", "file.yaml"},
		"no services": {"a: b\n", "neither a compose file"},
		"empty":       {"# nothing\n", "is empty"},
		"none":        {"services: {}\n", "names no container"},
		"octal":       {"services:\n  a:\n    image: x\n    user: 0777\n", "file.yaml:4: "},
		"hex":         {"services:\n  a:\n    image: x\n    pids_limit: 0x10\n", "file.yaml:4: "},
		"sexagesimal": {"services:\n  a:\n    image: x\n    privileged: yes please\n", "file.yaml:4: "},
		"yes":         {"services:\n  a:\n    image: x\n    privileged: yes\n", "file.yaml:4: "},
		"circle":      {"services:\n  a: &a\n    <<: *a\n    image: x\n", "file.yaml:"},
		"undeclared":  {"services:\n  a:\n    image: x\n    volumes: [d:/d]\n", "not declared"},
		"variable":    {"services:\n  a:\n    image: x:${T}\n", "file.yaml:3: the variable T is not set"},
		"binary":      {"services:\n  a:\n    image: !!binary aGVsbG8=\n", "file.yaml:3: "},
		"nul":         {"services:\x00", "is no text"},
		"bomb":        {bomb + "services:\n  a:\n    image: x\n    cap_add: *a12\n", "file.yaml"},
		"deep":        {"services: " + strings.Repeat("[", 5000), "nested"},
		"large":       {strings.Repeat("#", MaxFile+1), "larger than"},
		"no pod":      {"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n", "no spec"},
		"pod twice":   {"apiVersion: v1\nkind: Pod\nspec:\n  hostPID: true\n  hostPID: false\n  containers: [{image: x}]\n", "file.yaml:5: "},
	} {
		_, err := Read("file.yaml", []byte(c.text), options())
		if err == nil || !strings.Contains(err.Error(), c.want) || fault.ClassOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: web # the name
spec:
  template:
    spec:
      securityContext:
        runAsNonRoot: true
        runAsUser: 1000
        seccompProfile: {type: RuntimeDefault}
      volumes:
        - name: host
          hostPath: {path: /srv}
        - name: tmp
          emptyDir: {}
      initContainers:
        - name: init
          image: 'r.example/init:1'
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      containers:
        - name: app
          image: "r.example/app:1"   # keep me
          command: [/bin/app]
          resources: {limits: {memory: 64Mi, cpu: 500m}}
          volumeMounts:
            - {name: host, mountPath: /data, readOnly: true}
            - {name: tmp, mountPath: /tmp}
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}, readOnlyRootFilesystem: true}
---
apiVersion: v1
kind: Service
metadata: {name: web}
---
apiVersion: v1
kind: List
items:
  - apiVersion: batch/v1
    kind: CronJob
    metadata: {name: night, namespace: ops}
    spec:
      jobTemplate:
        spec:
          template:
            spec:
              hostPID: true
              containers: [{name: job, image: r.example/job, securityContext: {privileged: true}, ports: [{hostPort: 80}], envFrom: [{secretRef: {name: x}}]}]
`

func TestKubernetes(t *testing.T) {
	cs := read(t, deployment)
	if len(cs) != 3 {
		t.Fatalf("%d containers", len(cs))
	}
	init, app, job := cs[0], cs[1], cs[2]
	if init.Name != "Deployment/web init" || init.K8s.Role != "init" || init.Image != "r.example/init:1" || init.Line != 19 {
		t.Errorf("%+v", init)
	}
	want := []string{"memory=67108864", "cpus=0.5", "user=1000", "read-only=true", "cap-add=NET_BIND_SERVICE"}
	if got := flags(app); !slices.Equal(got, want) {
		t.Errorf("flags %q", got)
	}
	if !app.K8s.RunAsNonRoot || app.K8s.RunAsRoot || len(app.Unmapped) != 0 || !slices.Equal(app.K8s.VolumeTypes, []string{"hostPath", "emptyDir"}) {
		t.Errorf("%+v %+v", app, app.K8s)
	}
	if !slices.Equal(app.Binds, []Bind{{"/srv", "/data", true, 27}}) || len(app.Volumes) != 1 {
		t.Errorf("%+v %+v", app.Binds, app.Volumes)
	}
	if k := job.K8s; k.Kind != "CronJob" || k.Namespace != "ops" || !k.Privileged || !k.HostPID || !slices.Equal(k.HostPorts, []int{80}) || k.RunAsNonRoot {
		t.Errorf("%+v", k)
	}
	got := flags(job)
	for _, f := range []string{"security-opt=no-new-privileges=false", "security-opt=seccomp=unconfined", "cap-add=CHOWN", "read-only=false"} {
		if !slices.Contains(got, f) {
			t.Errorf("no %s in %q", f, got)
		}
	}
}

// What an object of an unknown kind would run is not known, and not passed over.
func TestKubernetesKinds(t *testing.T) {
	for object, want := range map[string]string{
		"apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: x}\nspec: {template: {spec: {containers: [{image: x}]}}}\n": "2 kind",
		"apiVersion: apps.example/v1\nkind: Deployment\nmetadata: {name: x}\n":                                                         "2 kind",
		"apiVersion: v1\nkind: Brandnew\nmetadata: {name: x}\n":                                                                        "2 kind",
		"apiVersion: v1\nkind: Pod\nspec:\n  runtimeClassName: x\n  containers: [{image: x}]\n":                                        "4 runtimeClassName",
		"apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: x\n    volumeDevices: [{}]\n":                                     "6 volumeDevices",
		"apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: x\n    securityContext: {brandNew: 1}\n":                          "6 brandNew",
		"apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: x\n":                                                               "5 image",
	} {
		if got := unmapped(read(t, object)[0]); !slices.Contains(got, want) {
			t.Errorf("%s: %q", object, got)
		}
	}
	if _, err := Read("f", []byte("apiVersion: v1\nkind: ConfigMap\n"), options()); err == nil || !strings.Contains(err.Error(), "names no container") {
		t.Errorf("a file without containers: %v", err)
	}
}

func TestPin(t *testing.T) {
	const d = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	admit := func(cs []Container) func(int, Container) string {
		return func(i int, c Container) string {
			if cs[i].Name == "Deployment/web init" {
				return ""
			}
			return Pinned(c.Image, d)
		}
	}
	cs := read(t, deployment)
	got, err := Pin("dir/file.yaml", []byte(deployment), cs, options(), admit(cs))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(deployment, `"r.example/app:1"   # keep me`, `"r.example/app:1@`+d+`"   # keep me`)
	want = strings.ReplaceAll(want, "image: r.example/job,", "image: r.example/job@"+d+",")
	if string(got) != want {
		t.Errorf("%s", got)
	}
	// Pinned again it stays; an older digest is replaced.
	cs = read(t, string(got))
	again, err := Pin("dir/file.yaml", got, cs, options(), admit(cs))
	if err != nil || string(again) != want {
		t.Errorf("%v\n%s", err, again)
	}
	compose := "\ufeffx: &b {image: &i é.example/a:1}\nservices:\n  a: {image: *i , labels: {'é': 'ü'} }\n  \"ü\": { image: app:$T } # \u00e9\n  c:\n    image: *i\n"
	compose = strings.Replace(strings.Replace(compose, "x: &b", "x-b: &b", 1), "é.example", "e.example", 1)
	cs = read(t, compose, "T=2")
	got, err = Pin("dir/file.yaml", []byte(compose), cs, options("T=2"), func(_ int, c Container) string { return Pinned(c.Image, d) })
	want = strings.Replace(strings.Replace(compose, "e.example/a:1", "e.example/a:1@"+d, 1), "app:$T", "app:2@"+d, 1)
	if err != nil || string(got) != want {
		t.Errorf("%v\n%q\n%q", err, got, want)
	}
	for _, text := range []string{"services: {a: {image:\r'x'}}", "services: # \u2028\n  a: {image: x}\n", "services:\n  a:\n    image: >-\n      x:1\n", "services:\n  a:\n    image: \"x\\x3a1\"\n"} {
		cs := read(t, text)
		if got, err := Pin("f", []byte(text), cs, options(), func(_ int, c Container) string { return Pinned(c.Image, d) }); err == nil {
			t.Errorf("pinned: %s", got)
		}
	}
}

func TestDotEnv(t *testing.T) {
	got, err := DotEnv(".env", []byte("# c\nA=1\nexport B='x y'\nC=\n"))
	if err != nil || got["A"] != "1" || got["B"] != "x y" {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range []string{"A", "A=$B", "A='x'y'", "A=\"x\\n\"", "1=2", "A=x # y"} {
		if got, err := DotEnv(".env", []byte(bad)); err == nil {
			t.Errorf("%s: %v", bad, got)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(deployment))
	f.Add([]byte("services:\n  a:\n    image: x:${A:-1}\n    volumes: [./a:/b, {type: tmpfs, target: /t}]\n    <<: &x {cap_add: [A]}\n"))
	f.Add([]byte("a: &a [*a]\nservices: {a: *a}\n"))
	f.Add([]byte("services: {a: {image: 'x', command: \"sh -c 'x'\", ulimits: {a: {soft: 1}}, deploy: {resources: {limits: {cpus: 1}}}}}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		opt := options("A=b")
		cs, err := Read("f", text, opt)
		if err != nil {
			if fault.ClassOf(err) != fault.Invalid {
				t.Fatalf("%v", err)
			}
			return
		}
		for _, c := range cs {
			if c.Image == "" && len(c.Unmapped) == 0 {
				t.Fatalf("a container without image and without a word about it: %+v", c)
			}
		}
		// What Pin writes says the same but for the images, or it writes nothing.
		out, err := Pin("f", text, cs, opt, func(_ int, c Container) string {
			if c.Image == "" {
				return ""
			}
			return "p.example/x@sha256:1"
		})
		if err == nil && len(out) == 0 {
			t.Fatal("nothing written")
		}
	})
}
