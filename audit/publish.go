package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fsx"
)

const (
	// tileHeight is C2SP's: a full tile has 256 hashes, a full bundle 256 records.
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	// checkpointFile is written last: what it covers is there.
	checkpointFile = "checkpoint"
)

// Published is what Publish has done.
type Published struct {
	Origin string
	// Before and Size are how many records were published, and are now; Files
	// how many files that took.
	Before, Size int64
	Files        int
}

// Publish brings the directory out up to date with the log in dir: the same
// records and hashes as static files, so that tools which know nothing of ward
// read and check them (C2SP tlog-tiles, https://c2sp.org/tlog-tiles). The
// directory is made if it is not there.
//
// It reads the whole log and checks it as Read does, its last checkpoint under
// vkey, and that the log continues what out holds: a log that was rewritten
// since is refused with a *Damage. Its memory does not grow with the log. The
// checkpoint comes last and durably, so that a crash leaves out as it was but
// for files that nothing refers to. One process at a time may publish to out.
func Publish(dir, out, vkey string) (_ Published, err error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return Published{}, fmt.Errorf("%w: verification key: %w", ErrInvalid, err)
	}
	j, err := openJournal(dir)
	if err != nil {
		return Published{}, fmt.Errorf("audit log %s: %w", dir, err)
	}
	defer j.close()
	p, err := openPublication(out, v)
	if err != nil {
		return Published{}, fmt.Errorf("publish to %s: %w", out, err)
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.take(j, v); err != nil {
		return Published{}, fmt.Errorf("audit log %s: %w", dir, err)
	}
	return Published{Origin: v.Name(), Before: p.before.size, Size: p.size, Files: p.files}, nil
}

// publication is a directory with a log in it as others read it.
type publication struct {
	// root keeps whoever else may write there from leading us out of it.
	root *os.Root
	lock *fsx.Lock
	// before is the tree that is published already.
	before checkpoint
	size   int64
	levels []tileLevel
	// bundle are the records of the unfinished lowest tile.
	bundle []byte
	files  int
}

// tileLevel is the unfinished last tile of one level.
type tileLevel struct {
	full   int64 // finished tiles to its left
	hashes []tlog.Hash
}

func openPublication(out string, v note.Verifier) (_ *publication, err error) {
	if err := os.MkdirAll(out, 0o700); err != nil {
		return nil, err
	}
	p := &publication{}
	if p.lock, err = fsx.TryLock(filepath.Join(out, ".lock")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.root, err = os.OpenRoot(out); err != nil {
		return nil, err
	}
	f, err := p.root.Open(checkpointFile)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxNote))
	if err != nil {
		return nil, err
	}
	if p.before, err = parseCheckpoint(b, v); err != nil {
		return nil, fmt.Errorf("%s: %w", checkpointFile, err)
	}
	return p, nil
}

func (p *publication) close() error {
	var err error
	if p.root != nil {
		err = p.root.Close()
	}
	return errors.Join(err, p.lock.Unlock())
}

// take publishes what the journal has beyond what is there.
func (p *publication) take(j *journal, v note.Verifier) error {
	var last *batch
	known := p.before.continued()
	err := j.walk(func(b *batch) error {
		if err := known(b); err != nil {
			return err
		}
		for _, leaf := range b.leaves {
			if err := p.add(leaf); err != nil {
				return err
			}
		}
		last = b
		return nil
	})
	switch {
	case err != nil:
		return err
	case last == nil:
		return ErrNoLog
	}
	if err := last.checkSignature(v); err != nil {
		return err
	}
	if err := known(nil); err != nil {
		return last.located(err)
	}
	p.size = last.commit.tree.size
	if p.size == p.before.size {
		return nil
	}
	return p.finish(last.commit.note)
}

func (p *publication) add(leaf []byte) error {
	p.bundle = binary.BigEndian.AppendUint16(p.bundle, uint16(len(leaf))) // maxLeaf is below 64 KiB
	p.bundle = append(p.bundle, leaf...)
	return p.hash(0, tlog.RecordHash(leaf))
}

// hash appends to a level, and to the one above when that fills a tile.
func (p *publication) hash(level int, h tlog.Hash) error {
	if level == len(p.levels) {
		p.levels = append(p.levels, tileLevel{hashes: make([]tlog.Hash, 0, tileWidth)})
	}
	l := &p.levels[level]
	if l.hashes = append(l.hashes, h); len(l.hashes) < tileWidth {
		return nil
	}
	n := l.full
	if err := p.tile(level, n, l.hashes); err != nil {
		return err
	}
	var t tree
	for _, h := range l.hashes {
		t.add(h)
	}
	l.full, l.hashes = n+1, l.hashes[:0]
	if level == 0 {
		p.bundle = p.bundle[:0]
	}
	return p.hash(level+1, t.root())
}

// tile writes one tile, and at the lowest level its records, unless a full one
// is there.
func (p *publication) tile(level int, n int64, hashes []tlog.Hash) error {
	first := n << tileHeight
	full := len(hashes) == tileWidth
	published := p.before.size >> (tileHeight * level) // hashes of this level
	if full && first+tileWidth <= published {
		return nil
	}
	var names []string
	data := make([]byte, 0, tileWidth*tlog.HashSize)
	for _, h := range hashes {
		data = append(data, h[:]...)
	}
	if level == 0 {
		names = append(names, tileName("entries", n))
	}
	names = append(names, tileName(fmt.Sprint(level), n))
	for i, name := range names {
		at, content := name, data
		if level == 0 && i == 0 {
			content = p.bundle
		}
		if !full {
			at = fmt.Sprintf("%s.p/%d", name, len(hashes))
		}
		if err := p.write(at, content); err != nil {
			return err
		}
		// Readers of an older checkpoint take the full one instead.
		if full && published > first {
			if err := p.root.RemoveAll(name + ".p"); err != nil {
				return err
			}
		}
	}
	return nil
}

// tileName is where tile n lies: "tile/0/x001/x234/067" for n = 1234067.
func tileName(level string, n int64) string {
	name := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		name = fmt.Sprintf("x%03d/%s", n%1000, name)
	}
	return path.Join("tile", level, name)
}

// write places a file whole. It is durable once finish has said so.
func (p *publication) write(name string, data []byte) error {
	if err := p.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	const fresh = ".new"
	if err := p.root.WriteFile(fresh, data, 0o644); err != nil {
		return err
	}
	p.files++
	return p.root.Rename(fresh, name)
}

// finish writes what is unfinished, and then the checkpoint.
func (p *publication) finish(note []byte) error {
	for level, l := range p.levels {
		if len(l.hashes) == 0 {
			continue
		}
		if err := p.tile(level, l.full, l.hashes); err != nil {
			return err
		}
	}
	if err := p.sync(); err != nil {
		return err
	}
	if err := p.write(checkpointFile, note); err != nil {
		return err
	}
	return p.sync()
}

// sync makes durable what was written: one call instead of two for each file.
func (p *publication) sync() error {
	d, err := p.root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}
