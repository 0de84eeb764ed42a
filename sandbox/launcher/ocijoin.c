// The container of an OCI caller has to be two things at once: a process of a
// PID namespace nested in its monitor's, so that the kernel ends it with the
// monitor; and a child of the program that called, which waits for it by the
// process id that it is told. Nothing in libcontainer makes such a child, but
// little is missing.
//
// libcontainer starts a process (stage 0) that clones a sibling (stage 1), and
// that one, having made the namespaces, another sibling (stage 2, the init).
// Siblings: each is a child of the launcher, whatever namespace it is in.
//
// So, before libcontainer's own constructor runs, stage 0 sets the namespace
// of its children to the monitor's: stage 1 is born in it and nests the
// container's below. What is left to mend is the number: stage 1 tells the
// launcher the id of stage 2 as it sees it, within the monitor's namespace.
// Its clone(2) is wrapped to return the caller's number instead.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

// proc is the caller's /proc in a stage 0 that joins, and in its clones; else -1.
static int proc = -1;

static int number(const char *name, int otherwise)
{
	const char *v = getenv(name);
	return v && *v ? atoi(v) : otherwise;
}

static void fail(const char *what)
{
	// libcontainer's log pipe; what it reads there becomes the launcher's error.
	dprintf(number("_LIBCONTAINER_LOGPIPE", 2), "{\"level\":\"fatal\",\"msg\":\"join the monitor: %s: %s\"}\n", what, strerror(errno));
	_exit(1);
}

// Priority 200 comes before libcontainer's, which has none.
__attribute__((constructor(200))) static void join_monitor(void)
{
	const char *type = getenv("_LIBCONTAINER_INITTYPE");
	char name[64], link[64];
	int fd, first;

	if (!type || strcmp(type, "standard"))
		return;
	// The launcher's is the last of the files it passes on; libcontainer's own
	// come after them.
	first = number("_LIBCONTAINER_CONSOLE", number("_LIBCONTAINER_INITPIPE", 0));
	fd = first - 1;
	if (fd < 3)
		return;
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(name, link, sizeof link - 1);
	if (n < 0)
		return;
	link[n] = 0;
	if (strcmp(link, "anon_inode:[pidfd]"))
		return; // not an OCI caller's container
	proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0)
		fail("open /proc");
	if (setns(fd, CLONE_NEWPID) < 0)
		fail("setns");
	if (close(fd) < 0)
		fail("close");
}

// caller_pid translates the id of a child from this process's PID namespace
// into that of proc, through a descriptor of the child.
static pid_t caller_pid(pid_t pid)
{
	char name[64], text[1024], *at;
	pid_t out = -1;
	int fd, info;
	ssize_t n;

	fd = syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0)
		return -1;
	snprintf(name, sizeof name, "self/fdinfo/%d", fd);
	info = openat(proc, name, O_RDONLY | O_CLOEXEC);
	if (info >= 0) {
		n = read(info, text, sizeof text - 1);
		if (n > 0) {
			text[n] = 0;
			at = strstr(text, "\nPid:");
			if (at)
				out = atoi(at + 5);
		}
		close(info);
	}
	close(fd);
	return out > 0 ? out : -1;
}

int __real_clone(int (*fn)(void *), void *stack, int flags, void *arg, ...);
int __wrap_clone(int (*fn)(void *), void *stack, int flags, void *arg, ...);

// The linker (-wrap) has every call of clone(3) in this program come here:
// libcontainer's. What makes threads does not use it, so that the arguments
// which only those have need not be passed on.
int __wrap_clone(int (*fn)(void *), void *stack, int flags, void *arg, ...)
{
	pid_t pid = __real_clone(fn, stack, flags, arg);

	if (pid <= 0 || proc < 0)
		return pid;
	pid_t seen = caller_pid(pid);
	if (seen < 0) {
		kill(pid, SIGKILL);
		errno = ESRCH;
	}
	return seen;
}
