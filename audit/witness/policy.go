package witness

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Bounds on a policy file.
const (
	// MaxPolicy is the largest policy file, in bytes.
	MaxPolicy    = 64 << 10
	maxWitnesses = 64
)

// Policy says who the witnesses are and how many of them are enough. The zero
// Policy has no witnesses and is never met.
type Policy struct {
	Witnesses []Witness
	// quorum is what has to be met; nil: nothing is demanded.
	quorum *group
	read   bool
}

// Witness is somebody who cosigns checkpoints.
type Witness struct {
	// Name is the policy's own word for it, URL where it takes checkpoints; ""
	// is one that is not asked from here.
	Name, URL string
	key       note.Verifier
}

// Key is the witness's public key, as a note names it: name and hash.
func (w Witness) Key() string { return fmt.Sprintf("%s+%08x", w.key.Name(), w.key.KeyHash()) }

// group is met if at least needs of its members are: groups, or the witness.
type group struct {
	needs   int
	members []*group
	witness string
}

func (g *group) met(signed func(name string) bool) bool {
	if g.witness != "" {
		return signed(g.witness)
	}
	n := 0
	for _, m := range g.members {
		if m.met(signed) {
			n++
		}
	}
	return n >= g.needs
}

// ParsePolicy reads a witness policy in the form that Tessera and torchwood
// read: lines "log VKEY", "witness NAME VKEY [URL]", "group NAME
// any|all|N MEMBER…" and one "quorum NAME|none"; "#" begins a comment. Where it
// names logs, origin has to be one of them. What is not understood is an error
// with its line.
func ParsePolicy(b []byte, origin string) (Policy, error) {
	if len(b) > MaxPolicy {
		return Policy{}, fmt.Errorf("a witness policy has at most %d bytes", MaxPolicy)
	}
	p := policyReader{groups: map[string]*group{}, keys: map[string]bool{}}
	for i, line := range strings.Split(string(b), "\n") {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if err := p.line(fields); err != nil {
			return Policy{}, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	switch {
	case !p.read:
		return Policy{}, errors.New(`no "quorum" line: say how many witnesses are enough, or "quorum none"`)
	case len(p.logs) > 0 && !slices.Contains(p.logs, origin):
		return Policy{}, fmt.Errorf("it is for other logs than %s", origin)
	}
	return p.Policy, nil
}

// policyReader is a policy, half read.
type policyReader struct {
	Policy
	logs   []string
	groups map[string]*group
	keys   map[string]bool
}

func (p *policyReader) line(fields []string) error {
	switch word, args := fields[0], fields[1:]; word {
	case "log":
		if len(args) < 1 || len(args) > 2 {
			return errors.New("log VKEY [URL]")
		}
		v, err := note.NewVerifier(args[0])
		if err != nil {
			return fmt.Errorf("log key: %w", err)
		}
		p.logs = append(p.logs, v.Name())
		return nil
	case "witness":
		return p.witness(args)
	case "group":
		return p.group(args)
	case "quorum":
		if p.read || len(args) != 1 {
			return errors.New("one quorum NAME, or quorum none")
		}
		if p.read = true; args[0] == "none" {
			return nil
		}
		if p.quorum = p.groups[args[0]]; p.quorum == nil {
			return fmt.Errorf("no witness or group is called %q", clip(args[0]))
		}
		return nil
	default:
		return fmt.Errorf("unknown word %q", clip(word))
	}
}

// name checks that a name is new.
func (p *policyReader) name(s string) error {
	if s == "none" || p.groups[s] != nil {
		return fmt.Errorf("the name %q is taken", clip(s))
	}
	return nil
}

func (p *policyReader) witness(args []string) error {
	if len(args) < 2 || len(args) > 3 {
		return errors.New("witness NAME VKEY [URL]")
	}
	if len(p.Witnesses) == maxWitnesses {
		return fmt.Errorf("more than %d witnesses", maxWitnesses)
	}
	w := Witness{Name: args[0]}
	if err := p.name(w.Name); err != nil {
		return err
	}
	var err error
	if w.key, err = newVerifier(args[1]); err != nil {
		return fmt.Errorf("witness key: %w", err)
	}
	// Counted twice, one witness would be two.
	if p.keys[args[1]] {
		return fmt.Errorf("the key %q is there twice", clip(args[1]))
	}
	p.keys[args[1]] = true
	if len(args) == 3 {
		u, err := url.Parse(args[2])
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("%q is no address of a witness", clip(args[2]))
		}
		w.URL = strings.TrimRight(args[2], "/")
	}
	p.Witnesses = append(p.Witnesses, w)
	p.groups[w.Name] = &group{witness: w.Name}
	return nil
}

func (p *policyReader) group(args []string) error {
	if len(args) < 3 {
		return errors.New("group NAME any|all|N MEMBER…")
	}
	if err := p.name(args[0]); err != nil {
		return err
	}
	g := &group{}
	seen := map[string]bool{}
	for _, m := range args[2:] {
		if p.groups[m] == nil {
			return fmt.Errorf("no witness or group is called %q", clip(m))
		}
		if seen[m] {
			return fmt.Errorf("%q is a member twice", clip(m))
		}
		seen[m] = true
		g.members = append(g.members, p.groups[m])
	}
	switch args[1] {
	case "any":
		g.needs = 1
	case "all":
		g.needs = len(g.members)
	default:
		n, err := strconv.Atoi(args[1])
		if err != nil || n < 1 || n > len(g.members) {
			return fmt.Errorf("%q of %d members", clip(args[1]), len(g.members))
		}
		g.needs = n
	}
	p.groups[args[0]] = g
	return nil
}

// Level is what cosigned checkpoints prove under a policy.
type Level struct {
	// Witnesses is how many the policy has, Cosigned how many signed anything.
	Witnesses, Cosigned int
	// Met says that the quorum signed: Size is then how many records the quorum
	// vouches for, and Time when the last of them that it takes did so. With
	// "quorum none" it is met with nothing.
	Met  bool
	Size int64
	Time time.Time
}

// Level judges checkpoints that Kept returned. Each of them has to be of the
// log in question: whoever signed a later one vouches for its beginning.
func (p Policy) Level(cs []Cosigned) Level {
	l := Level{Witnesses: len(p.Witnesses), Cosigned: len(cs), Met: p.read && p.quorum == nil}
	if p.quorum == nil {
		return l
	}
	for _, c := range cs {
		if c.Size < l.Size || l.Met && c.Size == l.Size {
			continue
		}
		var latest time.Time
		met := p.quorum.met(func(name string) bool {
			return slices.ContainsFunc(cs, func(o Cosigned) bool {
				if o.Witness != name || o.Size < c.Size {
					return false
				}
				if o.Time.After(latest) {
					latest = o.Time
				}
				return true
			})
		})
		if met {
			l.Met, l.Size, l.Time = true, c.Size, latest
		}
	}
	return l
}

// clip bounds what others wrote in a message.
func clip(s string) string { return s[:min(len(s), 100)] }
