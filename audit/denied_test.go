package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
)

// Whoever is refused must not be able to keep that off the record by asking
// for something long: a refusal fits, whatever was asked for.
func TestRefusalsAlwaysFit(t *testing.T) {
	l, dir := newLog(t)
	// A control character is six bytes in JSON.
	for _, huge := range []string{strings.Repeat("x", 2<<20), strings.Repeat("\x01", 1<<20), strings.Repeat("ü", 1<<20), strings.Repeat("\xff", 1<<20)} {
		for name, d := range map[string]Denied{
			"argument":  {Args: []string{"sh", huge}},
			"arguments": {Args: strings.SplitAfter(huge[:1<<16], huge[:1])},
			"texts":     {Cause: huge, Remedy: huge, Name: huge, Image: Image{Reference: huge}, Container: huge},
			"decision":  {Decision: json.RawMessage(`"` + strings.Repeat("d", 1<<20) + `"`), Input: "sha256:00"},
			"all": {Cause: huge, Remedy: huge, Name: huge, Image: Image{Reference: huge, Digest: huge}, Args: []string{huge, huge},
				Container: huge, Decision: json.RawMessage(`"` + strings.Repeat("d", 1<<20) + `"`)},
		} {
			d.Rule = "policy.no"
			for _, typ := range []Type{RunDenied, ExecDenied} {
				if err := l.Append(t.Context(), Record{Type: typ, Run: "r", Data: d}); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
	n := 0
	if err := Read(dir, 0, func(e Entry) error {
		if e.Type == RunDenied && strings.Contains(string(e.Leaf), "policy.no") {
			n++
		}
		return nil
	}); err != nil || n != 20 {
		t.Errorf("%d refusals are on record (%v)", n, err)
	}
}

// What is left out is said, and its digest is there.
func TestWhatIsCutIsSaid(t *testing.T) {
	args := []string{"sh", "-c", strings.Repeat("y", 100<<10), "end"}
	got := Denied{Cause: strings.Repeat("c", 100<<10), Args: args}.fit()
	whole, _ := json.Marshal(args)
	sum := sha256.Sum256(whole)
	if got.ArgsCount != 4 || got.ArgsDigest != "sha256:"+hex.EncodeToString(sum[:]) {
		t.Errorf("%d arguments, %s", got.ArgsCount, got.ArgsDigest)
	}
	if len(got.Args) != 3 || got.Args[1] != "-c" || !strings.HasSuffix(got.Args[2], "… (102400 bytes)") || !strings.HasSuffix(got.Cause, "… (102400 bytes)") {
		t.Errorf("%.100q… %q", got.Args, got.Cause[len(got.Cause)-40:])
	}
	small := Denied{Cause: "c", Args: []string{"a"}}
	if f := small.fit(); f.ArgsDigest != "" || f.ArgsCount != 0 || f.Cause != "c" || len(f.Args) != 1 {
		t.Errorf("%+v", f)
	}
}
