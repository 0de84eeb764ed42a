// Package sandbox says what may run and starts it: the Plan a gate has decided
// on, the Floor no plan can go below, and the client of the launcher that
// turns a plan and its receipt into a process.
//
// It promises that a plan has exactly one encoding (so its digest means one
// thing), that nothing below the floor is handed to the launcher, that Launch
// returns only after the payload has been executed or was refused, and that a
// container does not outlive its monitor. It does not decide policy, verify
// images or write records, and it trusts nothing the container says.
package sandbox
