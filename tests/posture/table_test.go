package posture

// The tables below say everything that /proc shows of a process, one fact a
// line: a key, a colon, the value. What is seen and not here is an error, and
// so is what is here and not seen.
//
// Words in capitals stand for what differs between runs: BASE is the first
// host id of the container's range and TTY that of its group tty, ID and SHORT
// its id, LIB, RUN and BIN ward's directories. "caller" is what the process
// that called ward has, "*" anything at all. In a key, "*" is each control group
// hierarchy of the host. A line after "v2" counts where control groups are of
// version 2 alone. LOWER, UPPER and STAGE are an overlay's directories, as the
// kernel shows them. Namespaces are named after whose
// they are: host, container, monitor.

// contained is every process of a container, whether it is the first one,
// a child of it, or was started by exec.
const contained = `
attr/personality: 00000000
attr/loginuid: caller
attr/sessionid: caller
attr/oom_score_adj: caller
attr/coredump_filter: 00000033
attr/timerslack_ns: 50000
attr/uid_map: 0 BASE 65536
attr/gid_map: 0 BASE 65536
attr/projid_map:
attr/setgroups: allow
attr/timens: its own
link/cwd: /
link/root: /
link/exe: /bin/busybox
sched/nice: caller
sched/policy: caller
sched/rt_priority: caller
status/Umask: 0022
status/TracerPid: 0
status/Uid: BASE BASE BASE BASE
status/Gid: BASE BASE BASE BASE
status/Groups:
status/Kthread: 0
status/CoreDumping: 0
status/THP_enabled: 1
status/Threads: 1
status/SigBlk: 0000000000000000
status/SigIgn: 0000000000000000
status/CapInh: 0000000000000000
status/CapPrm: 0000000000000000
status/CapEff: 0000000000000000
status/CapBnd: 0000000000000000
status/CapAmb: 0000000000000000
status/NoNewPrivs: 1
status/Seccomp: 2
status/Seccomp_filters: 1
status/Speculation_Store_Bypass: caller
status/SpeculationIndirectBranch: caller
status/Cpus_allowed: caller
status/Mems_allowed: caller
ns/cgroup: container
ns/ipc: container
ns/mnt: container
ns/net: container
ns/pid: container
ns/pid_for_children: container
ns/time: container
ns/time_for_children: container
ns/user: container
ns/uts: container
fd/0: pipe r
fd/1: pipe w
fd/2: pipe w
limit/Max cpu time: caller
limit/Max file size: caller
limit/Max data size: caller
limit/Max stack size: caller
limit/Max core file size: 1 1 bytes
limit/Max resident set: caller
limit/Max processes: caller
limit/Max open files: 4096 4096 files
limit/Max locked memory: caller
limit/Max address space: caller
limit/Max file locks: caller
limit/Max pending signals: caller
limit/Max msgqueue size: caller
limit/Max nice priority: caller
limit/Max realtime priority: caller
limit/Max realtime timeout: caller
cgroup/*: /ward/ID
mount/ /: overlay ward / ro,nosuid,nodev,relatime - rw,lowerdir+=LOWER,upperdir=UPPER,workdir=STAGE,redirect_dir=nofollow,uuid=on
mount/ /tmp: tmpfs ward / rw,nosuid,nodev,noexec,relatime - rw,size=65536k,uid=BASE,gid=BASE
mount/ /run: tmpfs ward / rw,nosuid,nodev,noexec,relatime - rw,size=65536k,mode=755,uid=BASE,gid=BASE
mount/ /etc/hosts: tmpfs ward /etc/hosts ro,nosuid,nodev,noexec,relatime - rw,size=16384k,nr_inodes=4096,mode=711
mount/ /etc/hostname: tmpfs ward /etc/hostname ro,nosuid,nodev,noexec,relatime - rw,size=16384k,nr_inodes=4096,mode=711
mount/ /etc/resolv.conf: tmpfs ward /etc/resolv.conf ro,nosuid,nodev,noexec,relatime - rw,size=16384k,nr_inodes=4096,mode=711
mount/ /dev: tmpfs ward / rw,nosuid,noexec - rw,size=64k,mode=755,uid=BASE,gid=BASE
mount/ /dev/pts: devpts ward / rw,nosuid,noexec,relatime - rw,gid=TTY,mode=620,ptmxmode=666
mount/ /dev/shm: tmpfs ward / rw,nosuid,nodev,noexec,relatime - rw,size=65536k,uid=BASE,gid=BASE
mount/ /dev/mqueue: mqueue mqueue / rw,nosuid,nodev,noexec,relatime - rw
mount/ /proc: proc proc / rw,nosuid,nodev,noexec,relatime - rw,gid=BASE,hidepid=invisible
mount/ /sys: sysfs sysfs / ro,nosuid,nodev,noexec,relatime - ro
mount/ /sys/fs/cgroup: tmpfs ward /cgroup ro,nosuid,nodev,noexec,relatime - rw,size=16384k,nr_inodes=4096,mode=711
mount/ /sys/fs/cgroup/*: cgroup cgroup /ward/ID ro,nosuid,nodev,noexec,relatime - rw,*
v2 mount/ /sys/fs/cgroup: cgroup2 cgroup /ward/ID ro,nosuid,nodev,noexec,relatime - rw,nsdelegate*
`

// covered are paths over which something is mounted where the host has them:
// read-only, or an empty file or directory.
var covered = []struct{ path, with string }{
	{"/proc/bus", "readonly"}, {"/proc/fs", "readonly"}, {"/proc/irq", "readonly"}, {"/proc/sys", "readonly"}, {"/proc/sysrq-trigger", "readonly"},
	{"/proc/acpi", "empty"}, {"/proc/asound", "empty"}, {"/proc/interrupts", "null"}, {"/proc/kcore", "null"}, {"/proc/keys", "null"},
	{"/proc/latency_stats", "null"}, {"/proc/sched_debug", "null"}, {"/proc/scsi", "empty"}, {"/proc/timer_list", "null"},
	{"/proc/timer_stats", "null"}, {"/sys/devices/virtual/powercap", "empty"}, {"/sys/firmware", "empty"},
}

// coverings are what a covered path shows in the mount table; PATH is the path
// within its file system.
var coverings = map[string]string{
	"readonly": "proc proc PATH ro,nosuid,nodev,noexec,relatime - rw,gid=BASE,hidepid=invisible",
	"empty":    "tmpfs tmpfs / ro,relatime - ro,size=4k,nr_inodes=1,uid=BASE,gid=BASE",
	"null":     "tmpfs ward /null rw,nosuid,noexec - rw,size=64k,mode=755,uid=BASE,gid=BASE",
}

// What the three processes of a container do not have in common.
// busybox's shell ignores SIGQUIT by itself.
const (
	firstProcess = `
cmdline: sh -c sleep 2001; true
environ: HOME=/root HOSTNAME=SHORT PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
status/SigCgt: *
status/SigIgn: 0000000000000004
`
	childProcess = `
cmdline: sleep 2001
environ: HOME=/root HOSTNAME=SHORT PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PWD=/ SHLVL=1
status/SigCgt: 0000000000000000
`
	execProcess = `
cmdline: sleep 2003
environ: HOME=/root HOSTNAME=SHORT PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
status/SigCgt: 0000000000000000
`
)

// ours is what our own processes have in common: they are the host's root,
// with the caller's limits.
const ours = `
attr/personality: 00000000
attr/loginuid: caller
attr/sessionid: caller
attr/oom_score_adj: caller
attr/coredump_filter: caller
attr/uid_map: caller
attr/gid_map: caller
attr/projid_map: caller
attr/setgroups: caller
attr/timens: the host's
link/root: /
sched/nice: caller
sched/policy: caller
sched/rt_priority: caller
status/TracerPid: 0
status/Uid: 0 0 0 0
status/Gid: 0 0 0 0
status/Groups: caller
status/Kthread: 0
status/CoreDumping: 0
status/THP_enabled: 1
status/Threads: *
status/SigBlk: *
status/SigCgt: *
status/CapInh: 0000000000000000
status/CapAmb: 0000000000000000
status/Seccomp: caller
status/Seccomp_filters: caller
status/Speculation_Store_Bypass: caller
status/SpeculationIndirectBranch: caller
status/Cpus_allowed: caller
status/Mems_allowed: caller
ns/cgroup: host
ns/ipc: host
ns/net: host
ns/time: host
ns/time_for_children: host
ns/user: host
ns/uts: host
limit/Max cpu time: caller
limit/Max file size: caller
limit/Max data size: caller
limit/Max stack size: caller
limit/Max core file size: caller
limit/Max resident set: caller
limit/Max processes: caller
limit/Max open files: caller
limit/Max locked memory: caller
limit/Max address space: caller
limit/Max file locks: caller
limit/Max pending signals: caller
limit/Max msgqueue size: caller
limit/Max nice priority: caller
limit/Max realtime priority: caller
limit/Max realtime timeout: caller
cgroup/*: caller
`

// monitor keeps CAP_KILL alone, in PID and mount namespaces of its own.
// One eventfd is the Go runtime's, one (in version 2 an inotify) tells of memory that ran out. Signals 1, 2, 3 and 13 (SIGHUP, SIGINT, SIGQUIT, SIGPIPE) do not end it.
const monitor = ours + `
attr/timerslack_ns: 1000000
cmdline: ward-launch monitor 3
environ: GOMAXPROCS=1
link/cwd: /
link/exe: BIN/ward-launch
status/Umask: 0177
status/SigIgn: 0000000000001007
status/CapPrm: 0000000000000020
status/CapEff: 0000000000000020
status/CapBnd: 0000000000000020
status/NoNewPrivs: 1
ns/mnt: monitor
ns/pid: monitor
ns/pid_for_children: monitor
fd/null rw: 3
fd/journal/lock rw: 1
fd/journal/log/00000000.seg rw: 1
fd/containers/ID/lock rw: 1
fd/containers/ID/out.1.log w: 1
fd/eventpoll: 1
fd/eventfd: 2
v2 fd/eventfd: 1
v2 fd/inotify: 1
fd/pidfd: 1
fd/seccomp notify: 1
fd/socket: 2
fd/pipe r: 2
mount/ /proc: proc proc / rw,nosuid,nodev,noexec,relatime - rw
mount/ /mnt: tmpfs ward / rw,nosuid,nodev,relatime - rw,size=16384k,nr_inodes=4096,mode=711
mount/ /mnt/layers/0: * *LIB/images/layers/*/fs ro,nosuid,nodev,relatime,idmapped - *
mount/ /mnt/root: overlay ward / rw,nosuid,nodev,relatime - rw,lowerdir+=LOWER,upperdir=UPPER,workdir=STAGE,redirect_dir=nofollow,uuid=on
mount/ /mnt/root/tmp: tmpfs ward / rw,nosuid,nodev,noexec,relatime - rw,size=65536k,uid=BASE,gid=BASE
mount/ /mnt/root/run: tmpfs ward / rw,nosuid,nodev,noexec,relatime - rw,size=65536k,mode=755,uid=BASE,gid=BASE
mount/ /mnt/root/etc/hosts: tmpfs ward /etc/hosts ro,nosuid,nodev,noexec,relatime - rw,size=16384k,nr_inodes=4096,mode=711
mount/ /mnt/root/etc/hostname: tmpfs ward /etc/hostname ro,nosuid,nodev,noexec,relatime - rw,size=16384k,nr_inodes=4096,mode=711
mount/ /mnt/root/etc/resolv.conf: tmpfs ward /etc/resolv.conf ro,nosuid,nodev,noexec,relatime - rw,size=16384k,nr_inodes=4096,mode=711
mount/ /mnt/dev: tmpfs ward / rw,nosuid,noexec - rw,size=64k,mode=755,uid=BASE,gid=BASE
mount/ /mnt/dev/pts: devpts ward / rw,nosuid,noexec,relatime - rw,gid=TTY,mode=620,ptmxmode=666
mount/ /mnt/dev/shm: tmpfs ward / rw,nosuid,nodev,noexec,relatime - rw,size=65536k,uid=BASE,gid=BASE
mount/ /mnt/cgroup/*: cgroup cgroup /ward/ID ro,nosuid,nodev,noexec,relatime - rw,*
`

// monitorWithExec is what a monitor has besides while one process runs that
// exec started: the third socket is its client's.
const monitorWithExec = `
fd/pipe r: 4
fd/pidfd: 2
fd/seccomp notify: 2
fd/socket: 3
`

// gate is every ward command: whoever calls it is trusted with all it has.
const gate = ours + `
attr/timerslack_ns: caller
link/exe: BIN/ward
status/Umask: caller
status/CapPrm: caller
status/CapEff: caller
status/CapBnd: caller
status/NoNewPrivs: caller
ns/mnt: host
ns/pid: host
ns/pid_for_children: host
fd/journal/lock rw: 1
fd/journal/log/00000000.seg rw: 1
fd/eventpoll: 1
fd/eventfd: 1
`

// keeper has nothing of its starter's but its rights, the root directory and
// the home.
const keeper = gate + `
cmdline: ward --root ROOT keep ID
environ: GOMAXPROCS=1 HOME=HOME PATH=/usr/sbin:/usr/bin:/sbin:/bin
link/cwd: /
status/SigIgn: 0000000000000003
fd/null rw: 3
fd/containers/ID/keeper.lock rw: 1
`

// foreground is a "ward run" that waits for its container.
const foreground = gate + `
cmdline: ward run --name fg demo/busybox:1 sleep 2005
environ: caller
link/cwd: WORK
status/SigIgn: *
fd/null r: 1
fd/pipe w: 2
fd/socket: 1
fd/pidfd: 1
`
