package engine

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/ward-project/ward/internal/fault"
)

// maxID is the highest id that exists inside a container's range.
const maxID = 65535

// maxAccounts bounds how much of an image's passwd and group files is read.
const maxAccounts = 1 << 20

// identity is a process's ids inside the container.
type identity struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// lookUser turns Docker's user[:group] into ids, with the image's passwd and
// group files. All digits always mean a number: one that does not fit is an
// error and never looked up as a name (CVE-2024-40635, CVE-2026-46680).
func lookUser(spec string, passwd, group []byte) (identity, error) {
	user, grp, hasGroup := strings.Cut(spec, ":")
	id := identity{home: "/"}
	bad := func(what, s string) error {
		return fault.New(fault.Invalid, "run.user", fmt.Sprintf("user %q: %s %q", spec, what, s),
			"give --user NAME or NUMBER, with numbers from 0 to 65535")
	}
	if hasGroup && (user == "" || grp == "") {
		return id, bad("empty part in", spec)
	}
	if user == "" {
		user = "0"
	}
	name := user
	if n, isNumber, ok := number(user); isNumber {
		if !ok {
			return id, bad("no such id", user)
		}
		id.uid = n
		name = ""
		for _, f := range accounts(passwd, 7) {
			if f[2] == user {
				name, id.home = f[0], f[5]
				gid, _, ok := number(f[3])
				if !ok { // not 0: that would be root's group
					return id, bad("bad group in the image's /etc/passwd for", user)
				}
				id.gid = gid
				break
			}
		}
	} else {
		found := false
		for _, f := range accounts(passwd, 7) {
			if f[0] != user {
				continue
			}
			u, _, okU := number(f[2])
			g, _, okG := number(f[3])
			if !okU || !okG {
				return id, bad("bad entry in the image's /etc/passwd for", user)
			}
			id.uid, id.gid, id.home, found = u, g, f[5], true
			break
		}
		if !found {
			return id, bad("the image's /etc/passwd has no", user)
		}
	}
	if !hasGroup {
		id.groups = memberships(name, group)
		return id, nil
	}
	if n, isNumber, ok := number(grp); isNumber {
		if !ok {
			return id, bad("no such group id", grp)
		}
		id.gid = n
		return id, nil
	}
	for _, f := range accounts(group, 3) {
		if f[0] == grp {
			if n, _, ok := number(f[2]); ok {
				id.gid = n
				return id, nil
			}
		}
	}
	return id, bad("the image's /etc/group has no", grp)
}

// number reads an id. isNumber says whether s was meant as one.
func number(s string) (n uint32, isNumber, ok bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		// "-1" and "+1" are numbers to nobody's benefit: refuse them as such.
		signed := len(s) > 1 && (s[0] == '-' || s[0] == '+') && strings.Trim(s[1:], "0123456789") == ""
		return 0, signed, false
	}
	v, err := strconv.ParseUint(s, 10, 32)
	if err != nil || v > maxID {
		return 0, true, false
	}
	return uint32(v), true, true
}

// accounts splits a passwd or group file into entries of at least n fields.
// Malformed lines are passed over, as libc does.
func accounts(file []byte, n int) [][]string {
	var out [][]string
	sc := bufio.NewScanner(bytes.NewReader(file))
	sc.Buffer(nil, maxAccounts)
	for sc.Scan() {
		if f := strings.Split(sc.Text(), ":"); len(f) >= n && f[0] != "" {
			out = append(out, f)
		}
	}
	return out
}

func memberships(name string, group []byte) []uint32 {
	var out []uint32
	for _, f := range accounts(group, 4) {
		for _, m := range strings.Split(f[3], ",") {
			if name != "" && m == name {
				if n, _, ok := number(f[2]); ok {
					out = append(out, n)
				}
			}
		}
	}
	return out
}
