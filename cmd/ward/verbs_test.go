package main

import "testing"

// A name that is not the command's own would make it unreachable.
func TestVerbsAreCalledWhatTheyAre(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range verbs() {
		cmd := v.make(&app{})
		if cmd.Name() != v.name {
			t.Errorf("the command %q is listed as %q", cmd.Name(), v.name)
		}
		for _, name := range append(cmd.Aliases, v.name) {
			if seen[name] {
				t.Errorf("%q is two commands", name)
			}
			seen[name] = true
		}
		if got := commands(&app{}, []string{v.name, "x"}); len(got) != 1 || got[0].Name() != v.name {
			t.Errorf("%s: %d commands are made", v.name, len(got))
		}
	}
}

func TestAskedFor(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, ""},
		{[]string{"run", "--rm", "image", "ps"}, "run"},
		{[]string{"--root", "run", "ps"}, "ps"},
		{[]string{"--root=run", "ps"}, "ps"},
		{[]string{"--root"}, ""},
		{[]string{"--help"}, ""},
		{[]string{"-x", "run"}, ""},
		{[]string{"--", "run"}, ""},
	} {
		if got := askedFor(c.args); got != c.want {
			t.Errorf("%q: %q, want %q", c.args, got, c.want)
		}
	}
	for _, args := range [][]string{nil, {"--help"}, {"help", "run"}, {"nonsense"}} {
		if got := commands(&app{}, args); len(got) != len(verbs()) {
			t.Errorf("%q makes %d commands, not all", args, len(got))
		}
	}
}
