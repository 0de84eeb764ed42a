package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Chunk is a piece of output as it arrived.
type Chunk struct {
	// Index is the chunk's place in the output log, from 0.
	Index  int64
	Stream Stream
	Time   time.Time
	// Data is the payload's exact bytes; valid until the next read.
	Data []byte
}

// OutputReader reads an output log that may still be growing.
type OutputReader struct {
	f     *os.File
	off   int64
	index int64
	tree  tree
	sc    *scanner
}

// OpenOutput opens the output log at path for reading.
func OpenOutput(path string) (*OutputReader, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return &OutputReader{f: f}, nil
}

// Next is the next chunk. At the end of what is there it is io.EOF, or a
// *Damage of ClassTorn if the file ends inside a frame; both may be tried
// again while the writer lives. Other damage is a *Damage too and is final:
// reading never silently stops short.
func (r *OutputReader) Next() (Chunk, error) {
	for {
		fresh := r.sc == nil
		if fresh {
			r.sc = newScanner(io.NewSectionReader(r.f, r.off, math.MaxInt64-r.off), r.off)
		}
		f, err := r.sc.next()
		if err != nil {
			r.sc = nil
			if !fresh {
				continue // what was buffered may be older than the file is now
			}
			return Chunk{}, r.located(err)
		}
		at := r.off
		r.off = r.sc.off
		if at == 0 {
			before, ok := readOutputHeader(f)
			if !ok {
				return Chunk{}, r.damage(ClassFrame, at, "not an output log")
			}
			r.tree, r.index = before, before.size
			continue
		}
		if f.kind != kindChunk || len(f.payload) < chunkHead || len(f.payload) > chunkHead+maxChunk {
			return Chunk{}, r.damage(ClassFrame, at, "frame of kind %d out of place", f.kind)
		}
		if s := Stream(f.payload[0]); s != Stdout && s != Stderr {
			return Chunk{}, r.damage(ClassFrame, at, "chunk of %v", s)
		}
		head, body := f.payload[:chunkHead], f.payload[chunkHead:]
		c := Chunk{
			Index: r.index, Stream: Stream(head[0]), Data: body,
			Time: time.Unix(0, int64(binary.BigEndian.Uint64(head[1:]))),
		}
		r.tree.add(chunkHash(head, body))
		r.index++
		return c, nil
	}
}

func (r *OutputReader) damage(c Class, off int64, format string, args ...any) error {
	return &Damage{Class: c, Segment: r.f.Name(), Offset: off, Index: r.index, Detail: fmt.Sprintf(format, args...)}
}

func (r *OutputReader) located(err error) error {
	var fe *frameError
	if errors.As(err, &fe) {
		return r.damage(fe.class, fe.off, "%s", fe.detail)
	}
	return err
}

// Close releases the file.
func (r *OutputReader) Close() error { return r.f.Close() }

// ReadOutput calls fn for each chunk of the output log at path. It ends with
// nil at a clean end and with a *Damage, ClassTorn for an unfinished last
// chunk, otherwise. An error of fn ends it and is returned as it is.
func ReadOutput(path string, fn func(Chunk) error) error {
	r, err := OpenOutput(path)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		c, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(c); err != nil {
			return err
		}
	}
}

// VerifyOutput checks that the output log at path is exactly what want binds:
// as many chunks, their bytes and order, and nothing after them. Of a log that
// was rotated it checks the newest file, whose beginning stands for all before
// it. Damage is a
// *Damage: its own class, ClassRollback for missing chunks, ClassRoot for
// changed or added ones.
func VerifyOutput(path string, want Anchor) error {
	r, err := OpenOutput(path)
	if errors.Is(err, os.ErrNotExist) {
		return &Damage{Class: ClassMissing, Segment: path, Detail: "no such file"}
	}
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		_, err = r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if r.index > want.Size {
			return r.damage(ClassRoot, r.off, "more than the %d chunks sealed", want.Size)
		}
	}
	if r.index < want.Size {
		return r.damage(ClassRollback, r.off, "%d chunks of the %d sealed", r.index, want.Size)
	}
	if got := r.tree.root().String(); got != want.Root {
		return r.damage(ClassRoot, 0, "root %s, sealed %s", got, want.Root)
	}
	return nil
}
