package forge

import (
	"encoding/binary"
	"fmt"
	"runtime"
)

// programs are two static programs for this machine: nothing of the host is put
// into an image, and the host needs no shell to give.
func programs() (ends, waits []byte, err error) {
	switch runtime.GOARCH {
	case "amd64":
		ends = []byte{
			0x31, 0xff, // xor edi, edi
			0xb8, 0x3c, 0, 0, 0, // mov eax, 60 (exit)
			0x0f, 0x05, // syscall
		}
		waits = []byte{
			0x31, 0xff, 0x31, 0xf6, 0x31, 0xd2, 0x45, 0x31, 0xd2, // xor edi, esi, edx, r10d
			0xb8, 0x0f, 0x01, 0, 0, // mov eax, 271 (ppoll): no descriptors, no end
			0x0f, 0x05, // syscall
			0xeb, 0xee, // jmp back
		}
		return elf(62, ends), elf(62, waits), nil
	case "arm64":
		ends = words(0xd2800000, 0xd2800ba8, 0xd4000001)                                      // x0 = 0; x8 = 93 (exit); svc
		waits = words(0xd2800000, 0xd2800001, 0xd2800002, 0xd2800003, 0xd2800928, 0xd4000001, // x0..x3 = 0; x8 = 73 (ppoll); svc
			0x17fffffa) // b back
		return elf(183, ends), elf(183, waits), nil
	}
	return nil, nil, fmt.Errorf("forge: no programs for %s", runtime.GOARCH)
}

func words(ws ...uint32) []byte {
	var b []byte
	for _, w := range ws {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// elf is a program of one segment that holds headers and code.
func elf(machine uint16, code []byte) []byte {
	const base, header, segment = 0x400000, 64, 56
	le := binary.LittleEndian
	b := append([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, make([]byte, 9)...)
	b = le.AppendUint16(b, 2) // executable
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+header+segment) // entry
	b = le.AppendUint64(b, header)              // segments
	b = le.AppendUint64(b, 0)
	b = le.AppendUint32(b, 0)
	for _, n := range []uint16{header, segment, 1, 0, 0, 0} {
		b = le.AppendUint16(b, n)
	}
	size := uint64(header + segment + len(code))
	b = le.AppendUint32(b, 1) // loaded
	b = le.AppendUint32(b, 5) // read and executed
	for _, n := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, n)
	}
	return append(b, code...)
}

// Program is the content of Ends or Waits.
func Program(path string) ([]byte, error) {
	ends, waits, err := programs()
	if path == Waits {
		return waits, err
	}
	return ends, err
}
