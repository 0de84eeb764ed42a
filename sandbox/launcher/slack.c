// How late the kernel may wake this program's threads. The Go runtime has a
// thread that looks after the others and sleeps 20 microseconds at a time for
// as long as system calls keep somebody busy, which for a launcher is all the
// time: it woke up three hundred times for each container, and programming
// the timer alone costs microseconds on a virtual machine. With a slack of a
// millisecond the kernel lets it sleep on; nothing here waits for less.
//
// Before the runtime starts its threads, which inherit it. A payload gets the
// kernel's usual value back (Reexec).

#include <sys/prctl.h>

__attribute__((constructor)) static void ward_timer_slack(void)
{
	// It cannot fail where the option exists; and it is only about speed.
	prctl(PR_SET_TIMERSLACK, 1000000UL, 0UL, 0UL, 0UL);
}
