package audit

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// kind is what a frame holds.
type kind byte

// The kinds of frames, as on disk.
const (
	kindPad     kind = 0 // ignored; covers bytes that were overwritten
	kindRecord  kind = 1
	kindCommit  kind = 2
	kindSegment kind = 3
	kindOutput  kind = 4 // header of an output log
	kindChunk   kind = 5
	kindLast         = kindChunk
)

const (
	// headerLen is u32 payload length, u32 CRC-32C, u8 kind; big endian.
	headerLen = 9
	// maxPayload bounds what a reader allocates for one frame.
	maxPayload = 128 << 10
	// maxLeaf bounds one record: C2SP tiles allow 64 KiB entries.
	maxLeaf = 60 << 10
)

// The package crc32's own table for this polynomial takes 0.2 ms to set up for
// the processor's instructions: more than a process needs that writes one
// record. Readers of whole logs use it, writers a plain one.
var (
	castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })
	plainTable = makePlainTable()
)

func makePlainTable() *crc32.Table {
	t := new(crc32.Table)
	for i := range t {
		c := uint32(i)
		for range 8 {
			c = c>>1 ^ crc32.Castagnoli&-(c&1)
		}
		t[i] = c
	}
	return t
}

// appendFrame adds one frame to b. The checksum covers length and kind too: a
// flipped length must not be able to reframe what follows.
func appendFrame(b []byte, k kind, payload ...[]byte) []byte {
	start := len(b)
	b = append(b, make([]byte, headerLen)...)
	for _, p := range payload {
		b = append(b, p...)
	}
	h := b[start : start+headerLen]
	binary.BigEndian.PutUint32(h, uint32(len(b)-start-headerLen))
	h[8] = byte(k)
	t := plainTable
	if len(b)-start > 8<<10 {
		t = castagnoli()
	}
	binary.BigEndian.PutUint32(h[4:], frameCRC(t, h, b[start+headerLen:]))
	return b
}

func frameCRC(t *crc32.Table, header, payload []byte) uint32 {
	c := crc32.Update(0, t, header[:4])
	c = crc32.Update(c, t, header[8:headerLen])
	return crc32.Update(c, t, payload)
}

// frame is one frame as read; payload is valid until the next read.
type frame struct {
	kind    kind
	payload []byte
	off     int64
}

// frameError is a frame that cannot be read, and where it begins.
type frameError struct {
	class  Class
	off    int64
	detail string
}

func (e *frameError) Error() string {
	return fmt.Sprintf("%s at byte %d: %s", e.class, e.off, e.detail)
}

// scanner reads frames one after the other.
type scanner struct {
	r   *bufio.Reader
	off int64 // of the next frame
	buf []byte
}

func newScanner(r io.Reader, off int64) *scanner {
	return &scanner{r: bufio.NewReaderSize(r, 64<<10), off: off}
}

// next is the next frame; io.EOF at a clean end, *frameError for bytes that
// are no frame, anything else is an error of the reader.
func (s *scanner) next() (frame, error) {
	bad := func(c Class, format string, args ...any) (frame, error) {
		return frame{}, &frameError{c, s.off, fmt.Sprintf(format, args...)}
	}
	var h [headerLen]byte
	switch n, err := io.ReadFull(s.r, h[:]); {
	case err == io.EOF:
		return frame{}, io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return bad(ClassTorn, "file ends after %d bytes of a frame's header", n)
	case err != nil:
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(h[:])
	if size > maxPayload {
		return bad(ClassFrame, "frame of %d bytes", size)
	}
	if cap(s.buf) < int(size) {
		s.buf = make([]byte, max(int(size), 4096))
	}
	p := s.buf[:size]
	switch n, err := io.ReadFull(s.r, p); {
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF):
		return bad(ClassTorn, "file ends after %d of a frame's %d bytes", n, size)
	case err != nil:
		return frame{}, err
	}
	if want := binary.BigEndian.Uint32(h[4:]); frameCRC(castagnoli(), h[:], p) != want {
		return bad(ClassCRC, "checksum of a frame of %d bytes does not match", size)
	}
	f := frame{kind(h[8]), p, s.off}
	if f.kind > kindLast {
		return bad(ClassFrame, "frame of unknown kind %d", f.kind)
	}
	s.off += headerLen + int64(size)
	return f, nil
}

// parseFrame reads exactly one frame from b.
func parseFrame(b []byte) (kind, []byte, bool) {
	if len(b) < headerLen || int64(binary.BigEndian.Uint32(b)) != int64(len(b)-headerLen) {
		return 0, nil, false
	}
	p := b[headerLen:]
	return kind(b[8]), p, frameCRC(plainTable, b, p) == binary.BigEndian.Uint32(b[4:])
}
