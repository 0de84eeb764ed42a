// Package launcher turns a sealed plan and its receipt into a container, and
// then stays as its monitor. It is the inside of the ward-launch program and
// the one place that knows libcontainer, cgroups and mounts.
//
// It runs as three images of one program. The launcher (Launch) is the first
// process of a PID namespace of its own, with a mount namespace of its own:
// it checks everything it was given, builds the root and has libcontainer
// prepare the container up to the last step before the payload. The second
// image is libcontainer's init inside the container (Reexec). Then the
// launcher drops its privileges and executes the third over itself: the
// monitor (Monitor), which lets the payload go, copies its output, answers
// requests, and records how it ended.
//
// It promises that nothing runs whose plan, receipt, build or floor it did not
// check itself; that no privileged code of ward's is left when the payload's
// first instruction runs; and that the kernel kills the container when the
// monitor dies, because the monitor is the first process of the PID namespace
// around it. It leaves no mount on the host: all are in its own namespace. It
// does not protect against a kernel bug reachable through the allowed calls,
// nor against root on the host.
package launcher
