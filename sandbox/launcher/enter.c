// A process that is to be started in a container that runs belongs below the
// container's monitor: only then does the kernel end it with the monitor, and
// only then is the monitor its parent once its launcher has gone. So the
// launcher enters the monitor's PID namespace, in which its children are born,
// and its mount namespace, in which libcontainer's state is. A program with
// threads can do neither for itself; this runs before the Go runtime has any.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
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

__attribute__((constructor(150))) static void enter(int argc, char **argv)
{
	if (argc != 3 || strcmp(argv[1], "exec"))
		return;
	char *end;
	long monitor = strtol(argv[2], &end, 10);
	if (*end || monitor < 3) {
		errno = EINVAL;
		fail("descriptor");
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
