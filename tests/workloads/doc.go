// Package workloads proves that the default sandbox is one people can work
// in: programs made from Debian's packages, each put through a smoke test of
// its own (smoke/) by the real `ward run`, signature, policy, record and all.
//
// A workload gets the defaults and the flags its row in the table names, each
// with a reason; docs/workloads.md is that table, and a test keeps the two the
// same. The package promises that the image is made once for each change of
// its recipe and kept in the user's cache directory, and that nothing else
// stays. It does not measure speed, and says nothing about programs that need
// a network beyond the container's own loopback.
package workloads
