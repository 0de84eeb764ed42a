package images

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
)

// seal is written beside a layer's tree when it is whole. Everything in it is
// read back from the tree's own inode.
type seal struct {
	Version int    `json:"v"`
	DiffID  string `json:"diff_id"`
	Inode   uint64 `json:"inode"`
	Ctime   int64  `json:"ctime"` // nanoseconds
	Mtime   int64  `json:"mtime"`
	Mode    uint32 `json:"mode"`
	UID     uint32 `json:"uid"`
	GID     uint32 `json:"gid"`
	Entries int    `json:"entries"` // of the archive, for people
	Bytes   int64  `json:"bytes"`
}

const sealVersion = 1

// Unpack returns img's layers as directories, lowest first, and unpacks those
// that are not there yet. Each is complete: its blob hashed to the manifest's
// digest and its archive to the config's diffID before the directory got its
// name. They are never changed and must not be written to.
//
// A layer that comes twice is returned once, where it comes last: overlayfs
// refuses the same directory twice (ELOOP), and whatever the lower one shows,
// hides or makes opaque, the upper one does again.
//
// For a layer that is there it compares the seal left at unpacking with the
// root directory's inode (number, ctime, mtime, mode, owner) and nothing else.
// That notices a layer that was replaced, copied, restored or moved between
// file systems, and any entry added to, removed from or renamed in the layer's
// top directory, since the kernel alone sets ctime. It does not notice a file
// changed deeper inside by somebody with the store owner's rights: the warm
// path reads no layer. A mismatch is fault.Invalid, rule "image.layer-changed";
// Pull and Import put the changed directory aside and make a new one.
//
// Remove deletes layers of images that are not in use: who is going to mount
// these must be seen by its inUse before calling Unpack.
func (s *Store) Unpack(ctx context.Context, img Image) ([]string, error) {
	dirs, err := s.unpack(ctx, img)
	return dirs, diskFault(err)
}

func (s *Store) unpack(ctx context.Context, img Image) ([]string, error) {
	if len(img.Layers) == 0 || len(img.Layers) > maxLayers {
		return nil, fault.New(fault.Invalid, "image.bounds", fmt.Sprintf("image %s has %d layers", img.Reference, len(img.Layers)), "resolve the image first")
	}
	var w *work
	var dirs []string
	for i, l := range img.Layers {
		d, err := parseDigest(l.DiffID)
		if err != nil {
			return nil, err
		}
		if again(img.Layers[i+1:], l) {
			continue
		}
		dirs = append(dirs, s.path("layers", d.Hex, "fs"))
		ok, err := s.sealed(d)
		if ok {
			continue
		}
		if err != nil {
			return nil, err
		}
		if w == nil {
			if w, err = s.begin(ctx); err != nil {
				return nil, err
			}
			defer w.end()
		}
		if err := s.unpackLayer(ctx, l, d); err != nil {
			return nil, fmt.Errorf("unpack layer %d of %d of %s: %w", i+1, len(img.Layers), img.Reference, err)
		}
	}
	return dirs, nil
}

// again says whether l is among the layers above it.
func again(above []Layer, l Layer) bool {
	for _, a := range above {
		if a.DiffID == l.DiffID {
			return true
		}
	}
	return false
}

// sealed says whether layer d is there and is the directory that was sealed.
func (s *Store) sealed(d v1.Hash) (bool, error) {
	b, err := os.ReadFile(s.path("layers", d.Hex, "seal.json"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, lerr := os.Lstat(s.path("layers", d.Hex)); errors.Is(lerr, fs.ErrNotExist) {
			return false, nil
		}
	}
	if err != nil {
		return false, layerChanged(d, err.Error())
	}
	var have seal
	if err := json.Unmarshal(b, &have); err != nil {
		return false, layerChanged(d, "seal: "+err.Error())
	}
	now, err := stampOf(unix.AT_FDCWD, s.path("layers", d.Hex, "fs"))
	if err != nil {
		return false, layerChanged(d, err.Error())
	}
	now.Version, now.DiffID, now.Entries, now.Bytes = sealVersion, d.String(), have.Entries, have.Bytes
	if now != have {
		return false, layerChanged(d, "its directory is not the one that was sealed")
	}
	return true, nil
}

func layerChanged(d v1.Hash, why string) error {
	return fault.New(fault.Invalid, "image.layer-changed", fmt.Sprintf("unpacked layer %s changed on disk: %s", d, why), "find out who writes there, then pull or import the image again")
}

func stampOf(dirfd int, path string) (seal, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, path, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return seal{}, fmt.Errorf("stat %s: %w", path, err)
	}
	return seal{
		Inode: st.Ino, Ctime: st.Ctim.Nano(), Mtime: st.Mtim.Nano(),
		Mode: st.Mode, UID: st.Uid, GID: st.Gid,
	}, nil
}

// unpackLayer makes layers/<diffID>. Processes that want the same one take
// turns. The caller has begun work.
func (s *Store) unpackLayer(ctx context.Context, l Layer, d v1.Hash) error {
	lock, err := s.stripe(ctx, "layer", d.Hex)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if ok, err := s.sealed(d); ok || err != nil {
		return err
	}
	want, err := parseDigest(l.Digest)
	if err != nil {
		return err
	}
	f, err := os.Open(s.blobPath(want))
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "image.incomplete", fmt.Sprintf("layer %s is not in the store", want), "pull the image again")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	blob := newSum(f)
	b, err := s.buildLayer(ctx, blob, nil)
	// Believe the blob before its content: a changed blob shows up as almost
	// any error of the archive inside it.
	if _, derr := io.Copy(io.Discard, blob); derr != nil {
		b.drop()
		return derr
	}
	if got := blob.digest(); got != want {
		b.drop()
		return tampered("stored layer %s hashes to %s", want, got)
	}
	if err != nil {
		b.drop()
		return err
	}
	if b.diffID != d {
		b.drop()
		return tampered("layer %s unpacks to diffID %s, the image config says %s", want, b.diffID, d)
	}
	return b.place()
}

// built is a layer unpacked under tmp/ that does not have its name yet.
type built struct {
	s      *Store
	dir    string
	diffID v1.Hash
	seal   seal
}

func (b *built) drop() {
	if b != nil {
		removeTree(b.dir) // what stays is swept by the next who works
	}
}

// buildLayer unpacks the archive in r, compressed or not, under tmp/. also, if
// not nil, gets the uncompressed archive as it is read. On error what was built
// is returned too, for drop.
func (s *Store) buildLayer(ctx context.Context, r io.Reader, also io.Writer) (*built, error) {
	dir, err := os.MkdirTemp(s.path("tmp"), "layer-*")
	if err != nil {
		return nil, err
	}
	b := &built{s: s, dir: dir}
	plain, stop, err := decompress(r)
	if err != nil {
		return b, err
	}
	defer stop()
	archive := newSum(&bounded{r: plain, left: s.cfg.MaxLayerBytes, ctx: ctx})
	var in io.Reader = archive
	if also != nil {
		in = io.TeeReader(archive, also)
	}
	a, err := newApplier(dir+"/fs", s.cfg.MaxLayerBytes, s.cfg.MaxLayerEntries)
	if err != nil {
		return b, err
	}
	defer a.close()
	if err := a.apply(in); err != nil {
		return b, err
	}
	// An archive may end before its stream does; the diffID covers it all.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return b, streamError(err)
	}
	b.diffID = archive.digest()
	return b, b.finish(a)
}

// finish flushes the tree and seals it. After a power cut a renamed directory
// may be there without its files' content, so all goes to disk before that.
func (b *built) finish(a *applier) error {
	if err := unix.Syncfs(int(a.root.Fd())); err != nil {
		return fmt.Errorf("flush layer: %w", err)
	}
	st, err := stampOf(int(a.root.Fd()), ".")
	if err != nil {
		return err
	}
	b.seal = st
	b.seal.Version, b.seal.DiffID, b.seal.Entries, b.seal.Bytes = sealVersion, b.diffID.String(), a.entries, a.bytes
	j, err := json.Marshal(b.seal)
	if err != nil {
		return err
	}
	return fsx.CreateFile(b.dir+"/seal.json", j, 0o600)
}

// place gives the layer its name. If another process was first, its is as good.
func (b *built) place() error {
	err := os.Rename(b.dir, b.s.path("layers", b.diffID.Hex))
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, fs.ErrExist) {
		b.drop()
		return nil
	}
	if err != nil {
		b.drop()
		return err
	}
	return fsx.SyncDir(b.s.path("layers"))
}

// mendLayers puts aside layer directories of img that are not what was sealed.
// They are kept in damaged/: they are evidence, and a container may run on them.
func (s *Store) mendLayers(img Image) error {
	for _, l := range img.Layers {
		d, err := parseDigest(l.DiffID)
		if err != nil {
			return err
		}
		if _, err := s.sealed(d); err == nil {
			continue
		}
		aside, err := os.MkdirTemp(s.path("damaged"), d.Hex+"-*")
		if err != nil {
			return err
		}
		err = os.Rename(s.path("layers", d.Hex), aside+"/layer")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// decompress sniffs r: media types lie about compression often enough, and the
// diffID decides in the end. stop releases the decoder.
func decompress(r io.Reader) (plain io.Reader, stop func(), err error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, nil, streamError(err)
		}
		return z, func() { z.Close() }, nil
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		// The window bounds the decoder's memory.
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, nil, streamError(err)
		}
		return z, z.Close, nil
	}
	return br, func() {}, nil
}

// streamError classifies an error of decompression or of the archive's form.
func streamError(err error) error {
	var known *fault.Error
	if err == nil || errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var sys unix.Errno
	if errors.As(err, &sys) {
		return err // our disk, not their archive
	}
	return fault.Wrap(fault.Invalid, "image.layer", fmt.Errorf("archive does not read: %w", err), "make the archive again; tar, gzip and zstd are understood")
}

// bounded refuses to give more than left bytes, and stops when ctx ends.
type bounded struct {
	r    io.Reader
	left int64
	ctx  context.Context // of the one unpacking it lives for
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, tooLarge()
	}
	return n, err
}

func tooLarge() error {
	return fault.New(fault.Invalid, "image.bounds", "layer unpacks to more bytes than are allowed", "use a smaller image, or raise the store's bound on layers")
}
