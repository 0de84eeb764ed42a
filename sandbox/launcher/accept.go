package launcher

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// accept reads plan and receipt and checks them as if nobody had before:
// the gate may be of another build, or not be the gate at all.
func accept() (sandbox.Plan, error) {
	raw, err := readSealed(sandbox.FDPlan, sandbox.MaxPlan)
	if err != nil {
		return sandbox.Plan{}, fmt.Errorf("plan: %w", err)
	}
	proof, err := readSealed(sandbox.FDReceipt, receipt.MaxSize)
	if err != nil {
		return sandbox.Plan{}, fmt.Errorf("receipt: %w", err)
	}
	plan, err := sandbox.DecodePlan(raw)
	if err != nil {
		return sandbox.Plan{}, err
	}
	if err := sameBuild(plan.Build); err != nil {
		return sandbox.Plan{}, err
	}
	if err := sandbox.DefaultFloor().Check(plan); err != nil {
		return sandbox.Plan{}, err
	}
	if plan.Seccomp.Profile == sandbox.SeccompCustom {
		if _, err := filterOf(plan.Seccomp); err != nil {
			return sandbox.Plan{}, err
		}
	}
	return plan, proved(plan, raw, proof)
}

func sameBuild(build string) error {
	if build == sandbox.Build {
		return nil
	}
	return fault.New(fault.Unavailable, "launcher.build",
		fmt.Sprintf("the plan is of build %q and this launcher of build %q", build, sandbox.Build),
		"install ward and ward-launch from the same build")
}

// proved returns nil if proof shows that the log the plan names holds a
// run.intent for exactly this run and exactly these plan bytes.
func proved(plan sandbox.Plan, raw, proof []byte) error {
	return provedBy(plan.Host.AuditDir, audit.RunIntent, plan.Run, raw, proof)
}

// provedBy is proved for any plan: the log in dir, the type of the intent.
func provedBy(dir string, intent audit.Type, run string, raw, proof []byte) error {
	_, err := statement(dir, intent, run, raw, proof)
	return err
}

// statement is what proof says, if it proves that.
func statement(dir string, intent audit.Type, run string, raw, proof []byte) (receipt.Statement, error) {
	refuse := func(err error) (receipt.Statement, error) {
		return receipt.Statement{}, fault.Wrap(fault.Unrecorded, "launch.receipt", fmt.Errorf("receipt: %w", err), "start the run again through ward")
	}
	r, err := receipt.Parse(proof)
	if err != nil {
		return refuse(err)
	}
	key, err := audit.VKey(dir)
	if err != nil {
		return refuse(fmt.Errorf("the log's key in %s: %w", dir, err))
	}
	st, err := r.Verify(key)
	switch {
	case err != nil:
		return refuse(err)
	case st.Type != string(intent):
		return refuse(fmt.Errorf("it proves a %q, not a %q", st.Type, intent))
	case st.Run != run:
		return refuse(errors.New("it is for another run"))
	case st.Plan != sandbox.Digest(raw):
		return refuse(errors.New("it is for another plan"))
	case !bytes.Equal(r.Bytes(), proof) || !strictSignatures(proof):
		return refuse(errors.New("it has been altered since it was given"))
	}
	return st, nil
}

// strictSignatures reports whether the signature lines ("— name base64") are
// as they were written. A signature does not cover its own spelling, and the
// last letter of a base64 text has bits that decoders ignore: harmless, but
// then a receipt would have several forms.
func strictSignatures(proof []byte) bool {
	for line := range bytes.Lines(proof) {
		rest, ok := bytes.CutPrefix(line, []byte("— "))
		if !ok {
			continue
		}
		_, sig, ok := bytes.Cut(bytes.TrimSuffix(rest, []byte{'\n'}), []byte{' '})
		if !ok {
			return false
		}
		if _, err := base64.StdEncoding.Strict().DecodeString(string(sig)); err != nil {
			return false
		}
	}
	return true
}

// readSealed reads a memory file that can no longer change. Without the seals
// whoever holds another descriptor of it could change it after the check.
func readSealed(fd, limit int) ([]byte, error) {
	refuse := func(cause string) error {
		return fault.New(fault.Denied, "launch.seal", cause, "start the run through ward")
	}
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, refuse("not a memory file")
	}
	if seals&sandbox.Seals != sandbox.Seals {
		return nil, refuse(fmt.Sprintf("memory file is not sealed (seals %#x)", seals))
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size <= 0 || st.Size > int64(limit) {
		return nil, refuse(fmt.Sprintf("memory file of %d bytes", st.Size))
	}
	f := os.NewFile(uintptr(fd), "sealed")
	b := make([]byte, st.Size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	// Closed at once: the plan's environment is nothing the monitor needs.
	return b, f.Close()
}
