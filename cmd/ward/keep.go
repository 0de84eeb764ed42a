package main

import (
	"errors"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
)

// keepFlags are the flags of run that a keeper looks after.
type keepFlags struct {
	restart, healthCmd                            string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
	noHealth                                      bool
}

func (f *keepFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.restart, "restart", "no", "start it again when it ends: `no|on-failure[:N]|always|unless-stopped`")
	fs.StringVar(&f.healthCmd, "health-cmd", "", "shell `command` that tells whether it is well")
	fs.DurationVar(&f.interval, "health-interval", 0, "`time` between health checks (30s)")
	fs.DurationVar(&f.timeout, "health-timeout", 0, "`time` a health check may take (30s)")
	fs.DurationVar(&f.startPeriod, "health-start-period", 0, "`time` after the start in which failures do not count")
	fs.DurationVar(&f.startInterval, "health-start-interval", 0, "`time` between health checks in the start period (5s)")
	fs.IntVar(&f.retries, "health-retries", 0, "failures in a row that mean unhealthy (3)")
	fs.BoolVar(&f.noHealth, "no-healthcheck", false, "switch off the image's health check")
}

func (f *keepFlags) apply(fs *pflag.FlagSet, req *engine.Request) error {
	var err error
	if req.Restart, err = engine.ParseRestart(f.restart); err != nil {
		return err
	}
	asked := false
	for _, name := range []string{"health-cmd", "health-interval", "health-timeout", "health-start-period", "health-start-interval", "health-retries"} {
		asked = asked || fs.Changed(name)
	}
	if f.noHealth && asked {
		return invalid("run.health", "--no-healthcheck conflicts with --health-*", "give one of them")
	}
	req.NoHealth = f.noHealth
	if !asked {
		return nil
	}
	req.Health = &engine.HealthCheck{Interval: f.interval, Timeout: f.timeout, StartPeriod: f.startPeriod,
		StartInterval: f.startInterval, Retries: f.retries}
	if f.healthCmd != "" {
		req.Health.Test = []string{"CMD-SHELL", f.healthCmd}
	}
	return nil
}

// newKeep is what a keeper runs. It is no command for people, but harmless if
// one uses it: a second keeper of a container ends at once.
func newKeep(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "keep ID", Hidden: true, Short: "Look after a container's restarts and health", Args: exactly(1, "a container's full ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			// It mostly sleeps: what starting up took goes back at once.
			debug.SetGCPercent(50)
			signal.Ignore(unix.SIGHUP, unix.SIGINT)
			err := a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				// Not looked for, as others are: that would look after every container
				// there is, and start keepers for those that have none, this one too.
				debug.FreeOSMemory()
				return eng.Keep(cmd.Context(), args[0], eng.Probe)
			})
			if !errors.Is(err, engine.ErrReplaced) {
				return err
			}
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			return unix.Exec(exe, os.Args, os.Environ())
		},
	}
}

// startKeeper starts a keeper that outlives this command, with nothing of this
// command's but who started it.
func (a *app) startKeeper(c engine.Container) error {
	failed := func(err error) error {
		return fault.Wrap(fault.Unavailable, "run.keeper", err, "see that ward can start itself")
	}
	exe, err := os.Executable()
	if err != nil {
		return failed(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return failed(err)
	}
	defer null.Close()
	// What our caller left open would otherwise stay open for years.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return failed(err)
	}
	args := []string{"ward", "keep", c.ID}
	if a.root != "" {
		root, err := filepath.Abs(a.root)
		if err != nil {
			return failed(err)
		}
		args = []string{"ward", "--root", root, "keep", c.ID}
	}
	p, err := os.StartProcess(exe, args, &os.ProcAttr{
		Dir: "/", Files: []*os.File{null, null, null}, Sys: &syscall.SysProcAttr{Setsid: true},
		Env: append(environ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GOMAXPROCS=1"),
	})
	if err != nil {
		return failed(err)
	}
	return p.Release()
}

// environ is those of the variables that are set.
func environ(names ...string) []string {
	var out []string
	for _, n := range names {
		if v, ok := os.LookupEnv(n); ok {
			out = append(out, n+"="+v)
		}
	}
	return out
}
