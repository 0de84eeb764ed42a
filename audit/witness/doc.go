// Package witness has others vouch for how far an audit log has come. A witness
// (https://c2sp.org/tlog-witness) signs a log's checkpoint only if it continues
// the last one that it signed. Who trusts enough witnesses need not trust the
// log's own key: a log that was rewritten or cut behind a cosigned checkpoint
// finds no witness who signs it.
//
// It reads witness policies, submits checkpoints, keeps cosigned ones, and says
// what they prove. It promises that a cosignature was verified before it is
// kept or counted, and once more each time it is read. It does not promise that
// the log on disk is the one that was cosigned: package audit checks that,
// against the checkpoints this one returns.
package witness
