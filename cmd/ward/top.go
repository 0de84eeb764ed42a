package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-project/ward/internal/engine"
)

func newTop(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "top CONTAINER [ps OPTIONS]", Short: "List the processes of a container", Args: atLeast(1, "a CONTAINER"),
		// What follows the container is ps's.
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			for args[0] == "--" && len(args) > 1 {
				args = args[1:]
			}
			if args[0] == "--help" || args[0] == "-h" {
				return cmd.Help()
			}
			if strings.HasPrefix(args[0], "-") {
				return usage("a CONTAINER comes first, then options of ps")
			}
			cols, err := psOptions(args[1:])
			if err != nil {
				return err
			}
			return a.withEngine(cmd.Context(), func(eng *engine.Engine) error {
				c, err := eng.Find(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				pids, err := eng.Processes(cmd.Context(), c)
				if err != nil {
					return err
				}
				var rows []row
				for _, pid := range pids {
					if p, ok := readProcess(pid); ok {
						rows = append(rows, p.row(cols))
					}
				}
				return table(cmd.OutOrStdout(), cols, rows)
			})
		},
	}
}

// psFields are the columns of ps that are known here, by ps's names.
var psFields = map[string]string{
	"uid": "UID", "euid": "UID", "user": "USER", "gid": "GID", "pid": "PID", "ppid": "PPID", "pgid": "PGID", "sid": "SID",
	"c": "C", "pcpu": "%CPU", "%cpu": "%CPU", "pmem": "%MEM", "%mem": "%MEM", "vsz": "VSZ", "rss": "RSS", "tty": "TT", "tt": "TT",
	"stat": "STAT", "s": "S", "state": "S", "start": "STARTED", "stime": "STIME", "time": "TIME", "cputime": "TIME", "etime": "ELAPSED",
	"ni": "NI", "nice": "NI", "pri": "PRI", "nlwp": "NLWP", "thcount": "NLWP", "wchan": "WCHAN", "comm": "COMMAND", "ucmd": "CMD",
	"args": "COMMAND", "cmd": "CMD", "command": "COMMAND",
}

// The sets of columns that ps has names for.
var (
	psDefault = psColumnsOf("uid pid ppid c stime tty=TTY time cmd")
	psAux     = psColumnsOf("user pid pcpu pmem vsz rss tty=TTY stat stime=START time args")
	psLong    = psColumnsOf("s uid pid ppid c pri ni vsz=SZ wchan tty=TTY time cmd")
)

func psColumnsOf(list string) []column {
	var out []column
	for f := range strings.FieldsSeq(list) {
		name, header, renamed := strings.Cut(f, "=")
		if !renamed {
			header = psFields[name]
		}
		out = append(out, column{header, name})
	}
	return out
}

// psOptions reads the options of ps that choose columns. ps itself is not run:
// it would be the host's, over the host's processes. What is not known is
// refused by name.
func psOptions(args []string) ([]column, error) {
	var chosen []column
	for i := 0; i < len(args); i++ {
		arg := args[i]
		list, isList := "", false
		switch {
		case arg == "-o" || arg == "o" || arg == "-eo" || arg == "--format":
			if i++; i == len(args) {
				return nil, usage("ps option %s needs a list of columns", arg)
			}
			list, isList = args[i], true
		case strings.HasPrefix(arg, "-eo"), strings.HasPrefix(arg, "-o"):
			list, isList = strings.TrimPrefix(strings.TrimPrefix(arg, "-e"), "-")[1:], true
			if strings.HasPrefix(arg, "-eo") {
				list = arg[3:]
			}
		case strings.HasPrefix(arg, "--format="):
			list, isList = strings.TrimPrefix(arg, "--format="), true
		}
		if isList {
			cols, err := psList(list)
			if err != nil {
				return nil, err
			}
			chosen = append(chosen, cols...)
			continue
		}
		switch strings.TrimPrefix(arg, "-") {
		case "ef", "f", "e", "A", "ax", "x", "a", "w", "ww", "efww":
			// Every process of the container is shown anyway.
		case "aux", "u", "auxw", "auxww", "axu":
			chosen = slices.Clone(psAux)
		case "l", "el", "efl", "fl":
			chosen = slices.Clone(psLong)
		default:
			return nil, invalid("top.option", fmt.Sprintf("ps option %.64q is not known here", arg), "use -ef, aux, -l, or -o with a list of columns")
		}
	}
	if len(chosen) == 0 {
		chosen = slices.Clone(psDefault)
	}
	return chosen, nil
}

func psList(list string) ([]column, error) {
	var out []column
	for item := range strings.SplitSeq(list, ",") {
		name, header, renamed := strings.Cut(strings.TrimSpace(item), "=")
		known, ok := psFields[strings.ToLower(name)]
		if !ok {
			return nil, invalid("top.column", fmt.Sprintf("ps column %.64q is not known here", name), "use "+strings.Join(slices.Sorted(keysOf(psFields)), " "))
		}
		if !renamed {
			header = known
		}
		out = append(out, column{header, strings.ToLower(name)})
	}
	return out, nil
}

func keysOf(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
