// Package vm tries ward on a host with cgroup v2 alone, which most developers'
// and CI machines are not: it boots a small virtual machine with Debian's cloud
// kernel under QEMU and runs the checks of package guest in it, as root, with
// the very programs built from this source: ward, and ward-oci; then tests/posture.
//
// It promises one boot a run, of 300 seconds at most, no privilege on this
// machine, and nothing left but the unpacked kernel in the user's cache
// directory. It skips where QEMU or the kernel package cannot be had, and says
// which. It does not try systemd, a network, or ward as an ordinary user.
//
// Its tests have the build tag vm: `make test-vm`.
package vm
