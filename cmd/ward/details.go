package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/volume"
	"github.com/ward-project/ward/sandbox"
)

// object is a JSON object.
type object = map[string]any

// list is never null, over which templates cannot range.
func list(s []string) []string { return append([]string{}, s...) }

// containerDetails is Docker's form of a container, with the sealed plan: the
// plan is what holds, the rest is a view of it. Each field that Docker has is
// there, empty where ward has nothing of the kind: templates ask for them.
func containerDetails(ctx context.Context, eng *engine.Engine, c engine.Container) (object, error) {
	plan, encoded, err := eng.PlanToShow(c)
	if err != nil {
		return nil, err
	}
	logPath := ""
	if paths, err := eng.Outputs(c); err == nil && len(paths) > 0 {
		logPath = paths[len(paths)-1]
	}
	denied, err := eng.Denied(ctx, c)
	if err != nil {
		return nil, err
	}
	execs, err := execIDs(ctx, eng, c)
	if err != nil {
		return nil, err
	}
	var usage any
	if c.Status.Exit != nil {
		usage = c.Status.Exit.Usage
	}
	return object{
		"Id": c.ID, "Name": "/" + c.Name, "Created": c.Created.Format(time.RFC3339Nano), "Path": c.Command[0], "Args": c.Command[1:],
		"Image": c.ImageID, "Platform": "linux", "Driver": "overlay", "State": stateDetails(c), "RestartCount": c.Kept.Restarts, "ExecIDs": execs,
		"LogPath": logPath, "HostnamePath": "", "HostsPath": "", "ResolvConfPath": "", "MountLabel": "", "ProcessLabel": "", "AppArmorProfile": "",
		"Config": configDetails(c, plan), "HostConfig": hostDetails(c, plan), "Mounts": mountDetails(plan.Mounts), "NetworkSettings": networkDetails(plan.Network),
		// Ward's own.
		"ImageDigest": c.Digest, "MonitorPid": c.Status.MonitorPID, "Usage": usage, "DeniedSyscalls": append([]sandbox.DeniedSyscall{}, denied...),
		"Plan": json.RawMessage(encoded),
	}, nil
}

func stateDetails(c engine.Container) object {
	s := c.Status
	st := object{
		"Status": state(c), "Running": c.Running(), "Paused": c.Paused(), "Restarting": state(c) == restarting, "Dead": false,
		"Pid": 0, "ExitCode": 0, "OOMKilled": false, "Error": "",
		"StartedAt": s.Started.Format(time.RFC3339Nano), "FinishedAt": s.Finished.Format(time.RFC3339Nano),
	}
	if c.Running() {
		st["Pid"] = s.PID
	}
	if s.Exit != nil {
		st["ExitCode"], st["OOMKilled"], st["Error"] = s.Exit.Code, s.Exit.OOMKilled, s.Exit.Error
	}
	if c.Kept.Health != nil {
		st["Health"] = c.Kept.Health
	}
	return st
}

func configDetails(c engine.Container, plan sandbox.Plan) object {
	r := c.Request
	// What was given after the image is the command, and what is before it in
	// what runs the entrypoint.
	var entrypoint []string
	command := c.Command
	if n := len(command) - len(r.Args); len(r.Args) > 0 && n > 0 {
		entrypoint, command = command[:n], command[n:]
	} else if len(r.Args) == 0 && r.Entrypoint != nil {
		entrypoint, command = command, nil
	}
	labels := c.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	d := object{
		"Image": c.Image, "Hostname": plan.Hostname, "Domainname": plan.Domainname, "Entrypoint": list(entrypoint), "Cmd": list(command),
		"Env": plan.Process.Env, "WorkingDir": plan.Process.Cwd, "User": fmt.Sprintf("%d:%d", plan.Process.UID, plan.Process.GID), "Labels": labels,
		"StopSignal": cmp.Or(unix.SignalName(unix.Signal(c.StopSignal)), strconv.Itoa(c.StopSignal)), "Tty": plan.Process.Terminal != nil,
		"OpenStdin": plan.Process.Stdin, "StdinOnce": plan.Process.Stdin && !plan.Process.StdinOpen,
		"AttachStdin": r.Stdin && !r.Detached, "AttachStdout": !r.Detached, "AttachStderr": !r.Detached, "Volumes": object{}, "OnBuild": list(nil),
	}
	if r.StopTimeout != nil {
		d["StopTimeout"] = *r.StopTimeout
	}
	if h := r.Health; h != nil {
		d["Healthcheck"] = object{"Test": h.Test, "Interval": h.Interval, "Timeout": h.Timeout, "StartPeriod": h.StartPeriod, "StartInterval": h.StartInterval, "Retries": h.Retries}
	}
	return d
}

func hostDetails(c engine.Container, plan sandbox.Plan) object {
	r, limits := c.Request, c.Limits(plan)
	d := object{
		"Memory": limits.Memory, "MemorySwap": limits.Memory + limits.Swap, "MemoryReservation": limits.Reservation, "MemorySwappiness": nil,
		"PidsLimit": limits.PIDs, "NanoCpus": limits.CPUQuota * 1_000_000_000 / max(1, int64(limits.CPUPeriod)), "CpuQuota": limits.CPUQuota,
		"CpuPeriod": limits.CPUPeriod, "CpuShares": limits.CPUShares, "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0,
		"CpusetCpus": limits.CPUSet, "CpusetMems": limits.MemSet, "ShmSize": limits.Shm, "Ulimits": ulimits(plan),
		"OomScoreAdj": plan.Process.OOMScoreAdj, "OomKillDisable": false, "CgroupParent": "", "Cgroup": "", "CgroupnsMode": "private",
		"NetworkMode": plan.Network, "PidMode": "", "IpcMode": "private", "UTSMode": "", "UsernsMode": "private", "Isolation": "", "Runtime": "ward",
		"Privileged": false, "CapAdd": list(plan.Process.Capabilities), "CapDrop": list(r.CapDrop), "SecurityOpt": securityDetails(plan), "Sysctls": sysctls(plan),
		"GroupAdd": list(r.Groups), "ReadonlyRootfs": !plan.Root.Writable, "MaskedPaths": plan.MaskedPaths, "ReadonlyPaths": plan.ReadonlyPaths,
		"AutoRemove": c.Remove, "Init": plan.Process.Init, "RestartPolicy": object{"Name": r.Restart.String(), "MaximumRetryCount": r.Restart.Max},
		"LogConfig": logDetails(r.Log), "VolumesFrom": list(r.VolumesFrom), "VolumeDriver": "", "ContainerIDFile": "", "ConsoleSize": []int{0, 0},
		"Dns": list(plan.Resolver.Servers), "DnsSearch": list(plan.Resolver.Search), "DnsOptions": list(plan.Resolver.Options), "ExtraHosts": list(r.Hosts),
		"PortBindings": object{}, "PublishAllPorts": false, "Links": list(nil), "Landlock": plan.Landlock,
		"DeviceCgroupRules": list(nil), "DeviceRequests": list(nil),
	}
	if t := plan.Process.Terminal; t != nil {
		d["ConsoleSize"] = []uint16{t.Rows, t.Columns}
	}
	devices := []object{}
	for _, v := range plan.Devices {
		devices = append(devices, object{"PathOnHost": v.Source, "PathInContainer": v.Target, "CgroupPermissions": v.Access})
	}
	d["Devices"] = devices
	d["Binds"], d["Tmpfs"] = asFlags(plan.Mounts)
	ioDetails(d, limits)
	return d
}

// ioDetails puts the limits at devices into Docker's lists.
func ioDetails(d object, l sandbox.Limits) {
	d["BlkioWeight"], d["BlkioDevices"] = l.IOWeight, l.IO
	for key, of := range map[string]func(sandbox.IOLimits) uint64{
		"BlkioDeviceReadBps":   func(l sandbox.IOLimits) uint64 { return l.ReadBPS },
		"BlkioDeviceWriteBps":  func(l sandbox.IOLimits) uint64 { return l.WriteBPS },
		"BlkioDeviceReadIOps":  func(l sandbox.IOLimits) uint64 { return l.ReadIOPS },
		"BlkioDeviceWriteIOps": func(l sandbox.IOLimits) uint64 { return l.WriteIOPS },
		"BlkioWeightDevice":    func(l sandbox.IOLimits) uint64 { return l.Weight },
	} {
		amount := "Rate"
		if key == "BlkioWeightDevice" {
			amount = "Weight"
		}
		list := []object{}
		for _, dev := range l.IO {
			if n := of(dev); n != 0 {
				list = append(list, object{"Path": dev.Path, amount: n})
			}
		}
		d[key] = list
	}
}

// asFlags are the mounts as -v and --tmpfs would say them.
func asFlags(ms []sandbox.Mount) (binds []string, tmpfs map[string]string) {
	binds, tmpfs = []string{}, map[string]string{}
	for _, m := range ms {
		mode := ""
		if m.ReadOnly {
			mode = "ro"
		}
		switch m.Type {
		case sandbox.MountTmpfs:
			tmpfs[m.Target] = strings.Trim(mode+",size="+strconv.FormatInt(m.Size, 10), ",")
		case sandbox.MountBind:
			binds = append(binds, strings.TrimSuffix(m.Source+":"+m.Target+":"+mode, ":"))
		case sandbox.MountVolume:
			binds = append(binds, strings.TrimSuffix(m.Name+":"+m.Target+":"+mode, ":"))
		}
	}
	return binds, tmpfs
}

func securityDetails(p sandbox.Plan) []string {
	out := []string{"seccomp=" + p.Seccomp.Profile}
	if p.Process.NoNewPrivs {
		out = append(out, "no-new-privileges")
	}
	return out
}

func sysctls(p sandbox.Plan) map[string]string {
	out := map[string]string{}
	for _, s := range p.Sysctls {
		out[s.Name] = s.Value
	}
	return out
}

func logDetails(r engine.LogRequest) object {
	options := map[string]string{}
	if r.MaxSize > 0 {
		options["max-size"] = strconv.FormatInt(r.MaxSize, 10)
	}
	if r.MaxFiles > 0 {
		options["max-file"] = strconv.Itoa(r.MaxFiles)
	}
	return object{"Type": cmp.Or(r.Driver, "json-file"), "Config": options}
}

// networkDetails is what there is to say of a network that gives no addresses.
func networkDetails(n sandbox.Network) object {
	none := func() object {
		return object{"EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "",
			"GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "MacAddress": ""}
	}
	d, endpoint := none(), none()
	for k, v := range (object{"Bridge": "", "SandboxID": "", "SandboxKey": "", "Ports": object{}, "HairpinMode": false,
		"LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0, "SecondaryIPAddresses": nil, "SecondaryIPv6Addresses": nil}) {
		d[k] = v
	}
	for k, v := range (object{"IPAMConfig": nil, "Links": nil, "Aliases": nil, "NetworkID": "", "DriverOpts": nil, "DNSNames": nil}) {
		endpoint[k] = v
	}
	d["Networks"] = object{string(n): endpoint}
	return d
}

// mountDetails is Docker's form of a container's mounts. A tmpfs is among them
// too; its size is in the plan.
func mountDetails(ms []sandbox.Mount) []any {
	out := []any{}
	for _, m := range ms {
		d := object{"Type": m.Type, "Name": "", "Source": m.Source, "Destination": m.Target, "Driver": "", "Mode": "", "RW": !m.ReadOnly, "Propagation": ""}
		if m.ReadOnly {
			d["Mode"] = "ro"
		}
		switch m.Type {
		case sandbox.MountBind:
			d["Propagation"] = "rprivate"
		case sandbox.MountVolume:
			d["Name"], d["Driver"] = m.Name, volume.Local
		case sandbox.MountImage:
			d["Source"], d["Digest"] = m.Name, m.Digest
		}
		out = append(out, d)
	}
	return out
}

// ulimits are Docker's form of a plan's.
func ulimits(p sandbox.Plan) []object {
	out := []object{}
	for _, r := range p.Process.Rlimits {
		out = append(out, object{"Name": strings.ToLower(strings.TrimPrefix(r.Type, "RLIMIT_")), "Soft": r.Soft, "Hard": r.Hard})
	}
	return out
}
