package audit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	maxNote   = 8 << 10
	maxOrigin = 320
	// maxCommit is the largest commit frame: read that much of the end of a
	// file and a valid last commit is in it.
	maxCommit = headerLen + 8 + tlog.HashSize + 1 + 63*tlog.HashSize + 2 + maxNote + 4
)

// commit closes a batch of records: the tree after them and its signature.
type commit struct {
	tree tree
	root tlog.Hash
	// note is the signed C2SP checkpoint, text its unsigned part.
	note []byte
	text string
}

// appendCommit adds c's frame. Its last four bytes are the frame's length, so
// that the last commit is found from the end of the file.
func appendCommit(b []byte, c commit) []byte {
	p := make([]byte, 0, 1024)
	p = binary.BigEndian.AppendUint64(p, uint64(c.tree.size))
	p = append(p, c.root[:]...)
	p = append(p, byte(len(c.tree.frontier)))
	for _, h := range c.tree.frontier {
		p = append(p, h[:]...)
	}
	p = binary.BigEndian.AppendUint16(p, uint16(len(c.note)))
	p = append(p, c.note...)
	p = binary.BigEndian.AppendUint32(p, uint32(headerLen+len(p)+4))
	return appendFrame(b, kindCommit, p)
}

var errCommit = errors.New("malformed commit")

// parseCommit reads a commit frame's payload and checks it against itself:
// frontier, root and checkpoint text must all say the same tree of origin. It
// does not check the signature. The result does not alias p.
func parseCommit(p []byte, origin string) (commit, error) {
	var c commit
	if len(p) < 8+tlog.HashSize+1 {
		return c, errCommit
	}
	total := len(p) + headerLen
	c.tree.size = int64(binary.BigEndian.Uint64(p))
	p = p[8:]
	p = p[copy(c.root[:], p):]
	n := int(p[0])
	p = p[1:]
	if c.tree.size < 0 || n != bits.OnesCount64(uint64(c.tree.size)) || len(p) < n*tlog.HashSize+2 {
		return c, errCommit
	}
	c.tree.frontier = make([]tlog.Hash, n, n+2)
	for i := range c.tree.frontier {
		p = p[copy(c.tree.frontier[i][:], p):]
	}
	size := int(binary.BigEndian.Uint16(p))
	p = p[2:]
	if size > maxNote || len(p) != size+4 || int(binary.BigEndian.Uint32(p[size:])) != total {
		return c, errCommit
	}
	c.note = bytes.Clone(p[:size])
	if c.tree.root() != c.root {
		return c, fmt.Errorf("%w: frontier and root differ", errCommit)
	}
	c.text = checkpointText(origin, c.tree.size, c.root)
	if !bytes.HasPrefix(c.note, []byte(c.text+"\n")) {
		return c, fmt.Errorf("%w: checkpoint is not of this tree", errCommit)
	}
	return c, nil
}

// verify checks the checkpoint's signature, and that what is signed is the
// text the commit was checked against and no more.
func (c commit) verify(known note.Verifiers) error {
	n, err := note.Open(c.note, known)
	if err == nil && n.Text != c.text {
		err = errors.New("checkpoint has another text")
	}
	return err
}

// checkpointText is the text of a C2SP tlog-checkpoint, without extensions.
func checkpointText(origin string, size int64, root tlog.Hash) string {
	return fmt.Sprintf("%s\n%d\n%s\n", origin, size, root)
}

// verifyOwn is verify for the holder of the key. Ed25519 signatures are
// deterministic: signing again and comparing is several times cheaper than
// verifying, above all in a process that has done neither yet.
func (c commit) verifyOwn(signer note.Signer, known note.Verifiers) error {
	n, err := note.Sign(&note.Note{Text: c.text}, signer)
	if err == nil && bytes.Equal(n, c.note) {
		return nil
	}
	return c.verify(known) // says what is wrong, or allows more signatures
}

// signCommit makes the commit of t.
func signCommit(t tree, signer note.Signer) (commit, error) {
	root := t.root()
	text := checkpointText(signer.Name(), t.size, root)
	n, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		return commit{}, fmt.Errorf("sign checkpoint: %w", err)
	}
	return commit{t, root, n, text}, nil
}

// segmentHeader begins every segment. A commit of the tree it continues
// follows, so that each segment can be appended to without the one before.
type segmentHeader struct {
	number uint32
	epoch  uint32
	// first is the index of the segment's first record.
	first int64
	// prevEnd is how much of the previous segment counts, in bytes: behind a
	// failed flush lies what the disk did not keep.
	prevEnd int64
	origin  string
}

var segmentMagic = []byte("wardlog1")

func appendSegmentHeader(b []byte, h segmentHeader) []byte {
	p := append([]byte(nil), segmentMagic...)
	p = binary.BigEndian.AppendUint32(p, h.number)
	p = binary.BigEndian.AppendUint32(p, h.epoch)
	p = binary.BigEndian.AppendUint64(p, uint64(h.first))
	p = binary.BigEndian.AppendUint64(p, uint64(h.prevEnd))
	p = binary.BigEndian.AppendUint16(p, uint16(len(h.origin)))
	p = append(p, h.origin...)
	return appendFrame(b, kindSegment, p)
}

func parseSegmentHeader(p []byte) (segmentHeader, error) {
	var h segmentHeader
	p, ok := bytes.CutPrefix(p, segmentMagic)
	if !ok || len(p) < 4+4+8+8+2 {
		return h, errors.New("malformed segment header")
	}
	h.number = binary.BigEndian.Uint32(p)
	h.epoch = binary.BigEndian.Uint32(p[4:])
	h.first = int64(binary.BigEndian.Uint64(p[8:]))
	h.prevEnd = int64(binary.BigEndian.Uint64(p[16:]))
	n := int(binary.BigEndian.Uint16(p[24:]))
	p = p[26:]
	if len(p) != n || n == 0 || n > maxOrigin || h.first < 0 || h.prevEnd < 0 || h.epoch != 0 {
		return h, errors.New("malformed segment header")
	}
	h.origin = string(p)
	return h, nil
}
