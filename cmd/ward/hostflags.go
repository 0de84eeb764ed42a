package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// hostFlags are the flags of run about names, groups, kernel settings and
// devices, and about the container's own book-keeping.
type hostFlags struct {
	groups, hosts, dns, dnsSearch, dnsOption, devices, sysctls, labelFiles []string
	tcpBind, tcpConnect                                                    []string
	domainname, cidfile                                                    string
	stopTimeout                                                            int
}

func (f *hostFlags) register(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.groups, "group-add", nil, "a further `group`, by name or number")
	fs.StringArrayVar(&f.hosts, "add-host", nil, "a line of /etc/hosts: `NAME:ADDRESS`")
	fs.StringArrayVar(&f.dns, "dns", nil, "`address` of a name server")
	fs.StringArrayVar(&f.dnsSearch, "dns-search", nil, "search `domain`")
	fs.StringArrayVar(&f.dnsOption, "dns-option", nil, "resolver `option`")
	fs.StringArrayVar(&f.devices, "device", nil, "a device of the host where policy allows it: `PATH[:/dev/NAME][:rw]`")
	fs.StringArrayVar(&f.sysctls, "sysctl", nil, "a kernel setting of the container's own: `NAME=VALUE`")
	fs.StringArrayVar(&f.labelFiles, "label-file", nil, "read labels from a `file`")
	fs.StringSliceVar(&f.tcpBind, "tcp-bind", nil, "TCP `ports` that may be bound to on the host's network, or '*'")
	fs.StringSliceVar(&f.tcpConnect, "tcp-connect", nil, "TCP `ports` that may be connected to from the host's network, or '*'")
	fs.StringVar(&f.domainname, "domainname", "", "NIS domain `name` inside the container")
	fs.StringVar(&f.cidfile, "cidfile", "", "write the container's id to a new `file`")
	fs.IntVar(&f.stopTimeout, "stop-timeout", 10, "`seconds` that ward stop waits before SIGKILL")
}

func (f *hostFlags) apply(fs *pflag.FlagSet, req *engine.Request) error {
	req.Groups, req.Hosts, req.Domainname = f.groups, f.hosts, f.domainname
	req.TCPBind, req.TCPConnect = f.tcpBind, f.tcpConnect
	req.Resolver = sandbox.Resolver{Servers: f.dns, Search: f.dnsSearch, Options: f.dnsOption}
	if fs.Changed("stop-timeout") {
		req.StopTimeout = &f.stopTimeout
	}
	if len(f.sysctls) > 0 {
		req.Sysctls = map[string]string{}
	}
	for _, s := range f.sysctls {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return invalid("run.sysctl", fmt.Sprintf("--sysctl %.64q is not NAME=VALUE", s), "write it as --sysctl net.ipv4.ip_forward=1")
		}
		req.Sysctls[name] = value
	}
	for _, s := range f.devices {
		d, err := parseDevice(s)
		if err != nil {
			return err
		}
		req.Devices = append(req.Devices, d)
	}
	return f.labels(req)
}

// parseDevice reads Docker's PATH[:TARGET][:ACCESS]. Docker's access has an m
// for making device nodes, which no container here can; it is what "rwm", the
// default people write out, comes down to.
func parseDevice(s string) (engine.DeviceRequest, error) {
	bad := func() (engine.DeviceRequest, error) {
		return engine.DeviceRequest{}, invalid("run.device", fmt.Sprintf("--device %.128q is not PATH[:/dev/NAME][:rw]", s), "write it as --device /dev/fuse")
	}
	parts := strings.Split(s, ":")
	d := engine.DeviceRequest{Source: parts[0]}
	access := func(a string) bool { return a != "" && strings.Trim(a, "rwm") == "" }
	switch {
	case len(parts) == 2 && access(parts[1]):
		d.Access = parts[1]
	case len(parts) == 2:
		d.Target = parts[1]
	case len(parts) == 3 && access(parts[2]):
		d.Target, d.Access = parts[1], parts[2]
	case len(parts) != 1:
		return bad()
	}
	d.Access = strings.ReplaceAll(d.Access, "m", "")
	if d.Source == "" || d.Access == "" && strings.HasSuffix(s, ":m") {
		return bad()
	}
	if d.Access == "wr" {
		d.Access = "rw"
	}
	return d, nil
}

// labels reads the label files; what --label says is stronger.
func (f *hostFlags) labels(req *engine.Request) error {
	for _, name := range f.labelFiles {
		file, err := os.Open(name)
		if err != nil {
			return invalid("run.label-file", err.Error(), "name a readable file")
		}
		defer file.Close()
		sc := bufio.NewScanner(file)
		for n := 0; sc.Scan(); {
			line := strings.TrimLeft(sc.Text(), " \t")
			if n += len(line) + 1; n > maxEnvFile {
				return invalid("run.label-file", name+" is larger than 1 MiB", "give fewer labels")
			}
			k, v, _ := strings.Cut(line, "=")
			if k == "" || k[0] == '#' {
				continue
			}
			if _, there := req.Labels[k]; !there {
				req.Labels[k] = v
			}
		}
		if err := sc.Err(); err != nil {
			return invalid("run.label-file", name+": "+err.Error(), "name a text file with KEY=VALUE lines")
		}
	}
	return nil
}

// reserveCID makes the --cidfile before anything runs: one that is there
// already names another container. The returned function fills it, or with
// an empty id takes it away.
func (f *hostFlags) reserveCID() (func(id string) error, error) {
	if f.cidfile == "" {
		return func(string) error { return nil }, nil
	}
	file, err := os.OpenFile(f.cidfile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "run.cidfile", err, "remove the file, or name another")
	}
	return func(id string) error {
		if id == "" {
			return errors.Join(file.Close(), os.Remove(f.cidfile))
		}
		_, err := file.WriteString(id)
		return errors.Join(err, file.Close())
	}, nil
}
