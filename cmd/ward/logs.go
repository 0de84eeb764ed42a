package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/internal/engine"
)

func newLogs(a *app) *cobra.Command {
	var f logFlags
	cmd := &cobra.Command{
		Use: "logs [OPTIONS] CONTAINER", Short: "Print what a container wrote", Args: exactly(1, "a CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				c, err := eng.Find(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return f.print(cmd, eng, c)
			})
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.follow, "follow", "f", false, "go on until the container ends")
	fs.BoolVarP(&f.timestamps, "timestamps", "t", false, "begin each line with its time")
	fs.BoolVar(&f.details, "details", false, "begin each line with what its log driver keeps besides; ours keep nothing, as Docker's without options")
	fs.StringVarP(&f.tail, "tail", "n", "all", "only the last `n` lines")
	fs.StringVar(&f.since, "since", "", "output after this time (RFC 3339, or a duration ago)")
	fs.StringVar(&f.until, "until", "", "output before this time (RFC 3339, or a duration ago)")
	return cmd
}

type logFlags struct {
	follow, timestamps, details bool
	tail, since, until          string
}

func (f *logFlags) print(cmd *cobra.Command, eng *engine.Engine, c engine.Container) error {
	since, err := parseTime(f.since, time.Time{})
	if err != nil {
		return err
	}
	until, err := parseTime(f.until, time.Unix(1<<40, 0))
	if err != nil {
		return err
	}
	paths, err := eng.Outputs(c)
	if err != nil {
		return err
	}
	skip := 0
	if f.tail != "all" && f.tail != "-1" { // as Docker has it
		n, err := strconv.Atoi(f.tail)
		if err != nil || n < 0 {
			return invalid("logs.tail", fmt.Sprintf("--tail %.32q is not a number of lines", f.tail), "give a number, or all")
		}
		for _, p := range paths {
			lines, err := countLines(p, since, until)
			if err != nil {
				return err
			}
			skip += lines
		}
		skip = max(skip-n, 0)
	}
	w := &lineWriter{timestamps: f.timestamps, details: f.details, skip: skip}
	for i, p := range paths {
		// Only the last start's can grow.
		if err := f.printOne(cmd, eng, c, p, i == len(paths)-1, w, since, until); err != nil {
			return err
		}
	}
	return nil
}

// printOne prints the output of one start.
func (f *logFlags) printOne(cmd *cobra.Command, eng *engine.Engine, c engine.Container, path string, last bool, w *lineWriter, since, until time.Time) error {
	r, err := audit.OpenOutput(path)
	if err != nil {
		return invalid("logs.missing", "container "+c.Name+" has no output: "+err.Error(), "")
	}
	defer r.Close()
	for {
		chunk, err := r.Next()
		if errors.Is(err, io.EOF) && !last {
			return nil
		}
		if err != nil {
			more, err := f.atEnd(cmd.Context(), eng, c, err)
			if !more || err != nil {
				return err
			}
			continue
		}
		if chunk.Time.Before(since) || chunk.Time.After(until) {
			continue
		}
		out := cmd.OutOrStdout()
		if chunk.Stream == audit.Stderr {
			out = cmd.ErrOrStderr()
		}
		if err := w.write(out, chunk); err != nil {
			return err
		}
	}
}

// atEnd says whether to read on where the reader stopped with why: yes while
// the container that is followed lives, or has just ended.
func (f *logFlags) atEnd(ctx context.Context, eng *engine.Engine, c engine.Container, why error) (bool, error) {
	var d *audit.Damage
	torn := errors.As(why, &d) && d.Class == audit.ClassTorn
	if !errors.Is(why, io.EOF) && !torn {
		return false, why
	}
	live, err := eng.Find(ctx, c.ID)
	if err != nil {
		return false, err
	}
	if !live.Running() {
		if torn {
			return false, why
		}
		// Anything written before it ended has been read by now only if it
		// had ended before the last look; the caller looks once more.
		if f.follow {
			f.follow = false
			return true, nil
		}
		return false, nil
	}
	if !f.follow {
		return false, nil
	}
	select {
	case <-ctx.Done():
		return false, nil
	case <-time.After(100 * time.Millisecond):
		return true, nil
	}
}

// lineWriter writes chunks exactly as they came, or line by line with times.
type lineWriter struct {
	timestamps, details bool
	// skip is how many lines to pass over first.
	skip    int
	midline bool
}

func (l *lineWriter) write(w io.Writer, c audit.Chunk) error {
	data := c.Data
	for l.skip > 0 && len(data) > 0 {
		i := indexLine(data)
		if i == len(data) && data[i-1] != '\n' {
			return nil
		}
		data = data[i:]
		l.skip--
	}
	if !l.timestamps && !l.details {
		_, err := w.Write(data)
		return err
	}
	for len(data) > 0 {
		i := indexLine(data)
		if !l.midline {
			before := ""
			if l.timestamps {
				before = c.Time.UTC().Format(time.RFC3339Nano) + " "
			}
			if l.details {
				before += " "
			}
			if _, err := io.WriteString(w, before); err != nil {
				return err
			}
		}
		if _, err := w.Write(data[:i]); err != nil {
			return err
		}
		l.midline = data[i-1] != '\n'
		data = data[i:]
	}
	return nil
}

// indexLine is the length of the first line of data with its newline.
func indexLine(data []byte) int {
	for i, b := range data {
		if b == '\n' {
			return i + 1
		}
	}
	return len(data)
}

func countLines(path string, since, until time.Time) (int, error) {
	n, open := 0, false
	err := audit.ReadOutput(path, func(c audit.Chunk) error {
		if c.Time.Before(since) || c.Time.After(until) {
			return nil
		}
		for data := c.Data; len(data) > 0; {
			i := indexLine(data)
			if !open {
				n++
			}
			open = data[i-1] != '\n'
			data = data[i:]
		}
		return nil
	})
	var d *audit.Damage
	if errors.As(err, &d) && d.Class == audit.ClassTorn {
		err = nil // the last chunk is being written
	}
	return n, err
}

// parseTime reads Docker's forms of a moment: RFC 3339, seconds since 1970,
// or a duration before now.
func parseTime(s string, unset time.Time) (time.Time, error) {
	if s == "" {
		return unset, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil && n >= 0 && n < 1<<40 {
		return time.Unix(0, int64(n*1e9)), nil
	}
	return unset, invalid("time", fmt.Sprintf("%.64q is not a time", s), "give RFC 3339, seconds since 1970, or a duration such as 10m")
}
