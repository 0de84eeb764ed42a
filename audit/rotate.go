package audit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"
)

// keeping is how much of the output is kept, beside the limit.
type keeping struct {
	nothing bool
	// size is when a file is full, in bytes, and files how many are kept; zero
	// size never begins another.
	size  int64
	files int
}

// Rotate begins another file when one has reached size bytes and keeps the
// newest files of them, as path, path.1 and so on, the newest first. Each file
// begins with the state of the tree over everything before it, so that what is
// left still verifies against the seal when older files are gone.
func (o *Output) Rotate(size int64, files int) error {
	if size < maxChunk || files < 1 {
		return fmt.Errorf("%w: %d files of %d bytes", ErrInvalid, files, size)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keep.size, o.keep.files = size, files
	return nil
}

// Discard keeps nothing from now on; what comes is counted as dropped.
func (o *Output) Discard() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keep.nothing = true
}

// turn begins another file if n more bytes do not fit into this one.
func (o *Output) turn(n int64) error {
	if o.broken != nil {
		return o.broken
	}
	head := appendFrame(nil, kindOutput, outputHeader(o.tree))
	if o.keep.size == 0 || o.end+n <= o.keep.size || o.end <= int64(len(head)) {
		return nil
	}
	if o.keep.files == 1 {
		if err := os.Remove(o.path); err != nil {
			return classify(err)
		}
	}
	for i := o.keep.files - 1; i >= 1; i-- {
		from := OutputPart(o.path, i-1)
		if err := os.Rename(from, OutputPart(o.path, i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return classify(err)
		}
	}
	f, err := os.OpenFile(o.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		o.broken = classify(err)
		return o.broken
	}
	old := o.f
	o.f, o.end = f, 0
	if err := o.write(head); err != nil {
		o.broken = err
	}
	return errors.Join(o.broken, old.Close())
}

// OutputPart is the name of the file that was turned away i files ago.
func OutputPart(path string, i int) string {
	if i == 0 {
		return path
	}
	return fmt.Sprintf("%s.%d", path, i)
}

// outputHeader begins an output log whose earlier chunks are in other files,
// or nowhere any more: their number, and the tree over them.
func outputHeader(t tree) []byte {
	b := bytes.Clone(outputMagic)
	if t.size == 0 {
		return b
	}
	b = binary.BigEndian.AppendUint64(b, uint64(t.size))
	for _, h := range t.frontier {
		b = append(b, h[:]...)
	}
	return b
}

// readOutputHeader is the tree before the first chunk of a file that begins
// with f, or false if it begins no output log.
func readOutputHeader(f frame) (tree, bool) {
	rest, ok := bytes.CutPrefix(f.payload, outputMagic)
	if !ok || f.kind != kindOutput {
		return tree{}, false
	}
	if len(rest) == 0 {
		return tree{}, true
	}
	if len(rest) < 8 {
		return tree{}, false
	}
	size := binary.BigEndian.Uint64(rest)
	rest = rest[8:]
	if size == 0 || size > 1<<62 || len(rest) != bits.OnesCount64(size)*tlog.HashSize {
		return tree{}, false
	}
	t := tree{size: int64(size)}
	for ; len(rest) > 0; rest = rest[tlog.HashSize:] {
		t.frontier = append(t.frontier, tlog.Hash(rest[:tlog.HashSize]))
	}
	return t, true
}
