package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ward-project/ward/internal/fault"
)

// defaultDetach is ctrl-p ctrl-q.
const defaultDetach = "ctrl-p,ctrl-q"

// maxConfig bounds Docker's configuration file.
const maxConfig = 1 << 20

// detachKeys are the bytes that leave a container to itself: those of the flag,
// else of detachKeys in Docker's configuration file, else ctrl-p ctrl-q.
func detachKeys(flag string) ([]byte, error) {
	if flag == "" {
		var err error
		if flag, err = configuredKeys(); err != nil {
			return nil, err
		}
	}
	if flag == "" {
		flag = defaultDetach
	}
	var keys []byte
	for _, key := range strings.Split(flag, ",") {
		b, ok := keyByte(key)
		if !ok {
			return nil, fault.New(fault.Invalid, "detach.keys", fmt.Sprintf("invalid detach keys (%.64s): %.16q is not a key", flag, key),
				"give letters or ctrl-LETTER, with commas between them")
		}
		keys = append(keys, b)
	}
	return keys, nil
}

// keyByte is what a terminal sends for a key as Docker spells it: one
// character, ctrl- and one of @ a-z [ \ ] ^ _, or DEL.
func keyByte(key string) (byte, bool) {
	if len(key) == 1 {
		return key[0], true
	}
	if strings.EqualFold(key, "DEL") {
		return 127, true
	}
	const row = `@abcdefghijklmnopqrstuvwxyz[\]^_`
	if c, ok := strings.CutPrefix(strings.ToLower(key), "ctrl-"); ok && len(c) == 1 {
		i := strings.IndexByte(row, c[0])
		return byte(i), i >= 0
	}
	return 0, false
}

func configuredKeys() (string, error) {
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", nil // nobody's home has no configuration
		}
		dir = filepath.Join(home, ".docker")
	}
	name := filepath.Join(dir, "config.json")
	st, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err == nil && (!st.Mode().IsRegular() || st.Size() > maxConfig) {
		err = errors.New(name + " is not a file of a reasonable size")
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(name)
	}
	var config struct {
		DetachKeys string `json:"detachKeys"`
	}
	if err == nil {
		err = json.Unmarshal(b, &config)
	}
	if err != nil {
		return "", fault.Wrap(fault.Invalid, "detach.config", err, "mend "+name+", or give --detach-keys")
	}
	return config.DetachKeys, nil
}

// errDetached says that somebody typed the keys.
var errDetached = errors.New("detached")

// keyReader passes a person's input on until the keys are typed: it then ends
// with errDetached. What may be their beginning is held back until it is not.
type keyReader struct {
	from       io.Reader
	keys, held []byte
	ready      []byte
	end        error
}

// Read implements io.Reader.
func (k *keyReader) Read(p []byte) (int, error) {
	for len(k.ready) == 0 {
		if k.end != nil {
			return 0, k.end
		}
		buf := make([]byte, len(p))
		n, err := k.from.Read(buf)
		for _, b := range buf[:n] {
			k.held = append(k.held, b)
			for !bytes.HasPrefix(k.keys, k.held) {
				k.ready, k.held = append(k.ready, k.held[0]), k.held[1:]
			}
			if len(k.held) == len(k.keys) {
				err = errDetached
				k.held = nil
				break
			}
		}
		if err != nil {
			k.ready, k.held, k.end = slices.Concat(k.ready, k.held), nil, err
		}
	}
	n := copy(p, k.ready)
	k.ready = k.ready[n:]
	return n, nil
}
