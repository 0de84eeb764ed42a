package profile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// The kernel's filter language (linux/bpf_common.h, linux/seccomp.h).
const (
	opLoad         = 0x20 // A = word at K of struct seccomp_data
	opAnd          = 0x54
	opReturn       = 0x06
	opJump         = 0x05
	opEqual        = 0x15
	opGreater      = 0x25
	opGreaterEqual = 0x35

	retKill   = 0x80000000 // the process
	retErrno  = 0x00050000
	retNotify = 0x7fc00000
	retAllow  = 0x7fff0000

	offNumber, offArch, offArgs = 0, 4, 16

	// maxProgram is the kernel's BPF_MAXINSNS.
	maxProgram = 4096
)

// instruction is struct sock_filter.
type instruction struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

// Program is the filter as the kernel takes it: an array of struct
// sock_filter. Allowed calls without conditions are decided by number alone,
// which the kernel finds out once and then never runs the program for them.
// Calls that are not allowed go to whoever listens, but for quiet ones.
//
// It is made here and not by libseccomp, which takes five milliseconds for the
// same rules, cannot refer by default to a listener, and in Debian 12 neither
// knows calls newer than Linux 5.17 nor WAIT_KILLABLE_RECV.
func (f *Filter) Program() ([]byte, error) {
	if auditArch == 0 {
		return nil, errors.New("there is no system-call table for this architecture")
	}
	spans := f.spans()
	tree, err := branch(spans)
	if err != nil {
		return nil, err
	}
	program := []instruction{
		{opLoad, 0, 0, offArch},
		{opEqual, 1, 0, auditArch},
		{opReturn, 0, 0, retKill},
		{opLoad, 0, 0, offNumber},
		// No call at all: a tracer has taken it back. It must be left alone, or
		// the tracer's result would be overwritten.
		{opEqual, 0, 1, 0xffffffff},
		{opReturn, 0, 0, retAllow},
		{opGreaterEqual, 0, 1, foreign},
		{opReturn, 0, 0, retKill},
	}
	program = append(program, tree...)
	if len(program) > maxProgram {
		return nil, fmt.Errorf("the filter has %d instructions and %d are allowed", len(program), maxProgram)
	}
	out := make([]byte, 0, 8*len(program))
	for _, i := range program {
		out = binary.LittleEndian.AppendUint16(out, i.code)
		out = append(out, i.jt, i.jf)
		out = binary.LittleEndian.AppendUint32(out, i.k)
	}
	return out, nil
}

// span is a range of numbers, from first up to the next span, with one answer.
type span struct {
	first uint32
	rules []Rule
}

// spans covers all numbers, neighbours with the same answer joined.
func (f *Filter) spans() []span {
	all := []span{{}}
	add := func(first uint32, rules []Rule) {
		if last := &all[len(all)-1]; same(last.rules, rules) {
			return
		} else if last.first == first {
			last.rules = rules
			return
		}
		all = append(all, span{first, rules})
	}
	next := 0
	for _, nr := range slices.Sorted(maps.Keys(f.calls)) {
		if nr > next {
			add(uint32(next), nil)
		}
		add(uint32(nr), f.calls[nr])
		next = nr + 1
	}
	add(uint32(next), nil)
	return all
}

// same reports whether two calls get the same answer by the same instructions.
func same(a, b []Rule) bool {
	if plain(a) && plain(b) {
		return leafResult(a) == leafResult(b)
	}
	return len(a) == len(b) && slices.EqualFunc(a, b, func(x, y Rule) bool {
		return result(x) == result(y) && reflect.DeepEqual(x.Args, y.Args)
	})
}

// plain says that the first rule decides, or that there is none.
func plain(rules []Rule) bool { return len(rules) == 0 || len(rules[0].Args) == 0 }

func leafResult(rules []Rule) uint32 {
	if len(rules) == 0 {
		return retNotify
	}
	return result(rules[0])
}

func result(r Rule) uint32 {
	switch {
	case r.Action == Allow:
		return retAllow
	case r.Quiet:
		return retErrno | uint32(r.Errno)
	}
	return retNotify
}

// branch is a binary search over spans. Each leaf ends in a return, so that
// branches can be put one behind the other.
func branch(spans []span) ([]instruction, error) {
	if len(spans) == 1 {
		return leaf(spans[0].rules)
	}
	half := len(spans) / 2
	below, err := branch(spans[:half])
	if err != nil {
		return nil, err
	}
	above, err := branch(spans[half:])
	if err != nil {
		return nil, err
	}
	var out []instruction
	if len(below) <= 255 {
		out = append(out, instruction{opGreaterEqual, uint8(len(below)), 0, spans[half].first})
	} else { // a conditional jump reaches 255 instructions
		out = append(out, instruction{opGreaterEqual, 0, 1, spans[half].first}, instruction{opJump, 0, 0, uint32(len(below))})
	}
	return append(append(out, below...), above...), nil
}

func leaf(rules []Rule) ([]instruction, error) {
	var out []instruction
	for _, r := range rules {
		if len(r.Args) == 0 {
			return append(out, instruction{opReturn, 0, 0, result(r)}), nil
		}
		test, err := conditions(r)
		if err != nil {
			return nil, err
		}
		out = append(out, test...)
	}
	return append(out, instruction{opReturn, 0, 0, retNotify}), nil
}

// In conditions, jumps to these places stand for the end of the rule and for
// its next condition until the distances are known.
const (
	toFail = 254
	toNext = 255
)

// conditions is one rule: if all hold, its result is returned, else the
// program goes on behind it.
func conditions(r Rule) ([]instruction, error) {
	var out []instruction
	for _, a := range r.Args {
		test := a.test()
		for i := range test {
			if test[i].jt == toNext {
				test[i].jt = uint8(len(test) - 1 - i)
			}
			if test[i].jf == toNext {
				test[i].jf = uint8(len(test) - 1 - i)
			}
		}
		out = append(out, test...)
	}
	out = append(out, instruction{opReturn, 0, 0, result(r)})
	if len(out) > 200 {
		return nil, fmt.Errorf("%v: too many conditions in one rule", r.Names)
	}
	for i := range out {
		if out[i].jt == toFail {
			out[i].jt = uint8(len(out) - 1 - i)
		}
		if out[i].jf == toFail {
			out[i].jf = uint8(len(out) - 1 - i)
		}
	}
	return out, nil
}

// test compares one argument. The language has words of 32 bits, arguments
// have two, low one first on the architectures here.
func (a Arg) test() []instruction {
	low := instruction{opLoad, 0, 0, uint32(offArgs + 8*a.Index)}
	high := instruction{opLoad, 0, 0, low.k + 4}
	vl, vh := uint32(a.Value), uint32(a.Value>>32)
	switch a.Op {
	case NotEqual:
		return []instruction{high, {opEqual, 0, toNext, vh}, low, {opEqual, toFail, 0, vl}}
	case Greater, GreaterEqual:
		op := uint16(opGreater)
		if a.Op == GreaterEqual {
			op = opGreaterEqual
		}
		return []instruction{high, {opGreater, toNext, 0, vh}, {opEqual, 0, toFail, vh}, low, {op, 0, toFail, vl}}
	case Less, LessEqual:
		op := uint16(opGreaterEqual)
		if a.Op == LessEqual {
			op = opGreater
		}
		return []instruction{high, {opGreater, toFail, 0, vh}, {opEqual, 0, toNext, vh}, low, {op, toFail, 0, vl}}
	case MaskedEqual:
		return []instruction{
			high, {opAnd, 0, 0, uint32(a.Mask >> 32)}, {opEqual, 0, toFail, vh},
			low, {opAnd, 0, 0, uint32(a.Mask)}, {opEqual, 0, toFail, vl},
		}
	}
	return []instruction{high, {opEqual, 0, toFail, vh}, low, {opEqual, 0, toFail, vl}} // Equal
}
