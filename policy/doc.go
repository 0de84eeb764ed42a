// Package policy decides, with OPA and Rego v1, whether one request may run.
// It answers one question through one function: Engine.Decide, Input in,
// Decision out. It sees the final specification of the run, after every flag,
// default and image setting has been applied, never the wish alone.
//
// It promises:
//   - the zero Decision denies, and so does every Decision that did not come
//     out of a complete evaluation: undefined, conflicting, wrongly typed,
//     too long or too large results and errors are never an allow;
//   - what the policy directory says is the only thing that can loosen what is
//     shipped, and every byte of it is part of Decision.Revision;
//   - evaluation is pure (no network, clock, randomness or host facts but
//     those in the Input), and bounded in time, steps and memory;
//   - obligations can only tighten the run.
//
// It does not promise that a decision holds for anything but exactly the
// Input it was made for, nor that a policy author cannot shut everybody out.
// It does not defend against somebody who can write to the policy directory.
package policy
