// Package escape attempts the known ways out of a container, each against a
// decoy of the test's own and never against anything that matters: as the
// container's first process and as one that was started in it later. Every
// attempt must fail or be refused, and be on record.
package escape
