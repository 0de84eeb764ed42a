package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ward-project/ward/audit"
)

// TestPod: containerd's CRI plugin, asked as a kubelet asks, has ward-oci make
// a pod: its pause container, and another in it.
func TestPod(t *testing.T) {
	needs(t, "containerd", "ctr", "containerd-shim-runc-v2")
	s := newSite(t, caller{Exe: program(t, "containerd-shim-runc-v2"), Bundles: "any"})
	before := cgroupDirs()
	t.Cleanup(func() {
		for p := range cgroupDirs() {
			if !before[p] && filepath.Base(p) == "k8s.io" {
				_ = os.Remove(p)
			}
		}
		_ = os.Remove("/run/containerd/runc/k8s.io")
	})
	client := filepath.Join(s.Dir, "cri")
	build := exec.Command("go", "build", "-o", client, ".")
	build.Dir, build.Env = "../cri", append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -trimpath")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the client: %v\n%s", err, out)
	}
	const image = "docker.io/library/bb:1"
	s.imageFile("image.tar", image)
	config := `version = 2
root = "` + s.Dir + `/cd"
state = "` + s.Dir + `/cds"
[grpc]
address = "` + s.Dir + `/cd.sock"
[ttrpc]
address = "` + s.Dir + `/cdt.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "` + image + `"
disable_tcp_service = true
# This machine's root may not.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "` + s.Dir + `/none"
conf_dir = "` + s.Dir + `/none"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "ward"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ward]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ward.options]
BinaryName = "` + s.runtime() + `"
`
	if err := os.WriteFile(filepath.Join(s.Dir, "cd.toml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	s.start("cd.log", "containerd", "--config", filepath.Join(s.Dir, "cd.toml"))
	s.Env = append(s.Env, "CONTAINERD_ADDRESS="+s.Dir+"/cd.sock")
	s.answers("ctr version")
	s.sh("ctr -n k8s.io image import image.tar")
	s.answers("ctr plugins ls | grep 'cri .*ok'")
	s.expect(0, []string{`exec: "from exec\n", 4`, "CONTAINER_RUNNING, 0", "CONTAINER_EXITED, 137"}, "%s %s/cd.sock ward %s %s", client, s.Dir, image, s.Dir)
	// Whom nobody trusts gets no pod.
	s.trust()
	s.expect(1, []string{"oci.caller"}, "%s %s/cd.sock ward %s %s", client, s.Dir, image, s.Dir)
	s.settled()
	s.recorded(map[audit.Type]int{audit.OCIIntent: 3, audit.RunStart: 2, audit.RunExit: 2, audit.ExecExit: 1, audit.OCIUpdate: 1})
	s.shimsContent("cd.log")
}
