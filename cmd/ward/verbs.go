package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// verb is a command by the name it is called by, and how it is made.
type verb struct {
	name string
	make func(*app) *cobra.Command
}

// verbs are all of ward's commands. The name stands beside the function so
// that a run makes its own command alone: declaring the flags of all the
// others takes as long as verifying a signature.
func verbs() []verb {
	return []verb{
		{"run", newRun}, {"create", newCreate}, {"start", newStart}, {"restart", newRestart}, {"rename", newRename}, {"exec", newExec}, {"attach", newAttach}, {"cp", newCp}, {"keep", newKeep}, {"events", newEvents},
		{"ps", newPs}, {"port", newPort}, {"logs", newLogs}, {"stop", newStop}, {"kill", newKill}, {"wait", newWait},
		{"pause", newPause}, {"unpause", newUnpause}, {"update", newUpdate}, {"stats", newStats}, {"top", newTop}, {"rm", newRm}, {"inspect", newInspect},
		{"volume", newVolume}, {"container", newContainerGroup}, {"image", newImageGroup}, {"system", newSystemGroup}, {"diff", newDiff},
		{"pull", newPull}, {"push", newPush}, {"images", newImages}, {"rmi", newRmi}, {"tag", newTag}, {"import", newImport},
		{"key", newKey}, {"sign", newSign}, {"attest", newAttest}, {"verify", newVerify}, {"verify-attestation", newVerifyAttestation}, {"tree", newTree}, {"verify-blob", newVerifyBlob}, {"trust", newTrust}, {"policy", newPolicy}, {"audit", newAudit},
		{"gate", newGate},
		{"registry", func(*app) *cobra.Command { return newRegistry() }},
		{"version", func(*app) *cobra.Command { return newVersion() }},
		{"info", newInfo}, {"doctor", newDoctor},
	}
}

// commands makes the command that args ask for; all of them where that is not
// plain (help, an alias, a mistake).
func commands(a *app, args []string) []*cobra.Command {
	asked := askedFor(args)
	var all []*cobra.Command
	for _, v := range verbs() {
		if v.name == asked {
			return []*cobra.Command{v.make(a)}
		}
	}
	for _, v := range verbs() {
		all = append(all, v.make(a))
	}
	return all
}

// askedFor is the first of args that is no flag of ward itself, or "".
func askedFor(args []string) string {
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--root":
			i++ // its value
		case strings.HasPrefix(arg, "--root="):
		case strings.HasPrefix(arg, "-"):
			return ""
		default:
			return arg
		}
	}
	return ""
}
