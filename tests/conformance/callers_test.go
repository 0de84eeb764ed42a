package conformance

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ward-project/ward/audit"
)

// program is the real path of a caller's program.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// answers waits until a command that needs the caller to be ready succeeds.
func (s *site) answers(format string, args ...any) {
	s.t.Helper()
	var out string
	for range 300 {
		var code int
		if out, code = s.try(format, args...); code == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.t.Fatalf("no answer: %s", out)
}

// imageFile writes the root file system as an OCI image archive.
func (s *site) imageFile(name, ref string) {
	s.t.Helper()
	layer, err := os.ReadFile(s.tar)
	if err != nil {
		s.t.Fatal(err)
	}
	digest := func(b []byte) string { h := sha256.Sum256(b); return "sha256:" + hex.EncodeToString(h[:]) }
	encode := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			s.t.Fatal(err)
		}
		return b
	}
	type m = map[string]any
	part := func(kind string, b []byte) m { return m{"mediaType": kind, "digest": digest(b), "size": len(b)} }
	config := encode(m{"architecture": "amd64", "os": "linux", "config": m{"Env": []string{"PATH=/bin"}, "Cmd": []string{"/bin/sleep", "1000"}},
		"rootfs": m{"type": "layers", "diff_ids": []string{digest(layer)}}})
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	manifest := encode(m{"schemaVersion": 2, "mediaType": manifestType, "config": part("application/vnd.oci.image.config.v1+json", config),
		"layers": []m{part("application/vnd.oci.image.layer.v1.tar", layer)}})
	top := part(manifestType, manifest)
	top["annotations"] = m{"io.containerd.image.name": ref}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(name string, b []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(b)), Mode: 0o644}); err != nil {
			s.t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			s.t.Fatal(err)
		}
	}
	add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	add("index.json", encode(m{"schemaVersion": 2, "manifests": []m{top}}))
	for _, b := range [][]byte{layer, config, manifest} {
		add("blobs/sha256/"+strings.TrimPrefix(digest(b), "sha256:"), b)
	}
	if err := w.Close(); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, name), buf.Bytes(), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// TestContainerd: containerd's shim calls ward-oci for ctr.
func TestContainerd(t *testing.T) {
	needs(t, "containerd", "ctr", "containerd-shim-runc-v2", "script")
	shim := caller{Exe: program(t, "containerd-shim-runc-v2"), Bundles: "any"}
	s := newSite(t, shim)
	const image = "docker.io/library/bb:1"
	s.imageFile("image.tar", image)
	config := `version = 2
root = "` + s.Dir + `/cd"
state = "` + s.Dir + `/cds"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "` + s.Dir + `/cd.sock"
[ttrpc]
address = "` + s.Dir + `/cdt.sock"
`
	if err := os.WriteFile(filepath.Join(s.Dir, "cd.toml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	s.start("cd.log", "containerd", "--config", filepath.Join(s.Dir, "cd.toml"))
	// A namespace of its own: ctr leaves a cgroup of that name behind.
	ns := "ward-" + filepath.Base(s.Dir)
	t.Cleanup(func() {
		s.sh("find /sys/fs/cgroup -depth -type d -path '*/%s*' -exec rmdir {} + 2>/dev/null || true", ns)
		s.sh("rm -rf /run/containerd/runc/%s", ns)
	})
	s.Env = append(s.Env, "CONTAINERD_ADDRESS="+s.Dir+"/cd.sock", "CONTAINERD_NAMESPACE="+ns)
	s.answers("ctr version")
	s.sh("ctr image import image.tar")
	run := "ctr run --runc-binary " + s.runtime()
	s.expect(3, []string{"from ctr"}, "%s --rm %s a /bin/sh -c 'echo from ctr; exit 3'", run, image)
	s.expect(9, []string{"/dev/console"}, "script -qec \"%s -t --rm %s b /bin/sh -c 'ls /dev/console; exit 9'\" /dev/null </dev/null", run, image)
	s.expect(1, []string{"executable file not found in $PATH"}, "%s --rm %s c nosuch", run, image)

	s.sh("%s -d %s d /bin/sleep 1000", run, image)
	s.expect(4, []string{"added"}, "ctr task exec --exec-id e1 d /bin/sh -c 'echo added; exit 4'")
	s.expect(6, []string{"/dev/pts/0"}, "script -qec \"ctr task exec -t --exec-id e2 d /bin/sh -c 'tty; exit 6'\" /dev/null </dev/null")
	s.sh("ctr task pause d")
	s.expect(0, []string{"PAUSED"}, "ctr task ls")
	s.sh("ctr task resume d && ctr task metrics d && ctr task kill -s KILL d")
	s.answers("ctr task ls | grep STOPPED")
	s.sh("ctr task rm d || true; ctr container rm d")

	// The shim learns of a container whose monitor is killed.
	s.sh("%s -d %s e /bin/sleep 1000", run, image)
	if err := syscall.Kill(monitorOf(t, filepath.Join("/run/containerd/runc", ns, "e")), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.answers("ctr task ls | grep STOPPED")
	s.sh("ctr task rm e || true; ctr container rm e")

	s.trust()
	s.expect(1, []string{"oci.caller", "containerd-shim-runc-v2"}, "%s --rm %s f /bin/true", run, image)
	s.settled()
	s.recorded(map[audit.Type]int{audit.OCIIntent: 7, audit.RunStart: 4, audit.RunLost: 1, audit.ExecExit: 2, audit.RunDenied: 2})
	s.shimsContent("cd.log")
}

// shimsContent fails if a shim's clean-up complained of ward-oci. One complaint
// is the shim's own, with runc as often: its two ways of waiting for children
// race, the loser's waitid(2) says ECHILD, and it calls that exit status 255.
func (s *site) shimsContent(log string) {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Dir, log))
	if err != nil {
		s.t.Fatal(err)
	}
	const complaint, own = "did not terminate successfully: ", `exit status 255: \"`
	for l := range strings.Lines(string(b)) {
		for _, c := range strings.Split(l, complaint)[1:] {
			if !strings.HasPrefix(c, own) {
				s.t.Errorf("the shim says of ward-oci: %s", c)
			}
		}
	}
}

// wrapper is a program that calls ward-oci for this test's ward, in the place
// of the program that was called: its parent is ward-oci's.
func (s *site) wrapper() string {
	s.t.Helper()
	name := filepath.Join(s.Dir, "ward-oci")
	text := "#!/bin/sh\nWARD_ROOT=" + s.Root + " exec " + s.runtime() + " \"$@\"\n"
	if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return name
}

// TestPodman: conmon calls ward-oci for podman.
func TestPodman(t *testing.T) {
	needs(t, "podman", "conmon")
	s := newSite(t, caller{Exe: program(t, "conmon"), Bundles: "any"}, caller{Exe: program(t, "podman"), Bundles: "any"})
	before := cgroupDirs()
	t.Cleanup(func() { removeCgroups(before) })
	podman := "podman --root " + s.Dir + "/pm --runroot " + s.Dir + "/pmr --tmpdir " + s.Dir + "/pmt --storage-driver vfs --events-backend none --runtime " +
		s.wrapper() + " --cgroup-manager cgroupfs"
	// This machine's root may not raise limits, and podman would.
	const flags = "--network none --ulimit nofile=1024:1024 --ulimit nproc=9000:9000"
	s.sh("%s import %s bb:1", podman, s.tar)
	s.expect(3, []string{"from podman"}, "%s run --rm %s bb:1 /bin/sh -c 'echo from podman; exit 3'", podman, flags)
	s.expect(127, []string{"not found"}, "%s run --rm %s bb:1 nosuch", podman, flags)
	s.expect(126, []string{"permission denied"}, "%s run --rm %s bb:1 /etc/passwd", podman, flags)
	s.expect(2, []string{"/dev/console"}, "%s run --rm -t %s bb:1 /bin/sh -c 'ls /dev/console; exit 2' </dev/null", podman, flags)
	s.expect(0, []string{"100000"}, "%s run --rm --uidmap 0:100000:65536 %s bb:1 /bin/cat /proc/self/uid_map", podman, flags)
	s.sh("%s run -d --name x %s bb:1 /bin/sleep 1000", podman, flags)
	s.expect(4, []string{"added"}, "%s exec x /bin/sh -c 'echo added; exit 4'", podman)
	s.sh("%[1]s pause x && %[1]s unpause x && %[1]s top x && %[1]s kill x", podman)
	s.expect(0, []string{"137"}, "%s wait x", podman)
	s.sh("%s rm x", podman)
	s.trust()
	s.expect(126, []string{"oci.caller", "conmon"}, "%s run --rm %s bb:1 /bin/true", podman, flags)
	s.settled()
	s.recorded(map[audit.Type]int{audit.OCIIntent: 7, audit.RunStart: 4, audit.RunExit: 4, audit.ExecExit: 1})
}

// TestDocker: dockerd's shim calls ward-oci for docker.
func TestDocker(t *testing.T) {
	needs(t, "dockerd", "docker", "containerd", "containerd-shim-runc-v2")
	s := newSite(t, caller{Exe: program(t, "containerd-shim-runc-v2"), Bundles: "any"})
	before := cgroupDirs()
	t.Cleanup(func() { removeCgroups(before) })
	script := `ip link set lo up 2>/dev/null
exec dockerd --data-root $PWD/dk --exec-root $PWD/dkx --pidfile $PWD/dk.pid --host unix://$PWD/dk.sock --add-runtime ward=` + s.runtime() + ` \
  --default-runtime ward --storage-driver overlay2 --iptables=false --ip6tables=false --bridge none`
	s.start("dk.log", "unshare", "--mount", "--net", "/bin/sh", "-c", script)
	s.Env = append(s.Env, "DOCKER_HOST=unix://"+s.Dir+"/dk.sock")
	s.answers("docker version")
	s.sh("docker import %s bb:1", s.tar)
	const run = "docker run --network none"
	s.expect(3, []string{"from docker"}, "%s --rm bb:1 /bin/sh -c 'echo from docker; exit 3'", run)
	s.expect(127, []string{"executable file not found in $PATH"}, "%s --rm bb:1 nosuch", run)
	s.expect(126, []string{"permission denied"}, "%s --rm bb:1 /etc/passwd", run)
	s.expect(0, []string{"/dev/console"}, "%s --rm -t bb:1 /bin/ls /dev/console", run)
	s.sh("%s -d --name box -m 64m --pids-limit 50 bb:1 /bin/sleep 1000", run)
	s.expect(4, []string{"added"}, "docker exec box /bin/sh -c 'echo added; exit 4'")
	s.sh("docker pause box && docker unpause box && docker update -m 128m --memory-swap 128m box && docker top box")
	s.sh("docker stop -t 1 box && docker start box && docker rm -f box")
	s.trust()
	s.expect(125, []string{"oci.caller"}, "%s --rm bb:1 /bin/true", run)
	s.settled()
	s.recorded(map[audit.Type]int{audit.OCIIntent: 7, audit.RunStart: 4, audit.ExecExit: 1, audit.OCIUpdate: 1})
}

// cgroupDirs are all control groups; callers leave some behind.
func cgroupDirs() map[string]bool {
	dirs := map[string]bool{}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs[p] = true
		}
		return nil
	})
	return dirs
}

// removeCgroups removes the empty ones of podman's and Docker's parents that
// were not there before.
func removeCgroups(before map[string]bool) {
	var fresh []string
	for p := range cgroupDirs() {
		if !before[p] && (strings.Contains(p, "libpod") || strings.HasSuffix(p, "/docker")) {
			fresh = append(fresh, p)
		}
	}
	for range 5 { // children first, whatever their order
		for _, p := range fresh {
			_ = os.Remove(p)
		}
	}
}
