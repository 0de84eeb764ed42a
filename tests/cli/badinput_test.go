package cli

import (
	"archive/tar"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

// patience is what any answer to bad input may take, on a busy machine. Most
// take a tenth of a second.
const patience = 30 * time.Second

// badInput is one request that no well-meaning person makes.
type badInput struct {
	name  string
	image string   // "" is plain
	args  []string // after `ward run --rm`
	cmd   []string // after the image; "true" if empty
	// rule is a pattern of the refusal's rule. Empty means that the run is let in and
	// ends with exit, its output matching out.
	rule string
	exit int
	out  string
	ref  *string // instead of image
}

func flags(args ...string) []string { return args }

// long is a name of 64 KiB.
var long = strings.Repeat("n", 64<<10)

// TestBadInput asks for runs with ids, names, paths, mounts, settings and
// sizes that must be refused with a rule and on record, or be done right:
// never a hang, a crash, or something left.
func TestBadInput(t *testing.T) {
	lab.NeedsRoot(t)
	w := lab.New(t)
	w.Patience = patience
	link := func(at, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: at, Linkname: to, Mode: 0o777}
	}
	file := func(at, body string) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: at, Mode: 0o644, PAXRecords: map[string]string{"WARD.body": body}}
	}
	images := map[string][]tar.Header{
		"plain":       {link("links/fds", "/proc/self/fd"), link("links/proc", "/proc"), link("links/sys", "/sys"), link("links/out", "../../../../../../../../etc")},
		"trap":        {file("etc/passwd", "root:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n2147483648:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\nbig:x:2147483648:0::/:/bin/sh\n")},
		"passwd-fifo": {{Typeflag: tar.TypeFifo, Name: "etc/passwd", Mode: 0o666}},
		"group-fifo":  {{Typeflag: tar.TypeFifo, Name: "etc/group", Mode: 0o666}},
		"passwd-dir":  {{Typeflag: tar.TypeDir, Name: "etc/passwd", Mode: 0o755}},
		"passwd-link": {link("etc/passwd", "../../../../../../../../../../etc/passwd")},
		"passwd-proc": {link("etc/passwd", "/proc/self/fd/0")},
		"passwd-long": {file("etc/passwd", strings.Repeat("x", 1<<20))},
		"passwd-many": {file("etc/passwd", strings.Repeat("u:x:1:1::/:/\n", 80000)+"last:x:7:7::/:/\n")},
	}
	for name, extra := range images {
		w.Busybox("bad/"+name+":1", extra...)
		w.Vouch("bad/" + name + ":1")
	}
	w.Must("import", sparsePasswd(t, w), "bad/passwd-sparse:1")
	w.Vouch("bad/passwd-sparse:1")
	for _, b := range badInputs(t, w) {
		t.Run(b.name, func(t *testing.T) { b.try(t, w) })
	}
	for _, ref := range []string{long, "bad/" + long + ":1", "bad/plain:" + long, "../../etc/passwd", "bad/plain@sha256:" + long, "-", "", "bad/plain:1\n"} {
		t.Run(fmt.Sprintf("image %.24q", ref), func(t *testing.T) {
			badInput{args: flags("--pull", "never"), rule: `.+`, ref: &ref}.try(t, w)
		})
	}
	w.Gone(t)
	w.Must("audit", "verify")
}

func badInputs(t *testing.T, w *lab.Ward) []badInput {
	var all []badInput
	add := func(more ...badInput) { all = append(all, more...) }
	for _, u := range []string{"4294967296", "4294967295", "2147483648", "65536", "-1", "+1", "1:", ":1", ":", "1:-1", "1:4294967296",
		"root\n", "root\x1b", " root", "1 ", "0x0", "1e1", "..", "/", long} {
		add(badInput{name: fmt.Sprintf("user %.12q", u), args: flags("--user", u), rule: `run\.user`})
		add(badInput{name: fmt.Sprintf("user with a matching line %.12q", u), image: "trap", args: flags("--user", u), rule: `run\.user`})
	}
	add(badInput{name: "user whose line is too big", image: "trap", args: flags("--user", "big"), rule: `run\.user`})
	for _, g := range []string{"4294967296", "-1", "65536", "no\nsuch", long} {
		add(badInput{name: fmt.Sprintf("group %.12q", g), args: flags("--group-add", g), rule: `run\.group`})
	}
	add(badInput{name: "user 65535", args: flags("--user", "65535:65535"), cmd: flags("id", "-u"), out: `^65535\n$`})

	for _, image := range []string{"passwd-fifo", "group-fifo", "passwd-dir", "passwd-link", "passwd-proc", "passwd-sparse"} {
		add(badInput{name: image, image: image, args: flags("--user", "daemon"), rule: `image\.file|run\.user`})
		add(badInput{name: image + " without a user", image: image, rule: `image\.file|run\.user`})
	}
	add(badInput{name: "a line of 1 MiB in passwd", image: "passwd-long", args: flags("--user", "x"), rule: `run\.user`},
		badInput{name: "80000 lines in passwd", image: "passwd-many", args: flags("--user", "last"), cmd: flags("id", "-u"), out: `^7\n$`})

	for _, dir := range []string{"/proc/self/fd", "/proc/self/fd/7", "/proc/../proc/self/fd/8", "//proc/self/cwd", "/proc/1/root", "/proc"} {
		add(badInput{name: "cwd " + dir, args: flags("-w", dir), rule: `floor\.cwd|plan\.cwd|.*cwd.*`})
	}
	for _, dir := range []string{"/links/fds", "/links/fds/7", "/links/proc/self/fd/7"} {
		// A link of the image's is for the kernel to follow; what it finds must be inside.
		add(badInput{name: "cwd " + dir, args: flags("-w", dir), cmd: flags("sh", "-c", "cat etc/shadow ../etc/shadow ../../etc/shadow ../../../etc/shadow 2>/dev/null; ls -a /proc/self/cwd/"), exit: -1})
	}
	add(badInput{name: "cwd without a slash", args: flags("-w", "etc"), rule: `.*cwd.*`},
		badInput{name: "cwd of 64 KiB", args: flags("-w", "/"+long), rule: `.*cwd.*`})

	for _, at := range []string{"/", "/proc", "/proc/self", "/proc/sys/kernel", "/proc/../proc", "//proc", "/sys", "/sys/fs/cgroup", "/dev", "/dev/pts", "/./sys/kernel"} {
		add(badInput{name: "tmpfs at " + at, args: flags("--tmpfs", at), rule: `.*mount.*`},
			badInput{name: "mount at " + at, args: flags("--mount", "type=tmpfs,target="+at), rule: `.*mount.*`})
	}
	// The floor cannot see an image's links. The kernel's file systems come last and
	// cover what is there; what must not be seen is not, whoever writes.
	real := "touch /proc/x /proc/self/x /sys/x 2>/dev/null && echo writable; cat /proc/keys /proc/timer_list; cat /proc/self/comm; stat -f -c %T /sys"
	for _, at := range []string{"/links/proc", "/links/sys", "/links/proc/self", "/links/proc/sys", "/links/fds", "/links/sys/kernel"} {
		add(badInput{name: "tmpfs at " + at, args: flags("--tmpfs", at), cmd: flags("sh", "-c", real), out: `^cat\nsysfs\n$`})
	}
	add(badInput{name: "tmpfs through a link out", args: flags("--tmpfs", "/links/out/x"), cmd: flags("cat", "/etc/x/y"), exit: -1},
		badInput{name: "tmpfs at 64 KiB", args: flags("--tmpfs", "/"+long), rule: `.*mount.*`})

	for _, s := range []string{"kernel.core_pattern=|/bin/sh", "kernel/core_pattern=x", "vm.overcommit_memory=1", "fs.file-max=1", "kernel.panic=1",
		"net.core.bpf_jit_enable=0", "net.ipv4.conf.all/../../../../kernel.panic=1", "net/../kernel/panic=1", "net.ipv4.ip_forward=1\n",
		"=1", "x", "net.ipv4.ip_forward", "dev.cdrom.lock=0", "user.max_user_namespaces=1", "kernel.ns_last_pid=5", "net." + long + "=1"} {
		add(badInput{name: fmt.Sprintf("sysctl %.48q", s), args: flags("--sysctl", s), rule: `.*sysctl.*|launch\..*`})
	}

	fifo := filepath.Join(w.Dir, "fifo")
	if err := os.WriteFile(filepath.Join(w.Dir, "plain"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := mkfifo(fifo); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"/dev/mem", "/dev/null:/etc/passwd", "/dev/null:/dev/../etc/x", "/dev/null:/proc/x", "/dev/../etc/passwd", "/dev/no-such",
		"/dev", "/dev/null:relative", "/dev/null:/dev/null:rwx", "/dev/stdin", "", ":", "/dev/null:/dev/pts/ptmx", filepath.Join(w.Dir, "plain"), fifo, "/dev/" + long} {
		add(badInput{name: fmt.Sprintf("device %.40q", d), args: flags("--device", d), rule: `.*device.*`})
	}
	return append(all, sizes(t, w)...)
}

// sizes are what is long or many.
func sizes(t *testing.T, w *lab.Ward) []badInput {
	big := filepath.Join(w.Dir, "big.env")
	if err := os.WriteFile(big, []byte("BIG="+strings.Repeat("v", 300<<10)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var many, manyArgs []string
	for i := range 10000 {
		many = append(many, "-e", fmt.Sprintf("VAR_%05d=%d", i, i))
	}
	mib := strings.Repeat("a", 1<<16)
	for range 16 {
		manyArgs = append(manyArgs, mib)
	}
	short := make([]string, 10000)
	for i := range short {
		short[i] = "a"
	}
	return []badInput{
		{name: "container name of 64 KiB", args: flags("--name", long), rule: `run\.name`},
		{name: "container name with a slash", args: flags("--name", "../../x"), rule: `run\.name`},
		{name: "host name of 64 KiB", args: flags("--hostname", long), rule: `.*hostname.*`},
		{name: "domain name of 64 KiB", args: flags("--domainname", long), rule: `floor\.[a-z]*name`},
		{name: "label of 64 KiB", args: flags("--label", long+"=x"), rule: `run\.size`},
		{name: "stop signal of 64 KiB", args: flags("--stop-signal", long), rule: `.*signal.*`},
		{name: "add-host of 64 KiB", args: flags("--add-host", long+":127.0.0.1"), rule: `.*host.*`},
		{name: "dns search of 64 KiB", args: flags("--dns-search", long), rule: `.*`},
		{name: "volume of 64 KiB", args: flags("-v", long+":/x"), rule: `.*`},
		{name: "capability of 64 KiB", args: flags("--cap-add", long), rule: `.*`},
		{name: "entry point of 64 KiB", args: flags("--entrypoint", "/"+long), rule: `run\.size`},
		{name: "command of 64 KiB", cmd: flags("/" + long), rule: `run\.size`},
		{name: "environment name of 64 KiB", args: flags("-e", long+"=x"), rule: `run\.size`},
		{name: "environment value of 64 KiB", args: flags("-e", "BIG="+long), cmd: flags("sh", "-c", "echo ${#BIG}"), out: `^65536\n$`},
		{name: "environment value beyond what the kernel passes on", args: flags("--env-file", big), rule: `floor\.size`},
		{name: "10000 environment variables", args: many, rule: `run\.size`},
		{name: "3000 environment variables", args: many[:6000], cmd: flags("sh", "-c", "env | grep -c ^VAR_"), out: `^3000\n$`},
		{name: "10000 arguments", cmd: append(flags("sh", "-c", "echo $#", "sh"), short...), out: `^10000\n$`},
		{name: "one argument of 64 KiB", cmd: flags("sh", "-c", "echo ${#1}", "sh", long), rule: `run\.size`},
		{name: "one argument of 29 KiB", cmd: flags("sh", "-c", "echo ${#1}", "sh", long[:29<<10]), out: `^29696\n$`},
		{name: "one argument of 50 KiB", cmd: flags("sh", "-c", "echo ${#1}", "sh", long[:50<<10]), out: `^51200\n$`},
		{name: "denied by policy with an argument of 64 KiB", args: flags("--network", "host"), cmd: flags("true", long), rule: `baseline\.host-namespaces`},
		{name: "denied by policy with a name of the same length", args: flags("--network", "host", "--group-add", long), rule: `run\.group`},
		{name: "1 MiB of arguments", cmd: append(flags("true"), manyArgs...), rule: `plan\.size`},
	}
}

func (b badInput) try(t *testing.T, w *lab.Ward) {
	image, cmd := "plain", []string{"true"}
	if b.image != "" {
		image = b.image
	}
	if b.cmd != nil {
		cmd = b.cmd
	}
	args := append([]string{"run", "--rm"}, b.args...)
	if args = append(args, "bad/"+image+":1"); b.ref != nil {
		args[len(args)-1] = *b.ref
	}
	before, there := w.Count(audit.RunDenied, ""), len(w.Containers())
	start := time.Now()
	r := w.Do(append(args, cmd...)...)
	t.Logf("%v: exit %d: %.400s%.100s", time.Since(start).Round(time.Millisecond), r.Code, r.Stderr, r.Stdout)
	if strings.Contains(r.Stderr, "panic:") || strings.Contains(r.Stderr, "goroutine ") || r.Code == 2 {
		t.Errorf("a crash: %.2000s", r.Stderr)
	}
	if len(r.Stderr) > 4<<10 {
		t.Errorf("an error of %d bytes", len(r.Stderr))
	}
	if now := len(w.Containers()); now != there {
		t.Errorf("%d containers are left", now-there)
	}
	denied := w.Count(audit.RunDenied, "") - before
	if b.rule == "" {
		if b.exit >= 0 && (r.Code != b.exit || denied != 0) || !regexp.MustCompile(b.out).MatchString(r.Stdout) {
			t.Errorf("exit %d, want %d; %d refusals; output %.200q\n%.2000s", r.Code, b.exit, denied, r.Stdout, r.Stderr)
		}
		if strings.Contains(r.Stdout, "root:") {
			t.Errorf("the host's: %s", r.Stdout)
		}
		return
	}
	if r.Code != 125 || r.Stdout != "" || !regexp.MustCompile(`(?m)^  rule: +(`+b.rule+`) \(`).MatchString(r.Stderr) {
		t.Errorf("exit %d, want a refusal by %s\n%.2000s%s", r.Code, b.rule, r.Stderr, r.Stdout)
	}
	if denied != 1 {
		t.Errorf("%d run.denied records, want 1", denied)
	}
}

func mkfifo(name string) error { return unix.Mkfifo(name, 0o600) }

// sparsePasswd is an image's archive whose /etc/passwd is 1 GiB of nothing.
func sparsePasswd(t *testing.T, w *lab.Ward) string {
	t.Helper()
	dir := filepath.Join(w.Dir, "sparse")
	if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "etc/passwd")
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, 1<<30); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(w.Dir, "sparse.tar")
	if out, err := exec.Command("tar", "--sparse", "-C", dir, "-cf", archive, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	return archive
}
