package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
	"github.com/ward-project/ward/sandbox"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// draft is the specification of the run: the image's own settings, the
// request on top, defaults for the rest. Nothing in it depends on this host
// but the ids it looked up in the image, and what its kernel knows of Landlock.
func (e *Engine) draft(ctx context.Context, req Request, img images.Image, id, run string) (sandbox.Plan, error) {
	var none sandbox.Plan
	name := cmp.Or(req.Name, randomName(id))
	if err := checkName(name); err != nil {
		return none, err
	}
	args, err := command(req, img)
	if err != nil {
		return none, err
	}
	if err := e.rootfs.CheckRoot(ctx, img); err != nil {
		return none, err
	}
	who, err := e.lookUser(ctx, req, img)
	if err != nil {
		return none, err
	}
	caps, err := capabilities(req.CapAdd, req.CapDrop)
	if err != nil {
		return none, err
	}
	devs, err := devices(req.Devices)
	if err != nil {
		return none, err
	}
	hosts, err := hostNames(req.Hosts)
	if err != nil {
		return none, err
	}
	bounds, err := limits(req, runtime.NumCPU())
	if err != nil {
		return none, err
	}
	if err := req.Log.apply(&bounds); err != nil {
		return none, err
	}
	perProcess, err := rlimits(req)
	if err != nil {
		return none, err
	}
	host := cmp.Or(req.Hostname, id[:12])
	filter, err := filterFor(req, caps)
	if err != nil {
		return none, err
	}
	return landlocked(req, sandbox.Plan{
		Version: sandbox.PlanVersion, Build: sandbox.Build,
		Container: id, Run: run, Name: name, Hostname: host, Domainname: req.Domainname,
		Image: sandbox.Image{Reference: img.Reference, Digest: img.Digest},
		Process: sandbox.Process{
			Args: args, Env: environment(req, img, host, who.home), Cwd: path.Clean(cmp.Or(req.WorkingDir, img.Config.WorkingDir, "/")),
			UID: who.uid, GID: who.gid, Groups: who.groups,
			Capabilities: caps, NoNewPrivs: !req.AllowNewPrivs, Stdin: req.Stdin, StdinOpen: req.StdinOpen, Terminal: req.Terminal,
			Init: req.Init, Rlimits: perProcess, OOMScoreAdj: req.OOMScoreAdj,
		},
		Root:          sandbox.Root{Writable: req.Writable},
		Mounts:        req.Mounts,
		Network:       cmp.Or(req.Network, sandbox.NetworkNone),
		Limits:        bounds,
		Seccomp:       filter,
		Sysctls:       sysctls(req.Sysctls),
		Devices:       devs,
		Hosts:         hosts,
		Resolver:      req.Resolver,
		MaskedPaths:   sandbox.MaskedPaths(),
		ReadonlyPaths: sandbox.ReadonlyPaths(),
	})
}

// landlocked adds what the request and this kernel say of Landlock.
func landlocked(req Request, p sandbox.Plan) (sandbox.Plan, error) {
	// Before policy is asked: it would deny ports that mean nothing.
	if err := sandbox.CheckTCPPorts(p.Network, req.TCPBind, req.TCPConnect); err != nil {
		return sandbox.Plan{}, err
	}
	p.Landlock.TCPBind, p.Landlock.TCPConnect = req.TCPBind, req.TCPConnect
	return p.Landlocked(sandbox.LandlockABI(), req.LandlockOff), nil
}

// seal turns an allowed draft into the plan: a place and ids of its own, layers
// unpacked, and the floor under it.
func (e *Engine) seal(ctx context.Context, a *attempt, draft sandbox.Plan) (*slot, []byte, error) {
	req, img := a.req, a.img
	sig, err := stopSignal(cmp.Or(req.StopSignal, img.Config.StopSignal, "TERM"))
	if err != nil {
		return nil, nil, err
	}
	// Before the layers are looked at: from here on the image is in use, and
	// nobody removes them.
	var s *slot
	if a.again != nil {
		s, err = e.reopen(a.again, a.run, a.byHand)
	} else {
		req.Name = draft.Name
		if req.Health, err = e.lookedAfter(req, img); err != nil {
			return nil, nil, err
		}
		s, err = e.reserve(ctx, Container{
			ID: draft.Container, Name: draft.Name, Created: time.Now().UTC(), Image: req.Image, Reference: img.Reference,
			Digest: img.Digest, ImageID: img.ID, Command: draft.Process.Args, Labels: req.Labels, Network: draft.Network,
			StopSignal: int(sig), Remove: req.Remove, Request: req,
		})
	}
	if err != nil {
		return nil, nil, err
	}
	encoded, err := e.fill(ctx, s, a, draft)
	if err != nil {
		return nil, nil, errors.Join(err, s.abandon())
	}
	return s, encoded, nil
}

// fill completes the plan, makes what it needs, and keeps it.
func (e *Engine) fill(ctx context.Context, s *slot, a *attempt, plan sandbox.Plan) ([]byte, error) {
	plan, encoded, err := e.complete(ctx, s, a, plan)
	if err != nil {
		return nil, err
	}
	if err := e.ensureVolumes(ctx, a, s, plan); err != nil {
		return nil, err
	}
	s.plan = plan
	// For people to read; the launcher gets its own, sealed.
	return encoded, fsx.ReplaceFile(filepath.Join(s.dir, planFile), encoded, 0o600)
}

// complete adds to the plan what is only known in its place, checks it against
// the floor, and encodes it.
func (e *Engine) complete(ctx context.Context, s *slot, a *attempt, plan sandbox.Plan) (sandbox.Plan, []byte, error) {
	img := a.img
	dirs, err := e.rootfs.Unpack(ctx, img)
	if err != nil {
		return plan, nil, err
	}
	if plan.Root.Layers, err = layers(img, dirs); err != nil {
		return plan, nil, err
	}
	plan.Start = s.start
	plan.IDMap = sandbox.IDMap{Base: s.container.IDBase, Size: sandbox.IDRange}
	plan.Host = sandbox.Host{ContainerDir: s.dir, RuntimeDir: s.runtime, AuditDir: e.layout.Audit(), Keep: e.layout.own()}
	if err := e.placeMounts(ctx, a, &plan); err != nil {
		return plan, nil, err
	}
	if err := e.floor.Check(plan); err != nil {
		return plan, nil, err
	}
	encoded, err := plan.Encode()
	return plan, encoded, err
}

// layers names each unpacked directory. A layer that comes twice is unpacked
// once, where it comes last (images.Store.Unpack).
func layers(img images.Image, dirs []string) ([]sandbox.Layer, error) {
	var out []sandbox.Layer
	for i, l := range img.Layers {
		if slices.ContainsFunc(img.Layers[i+1:], func(o images.Layer) bool { return o.DiffID == l.DiffID }) {
			continue
		}
		if len(out) == len(dirs) {
			return nil, fault.New(fault.Internal, "seal.layers", "fewer layers were unpacked than the image has", "")
		}
		out = append(out, sandbox.Layer{DiffID: l.DiffID, Path: dirs[len(out)]})
	}
	if len(out) != len(dirs) {
		return nil, fault.New(fault.Internal, "seal.layers", "more layers were unpacked than the image has", "")
	}
	return out, nil
}

// command is the entry point and its arguments, as Docker composes them.
func command(req Request, img images.Image) ([]string, error) {
	entry, args := img.Config.Entrypoint, req.Args
	if req.Entrypoint != nil {
		// An entry point of one's own also drops the image's arguments.
		entry = req.Entrypoint
	} else if len(args) == 0 {
		args = img.Config.Cmd
	}
	all := slices.Concat(entry, args)
	if len(all) == 0 || all[0] == "" {
		return nil, fault.New(fault.Invalid, "run.command", "no command: the image names none and neither does the request", "put a command after the image")
	}
	return all, nil
}

func (e *Engine) lookUser(ctx context.Context, req Request, img images.Image) (identity, error) {
	passwd, err := e.accountFile(ctx, img, "/etc/passwd")
	if err != nil {
		return identity{}, err
	}
	group, err := e.accountFile(ctx, img, "/etc/group")
	if err != nil {
		return identity{}, err
	}
	who, err := lookUser(cmp.Or(req.User, img.Config.User), passwd, group)
	if err == nil {
		who.groups, err = groupAdd(who.groups, req.Groups, group)
	}
	return who, err
}

// accountFile reads a passwd or group file; an image may have none.
func (e *Engine) accountFile(ctx context.Context, img images.Image, name string) ([]byte, error) {
	b, err := e.rootfs.File(ctx, img, name, maxAccounts)
	if errors.Is(err, fault.NotFound) {
		return nil, nil
	}
	return b, err
}

// environment is the image's, then the request's, then what must be there.
func environment(req Request, img images.Image, host, home string) []string {
	var out []string
	at := map[string]int{}
	set := func(kv string, replace bool) {
		k, _, _ := strings.Cut(kv, "=")
		if i, ok := at[k]; ok {
			if replace {
				out[i] = kv
			}
			return
		}
		at[k] = len(out)
		out = append(out, kv)
	}
	for _, kv := range img.Config.Env {
		set(kv, true)
	}
	for _, kv := range req.Env {
		set(kv, true)
	}
	set(defaultPath, false)
	set("HOSTNAME="+host, false)
	set("HOME="+home, false)
	if req.Terminal != nil {
		set("TERM=xterm", false) // as Docker
	}
	return out
}

func envNames(env []string) []string {
	names := make([]string, len(env))
	for i, kv := range env {
		names[i], _, _ = strings.Cut(kv, "=")
	}
	return names
}

// capabilities starts from none: there is nothing to drop but what was added.
func capabilities(add, drop []string) ([]string, error) {
	set := map[string]bool{}
	all := sandbox.Capabilities()
	for i, list := range [][]string{add, drop} {
		for _, c := range list {
			c = strings.ToUpper(c)
			if c == "ALL" {
				for _, k := range all {
					set[k] = i == 0
				}
				continue
			}
			c = "CAP_" + strings.TrimPrefix(c, "CAP_")
			if !slices.Contains(all, c) {
				return nil, fault.New(fault.Invalid, "run.capability", fmt.Sprintf("%.64q is not a capability", c), "see capabilities(7)")
			}
			set[c] = i == 0
		}
	}
	maps.DeleteFunc(set, func(_ string, on bool) bool { return !on })
	return slices.Sorted(maps.Keys(set)), nil
}
