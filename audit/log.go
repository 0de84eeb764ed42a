package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit/receipt"
)

// Log is an open audit log. It is safe for concurrent use, and other
// processes may have the same log open.
type Log struct {
	dir      string // the journal's directory
	signer   note.Signer
	vkey     string
	verifier note.Verifiers
	stamp    stamp
	lock     *os.File

	queueMu sync.Mutex
	queue   []*request

	// mu guards the fields below and serialises this process's writes.
	mu     sync.Mutex
	seg    *os.File
	number uint32
	end    int64 // of the last commit seen in seg
	tree   tree
	old    []*os.File // left behind by new segments; a flush may still use them
	closed bool

	// light says that the ballast was given up.
	light atomic.Bool
	// written is what the next flush makes durable.
	written atomic.Pointer[mark]
	// syncMu serialises flushes; it is taken after mu.
	syncMu sync.Mutex
	synced atomic.Int64 // records known to be durable
	failed atomic.Pointer[error]
}

// mark says that all records below size are in file or in segments that were
// flushed before file was made.
type mark struct {
	file *os.File
	size int64
}

// Permit says that an intent is durably recorded. Only Intend makes one; the
// zero Permit permits nothing.
type Permit struct{ receipt receipt.Receipt }

// Receipt proves the recorded intent; it is the zero Receipt for a zero Permit.
func (p Permit) Receipt() receipt.Receipt { return p.receipt }

// Open opens the log in dir for writing. It never creates anything. If the
// last write was interrupted, it is recovered here (see package doc).
//
// Errors match ErrNoLog, ErrKey, ErrReadOnly, ErrFileSystem, ErrLocked,
// ErrFull or ErrDamaged.
func Open(dir string) (*Log, error) {
	l, err := open(filepath.Join(dir, journalDir))
	if err != nil {
		return nil, fmt.Errorf("audit log %s: %w", dir, err)
	}
	return l, nil
}

func open(dir string) (_ *Log, err error) {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, ErrNoLog
	} else if err != nil {
		return nil, classify(err)
	}
	if err := checkFileSystem(dir); err != nil {
		return nil, err
	}
	l := &Log{dir: dir}
	if l.signer, err = loadKey(dir); err != nil {
		return nil, err
	}
	if err := l.loadPublic(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if l.lock, err = openFile(filepath.Join(dir, lockFile)); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(dir, ballastFile)); errors.Is(err, fs.ErrNotExist) {
		l.light.Store(true)
	}
	if err := l.openLast(); err != nil {
		return nil, err
	}
	return l, l.start()
}

// loadPublic reads the public key that stands beside the private one, so that
// what this process signs is what the published key verifies.
func (l *Log) loadPublic() error {
	b, err := VKey(filepath.Dir(l.dir))
	if err != nil {
		return err
	}
	v, err := note.NewVerifier(b)
	if err != nil || v.Name() != l.signer.Name() || v.KeyHash() != l.signer.KeyHash() {
		return fmt.Errorf("%w: %s is not the public half of %s", ErrKey, vkeyFile, keyFile)
	}
	l.vkey, l.verifier = b, note.VerifierList(v)
	l.stamp = stamp{host: hostOf(v.Name()), boot: bootID()}
	return nil
}

// hostOf is the host in an origin "ward/HOST/RANDOM".
func hostOf(origin string) string { return filepath.Base(filepath.Dir(origin)) }

// openFile opens an existing file of the log for writing. That it is missing
// is damage: a log appears with all its files.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Damage{Class: ClassMissing, Segment: filepath.Base(path), Detail: "no such file"}
	}
	return f, classify(err)
}

// openLast opens the newest segment.
func (l *Log) openLast() error {
	ns, err := segments(l.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return classify(err)
	}
	if len(ns) == 0 {
		return &Damage{Class: ClassMissing, Segment: segmentName(0), Detail: "no such file"}
	}
	n := ns[len(ns)-1]
	f, err := openFile(filepath.Join(l.dir, segmentName(n)))
	if err != nil {
		return err
	}
	if l.seg != nil {
		l.old = append(l.old, l.seg)
	}
	l.seg, l.number, l.end = f, n, 0
	return nil
}

// start reads the end of the log. Without the lock a write of another process
// may be seen half done, so only a good end is believed; anything else is
// looked at again under the lock.
func (l *Log) start() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.written.Store(&mark{file: l.seg})
	st, err := l.seg.Stat()
	if err != nil {
		return err
	}
	if c, err := l.tail(st.Size()); err == nil {
		l.tree, l.end = c.tree, st.Size()
	} else if err := l.locked(func() error { return nil }); err != nil {
		return err
	}
	l.written.Store(&mark{l.seg, l.tree.size})
	return nil
}

// Close releases the log. It does not flush: what was acknowledged already is.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.closed = true
	l.syncMu.Lock() // no flush may lose its descriptor
	defer l.syncMu.Unlock()
	l.retire(ErrClosed)
	var err error
	for _, f := range append(l.old, l.seg, l.lock) {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// VKey is the log's public key in signed-note form, what Verify and
// Receipt.Verify take.
func (l *Log) VKey() string { return l.vkey }

// Origin is the log's name, as in its checkpoints.
func (l *Log) Origin() string { return l.signer.Name() }

// Intend records that a plan is about to be launched and returns only when
// that is on disk and signed. It is not interrupted by ctx once begun: hanging
// up does not unwrite.
//
// Errors match ErrInvalid, ErrTooLarge, ErrFull, ErrReadOnly, ErrLocked,
// ErrPoisoned, ErrClosed, ErrDamaged or ctx's. After an error the record may
// still be in the log; no Permit for it exists.
func (l *Log) Intend(ctx context.Context, in Intent) (Permit, error) {
	typ := cmp.Or(in.Type, RunIntent)
	if !isIntent(typ) {
		return Permit{}, fmt.Errorf("%w: %s is not an intent", ErrInvalid, typ)
	}
	if in.Run == "" || !isDigest(in.Plan) {
		return Permit{}, fmt.Errorf("%w: %s without run or plan digest", ErrInvalid, typ)
	}
	if err := l.usable(); err != nil {
		return Permit{}, err
	}
	if err := l.reserve(); err != nil {
		return Permit{}, err
	}
	q, err := l.commit(ctx, []Record{{Type: typ, Run: in.Run, Actor: in.Actor, Plan: in.Plan, Data: in}}, true, true)
	if err != nil {
		return Permit{}, err
	}
	return Permit{receipt.New(q.leaves[0], q.index, q.size, q.proof, q.note)}, nil
}

// Prove records like Append and returns the proof of it, for who acts only on
// what is on record. An intent has Intend.
func (l *Log) Prove(ctx context.Context, r Record) (Permit, error) {
	if err := appendable(r); err != nil {
		return Permit{}, err
	}
	if r.Run == "" || !isDigest(r.Plan) {
		return Permit{}, fmt.Errorf("%w: %s without run or plan digest", ErrInvalid, r.Type)
	}
	q, err := l.commit(ctx, []Record{r}, true, true)
	if err != nil {
		return Permit{}, err
	}
	return Permit{receipt.New(q.leaves[0], q.index, q.size, q.proof, q.note)}, nil
}

func appendable(r Record) error {
	if isIntent(r.Type) || r.Type == LogGenesis || r.Type == LogRecovered {
		return fmt.Errorf("%w: %s cannot be appended", ErrInvalid, r.Type)
	}
	return nil
}

// Append records and returns when the records are on disk and signed, in
// order and adjacent. Errors and ctx are as for Intend, but there is no
// low-water mark: the end of a run is recorded while there is any space.
func (l *Log) Append(ctx context.Context, records ...Record) error {
	return l.append(ctx, records, true)
}

// Post records like Append but does not wait for the disk: what it wrote is
// signed and survives the death of this process at once, and a power cut from
// the next flush by any process on.
func (l *Log) Post(ctx context.Context, records ...Record) error {
	return l.append(ctx, records, false)
}

func (l *Log) append(ctx context.Context, records []Record, durable bool) error {
	for _, r := range records {
		if err := appendable(r); err != nil {
			return err
		}
	}
	if len(records) == 0 {
		return nil
	}
	_, err := l.commit(ctx, records, durable, false)
	return err
}

// request is what one caller wants written, and what became of it.
type request struct {
	leaves [][]byte
	bytes  int
	prove  bool // the first leaf
	begins bool // something that there has to be space for the end of

	done  bool
	err   error
	index int64 // of the first leaf
	size  int64 // of the tree it was committed in
	proof tlog.RecordProof
	note  []byte
}

// commit encodes, writes and, if durable, flushes. Callers that arrive while
// another writes share its successor's write and flush; there is no timer.
func (l *Log) commit(ctx context.Context, records []Record, durable, prove bool) (*request, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q := &request{prove: prove, begins: isIntent(records[0].Type)}
	for _, r := range records {
		b, err := newRecord(r, l.stamp)
		if err != nil {
			return nil, err
		}
		q.leaves = append(q.leaves, b)
		q.bytes += headerLen + len(b)
	}
	if q.bytes > maxBatch {
		return nil, fmt.Errorf("%w: batch of %d bytes, at most %d", ErrTooLarge, q.bytes, maxBatch)
	}
	l.queueMu.Lock()
	l.queue = append(l.queue, q)
	l.queueMu.Unlock()

	// Others that are about to record something get as far as this first: then
	// one signature, one write and one flush are for all of them, on one
	// processor too. Where there are no others nothing is waited for.
	runtime.Gosched()
	l.mu.Lock()
	for !q.done {
		l.writeNext()
	}
	l.mu.Unlock()
	if q.err != nil {
		return nil, q.err
	}
	if durable {
		if err := l.flush(q.size); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// flush makes the records below size durable. The lock between processes is
// not held: others write while this one waits for the disk.
func (l *Log) flush(size int64) error {
	poisoned, err := l.sync(size)
	if poisoned {
		return errors.Join(err, l.poison())
	}
	return err
}

// sync is flush without what follows from its failure, which it reports once.
// Flushes are serialised: the kernel reports a failed one to one caller of
// each descriptor only, and all the others must hear of it from that one.
func (l *Log) sync(size int64) (poisoned bool, err error) {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	if l.synced.Load() >= size {
		return false, nil // somebody else's flush covered it
	}
	if p := l.failed.Load(); p != nil {
		return false, *p
	}
	m := l.written.Load()
	if err := fdatasync(m.file); err != nil {
		return true, l.retire(err)
	}
	l.synced.Store(m.size)
	return false, nil
}

// fdatasync flushes f, once: after an error the kernel forgets the pages it
// could not write, so a second call would succeed and mean nothing.
func fdatasync(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}

// deadline is when a writer that begins now gives up waiting for others.
func deadline() time.Time { return time.Now().Add(lockTimeout) }
