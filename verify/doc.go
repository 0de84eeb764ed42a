// Package verify answers one question about an image: does a key, or a name in
// a certificate, that the host's owner trusts for this image's name vouch for
// exactly this digest? The answer is Evidence, a value that only this package
// can fill.
//
// Trust is written as sigstore ClusterImagePolicy files in one directory.
// Every policy whose glob matches the image must be satisfied; within a policy
// one authority is enough. No matching policy, no signature, an unreadable
// file or a field this package does not understand all mean no. A policy that
// only warns, or asks for no signature, says yes in nobody's name: evidence tells
// it apart, and somebody else has to let that be enough.
//
// Two signature formats are read and written, each judged by its own kind and
// never by falling back from one to the other: cosign's simple signing payload
// (the layers of the sha256-….sig tag) and the sigstore bundle v0.3 holding a
// DSSE envelope with an in-toto statement (an OCI referrer).
//
// What is stated about an image (attestations: DSSE layers and bundles) is judged
// by the same authorities and is part of the evidence with its signers. What no
// authority believes is counted; what was too large to be here is said to be.
//
// It promises that verification opens no socket and reads no file but those of
// the trust directory, and that Verifier may be used by many goroutines. It
// does not promise that a signature was made for the name it was pulled under
// (the digest is what is signed), nor that a key had not been stolen: a key
// signature has no time unless the policy asks for a log or a timestamp.
package verify
