package main

import (
	"strings"
	"testing"
	"time"
)

const goodStat = "77 (a b) c) S 1 2 3 34816 5 6 7 8 9 10 150 50 13 14 20 5 1 18 400 4096000 100 1"

func TestProcessParse(t *testing.T) {
	p := process{pid: 77, now: time.Unix(1010, 0)}
	if !p.parse([]byte(goodStat), []byte("Uid:\t1\t100000\t1\t1\n"), []byte("sleep\x0010\x00"), time.Unix(1000, 0)) {
		t.Fatal("not read")
	}
	got := ""
	for _, f := range []string{"comm", "uid", "pid", "ppid", "args", "time", "pcpu", "ni", "rss", "tty", "stat", "etime"} {
		got += p.value(f) + "|"
	}
	if got != "a b) c|100000|77|1|sleep 10|00:00:02|33.3|5|400|pts/0|S|00:00:06|" {
		t.Error(got)
	}
	for _, bad := range []string{"", "77", "77 (", "77 )(", "77 (x) S 1"} {
		if (&process{}).parse([]byte(bad), nil, nil, time.Time{}) {
			t.Errorf("%q was read", bad)
		}
	}
}

func FuzzProcess(f *testing.F) {
	f.Add(goodStat, "Uid:\t1\t2\n", "a\x00b")
	f.Fuzz(func(t *testing.T, stat, status, cmdline string) {
		p := process{pid: 1, now: time.Unix(1, 0), dir: "/nonexistent"}
		if !p.parse([]byte(stat), []byte(status), []byte(cmdline), time.Unix(0, 0)) {
			return
		}
		for name := range psFields {
			p.value(name)
		}
	})
}

func TestPSOptions(t *testing.T) {
	for _, args := range [][]string{nil, {"-ef"}, {"aux"}, {"-o", "pid,args"}, {"-eo", "pid=P"}, {"-opid"}, {"-l"}} {
		if _, err := psOptions(args); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
	for _, args := range [][]string{{"-o"}, {"-o", "pid,secret"}, {"--forest"}, {"-p", "1"}, {"; id"}} {
		if cols, err := psOptions(args); err == nil {
			t.Errorf("%v was read as %v", args, cols)
		} else if !strings.Contains(err.Error(), "ps") {
			t.Errorf("%v: %v", args, err)
		}
	}
}
