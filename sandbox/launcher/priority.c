// Before the Go runtime has threads, which would each have to be told: what
// the caller's scheduling was must be neither the container's nor the
// monitor's. Whether it worked is looked at in Go (fairShare).

#define _GNU_SOURCE
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((constructor)) static void ward_fair_share(void)
{
	struct sched_param param = {0};
	sched_setscheduler(0, SCHED_OTHER, &param);
	setpriority(PRIO_PROCESS, 0, 0);
	syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, 0);
}
