package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/audit/export"
)

// exports says how the destinations of the log stand. One that fails makes no
// host unfit: runs do not wait for it.
func exports(_ context.Context, cfg ExamineConfig) []Check {
	list, err := export.List(cfg.Layout.Audit())
	if errors.Is(err, audit.ErrNoLog) || errors.Is(err, fs.ErrPermission) {
		return nil // the log's own check says so
	}
	if err != nil {
		return []Check{{Name: "log export", Status: Note, Found: err.Error(), Remedy: "see ward audit export status"}}
	}
	var cs []Check
	for _, s := range list {
		c := Check{Name: "log export", Status: Good, Found: fmt.Sprintf("%s to %s, %d records behind", s.Name, s.To, s.Lag)}
		switch {
		case s.Error != "":
			c.Status, c.Found = Note, c.Found+": "+s.Error
			c.Remedy = "mend the receiver; nothing is skipped, and runs do not wait for it"
		case !s.Running && s.Lag > 0:
			c.Status, c.Found = Note, c.Found+", and no exporter runs"
			c.Remedy = "start ward audit export --follow, or ward audit export forget " + s.Name
		}
		cs = append(cs, c)
	}
	return cs
}
