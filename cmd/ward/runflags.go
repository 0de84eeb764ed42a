package main

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// runFlags are Docker's flags of run, spelled as Docker spells them. Those
// that are not here are refused by name (flagError), never ignored.
type runFlags struct {
	mountFlags

	name, hostname, user, workdir, entrypoint, network, pull, stopSignal string
	env, envFiles, labels                                                []string
	capAdd, capDrop, securityOpt                                         []string
	readOnly, init, interactive, detach, remove, offline                 bool
	host                                                                 hostFlags
	keep                                                                 keepFlags
	output                                                               outputFlags
	streams                                                              attachFlags
	bounds                                                               limitFlags
}

func (f *runFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	// What follows the image belongs to the container.
	fs.SetInterspersed(false)
	fs.Bool("help", false, "print this help") // without -h, which is --hostname
	fs.StringVar(&f.name, "name", "", "name the container")
	fs.StringVarP(&f.hostname, "hostname", "h", "", "host `name` inside the container")
	fs.StringVarP(&f.user, "user", "u", "", "`user[:group]`, names or numbers")
	fs.StringVarP(&f.workdir, "workdir", "w", "", "working `directory` inside the container")
	fs.StringVar(&f.entrypoint, "entrypoint", "", "replace the image's entry point")
	fs.StringVar(&f.network, "network", "none", "none, or host where policy allows it")
	fs.StringVar(&f.network, "net", "none", "same as --network")
	fs.StringVar(&f.pull, "pull", "missing", "ask a registry: missing, always or never")
	fs.BoolVar(&f.offline, "offline", false, "ask no registry and no other service: the same as --pull never")
	fs.StringVar(&f.stopSignal, "stop-signal", "", "`signal` that ward stop sends")
	fs.StringArrayVarP(&f.env, "env", "e", nil, "set `NAME=VALUE`, or pass NAME on")
	fs.StringArrayVar(&f.envFiles, "env-file", nil, "read variables from a `file`")
	fs.StringArrayVarP(&f.labels, "label", "l", nil, "label the container `KEY=VALUE`")
	f.mountFlags.register(fs)
	fs.StringArrayVar(&f.capAdd, "cap-add", nil, "ask for a capability")
	fs.StringArrayVar(&f.capDrop, "cap-drop", nil, "give up a capability")
	fs.StringArrayVar(&f.securityOpt, "security-opt", nil, "no-new-privileges, seccomp=default, seccomp=`FILE` in Docker's form, or landlock=off")
	fs.BoolVar(&f.readOnly, "read-only", true, "read-only root file system; =false asks for a writable one")
	fs.BoolVar(&f.init, "init", false, "run a small init first, which passes signals on and collects orphaned processes")
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "pass standard input on")
	fs.BoolVarP(&f.detach, "detach", "d", false, "run in the background and print the id")
	fs.BoolVar(&f.remove, "rm", false, "remove the container when it has ended")
	f.host.register(fs)
	f.keep.register(fs)
	f.output.register(fs)
	f.streams.registerRun(fs)
	f.bounds.register(fs)
	f.bounds.registerFixed(fs)
}

func (f *runFlags) request(fs *pflag.FlagSet, args []string) (engine.Request, error) {
	req := engine.Request{
		Actor: audit.Caller(), Image: args[0], Args: args[1:], Pull: engine.PullPolicy(f.pull),
		Name: f.name, Hostname: f.hostname, User: f.user, WorkingDir: f.workdir, StopSignal: f.stopSignal,
		CapAdd: f.capAdd, CapDrop: f.capDrop, Writable: !f.readOnly,
		Network: sandbox.Network(f.network), Stdin: f.interactive, Init: f.init, Remove: f.remove, Detached: f.detach,
	}
	if fs.Changed("entrypoint") {
		req.Entrypoint = []string{}
		if f.entrypoint != "" {
			req.Entrypoint = []string{f.entrypoint}
		}
	}
	if f.offline && fs.Changed("pull") && req.Pull != engine.PullNever {
		return req, usage("--offline and --pull %.16s contradict each other", f.pull)
	}
	if f.offline {
		req.Pull = engine.PullNever
	}
	if !slices.Contains([]engine.PullPolicy{engine.PullMissing, engine.PullAlways, engine.PullNever}, req.Pull) {
		return req, invalid("run.pull", "--pull "+f.pull+" is not known", "use missing, always or never")
	}
	for _, step := range []func(*engine.Request) error{
		func(r *engine.Request) error { return f.bounds.apply(fs, &r.Resources) }, f.environment, f.networkMode, f.labelMap, f.security, f.allMounts,
		func(r *engine.Request) error { return f.host.apply(fs, r) }, func(r *engine.Request) error { return f.keep.apply(fs, r) }, f.output.apply, f.streams.apply,
	} {
		if err := step(&req); err != nil {
			return req, err
		}
	}
	return req, nil
}

func invalid(rule, cause, remedy string) error { return fault.New(fault.Invalid, rule, cause, remedy) }

// maxEnvFile bounds what an --env-file may hold.
const maxEnvFile = 1 << 20

func (f *runFlags) environment(req *engine.Request) error {
	add := func(kv string) error {
		k, _, ok := strings.Cut(kv, "=")
		if k == "" || strings.ContainsRune(kv, 0) {
			return invalid("run.env", fmt.Sprintf("%.64q is not NAME=VALUE", kv), "")
		}
		if !ok {
			v, set := os.LookupEnv(k)
			if !set {
				return nil // as Docker: a name the caller does not have is left out
			}
			kv = k + "=" + v
		}
		req.Env = append(req.Env, kv)
		return nil
	}
	for _, name := range f.envFiles {
		file, err := os.Open(name)
		if err != nil {
			return invalid("run.env-file", err.Error(), "name a readable file")
		}
		defer file.Close()
		sc := bufio.NewScanner(file)
		sc.Buffer(nil, maxEnvFile)
		for n := 0; sc.Scan(); {
			line := strings.TrimLeft(sc.Text(), " \t")
			if n += len(line); n > maxEnvFile {
				return invalid("run.env-file", name+" is larger than 1 MiB", "")
			}
			if line == "" || line[0] == '#' {
				continue
			}
			if err := add(line); err != nil {
				return err
			}
		}
		if err := sc.Err(); err != nil {
			return invalid("run.env-file", name+": "+err.Error(), "")
		}
	}
	for _, kv := range f.env {
		if err := add(kv); err != nil {
			return err
		}
	}
	return nil
}

func (f *runFlags) networkMode(req *engine.Request) error {
	if req.Network != sandbox.NetworkNone && req.Network != sandbox.NetworkHost {
		return invalid("run.network", fmt.Sprintf("--network %.64q is not there yet", string(req.Network)), "use none, or host where policy allows it")
	}
	return nil
}

func (f *runFlags) labelMap(req *engine.Request) error {
	req.Labels = map[string]string{}
	for _, l := range f.labels {
		k, v, _ := strings.Cut(l, "=")
		if k == "" {
			return invalid("run.label", fmt.Sprintf("%.64q is not KEY=VALUE", l), "")
		}
		req.Labels[k] = v
	}
	return nil
}

func (f *runFlags) security(req *engine.Request) error {
	for _, o := range f.securityOpt {
		// Docker takes both "key=value" and the older "key:value".
		k, v, _ := strings.Cut(strings.Replace(o, ":", "=", 1), "=")
		switch {
		case k == "no-new-privileges" && (v == "" || v == "true"):
			req.AllowNewPrivs = false
		case k == "no-new-privileges" && v == "false":
			req.AllowNewPrivs = true
		case k == "landlock" && v == "off":
			req.LandlockOff = true
		case k == "seccomp" && (v == "default" || v == "builtin" || v == "unconfined"):
			if req.Seccomp = v; v == "builtin" {
				req.Seccomp = "default"
			}
			req.SeccompFile = nil
		case k == "seccomp" && v != "":
			b, err := readProfile(v)
			if err != nil {
				return err
			}
			req.Seccomp, req.SeccompFile = v, b
		default:
			return invalid("run.security-opt", fmt.Sprintf("--security-opt %.64q is not there yet", o), "use no-new-privileges, seccomp=default, seccomp=FILE or landlock=off")
		}
	}
	return nil
}
