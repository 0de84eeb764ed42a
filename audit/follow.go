package audit

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

// followEvery is how often Follow looks whether there is more.
const followEvery = 100 * time.Millisecond

// Follow is Read that goes on: when it has read all there is it waits for
// more, until ctx ends, which is no error. Every record comes once.
func Follow(ctx context.Context, dir string, from int64, fn func(Entry) error) error {
	next, seen := from, int64(-1)
	for {
		size, err := journalSize(dir)
		if err != nil {
			return err
		}
		if size != seen {
			seen = size // taken before reading: what comes meanwhile is read next time
			err := Read(dir, next, func(e Entry) error {
				next = e.Index + 1
				return fn(e)
			})
			if err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
}

// journalSize is the size of all segments: it changes with every commit.
func journalSize(dir string) (int64, error) {
	dir = filepath.Join(dir, journalDir)
	ns, err := segments(dir)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, n := range ns {
		st, err := os.Stat(filepath.Join(dir, segmentName(n)))
		if err != nil {
			return 0, err
		}
		sum += st.Size()
	}
	return sum, nil
}
