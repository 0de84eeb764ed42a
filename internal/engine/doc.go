// Package engine turns a request into a process, by seven verbs in one order:
//
//	resolve -> verify -> decide -> seal -> record -> launch -> report
//
// Run (run.go) is that sequence, read from top to bottom. Everything else in
// the package serves it or looks after what it left: the directory of each
// container (container.go), what a crash left behind (reap.go), and the verbs
// on running containers (control.go).
//
// It promises that nothing is launched unless every step before it said yes,
// that every refusal is on record, and that the state on disk never needs
// hands: whatever a crash leaves, the next command finds and finishes. It
// keeps no state in memory between calls; many processes may use one root.
package engine
