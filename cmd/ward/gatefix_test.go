package main

import (
	"strings"
	"testing"

	reports "github.com/ward-project/ward/internal/ci/report"
)

// What differs in the capability alone is said once; nothing else is lost.
func TestTogether(t *testing.T) {
	one := func(name string) reports.Reason {
		return reports.Reason{Code: "restricted.capabilities", Line: 3, Msg: "capability " + name + " may not be added at level restricted",
			Fix: `drop it; or write {"capabilities": ["` + name + `"]} to grants.json`}
	}
	other := reports.Reason{Code: "baseline.capabilities", Line: 3, Msg: "capability SYS_ADMIN is not one a container may add"}
	elsewhere := one("KILL")
	elsewhere.Line = 9
	got := together([]reports.Reason{one("CHOWN"), other, one("KILL"), {Code: "x", Msg: "y"}, one("SETUID"), elsewhere})
	if len(got) != 4 || got[0].Msg != "capabilities CHOWN, KILL, SETUID may not be added at level restricted" ||
		!strings.Contains(got[0].Fix, `["CHOWN", "KILL", "SETUID"]`) || got[1] != other || got[3] != elsewhere {
		t.Errorf("%+v", got)
	}
}
