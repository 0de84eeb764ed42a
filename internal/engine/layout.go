package engine

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/ward-project/ward/internal/fault"
)

// Layout says where one ward keeps its things. Two layouts that share no
// directory share nothing at all.
type Layout struct {
	// Lib is durable state, Run is state that a reboot may forget, Etc is what
	// people configure.
	Lib, Run, Etc string
}

// NewLayout returns the layout below root; with an empty root the system's
// (/var/lib/ward, /run/ward, /etc/ward) for uid 0 and the XDG directories for
// anybody else.
func NewLayout(root string) (Layout, error) {
	if root != "" {
		abs, err := filepath.Abs(root)
		if err != nil {
			return Layout{}, fault.Wrap(fault.Invalid, "root.path", err, "give --root an absolute path")
		}
		return Layout{filepath.Join(abs, "lib"), filepath.Join(abs, "run"), filepath.Join(abs, "etc")}, nil
	}
	if os.Geteuid() == 0 {
		return Layout{"/var/lib/ward", "/run/ward", "/etc/ward"}, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return Layout{}, fault.Wrap(fault.Invalid, "root.home", err, "set HOME, or give --root DIR")
	}
	xdg := func(env, fallback string) string {
		if d := os.Getenv(env); filepath.IsAbs(d) {
			return filepath.Join(d, "ward")
		}
		return filepath.Join(home, fallback, "ward")
	}
	run := fmt.Sprintf("/tmp/ward-%d", os.Geteuid())
	if d := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(d) {
		run = filepath.Join(d, "ward")
	}
	return Layout{xdg("XDG_DATA_HOME", ".local/share"), run, xdg("XDG_CONFIG_HOME", ".config")}, nil
}

// Images is the image store.
func (l Layout) Images() string { return filepath.Join(l.Lib, "images") }

// Audit is the audit log.
func (l Layout) Audit() string { return filepath.Join(l.Lib, "audit") }

// Volumes holds the named volumes.
func (l Layout) Volumes() string { return filepath.Join(l.Lib, "volumes") }

// Trust holds the trust policies, one YAML file each.
func (l Layout) Trust() string { return filepath.Join(l.Etc, "trust.d") }

// Policy holds the user's own Rego and data documents.
func (l Layout) Policy() string { return filepath.Join(l.Etc, "policy.d") }

// own are the directories that are all ward's.
func (l Layout) own() []string { return []string{l.Lib, l.Run, l.Etc} }

func (l Layout) containers() string         { return filepath.Join(l.Lib, "containers") }
func (l Layout) container(id string) string { return filepath.Join(l.Lib, "containers", id) }

// runtime is short on purpose: a unix socket's path is at most 107 bytes.
func (l Layout) runtime(id string) string { return filepath.Join(l.Run, "c", id[:12]) }

// make creates the directories the engine itself writes in. None is readable
// by others: output, environment and plans are the owner's.
func (l Layout) make() error {
	for _, d := range []string{l.Lib, l.Run, filepath.Join(l.Run, "c"), l.containers()} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return fault.Wrap(fault.Invalid, "root.create", err, "give --root a directory you may write in")
		}
	}
	return nil
}
