package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	ggcr "github.com/google/go-containerregistry/pkg/v1"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

// treeOf is what ward tree --format json says.
type treeOf struct {
	Reference, Digest        string
	Signatures, Attestations []struct {
		Format, PredicateType, Refused, Digest string
		Type                                   string `json:"predicate_type"`
		Signers                                []struct {
			KeyID string `json:"key_id"`
		}
	}
	Referrers []struct{ Type, Digest, Tag string }
}

func treeJSON(t *testing.T, w *lab.Ward, args ...string) (tr treeOf) {
	t.Helper()
	if err := json.Unmarshal([]byte(w.Must(append([]string{"tree", "--format", "json"}, args...)...)), &tr); err != nil {
		t.Fatal(err)
	}
	return tr
}

// hang puts an artifact of that type under the image, as other tools do.
func hang(t *testing.T, ref, kind string) {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	d, err := remote.Get(r)
	if err != nil {
		t.Fatal(err)
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.MediaType(kind))
	img, err = mutate.Append(img, mutate.Addendum{Layer: static.NewLayer([]byte("{}"), "text/plain")})
	if err != nil {
		t.Fatal(err)
	}
	img = mutate.Subject(img, ggcr.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}).(ggcr.Image)
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r.Context().Digest(h.String()), img); err != nil {
		t.Fatal(err)
	}
}

// What hangs on an image, here and in the registry, in every form, and who of
// those this host trusts vouches for it.
func TestTree(t *testing.T) {
	w, c, ref := signingWard(t)
	if out := w.Must("tree", ref); !strings.Contains(out, "No Supply Chain Security Related Artifacts found") {
		t.Error(out)
	}
	w.Must("sign", "--key", "cosign.key", ref)
	w.Must("sign", "--key", "cosign.key", "--new-bundle-format", ref)
	w.Must("attest", "--key", "cosign.key", "--type", "vuln", "--predicate", "p.json", ref)
	w.Must("attest", "--key", "cosign.key", "--type", "openvex", "--predicate", "p.json", "--new-bundle-format", "--upload", ref)
	key := lastImageEvent(t, w, audit.ImageAttest).KeyID
	if theirs, ours := c.Must(t, "tree", ref), w.Must("tree", ref); !strings.HasPrefix(ours, strings.Split(theirs, "\n")[0]+"\n") {
		t.Errorf("cosign begins\n%s\nward\n%s", theirs, ours)
	} else {
		for _, l := range strings.Split(theirs, "\n") {
			if i := strings.Index(l, "sha256"); i >= 0 && !strings.Contains(ours, l[i:]) {
				t.Errorf("cosign shows %q, ward does not:\n%s", l, ours)
			}
		}
	}
	hang(t, ref, "application/spdx+json")
	hang(t, ref, "application/x\x1b[31mred")
	w.Must("key", "generate", "--out", w.Dir+"/other")
	c.Must(t, "sign", "--key", "other/cosign.key", "--tlog-upload=false", "-y", ref)

	for _, trusted := range []bool{false, true} {
		if trusted {
			w.Must("trust", "add", "--key", "cosign.pub", "**")
		}
		for _, remote := range []bool{false, true} {
			args := []string{ref}
			if remote {
				args = append(args, "--remote")
			}
			tr := treeJSON(t, w, args...)
			signatures, found := 2, map[string]int{}
			if remote {
				signatures = 3
			}
			for _, h := range append(tr.Signatures, tr.Attestations...) {
				switch {
				case len(h.Signers) == 1 && h.Signers[0].KeyID == key && h.Refused == "":
					found["ours"]++
				case len(h.Signers) == 0:
					found[h.Refused]++
				}
				found[h.Format]++
			}
			if len(tr.Signatures) != signatures || len(tr.Attestations) != 2 || found["envelope"] != 1 {
				t.Errorf("trusted %v, remote %v: %+v", trusted, remote, tr)
			}
			want := map[bool]map[string]int{false: {"trust.no-policy": signatures + 2}, true: {"ours": 4, "trust.wrong-key": signatures - 2}}[trusted]
			for k, n := range want {
				if found[k] != n {
					t.Errorf("trusted %v, remote %v: %d %s, want %d: %+v", trusted, remote, found[k], k, n, tr)
				}
			}
			if got := len(tr.Referrers); got != map[bool]int{false: 0, true: 2}[remote] {
				t.Errorf("remote %v: %d referrers: %+v", remote, got, tr.Referrers)
			}
		}
	}
	out := w.Must("tree", "--remote", ref)
	if strings.Contains(out, "\x1b") || !strings.Contains(out, "application/spdx+json artifacts via OCI referrer") || !strings.Contains(out, "by key "+key) {
		t.Errorf("%q", out)
	}
	// The registry's answer is kept nowhere: the stranger's signature is not here.
	if tr := treeJSON(t, w, ref); len(tr.Signatures) != 2 {
		t.Errorf("kept: %+v", tr.Signatures)
	}
	w.Must("rmi", ref)
	if r := w.Do("tree", ref); r.Code != 2 {
		t.Errorf("an image that is not here: exit %d", r.Code)
	}
	if r := w.Do("tree", "--remote", "127.0.0.1:9/nobody/here:1"); r.Code != 3 {
		t.Errorf("a registry that is down: exit %d %s", r.Code, r.Stderr)
	}
	if r := w.Do("tree", "--remote", "--format", "yaml", ref); r.Code != 2 {
		t.Errorf("another format: exit %d", r.Code)
	}
}
