package images_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ward-project/ward/images"
)

// The real cosign signs at one registry; we carry image and signatures to
// another; the real cosign verifies there, and signs again, and nothing is lost.
func TestCarriesForCosign(t *testing.T) {
	bin := os.Getenv("WARD_COSIGN")
	if bin == "" {
		bin = must(filepath.Abs("../bin/tools/cosign"))(t)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Skipf("needs the real cosign (make bin/tools/cosign, or WARD_COSIGN): %v", err)
	}
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "root.json"), []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`), 0o600))
	cosign := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), bin, args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir, "COSIGN_PASSWORD=secret", "HTTPS_PROXY=http://127.0.0.1:9", "HTTP_PROXY=http://127.0.0.1:9", "NO_PROXY=127.0.0.1"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("cosign %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	formats := map[string][]string{images.KindCosign: nil, images.KindBundle: {"--new-bundle-format"}}
	cosign("generate-key-pair")
	cosign("generate-key-pair", "--output-key-prefix", "other")
	sign := func(key, ref string, more []string) {
		t.Helper()
		cosign(slices.Concat([]string{"sign", "--key", key, "--tlog-upload=false", "-y"}, more, []string{ref})...)
	}
	verify := func(key, ref string, more []string) {
		t.Helper()
		cosign(slices.Concat([]string{"verify", "--key", key, "--insecure-ignore-tlog", "--trusted-root", "root.json"}, more, []string{ref})...)
	}
	for _, name := range []string{"ours", "docker's"} {
		t.Run(name, func(t *testing.T) {
			from, to := registries[name](t), registries[name](t)
			a, _ := newStore(t)
			img := importAs(t, a, from+"/team/app:v1")
			must(a.Push(bg, from+"/team/app:v1", images.PushOptions{}))(t)
			for _, flags := range formats {
				sign("cosign.key", from+"/team/app@"+img.Digest, flags)
			}
			b, _ := newStore(t)
			must(b.Pull(bg, from+"/team/app:v1", images.PullOptions{}))(t)
			kinds := map[string]int{}
			for _, a := range must(b.Attachments(bg, img.Digest))(t) {
				kinds[a.Kind]++
			}
			if kinds[images.KindCosign] != 1 || kinds[images.KindBundle] != 1 {
				t.Fatalf("pulled %v", kinds)
			}
			must(b.Tag(bg, from+"/team/app:v1", to+"/other/app:v2"))(t)
			must(b.Push(bg, to+"/other/app:v2", images.PushOptions{}))(t)
			ref := to + "/other/app@" + img.Digest
			for _, flags := range formats {
				verify("cosign.pub", ref, flags)
				sign("other.key", ref, flags)
			}
			must(b.Push(bg, to+"/other/app:v2", images.PushOptions{}))(t)
			for _, flags := range formats {
				verify("cosign.pub", ref, flags)
				verify("other.pub", ref, flags)
			}
		})
	}
}
