package profile

import (
	"slices"
	"strings"
)

func allow(why, names string, args ...Arg) Rule {
	return Rule{Why: why, Names: strings.Fields(names), Action: Allow, Args: args}
}

func refuse(why string, errno uint, names string, args ...Arg) Rule {
	return Rule{Why: why, Names: strings.Fields(names), Action: Refuse, Errno: errno, Args: args}
}

func arg(index uint, op Op, value uint64) Arg { return Arg{Index: index, Op: op, Value: value} }

func allowed() []Rule {
	var all []Rule
	for _, group := range [][]Rule{memoryAndFiles, processes, communication, conditional} {
		all = append(all, group...)
	}
	return all
}

// The starting point was moby's default profile (moby/profiles/seccomp);
// what differs is said where it differs.
var memoryAndFiles = []Rule{
	allow("every program: reading and writing descriptors", `read write readv writev pread64 pwrite64 preadv pwritev
		preadv2 pwritev2 lseek close close_range dup dup2 dup3 fcntl ioctl`),
	allow("every program: opening, naming and asking about files", `open openat openat2 creat access faccessat
		faccessat2 stat fstat lstat newfstatat statx statfs fstatfs getcwd chdir fchdir readlink readlinkat getdents
		getdents64 umask`),
	allow("package managers, editors, databases: changing names and metadata", `rename renameat renameat2 mkdir mkdirat
		rmdir link linkat unlink unlinkat symlink symlinkat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat
		utime utimes utimensat futimesat truncate ftruncate fallocate`),
	allow("mkfifo and socket files; device nodes are refused by the user namespace", "mknod mknodat"),
	allow("tar, cp -a, package managers: extended attributes", `getxattr lgetxattr fgetxattr setxattr lsetxattr fsetxattr
		listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr getxattrat setxattrat listxattrat
		removexattrat`),
	allow("databases: durability and access hints", `sync syncfs fsync fdatasync sync_file_range fadvise64 readahead
		flock`),
	allow("cp, web servers, shells: copying in the kernel", "copy_file_range sendfile splice tee vmsplice"),
	allow("file watchers (build tools, tail -f)", "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch"),
	allow("language runtimes and allocators: memory", `brk mmap munmap mremap mprotect madvise mincore msync mlock mlock2
		mlockall munlock munlockall remap_file_pages membarrier mseal`),
	allow("V8 and other just-in-time compilers: memory protection keys, shadow stacks", `pkey_alloc pkey_free
		pkey_mprotect map_shadow_stack`),
	allow("systemd-style programs and runtimes: anonymous files", "memfd_create memfd_secret"),
	allow("databases (libaio): asynchronous reads and writes; io_uring is left out on purpose", `io_setup io_submit
		io_getevents io_pgetevents io_cancel io_destroy`),
	allow("find, df, mount tools: what is mounted, inside the namespace only", "statmount listmount"),
	allow("systemd, fuse: file handles as opaque names; opening by handle is left out", "name_to_handle_at"),
}

var processes = []Rule{
	allow("every program: starting, ending and waiting for processes", `fork vfork execve execveat exit exit_group wait4
		waitid kill tkill tgkill pidfd_open pidfd_send_signal pause restart_syscall`),
	allow("every program: threads and locks (libc)", `futex futex_wait futex_wake futex_requeue futex_waitv set_robust_list
		get_robust_list set_tid_address gettid rseq get_thread_area set_thread_area`),
	allow("libc on amd64: thread-local storage and stack switching", "arch_prctl modify_ldt"),
	allow("every program: signals", `rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend rt_sigtimedwait
		rt_sigqueueinfo rt_tgsigqueueinfo rt_sigreturn sigaltstack signalfd signalfd4`),
	allow("every program: its own ids", `getpid getppid getuid geteuid getgid getegid getresuid getresgid getgroups getpgid
		getpgrp getsid`),
	allow("shells, su, servers dropping to another user inside the container", `setuid setgid setreuid setregid setresuid
		setresgid setfsuid setfsgid setgroups setpgid setsid`),
	allow("programs that give up capabilities", "capget capset"),
	allow("every program: own limits, usage and names", `getrlimit setrlimit prlimit64 getrusage times sysinfo uname prctl
		getrandom getcpu`),
	allow("schedulers in runtimes and build tools: own priority and processors", `getpriority setpriority
		sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler sched_setscheduler
		sched_getattr sched_setattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_yield
		ioprio_get ioprio_set`),
	allow("every program: reading clocks and sleeping", `time gettimeofday clock_gettime clock_getres clock_nanosleep
		nanosleep alarm getitimer setitimer`),
	allow("ntp tools asking, not setting (setting needs a capability)", "adjtimex clock_adjtime"),
	allow("event loops: timers", `timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create
		timerfd_gettime timerfd_settime`),
	allow("programs that confine themselves further", `seccomp landlock_create_ruleset landlock_add_rule
		landlock_restrict_self`),
	allow("debuggers and crash reporters, on processes of the same container", "ptrace process_vm_readv process_vm_writev"),
	allow("out-of-memory daemons releasing a killed process's memory", "process_mrelease"),
}

var communication = []Rule{
	allow("every server and client: sockets", `bind listen accept accept4 connect shutdown getsockname getpeername getsockopt
		setsockopt sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg`),
	allow("every program: pipes", "pipe pipe2"),
	allow("event loops", `poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
		epoll_pwait2 eventfd eventfd2`),
	allow("databases: System V shared memory, semaphores and queues of the own namespace", `shmget shmat shmctl shmdt
		semget semop semctl semtimedop msgget msgsnd msgrcv msgctl`),
	allow("programs with POSIX message queues", `mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify
		mq_getsetattr`),
}

// Namespace flags of clone(2): NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER,
// NEWPID, NEWNET.
const (
	cloneNamespaces = 0x7e020000
	cloneNewUser    = 0x10000000
)

var conditional = []Rule{
	allow("every program: threads and processes, but no namespaces", "clone",
		Arg{Index: 0, Op: MaskedEqual, Mask: cloneNamespaces, Value: 0}),
	// Families by name, not "below 38" as elsewhere: every family is kernel
	// code that a container can reach.
	allow("local sockets (AF_UNIX)", "socket", arg(0, Equal, 1)),
	allow("IPv4 (AF_INET)", "socket", arg(0, Equal, 2)),
	allow("IPv6 (AF_INET6)", "socket", arg(0, Equal, 10)),
	allow("libc listing interfaces (AF_NETLINK)", "socket", arg(0, Equal, 16)),
	allow("pairs of local sockets (AF_UNIX)", "socketpair", arg(0, Equal, 1)),
	allow("setarch and old programs asking for the default personality", "personality", arg(0, Equal, 0)),
	allow("setarch linux32 (PER_LINUX32)", "personality", arg(0, Equal, 8)),
	allow("programs asking for their personality", "personality", arg(0, Equal, 0xffffffff)),
}

// terminals are the requests of ioctl that no process of a container is to make
// of a terminal. The kernel reads the lower half of the argument, so that only
// that half is compared: the upper one could hold anything (CVE-2019-10063).
var terminals = []Rule{
	refuse("types at a terminal, as if its user had (TIOCSTI; CVE-2017-5226)", eperm, "ioctl", request(0x5412)),
	refuse("selects and pastes at a console, which types too (TIOCLINUX; CVE-2023-28100)", eperm, "ioctl", request(0x541c)),
	refuse("line disciplines are old kernel modules, loaded for who asks (TIOCSETD; CVE-2023-6546)", eperm, "ioctl", request(0x5423)),
}

func request(n uint64) Arg { return Arg{Index: 1, Op: MaskedEqual, Mask: 0xffffffff, Value: n} }

// aroundTCP are the ways to a TCP connection that Landlock does not see.
// Landlock asks for the socket's own protocol, and what becomes TCP later is
// another one; and it asks at connect. The errors are those of kernels without.
var aroundTCP = []Rule{
	refuse("a socket of several paths, each of them TCP (IPPROTO_MPTCP); Go's servers try it first", eprotonosupport, "socket", protocol(262)),
	refuse("falls back to TCP (IPPROTO_SMC)", eprotonosupport, "socket", protocol(256)),
	refuse("connects without connect (MSG_FASTOPEN)", eopnotsupp, "sendto", fastOpen(3)),
	refuse("connects without connect (MSG_FASTOPEN)", eopnotsupp, "sendmsg", fastOpen(2)),
	refuse("connects without connect (MSG_FASTOPEN)", eopnotsupp, "sendmmsg", fastOpen(3)),
}

func protocol(n uint64) Arg { return Arg{Index: 2, Op: MaskedEqual, Mask: 0xffffffff, Value: n} }

func fastOpen(flags uint) Arg {
	return Arg{Index: flags, Op: MaskedEqual, Mask: 0x20000000, Value: 0x20000000}
}

// AroundTCP returns the rules that go with Landlock's for TCP ports: what a
// filter refuses then, on top of its profile.
func AroundTCP() []Rule { return slices.Clone(aroundTCP) }

// refused calls return an error their callers handle, where ENOSYS would
// mislead them or where the refusal should be told from "not there".
var refused = []Rule{
	refuse("AF_PACKET, AF_ALG (CVE-2026-31431), AF_VSOCK and all other high families", eafnosupport, "socket",
		arg(0, GreaterEqual, 17)),
	refuse("user namespaces give a container the kernel's privileged code paths (CVE-2022-0185)", eperm, "clone",
		Arg{Index: 0, Op: MaskedEqual, Mask: cloneNewUser, Value: cloneNewUser}),
	refuse("new or other namespaces", eperm, "unshare setns"),
	// Quiet: libc tries it for every thread and every process before clone.
	{Why: "its flags are behind a pointer, which no filter can read; libc falls back to clone",
		Names: []string{"clone3"}, Action: Refuse, Errno: enosys, Quiet: true},
	refuse("mounting, old and new interface", eperm, `mount umount2 pivot_root fsopen fsconfig fsmount fspick move_mount
		open_tree mount_setattr`),
	refuse("changing the root leaves the masked paths behind", eperm, "chroot"),
	refuse("keyrings are not fully namespaced (CVE-2016-0728)", eperm, "keyctl add_key request_key"),
	refuse("programs in the kernel", eperm, "bpf"),
	refuse("performance counters leak across containers (CVE-2013-2094)", eperm, "perf_event_open"),
	refuse("holds kernel faults open, a common exploit primitive (CVE-2016-6187)", eperm, "userfaultfd"),
	refuse("opens files past the mount namespace (the 2014 shocker exploit)", eperm, "open_by_handle_at"),
	refuse("watches whole file systems", eperm, "fanotify_init"),
	refuse("kernel log", eperm, "syslog"),
	refuse("kernel modules", eperm, "init_module finit_module delete_module"),
	refuse("another kernel, restart, swap", eperm, "kexec_load kexec_file_load reboot swapon swapoff"),
	refuse("clock and host name of the machine", eperm, "settimeofday clock_settime sethostname setdomainname"),
	refuse("ports and console", eperm, "iopl ioperm vhangup"),
	refuse("quotas and accounting", eperm, "quotactl quotactl_fd acct"),
	refuse("other processes' memory, descriptors and pages", eperm, "kcmp pidfd_getfd process_madvise move_pages migrate_pages"),
}
