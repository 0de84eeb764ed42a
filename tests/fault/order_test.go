package fault

import (
	"regexp"
	"strings"
	"testing"
)

// TestRecordBeforePayload shows with strace, from outside, that the journal's
// flush has succeeded before the payload's execve begins, and that a run has
// exactly one.
func TestRecordBeforePayload(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	trace, out := straced(t, w, []string{"-e", "trace=fdatasync,fsync,sync_file_range,execve,execveat"},
		"run", "--rm", image, "echo", marker)
	if !strings.Contains(out, marker) {
		t.Fatalf("the run did not work under strace:\n%s", trace)
	}
	journal := regexp.QuoteMeta(w.Root) + `/lib/audit/`
	begin := regexp.MustCompile(`^(\d+) +(fdatasync|fsync)\(\d+<` + journal + `[^>]*>`)
	payload := regexp.MustCompile(`^\d+ +execve(at)?\(.*"` + marker + `"`)
	flushing := map[string]bool{} // threads with a flush of the journal under way
	var flushes, before int
	ran := false
	for line := range strings.Lines(trace) {
		line = strings.TrimRight(line, "\n")
		tid, _, _ := strings.Cut(line, " ")
		if m := begin.FindStringSubmatch(line); m != nil {
			flushing[m[1]] = true
		}
		done := flushing[tid] && strings.HasSuffix(line, "= 0") && (strings.Contains(line, "resumed>") || begin.MatchString(line))
		if done {
			delete(flushing, tid)
			flushes++
			if !ran {
				before++
			}
		}
		if payload.MatchString(line) && !strings.Contains(line, "/ward") {
			ran = true
			if before == 0 {
				t.Errorf("the payload was executed before the journal was flushed: %s", line)
			}
		}
	}
	if !ran {
		t.Fatalf("no execve of the payload in the trace:\n%s", trace)
	}
	if before != 1 || flushes != 1 {
		t.Errorf("%d flushes of the journal before the payload, %d in all; want exactly one\n%s", before, flushes, trace)
	}
	settled(t, w, out)
}
