package engine

import (
	"crypto/rand"
	"fmt"
	"regexp"

	"github.com/ward-project/ward/internal/fault"
)

// Docker's rule for names (moby daemon/names), which keeps them usable as
// host names' neighbours, file names and words in a shell.
var nameRule = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

func checkName(name string) error {
	if nameRule.MatchString(name) {
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
