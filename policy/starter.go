package policy

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
)

// starter is a policy directory to begin with: it allows and denies what no
// directory at all does.
//
//go:embed starter
var starter embed.FS

// Init writes a commented policy directory into dir, and returns the files it
// made. It overwrites nothing: where anything is that Open would read, or that
// has the name of one of its files, it writes nothing at all.
func Init(dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fault.Wrap(fault.Invalid, "policy.init", err, "name a directory that you may write in")
	}
	es, err := os.ReadDir(dir)
	if err != nil {
		return nil, unreadable(dir, err)
	}
	files, err := starter.ReadDir("starter")
	if err != nil {
		return nil, err
	}
	ours := map[string]bool{}
	for _, f := range files {
		ours[f.Name()] = true
	}
	for _, e := range es {
		if !ignored(e.Name()) || ours[e.Name()] {
			return nil, fault.New(fault.Invalid, "policy.init", fmt.Sprintf("there is a policy in %s already: %s", dir, e.Name()), "name an empty directory; nothing is ever overwritten")
		}
	}
	var made []string
	for _, f := range files {
		text, err := starter.ReadFile("starter/" + f.Name())
		if err != nil {
			return made, err
		}
		path := filepath.Join(dir, f.Name())
		// Each file is a whole policy with those before it.
		if err := fsx.CreateFile(path, text, 0o644); errors.Is(err, fs.ErrExist) {
			return made, fault.New(fault.Invalid, "policy.init", path+" was made by somebody else meanwhile", "look at what is there")
		} else if err != nil {
			return made, fault.Wrap(fault.Invalid, "policy.init", err, "name a directory that you may write in")
		}
		made = append(made, path)
	}
	return made, nil
}
