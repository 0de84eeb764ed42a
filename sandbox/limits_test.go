package sandbox

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseSet(t *testing.T) {
	for in, want := range map[string]string{"0": "0", "3,1,2": "1-3", "0-2,7": "0-2,7", "1,1": "1", " 0 , 2": "0,2", "0-8191": "0-8191"} {
		if got, _, ok := ParseSet(in); !ok || got != want {
			t.Errorf("%q is %q (%v), want %q", in, got, ok, want)
		}
	}
	for _, bad := range []string{"", ",", "a", "-1", "2-1", "0-", "8192", "1-2-3", "0\n1", "+1"} {
		if got, _, ok := ParseSet(bad); ok {
			t.Errorf("%q was read as %q", bad, got)
		}
	}
	if !SetWithin("1", "0-2") || SetWithin("3", "0-2") || SetWithin("", "0-2") || SetWithin("0-3", "0-2") {
		t.Error("SetWithin")
	}
}

func FuzzParseSet(f *testing.F) {
	f.Add("0-2,7")
	f.Fuzz(func(t *testing.T, in string) {
		set, n, ok := ParseSet(in)
		if !ok {
			return
		}
		if again, m, ok := ParseSet(set); !ok || again != set || m != n || strings.Trim(set, "0123456789,-") != "" {
			t.Fatalf("%q is %q, which is %q", in, set, again)
		}
	})
}

func TestFiguresOfBothVersions(t *testing.T) {
	want := []DeviceIO{{Device: "254:0", ReadBytes: 4096, WriteBytes: 8192, ReadOps: 1, WriteOps: 2}}
	if got := blkio("254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 1\nTotal 12288\n", "254:0 Read 1\n254:0 Write 2\n"); !reflect.DeepEqual(got, want) {
		t.Errorf("version 1: %+v", got)
	}
	if got := ioStat("254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n"); !reflect.DeepEqual(got, want) {
		t.Errorf("version 2: %+v", got)
	}
	lines := "Inter-| Receive | Transmit\n face |bytes packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n eth0:0: 5 2 0 1 0 0 0 0 7 3 0 0 0 0 0 0\n"
	if got := interfaces(lines); len(got) != 1 || got[0].Name != "eth0:0" || got[0].RxBytes != 5 || got[0].RxDrop != 1 || got[0].TxBytes != 7 {
		t.Errorf("%+v", got)
	}
	const mounts = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n33 31 0:30 / /sys/fs/cgroup/x rw - cgroup cgroup rw,cpu,cpuacct\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	c, err := cgroupsIn(strings.NewReader(mounts), "id")
	if err != nil || len(c) != 3 || c["cpuacct"] != "/sys/fs/cgroup/x/ward/id" {
		t.Errorf("%v %v", c, err)
	}
	if c, _ := cgroupsIn(strings.NewReader("41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"), "id"); len(c) != 1 || c[""] != "/sys/fs/cgroup/ward/id" {
		t.Errorf("%v", c)
	}
}

// FuzzFigures: the names of interfaces and all else a container can put there.
func FuzzFigures(f *testing.F) {
	f.Add("254:0 Read 4096\n eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n254:0 rbytes=1\n")
	f.Fuzz(func(t *testing.T, in string) {
		blkio(in, in)
		ioStat(in)
		interfaces(in)
		keyed(in)
	})
}
