// Package doctor says whether a host can do what ward promises on it, and
// proves that its doors are shut.
//
// Examine looks: at the kernel, the programs, the audit log, who may write
// where, trust and policy. It changes nothing. Prove forges images that must
// not be let in and shows them to every door, by the programs that a user
// runs, in a throw-away ward with this host's policy. What counts is the audit
// record of each refusal, its class and rule; and that a good image does get
// in, without which a refusal proves nothing.
//
// It does not promise that what it did not try is refused.
package doctor
