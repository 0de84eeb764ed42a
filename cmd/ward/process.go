package main

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// process is what /proc says of one process, by its id on the host. Its name
// and arguments are the container's own choice and are printed as such.
type process struct {
	dir            string
	pid            int
	stat           []string // after the name, from the state on
	uid, gid, comm string
	args           string
	started        time.Time
	now            time.Time
}

// ticks is USER_HZ, which is the same on every machine that ward runs on.
const ticks = 100

// maxProcText bounds what is read of one file about a process.
const maxProcText = 64 << 10

func readProcess(pid int) (process, bool) {
	p := process{dir: filepath.Join("/proc", strconv.Itoa(pid)), pid: pid, now: time.Now()}
	stat, err := readProc(p.dir, "stat")
	if err != nil {
		return p, false // it has ended
	}
	status, err := readProc(p.dir, "status")
	if err != nil {
		return p, false
	}
	cmdline, err := readProc(p.dir, "cmdline")
	if err != nil {
		return p, false
	}
	if !p.parse(stat, status, cmdline, bootTime()) {
		return p, false
	}
	return p, true
}

// parse reads the three files. The name, in brackets, may have brackets and
// spaces of its own: what follows its last one is the kernel's.
func (p *process) parse(stat, status, cmdline []byte, boot time.Time) bool {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return false
	}
	p.comm = string(stat[open+1 : end])
	p.stat = strings.Fields(string(stat[end+1:]))
	if len(p.stat) < 22 {
		return false
	}
	for line := range bytes.Lines(status) {
		words := strings.Fields(string(line))
		if len(words) < 3 {
			continue
		}
		switch words[0] {
		case "Uid:":
			p.uid = words[2] // effective, as ps shows
		case "Gid:":
			p.gid = words[2]
		}
	}
	p.args = strings.TrimRight(strings.ReplaceAll(string(cmdline), "\x00", " "), " ")
	if p.args == "" {
		p.args = "[" + p.comm + "]"
	}
	p.started = boot.Add(time.Duration(p.number(19)) * time.Second / ticks)
	return true
}

// number is field n of stat, counted from the state.
func (p *process) number(n int) int64 {
	v, _ := strconv.ParseInt(p.stat[n], 10, 64)
	return v
}

func (p *process) cpu() time.Duration {
	return time.Duration(p.number(11)+p.number(12)) * time.Second / ticks
}

func (p *process) row(cols []column) row {
	r := row{}
	for _, c := range cols {
		r[c.key] = p.value(c.key)
	}
	return r
}

func (p *process) value(field string) string {
	switch field {
	case "uid", "euid":
		return p.uid
	case "user":
		if u, err := user.LookupId(p.uid); err == nil {
			return u.Username
		}
		return p.uid
	case "gid":
		return p.gid
	case "pid":
		return strconv.Itoa(p.pid)
	case "ppid":
		return p.stat[1]
	case "pgid":
		return p.stat[2]
	case "sid":
		return p.stat[3]
	case "c":
		return fmt.Sprintf("%.0f", min(p.percent(), 99))
	case "pcpu", "%cpu":
		return fmt.Sprintf("%.1f", p.percent())
	case "pmem", "%mem":
		return fmt.Sprintf("%.1f", 100*float64(p.rss())/float64(max(memTotal(), 1)))
	case "vsz":
		return strconv.FormatInt(p.number(20)>>10, 10)
	case "rss":
		return strconv.FormatInt(p.rss()>>10, 10)
	case "tty", "tt":
		return ttyName(p.number(4))
	case "stat", "s", "state":
		return p.stat[0]
	case "start", "stime":
		return p.startText()
	case "time", "cputime":
		return clock(p.cpu())
	case "etime":
		return clock(p.now.Sub(p.started))
	case "ni", "nice":
		return p.stat[16]
	case "pri":
		return strconv.FormatInt(39-p.number(15), 10) // as ps -l: higher is better
	case "nlwp", "thcount":
		return p.stat[17]
	case "wchan":
		b, _ := readProc(p.dir, "wchan")
		if s := strings.TrimSpace(string(b)); s != "" && s != "0" {
			return s
		}
		return "-"
	case "comm", "ucmd":
		return clean(p.comm)
	default: // args, cmd, command
		return clean(p.args)
	}
}

// clean keeps bytes that are no text from becoming something else on the way.
func clean(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func (p *process) percent() float64 {
	lived := p.now.Sub(p.started)
	if lived <= 0 {
		return 0
	}
	return 100 * float64(p.cpu()) / float64(lived)
}

func (p *process) rss() int64 { return p.number(21) * int64(os.Getpagesize()) }

// startText is ps's: the time of today, else the day.
func (p *process) startText() string {
	if y, d := p.started.Year(), p.started.YearDay(); y == p.now.Year() && d == p.now.YearDay() {
		return p.started.Format("15:04")
	}
	return p.started.Format("Jan02")
}

func clock(d time.Duration) string {
	s := int64(d / time.Second)
	if days := s / 86400; days > 0 {
		return fmt.Sprintf("%d-%02d:%02d:%02d", days, s/3600%24, s/60%60, s%60)
	}
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// ttyName is the terminal by its device number; the container's own terminals
// are numbered in the container.
func ttyName(dev int64) string {
	major, minor := dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	switch {
	case dev == 0:
		return "?"
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", (major-136)<<8+minor)
	case major == 4:
		return fmt.Sprintf("tty%d", minor)
	}
	return fmt.Sprintf("%d:%d", major, minor)
}

func bootTime() time.Time {
	b, _ := readProc("/proc", "stat")
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("btime ")); ok {
			s, _ := strconv.ParseInt(strings.TrimSpace(string(rest)), 10, 64)
			return time.Unix(s, 0)
		}
	}
	return time.Time{}
}

// memTotal is the host's memory in bytes.
func memTotal() int64 {
	b, _ := readProc("/proc", "meminfo")
	for line := range bytes.Lines(b) {
		if words := strings.Fields(string(line)); len(words) > 1 && words[0] == "MemTotal:" {
			n, _ := strconv.ParseInt(words[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

func readProc(dir, file string) ([]byte, error) {
	f, err := os.Open(filepath.Join(dir, file))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := make([]byte, maxProcText)
	n := 0
	for n < len(buf) {
		m, err := f.Read(buf[n:])
		n += m
		if err != nil || m == 0 {
			break
		}
	}
	return buf[:n], nil
}
