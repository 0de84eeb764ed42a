package main

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strings"

	reports "github.com/ward-project/ward/internal/ci/report"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
)

// checkOutputs refuses forms that are not there, and two of them on one stream.
func (f gateFlags) checkOutputs() error {
	places := map[string]bool{}
	for _, o := range f.outputs {
		form, file, named := strings.Cut(o, "=")
		if !slices.Contains(reports.Formats(), form) {
			return usage("--output %.32q is not there: use %s", form, strings.Join(reports.Formats(), ", "))
		}
		if named && file == "" {
			return usage("--output %s= names no file", form)
		}
		// A report is renamed into its place: /dev/stdout would be gone after it.
		if st, err := os.Lstat(file); err == nil && !st.Mode().IsRegular() {
			return usage("--output %s=%.200s: that is no regular file", form, file)
		}
		if places[file] {
			return usage("two of --output go to the same place: give one of them a file, --output %s=FILE", form)
		}
		places[file] = true
	}
	return nil
}

// write writes the one report in every form that was asked for: asking twice
// could get two answers. A file is there whole or not at all. Unless a form
// goes to out, that is text.
func (f gateFlags) write(out io.Writer, r reports.Report) error {
	said := false
	for _, o := range f.outputs {
		form, file, named := strings.Cut(o, "=")
		if !named {
			said = true
			if err := reports.Write(out, form, r); err != nil {
				return err
			}
			continue
		}
		var b bytes.Buffer
		if err := reports.Write(&b, form, r); err != nil {
			return err
		}
		if err := fsx.ReplaceFile(file, b.Bytes(), 0o644); err != nil {
			return fault.Wrap(fault.Invalid, "ci.output", err, "name a file in a directory that may be written in")
		}
	}
	if said {
		return nil
	}
	return reports.Write(out, "text", r)
}
