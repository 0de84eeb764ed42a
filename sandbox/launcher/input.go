package launcher

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"
)

// input is the payload's standard input, to which any number of clients write,
// one at a time.
type input struct {
	to       *os.File
	terminal bool
	// open says that the end of a client's input is not the end of this one.
	open bool
	turn chan struct{} // holds one value while somebody writes
	end  sync.Once
}

func newInput(to *os.File, terminal, open bool) *input {
	return &input{to: to, terminal: terminal, open: open, turn: make(chan struct{}, 1)}
}

// feed writes what comes from from until that ends, the payload takes no more,
// or ctx ends; none of these is an error of the run.
func (in *input) feed(ctx context.Context, from *os.File) {
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if werr := in.write(ctx, buf[:n]); werr != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	if !in.open {
		in.close()
	}
}

// write writes all of p unless ctx ends first: a client that goes away while
// the payload does not read leaves nobody waiting here.
func (in *input) write(ctx context.Context, p []byte) error {
	select {
	case in.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-in.turn }()
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		in.to.SetWriteDeadline(time.Unix(1, 0))
		close(cut)
	})
	_, err := in.to.Write(p)
	if !stop() {
		<-cut
		in.to.SetWriteDeadline(time.Time{}) // the next one may write
		return errors.Join(err, ctx.Err())
	}
	return err
}

// close ends the payload's input. A terminal's is its output too.
func (in *input) close() {
	if !in.terminal {
		in.end.Do(func() { in.to.Close() })
	}
}
