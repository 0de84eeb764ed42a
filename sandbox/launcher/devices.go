package launcher

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"
	"golang.org/x/sys/unix"
)

// The cgroup managers leave device rules to whoever sets these two functions.
// The usual one, cgroups/devices, brings an ELF reader and three decompressors
// into the most privileged program there is, for rule sets we do not have:
// ours begin with "deny all" and then allow single devices.
func init() {
	cgroups.DevicesSetV1 = func(dir string, r *cgroups.Resources) error { return setDevicesV1(dir, r.Devices) }
	cgroups.DevicesSetV2 = func(dir string, r *cgroups.Resources) error { return setDevicesV2(dir, r.Devices) }
	ociDevices()
}

// allowedDevices returns what is allowed after "deny all", or an error for a
// rule set of any other form.
func allowedDevices(rules []*devices.Rule) ([]*devices.Rule, error) {
	if len(rules) == 0 || rules[0].Type != devices.WildcardDevice || rules[0].Allow {
		return nil, errors.New("device rules do not begin by denying all")
	}
	for _, r := range rules[1:] {
		if !r.Allow || r.Type != devices.CharDevice && r.Type != devices.BlockDevice || !slices.Contains([]devices.Permissions{"r", "w", "rw"}, r.Permissions) ||
			r.Major < 0 || r.Minor < devices.Wildcard {
			return nil, fmt.Errorf("device rule %q is of no known form", r.CgroupString())
		}
	}
	return rules[1:], nil
}

// setDevicesV1 writes the rules and reads them back: a rule the kernel has
// taken differently refuses the run.
func setDevicesV1(dir string, rules []*devices.Rule) error {
	allowed, err := allowedDevices(rules)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "devices.deny"), []byte("a"), 0); err != nil {
		return err
	}
	var want []string
	for _, r := range allowed {
		if err := os.WriteFile(filepath.Join(dir, "devices.allow"), []byte(r.CgroupString()), 0); err != nil {
			return err
		}
		want = append(want, r.CgroupString())
	}
	b, err := os.ReadFile(filepath.Join(dir, "devices.list"))
	if err != nil {
		return err
	}
	got := strings.Split(strings.TrimSpace(string(b)), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("the kernel allows the devices %q instead of %q", got, want)
	}
	return nil
}

// setDevicesV2 attaches a program that allows the same devices.
func setDevicesV2(dir string, rules []*devices.Rule) error {
	allowed, err := allowedDevices(rules)
	if err != nil {
		return err
	}
	return attachDeviceFilter(dir, deviceProgram(allowed))
}

// attachDeviceFilter puts a program in front of the devices of a version 2
// cgroup.
func attachDeviceFilter(dir string, program []instruction) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	prog, err := loadProgram(program)
	if err != nil {
		return fmt.Errorf("load device filter: %w", err)
	}
	defer unix.Close(prog) // the cgroup keeps it
	attr := struct{ target, prog, kind, flags uint32 }{
		uint32(d.Fd()), uint32(prog), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return fmt.Errorf("attach device filter: %w", err)
	}
	return nil
}

// instruction is one of the kernel's BPF instructions, in its layout.
type instruction struct {
	code     uint8
	dst, src uint8
	off      int16
	imm      int32
}

// Operation codes, as in linux/bpf_common.h and linux/bpf.h.
const (
	loadWord     = 0x61 // dst = *(u32 *)(src + off)
	moveRegister = 0xbf
	moveNumber   = 0xb7
	andNumber    = 0x54
	shiftRight   = 0x74
	jumpUnequal  = 0x55
	jumpBitsSet  = 0x45
	exit         = 0x95
)

// deviceProgram decides over struct bpf_cgroup_dev_ctx { u32 access_type,
// major, minor }: 1 is yes. access_type has the kind in its lower half and the
// wanted access in its upper. The program runs straight down: one test for each
// allowed device, then no.
func deviceProgram(allowed []*devices.Rule) []instruction {
	no := []instruction{{code: moveNumber, dst: 0, imm: 0}, {code: exit}}
	yes := []instruction{{code: moveNumber, dst: 0, imm: 1}, {code: exit}}
	p := []instruction{
		{code: loadWord, dst: 2, src: 1, off: 0},
		{code: moveRegister, dst: 3, src: 2},
		{code: andNumber, dst: 2, imm: 0xffff},
		{code: shiftRight, dst: 3, imm: 16},
		{code: loadWord, dst: 4, src: 1, off: 4},
		{code: loadWord, dst: 5, src: 1, off: 8},
	}
	for _, r := range allowed {
		kind, refused := int32(unix.BPF_DEVCG_DEV_CHAR), int32(unix.BPF_DEVCG_ACC_MKNOD)
		if r.Type == devices.BlockDevice {
			kind = unix.BPF_DEVCG_DEV_BLOCK
		}
		if !strings.Contains(string(r.Permissions), "r") {
			refused |= unix.BPF_DEVCG_ACC_READ
		}
		if !strings.Contains(string(r.Permissions), "w") {
			refused |= unix.BPF_DEVCG_ACC_WRITE
		}
		rest := []instruction{
			{code: jumpUnequal, dst: 2, imm: kind},
			{code: jumpBitsSet, dst: 3, imm: refused},
			{code: jumpUnequal, dst: 4, imm: int32(r.Major)},
		}
		if r.Minor != devices.Wildcard {
			rest = append(rest, instruction{code: jumpUnequal, dst: 5, imm: int32(r.Minor)})
		}
		rest = append(rest, yes...)
		for i := range rest[:len(rest)-len(yes)] {
			rest[i].off = int16(len(rest) - i - 1) // to what follows this device
		}
		p = append(p, rest...)
	}
	return append(p, no...)
}

func loadProgram(p []instruction) (int, error) {
	var code []byte
	for _, i := range p {
		code = append(code, i.code, i.dst|i.src<<4)
		code = binary.NativeEndian.AppendUint16(code, uint16(i.off))
		code = binary.NativeEndian.AppendUint32(code, uint32(i.imm))
	}
	license := []byte("Apache\x00")
	// Pinned: the kernel is given numbers, which the collector does not see.
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&code[0])
	pin.Pin(&license[0])
	attr := struct {
		kind, count     uint32
		code, license   uint64
		logLevel, logSz uint32
		log             uint64
	}{kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(p)),
		code: address(code), license: address(license)}
	return bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

func bpf(cmd uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	for try := 0; ; try++ {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
		switch {
		case errno == 0:
			return int(fd), nil
		case errno == unix.EAGAIN && try < 30: // the verifier was interrupted
		default:
			return -1, errors.New("bpf(" + strconv.Itoa(int(cmd)) + "): " + errno.Error())
		}
	}
}
