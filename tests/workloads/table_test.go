package workloads

// workload is one row: a program, how it is started, and what its users have
// to be told.
type workload struct {
	name  string
	title string // what it is and what the smoke test has it do
	// image is "debian", made by mmdebstrap, or "busybox".
	image   string
	command []string // without the smoke test, which is the last argument
	smoke   string   // file in smoke/
	flags   []option
	// refused are the system calls the filter refuses it. Any other fails the
	// test: it is either missing from the profile, or a surprise that somebody
	// has to explain here. So does one that is not refused any more.
	refused []refusal
}

// refusal is a system call the filter turned down, and why nothing is lost by it.
type refusal struct{ call, why string }

// option is a flag beyond the defaults and the reason a README would give.
type option struct {
	flag, why string
	// less is a weaker form of the flag. Without the flag, or with less where
	// there is one, the smoke test must fail: nobody is told to add what is
	// not needed.
	less string
}

const (
	noExec   = "/tmp is not executable unless asked for, and what was just built there is run"
	noSwitch = "there is no capability to change the user with (CAP_SETUID), so the server starts as the one it would have changed to"
)

var workloads = []workload{
	{
		name: "busybox", image: "busybox", command: []string{"sh"}, smoke: "busybox.sh",
		title: "busybox: pipelines, archives, a web server and its client",
	},
	{
		name: "shell", image: "debian", command: []string{"bash"}, smoke: "shell.sh",
		title: "bash and coreutils: job control, traps, process substitution, sparse files, links, fifos",
		// The only row with any, and on purpose: it shows that a refusal is seen.
		refused: []refusal{{"unshare", "the smoke test asks for a user namespace, to see the refusal on record"}},
	},
	{
		name: "python", image: "debian", command: []string{"python3"}, smoke: "python.py",
		title: "Python: TLS, sqlite3, subprocess, threads, multiprocessing (fork and spawn), shared memory, asyncio, a pseudo-terminal",
	},
	{
		name: "perl", image: "debian", command: []string{"perl"}, smoke: "perl.pl",
		title: "Perl: fork, pipes, sockets, threads, System V shared memory, regular expressions",
	},
	{
		name: "node", image: "debian", command: []string{"node"}, smoke: "node.js",
		title: "Node.js: HTTP, worker threads, cluster, child processes, crypto, file watchers, the just-in-time compiler",
	},
	{
		name: "nginx", image: "debian", command: []string{"bash"}, smoke: "nginx.sh",
		title: "nginx: two workers, files and a caching proxy over loopback, reload, graceful end",
		flags: []option{
			{flag: "--user www-data", why: noSwitch},
			{flag: "--sysctl net.ipv4.ip_unprivileged_port_start=80", why: "it listens on port 80, and ports below 1024 are for root with a capability otherwise"},
			{flag: "--tmpfs /var/lib/nginx", why: "the directories for request bodies and caches; the root is read-only"},
		},
	},
	{
		name: "redis", image: "debian", command: []string{"bash"}, smoke: "redis.sh",
		title: "redis: append-only file, snapshot by fork, benchmark, restart with the data",
		flags: []option{
			{flag: "--tmpfs /var/lib/redis", why: "its data; the root is read-only (a volume where the data must stay)"},
		},
	},
	{
		name: "postgres", image: "debian", command: []string{"bash"}, smoke: "postgres.sh",
		title: "PostgreSQL: initdb, parallel queries, pgbench, a crash and its recovery",
		flags: []option{
			{flag: "--user postgres", why: "the server refuses to run as root, and " + noSwitch},
			{flag: "--tmpfs /var/lib/postgresql:size=512m", why: "its data; the root is read-only (a volume where the data must stay), and a new cluster with its log of changes is larger than the default of 64 MiB", less: "--tmpfs /var/lib/postgresql"},
		},
	},
	{
		name: "go", image: "debian", command: []string{"bash"}, smoke: "go.sh",
		title: "The Go tool chain: vet, build and test of a program that then runs",
		flags: []option{
			{flag: "--tmpfs /tmp:exec", why: noExec},
		},
	},
	{
		name: "cpp", image: "debian", command: []string{"bash"}, smoke: "cpp.sh",
		title: "g++ and make: two compilers at once, threads, exceptions, a shared library, a static program",
		flags: []option{
			{flag: "--tmpfs /tmp:exec", why: noExec},
		},
	},
}
