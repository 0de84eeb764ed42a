package fault_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/ward-project/ward/internal/fault"
)

func TestClassSurvivesWrapping(t *testing.T) {
	err := fmt.Errorf("run busybox: %w", fault.New(fault.Denied, "caps.add", "capability SYS_ADMIN is not allowed", "drop it"))
	if !errors.Is(err, fault.Denied) || errors.Is(err, fault.Unverified) {
		t.Fatalf("class lost: %v", err)
	}
	if got := fault.ClassOf(fmt.Errorf("x: %w", fault.NotFound)); got != fault.NotFound {
		t.Fatalf("ClassOf = %v", got)
	}
	if got := fault.ClassOf(errors.New("boom")); got != fault.Internal {
		t.Fatalf("an unclassified error must be internal, got %v", got)
	}
}

func TestWrapKeepsTheInnerRefusal(t *testing.T) {
	inner := fault.New(fault.Unavailable, "registry.down", "registry did not answer", "try again")
	err := fault.Wrap(fault.Unverified, "trust.unsigned", fmt.Errorf("verify: %w", inner), "sign it")
	if err.Class != fault.Unavailable || err.Rule != "registry.down" {
		t.Fatalf("a registry that is down became %v/%s", err.Class, err.Rule)
	}
}

func TestWireForm(t *testing.T) {
	b, err := json.Marshal(fault.New(fault.Unrecorded, "audit.full", "no space", "free some"))
	if err != nil {
		t.Fatal(err)
	}
	var got fault.Error
	if err := json.Unmarshal(b, &got); err != nil || got.Class != fault.Unrecorded || got.Remedy != "free some" {
		t.Fatalf("%s -> %+v, %v", b, got, err)
	}
	if err := json.Unmarshal([]byte(`{"class":"fine","cause":"x"}`), &got); err == nil {
		t.Fatal("an unknown class was accepted")
	}
}

func TestGateExit(t *testing.T) {
	for class, want := range map[fault.Class]int{
		fault.Internal: 3, fault.Invalid: 2, fault.NotFound: 2, fault.Unverified: 1,
		fault.Denied: 1, fault.Unrecorded: 3, fault.Unavailable: 3,
	} {
		if got := fault.GateExit(fault.New(class, "", "x", "")); got != want {
			t.Errorf("%v: exit %d, want %d", class, got, want)
		}
	}
	if fault.GateExit(nil) != 0 {
		t.Error("no error must be 0")
	}
}
