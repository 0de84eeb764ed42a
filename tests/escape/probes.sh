# Attempts from inside, one line of answer each: "held NAME" or "BROKEN NAME why".
# Sourced by sh in the container, as root of the container without capabilities.
held() { echo "held $1"; }
broken() { echo "BROKEN $*"; }
# refused NAME COMMAND…: the command must fail.
refused() { n=$1; shift; if "$@" >/dev/null 2>&1; then broken "$n"; else held "$n"; fi; }
# nowrite NAME FILE: opening it for writing must fail.
nowrite() { if (: >>"$2") 2>/dev/null; then broken "$1" "$2 opened for writing"; else held "$1"; fi; }

# Privilege.
for set in CapInh CapPrm CapEff CapBnd CapAmb; do
  if grep -q "^$set:	0000000000000000$" /proc/self/status; then held "no $set"; else broken "no $set" "$(grep $set /proc/self/status)"; fi
done
if grep -q '^NoNewPrivs:	1$' /proc/self/status; then held no_new_privs; else broken no_new_privs; fi
if grep -q '^Seccomp:	2$' /proc/self/status; then held seccomp; else broken seccomp; fi
refused "user namespace (CVE-2022-0185)" unshare -U true
refused "mount namespace" unshare -m true
refused "cgroup namespace (CVE-2022-0492)" unshare -C true
refused "chroot" chroot / true
refused "mount tmpfs" mount -t tmpfs none /tmp
refused "mount cgroup (CVE-2022-0492)" mount -t cgroup -o memory none /tmp
refused "mount proc" mount -t proc none /tmp
refused "bind mount" mount -o bind / /tmp
refused "remount writable" mount -o remount,rw /
refused "uncover masked paths" umount /proc/kcore
refused "uncover read-only paths" umount /proc/sys
refused "host name" hostname evil
date -s @1000000 >/dev/null 2>&1
if [ "$(date +%s)" -gt 2000000 ]; then held "clock"; else broken "clock"; fi
refused "kernel log" dmesg
refused "restart" reboot -f
refused "swap" swapoff -a
refused "block device" mknod /tmp/disk b 8 0
refused "memory device" mknod /tmp/mem c 1 1

# The runtime itself (CVE-2019-5736).
nowrite "executable of the first process" /proc/1/exe
nowrite "own executable" /proc/self/exe
for p in /proc/[0-9]*; do
  case "$(readlink "$p/exe")" in *ward*) broken "runtime in sight" "$p" ;; esac
done
held "no runtime in sight"

# Descriptors and the working directory (CVE-2016-9962, CVE-2024-21626).
for f in /proc/self/fd/* /proc/1/fd/*; do
  case "$(readlink "$f")" in
    pipe:* | socket:* | /dev/null | /dev/pts/* | /dev/console | /proc/* | "" | /probes.sh) ;;
    *) broken "descriptor" "$f $(readlink "$f")" ;;
  esac
done
held "descriptors"
if [ -e ../../../../../../../../../../HOST-MARKER ] || [ -e /proc/self/cwd/../HOST-MARKER ]; then broken "cwd"; else held "cwd"; fi

# The kernel's own files.
for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/vm/drop_caches \
  /proc/sys/kernel/randomize_va_space /proc/sys/fs/binfmt_misc/register /proc/irq/default_smp_affinity \
  /proc/bus/pci/devices /proc/mtrr /sys/kernel/uevent_helper /sys/kernel/mm/ksm/run /sys/power/state \
  /sys/module/kernel/parameters/panic /sys/class/thermal/x; do
  nowrite "$f" "$f"
done
for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/interrupts /proc/latency_stats; do
  if [ -s "$f" ] && [ -n "$(head -c 16 "$f" 2>/dev/null)" ]; then broken "masked $f"; else held "masked $f"; fi
done
for d in /proc/acpi /proc/scsi /proc/asound /sys/firmware /sys/devices/virtual/powercap; do
  if [ -n "$(ls "$d" 2>/dev/null)" ]; then broken "masked $d"; else held "masked $d"; fi
done
bad=$(find /sys -type f -perm -002 2>/dev/null | head -n 400 | while read -r f; do (: >>"$f") 2>/dev/null && echo "$f"; done)
if [ -n "$bad" ]; then broken "/sys is writable" "$bad"; else held "/sys"; fi

# Control groups (CVE-2023-25809, CVE-2022-0492).
for d in /sys/fs/cgroup /sys/fs/cgroup/*; do
  [ -d "$d" ] || continue
  if mkdir "$d/escape" 2>/dev/null; then broken "cgroup made in $d"; fi
  if (: >>"$d/release_agent") 2>/dev/null; then broken "release_agent in $d"; fi
  if (echo 1 >"$d/cgroup.procs") 2>/dev/null; then broken "cgroup.procs in $d"; fi
  if (echo -1 >"$d/memory.limit_in_bytes") 2>/dev/null; then broken "memory limit in $d"; fi
done
held "control groups"

# What is not ours to see.
if grep -q "$HOST_DIR" /proc/self/mountinfo; then broken "host path in mountinfo" "$(grep "$HOST_DIR" /proc/self/mountinfo)"; else held "mountinfo"; fi
if grep -q '@' /proc/net/unix; then broken "abstract socket (CVE-2020-15257)"; else held "abstract sockets"; fi
if [ "$(ls /sys/class/net)" = lo ]; then held "interfaces"; else broken "interfaces" "$(ls /sys/class/net)"; fi
refused "host's loopback" nc -w 1 127.0.0.1 "$HOST_PORT"
refused "metadata service" nc -w 1 169.254.169.254 80
for p in $(ls /proc | grep '^[0-9]*$'); do
  [ -r "/proc/$p/status" ] && [ "$p" -gt 4000 ] && broken "process of another namespace" "$p"
done
held "processes"

echo end
