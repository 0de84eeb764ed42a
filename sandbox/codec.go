package sandbox

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/ward-project/ward/internal/fault"
)

// MaxPlan bounds an encoded plan, in bytes.
const MaxPlan = 1 << 20

// Encode returns the plan's one canonical encoding: compact JSON with the
// fields in the order of their declaration and empty lists written as [].
// A plan that would not survive the round trip (a string that is not UTF-8,
// more than MaxPlan bytes) is fault.Invalid rather than silently changed.
func (p Plan) Encode() ([]byte, error) { return encode(p.normal(), MaxPlan) }

// DecodePlan reads an encoded plan. It accepts exactly what Encode writes:
// unknown, missing or repeated fields, other spellings of the same value and
// trailing bytes are fault.Invalid, so that two programs cannot read one
// sequence of bytes as two plans.
func DecodePlan(b []byte) (Plan, error) {
	p, err := decode(b, MaxPlan, Plan.normal)
	if err == nil {
		err = readable(p.Version, PlanVersion)
	}
	if err != nil {
		return Plan{}, err
	}
	return p, nil
}

// encode is the encoding of every kind of plan, which normal has been applied
// to.
func encode[T any](p T, most int) ([]byte, error) {
	b, err := marshal(p)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "plan.encoding", err, "")
	}
	if len(b) > most {
		return nil, tooLarge(len(b), most)
	}
	// json.Marshal replaces bytes that are not UTF-8: compare, or the record
	// would describe another argument than the one asked for.
	var back T
	if err := json.Unmarshal(b, &back); err != nil {
		return nil, fault.Wrap(fault.Invalid, "plan.encoding", err, "")
	}
	if !reflect.DeepEqual(p, back) {
		return nil, fault.New(fault.Invalid, "plan.encoding",
			"an argument, environment entry or path is not valid UTF-8", "use UTF-8 text only")
	}
	return b, nil
}

// decode reads exactly what encode writes.
func decode[T any](b []byte, most int, normal func(T) T) (T, error) {
	var none, p T
	if len(b) > most {
		return none, tooLarge(len(b), most)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return none, fault.New(fault.Invalid, "plan.encoding", "the plan cannot be read: "+err.Error(), "")
	}
	again, err := marshal(normal(p))
	if err != nil {
		return none, fault.Wrap(fault.Invalid, "plan.encoding", err, "")
	}
	if !bytes.Equal(b, again) {
		return none, fault.New(fault.Invalid, "plan.encoding", "the plan is not in its canonical encoding", "")
	}
	return p, nil
}

// readable refuses a plan of another version than this program reads.
func readable(version, ours int) error {
	if version == ours {
		return nil
	}
	return fault.New(fault.Invalid, "plan.version",
		fmt.Sprintf("the plan has version %d and this program reads version %d", version, ours),
		"install all of ward's programs from the same build")
}

// Digest returns the digest by which records name an encoded plan.
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func tooLarge(n, most int) error {
	return fault.New(fault.Invalid, "plan.size",
		fmt.Sprintf("the plan has %d bytes and %d are allowed", n, most), "pass less in arguments and environment")
}

// marshal is json.Marshal without HTML escaping and without the final newline.
func marshal(p any) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(p); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte{'\n'}), nil
}

// normal makes nil and empty lists the same, as they mean the same.
func (p Plan) normal() Plan {
	p.Process.Args = list(p.Process.Args)
	p.Process.Env = list(p.Process.Env)
	p.Process.Groups = list(p.Process.Groups)
	p.Process.Capabilities = list(p.Process.Capabilities)
	p.Process.Rlimits = list(p.Process.Rlimits)
	p.Root.Layers = list(p.Root.Layers)
	p.Mounts = list(p.Mounts)
	p.Limits = p.Limits.normal()
	p.Landlock.TCPBind, p.Landlock.TCPConnect = list(p.Landlock.TCPBind), list(p.Landlock.TCPConnect)
	p.Sysctls = list(p.Sysctls)
	p.Devices = list(p.Devices)
	p.Hosts = list(p.Hosts)
	p.Resolver = Resolver{list(p.Resolver.Servers), list(p.Resolver.Search), list(p.Resolver.Options)}
	p.MaskedPaths = list(p.MaskedPaths)
	p.ReadonlyPaths = list(p.ReadonlyPaths)
	return p
}

func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
