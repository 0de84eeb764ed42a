package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ward-project/ward/internal/fault"
)

// order is which of two bundles of a name is newer. Those of different kinds
// cannot be compared.
type order struct {
	kind string // "serial", "version" or "time"
	at   []int64
}

// versionForm are numbers with dots or dashes between, with or without a v:
// 17, v1.4.2, 2026-11-28.2.
var versionForm = regexp.MustCompile(`^v?[0-9]{1,18}([.-][0-9]{1,18}){0,7}$`)

// orderOf reads the order out of a manifest: the serial counts if there is one.
func orderOf(revision string, serial int64) (order, error) {
	if len(revision) > 256 || plain(revision) != revision {
		return order{}, errors.New("its revision is too long, or not text")
	}
	if serial > 0 {
		return order{"serial", []int64{serial}}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, revision); err == nil {
		return order{"time", []int64{t.Unix(), int64(t.Nanosecond())}}, nil
	}
	if !versionForm.MatchString(revision) {
		return order{}, fmt.Errorf("revision %q has no order: make it a number, numbers with dots, or a time (opa build --revision), or give it metadata.serial", revision)
	}
	o := order{kind: "version"}
	for _, part := range strings.FieldsFunc(strings.TrimPrefix(revision, "v"), func(r rune) bool { return r == '.' || r == '-' }) {
		n, err := strconv.ParseInt(part, 10, 64)
		if err != nil {
			return order{}, err
		}
		o.at = append(o.at, n)
	}
	for len(o.at) > 1 && o.at[len(o.at)-1] == 0 { // 1.0 is 1
		o.at = o.at[:len(o.at)-1]
	}
	return o, nil
}

func serialOf(v any) (int64, bool) {
	if v == nil {
		return 0, true
	}
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	i, err := strconv.ParseInt(n.String(), 10, 64)
	return i, err == nil && i > 0
}

// Newest are the newest bundles that have decided, by name. A bundle that is
// older, or not there any more, is refused: whoever can put an old policy back,
// or take one away, must not be able to undo what it forbids.
type Newest map[string]Bundle

// Check compares the bundles in force with the newest, and returns those that
// are newer.
func (n Newest) Check(in []Bundle) (newer []Bundle, err error) {
	there := map[string]bool{}
	for _, b := range in {
		there[b.Name] = true
		seen, known := n[b.Name]
		if !known {
			newer = append(newer, b)
			continue
		}
		if b.Digest == seen.Digest {
			continue
		}
		was, err := orderOf(seen.Revision, seen.Serial)
		if err != nil {
			return nil, rolledBack(b, seen, "of which nothing is known to be newer")
		}
		now, err := orderOf(b.Revision, b.Serial)
		switch {
		case err != nil || now.kind != was.kind:
			return nil, rolledBack(b, seen, "with which it cannot be compared")
		case slices.Compare(now.at, was.at) < 0:
			return nil, rolledBack(b, seen, "which is newer")
		case slices.Compare(now.at, was.at) == 0:
			return nil, rolledBack(b, seen, "which has the same revision and another content")
		}
		newer = append(newer, b)
	}
	for _, name := range sorted(n) {
		if !there[name] {
			return nil, fault.New(fault.Denied, "policy.bundle-gone", fmt.Sprintf("policy bundle %s (revision %s) was in force, and is not there any more", name, n[name].label()),
				"put it back, or give it up on purpose: ward policy bundle rm --unsafe "+name)
		}
	}
	return newer, nil
}

func rolledBack(b, seen Bundle, why string) error {
	return fault.New(fault.Denied, "policy.bundle-rollback",
		fmt.Sprintf("policy bundle %s is of revision %s (%s); revision %s (%s) has decided here, %s", b.Name, b.label(), short(b.Digest), seen.label(), short(seen.Digest), why),
		"install a bundle of a higher revision, or go back on purpose: ward policy bundle install --unsafe-rollback FILE")
}

// label is the revision, with the serial that orders it.
func (b Bundle) label() string {
	if b.Serial > 0 {
		return fmt.Sprintf("%s, serial %d", orNone(b.Revision), b.Serial)
	}
	return orNone(b.Revision)
}
