// Package guest is what is checked inside the virtual machine of tests/vm: ward
// on a host with cgroup v2 alone, tried as a user would and looked at from
// inside the container and from outside.
//
// Its tests have the build tag vmguest and are run by the machine's init.sh
// only: they take the host they run on for their own.
package guest
