package profile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Custom is the name of a profile that came from a file.
const Custom = "custom"

// Bounds on a profile from a file, some ten times what Docker's own has.
const (
	MaxFile  = 256 << 10
	maxRules = 4096
	maxNames = 16384
)

// Facts are what the rules of a profile can depend on.
type Facts struct {
	// Arch is Go's name of the architecture, Kernel the kernel's release.
	Arch, Kernel string
	// Capabilities are all the process will hold ("CAP_CHOWN").
	Capabilities []string
}

type file struct {
	DefaultAction    string      `json:"defaultAction"`
	DefaultErrno     string      `json:"defaultErrno"`
	DefaultErrnoRet  *uint       `json:"defaultErrnoRet"`
	Architectures    []string    `json:"architectures"`
	ArchMap          []archGroup `json:"archMap"`
	Flags            []string    `json:"flags"`
	ListenerPath     string      `json:"listenerPath"`
	ListenerMetadata string      `json:"listenerMetadata"`
	Syscalls         []fileRule  `json:"syscalls"`
}

type archGroup struct {
	Architecture     string   `json:"architecture"`
	SubArchitectures []string `json:"subArchitectures"`
}

type fileRule struct {
	Name     string    `json:"name"`
	Names    []string  `json:"names"`
	Action   string    `json:"action"`
	Errno    string    `json:"errno"`
	ErrnoRet *uint     `json:"errnoRet"`
	Args     []fileArg `json:"args"`
	Comment  string    `json:"comment"`
	Includes condition `json:"includes"`
	Excludes condition `json:"excludes"`
}

type fileArg struct {
	Index    uint   `json:"index"`
	Value    uint64 `json:"value"`
	ValueTwo uint64 `json:"valueTwo"`
	Op       string `json:"op"`
}

type condition struct {
	Caps      []string `json:"caps"`
	Arches    []string `json:"arches"`
	MinKernel string   `json:"minKernel"`
}

// Parse reads a profile in the form of Docker's --security-opt seccomp=FILE,
// of which the OCI runtime specification's is a part. What depends on
// architecture, capabilities and kernel is decided by facts; names that this
// architecture does not have are left out, as no call can have them.
//
// Whatever ward could not do exactly as written is an error that names it: a
// filter must not look stricter than it is.
func Parse(b []byte, facts Facts) (Profile, error) {
	if len(b) > MaxFile {
		return Profile{}, fmt.Errorf("more than %d bytes", MaxFile)
	}
	if err := unambiguous(b); err != nil {
		return Profile{}, err
	}
	var f file
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return Profile{}, err
	}
	if err := f.head(facts); err != nil {
		return Profile{}, err
	}
	p := Profile{Name: Custom, DefaultErrno: eperm}
	if f.DefaultErrnoRet != nil {
		p.DefaultErrno = *f.DefaultErrnoRet
	}
	if len(f.Syscalls) > maxRules {
		return Profile{}, fmt.Errorf("more than %d rules", maxRules)
	}
	total := 0
	for i, fr := range f.Syscalls {
		r, err := fr.rule(facts)
		if err != nil {
			return Profile{}, fmt.Errorf("syscalls[%d] (%.64q): %w", i, fr.first(), err)
		}
		if total += len(r.Names); total > maxNames {
			return Profile{}, fmt.Errorf("more than %d names of calls", maxNames)
		}
		if len(r.Names) > 0 {
			p.Rules = append(p.Rules, r)
		}
	}
	_, err := p.Filter()
	return p, err
}

// unambiguous refuses what two readers could read as two profiles: a member
// that is there twice, also in other letters, and anything after the end.
func unambiguous(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := members(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something after the end")
	}
	return nil
}

func members(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth > 8 {
		return errors.New("nested too deeply")
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			key, err := d.Token()
			if err != nil {
				return err
			}
			k := strings.ToLower(fmt.Sprint(key))
			if seen[k] {
				return fmt.Errorf("%.64q is there twice", k)
			}
			seen[k] = true
		}
		if err := members(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// archNames are seccomp's names of the architectures ward runs on.
var archNames = map[string]string{"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}

func (f file) head(facts Facts) error {
	switch {
	case f.DefaultAction != "SCMP_ACT_ERRNO":
		return fmt.Errorf("defaultAction %.32q is not there yet: a profile lists what to allow, and its default is SCMP_ACT_ERRNO", f.DefaultAction)
	case f.ListenerPath != "" || f.ListenerMetadata != "":
		return errors.New("listenerPath is not there: the container's monitor is the listener")
	case len(f.Architectures) > 0 && len(f.ArchMap) > 0:
		return errors.New("both architectures and archMap are given: use one")
	case f.DefaultErrno != "" && f.DefaultErrnoRet == nil:
		return errors.New("defaultErrno is given without defaultErrnoRet, which is what counts")
	}
	for _, flag := range f.Flags {
		// What these ask for is so anyway.
		if flag != "SECCOMP_FILTER_FLAG_TSYNC" && flag != "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" {
			return fmt.Errorf("flag %.64q is not there yet", flag)
		}
	}
	given := slices.Clone(f.Architectures)
	for _, g := range f.ArchMap {
		given = append(given, g.Architecture)
	}
	// Others may be listed: ward's filter is for the native one alone, and a
	// call through another ends the process.
	if native := archNames[facts.Arch]; len(given) > 0 && !slices.Contains(given, native) {
		return fmt.Errorf("the profile is not for this architecture, %s", native)
	}
	return nil
}

func (fr fileRule) first() string {
	if len(fr.Names) > 0 {
		return fr.Names[0]
	}
	return fr.Name
}

func (fr fileRule) rule(facts Facts) (Rule, error) {
	var r Rule
	names := fr.Names
	if fr.Name != "" {
		if len(names) > 0 {
			return r, errors.New("both name and names are given: use one")
		}
		names = []string{fr.Name}
	}
	if len(names) == 0 {
		return r, errors.New("no call is named")
	}
	if err := fr.outcome(&r); err != nil {
		return r, err
	}
	for _, a := range fr.Args {
		arg, err := a.arg()
		if err != nil {
			return r, err
		}
		if slices.ContainsFunc(r.Args, func(o Arg) bool { return o.Index == arg.Index }) {
			return r, fmt.Errorf("two conditions on argument %d: runtimes disagree whether both must hold", a.Index)
		}
		r.Args = append(r.Args, arg)
	}
	applies, err := fr.applies(facts)
	if err != nil || !applies {
		return r, err
	}
	for _, n := range names {
		if _, ok := CallNumber(n); ok && !slices.Contains(r.Names, n) {
			r.Names = append(r.Names, n)
		}
	}
	return r, nil
}

func (fr fileRule) outcome(r *Rule) error {
	switch fr.Action {
	case "SCMP_ACT_ALLOW":
		if fr.ErrnoRet != nil || fr.Errno != "" {
			return errors.New("an allowed call has no errnoRet")
		}
		r.Action = Allow
	case "SCMP_ACT_ERRNO":
		r.Action, r.Errno = Refuse, eperm
		if fr.ErrnoRet != nil {
			r.Errno = *fr.ErrnoRet
		} else if fr.Errno != "" {
			return errors.New("errno is given without errnoRet, which is what counts")
		}
	default:
		return fmt.Errorf("action %.32q is not there yet: use SCMP_ACT_ALLOW or SCMP_ACT_ERRNO", fr.Action)
	}
	return nil
}

var fileOps = map[string]Op{
	"SCMP_CMP_EQ": Equal, "SCMP_CMP_NE": NotEqual, "SCMP_CMP_GT": Greater, "SCMP_CMP_GE": GreaterEqual, "SCMP_CMP_LT": Less,
	"SCMP_CMP_LE": LessEqual, "SCMP_CMP_MASKED_EQ": MaskedEqual,
}

func (a fileArg) arg() (Arg, error) {
	op, ok := fileOps[a.Op]
	switch {
	case !ok:
		return Arg{}, fmt.Errorf("comparison %.32q is not known", a.Op)
	case a.Index >= maxArgs:
		return Arg{}, fmt.Errorf("there is no argument %d", a.Index)
	case op == MaskedEqual && (a.Value == 0 || a.ValueTwo&^a.Value != 0):
		return Arg{}, fmt.Errorf("valueTwo %#x has bits that the mask %#x does not", a.ValueTwo, a.Value)
	case op == MaskedEqual:
		return Arg{Index: a.Index, Op: op, Mask: a.Value, Value: a.ValueTwo}, nil
	case a.ValueTwo != 0:
		return Arg{}, errors.New("valueTwo is for SCMP_CMP_MASKED_EQ alone")
	}
	return Arg{Index: a.Index, Op: op, Value: a.Value}, nil
}

// applies decides includes and excludes as Docker does.
func (fr fileRule) applies(facts Facts) (bool, error) {
	has := func(list []string) func(string) bool {
		return func(s string) bool { return slices.Contains(list, s) }
	}
	in, ex := fr.Includes, fr.Excludes
	newEnough, err := reached(in.MinKernel, facts.Kernel)
	if err != nil {
		return false, err
	}
	tooNew, err := reached(ex.MinKernel, facts.Kernel)
	if err != nil {
		return false, err
	}
	switch {
	case slices.Contains(ex.Arches, facts.Arch), slices.ContainsFunc(ex.Caps, has(facts.Capabilities)), ex.MinKernel != "" && tooNew:
		return false, nil
	case len(in.Arches) > 0 && !slices.Contains(in.Arches, facts.Arch):
		return false, nil
	case slices.ContainsFunc(in.Caps, func(c string) bool { return !has(facts.Capabilities)(c) }):
		return false, nil
	}
	return newEnough, nil
}

// reached reports whether kernel is at least "MAJOR.MINOR"; always for "".
func reached(least, kernel string) (bool, error) {
	if least == "" {
		return true, nil
	}
	want, ok := version(least)
	if !ok || strings.Count(least, ".") != 1 {
		return false, fmt.Errorf("minKernel %.32q is not MAJOR.MINOR", least)
	}
	have, ok := version(kernel)
	if !ok {
		return false, fmt.Errorf("kernel release %.32q has no version", kernel)
	}
	return slices.Compare(have[:], want[:]) >= 0, nil
}

func version(s string) (v [2]int, ok bool) {
	major, rest, ok := strings.Cut(s, ".")
	if !ok {
		return v, false
	}
	end := strings.IndexFunc(rest, func(c rune) bool { return c < '0' || c > '9' })
	if end < 0 {
		end = len(rest)
	}
	for i, part := range []string{major, rest[:end]} {
		n, err := strconv.ParseUint(part, 10, 16)
		if err != nil {
			return v, false
		}
		v[i] = int(n)
	}
	return v, true
}
