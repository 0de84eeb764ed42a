package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// What is kept of a refusal that is too large to be recorded whole, in bytes.
// JSON takes six for one at most; all of it together stays below maxLeaf.
const (
	keptText     = 1 << 10 // cause, remedy, one argument
	keptName     = 512     // an image's reference, a name
	keptWord     = 128
	keptArgs     = 8 << 10
	keptDecision = 8 << 10
)

// fit makes a refusal small enough to be recorded. An intent that is too large
// is an error, since then nothing runs; but a refusal that could not be
// recorded would be a way to try things unseen.
func (d Denied) fit() Denied {
	d.Cause, d.Remedy = clip(d.Cause, keptText), clip(d.Remedy, keptText)
	d.Name, d.Image.Reference = clip(d.Name, keptName), clip(d.Image.Reference, keptName)
	for _, s := range []*string{&d.Stage, &d.Class, &d.Rule, &d.Point, &d.Op, &d.Container, &d.Exec, &d.Image.Digest, &d.Input} {
		*s = clip(*s, keptWord)
	}
	if len(d.Decision) > keptDecision {
		d.Decision = nil // Input still names what was decided on
	}
	whole, err := json.Marshal(d.Args)
	if err != nil || len(whole) <= keptArgs {
		return d
	}
	sum := sha256.Sum256(whole)
	d.ArgsCount, d.ArgsDigest = len(d.Args), "sha256:"+hex.EncodeToString(sum[:])
	var kept []string
	for left, i := keptArgs, 0; i < len(d.Args) && left > 0; i++ {
		arg := clip(d.Args[i], keptText)
		left -= 6*len(arg) + 3
		kept = append(kept, arg)
		if arg != d.Args[i] {
			break
		}
	}
	d.Args = kept
	return d
}

// fitted is data that says no, made small enough to be recorded.
func fitted(data any) (any, bool) {
	switch d := data.(type) {
	case Denied:
		return d.fit(), true
	case Verdict:
		return d.fit(), d.Outcome != "allow"
	}
	return nil, false
}

// clip cuts s to about n bytes and says how long it was.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + fmt.Sprintf("… (%d bytes)", len(s))
}
