package escape

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

const image = "escape.example/busybox:1"

// decoy is a directory on the host at which every link and path is aimed.
type decoy struct{ dir, before string }

func newDecoy(t *testing.T, w *lab.Ward) *decoy {
	t.Helper()
	d := &decoy{dir: filepath.Join(w.Dir, "decoy")}
	for name, body := range map[string]string{"passwd": "decoy", "null": "decoy", "sub/file": "decoy"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(d.dir, name)), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(body), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(w.Dir, "HOST-MARKER"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	d.before = d.state(t)
	return d
}

// state is everything about the decoy that an attack would change.
func (d *decoy) state(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(d.dir, func(p string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v %d %v\n", p, st.Mode(), st.Size(), st.Sys())
		if st.Mode().IsRegular() {
			body, err := os.ReadFile(p)
			fmt.Fprintf(&b, "%q %v\n", body, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// Reading it above has moved the access times; they are in the inode's
	// data, so leave out everything after the change time.
	return withoutTimes(b.String())
}

// untouched fails t if anything happened to the decoy or is mounted there.
func (d *decoy) untouched(t *testing.T) {
	t.Helper()
	if now := d.state(t); now != d.before {
		t.Errorf("the decoy has changed:\n%s\nwas:\n%s", now, d.before)
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(b), d.dir) {
		t.Errorf("something is mounted at the decoy (%v)", err)
	}
}

// programs are digests of the programs as they lie on the host.
func programs(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, p := range []string{"ward", "ward-launch", "ward-init"} {
		body, err := os.ReadFile(filepath.Join(lab.Bin(), p))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%x\n", sha256.Sum256(body))
	}
	return b.String()
}

// TestFromInside makes every attempt of probes.sh in a container of its own
// and again by exec in one that runs. Both must answer the same, line by line.
func TestFromInside(t *testing.T) {
	w := lab.New(t)
	probes, err := os.ReadFile("probes.sh")
	if err != nil {
		t.Fatal(err)
	}
	w.Busybox(image, tar.Header{Typeflag: tar.TypeReg, Name: "probes.sh", Mode: 0o644, PAXRecords: map[string]string{"WARD.body": string(probes)}})
	w.Vouch(image)
	d := newDecoy(t, w)
	before := programs(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	env := []string{"-e", "HOST_DIR=" + w.Dir, "-e", "HOST_PORT=" + port}
	w.Must("run", "-d", "--name", "target", image, "sleep", "600")
	answers := map[string][]string{}
	for how, args := range map[string][]string{
		"run":  slices.Concat([]string{"run", "--rm"}, env, []string{image, "sh", "/probes.sh"}),
		"exec": slices.Concat([]string{"exec"}, env, []string{"target", "sh", "/probes.sh"}),
	} {
		r := w.Do(args...)
		if r.Code != 0 || !strings.HasSuffix(r.Stdout, "end\n") {
			t.Fatalf("%s: exit %d\n%s%s", how, r.Code, r.Stdout, r.Stderr)
		}
		for _, line := range strings.Split(strings.TrimSpace(r.Stdout), "\n") {
			if strings.HasPrefix(line, "BROKEN") {
				t.Errorf("%s: %s", how, line)
			}
			answers[how] = append(answers[how], line)
		}
	}
	if !slices.Equal(answers["run"], answers["exec"]) || len(answers["run"]) < 60 {
		t.Errorf("run and exec answer differently, or too little:\n%v\n%v", answers["run"], answers["exec"])
	}
	d.untouched(t)
	if programs(t) != before {
		t.Error("a program of ours has changed (CVE-2019-5736)")
	}
	w.Must("rm", "-f", "target")
	w.Gone(t)
}

// TestFromTheImage starts images that are made to lead the runtime astray.
// Each is refused on record, or runs without any effect on the decoy.
func TestFromTheImage(t *testing.T) {
	w := lab.New(t)
	d := newDecoy(t, w)
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}
	}
	outside := "../../../../../../../../.." + d.dir
	for _, c := range []struct {
		name  string
		extra []tar.Header
		args  []string
		// rule refuses it; empty means that it runs and says want.
		rule, want string
	}{
		{"/proc is a link (CVE-2019-16884, CVE-2023-27561)", []tar.Header{link("proc", "p2")}, nil, "image.root-symlink", ""},
		{"/sys is a link (CVE-2023-28642)", []tar.Header{link("sys", outside)}, nil, "image.root-symlink", ""},
		{"/dev is a link (CVE-2026-41579)", []tar.Header{link("dev", outside)}, nil, "image.root-symlink", ""},
		{"/etc is a link", []tar.Header{link("etc", outside)}, nil, "image.root-symlink", ""},
		{"/dev/null is a link (CVE-2025-31133)", []tar.Header{link("dev/null", outside+"/null")},
			[]string{"sh", "-c", "echo x >/dev/null; cat /proc/keys; test -c /dev/null && echo ran"}, "", "ran\n"},
		{"/dev/console is a link (CVE-2025-52565)", []tar.Header{link("dev/console", outside+"/null")}, []string{"echo", "ran"}, "", "ran\n"},
		{"/dev/pts is a link", []tar.Header{link("dev/pts", outside), link("dev/shm", outside), link("dev/fd", outside)}, []string{"echo", "ran"}, "", "ran\n"},
		{"/etc/hosts leads out", []tar.Header{link("etc/hosts", outside+"/passwd"), link("etc/resolv.conf", d.dir+"/passwd"), link("etc/hostname", outside+"/new")},
			[]string{"echo", "ran"}, "", "ran\n"},
		{"/run leads out", []tar.Header{link("run", d.dir+"/sub")}, []string{"sh", "-c", "echo x >/run/y; echo ran"}, "", "ran\n"},
		{"/tmp leads to itself", []tar.Header{link("tmp", outside)}, nil, "launch.target", ""},
		{"/etc/passwd leads out", []tar.Header{link("etc/passwd", outside+"/passwd")}, nil, "image.file", ""},
		{"the command is the runtime (CVE-2019-5736)", nil, []string{"/proc/self/exe", "monitor", "3"}, "", "any"},
		{"the interpreter is the runtime (CVE-2019-5736)", []tar.Header{{Typeflag: tar.TypeReg, Name: "bin/trap", Mode: 0o755,
			PAXRecords: map[string]string{"WARD.body": "#!/proc/self/exe\n"}}}, []string{"/bin/trap"}, "", "any"},
		{"a set-user-id program", []tar.Header{{Typeflag: tar.TypeLink, Name: "bin/suid", Linkname: "bin/busybox", Mode: 0o4755}},
			[]string{"sh", "-c", "grep NoNewPrivs /proc/self/status | grep -q 1 && echo ran"}, "", "ran\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ref := fmt.Sprintf("escape.example/%x:1", sha256.Sum256([]byte(c.name)))[:40] + ":1"
			w.Busybox(ref, c.extra...)
			w.Vouch(ref)
			args := c.args
			if args == nil {
				args = []string{"echo", "ran"}
			}
			denied, ended := w.Count(audit.RunDenied, ""), w.Count(audit.RunExit, "")
			r := w.Do(append([]string{"run", "--rm", ref}, args...)...)
			switch {
			case c.rule != "" && (r.Code != 125 || !regexp.MustCompile(`(?m)^  rule: +`+c.rule).MatchString(r.Stderr) || w.Count(audit.RunDenied, "") != denied+1):
				t.Errorf("exit %d, not refused by %s on record:\n%s%s", r.Code, c.rule, r.Stdout, r.Stderr)
			case c.rule == "" && c.want != "any" && r.Stdout != c.want:
				t.Errorf("exit %d: %q, want %q\n%s", r.Code, r.Stdout, c.want, r.Stderr)
			case c.rule == "" && w.Count(audit.RunExit, "") == ended && w.Count(audit.RunDenied, "") == denied:
				t.Errorf("exit %d, and no end on record\n%s", r.Code, r.Stderr)
			}
			d.untouched(t)
		})
	}
	w.Gone(t)
}

// TestWorkingDirectories points the working directory at every descriptor a
// runtime could have leaked, plainly and through the image's links
// (CVE-2024-21626), at the start and by exec.
func TestWorkingDirectories(t *testing.T) {
	w := lab.New(t)
	newDecoy(t, w)
	var links []tar.Header
	for n := range 65 {
		links = append(links, tar.Header{Typeflag: tar.TypeSymlink, Name: fmt.Sprintf("w%d", n), Linkname: fmt.Sprintf("/proc/self/fd/%d", n), Mode: 0o777})
	}
	w.Busybox(image, links...)
	w.Vouch(image)
	w.Must("run", "-d", "--name", "target", image, "sleep", "600")
	look := []string{"sh", "-c", "for i in . .. ../.. ../../.. ../../../..; do test -e $i/HOST-MARKER && echo OUT; test -e $i" + w.Dir + " && echo OUT; done; echo in"}
	for n := range 65 {
		for _, dir := range []string{fmt.Sprintf("/proc/self/fd/%d", n), fmt.Sprintf("/w%d", n)} {
			if testing.Short() && n > 12 {
				continue
			}
			for _, args := range [][]string{{"run", "--rm", "-w", dir, image}, {"exec", "-w", dir, "target"}} {
				r := w.Do(slices.Concat(args, look)...)
				if strings.Contains(r.Stdout, "OUT") {
					t.Errorf("%v: the host is in sight:\n%s", args, r.Stdout)
				}
				if r.Code == 0 && strings.HasPrefix(dir, "/proc") {
					t.Errorf("%v: let in", args)
				}
			}
		}
	}
	w.Must("rm", "-f", "target")
	w.Gone(t)
}

// withoutTimes leaves the times out of printed inodes.
func withoutTimes(s string) string {
	var out []string
	for _, line := range strings.Split(s, "\n") {
		if i := strings.Index(line, "&{"); i >= 0 {
			f := strings.Fields(line[i:])
			line = line[:i] + strings.Join(f[:min(len(f), 9)], " ") // up to the size
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}
