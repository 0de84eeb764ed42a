// Package audit is the tamper-evident log of one host: what was asked, what
// was decided, what ran and how it ended.
//
// It promises:
//   - Intend and Append return only once the record is on disk, integrated in
//     an RFC 6962 tree and covered by a signed C2SP checkpoint; one Intend is
//     one pwrite and one fdatasync.
//   - Any number of processes may write one log at once.
//   - After a crash the log is read up to its last whole commit. What is left
//     of an interrupted write is kept as evidence and its loss is recorded;
//     anything an interrupted write cannot explain is refused, never repaired.
//   - A key is made together with the log and never again: a log whose key
//     cannot be read refuses every record.
//   - Verify, given the public key by its caller, names the first damaged
//     place and the kind of damage.
//
// It does not promise to detect what the holder of the private key rewrites,
// nor records cut off behind the last checkpoint the verifier knows of: that
// needs a copy of a later checkpoint from elsewhere (Expect.MinSize). Records
// that were not acknowledged may nevertheless be in the log.
//
// The format on disk is docs/audit-format.md. The per-run output log (Output)
// shares its frames and is bound to the host log by a run.seal record.
package audit
