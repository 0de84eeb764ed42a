package launcher_test

import (
	"testing"
)

func TestRun(t *testing.T) {
	r := newRig(t)
	res := r.sh("echo out; echo err >&2; exit 7")
	if res.exit.Code != 7 || res.exit.Signal != 0 || res.exit.OOMKilled || res.exit.Error != "" {
		t.Errorf("exit %+v", res.exit)
	}
	if res.out != "out\n" || res.errOut != "err\n" {
		t.Errorf("out %q, err %q", res.out, res.errOut)
	}
}
