package audit

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"
)

// Stream is one of a payload's output streams.
type Stream uint8

// The streams, numbered like their descriptors.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// String is "stdout" or "stderr".
func (s Stream) String() string {
	switch s {
	case Stdout:
		return "stdout"
	case Stderr:
		return "stderr"
	}
	return fmt.Sprintf("stream(%d)", uint8(s))
}

const (
	// maxChunk is the most output one chunk holds, in bytes.
	maxChunk = 64 << 10
	saltLen  = 32
	// chunkHead is stream, time and salt.
	chunkHead = 1 + 8 + saltLen
)

var outputMagic = []byte("wardout1")

// Output is the output log of one run, written by its monitor alone. What is
// written is in the file, byte for byte, when Write returns, and survives this
// process; it is flushed only by Sync. It is safe for concurrent use.
type Output struct {
	mu     sync.Mutex
	f      *os.File
	path   string
	end    int64
	limit  int64
	keep   keeping
	tree   tree
	anchor Anchor
	broken error
	buf    []byte
}

// CreateOutput makes the output log at path (0600); fs.ErrExist if there is
// one. ErrFull and ErrReadOnly are told apart.
func CreateOutput(path string) (*Output, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, classify(err)
	}
	o := &Output{f: f, path: path}
	if err := o.write(appendFrame(nil, kindOutput, outputMagic)); err != nil {
		f.Close()
		return nil, errors.Join(err, os.Remove(path))
	}
	return o, nil
}

// Limit bounds the output kept to n bytes from now on, and the file to about
// twice that; 0 means no bound. What comes after is dropped and counted, never
// silently.
func (o *Output) Limit(n int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.limit = n
}

// Write adds what a payload wrote to stream, in chunks of at most 64 KiB with
// the time of their arrival. Output over the limit is counted and no error;
// output that cannot be written is counted too, and the error returned.
func (o *Output) Write(stream Stream, p []byte) error {
	if stream != Stdout && stream != Stderr {
		return fmt.Errorf("%w: output of %v", ErrInvalid, stream)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.keep.nothing {
		o.anchor.Dropped += int64(len(p))
		return nil
	}
	if o.limit > 0 {
		left := max(o.limit-o.anchor.Bytes, 0)
		// Each chunk has a head of its own. Byte by byte a payload would
		// otherwise fill fifty times the space it is allowed.
		if o.end > 2*o.limit+maxChunk {
			left = 0
		}
		if int64(len(p)) > left {
			o.anchor.Dropped += int64(len(p)) - left
			p = p[:left]
		}
	}
	for len(p) > 0 {
		n := min(len(p), maxChunk)
		if err := o.chunk(stream, p[:n]); err != nil {
			o.anchor.Dropped += int64(len(p))
			return err
		}
		p = p[n:]
	}
	return nil
}

func (o *Output) chunk(stream Stream, body []byte) error {
	var head [chunkHead]byte
	head[0] = byte(stream)
	binary.BigEndian.PutUint64(head[1:], uint64(time.Now().UnixNano()))
	if _, err := rand.Read(head[9:]); err != nil {
		return err
	}
	o.buf = appendFrame(o.buf[:0], kindChunk, head[:], body)
	if err := o.turn(int64(len(o.buf))); err != nil {
		return err
	}
	if err := o.write(o.buf); err != nil {
		return err
	}
	o.tree.add(chunkHash(head[:], body))
	o.anchor.Size++
	o.anchor.Bytes += int64(len(body))
	if stream == Stdout {
		o.anchor.Stdout += int64(len(body))
	} else {
		o.anchor.Stderr += int64(len(body))
	}
	return nil
}

// write puts one frame at the end of the file with one system call, or leaves
// the file as it was.
func (o *Output) write(b []byte) error {
	if o.broken != nil {
		return o.broken
	}
	for {
		n, err := unix.Pwrite(int(o.f.Fd()), b, o.end)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == len(b) {
			o.end += int64(n)
			return nil
		}
		if err == nil {
			err = unix.ENOSPC
		}
		err = classify(&os.PathError{Op: "write", Path: o.f.Name(), Err: err})
		if terr := o.f.Truncate(o.end); terr != nil {
			o.broken = errors.Join(err, terr)
		}
		return err
	}
}

// chunkHash is a chunk's hash in the tree. The leaf commits to the body by a
// salted digest, so that a body can be deleted later and everything else still
// verifies, and so that a short body cannot be guessed from its hash.
func chunkHash(head, body []byte) tlog.Hash {
	h := sha256.New()
	h.Write(head[9:chunkHead])
	h.Write(body)
	l := make([]byte, 0, 9+4+sha256.Size)
	l = append(l, head[:9]...)
	l = binary.BigEndian.AppendUint32(l, uint32(len(body)))
	return tlog.RecordHash(h.Sum(l))
}

// Root is the number of chunks so far and the base64 RFC 6962 root over them.
func (o *Output) Root() (size int64, root string) {
	a := o.Anchor()
	return a.Size, a.Root
}

// Anchor binds what has been written so far, for a run.anchor record.
func (o *Output) Anchor() Anchor {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.anchored()
}

func (o *Output) anchored() Anchor {
	a := o.anchor
	a.Root = o.tree.root().String()
	return a
}

// Sync makes what has been written durable.
func (o *Output) Sync() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return fdatasync(o.f)
}

// Seal closes the file and binds its content, for a run.seal record. It does
// not flush. The Seal is good also if closing reports an error.
func (o *Output) Seal() (Seal, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	a := o.anchored()
	return Seal{
		OutputRoot: a.Root, OutputSize: o.end, Chunks: a.Size,
		Bytes: a.Bytes, Stdout: a.Stdout, Stderr: a.Stderr, Dropped: a.Dropped,
	}, o.close()
}

// Close releases the file without a seal.
func (o *Output) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.close()
}

func (o *Output) close() error {
	if errors.Is(o.broken, ErrClosed) {
		return nil
	}
	o.broken = ErrClosed
	return o.f.Close()
}
