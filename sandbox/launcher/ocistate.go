package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/utils"

	"github.com/ward-project/ward/sandbox"
)

// containerState is what state and list print, with runc's names.
type containerState struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	PID         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func stateOf(ct *libcontainer.Container) (containerState, error) {
	status, err := ct.Status()
	if err != nil {
		return containerState{}, err
	}
	state, err := ct.State()
	if err != nil {
		return containerState{}, err
	}
	s := containerState{Version: state.Config.Version, ID: state.ID, PID: state.InitProcessPid, Status: status.String(),
		Rootfs: state.Config.Rootfs, Created: state.Created}
	if status == libcontainer.Stopped {
		s.PID = 0
	}
	s.Bundle, s.Annotations = utils.Annotations(state.Config.Labels)
	return s, nil
}

func ociState(ct *libcontainer.Container) error {
	s, err := stateOf(ct)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(b)
	return err
}

func ociList(r sandbox.OCIRequest) error {
	all, err := listOCI(r.Root)
	if err != nil {
		return err
	}
	if r.Quiet {
		for _, s := range all {
			fmt.Println(s.ID)
		}
		return nil
	}
	if r.Format == "json" {
		return json.NewEncoder(os.Stdout).Encode(all)
	}
	w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
	fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
	for _, s := range all {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.PID, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
	}
	return w.Flush()
}

func listOCI(root string) ([]containerState, error) {
	es, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []containerState
	for _, e := range es {
		if !e.IsDir() {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted while we looked
		}
		if err != nil {
			return nil, err
		}
		ct, err := loadOCI(root, e.Name())
		if err != nil {
			fmt.Fprintf(os.Stderr, "load container %s: %v\n", e.Name(), err)
			continue
		}
		s, err := stateOf(ct)
		if err != nil {
			fmt.Fprintf(os.Stderr, "state for %s: %v\n", e.Name(), err)
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			s.Owner = "#" + strconv.Itoa(int(st.Uid))
			if u, err := user.LookupId(strconv.Itoa(int(st.Uid))); err == nil {
				s.Owner = u.Username
			}
		}
		all = append(all, s)
	}
	return all, nil
}

// ociPs prints the container's processes: their numbers, or ps(1)'s lines
// about them.
func ociPs(ct *libcontainer.Container, r sandbox.OCIRequest) error {
	pids, err := ct.Processes()
	if err != nil {
		return err
	}
	if r.Format == "json" {
		return json.NewEncoder(os.Stdout).Encode(pids)
	}
	args := r.Args
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	ps, err := psPath()
	if err != nil {
		return err
	}
	out, err := exec.Command(ps, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return errors.New("couldn't find PID field in ps output")
	}
	fmt.Println(lines[0])
	for _, l := range lines[1:] {
		f := strings.Fields(l)
		if len(f) <= column {
			continue
		}
		if n, err := strconv.Atoi(f[column]); err == nil && slices.Contains(pids, n) {
			fmt.Println(l)
		}
	}
	return nil
}

// psPath finds ps where the system keeps it: who sets PATH does not choose
// what runs as root.
func psPath() (string, error) {
	for _, dir := range []string{"/usr/bin", "/bin"} {
		if st, err := os.Stat(filepath.Join(dir, "ps")); err == nil && st.Mode().IsRegular() {
			return filepath.Join(dir, "ps"), nil
		}
	}
	return "", errors.New(`exec: "ps": executable file not found in $PATH`)
}
