package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ward-project/ward/sandbox"
)

// usesWeights reports whether any weight is asked for.
func usesWeights(l sandbox.Limits) bool {
	for _, d := range l.IO {
		if d.Weight > 0 {
			return true
		}
	}
	return l.IOWeight > 0
}

// weighs refuses weights that nothing would act on. The files for them are
// there as soon as the kernel knows a scheduler that could; it has to be in
// use at a disk too.
func weighs(l sandbox.Limits) error {
	if !usesWeights(l) {
		return nil
	}
	queues, err := filepath.Glob("/sys/block/*/queue/scheduler")
	if err != nil {
		return err
	}
	using := false
	for _, q := range queues {
		b, err := os.ReadFile(q)
		using = using || err == nil && strings.Contains(string(b), "[bfq]")
	}
	if !using {
		return notApplied("an I/O weight has no effect here: no disk has the bfq scheduler")
	}
	return nil
}

// checkIO reads back the limits of version 1's blkio controller.
func checkIO(dir string, l sandbox.Limits) error {
	all := weighs(l)
	if all == nil && usesWeights(l) {
		all = errors.Join(exactly(filepath.Join(dir, "blkio.bfq.weight"), int64(l.IOWeight)),
			rates(filepath.Join(dir, "blkio.bfq.weight_device"), l, func(d sandbox.IOLimits) uint64 { return d.Weight }))
	}
	for name, of := range map[string]func(sandbox.IOLimits) uint64{
		"read_bps":   func(d sandbox.IOLimits) uint64 { return d.ReadBPS },
		"write_bps":  func(d sandbox.IOLimits) uint64 { return d.WriteBPS },
		"read_iops":  func(d sandbox.IOLimits) uint64 { return d.ReadIOPS },
		"write_iops": func(d sandbox.IOLimits) uint64 { return d.WriteIOPS },
	} {
		all = errors.Join(all, rates(filepath.Join(dir, "blkio.throttle."+name+"_device"), l, of))
	}
	return all
}

// rates refuses unless the file has a line "major:minor rate" for each device
// that is to have one.
func rates(file string, l sandbox.Limits, of func(sandbox.IOLimits) uint64) error {
	for _, d := range l.IO {
		want := of(d)
		if want == 0 {
			continue
		}
		content, err := text(file)
		if err != nil {
			return err
		}
		if have, ok := rate(content, d, ""); !ok || have != want {
			return notApplied(fmt.Sprintf("%s has no rate of %d for %s", filepath.Base(file), want, d.Path))
		}
	}
	return nil
}

// rate finds a device's line and in it the number after key=, or without a key
// the number alone.
func rate(content string, d sandbox.IOLimits, key string) (uint64, bool) {
	device := fmt.Sprintf("%d:%d", d.Major, d.Minor)
	for line := range strings.Lines(content) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != device {
			continue
		}
		for _, w := range words[1:] {
			value, ok := w, key == ""
			if key != "" {
				value, ok = strings.CutPrefix(w, key+"=")
			}
			if ok {
				n, err := strconv.ParseUint(value, 10, 64)
				return n, err == nil
			}
		}
	}
	return 0, false
}

// checkIOUnified reads back version 2's io.max and weights.
func checkIOUnified(dir string, l sandbox.Limits) error {
	all := weighs(l)
	if all == nil && usesWeights(l) {
		all = weightsUnified(dir, l)
	}
	for _, d := range l.IO {
		for key, want := range map[string]uint64{"rbps": d.ReadBPS, "wbps": d.WriteBPS, "riops": d.ReadIOPS, "wiops": d.WriteIOPS} {
			if want == 0 {
				continue
			}
			content, err := text(filepath.Join(dir, "io.max"))
			if have, ok := rate(content, d, key); err == nil && (!ok || have != want) {
				err = notApplied(fmt.Sprintf("io.max has no %s=%d for %s", key, want, d.Path))
			}
			all = errors.Join(all, err)
		}
	}
	return all
}

func weightsUnified(dir string, l sandbox.Limits) error {
	file := filepath.Join(dir, "io.bfq.weight") // "default 100", then "8:0 200"
	content, err := text(file)
	if err != nil {
		return err
	}
	if l.IOWeight > 0 && !strings.Contains(content+"\n", fmt.Sprintf("default %d\n", l.IOWeight)) && content != strconv.FormatUint(l.IOWeight, 10) {
		return notApplied(fmt.Sprintf("io.bfq.weight is %q and must be %d", content, l.IOWeight))
	}
	return rates(file, l, func(d sandbox.IOLimits) uint64 { return d.Weight })
}
