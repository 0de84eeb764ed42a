package cli

import "testing"

// TestInitOnATerminal: behind the init the payload is in the foreground: it
// reads, and what is typed to interrupt reaches it.
func TestInitOnATerminal(t *testing.T) {
	w := newTerminalWard(t)
	p := sit(t, w, 24, 80, "run", "--rm", "-it", "--init", "demo/busybox:1", "sh", "-c",
		"trap 'echo interrupted; exit 6' INT; stty size; echo ready; read x; echo got $x; while :; do sleep 0.1; done")
	p.sees("24 80\r\nready")
	p.types("word\r")
	p.sees("got word")
	p.types("\x03")
	p.sees("interrupted")
	p.leaves(6)

	// A shell with job control wants the terminal for itself.
	p = sit(t, w, 24, 80, "run", "--rm", "-it", "--init", "demo/busybox:1", "sh")
	p.sees("# ")
	p.types("sh -c 'echo o''n; sleep 100'\r")
	p.sees("\non\r\n")
	p.types("\x1a")
	p.sees("Stopped")
	p.types("exit 4\r")
	p.types("exit 4\r")
	p.leaves(4)
}
