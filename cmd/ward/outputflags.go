package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"github.com/ward-project/ward/internal/engine"
)

// outputFlags are the flags of run about how much output is kept.
type outputFlags struct {
	driver string
	opts   []string
}

func (f *outputFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.driver, "log-driver", "json-file", "how much output is kept: `json-file|local|none`")
	fs.StringArrayVar(&f.opts, "log-opt", nil, "`max-size=BYTES` of a file and max-file=N of them, the newest are kept")
}

func (f *outputFlags) apply(req *engine.Request) error {
	req.Log.Driver = f.driver
	for _, o := range f.opts {
		k, v, _ := strings.Cut(o, "=")
		var err error
		switch k {
		case "max-size":
			req.Log.MaxSize, err = units.FromHumanSize(v)
			if err == nil && req.Log.MaxSize <= 0 {
				err = errors.New("not a finite size")
			}
		case "max-file":
			req.Log.MaxFiles, err = strconv.Atoi(v)
			if err == nil && req.Log.MaxFiles <= 0 {
				err = errors.New("not a number of files")
			}
		default:
			return invalid("run.log-opt", fmt.Sprintf("--log-opt %.64q is not there yet", k), "use max-size and max-file")
		}
		if err != nil {
			return invalid("run.log-opt", fmt.Sprintf("--log-opt %.64q: %v", o, err), "write it as max-size=10m, max-file=3")
		}
	}
	return nil
}
