package profile

import "sync"

// CallName is the kernel's name of system call nr of this architecture.
func CallName(nr int) (string, bool) {
	if nr < 0 || nr >= len(callNames) || callNames[nr] == "" {
		return "", false
	}
	return callNames[nr], true
}

// CallNumber is the reverse of CallName. A name that this architecture does
// not have, or that is newer than this build, has no number.
func CallNumber(name string) (int, bool) {
	nr, ok := callNumbers()[name]
	return nr, ok
}

var callNumbers = sync.OnceValue(func() map[string]int {
	m := make(map[string]int, len(callNames))
	for nr, name := range callNames {
		if name != "" {
			m[name] = nr
		}
	}
	return m
})
