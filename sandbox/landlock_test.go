package sandbox_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// TestLandlock: what a plan has of it follows from the kernel, the network and
// the capabilities, and a plan with less is below the floor.
func TestLandlock(t *testing.T) {
	const none, host = sandbox.NetworkNone, sandbox.NetworkHost
	for name, c := range map[string]struct {
		abi                  int
		network              sandbox.Network
		caps                 []string
		off                  bool
		paths, abstract, tcp bool
		missing              sandbox.LandlockMissing
	}{
		"all of it":           {abi: 7, network: none, paths: true},
		"host's network":      {abi: 7, network: host, paths: true, abstract: true, tcp: true},
		"newer than we know":  {abi: 99, network: host, paths: true, abstract: true, tcp: true},
		"no abstract sockets": {abi: 5, network: host, paths: true, tcp: true, missing: sandbox.LandlockKernel},
		"no TCP":              {abi: 3, network: host, paths: true, missing: sandbox.LandlockKernel},
		"no renaming":         {abi: 1, network: none, missing: sandbox.LandlockKernel},
		"no Landlock":         {abi: 0, network: host, missing: sandbox.LandlockKernel},
		"enough":              {abi: 2, network: none, paths: true},
		"a debugger":          {abi: 7, network: none, caps: []string{"CAP_SYS_PTRACE"}, missing: sandbox.LandlockPtrace},
		"on the host's":       {abi: 7, network: host, caps: []string{"CAP_SYS_PTRACE"}, abstract: true, tcp: true, missing: sandbox.LandlockPtrace},
		"an administrator":    {abi: 7, network: none, caps: []string{"CAP_SYS_ADMIN"}, paths: true},
		"off":                 {abi: 7, network: host, off: true, missing: sandbox.LandlockOff},
	} {
		p := good()
		p.Network, p.Process.Capabilities = c.network, c.caps
		p = p.Landlocked(c.abi, c.off)
		l := p.Landlock
		if l.Paths != c.paths || l.AbstractSockets != c.abstract || l.TCP != c.tcp || l.Missing != c.missing || p.Seccomp.PlainTCP != c.tcp {
			t.Errorf("%s: %+v, %v", name, l, p.Seccomp.PlainTCP)
		}
		if err := sandbox.DefaultFloor().Check(p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for what, spoil := range map[string]func(*sandbox.Plan){
			"paths":    func(p *sandbox.Plan) { p.Landlock.Paths = !p.Landlock.Paths },
			"abstract": func(p *sandbox.Plan) { p.Landlock.AbstractSockets = !p.Landlock.AbstractSockets },
			"tcp":      func(p *sandbox.Plan) { p.Landlock.TCP = !p.Landlock.TCP },
			"filter":   func(p *sandbox.Plan) { p.Seccomp.PlainTCP = !p.Seccomp.PlainTCP },
			"missing":  func(p *sandbox.Plan) { p.Landlock.Missing = "x" },
			"abi":      func(p *sandbox.Plan) { p.Landlock.ABI = -1 },
		} {
			bad := p
			spoil(&bad)
			if err := sandbox.DefaultFloor().Check(bad); !errors.Is(err, fault.Denied) {
				t.Errorf("%s, other %s: %v", name, what, err)
			}
		}
	}
}

// TestTCPPortsOfAPlan: ports are numbers, each once, and of the host's network.
func TestTCPPortsOfAPlan(t *testing.T) {
	host := good()
	host.Network = sandbox.NetworkHost
	for ports, ok := range map[string]bool{
		"": true, "80": true, "0,65535": true, "*": true,
		"65536": false, "-1": false, "080": false, "+80": false, "http": false, "*,80": false, "80,*": false, "80,80": false, " 80": false,
		strings.Repeat("1,", 300) + "1": false,
	} {
		var list []string
		if ports != "" {
			list = strings.Split(ports, ",")
		}
		p := host
		p.Landlock.TCPBind = list
		p = p.Landlocked(7, false)
		if err := sandbox.DefaultFloor().Check(p); ok != (err == nil) {
			t.Errorf("%q: %v", ports, err)
		}
		p.Network = sandbox.NetworkNone
		if err := sandbox.DefaultFloor().Check(p.Landlocked(7, false)); (ports == "") != (err == nil) {
			t.Errorf("%q without the host's network: %v", ports, err)
		}
	}
}
