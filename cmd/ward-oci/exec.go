package main

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"github.com/ward-project/ward/internal/engine/oci"
	"github.com/ward-project/ward/internal/fault"
)

// execFlags are exec's beyond those of a start.
type execFlags struct {
	startFlags
	process, cwd, user, label, apparmor string
	env, caps, cgroups                  []string
	gids                                []uint
	tty, noNewPrivs, ignorePaused       bool
}

func newExec(a *app) *cobra.Command {
	f := &execFlags{}
	cmd := &cobra.Command{
		Use: "exec [flags] ID COMMAND [ARG...]", Short: "start another process in a container", Args: atLeast(1, 0),
		RunE: func(cmd *cobra.Command, args []string) error { return a.exec(cmd, f, args[0], args[1:]) },
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.StringVar(&f.console, "console-socket", "", "`path` of the socket that gets the terminal's master")
	fs.StringVar(&f.pidfd, "pidfd-socket", "", "`path` of the socket that gets a descriptor of the process")
	fs.StringVar(&f.pidFile, "pid-file", "", "`file` to write the process id to")
	fs.IntVar(&f.preserve, "preserve-fds", 0, "pass on this many descriptors beyond the three")
	fs.BoolVarP(&f.detach, "detach", "d", false, "do not wait for its end")
	fs.StringVarP(&f.process, "process", "p", "", "`file` with the process as JSON")
	fs.StringVar(&f.cwd, "cwd", "", "working directory in the container")
	fs.StringArrayVarP(&f.env, "env", "e", nil, "set an environment variable")
	fs.BoolVarP(&f.tty, "tty", "t", false, "with a terminal")
	fs.StringVarP(&f.user, "user", "u", "", "`UID[:GID]`")
	fs.UintSliceVarP(&f.gids, "additional-gids", "g", nil, "further group ids")
	fs.StringVar(&f.label, "process-label", "", "SELinux label")
	fs.StringVar(&f.apparmor, "apparmor", "", "AppArmor profile")
	fs.BoolVar(&f.noNewPrivs, "no-new-privs", false, "no way to gain privileges")
	fs.StringArrayVarP(&f.caps, "cap", "c", nil, "add a capability")
	fs.StringArrayVar(&f.cgroups, "cgroup", nil, "run in an existing sub-cgroup, [CONTROLLER:]PATH")
	fs.BoolVar(&f.ignorePaused, "ignore-paused", false, "allow it in a paused container")
	return cmd
}

func (a *app) exec(cmd *cobra.Command, f *execFlags, id string, args []string) error {
	g, err := a.gate()
	if err != nil {
		return err
	}
	text, err := f.text(cmd, a.root, id, args)
	if err != nil {
		return err
	}
	req := oci.Request{Root: a.root, ID: id, Process: text, PreserveFDs: f.preserve, ConsoleSocket: f.console,
		PidfdSocket: f.pidfd, PIDFile: f.pidFile, SubCgroups: f.cgroups, IgnorePaused: f.ignorePaused}
	if err := absolute(&req.ConsoleSocket, &req.PidfdSocket, &req.PIDFile); err != nil {
		return err
	}
	var p struct {
		Terminal bool `json:"terminal"`
	}
	if err := json.Unmarshal(text, &p); err != nil {
		p.Terminal = false // the gate says what is wrong, on record
	}
	if err := consoleError(p.Terminal, f.detach, req.ConsoleSocket); err != nil {
		return err
	}
	s, err := a.streams(!f.detach, p.Terminal, req.ConsoleSocket)
	if err != nil {
		return err
	}
	defer s.close()
	if s.files.Extra, err = preserved(f.preserve); err != nil {
		return err
	}
	pid, err := g.Exec(cmd.Context(), req, s.files)
	if err != nil {
		return err
	}
	if f.detach {
		return nil
	}
	if err := s.begin(pid); err != nil {
		return err
	}
	code, err := s.wait(pid)
	if err != nil {
		return err
	}
	return exited(code)
}

// text is the JSON of the process: the caller's file, or the container's own
// process with what the flags change.
func (f *execFlags) text(cmd *cobra.Command, root, id string, args []string) ([]byte, error) {
	if f.process != "" {
		return oci.ReadProcess(f.process)
	}
	b, err := oci.Process(root, id)
	if err != nil {
		return nil, err
	}
	var p specs.Process
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, err
	}
	if len(args) == 0 {
		return nil, fault.New(fault.Invalid, "oci.runtime", "exec args cannot be empty", "")
	}
	p.Args, p.Terminal = args, f.tty
	for _, set := range []struct {
		to   *string
		from string
	}{{&p.Cwd, f.cwd}, {&p.ApparmorProfile, f.apparmor}, {&p.SelinuxLabel, f.label}} {
		if set.from != "" {
			*set.to = set.from
		}
	}
	p.Env = append(p.Env, f.env...)
	if cmd.Flags().Changed("no-new-privs") {
		p.NoNewPrivileges = f.noNewPrivs
	}
	if err := setUser(&p, f.user); err != nil {
		return nil, err
	}
	for _, g := range f.gids {
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(g))
	}
	if len(f.caps) > 0 && p.Capabilities == nil {
		p.Capabilities = &specs.LinuxCapabilities{}
	}
	for _, c := range f.caps {
		for _, set := range []*[]string{&p.Capabilities.Bounding, &p.Capabilities.Effective, &p.Capabilities.Permitted} {
			*set = append(*set, c)
		}
	}
	return json.Marshal(p)
}

// setUser reads UID[:GID]: numbers, and only such as are ids.
func setUser(p *specs.Process, user string) error {
	if user == "" {
		return nil
	}
	id := func(what, s string) (uint32, error) {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil || n == 1<<32-1 || s[0] == '+' {
			return 0, usage("bad %s: %.64q is not an id", what, s)
		}
		return uint32(n), nil
	}
	uids, gids, both := strings.Cut(user, ":")
	var err error
	if p.User.UID, err = id("uid", uids); err != nil {
		return err
	}
	if both {
		p.User.GID, err = id("gid", gids)
	}
	return err
}
