package policy

import (
	"fmt"
	"strconv"
)

// readPorts reads a list of TCP ports; "*" is all of them.
func readPorts(s source, key string, v any) ([]string, error) {
	l, ok := v.([]any)
	if !ok {
		return nil, badGrants(s, "%s is not a list", key)
	}
	out := []string{}
	for _, e := range l {
		port, err := strconv.ParseUint(fmt.Sprint(e), 10, 16) // a number, or one in quotes
		switch {
		case e == "*":
			out = append(out, "*")
		case err != nil:
			return nil, badGrants(s, `%s: %v is not the number of a port, or "*" for all`, key, e)
		default:
			out = append(out, strconv.FormatUint(port, 10))
		}
	}
	return out, nil
}
