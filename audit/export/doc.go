// Package export gives the audit log's records to other systems: as JSON
// Lines, OCSF, ECS, CEF or CloudEvents, to a file, a stream, syslog, journald,
// OpenTelemetry, HTTP collectors or NATS JetStream.
//
// It promises:
//   - At least once, in order: the cursor of a destination moves only after
//     the receiver acknowledged, so that whatever is killed, at any moment,
//     nothing is left out. A record that comes twice has the same id.
//   - What leaves is in the tree, under the log's signature with the key the
//     caller brought, and on disk. A damaged log ends the export at the damage.
//   - It reads the log's files without its lock: a receiver that is slow or
//     dead, or an exporter that is stopped, holds up nobody who records.
//   - Whatever a record holds, it cannot break out of its message: no line
//     break, no frame, no field of another.
//   - Memory is bounded, whatever the log's size and the receiver's speed.
//
// It does not promise that a receiver keeps what it acknowledged, and does not
// judge what is in the records: what they name is sent as it was recorded.
// What each format holds is in docs/audit-export.md.
package export
