package export

import (
	"fmt"
	"strings"
)

// cef writes e in the Common Event Format, version 0, as one line. Header
// fields and extensions have escapes of their own; everything that could end
// the line is replaced.
func cef(e *Event, whole bool) []byte {
	var b strings.Builder
	// OCSF's 1 to 4 in CEF's bands: low, medium, high, very high.
	severity := []int{0, 2, 4, 7, 9}[e.severity()]
	fmt.Fprintf(&b, "CEF:0|ward|ward|%d|%s|%s|%d|", 1, cefHeader(string(e.Type)), cefHeader(clip(e.message(), 500)), severity)
	outcome := "success"
	if e.failed() {
		outcome = "failure"
	}
	fields := []string{
		"rt", decimal(e.Time.UnixMilli()), "externalId", e.ID, "dvchost", e.Host, "cat", string(e.Type), "outcome", outcome, "act", e.Decision, "reason", e.Cause,
		"suid", decimal(int64(e.Actor.UID)), "spid", decimal(int64(e.Actor.PID)), "sproc", e.Actor.Exe,
		"cs1", e.Run, "cs2", e.Image.Reference, "cs3", e.Image.Digest, "cs4", e.Rule, "cs5", e.LeafHash, "cs6", e.Class,
		"cn1", decimal(e.Index), "cn2", decimal(e.TreeSize), "cn3", decimal(int64(e.Actor.LoginUID)),
		"flexString1", e.Name, "flexString2", e.container(), "fileHash", e.Plan,
	}
	if e.PID > 0 {
		fields = append(fields, "dpid", decimal(int64(e.PID)))
	}
	labels := map[string]string{
		"cs1": "run", "cs2": "image", "cs3": "imageDigest", "cs4": "rule", "cs5": "leafHash", "cs6": "class",
		"cn1": "index", "cn2": "treeSize", "cn3": "loginuid", "flexString1": "name", "flexString2": "container",
	}
	if whole {
		raw := string(e.Leaf)
		if !e.verbatim() {
			raw = string(base64JSON(e.Leaf))
		}
		fields = append(fields, "msg", raw)
	} else {
		fields = append(fields, "fsize", decimal(int64(len(e.Leaf))))
	}
	sep := ""
	for i := 0; i < len(fields); i += 2 {
		k, v := fields[i], fields[i+1]
		if v == "" {
			continue
		}
		b.WriteString(sep + k + "=" + cefValue(v))
		sep = " "
		if l := labels[k]; l != "" {
			b.WriteString(" " + k + "Label=" + l)
		}
	}
	return []byte(b.String())
}

func cefHeader(s string) string {
	return strings.NewReplacer(`\`, `\\`, `|`, `\|`).Replace(plain(s))
}

func cefValue(s string) string {
	return strings.NewReplacer(`\`, `\\`, `=`, `\=`).Replace(plain(s))
}
