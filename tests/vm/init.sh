#!/bin/busybox sh
# The first process of the virtual machine, twice: once on the initramfs, once
# on the file system it moves everything to. All paths are the guest's.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root

if [ "$1" != second ]; then
  # pivot_root(2) refuses to leave an initramfs, and every container start
  # pivots: go on from a real mount. switch_root empties the initramfs, moves
  # the mount over / (MS_MOVE) and changes the root to it.
  mkdir /new
  mount -t tmpfs -o mode=755,size=75% root /new
  cp -a /bin /init /opt /new/
  exec switch_root /new /init second
fi

mkdir -p /proc /sys /dev /etc /run /tmp /root /var/lib /mnt /media /srv /home
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t devtmpfs -o nosuid,mode=755 devtmpfs /dev
exec </dev/console >/dev/console 2>&1
mkdir /dev/pts /dev/shm
mount -t devpts -o nosuid,noexec,newinstance,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev shm /dev/shm
mount -t tmpfs -o nosuid,nodev,mode=755 run /run
chmod 1777 /tmp
echo root:x:0:0:root:/root:/bin/sh >/etc/passwd
echo root:x:0: >/etc/group
hostname guest
ip link set lo up
for m in /opt/modules/*.ko; do insmod "$m" || echo "insmod $m: $?"; done

# Control groups as systemd leaves them: version 2 alone, namespaces are
# borders of delegation, nobody sits in the root, and what every service
# manager delegates is delegated. io it turns on once a unit asks for a limit.
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate cgroup2 /sys/fs/cgroup
mkdir /sys/fs/cgroup/init.scope
echo 1 >/sys/fs/cgroup/init.scope/cgroup.procs
echo "+cpu +io +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control

echo "guest: up after $(cut -d' ' -f1 /proc/uptime) s, Linux $(uname -r)"
cd /opt
WARD_BIN=/opt /opt/checks -test.v -test.count=1 -test.timeout=280s
rc=$?
echo "guest: begin Posture"
WARD_BIN=/opt /opt/posture -test.v -test.run='^TestPosture$' -test.timeout=120s >/tmp/posture.out 2>&1
posture=$?
cat /tmp/posture.out
# A test that is not there, or that skips, ends well too.
if [ $posture = 0 ] && grep -q '^--- PASS: TestPosture ' /tmp/posture.out; then
  echo "guest: pass Posture"
else
  rc=1
  echo "guest: fail Posture"
fi
echo "guest: exit $rc"
poweroff -f
