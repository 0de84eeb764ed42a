// Package volume keeps named volumes: directories that outlive containers.
//
// It promises that a volume appears whole or not at all and goes the same way,
// that a crash at any moment leaves nothing anybody has to tidy up, and that a
// volume in use is not removed, whoever else runs at the same time. It mounts
// nothing, knows no container, and writes no audit record: it calls back
// before each change, so that its caller can.
//
// What a volume holds is owned by ids as the container sees them: 0 on disk is
// the container's root. The directory above is closed to everybody else,
// because a container may leave set-user-id programs there.
//
// Lock order: whoever removes holds the volumes' lock and asks under it what
// is in use. Whoever uses a volume first puts down, in a container's record,
// that it does, and only then takes the lock to see that the volume is there.
// So either the remover sees the record, or the user finds the volume gone and
// makes it anew. The callback may take the audit log's lock; no other is taken
// under this one.
package volume
