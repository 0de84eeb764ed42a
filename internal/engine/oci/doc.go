// Package oci is the gate of ward-oci: it lets in the containers of other
// programs (containerd, CRI-O, podman, Docker) as the engine lets in ward's
// own, by the same verbs in the same order:
//
//	resolve -> verify -> decide -> seal -> record -> launch
//
// It is a package of its own because it shares the engine's values (Evidence,
// Decision, Permit) and none of its state: what is asked for is a specification
// and not a request, the root file system is the caller's, and a container is a
// directory below the caller's --root. Reporting is the monitor's
// (sandbox/launcher), which here is not the container's parent.
//
// It promises that nothing is started for a caller whom the kernel does not
// describe as one that policy trusts, that each start is on record before it,
// and each refusal before it is answered. It does not promise that a root file
// system is the image that its annotations name: for that the caller is
// trusted, or not.
package oci
