package verify

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"maps"
	"slices"
	"sync"
	"time"
)

// Directory verifies by the trust directory as it is at each question, and is
// for a process that is asked many. Every file is read every time and compared
// by content: a time stamp and a size are the same after two changes within one
// tick of the clock, and whoever withdraws a key must not have to wait for the
// next. What is saved is parsing what is the same, and checking a signature
// again that was good a moment ago.
//
// Only a yes is kept, for exactly the question that it answers: the content of
// the trust directory with its roots, the image's name and digests, every byte
// that was found beside it. It is kept until the next instant at which a window,
// a certificate or a rule about the clock could change the answer, and not
// across a clock that is set back. Safe for concurrent use.
type Directory struct {
	dir  string
	now  func() time.Time
	rego Evaluator

	mu sync.Mutex
	// verifier is of the files whose digests policies and rootSum are.
	verifier          *Verifier
	policies, rootSum string
	kept              map[question]keptEvidence
	bytes             int // of the statements in kept
}

// question is the digest of all that an answer depends on besides the clock.
type question [sha256.Size]byte

type keptEvidence struct {
	evidence Evidence
	// from and until bound when it holds; until is zero if nothing ends it.
	from, until time.Time
}

// maxKept bounds the answers that are kept, maxKeptBytes the statements in them. When there are more all of them
// are forgotten, so that many images cost time and no memory.
const (
	maxKept      = 4096
	maxKeptBytes = 64 << 20
)

// NewDirectory reads nothing yet.
func NewDirectory(dir string) *Directory { return &Directory{dir: dir, now: time.Now} }

// WithRego is the same directory with somebody who judges by the Rego in trust
// policies, see Verifier.WithRego. It has answered nothing yet.
func (d *Directory) WithRego(e Evaluator) *Directory {
	return &Directory{dir: d.dir, now: d.now, rego: e}
}

// Verify is Verifier.Verify by the policies as they are now. A directory that
// cannot be read or understood is an error, whatever it held before.
func (d *Directory) Verify(ctx context.Context, s Subject, materials []Material) (Evidence, error) {
	v, err := d.current()
	if err != nil {
		return Evidence{}, err
	}
	now := newClock(d.now())
	q := asked(v.trust, s, materials)
	d.mu.Lock()
	k, ok := d.kept[q]
	d.mu.Unlock()
	if ok && !now.at.Before(k.from) && (k.until.IsZero() || now.at.Before(k.until)) {
		return k.evidence, nil
	}
	e, err := v.verify(ctx, s, materials, now)
	if err != nil || !e.Verified() {
		return e, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	size := e.predicateBytes()
	if size > maxKeptBytes {
		return e, nil
	}
	if d.kept == nil || len(d.kept) >= maxKept || d.bytes+size > maxKeptBytes {
		d.kept, d.bytes = map[question]keptEvidence{}, 0
	}
	d.bytes += size
	d.kept[q] = keptEvidence{e, now.at, now.until}
	return e, nil
}

// current is the verifier of what the directory holds now.
func (d *Directory) current() (*Verifier, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	files, sum, err := readPolicies(d.dir)
	if err != nil {
		return nil, err
	}
	var policies []policy
	if d.verifier != nil && d.policies == sum {
		policies = d.verifier.policies
	} else if policies, err = files.parse(); err != nil {
		return nil, err
	}
	roots, rootSum, err := loadRoots(d.dir, policies)
	if err != nil {
		return nil, err
	}
	if d.verifier != nil && d.policies == sum && d.rootSum == rootSum {
		return d.verifier, nil
	}
	trust := sum
	if rootSum != "" {
		both := sha256.Sum256([]byte(sum + "\x00" + rootSum))
		trust = "sha256:" + hex.EncodeToString(both[:])
	}
	d.verifier, d.policies, d.rootSum = &Verifier{policies: policies, roots: roots, trust: trust, rego: d.rego}, sum, rootSum
	d.kept, d.bytes = nil, 0 // no answer of another generation is asked for again
	return d.verifier, nil
}

// asked is the digest of a question. Everything goes in with its length, so
// that no two questions have the same bytes.
func asked(trust string, s Subject, materials []Material) question {
	h := sha256.New()
	addText(h, trust)
	addText(h, s.Reference)
	addNumber(h, len(s.Digests))
	for _, d := range s.Digests {
		addText(h, d)
	}
	addNumber(h, len(s.Omitted))
	for _, o := range s.Omitted {
		addText(h, o.PredicateType)
		addText(h, o.Digest)
		addNumber(h, int(o.Size))
		addText(h, o.Reason)
	}
	addNumber(h, len(materials))
	for _, m := range materials {
		addText(h, m.Subject)
		addText(h, m.Kind)
		addText(h, m.MediaType)
		addNumber(h, len(m.Payload))
		h.Write(m.Payload)
		addNumber(h, len(m.Annotations))
		for _, k := range slices.Sorted(maps.Keys(m.Annotations)) {
			addText(h, k)
			addText(h, m.Annotations[k])
		}
	}
	return question(h.Sum(nil))
}

func addNumber(h hash.Hash, n int) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	h.Write(b[:])
}

func addText(h hash.Hash, s string) {
	addNumber(h, len(s))
	h.Write([]byte(s))
}
