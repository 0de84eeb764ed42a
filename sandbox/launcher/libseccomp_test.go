//go:build seccomp && amd64

package launcher

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	libseccomp "github.com/seccomp/libseccomp-golang"

	"github.com/ward-project/ward/sandbox/profile"
)

// TestFilterIsWhatLibseccompMakes compiles the default profile a second time,
// with libseccomp, and has both programs judge every call number with every
// argument that a rule looks at, and its neighbours: ward's own compiler must
// let through exactly what the field's does.
func TestFilterIsWhatLibseccompMakes(t *testing.T) {
	p := profile.Default()
	ours, err := p.Filter()
	if err != nil {
		t.Fatal(err)
	}
	own, err := ours.Program()
	if err != nil {
		t.Fatal(err)
	}
	theirs := libseccompProgram(t, p)
	values := []uint64{0, 1, 0xffffffff, 1 << 32, 1<<63 | 5, 0xffffffffffffffff}
	for _, r := range p.Rules {
		for _, a := range r.Args {
			values = append(values, a.Value, a.Value-1, a.Value+1, a.Value|1<<32, a.Mask, a.Value^a.Mask, a.Value|a.Mask)
		}
	}
	calls, allowed := 0, 0
	for nr := range uint32(600) {
		for _, v := range values {
			for index := range 6 {
				var args [6]uint64
				args[index] = v
				data := callData(nr, args)
				mine, other := judge(t, own, data), judge(t, theirs, data)
				if refusedBeside(p, nr, args) {
					// libseccomp cannot say "but for these": we say it for it.
					other = 0
				}
				if (mine == seccompAllow) != (other == seccompAllow) {
					name, _ := profile.CallName(int(nr))
					t.Fatalf("%s (%d) with argument %d = %#x: ward says %#x, libseccomp %#x", name, nr, index, v, mine, other)
				}
				calls++
				if mine == seccompAllow {
					allowed++
				}
			}
		}
	}
	t.Logf("%d calls judged alike, %d of them allowed", calls, allowed)
	if allowed == 0 || allowed == calls {
		t.Error("everything got the same answer: nothing was compared")
	}
}

const seccompAllow = 0x7fff0000

// refusedBeside reports whether a conditional refusal, which comes before an
// allowance of the same call without conditions, is about this one.
func refusedBeside(p profile.Profile, nr uint32, args [6]uint64) bool {
	for _, r := range p.Rules {
		if r.Action != profile.Refuse || len(r.Args) != 1 || r.Args[0].Op != profile.MaskedEqual {
			continue
		}
		a := r.Args[0]
		for _, name := range r.Names {
			if n, ok := profile.CallNumber(name); ok && uint32(n) == nr && args[a.Index]&a.Mask == a.Value {
				return true
			}
		}
	}
	return false
}

// libseccompProgram is the profile as libseccomp compiles it.
func libseccompProgram(t *testing.T, p profile.Profile) []byte {
	t.Helper()
	f, err := libseccomp.NewFilter(libseccomp.ActErrno.SetReturnCode(int16(p.DefaultErrno)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	ops := map[profile.Op]libseccomp.ScmpCompareOp{
		profile.Equal: libseccomp.CompareEqual, profile.GreaterEqual: libseccomp.CompareGreaterEqual,
		profile.MaskedEqual: libseccomp.CompareMaskedEqual, profile.NotEqual: libseccomp.CompareNotEqual,
		profile.Less: libseccomp.CompareLess, profile.LessEqual: libseccomp.CompareLessOrEqual, profile.Greater: libseccomp.CompareGreater,
	}
	for _, r := range p.Rules {
		if r.Action != profile.Allow {
			continue // refused by default too, with another number
		}
		for _, name := range r.Names {
			nr, ok := profile.CallNumber(name)
			if !ok {
				continue // another architecture's
			}
			call := libseccomp.ScmpSyscall(nr)
			if len(r.Args) == 0 {
				err = f.AddRule(call, libseccomp.ActAllow)
			} else {
				var conditions []libseccomp.ScmpCondition
				for _, a := range r.Args {
					vs := []uint64{a.Value}
					if a.Op == profile.MaskedEqual {
						vs = []uint64{a.Mask, a.Value}
					}
					c, cerr := libseccomp.MakeCondition(a.Index, ops[a.Op], vs...)
					if cerr != nil {
						t.Fatal(cerr)
					}
					conditions = append(conditions, c)
				}
				err = f.AddRuleConditional(call, libseccomp.ActAllow, conditions)
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "bpf"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := f.ExportBPF(file); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// callData is struct seccomp_data for a native call.
func callData(nr uint32, args [6]uint64) []byte {
	b := binary.LittleEndian.AppendUint32(nil, nr)
	b = binary.LittleEndian.AppendUint32(b, 0xc000003e) // AUDIT_ARCH_X86_64
	b = binary.LittleEndian.AppendUint64(b, 0)
	for _, a := range args {
		b = binary.LittleEndian.AppendUint64(b, a)
	}
	return b
}

// judge executes a classic BPF program as the kernel would, and knows as much
// of the language as filters use.
func judge(t *testing.T, program, data []byte) uint32 {
	t.Helper()
	var a, x uint32
	var m [16]uint32
	for pc := 0; pc*8 < len(program); pc++ {
		i := program[pc*8:]
		code, jt, jf, k := binary.LittleEndian.Uint16(i), int(i[2]), int(i[3]), binary.LittleEndian.Uint32(i[4:])
		jump := func(yes bool) {
			if yes {
				pc += jt
			} else {
				pc += jf
			}
		}
		switch code {
		case 0x20:
			a = binary.LittleEndian.Uint32(data[k:])
		case 0x00:
			a = k
		case 0x02:
			m[k] = a
		case 0x60:
			a = m[k]
		case 0x61:
			x = m[k]
		case 0x07:
			x = a
		case 0x87:
			a = x
		case 0x54:
			a &= k
		case 0x05:
			pc += int(k)
		case 0x15:
			jump(a == k)
		case 0x25:
			jump(a > k)
		case 0x35:
			jump(a >= k)
		case 0x45:
			jump(a&k != 0)
		case 0x06:
			return k
		default:
			t.Fatalf("instruction %d: code %#x is not known here", pc, code)
		}
	}
	t.Fatal("a program without an end")
	return 0
}
