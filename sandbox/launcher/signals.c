// What the caller had its signals ignored for (nohup, a shell's background job,
// a supervisor) is not for the container: an ignored signal stays ignored over
// every execve, and its payload could not be stopped by it.
//
// By the system call itself: libc keeps signals 32 and 33 to itself. Before the
// Go runtime, which takes what is ignored at its start for meant.

#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

// struct sigaction as the kernel has it.
struct kernel_action {
	void *handler;
	unsigned long flags;
	void *restorer;
	unsigned long mask;
};

__attribute__((constructor)) static void ward_default_signals(void)
{
	struct kernel_action action;
	memset(&action, 0, sizeof action); // SIG_DFL
	for (int sig = 1; sig <= 64; sig++)
		syscall(SYS_rt_sigaction, sig, &action, NULL, sizeof action.mask); // KILL and STOP refuse
}
