package verify

import (
	"reflect"
	"time"
)

// SetClock has d read another clock.
func (d *Directory) SetClock(now func() time.Time) { d.now = now }

// MarkKept makes the answers that are kept tell themselves from fresh ones,
// and returns how many there are.
func (d *Directory) MarkKept() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	for q, k := range d.kept {
		k.evidence.policies = []string{"kept"}
		d.kept[q] = k
	}
	return len(d.kept)
}

// SameQuestion says whether two questions would share an answer.
func SameQuestion(s Subject, a, b Material) bool {
	return asked("t", s, []Material{a}) == asked("t", s, []Material{b})
}

// MaterialFields is the number of things a Material says.
var MaterialFields = reflect.TypeFor[Material]().NumField()
