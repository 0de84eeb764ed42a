package audit

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// frameSeeds are a whole segment, a whole output log, and pieces.
func frameSeeds(f *testing.F) (origin string) {
	dir, _, ps := tamperLog(f)
	b := readSegment(f, dir, 0)
	f.Add(b)
	f.Add(b[:len(b)-7])
	f.Add(join(ps[4:7]))
	f.Add(appendPad(nil, 40))
	f.Add(appendFrame(appendFrame(nil, kindOutput, outputMagic), kindChunk, make([]byte, chunkHead+3)))
	f.Add([]byte{0, 0, 0, 1})
	f.Add(make([]byte, 600))
	return mustOrigin(f, b)
}

// Whatever the bytes: no panic, no frame that is not in them, and a writer's
// and a verifier's view of where the log ends that agree.
func FuzzFrames(f *testing.F) {
	origin := frameSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		end := int64(0)
		sc := newScanner(bytes.NewReader(b), 0)
		for {
			fr, err := sc.next()
			if err != nil {
				var fe *frameError
				if err != io.EOF && !errors.As(err, &fe) {
					t.Fatal(err)
				}
				if err == io.EOF && sc.off != int64(len(b)) {
					t.Fatalf("end at %d of %d", sc.off, len(b))
				}
				break
			}
			if fr.off != end || sc.off <= fr.off || sc.off > int64(len(b)) || !bytes.Equal(appendFrame(nil, fr.kind, fr.payload), b[fr.off:sc.off]) {
				t.Fatalf("frame at %d to %d of %d", fr.off, sc.off, len(b))
			}
			end = sc.off
		}
		c, last, err := scanCommits(bytes.NewReader(b), origin)
		if last > end {
			t.Fatalf("a commit ends at %d, whole frames at %d", last, end)
		}
		if last > 0 {
			if again, _, err := lastCommit(b[:last], origin); err != nil || again.root != c.root {
				t.Fatalf("the commit that ends at %d is not found from there: %v", last, err)
			}
		}
		var fe *frameError
		if errors.As(err, &fe) && fe.off >= last {
			torn(b[last:], int(fe.off-last), last)
		}
	})
}

func FuzzCommit(f *testing.F) {
	_, _, ps := tamperLog(f)
	origin := mustOrigin(f, join(ps))
	for _, p := range ps {
		if p.kind == kindCommit {
			f.Add(p.payload)
		}
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		c, err := parseCommit(p, origin)
		if err != nil {
			return
		}
		if again := appendCommit(nil, c)[headerLen:]; !bytes.Equal(again, p) {
			t.Fatalf("read\n%x\nwrote\n%x", p, again)
		}
	})
}

func FuzzLeaf(f *testing.F) {
	dir, _, _ := tamperLog(f)
	for _, e := range entries(f, dir) {
		f.Add(e.Leaf)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEntry(3, b)
		if err == nil && (e.Type == "" || e.Index != 3 || e.Time.IsZero() && !bytes.Contains(b, []byte("0001"))) {
			t.Fatalf("%+v", e)
		}
	})
}

func FuzzSegmentHeader(f *testing.F) {
	f.Add(appendSegmentHeader(nil, segmentHeader{number: 3, first: 7, prevEnd: 9, origin: "ward/h/0"})[headerLen:])
	f.Add([]byte("wardlog1"))
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := parseSegmentHeader(p)
		if err == nil && !bytes.Equal(appendSegmentHeader(nil, h)[headerLen:], p) {
			t.Fatalf("%+v", h)
		}
	})
}
