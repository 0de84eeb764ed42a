package launcher

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ward-project/ward/sandbox"
)

// etcNames are the files every container has in /etc, read-only.
var etcNames = []string{"hosts", "hostname", "resolv.conf"}

// maxResolv bounds the copy of the host's resolver configuration.
const maxResolv = 64 << 10

// writeEtc makes those files on the scratch.
func writeEtc(p sandbox.Plan, s *scratch) error {
	resolv, err := resolvConf(p)
	if err != nil {
		return err
	}
	hosts := fmt.Appendf(nil, "127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", p.Hostname)
	for _, h := range p.Hosts {
		hosts = fmt.Appendf(hosts, "%s\t%s\n", h.Address, h.Name)
	}
	for name, content := range map[string][]byte{
		"hosts":       hosts,
		"hostname":    []byte(p.Hostname + "\n"),
		"resolv.conf": resolv,
	} {
		f, err := os.OpenFile(s.path("etc", name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = f.Write(content)
		if err == nil {
			err = f.Chmod(0o644)
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// resolvConf is what the plan asks for. The host's own is for the host's
// network alone: elsewhere its servers may not be reachable, nor meant to be.
func resolvConf(p sandbox.Plan) ([]byte, error) {
	r := p.Resolver
	var out []byte
	switch {
	case len(r.Servers)+len(r.Search)+len(r.Options) > 0:
	case p.Network == sandbox.NetworkHost:
		return hostResolv()
	default:
		return []byte("# this container has no network\n"), nil
	}
	if len(r.Search) > 0 {
		out = fmt.Appendf(out, "search %s\n", strings.Join(r.Search, " "))
	}
	for _, s := range r.Servers {
		out = fmt.Appendf(out, "nameserver %s\n", s)
	}
	if len(r.Options) > 0 {
		out = fmt.Appendf(out, "options %s\n", strings.Join(r.Options, " "))
	}
	return out, nil
}

func hostResolv() ([]byte, error) {
	f, err := os.Open("/etc/resolv.conf")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxResolv))
}
