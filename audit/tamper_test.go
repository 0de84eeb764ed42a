package audit

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// tamperings are the tamper matrix of docs/audit-format.md: what is done to one
// segment by somebody without the key, and the class and record it is reported
// as.
var tamperings = map[string]struct {
	tamper func(t *testing.T, ps []part) []byte
	class  Class
	index  int64
}{
	"bit flipped": {func(t *testing.T, ps []part) []byte {
		b := join(ps)
		b[ps[pSecond].off+headerLen+10] ^= 4
		return b
	}, ClassCRC, 3},
	"bit of a length flipped": {func(t *testing.T, ps []part) []byte {
		b := join(ps)
		b[ps[pSecond].off+3] ^= 1
		return b
	}, ClassCRC, 3},
	"bit of a commit flipped": {func(t *testing.T, ps []part) []byte {
		b := join(ps)
		b[ps[pFirst+2].off+headerLen+60] ^= 1
		return b
	}, ClassCRC, 3},
	"record edited": {func(t *testing.T, ps []part) []byte {
		ps[pSecond] = edited(ps[pSecond])
		return join(ps)
	}, ClassRoot, 3},
	"record deleted":  {func(t *testing.T, ps []part) []byte { return join(slices.Delete(ps, pSecond, pSecond+1)) }, ClassRoot, 3},
	"record inserted": {func(t *testing.T, ps []part) []byte { return join(slices.Insert(ps, pSecond, ps[pSecond])) }, ClassRoot, 3},
	"record moved": {func(t *testing.T, ps []part) []byte {
		ps[pFirst], ps[pSecond] = ps[pSecond], ps[pFirst]
		return join(ps)
	}, ClassRoot, 1},
	"batch deleted":    {func(t *testing.T, ps []part) []byte { return join(slices.Delete(ps, pSecond, pThird)) }, ClassRoot, 3},
	"batch repeated":   {func(t *testing.T, ps []part) []byte { return join(append(ps, ps[pThird:]...)) }, ClassRoot, 7},
	"commit deleted":   {func(t *testing.T, ps []part) []byte { return join(slices.Delete(ps, pFirst+2, pFirst+3)) }, "", 0},
	"kind unknown":     {func(t *testing.T, ps []part) []byte { ps[pSecond].kind = 99; return join(ps) }, ClassFrame, 3},
	"kind out of turn": {func(t *testing.T, ps []part) []byte { ps[pSecond].kind = kindChunk; return join(ps) }, ClassFrame, 3},
	"header gone":      {func(t *testing.T, ps []part) []byte { return join(ps[1:]) }, ClassFrame, 0},
	"first commit gone": {func(t *testing.T, ps []part) []byte {
		return join(slices.Delete(ps, 1, 2))
	}, ClassFrame, 0},
	"text hidden in padding": {func(t *testing.T, ps []part) []byte {
		return join(slices.Insert(ps, pSecond, part{kind: kindPad, payload: []byte("hidden")}))
	}, ClassFrame, 3},
	"commit's size changed": {func(t *testing.T, ps []part) []byte {
		ps[pFirst+2].payload[7] ^= 3
		return join(ps)
	}, ClassFrame, 1},
	"commit's frontier changed": {func(t *testing.T, ps []part) []byte {
		ps[pFirst+2].payload[8+32+1] ^= 3
		return join(ps)
	}, ClassFrame, 1},
	"commit with another's note": {func(t *testing.T, ps []part) []byte {
		a, b := ps[pFirst+2].payload, ps[pSecond+2].payload
		a = append(bytes.Clone(a[:len(a)-len(noteOf(t, ps, pFirst+2))-4]), b[len(b)-len(noteOf(t, ps, pSecond+2))-4:]...)
		binary.BigEndian.PutUint32(a[len(a)-4:], uint32(len(a)+headerLen))
		ps[pFirst+2].payload = a
		return join(ps)
	}, ClassFrame, 1},
	"last write cut": {func(t *testing.T, ps []part) []byte {
		b := join(ps)
		return b[:len(b)-100]
	}, ClassTorn, 7},
	"garbage added": {func(t *testing.T, ps []part) []byte { return append(join(ps), "garbage!"...) }, ClassTorn, 7},
	"emptied":       {func(t *testing.T, ps []part) []byte { return nil }, ClassTorn, 0},
	"record edited, trees recomputed": {func(t *testing.T, ps []part) []byte {
		ps[pSecond] = edited(ps[pSecond])
		return join(rewrite(t, ps, nil))
	}, ClassSignature, 3},
	"record edited, signed by another key": {func(t *testing.T, ps []part) []byte {
		ps[pSecond] = edited(ps[pSecond])
		s, _ := forger(t, mustOrigin(t, join(ps)))
		return join(rewrite(t, ps, s))
	}, ClassKey, 0},
	"other log of the same name": {func(t *testing.T, ps []part) []byte {
		s, _ := forger(t, mustOrigin(t, join(ps)))
		return join(rewrite(t, ps[:pFirst], s))
	}, ClassKey, 0},
}

func TestTamperMatrix(t *testing.T) {
	for name, tt := range tamperings {
		t.Run(name, func(t *testing.T) {
			dir, vkey, ps := tamperLog(t)
			writeSegment(t, dir, 0, tt.tamper(t, ps))
			_, err := Verify(dir, Expect{VKey: vkey})
			if tt.class == "" { // one batch less, the same records
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			d := damaged(t, err, tt.class)
			if d.Index != tt.index || d.Segment != segmentName(0) {
				t.Fatalf("place: %v, want record %d", d, tt.index)
			}
		})
	}
}
