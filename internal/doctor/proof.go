package doctor

import (
	"fmt"
	"io"
	"strings"
)

// Door is a way in.
type Door string

// The doors of a host. DoorStart is a container that was made before its image
// went bad, DoorExec one that runs.
const (
	DoorPull   Door = "pull"
	DoorRun    Door = "run"
	DoorCreate Door = "create"
	DoorStart  Door = "start"
	DoorExec   Door = "exec"
	DoorGate   Door = "gate"
	DoorOCI    Door = "ward-oci"
)

// Trial is one image at one door.
type Trial struct {
	Door Door   `json:"door"`
	Case string `json:"case"`
	// Good says that it has to be let in: the control.
	Good bool `json:"good,omitempty"`
	// Class and Rule are what it has to be refused by, GotClass and GotRule the
	// refusal that is on record; empty if there is none.
	Class    string `json:"class,omitempty"`
	Rule     string `json:"rule,omitempty"`
	GotClass string `json:"got_class,omitempty"`
	GotRule  string `json:"got_rule,omitempty"`
	// In says that it was let in.
	In bool `json:"in"`
	// Said is what the command printed, if it was not what it had to be.
	Said string `json:"said,omitempty"`
}

// OK says that the trial came out as it has to: a good image in, any other
// refused, on record, by the class and the rule that are for it. An empty Rule
// is any of the class.
func (t Trial) OK() bool {
	if t.Good {
		return t.In
	}
	return !t.In && t.GotRule != "" && t.GotClass == t.Class && (t.Rule == "" || t.GotRule == t.Rule)
}

// The outcomes of a proof.
const (
	// Proved: every door refused all of them, and let the good ones in.
	Proved = "proved"
	// Failed: something was let in, or refused otherwise than it should have been.
	Failed = "failed"
	// Inconclusive: a door lets nothing in, so its refusals prove nothing.
	Inconclusive = "inconclusive"
)

// Proof is what was tried and what came of it.
type Proof struct {
	Outcome string  `json:"outcome"`
	Trials  []Trial `json:"trials"`
	// Uses says what of the host was used, Skipped which doors were not tried, and why.
	Uses    []string `json:"uses"`
	Skipped []string `json:"skipped,omitempty"`
	// Level and Revision are the host's policy, Trust the digest of its trust
	// policies, Build the programs'.
	Level    string `json:"level"`
	Revision string `json:"revision"`
	Trust    string `json:"trust"`
	Build    string `json:"build"`
}

// judge gives the proof its outcome. Nothing tried is nothing proved.
func (p *Proof) judge() {
	p.Outcome = Inconclusive
	controlled, shut := p.controls()
	closed, failed, refused := false, false, 0
	for _, t := range p.Trials {
		closed = closed || shut[t.Door] || !controlled[t.Door]
		switch {
		case t.Good:
		case t.OK():
			refused++
		case t.In || !shut[t.Door]:
			// A door that is shut to all refuses for that reason first.
			failed = true
		}
	}
	switch {
	case failed:
		p.Outcome = Failed
	case !closed && refused > 0:
		p.Outcome = Proved
	}
}

// controls are the doors that were shown good images, and those of them that did
// not let all of these in.
func (p Proof) controls() (controlled, shut map[Door]bool) {
	controlled, shut = map[Door]bool{}, map[Door]bool{}
	for _, t := range p.Trials {
		if t.Good {
			controlled[t.Door] = true
			shut[t.Door] = shut[t.Door] || !t.OK()
		}
	}
	return controlled, shut
}

// Counts are how many trials there were: bad images that were refused as they
// had to be, bad ones that were let in, those refused otherwise, and good ones let in.
func (p Proof) Counts() (refused, admitted, otherwise, controls int) {
	for _, t := range p.Trials {
		switch {
		case t.Good && t.OK():
			controls++
		case t.Good:
		case t.OK():
			refused++
		case t.In:
			admitted++
		default:
			otherwise++
		}
	}
	return refused, admitted, otherwise, controls
}

// WriteText writes the proof for people: a line for each door, and what did not
// come out as it has to.
func (p Proof) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, u := range p.Uses {
		fmt.Fprintf(&b, "uses     %s\n", u)
	}
	var doors []Door
	count := map[Door]*[3]int{}
	for _, t := range p.Trials {
		if count[t.Door] == nil {
			doors, count[t.Door] = append(doors, t.Door), &[3]int{}
		}
		c := count[t.Door]
		switch {
		case t.Good && t.OK():
			c[2]++
		case !t.Good:
			c[1]++
			if t.OK() {
				c[0]++
			}
		}
	}
	for _, d := range doors {
		c := count[d]
		fmt.Fprintf(&b, "%-8s refused %d of %d; let in %d good\n", d, c[0], c[1], c[2])
	}
	_, shut := p.controls()
	for _, t := range p.Trials {
		if t.OK() || shut[t.Door] && !t.Good && !t.In {
			continue // what a door says that lets nobody in says nothing
		}
		want := "has to be refused by " + t.Rule + " (" + t.Class + ")"
		if t.Good {
			want = "has to be let in"
		}
		got := "was let in"
		if !t.In {
			got = "was refused by " + t.GotRule + " (" + t.GotClass + ")"
			if t.GotRule == "" {
				got = "was refused, and no refusal is on record"
			}
		}
		fmt.Fprintf(&b, "NOT SO   %s, %s: %s, and %s\n", t.Door, t.Case, want, got)
		if t.Said != "" {
			fmt.Fprintf(&b, "         %s\n", strings.ReplaceAll(strings.TrimSpace(t.Said), "\n", "\n         "))
		}
	}
	for _, s := range p.Skipped {
		fmt.Fprintf(&b, "skipped  %s\n", s)
	}
	fmt.Fprintf(&b, "%s\n", p.Outcome)
	_, err := io.WriteString(w, b.String())
	return err
}
