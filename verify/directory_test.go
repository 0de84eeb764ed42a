package verify_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/tests/sigstore"
	"github.com/ward-project/ward/verify"
)

// fromKept asks and says whether the answer, which must be yes, was kept.
func fromKept(t *testing.T, d *verify.Directory, s verify.Subject, m ...verify.Material) bool {
	t.Helper()
	e, err := d.Verify(t.Context(), s, m)
	if err != nil || !e.Verified() {
		t.Fatalf("not verified: %v", err)
	}
	return slices.Contains(e.Policies(), "kept")
}

// remembering is a directory that has answered once, and would answer the same
// question from what it kept.
func remembering(t *testing.T, dir string, m ...verify.Material) *verify.Directory {
	t.Helper()
	d := verify.NewDirectory(dir)
	if fromKept(t, d, subject(), m...) {
		t.Fatal("kept before it was asked")
	}
	if n := d.MarkKept(); n != 1 {
		t.Fatalf("%d answers kept", n)
	}
	if !fromKept(t, d, subject(), m...) {
		t.Fatal("not kept")
	}
	return d
}

// unnoticeably writes a file so that size and times are what they were.
func unnoticeably(t *testing.T, path string, content []byte) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0) // the same inode, too
	if err == nil {
		_, err = f.WriteAt(content, 0)
		err = errors.Join(err, f.Truncate(int64(len(content))), f.Close())
	}
	if err == nil {
		err = os.Chtimes(path, st.ModTime(), st.ModTime())
	}
	if err != nil {
		t.Fatal(err)
	}
	if now, err := os.Stat(path); err != nil || now.Size() != st.Size() || !now.ModTime().Equal(st.ModTime()) {
		t.Fatalf("the test is to change nothing but the content: %v", err)
	}
}

// TestKeptAnswerIsForOneQuestion changes one thing at a time.
func TestKeptAnswerIsForOneQuestion(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	write(t, dir, "a.yaml", cip("a", "registry.example.com/**", byKey(k.pem)))
	m := k.sign(t, verify.KindCosign, imageDigest)
	d := remembering(t, dir, m)

	s := subject()
	s.Reference = strings.Replace(s.Reference, "registry.example.com/", "registry.example.com/x/", 1)
	if fromKept(t, d, s, m) {
		t.Error("another name")
	}
	s = subject()
	s.Digests = s.Digests[:1]
	if fromKept(t, d, s, m) {
		t.Error("fewer digests")
	}
	more := subject()
	more.Omitted = []verify.OmittedAttestation{{PredicateType: "https://example.com/x", Digest: imageDigest, Size: 1, Reason: "too large"}}
	if fromKept(t, d, more, m) {
		t.Error("an attestation that was omitted")
	}
	s.Digests = []string{otherDigest}
	e, err := d.Verify(t.Context(), s, []verify.Material{m})
	refused(t, e, err, fault.Unverified, "trust.wrong-digest")
	if fromKept(t, d, subject(), m, k.sign(t, verify.KindCosign, otherDigest)) {
		t.Error("a signature more")
	}
	e, err = d.Verify(t.Context(), subject(), nil)
	refused(t, e, err, fault.Unverified, "trust.unsigned")
	bent := m
	bent.Payload = append(slices.Clone(m.Payload), ' ')
	e, err = d.Verify(t.Context(), subject(), []verify.Material{bent})
	refused(t, e, err, fault.Unverified, "trust.wrong-key")
	if !fromKept(t, d, subject(), m) {
		t.Error("the question itself is not answered any more")
	}
}

// TestQuestionHoldsAllOfAMaterial fails when a Material says something that
// two questions could differ in and share an answer.
func TestQuestionHoldsAllOfAMaterial(t *testing.T) {
	full := verify.Material{Annotations: map[string]string{"a": "b"}}
	for i := range verify.MaterialFields {
		other := full
		f := reflect.ValueOf(&other).Elem().Field(i)
		switch f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Int64, reflect.Int:
			f.SetInt(1)
		case reflect.Slice:
			f.SetBytes([]byte("x"))
		case reflect.Map:
			other.Annotations = map[string]string{"a": "c"}
		default:
			t.Fatalf("what is a %v?", f.Type())
		}
		if verify.SameQuestion(subject(), full, other) {
			t.Errorf("%s makes no difference", reflect.TypeOf(other).Field(i).Name)
		}
	}
	// No value can run over into the next.
	for _, two := range [][2]verify.Material{
		{{Annotations: map[string]string{"a": "bc"}}, {Annotations: map[string]string{"ab": "c"}}},
		{{Subject: "a", Kind: "bc"}, {Subject: "ab", Kind: "c"}},
	} {
		if verify.SameQuestion(subject(), two[0], two[1]) {
			t.Errorf("%v and %v are one question", two[0], two[1])
		}
	}
}

// TestChangedTrustBitesAtOnce changes the trust directory between two
// questions, in ways that no time stamp shows.
func TestChangedTrustBitesAtOnce(t *testing.T) {
	k, other := newKey(t), newKey(t)
	good, bad := cip("a", "registry.example.com/**", byKey(k.pem)), cip("a", "registry.example.com/**", byKey(other.pem))
	m := k.sign(t, verify.KindBundle, imageDigest)
	for name, c := range map[string]struct {
		change func(t *testing.T, dir, file string)
		class  fault.Class
		rule   string
	}{
		"revoked": {func(t *testing.T, dir, _ string) {
			if err := verify.TrustRemove(dir, "a"); err != nil {
				t.Fatal(err)
			}
		}, fault.Unverified, "trust.no-policy"},
		"another key": {func(t *testing.T, _, f string) { unnoticeably(t, f, []byte(bad)) }, fault.Unverified, "trust.wrong-key"},
		"a second demand": {func(t *testing.T, dir, _ string) {
			write(t, dir, "b.yaml", cip("b", "registry.example.com/**", byKey(other.pem)))
		}, fault.Unverified, "trust.wrong-key"},
		"no YAML any more": {func(t *testing.T, _, f string) { unnoticeably(t, f, []byte(strings.Repeat("{", len(good)))) }, fault.Invalid, "trust.policy"},
		"writable by all": {func(t *testing.T, _, f string) {
			if err := os.Chmod(f, 0o666); err != nil {
				t.Fatal(err)
			}
		}, fault.Invalid, "trust.policy"},
		"the directory away": {func(t *testing.T, dir, _ string) {
			if err := os.Rename(dir, dir+".away"); err != nil {
				t.Fatal(err)
			}
		}, fault.Unverified, "trust.no-policy"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "trust.d")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, dir, "a.yaml", good)
			d := remembering(t, dir, m)
			c.change(t, dir, filepath.Join(dir, "a.yaml"))
			e, err := d.Verify(t.Context(), subject(), []verify.Material{m})
			refused(t, e, err, c.class, c.rule)
		})
	}
}

// padded makes two roots equally long.
func padded(b []byte) []byte {
	return append(slices.Clone(b), strings.Repeat(" ", 32<<10-len(b))...)
}

// TestChangedRootBitesAtOnce is the same for trust roots, which are files that
// policies name.
func TestChangedRootBitesAtOnce(t *testing.T) {
	a, other := sigstore.New(t), sigstore.New(t)
	m := witnessed(a, verify.KindBundle, imageDigest, sigstore.Signing{})
	root := a.Root()
	for name, c := range map[string]struct {
		change func(file string)
		class  fault.Class
		rule   string
	}{
		"replaced": {func(f string) {
			unnoticeably(t, f, padded(other.Root()))
		}, fault.Unverified, "trust.log"},
		"emptied": {func(f string) { write(t, filepath.Dir(f), "default.json", "") }, fault.Invalid, "trust.root"},
		"removed": {func(f string) {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}, fault.Unverified, "trust.no-root"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := keyless(t, padded(root), identityYAML)
			d := remembering(t, dir, m)
			c.change(filepath.Join(dir, "roots", "default.json"))
			e, err := d.Verify(t.Context(), subject(), []verify.Material{m})
			refused(t, e, err, c.class, c.rule)
			if name == "removed" { // none, then an empty one: not the same
				putRoot(t, dir, "default", nil)
				e, err := d.Verify(t.Context(), subject(), []verify.Material{m})
				refused(t, e, err, fault.Invalid, "trust.root")
			}
		})
	}
}

// TestKeptAnswerEndsWithItsWindow moves the clock alone.
func TestKeptAnswerEndsWithItsWindow(t *testing.T) {
	k := newKey(t)
	now := time.Now().Truncate(time.Second)
	a := sigstore.New(t)
	own := ownCA("      ctlog: {}\n", "subject: release@example.com", a.Intermediate, a.CA)
	leaf := sigstore.Signing{Subject: "release@example.com", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), NoLog: true, NoStamp: true}
	for name, c := range map[string]struct {
		policy string
		m      verify.Material
		ends   time.Duration // zero: never
		rule   string        // of the refusal then, where ward's own clock says so
	}{
		"no window": {cip("a", "registry.example.com/**", byKey(k.pem)), k.sign(t, verify.KindCosign, imageDigest), 0, ""},
		"a key's window": {noted("not-after", "authority-0="+now.Add(time.Hour).UTC().Format(time.RFC3339), byKey(k.pem)),
			k.sign(t, verify.KindCosign, imageDigest), time.Hour + time.Second, "trust.key-window"},
		"a certificate": {cip("a", "registry.example.com/**", own), witnessed(a, verify.KindBundle, imageDigest, leaf), time.Hour, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "a.yaml", c.policy)
			d, clock := verify.NewDirectory(dir), now
			d.SetClock(func() time.Time { return clock })
			fromKept(t, d, subject(), c.m)
			if d.MarkKept() != 1 {
				t.Fatal("not kept")
			}
			end := c.ends
			if end == 0 {
				end = 100 * 365 * 24 * time.Hour
			}
			clock = now.Add(end - 2*time.Second)
			if !fromKept(t, d, subject(), c.m) {
				t.Error("not kept until it ends")
			}
			clock = now.Add(-time.Second)
			if fromKept(t, d, subject(), c.m) {
				t.Error("kept though the clock was set back")
			}
			clock = now
			fromKept(t, d, subject(), c.m)
			d.MarkKept()
			if c.ends == 0 {
				return
			}
			clock = now.Add(end)
			e, err := d.Verify(t.Context(), subject(), []verify.Material{c.m})
			if c.rule != "" {
				refused(t, e, err, fault.Unverified, c.rule)
			} else if slices.Contains(e.Policies(), "kept") {
				t.Error("kept beyond its end")
			}
		})
	}
}

// TestRefusalsAreNotKept asks what is refused, mends the cause, and asks again.
func TestRefusalsAreNotKept(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	m := k.sign(t, verify.KindCosign, imageDigest)
	d := verify.NewDirectory(dir)
	e, err := d.Verify(t.Context(), subject(), []verify.Material{m})
	refused(t, e, err, fault.Unverified, "trust.no-policy")
	write(t, dir, "a.yaml", cip("a", "registry.example.com/**", byKey(k.pem)))
	e, err = d.Verify(t.Context(), subject(), nil)
	refused(t, e, err, fault.Unverified, "trust.unsigned")
	if n := d.MarkKept(); n != 0 {
		t.Errorf("%d refusals kept", n)
	}
	if fromKept(t, d, subject(), m) {
		t.Error("kept")
	}
}

// TestDirectoryFromManySides asks while the key comes and goes: every answer
// is one or the other's, and the last word is the directory's.
func TestDirectoryFromManySides(t *testing.T) {
	k, other, dir := newKey(t), newKey(t), t.TempDir()
	good, bad := cip("a", "registry.example.com/**", byKey(k.pem)), cip("a", "registry.example.com/**", byKey(other.pem))
	write(t, dir, "a.yaml", good)
	m := []verify.Material{k.sign(t, verify.KindCosign, imageDigest)}
	d := verify.NewDirectory(dir)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if e, err := d.Verify(t.Context(), subject(), m); (err == nil) != e.Verified() {
					t.Errorf("%v %v", err, e.Verified())
				}
			}
		})
	}
	for i := range 50 {
		text := good
		if i%2 == 0 {
			text = bad
		}
		next := filepath.Join(dir, ".next")
		if err := errors.Join(os.WriteFile(next, []byte(text), 0o644), os.Rename(next, filepath.Join(dir, "a.yaml"))); err != nil {
			t.Fatal(err)
		}
		e, err := d.Verify(t.Context(), subject(), m)
		if e.Verified() != (text == good) {
			t.Fatalf("round %d: %v %v", i, e.Verified(), err)
		}
	}
	wg.Wait()
}
