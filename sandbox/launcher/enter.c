// A process that is to be started in a container that runs belongs below the
// container's monitor: only then does the kernel end it with the monitor, and
// only then is the monitor its parent once its launcher has gone. So the
// launcher enters the monitor's PID namespace, in which its children are born,
// and its mount namespace, in which libcontainer's state is. A program with
// threads can do neither for itself; this runs before the Go runtime has any.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

// ward_host_proc is the host's /proc in a process that has entered, else -1.
int ward_host_proc = -1;

// ward_in_container says that this process is in a container's user namespace.
int ward_in_container;

static void fail(const char *what)
{
	dprintf(2, "enter the container's monitor: %s: %s\n", what, strerror(errno));
	_exit(1);
}

// relay ends as its child does. It holds nothing open: the child alone is
// whom the caller talks to.
static void relay(pid_t child)
{
	int status;

	syscall(SYS_close_range, 0, ~0U, 0);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			_exit(1);
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

// leave_rights makes this process the root of the container it has entered,
// with capabilities for files alone.
static void leave_rights(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	const unsigned kept = 1 << CAP_CHOWN | 1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH | 1 << CAP_FOWNER | 1 << CAP_FSETID;
	struct __user_cap_data_struct caps[2] = {{.effective = kept, .permitted = kept}};

	if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		fail("become the container's root");
	for (int c = 0; prctl(PR_CAPBSET_READ, c) >= 0; c++)
		if ((c > 31 || !(kept & 1u << c)) && prctl(PR_CAPBSET_DROP, c) < 0)
			fail("drop capabilities");
	if (syscall(SYS_capset, &head, caps) < 0)
		fail("keep few capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		fail("no_new_privs");
	// Changing the user made it dumpable again, or may have.
	if (prctl(PR_SET_DUMPABLE, 0) < 0)
		fail("prctl");
	umask(0);
	ward_in_container = 1;
}

static void hide(void)
{
	if (prctl(PR_SET_DUMPABLE, 0) < 0)
		fail("prctl");
}

// enter_files brings the process that copies files into the container's user
// and mount namespaces: it then sees the container's files as the container
// does, has no rights outside of it, and owns what it makes as its root. Not
// into its PID namespace: nothing in there can see, stop or trace it.
// The kernel takes the container's first process for the user namespace only if
// it is another one, and for the mount namespace only if that one owns it.
static void enter_files(int container)
{
	hide();
	if (setns(container, CLONE_NEWUSER | CLONE_NEWNS) < 0)
		fail("setns");
	close(container);
	leave_rights();
}

// enter_root does the same where no process runs: this one is in the mount
// namespace that it has made the container's root in (stopped.go). Everything
// but that root it takes off, then enters the user namespace that was made for
// the root's id map. The mount namespace is not that one's: with what is left
// nobody can mount or unmount anything in it.
static void enter_root(int root, int userns)
{
	hide();
	if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		fail("take the root");
	close(root);
	if (setns(userns, CLONE_NEWUSER) < 0)
		fail("setns");
	close(userns);
	leave_rights();
}

static int descriptor(const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);
	if (*end || n < 3) {
		errno = EINVAL;
		fail("descriptor");
	}
	return n;
}

__attribute__((constructor(150))) static void enter(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "files-inside")) {
		enter_root(descriptor(argv[2]), descriptor(argv[3]));
		return;
	}
	if (argc != 3 || (strcmp(argv[1], "exec") && strcmp(argv[1], "files")))
		return;
	int monitor = descriptor(argv[2]);
	if (!strcmp(argv[1], "files")) {
		enter_files(monitor);
		return;
	}
	ward_host_proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (ward_host_proc < 0)
		fail("open /proc");
	int self = syscall(SYS_pidfd_open, getpid(), 0);
	if (self < 0)
		fail("pidfd_open");
	if (setns(monitor, CLONE_NEWPID | CLONE_NEWNS) < 0)
		fail("setns");
	close(monitor);
	pid_t child = fork();
	if (child < 0)
		fail("fork");
	if (child > 0)
		relay(child);
	// Whoever kills the process it started means this one. That one may be
	// dead already; its number would not say so, being of another namespace.
	struct pollfd gone = {.fd = self, .events = POLLIN};
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		fail("prctl");
	if (poll(&gone, 1, 0) != 0)
		_exit(1);
	close(self);
}
