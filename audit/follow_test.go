package audit

import (
	"context"
	"testing"
	"time"
)

// Follow gives every record once, those that are there and those that come.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	if err := Create(Config{Dir: dir, Host: "test"}); err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const n = 20
	go func() {
		for range n {
			if err := l.Append(context.Background(), Record{Type: KeyGenerate}); err != nil {
				t.Error(err)
			}
			time.Sleep(7 * time.Millisecond)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	next := int64(0)
	err = Follow(ctx, dir, 0, func(e Entry) error {
		if e.Index != next {
			t.Errorf("record %d, want %d", e.Index, next)
		}
		if next++; next == n+1 { // and the genesis
			cancel()
		}
		return nil
	})
	if err != nil || next != n+1 {
		t.Fatalf("%d records, %v", next, err)
	}
}
