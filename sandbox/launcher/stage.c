// The stage: a program of its own, made of this file's one section and an ELF
// header (stage.go). libcontainer's init executes it in the container in place
// of the payload; it puts the last locks on itself and executes the payload.
//
// It runs as the container's user with the container's capabilities, before
// the filter is in force. So it must not be anybody's to look into: its file
// cannot be read by the container, for which the kernel makes the process
// undumpable from its first instruction, and nobody there can trace it.
//
// It has no libc, no data and no stack it did not make: everything is in one
// section that can be loaded anywhere. No strings, no switch: the compiler
// would put them elsewhere. What it is told is in the settings (stage.go).

#include <linux/audit.h>
#include <linux/fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>

// Nothing the compiler would need a library or a table of constants for
// (TestStageIsOnePiece looks).
#pragma GCC optimize("no-tree-loop-distribute-patterns", "no-stack-protector")
#pragma GCC target("general-regs-only")

#define STAGE __attribute__((section("ward_stage"), used))
#define INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__)

__asm__(".pushsection ward_stage,\"ax\",@progbits\n"
	".hidden ward_stage_entry\n.globl ward_stage_entry\n"
	"ward_stage_entry:\n"
	"	xor %ebp, %ebp\n"
	"	mov %rsp, %rdi\n"
	"	and $-16, %rsp\n"
	"	call ward_stage_main\n"
	"	hlt\n"
	".popsection\n");

INLINE long call(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long ret;
	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

#elif defined(__aarch64__)

__asm__(".pushsection ward_stage,\"ax\",@progbits\n"
	".hidden ward_stage_entry\n.globl ward_stage_entry\n"
	"ward_stage_entry:\n"
	"	mov x29, #0\n"
	"	mov x0, sp\n"
	"	bl ward_stage_main\n"
	"	brk #0\n"
	".popsection\n");

INLINE long call(long nr, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = nr, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}

#else
#error "the stage knows amd64 and arm64"
#endif

// The descriptors the stage is started with, as stage.go passes them.
enum { EXECUTED = 3, SELF = 4, SETTINGS = 5, GATE = 6, INIT = 7 };

// Where it failed, as stage.go names it.
enum { STEP_SETTINGS = 1, STEP_FILTER, STEP_GATE, STEP_LOOKUP, STEP_EXEC, STEP_INIT, STEP_LANDLOCK };

// settings is the head of the settings file; offsets are from its start.
struct settings {
	unsigned int size;           // of the whole
	unsigned int filter_offset;  // struct sock_filter[filter_length]
	unsigned int filter_length;
	unsigned int filter_flags;   // of seccomp(2)
	// init says that the first three arguments are an init's: where it is (the
	// descriptor INIT, by name), and two of its own; the payload's follow.
	unsigned int init;
	unsigned int unused;
	// Of landlock_create_ruleset(2); all 0: none of it.
	unsigned long fs, net, scoped;
	unsigned int ports_offset;   // struct landlock_net_port_attr[ports]
	unsigned int ports;
};

INLINE __attribute__((noreturn)) void fail(int step, long err)
{
	// NUL first: whatever else is said over this descriptor is text.
	volatile unsigned int said[2];
	said[0] = (unsigned int)step << 8;
	said[1] = (unsigned int)-err;
	call(SYS_write, EXECUTED, (long)said, sizeof said, 0, 0, 0);
	for (;;)
		call(SYS_exit_group, 127, 0, 0, 0, 0, 0);
}

// rule adds one rule to a ruleset.
INLINE void rule(long ruleset, int kind, const volatile void *attr)
{
	long err = call(SYS_landlock_add_rule, ruleset, kind, (long)attr, 0, 0, 0);
	if (err)
		fail(STEP_LANDLOCK, err);
}

// domain shuts this process and all that come from it off from what is
// handled: files that are not beneath "/", ports that are not listed, what is
// scoped. What is mounted in the container is beneath "/" for the kernel, as
// the way up from it leads there; what no path leads to (pipes, memory files)
// is nobody's to forbid.
INLINE void domain(const struct settings *s)
{
	// struct landlock_ruleset_attr, of which older headers know only a part.
	volatile struct {
		unsigned long fs, net, scoped;
	} attr;
	attr.fs = s->fs;
	attr.net = s->net;
	attr.scoped = s->scoped;
	long ruleset = call(SYS_landlock_create_ruleset, (long)&attr, sizeof attr, 0, 0, 0, 0);
	if (ruleset < 0)
		fail(STEP_LANDLOCK, ruleset);
	if (s->fs) {
		volatile char root[2];
		root[0] = '/';
		root[1] = 0;
		// struct landlock_path_beneath_attr
		volatile struct {
			unsigned long access;
			int fd;
		} __attribute__((packed)) beneath;
		beneath.access = s->fs;
		beneath.fd = call(SYS_openat, AT_FDCWD, (long)root, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, 0, 0);
		if (beneath.fd < 0)
			fail(STEP_LANDLOCK, beneath.fd);
		rule(ruleset, 1 /* LANDLOCK_RULE_PATH_BENEATH */, &beneath);
		call(SYS_close, beneath.fd, 0, 0, 0, 0, 0);
	}
	for (unsigned int i = 0; i < s->ports; i++)
		rule(ruleset, 2 /* LANDLOCK_RULE_NET_PORT */, (char *)s + s->ports_offset + 16 * i);
	long err = call(SYS_landlock_restrict_self, ruleset, 0, 0, 0, 0, 0);
	if (err)
		fail(STEP_LANDLOCK, err);
	call(SYS_close, ruleset, 0, 0, 0, 0, 0);
}

// executable returns 0 if path is a file to execute, else why not.
INLINE long executable(const char *path)
{
	long dir = call(SYS_openat, AT_FDCWD, (long)path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, 0, 0);
	if (dir >= 0) {
		call(SYS_close, dir, 0, 0, 0, 0, 0);
		return -21; // EISDIR
	}
	return call(SYS_faccessat, AT_FDCWD, (long)path, 1 /* X_OK */, 0, 0, 0);
}

// lookup finds the program named by name as execvp would, into buf.
INLINE const char *lookup(const char *name, char **env, char *buf, long room)
{
	const char *path = 0;
	long err, n = 0, i;

	for (i = 0; name[i]; i++) {
		if (name[i] == '/') {
			err = executable(name);
			if (err)
				fail(STEP_EXEC, err);
			return name;
		}
	}
	for (; *env; env++) {
		const char *e = *env;
		if (e[0] == 'P' && e[1] == 'A' && e[2] == 'T' && e[3] == 'H' && e[4] == '=')
			path = e + 5;
	}
	while (i && path && *path) {
		int absolute = *path == '/';
		for (n = 0; *path && *path != ':'; path++)
			if (n < room)
				buf[n++] = *path;
		if (*path)
			path++;
		// An entry relative to the working directory would let whoever owns
		// that choose the program; a cut one is another one.
		if (!absolute || n + i + 2 > room)
			continue;
		buf[n++] = '/';
		for (long k = 0; k <= i; k++)
			buf[n++] = name[k];
		if (!executable(buf))
			return buf;
	}
	fail(STEP_LOOKUP, -2); // ENOENT
}

STAGE static __attribute__((noreturn)) void ward_stage_main(long *sp)
{
	char **argv = (char **)(sp + 1), **env = argv + sp[0] + 1;
	struct settings *s;
	const char *program;
	char buf[4096];
	long err;

	if (sp[0] < 2)
		fail(STEP_SETTINGS, -22);
	argv++;
	call(SYS_close, SELF, 0, 0, 0, 0, 0);
	s = (struct settings *)call(SYS_mmap, 0, 1 << 16, PROT_READ, MAP_PRIVATE, SETTINGS, 0);
	if ((unsigned long)s > -4096UL)
		fail(STEP_SETTINGS, (long)s);
	call(SYS_close, SETTINGS, 0, 0, 0, 0, 0);
	// From here on executing the payload closes both, and the other ends see it.
	for (int fd = EXECUTED; fd <= GATE; fd += GATE - EXECUTED) {
		err = call(SYS_fcntl, fd, F_SETFD, 1 /* FD_CLOEXEC */, 0, 0, 0);
		if (err)
			fail(STEP_SETTINGS, err);
	}
	if (s->init) {
		if (sp[0] < 5)
			fail(STEP_SETTINGS, -22);
		err = call(SYS_fcntl, INIT, F_SETFD, 1, 0, 0, 0);
		if (err)
			fail(STEP_SETTINGS, err);
	}
	// With an init too: said here, a payload that is not there is told from one
	// that has ended with a code of its own.
	program = lookup(argv[s->init ? 3 : 0], env, buf, sizeof buf);
	if (s->init)
		program = *argv++;
	if (s->fs | s->net | s->scoped)
		domain(s);

	struct sock_fprog filter = {
		.len = s->filter_length,
		.filter = (struct sock_filter *)((char *)s + s->filter_offset),
	};
	// From here on only read, write, execve and exit_group.
	int listener = call(SYS_seccomp, SECCOMP_SET_MODE_FILTER, s->filter_flags, (long)&filter, 0, 0, 0);
	if (listener < 0)
		fail(STEP_FILTER, listener);
	err = call(SYS_write, GATE, (long)&listener, sizeof listener, 0, 0, 0);
	if (err != sizeof listener)
		fail(STEP_GATE, err);
	err = call(SYS_read, GATE, (long)buf + sizeof buf - 1, 1, 0, 0, 0);
	if (err != 1)
		fail(STEP_GATE, err);
	err = call(SYS_execve, (long)program, (long)argv, (long)env, 0, 0, 0);
	fail(s->init ? STEP_INIT : STEP_EXEC, err);
}
