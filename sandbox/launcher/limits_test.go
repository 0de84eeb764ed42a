package launcher_test

import (
	"strings"
	"testing"
	"time"
)

func TestMemoryLimit(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")
	p.Limits.Memory = 32 << 20
	res := r.run(p)
	if res.exit.Code != 137 || res.exit.Signal != 9 || !res.exit.OOMKilled || res.exit.Usage.OOMKills == 0 {
		t.Errorf("%+v", res.exit)
	}
	recs := r.records(p.Run)
	if got := names(recs); got != "run.intent run.start run.oom run.anchor run.exit run.seal" {
		t.Errorf("records: %s", got)
	}
}

func TestPIDsLimit(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "i=0; while [ $i -lt 50 ]; do sleep 2 & i=$((i+1)); done; wait")
	p.Limits.PIDs = 10
	res := r.run(p)
	if res.exit.Usage.PIDsPeak > 10 || res.exit.Usage.PIDsRefused == 0 || !strings.Contains(res.errOut, "fork") {
		t.Errorf("%+v %q", res.exit.Usage, res.errOut)
	}
}

func TestCPULimit(t *testing.T) {
	r := newRig(t)
	p := r.plan("/bin/sh", "-c", "(while :; do :; done) & sleep 1")
	p.Limits.CPUQuota, p.Limits.CPUPeriod = 10_000, 100_000
	exit := r.run(p).exit
	// The start is in the usage, but not in the time.
	took := exit.Finished.Sub(exit.Started)
	if got := time.Duration(exit.Usage.CPUNanos); got > took/4+200*time.Millisecond {
		t.Errorf("a tenth of a processor used %v in %v", got, took)
	}
}
