// Package receipt proves to somebody who has only a public key that a record
// is in an audit log.
//
// A receipt carries the record itself, its place in an RFC 6962 tree, the
// inclusion proof and the log's signed checkpoint. Verify promises that the
// holder of the key's private half signed a tree that contains exactly these
// bytes at exactly this index. It does not promise that the tree is the one
// other people saw (that takes witnesses or a checkpoint from elsewhere), nor
// that what the record says is true.
//
// The wire form is text: the line "ward.receipt/v1", the record on one line,
// then a C2SP tlog-proof@v1 (https://c2sp.org/tlog-proof), so that
// `sed 1,2d FILE` is a file any other implementation of that format checks,
// with line 2, without its newline, as the proved entry.
package receipt

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// MaxSize is the largest wire form Parse accepts, in bytes.
const MaxSize = 128 << 10

const (
	magic      = "ward.receipt/v1\n"
	proofMagic = "c2sp.org/tlog-proof@v1\n"
	// maxHashes bounds a proof: a path in a tree of 2^63 records.
	maxHashes = 63
)

// Errors of Parse and Verify; test with errors.Is.
var (
	// ErrMalformed says that the bytes are not a receipt.
	ErrMalformed = errors.New("malformed receipt")
	// ErrUnproved says that the receipt does not prove its record under the
	// given key, or, being the zero Receipt, proves nothing at all.
	ErrUnproved = errors.New("record not proved")
)

// Receipt proves that one record is in a log. Its zero value proves nothing.
// It is immutable and safe for concurrent use.
type Receipt struct {
	leaf       []byte
	index      int64
	size       int64
	proof      tlog.RecordProof
	checkpoint []byte
}

// Statement is what a verified receipt says. Every field is read from the
// proved leaf or the signed checkpoint, never from elsewhere.
type Statement struct {
	// Origin is the log's name, as signed.
	Origin string
	// Index is the record's place in the log, TreeSize the number of records
	// the signed checkpoint covers.
	Index, TreeSize int64
	// Type, Run and Plan are the leaf's; Plan is "sha256:…" in a run.intent and
	// empty in most other records.
	Type, Run, Plan string
	// Leaf is the record, exact bytes.
	Leaf []byte
}

// New puts a receipt together from its parts; it checks nothing, Verify does.
// The slices are not copied and must not be changed afterwards.
func New(leaf []byte, index, size int64, proof tlog.RecordProof, checkpoint []byte) Receipt {
	return Receipt{leaf: leaf, index: index, size: size, proof: proof, checkpoint: checkpoint}
}

// Parse reads the wire form written by Bytes. It checks form and size only:
// nothing is believed before Verify. Errors match ErrMalformed.
func Parse(b []byte) (Receipt, error) {
	if len(b) > MaxSize {
		return Receipt{}, fmt.Errorf("%w: larger than %d bytes", ErrMalformed, MaxSize)
	}
	rest, ok := bytes.CutPrefix(b, []byte(magic))
	if !ok {
		return Receipt{}, fmt.Errorf("%w: first line is not %q", ErrMalformed, magic[:len(magic)-1])
	}
	leaf, rest, ok := bytes.Cut(rest, []byte("\n"))
	if !ok || len(leaf) == 0 {
		return Receipt{}, fmt.Errorf("%w: no record", ErrMalformed)
	}
	rest, ok = bytes.CutPrefix(rest, []byte(proofMagic))
	if !ok {
		return Receipt{}, fmt.Errorf("%w: no %q", ErrMalformed, proofMagic[:len(proofMagic)-1])
	}
	head, checkpoint, ok := bytes.Cut(rest, []byte("\n\n"))
	if !ok || len(checkpoint) == 0 {
		return Receipt{}, fmt.Errorf("%w: no checkpoint", ErrMalformed)
	}
	r := Receipt{leaf: bytes.Clone(leaf), checkpoint: bytes.Clone(checkpoint)}
	if err := r.parseProof(string(head)); err != nil {
		return Receipt{}, err
	}
	_, size, _, err := ParseCheckpoint(string(checkpoint))
	if err != nil {
		return Receipt{}, err
	}
	r.size = size
	return r, nil
}

// parseProof reads the index line and the hashes.
func (r *Receipt) parseProof(head string) error {
	lines := strings.Split(head, "\n")
	digits, ok := strings.CutPrefix(lines[0], "index ")
	if !ok {
		return fmt.Errorf("%w: no index", ErrMalformed)
	}
	var err error
	if r.index, err = parseDecimal(digits); err != nil {
		return err
	}
	if len(lines)-1 > maxHashes {
		return fmt.Errorf("%w: more than %d hashes", ErrMalformed, maxHashes)
	}
	for _, l := range lines[1:] {
		h, err := parseHash(l)
		if err != nil {
			return err
		}
		r.proof = append(r.proof, h)
	}
	return nil
}

// Bytes is the wire form, nil for the zero Receipt.
func (r Receipt) Bytes() []byte {
	if len(r.leaf) == 0 {
		return nil
	}
	p := r.Proof()
	b := make([]byte, 0, len(magic)+len(r.leaf)+1+len(p))
	b = append(b, magic...)
	b = append(b, r.leaf...)
	b = append(b, '\n')
	return append(b, p...)
}

// Proof is the C2SP tlog-proof@v1 text alone, nil for the zero Receipt; the
// entry it proves is Statement.Leaf.
func (r Receipt) Proof() []byte {
	if len(r.leaf) == 0 {
		return nil
	}
	var b bytes.Buffer
	b.WriteString(proofMagic)
	fmt.Fprintf(&b, "index %d\n", r.index)
	for _, h := range r.proof {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.Write(r.checkpoint)
	return b.Bytes()
}

// Verify checks the checkpoint's signature with vkey (the log's public key in
// signed-note form, obtained from anywhere but the receipt) and the record's
// inclusion in the tree it signs. Errors match ErrUnproved or, for an unusable
// vkey, neither sentinel.
func (r Receipt) Verify(vkey string) (Statement, error) {
	if len(r.leaf) == 0 || len(r.checkpoint) == 0 {
		return Statement{}, fmt.Errorf("%w: empty receipt", ErrUnproved)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return Statement{}, fmt.Errorf("verifier key: %w", err)
	}
	n, err := note.Open(r.checkpoint, note.VerifierList(verifier))
	if err != nil {
		return Statement{}, fmt.Errorf("%w: checkpoint: %v", ErrUnproved, err)
	}
	// The note package reads signatures whose base64 has stray bits at its end:
	// the same signature in a form nobody wrote.
	for _, sig := range append(n.Sigs, n.UnverifiedSigs...) {
		if _, err := base64.StdEncoding.Strict().DecodeString(sig.Base64); err != nil {
			return Statement{}, fmt.Errorf("%w: checkpoint: signature: %v", ErrUnproved, err)
		}
	}
	origin, size, root, err := ParseCheckpoint(n.Text)
	if err != nil {
		return Statement{}, fmt.Errorf("%w: %v", ErrUnproved, err)
	}
	// The key's name is the log's origin. Without this a key that signs for
	// several logs could be made to vouch for a record of another.
	if origin != verifier.Name() {
		return Statement{}, fmt.Errorf("%w: checkpoint of %q under a key of %q", ErrUnproved, origin, verifier.Name())
	}
	if size != r.size || r.index < 0 || r.index >= size {
		return Statement{}, fmt.Errorf("%w: record %d of %d under a checkpoint of %d", ErrUnproved, r.index, r.size, size)
	}
	if err := tlog.CheckRecord(r.proof, size, root, r.index, tlog.RecordHash(r.leaf)); err != nil {
		return Statement{}, fmt.Errorf("%w: record %d is not in the tree of size %d", ErrUnproved, r.index, size)
	}
	s := Statement{Origin: origin, Index: r.index, TreeSize: size, Leaf: bytes.Clone(r.leaf)}
	if err := s.readLeaf(); err != nil {
		return Statement{}, fmt.Errorf("%w: %v", ErrUnproved, err)
	}
	return s, nil
}

// readLeaf takes the fields a caller decides on from the proved bytes. The
// map keeps names exact: a struct would let "Plan" stand for "plan".
func (s *Statement) readLeaf() error {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(s.Leaf, &m); err != nil {
		return fmt.Errorf("record is not a JSON object: %w", err)
	}
	for name, to := range map[string]*string{"type": &s.Type, "run": &s.Run, "plan": &s.Plan} {
		raw, ok := m[name]
		if !ok {
			continue
		}
		if err := json.Unmarshal(raw, to); err != nil {
			return fmt.Errorf("record field %q: %w", name, err)
		}
	}
	if s.Type == "" {
		return errors.New("record has no type")
	}
	return nil
}

// ParseCheckpoint reads origin, size and root from the start of a C2SP
// tlog-checkpoint, signed or not. Extension lines are allowed and ignored.
func ParseCheckpoint(text string) (origin string, size int64, root tlog.Hash, err error) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) < 4 || lines[0] == "" {
		return "", 0, root, fmt.Errorf("%w: checkpoint is too short", ErrMalformed)
	}
	if size, err = parseDecimal(lines[1]); err != nil {
		return "", 0, root, err
	}
	root, err = parseHash(lines[2])
	return lines[0], size, root, err
}

func parseDecimal(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("%w: bad number %.20q", ErrMalformed, s)
	}
	return n, nil
}

func parseHash(s string) (h tlog.Hash, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	// StdEncoding skips newlines, so one text must not have two readings.
	if err != nil || len(b) != len(h) || base64.StdEncoding.EncodeToString(b) != s {
		return h, fmt.Errorf("%w: bad hash %.50q", ErrMalformed, s)
	}
	copy(h[:], b)
	return h, nil
}
