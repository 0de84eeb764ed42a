package policy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
)

// Directory decides by the policy directory as it is at each question, and is
// for a process that is asked many. Every file is read, and its owner and mode
// looked at, every time; what is kept are the compiled policies of the same
// names and contents. So a changed rule or grant counts from the next question
// on, however quickly and quietly it was changed. A directory that cannot be
// read or compiled is an error, whatever it held before, and tried again at the
// next question. Safe for concurrent use.
type Directory struct {
	cfg Config

	mu sync.Mutex
	// engines are of the files whose digest content is, by point.
	content [sha256.Size]byte
	engines map[string]*Engine
}

// NewDirectory reads nothing yet. cfg.Point is not used: each question names
// its own.
func NewDirectory(cfg Config) *Directory { return &Directory{cfg: cfg} }

// Decide is Engine.Decide by the policy as it is now.
func (d *Directory) Decide(ctx context.Context, in Input) (Decision, error) {
	e, err := d.current(in.Point)
	if err != nil {
		return Decision{}, err
	}
	return e.Decide(ctx, in)
}

// current is the compiled policy of what the directory holds now. Others wait
// while one compiles: they need what it makes.
func (d *Directory) current(point string) (*Engine, error) {
	cfg := d.cfg
	cfg.Point = point
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	sources, err := readDirWith(cfg.Dir, cfg.Keys, false)
	if err != nil {
		return nil, err
	}
	if sum := contentOf(sources); d.engines == nil || sum != d.content {
		d.content, d.engines = sum, map[string]*Engine{}
	}
	if e := d.engines[point]; e != nil {
		return e, nil
	}
	e, err := open(cfg, sources)
	if err != nil {
		return nil, err
	}
	d.engines[point] = e
	return e, nil
}

// contentOf is the digest of the files' names and contents.
func contentOf(sources []source) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, s := range sources {
		fmt.Fprintf(h, "%q %d\n", s.name, len(s.text))
		h.Write(s.text)
		if s.bundle != nil { // the same files may be signed anew
			fmt.Fprintf(h, "%q %q\n", s.bundle.Digest, s.bundle.Key)
		}
	}
	h.Sum(sum[:0])
	return sum
}
