package launcher

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	systemdDbus "github.com/coreos/go-systemd/v22/dbus"
	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/cgroups/systemd"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/sandbox"
)

// An OCI caller's device rules are any, in any order. They are brought to the
// form that the kernel's first version has: everything or nothing, and the
// exceptions to it.
type deviceSet struct {
	all    bool
	except map[deviceKey]devices.Permissions
}

type deviceKey struct {
	kind         devices.Type
	major, minor int64
}

func (k deviceKey) overlaps(o deviceKey) bool {
	same := func(a, b int64) bool { return a == b || a == devices.Wildcard || b == devices.Wildcard }
	return k.kind == o.kind && same(k.major, o.major) && same(k.minor, o.minor)
}

// newDeviceSet applies the rules in their order, from "nothing" on.
func newDeviceSet(rules []*devices.Rule) (deviceSet, error) {
	s := deviceSet{except: map[deviceKey]devices.Permissions{}}
	for _, r := range rules {
		unknown := fmt.Errorf("device rule %q cannot be expressed", r.CgroupString())
		if strings.Trim(string(r.Permissions), "rwm") != "" || r.Permissions == "" {
			return s, unknown
		}
		if r.Type == devices.WildcardDevice {
			if r.Major != devices.Wildcard || r.Minor != devices.Wildcard || !hasAll(r.Permissions) {
				return s, unknown
			}
			s.all = r.Allow
			clear(s.except)
			continue
		}
		if r.Type != devices.CharDevice && r.Type != devices.BlockDevice || r.Major < devices.Wildcard || r.Minor < devices.Wildcard {
			return s, unknown
		}
		k := deviceKey{r.Type, r.Major, r.Minor}
		if r.Allow != s.all {
			s.except[k] = union(s.except[k], r.Permissions)
			continue
		}
		for o := range s.except {
			if o != k && o.overlaps(k) {
				return s, unknown // a part of an exception: there is no such form
			}
		}
		if s.except[k] = without(s.except[k], r.Permissions); s.except[k] == "" {
			delete(s.except, k)
		}
	}
	return s, nil
}

func hasAll(p devices.Permissions) bool { return union(p, "") == "rwm" }

func union(a, b devices.Permissions) devices.Permissions {
	var out strings.Builder
	for _, c := range "rwm" {
		if strings.ContainsRune(string(a), c) || strings.ContainsRune(string(b), c) {
			out.WriteRune(c)
		}
	}
	return devices.Permissions(out.String())
}

func without(a, b devices.Permissions) devices.Permissions {
	return devices.Permissions(strings.Map(func(r rune) rune {
		if strings.ContainsRune(string(b), r) {
			return -1
		}
		return r
	}, string(a)))
}

// keys are the exceptions in one order.
func (s deviceSet) keys() []deviceKey {
	return slices.SortedFunc(maps.Keys(s.except), func(a, b deviceKey) int {
		return strings.Compare(s.rule(a).CgroupString(), s.rule(b).CgroupString())
	})
}

func (s deviceSet) rule(k deviceKey) *devices.Rule {
	return &devices.Rule{Type: k.kind, Major: k.major, Minor: k.minor, Permissions: s.except[k], Allow: !s.all}
}

// setOCIDevicesV1 writes the rules: first everything or nothing, then each
// exception.
func setOCIDevicesV1(dir string, rules []*devices.Rule) error {
	s, err := newDeviceSet(rules)
	if err != nil {
		return err
	}
	first, then := "devices.deny", "devices.allow"
	if s.all {
		first, then = then, first
	}
	if err := os.WriteFile(filepath.Join(dir, first), []byte("a"), 0); err != nil {
		return err
	}
	for _, k := range s.keys() {
		if err := os.WriteFile(filepath.Join(dir, then), []byte(s.rule(k).CgroupString()), 0); err != nil {
			return err
		}
	}
	return nil
}

// setOCIDevicesV2 attaches a program that says the same.
func setOCIDevicesV2(dir string, rules []*devices.Rule) error {
	s, err := newDeviceSet(rules)
	if err != nil {
		return err
	}
	return attachDeviceFilter(dir, s.program())
}

// program is deviceProgram for any set. An exception that allows applies if it
// covers all of the wanted access, one that refuses if it covers any of it.
func (s deviceSet) program() []instruction {
	answer := func(yes bool) []instruction {
		n := int32(0)
		if yes {
			n = 1
		}
		return []instruction{{code: moveNumber, dst: 0, imm: n}, {code: exit}}
	}
	p := []instruction{
		{code: loadWord, dst: 2, src: 1, off: 0},
		{code: moveRegister, dst: 3, src: 2},
		{code: andNumber, dst: 2, imm: 0xffff},
		{code: shiftRight, dst: 3, imm: 16},
		{code: loadWord, dst: 4, src: 1, off: 4},
		{code: loadWord, dst: 5, src: 1, off: 8},
	}
	for _, k := range s.keys() {
		kind := int32(unix.BPF_DEVCG_DEV_CHAR)
		if k.kind == devices.BlockDevice {
			kind = unix.BPF_DEVCG_DEV_BLOCK
		}
		const every = unix.BPF_DEVCG_ACC_MKNOD | unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_WRITE
		covered := int32(0)
		for c, bit := range map[string]int32{"m": unix.BPF_DEVCG_ACC_MKNOD, "r": unix.BPF_DEVCG_ACC_READ, "w": unix.BPF_DEVCG_ACC_WRITE} {
			if strings.Contains(string(s.except[k]), c) {
				covered |= bit
			}
		}
		// Each test jumps to what follows this device unless it holds; where
		// the off of a jump is to be the end is marked with -1.
		rest := []instruction{{code: jumpUnequal, dst: 2, imm: kind, off: -1}}
		if s.all {
			rest = append(rest, instruction{code: jumpBitsSet, dst: 3, imm: covered, off: 1}, instruction{code: jumpAlways, off: -1})
		} else if covered != every {
			rest = append(rest, instruction{code: jumpBitsSet, dst: 3, imm: every &^ covered, off: -1})
		}
		if k.major != devices.Wildcard {
			rest = append(rest, instruction{code: jumpUnequal, dst: 4, imm: int32(k.major), off: -1})
		}
		if k.minor != devices.Wildcard {
			rest = append(rest, instruction{code: jumpUnequal, dst: 5, imm: int32(k.minor), off: -1})
		}
		rest = append(rest, answer(!s.all)...)
		for i := range rest {
			if rest[i].off < 0 {
				rest[i].off = int16(len(rest) - i - 1)
			}
		}
		p = append(p, rest...)
	}
	return append(p, answer(s.all)...)
}

// jumpAlways is BPF's unconditional jump.
const jumpAlways = 0x05

// ociDevices has the cgroup managers take any device rules in a program that
// works for ward-oci. systemd gets none of them: the filter is ours, on the
// cgroup that it makes.
func ociDevices() {
	if len(os.Args) == 0 || filepath.Base(os.Args[0]) != sandbox.OCIName {
		return
	}
	cgroups.DevicesSetV1 = func(dir string, r *cgroups.Resources) error {
		if r.SkipDevices {
			return nil
		}
		return setOCIDevicesV1(dir, r.Devices)
	}
	cgroups.DevicesSetV2 = func(dir string, r *cgroups.Resources) error {
		if r.SkipDevices {
			return nil
		}
		return setOCIDevicesV2(dir, r.Devices)
	}
	systemd.GenerateDeviceProps = func(*cgroups.Resources, int) ([]systemdDbus.Property, error) { return nil, nil }
}
