package profile

import (
	"slices"
	"testing"
)

// TestTerminalInputIsRefused: neither the default profile nor one from a file
// that allows ioctl as a whole lets a process type at a terminal or exchange
// its line discipline; the kernel looks at the lower half of the command alone.
func TestTerminalInputIsRefused(t *testing.T) {
	p, err := Parse([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["ioctl"],"action":"SCMP_ACT_ALLOW"}]}`), amd64Facts)
	if err != nil {
		t.Fatal(err)
	}
	base, err := Default().Filter()
	if err != nil {
		t.Fatal(err)
	}
	nr, _ := CallNumber("ioctl")
	for _, p := range []Profile{Default(), p} {
		f, err := p.Filter()
		if err != nil {
			t.Fatal(err)
		}
		for _, cmd := range []uint64{0x5412, 0x541c, 0x5423} {
			for _, high := range []uint64{0, 1, 1 << 31} {
				if v := f.Answer(nr, [maxArgs]uint64{0, high<<32 | cmd}); v.Allow || v.Errno != eperm {
					t.Errorf("%s: ioctl %#x: %+v", p.Name, high<<32|cmd, v)
				}
			}
		}
		if v := f.Answer(nr, [maxArgs]uint64{0, 0x5401}); !v.Allow {
			t.Errorf("%s: TCGETS is refused", p.Name)
		}
		if beyond := f.Beyond(base); slices.Contains(beyond, "ioctl") {
			t.Errorf("%s goes beyond the default: %v", p.Name, beyond)
		}
		compare(t, f, 4)
	}
}
