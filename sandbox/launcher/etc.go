package launcher

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ward-project/ward/sandbox"
)

// etcNames are the files every container has in /etc, read-only.
var etcNames = []string{"hosts", "hostname", "resolv.conf"}

// maxResolv bounds the copy of the host's resolver configuration.
const maxResolv = 64 << 10

// writeEtc makes those files on the scratch.
func writeEtc(p sandbox.Plan, s *scratch) error {
	resolv := []byte("# this container has no network\n")
	if p.Network == sandbox.NetworkHost {
		var err error
		if resolv, err = hostResolv(); err != nil {
			return err
		}
	}
	for name, content := range map[string][]byte{
		"hosts":       fmt.Appendf(nil, "127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", p.Hostname),
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
