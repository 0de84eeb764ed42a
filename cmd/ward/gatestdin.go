package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	reports "github.com/ward-project/ward/internal/ci/report"
	"github.com/ward-project/ward/internal/engine"
	"github.com/ward-project/ward/internal/fault"
)

const (
	// maxQuestion bounds a line of ward gate --stdin.
	maxQuestion = 64 << 10
	// maxAtOnce is how many questions are worked on at the same time: those
	// that are recorded together share one flush of the audit log.
	maxAtOnce = 16
)

// lineAnswer is the answer to one line.
type lineAnswer struct {
	// ID is the question's, if it had one.
	ID string `json:"id,omitempty"`
	reports.Result
}

// gateStdin answers questions until standard input ends: an image, or a JSON
// object, on each line; for each a JSON object on a line of its own, in the
// order of the questions, once the answer is on record. Trust and policy are
// read anew for every question: what is changed before a line is written
// counts for that line.
func (a *app) gateStdin(cmd *cobra.Command, f gateFlags) error {
	eng, log, err := a.engine(cmd.Context())
	if log != nil {
		defer log.Close()
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	answers := make(chan chan lineReply, maxAtOnce)
	go f.readLines(ctx, eng, cmd.InOrStdin(), answers)

	seen := map[string]bool{}
	for next := range answers {
		r := <-next
		if r.err != nil {
			return r.err // not on record, so there is no answer
		}
		b, err := json.Marshal(r.lineAnswer)
		if err != nil {
			return err
		}
		if _, err := cmd.OutOrStdout().Write(append(reports.Escaped(b), '\n')); err != nil {
			return fault.Wrap(fault.Unavailable, "gate.output", err, "whoever asks has to read the answers")
		}
		seen[r.Outcome] = true
	}
	if err := ctx.Err(); err != nil {
		return fault.Wrap(fault.Unavailable, "gate.interrupted", err, "")
	}
	var all []reports.Result
	for outcome := range seen {
		all = append(all, reports.Result{Outcome: outcome})
	}
	if code := reports.New("", all).Exit(); code != 0 {
		return exitCode(code)
	}
	return nil
}

// lineReply is an answer, or why there is none.
type lineReply struct {
	lineAnswer
	err error
}

// readLines has each line answered, and passes on the places where the answers
// will be, in order. It waits when too many are not yet there.
func (f gateFlags) readLines(ctx context.Context, eng *engine.Engine, in io.Reader, answers chan<- chan lineReply) {
	defer close(answers)
	lines := bufio.NewReaderSize(in, maxQuestion)
	for {
		line, err := lines.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		var bad error
		switch {
		case long:
			bad = badLine("a question is longer than %d bytes", maxQuestion)
			line = nil
		case errors.Is(err, io.EOF) && len(line) == 0:
			return
		case err != nil && !errors.Is(err, io.EOF):
			bad = fault.Wrap(fault.Unavailable, "gate.input", err, "ask again")
		}
		id, q, qerr := f.lineQuestion(bytes.TrimRight(line, "\r\n"))
		if bad == nil {
			bad = qerr
		}
		q.Refused = bad
		place := make(chan lineReply, 1)
		select {
		case answers <- place:
		case <-ctx.Done():
			return
		}
		go func() {
			v, err := eng.Gate(ctx, q.GateRequest)
			place <- lineReply{lineAnswer{id, q.result(v)}, err}
		}()
		for long && errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}

// lineQuestion reads a line: an image's name, or a JSON object with it.
func (f gateFlags) lineQuestion(line []byte) (id string, q question, err error) {
	image := string(line)
	if bytes.HasPrefix(line, []byte("{")) {
		image, id, err = lineObject(line)
	}
	q = f.questions([]string{image}, nil)[0]
	return id, q, err
}

// lineObject reads {"image": NAME, "id": ANYTHING}. Nothing else may be in it,
// and nothing twice: whoever asks for more than is understood must hear so.
func lineObject(line []byte) (image, id string, err error) {
	d := json.NewDecoder(bytes.NewReader(line))
	fields := map[string]*string{"image": &image, "id": &id}
	if _, err := d.Token(); err != nil {
		return "", "", badLine("it is not JSON: %v", err)
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return "", "", badLine("it is not JSON: %v", err)
		}
		name, _ := key.(string)
		into := fields[name]
		if into == nil {
			return "", "", badLine("%.64q is not known, or there twice", name)
		}
		delete(fields, name)
		value, err := d.Token()
		text, ok := value.(string)
		if err != nil || !ok {
			return "", "", badLine("%q is not a string", name)
		}
		*into = text
	}
	if _, err := d.Token(); err != nil {
		return "", "", badLine("it is not JSON: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return "", "", badLine("something follows the object")
	}
	return image, id, nil
}

func badLine(format string, args ...any) error {
	return fault.New(fault.Invalid, "gate.line", fmt.Sprintf("a line of standard input: "+format, args...),
		`write one image a line, or {"image": "NAME", "id": "WHAT COMES BACK WITH THE ANSWER"}`)
}

// stdinAlone refuses what makes no sense with --stdin.
func (f gateFlags) stdinAlone(args []string) error {
	if len(args)+len(f.files) > 0 || f.pin || f.inPlace || !slices.Equal(f.outputs, []string{"text"}) || f.vsa.wanted() {
		return usage("--stdin asks about what standard input names, and answers in lines of JSON: no images, files, --pin, --vsa or --output besides")
	}
	return nil
}
