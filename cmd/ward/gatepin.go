package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/ward-project/ward/internal/ci/manifest"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fsx"
)

// writePinned writes the files with name:tag@digest for what was admitted. The
// digest is that of the index where there is one, so that a file stays good for
// every platform. Images that were named are written one a line.
func (f gateFlags) writePinned(w io.Writer, files []*gateFile, answers []answer) error {
	at := 0
	for ; at < len(answers) && answers[at].container == nil; at++ {
		if name := answers[at].pinned(); name != "" {
			if _, err := fmt.Fprintln(w, name); err != nil {
				return err
			}
		}
	}
	for _, g := range files {
		first := at
		at += len(g.containers)
		b, err := manifest.Pin(g.name, g.text, g.containers, g.opt, func(i int, _ manifest.Container) string { return answers[first+i].pinned() })
		if err != nil {
			return err
		}
		if err := f.writeFile(w, g.name, b); err != nil {
			return err
		}
	}
	return nil
}

// pinned is the image's name with its digest, or "" if it is not admitted.
func (a answer) pinned() string {
	if a.verdict.Outcome != engine.Allow {
		return ""
	}
	digest := a.verdict.Image.Index
	if digest == "" {
		digest = a.verdict.Image.Digest
	}
	return manifest.Pinned(a.Image, digest)
}

func (f gateFlags) writeFile(w io.Writer, name string, b []byte) error {
	if !f.inPlace {
		_, err := w.Write(b)
		return err
	}
	// The file itself, not a link to it; with the permissions it has.
	name, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	return fsx.WriteFile(name, b, st.Mode().Perm())
}
