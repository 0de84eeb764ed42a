package verify_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/tests/sigstore"
	"github.com/ward-project/ward/verify"
)

func TestTrustRootStore(t *testing.T) {
	a, dir := sigstore.New(t), t.TempDir()
	path, err := verify.TrustRootAdd(dir, "mine", a.Root(), false)
	if err != nil || path != filepath.Join(dir, "roots", "mine.json") {
		t.Fatal(path, err)
	}
	_, err = verify.TrustRootAdd(dir, "mine", a.Root(), false)
	refused(t, verify.Evidence{}, err, fault.Invalid, "trust.exists")
	for name, bad := range map[string][]byte{"x": []byte("{}"), "y": nil, "z": make([]byte, 2<<20)} {
		_, err = verify.TrustRootAdd(dir, name, bad, false)
		refused(t, verify.Evidence{}, err, fault.Invalid, "trust.root")
	}
	for _, name := range []string{"", "..", "../x", "A", "a/b", ".x"} {
		_, err = verify.TrustRootAdd(dir, name, a.Root(), false)
		refused(t, verify.Evidence{}, err, fault.Invalid, "trust.name")
	}
	putRoot(t, dir, "broken", []byte("{}"))
	list, err := verify.TrustRootList(dir)
	if err != nil || len(list) != 2 || list[0].Name != "broken" || list[0].Problem == "" || list[1].Problem != "" ||
		len(list[1].Digest) != 71 || list[1].Logs[0] != sigstore.RekorURL || list[1].Authorities[0] != sigstore.FulcioURL {
		t.Fatalf("%v %+v", err, list)
	}
	// The directory is no trust policy, and does not disturb those that are.
	if ps, err := verify.TrustList(dir); err != nil || len(ps) != 0 {
		t.Fatal(ps, err)
	}
	if err := verify.TrustRootRemove(dir, "mine"); err != nil {
		t.Fatal(err)
	}
	refused(t, verify.Evidence{}, verify.TrustRootRemove(dir, "mine"), fault.NotFound, "trust.not-found")
	refused(t, verify.Evidence{}, verify.TrustRootRemove(dir, "../x"), fault.Invalid, "trust.name")
	if list, err := verify.TrustRootList(t.TempDir()); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
}

// repository is a TUF repository of one's own.
type repository struct {
	key   ed25519.PrivateKey
	first []byte
	mu    sync.Mutex
	files map[string][]byte
}

func newRepository(t *testing.T) (*repository, *httptest.Server) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := &repository{key: key, files: map[string][]byte{}}
	k, err := metadata.KeyFromPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	root := metadata.Root(time.Now().Add(time.Hour))
	for _, role := range []string{"root", "timestamp", "snapshot", "targets"} {
		if err := root.Signed.AddKey(k, role); err != nil {
			t.Fatal(err)
		}
	}
	r.first = signedBy(t, r, root)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		b, ok := r.files[strings.TrimPrefix(req.URL.Path, "/")]
		r.mu.Unlock()
		if !ok {
			http.NotFound(w, req)
			return
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(srv.Close)
	return r, srv
}

func signedBy[T metadata.Roles](t *testing.T, r *repository, m *metadata.Metadata[T]) []byte {
	t.Helper()
	s, err := signature.LoadSigner(r.key, crypto.Hash(0))
	if err != nil {
		t.Fatal(err)
	}
	m.ClearSignatures()
	if _, err := m.Sign(s); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// publish puts a trusted_root.json out as a version, good until a time.
func (r *repository) publish(t *testing.T, version int64, root []byte, until time.Time) {
	t.Helper()
	file, err := metadata.TargetFile().FromBytes("trusted_root.json", root, "sha256")
	if err != nil {
		t.Fatal(err)
	}
	targets := metadata.Targets(until)
	targets.Signed.Version = version
	targets.Signed.Targets["trusted_root.json"] = file
	snapshot := metadata.Snapshot(until)
	snapshot.Signed.Version = version
	snapshot.Signed.Meta["targets.json"].Version = version
	timestamp := metadata.Timestamp(until)
	timestamp.Signed.Version = version
	timestamp.Signed.Meta["snapshot.json"].Version = version
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files = map[string][]byte{
		fmt.Sprintf("%d.targets.json", version): signedBy(t, r, targets), fmt.Sprintf("%d.snapshot.json", version): signedBy(t, r, snapshot),
		"timestamp.json": signedBy(t, r, timestamp), "targets/" + file.Hashes["sha256"].String() + ".trusted_root.json": root,
	}
}

// A trust root comes over the network by this command alone: signed, not
// expired, never older than before; or the old one stays.
func TestTrustRootUpdate(t *testing.T) {
	one, two := sigstore.New(t).Root(), sigstore.New(t).Root()
	r, srv := newRepository(t)
	dir := t.TempDir()
	u := verify.RootUpdate{Name: "mine", Mirror: srv.URL, TUFRoot: r.first}
	update := func() (bool, error) {
		_, changed, err := verify.TrustRootUpdate(t.Context(), dir, u)
		return changed, err
	}
	holds := func(want []byte) {
		t.Helper()
		if b, err := verify.TrustRootRead(dir, "mine"); err != nil || string(b) != string(want) {
			t.Fatalf("%v %.80s", err, b)
		}
	}
	later := time.Now().Add(time.Hour)
	r.publish(t, 2, one, later)
	if changed, err := update(); err != nil || !changed {
		t.Fatal(changed, err)
	}
	holds(one)
	if changed, err := update(); err != nil || changed {
		t.Fatal(changed, err)
	}
	fails := func(what string) {
		t.Helper()
		_, err := update()
		if f := refused(t, verify.Evidence{}, err, fault.Unavailable, "trust.update"); f.Remedy == "" {
			t.Error(what, f)
		}
		holds(one)
	}
	r.publish(t, 1, two, later)
	fails("rolled back")
	r.publish(t, 3, two, time.Now().Add(-time.Minute))
	fails("expired")
	r.publish(t, 4, two, later)
	r.mu.Lock()
	for name, b := range r.files {
		if strings.HasPrefix(name, "targets/") {
			r.files[name] = append(b[:len(b):len(b)], ' ')
		}
	}
	r.mu.Unlock()
	fails("changed on the way")
	strange, _ := newRepository(t)
	strange.publish(t, 5, two, later)
	r.mu.Lock()
	r.files = strange.files
	r.mu.Unlock()
	fails("signed by a stranger")
	r.publish(t, 6, []byte("{}"), later)
	_, err := update()
	refused(t, verify.Evidence{}, err, fault.Invalid, "trust.root")
	holds(one)
	r.publish(t, 7, two, later)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := verify.TrustRootUpdate(ctx, dir, u); fault.ClassOf(err) != fault.Unavailable {
		t.Fatal(err)
	}
	holds(one)
	if changed, err := update(); err != nil || !changed {
		t.Fatal(changed, err)
	}
	holds(two)
	srv.Close()
	_, err = update()
	refused(t, verify.Evidence{}, err, fault.Unavailable, "trust.update")
	holds(two)
	u.TUFRoot = nil
	_, err = update()
	refused(t, verify.Evidence{}, err, fault.Invalid, "usage")
	if _, err := os.Stat(filepath.Join(dir, "roots", ".tuf")); err != nil {
		t.Fatal(err)
	}
}
