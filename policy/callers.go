package policy

import (
	"encoding/json"
	"path"
)

// caller is a program that the grants document trusts to start containers
// through ward-oci.
type caller struct {
	exe       string
	uid       uint32
	bundles   string
	sharedPID bool
}

// What the bundles of a caller may be.
const (
	bundlesVerified = "verified"
	bundlesAny      = "any"
)

// readOCI reads the grants document's member "oci".
func (g *grants) readOCI(s source, v any) error {
	m, ok := v.(map[string]any)
	if !ok {
		return badGrants(s, "oci is not an object")
	}
	for _, key := range sorted(m) {
		if key != "callers" {
			return badGrants(s, "oci.%s is not callers", key)
		}
		list, ok := m[key].([]any)
		if !ok {
			return badGrants(s, "oci.callers is not a list")
		}
		for _, e := range list {
			c, err := readCaller(s, e)
			if err != nil {
				return err
			}
			g.callers = append(g.callers, c)
		}
	}
	return nil
}

func readCaller(s source, v any) (caller, error) {
	c := caller{bundles: bundlesVerified}
	m, ok := v.(map[string]any)
	if !ok {
		return c, badGrants(s, "oci.callers holds %v, not an object", v)
	}
	for _, key := range sorted(m) {
		ok := false
		switch key {
		case "exe":
			c.exe, ok = m[key].(string)
			ok = ok && path.IsAbs(c.exe) && path.Clean(c.exe) == c.exe
		case "uid":
			var n json.Number
			if n, ok = m[key].(json.Number); ok {
				i, err := n.Int64()
				ok = err == nil && i >= 0 && i < 1<<32-1
				c.uid = uint32(i)
			}
		case "bundles":
			c.bundles, ok = m[key].(string)
			ok = ok && (c.bundles == bundlesAny || c.bundles == bundlesVerified)
		case "shared_pid":
			c.sharedPID, ok = m[key].(bool)
		default:
			return c, badGrants(s, "oci.callers: %q is not exe, uid, bundles or shared_pid", key)
		}
		if !ok {
			return c, badGrants(s, `oci.callers: %s cannot be %v: exe is a clean absolute path, uid a user id, bundles "verified" or "any", shared_pid true or false`, key, m[key])
		}
	}
	if c.exe == "" {
		return c, badGrants(s, "oci.callers holds one without exe")
	}
	if _, there := m["uid"]; !there {
		return c, badGrants(s, "oci.callers: %s has no uid", c.exe)
	}
	return c, nil
}

// ociDocument is what the policies see as data.ward.grants.oci.
func (g grants) ociDocument() map[string]any {
	callers := make([]any, len(g.callers))
	for i, c := range g.callers {
		callers[i] = map[string]any{"exe": c.exe, "uid": json.Number(jsonUint(c.uid)), "bundles": c.bundles, "shared_pid": c.sharedPID}
	}
	return map[string]any{"callers": callers, "file": g.shown}
}

func jsonUint(n uint32) string {
	b, _ := json.Marshal(n)
	return string(b)
}
