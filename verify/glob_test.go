package verify

import (
	"strings"
	"testing"
)

// The behaviour of sigstore policy-controller (pkg/apis/glob), so that a
// cluster's policy means the same images here.
func TestGlobMeansWhatItMeansInACluster(t *testing.T) {
	for _, c := range []struct {
		glob, image string
		want        bool
	}{
		{"index.docker.io/library/busybox:latest", "busybox", true},
		{"index.docker.io/library/*", "busybox", true},
		{"index.docker.io/library/*:latest", "busybox", true},
		{"index.docker.io/*/*", "busybox", true},
		{"index.docker.**", "busybox", true},
		{"**", "busybox", true},
		{"*", "busybox", true},
		{"*", "team/app", false},
		{"*/*", "team/app", true},
		{"*/*", "ghcr.io/app", false},
		{"busybox", "busybox", true},
		{"busybox*", "busybox", true},
		{"team/app", "team/app", true},
		{"team/app", "team/app:2", false},
		{"ghcr.io/*/*", "ghcr.io/a/b", true},
		{"ghcr.io/*/*", "ghcr.io/a", false},
		{"ghcr.io/*", "ghcr.io/a/b", false},
		{"ghcr.io/**", "ghcr.io/a/b", true},
		{"*/**", "ghcr.io/a", true},
		{"ghcr.io/a", "ghcr.io/a", true},
		{"ghcr.io/a", "ghcr.io/a-b", false},
		{"ghcr.io/a", "x-ghcr.io/a", false},
		{"ghcr.io/**", "ghcrxio.com/a", false},
		{"ghcr.io/a:1.*", "ghcr.io/a:1.2", true},
		{"ghcr.io/a:1.*", "ghcr.io/a:1x2", false},
		{"ghcr.io/***", "ghcr.io/a/b", true},
		// However an image is typed, it is the same image.
		{"busybox", "docker.io/library/busybox:latest", true},
		{"docker.io/library/busybox", "busybox", true},
		{"docker.io/library/*", "index.docker.io/library/busybox", true},
		{"ghcr.io/a", "ghcr.io/a:latest", true},
		{"ghcr.io/a*", "ghcr.io/a@" + testDigest, true},
		{"ghcr.io/a:1", "ghcr.io/a:1@" + testDigest, false},
		{"ghcr.io/a", "ghcr.io/a@" + testDigest, false},
		{"library/busybox", "ghcr.io/library/busybox", false},
		// Ward's own: a cluster refuses "@" in a glob.
		{"ghcr.io/a@*", "ghcr.io/a@" + testDigest, true},
		{"ghcr.io/a@*", "ghcr.io/ab@" + testDigest, false},
		{"ghcr.io/a@*", "ghcr.io/a:1", false},
		{"localhost:5000/*", "localhost:5000/a", true},
		{"127.0.0.1:5000/**", "127.0.0.1:5001/a", false},
	} {
		g, err := compileGlob(c.glob)
		if err != nil {
			t.Fatalf("%s: %v", c.glob, err)
		}
		ref, err := parseReference(c.image)
		if err != nil {
			t.Fatalf("%s: %v", c.image, err)
		}
		if got := g.match(spellings(ref, c.image)); got != c.want {
			t.Errorf("%s matches %s: %v, want %v", c.glob, c.image, got, c.want)
		}
	}
	for _, bad := range []string{"", ".+", "[a-z]*", "a b", "a?", "a#b", "ä", "a\nb", strings.Repeat("a", 513)} {
		if _, err := compileGlob(bad); err == nil {
			t.Errorf("glob %q was accepted", bad)
		}
	}
}
