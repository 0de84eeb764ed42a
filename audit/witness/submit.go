package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/ward-project/ward/audit/receipt"
	"github.com/ward-project/ward/internal/fault"
)

const (
	// patience is how long a witness has to answer.
	patience = 10 * time.Second
	// maxAnswer bounds what it says.
	maxAnswer = 8 << 10
	// RuleConflict is the rule of a refusal that means: the witness has seen
	// another log under this one's name.
	RuleConflict = "witness.conflict"
)

// ErrShorter is a Proof's answer if the log has fewer records than old.
var ErrShorter = errors.New("the log has fewer records")

// Proof is the body of an add-checkpoint request for a witness that has seen
// old records.
type Proof func(old int64) ([]byte, error)

// Update submits the newest checkpoint to w and keeps what it signs in dir. Its
// error is Unavailable if the witness could not be asked or would not answer,
// and has RuleConflict if it knows more records than there are, or others: then
// this log was cut, rewritten, or is used twice.
func (w Witness) Update(ctx context.Context, dir string, log note.Verifier, proof Proof) (Cosigned, error) {
	last, _, err := w.last(dir, log)
	if err != nil {
		return Cosigned{}, fault.Wrap(fault.Invalid, "witness.kept", err, "move the file away if you know why it does not verify")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	c, known, err := w.submit(ctx, last.Size, log, proof)
	if known != nil {
		// It has seen more than is kept here, or has forgotten what it saw.
		c, known, err = w.submit(ctx, *known, log, proof)
		if known != nil {
			err = w.unavailable(fmt.Errorf("it has %d records now", *known))
		}
	}
	if err != nil {
		return Cosigned{}, err
	}
	if err := w.keep(ctx, dir, log, c); err != nil {
		return Cosigned{}, fault.Wrap(fault.Unavailable, "witness.kept", err, "make the directory writable, and ask again")
	}
	return c, nil
}

func (w Witness) unavailable(err error) error {
	return fault.Wrap(fault.Unavailable, "witness.unavailable", fmt.Errorf("witness %s: %w", w.Name, err),
		"ask again later; nothing is lost by waiting but the witness's word on the newest records")
}

func (w Witness) conflict(cause string) error {
	return fault.New(fault.Unverified, RuleConflict, fmt.Sprintf("witness %s: %s", w.Name, cause),
		"this log was cut or rewritten, or two hosts write one log: compare it with a copy, and keep both")
}

// submit asks once. known is not nil if the witness has another size than old.
func (w Witness) submit(ctx context.Context, old int64, log note.Verifier, proof Proof) (c Cosigned, known *int64, err error) {
	body, err := proof(old)
	if errors.Is(err, ErrShorter) {
		return c, nil, w.conflict(fmt.Sprintf("it has signed %d records of this log, which has fewer", old))
	}
	if err != nil {
		return c, nil, err
	}
	_, signed, ok := bytes.Cut(body, []byte("\n\n"))
	if !ok {
		return c, nil, errors.New("no checkpoint in the request")
	}
	_, size, _, err := receipt.ParseCheckpoint(string(signed))
	if err != nil {
		return c, nil, err
	}
	status, answer, err := w.post(ctx, body)
	if err != nil {
		return c, nil, w.unavailable(err)
	}
	switch status {
	case http.StatusOK:
	case http.StatusConflict:
		n, err := strconv.ParseInt(strings.TrimSpace(string(answer)), 10, 64)
		if err != nil || n < 0 || n == old {
			return c, nil, w.unavailable(fmt.Errorf("it has another size than %d, and says not which", old))
		}
		if n > size {
			return c, nil, w.conflict(fmt.Sprintf("it has seen %d records of this log, which has %d", n, size))
		}
		return c, &n, nil
	case http.StatusUnprocessableEntity:
		return c, nil, w.conflict(fmt.Sprintf("the first %d records are not those that it has seen", old))
	default:
		return c, nil, w.unavailable(fmt.Errorf("it answers %d %q", status, clip(strings.TrimSpace(string(answer)))))
	}
	// Of the lines it sent only its own counts, and is kept.
	for line := range strings.Lines(string(answer)) {
		if !strings.HasPrefix(line, "— "+w.key.Name()+" ") {
			continue
		}
		if c, err = w.open(append(bytes.Clone(signed), line...), log); err == nil {
			return c, nil, nil
		}
	}
	if err == nil {
		err = errors.New("its answer bears no signature by its key")
	}
	return c, nil, w.unavailable(err)
}

// client follows nobody elsewhere, and keeps no connection.
var client = &http.Client{
	Timeout:       patience,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (w Witness) post(ctx context.Context, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL+"/add-checkpoint", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Close = true
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, b, err
}
