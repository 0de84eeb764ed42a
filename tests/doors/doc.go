// Package doors asks the same question at every door of a ward: by a new run, a
// restart, a process in a container that runs, a gate in a pipeline, a check
// and, where it applies, ward-oci. The answer has to be the same one, by the same rule;
// where a door differs on purpose the table says so and why.
package doors
