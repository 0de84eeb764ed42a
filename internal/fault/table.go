package fault

// RunExit is the exit code of run, exec and start when nothing of the
// container ran: always Docker's 125, whatever the class (docker/cli run.go).
const RunExit = 125

// LogDamaged is the exit code of a gate verb that found the audit log damaged.
const LogDamaged = 5

// GateExit is the exit code of a gate verb (verify, policy check, ci gate):
// 0 allow, 1 deny, 2 usage or configuration, 3 indeterminate. It is the one
// table from classes to exit codes; the codes are never renumbered.
func GateExit(err error) int {
	if err == nil {
		return 0
	}
	switch ClassOf(err) {
	case Unverified, Denied:
		return 1
	case Invalid, NotFound:
		return 2
	case Unavailable, Unrecorded:
		return 3
	default:
		return 3
	}
}
