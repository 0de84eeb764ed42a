package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

var statsColumns = []column{
	{"CONTAINER ID", "ID"}, {"NAME", "Name"}, {"CPU %", "CPUPerc"}, {"MEM USAGE / LIMIT", "MemUsage"}, {"MEM %", "MemPerc"},
	{"NET I/O", "NetIO"}, {"BLOCK I/O", "BlockIO"}, {"PIDS", "PIDs"},
}

// statsEvery is the time between two samples, as Docker's.
const statsEvery = time.Second

func newStats(a *app) *cobra.Command {
	var all, once, noTrunc bool
	var format string
	cmd := &cobra.Command{
		Use: "stats [OPTIONS] [CONTAINER...]", Short: "Show what containers use, again every second", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(format, statsColumns); err != nil {
				return err
			}
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				s := &sampler{eng: eng, names: args, all: all, noTrunc: noTrunc, format: format, before: map[string]sandbox.Stats{}, asked: map[string]string{}}
				err := s.stream(cmd, once)
				if errors.Is(err, context.Canceled) {
					return nil // as Docker: being told to stop is no failure
				}
				return err
			})
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all", "a", false, "also those that do not run")
	fs.BoolVar(&once, "no-stream", false, "one result, then end")
	fs.BoolVar(&noTrunc, "no-trunc", false, "whole ids")
	fs.StringVar(&format, "format", "", "table, json, or a Go template")
	return cmd
}

// checkFormat refuses a template that does not parse or fit before anything is
// shown through it.
func checkFormat(format string, cols []column) error {
	r := row{}
	for _, c := range append(cols, column{"CONTAINER", "Container"}) {
		r[c.key] = ""
	}
	return listing(io.Discard, format, cols, []row{r})
}

// sampler takes samples of containers and shows the difference to the last.
type sampler struct {
	eng          *engine.Engine
	names        []string
	all, noTrunc bool
	format       string
	before       map[string]sandbox.Stats
	// asked are the names they were asked for by, by id.
	asked map[string]string
}

// stream shows a list every second until the context ends: on a terminal in
// the same place, otherwise one after the other.
func (s *sampler) stream(cmd *cobra.Command, once bool) error {
	// What a processor was used for takes two samples to say.
	if _, err := s.sample(cmd.Context()); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	screen := !once && isTerminal(out)
	for {
		select {
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		case <-time.After(statsEvery):
		}
		rows, err := s.sample(cmd.Context())
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if screen {
			b.WriteString("\033[H\033[2J") // home, and clear
		}
		if err := listing(&b, s.format, statsColumns, rows); err != nil {
			return err
		}
		if _, err := out.Write(b.Bytes()); err != nil || once {
			return err
		}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// sample looks at each container once.
func (s *sampler) sample(ctx context.Context) ([]row, error) {
	cs, err := s.containers(ctx)
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, c := range cs {
		if !c.Running() {
			if s.all || len(s.names) > 0 {
				rows = append(rows, s.row(c, nil))
			}
			continue
		}
		now, err := s.eng.Stats(ctx, c)
		if errors.Is(err, fault.NotFound) {
			delete(s.before, c.ID)
			continue // it has ended since it was listed
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, s.row(c, &now))
		s.before[c.ID] = now
	}
	return rows, nil
}

func (s *sampler) containers(ctx context.Context) ([]engine.Container, error) {
	if len(s.names) == 0 {
		return s.eng.List(ctx)
	}
	var out []engine.Container
	for _, name := range s.names {
		c, err := s.eng.Find(ctx, name)
		if err != nil {
			return nil, err
		}
		s.asked[c.ID] = name
		out = append(out, c)
	}
	return out, nil
}

// row is one line; without a sample it has what can be said of a container
// that does not run.
func (s *sampler) row(c engine.Container, now *sandbox.Stats) row {
	id := c.ID
	if !s.noTrunc {
		id = id[:12]
	}
	r := row{"Container": cmp.Or(s.asked[c.ID], id), "ID": id, "Name": c.Name, "CPUPerc": "0.00%", "MemUsage": "0B / 0B", "MemPerc": "0.00%", "NetIO": "0B / 0B", "BlockIO": "0B / 0B", "PIDs": "0"}
	if now == nil {
		return r
	}
	used := now.MemoryBytes - now.CacheBytes // as Docker: what could not be taken back at once
	r["MemUsage"] = units.BytesSize(float64(used)) + " / " + units.BytesSize(float64(now.MemoryLimit))
	if now.MemoryLimit > 0 {
		r["MemPerc"] = fmt.Sprintf("%.2f%%", float64(used)/float64(now.MemoryLimit)*100)
	}
	if before, ok := s.before[c.ID]; ok {
		r["CPUPerc"] = fmt.Sprintf("%.2f%%", cpuPercent(before, *now))
	}
	var rx, tx uint64
	for _, i := range now.Network {
		rx, tx = rx+i.RxBytes, tx+i.TxBytes
	}
	r["NetIO"] = size3(rx) + " / " + size3(tx)
	r["BlockIO"] = size3(now.Usage.ReadBytes) + " / " + size3(now.Usage.WriteBytes)
	r["PIDs"] = fmt.Sprint(now.PIDs)
	return r
}

// size3 is Docker's short form of what went over a wire: decimal, three digits.
func size3(n uint64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// cpuPercent is Docker's: a processor used all the time is 100 %. Docker
// divides by the host's processor time and multiplies by its processors, which
// is to divide by the time that passed.
func cpuPercent(before, now sandbox.Stats) float64 {
	passed := now.Time.Sub(before.Time)
	if passed <= 0 || now.Usage.CPUNanos < before.Usage.CPUNanos {
		return 0
	}
	return float64(now.Usage.CPUNanos-before.Usage.CPUNanos) / float64(passed) * 100
}
