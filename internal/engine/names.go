package engine

import (
	"crypto/rand"
	"fmt"

	"github.com/ward-project/ward/internal/fault"
)

// checkName holds Docker's rule for names (moby daemon/names), which keeps them
// usable as neighbours of host names, as file names and as words in a shell.
// Written out: compiling the pattern would cost every start of the program.
func checkName(name string) error {
	ok := len(name) > 0 && len(name) <= 128
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = letter || i > 0 && (c == '_' || c == '.' || c == '-')
	}
	if ok {
		return nil
	}
	return fault.New(fault.Invalid, "run.name", fmt.Sprintf("%.64q is not a container name", name),
		"use up to 128 letters, digits, '_', '.' and '-', beginning with a letter or digit")
}

var (
	nameHow  = [...]string{"calm", "brisk", "clear", "deft", "even", "fair", "firm", "glad", "keen", "kind", "lucid", "mild", "neat", "plain", "quick", "quiet", "ready", "sharp", "sober", "steady", "still", "stout", "sure", "terse", "tidy", "true", "vivid", "warm", "wary", "whole", "wise", "wry"}
	nameWhat = [...]string{"anchor", "arch", "beacon", "bolt", "bridge", "buoy", "cairn", "castle", "dyke", "ferry", "forge", "gate", "harbor", "hinge", "keel", "keep", "key", "lantern", "lathe", "lintel", "lock", "mast", "moat", "pier", "quay", "rampart", "rudder", "sluice", "tower", "vault", "wall", "watch"}
)

// randomName makes a name nobody has to type. It may be taken; the id's first
// digits behind it make that unlikely, and a clash is an error, not a mix-up.
func randomName(id string) string {
	var b [2]byte
	rand.Read(b[:])
	return fmt.Sprintf("%s_%s_%s", nameHow[int(b[0])%len(nameHow)], nameWhat[int(b[1])%len(nameWhat)], id[:4])
}
