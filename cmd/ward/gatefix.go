package main

import (
	"fmt"
	"strings"

	"github.com/ward-project/ward/internal/ci/manifest"
	reports "github.com/ward-project/ward/internal/ci/report"
	"github.com/ward-project/ward/policy"
)

// inFile says how what a run's option asks for is written, or not, in a file:
// a reason's fix is about options, and nobody has typed any. By a part of the
// code, as lineFlags.
var inFile = map[string]map[string]string{
	manifest.Compose: {
		"capabilities": "take %s out of cap_add", "host-namespaces": "take network_mode out, or say none", "privilege-escalation": `say no-new-privileges:true in security_opt`,
		"host-path": "take the volume out", "devices": "take the device out of devices", "sysctls": "take the setting out of sysctls",
		"seccomp": "take seccomp out of security_opt", "limits-memory": "give a smaller mem_limit", "limits-pids": "give a smaller pids_limit", "limits-cpus": "give smaller cpus",
	},
	"k8s": {
		"capabilities": "drop ALL in securityContext.capabilities, and add no more than NET_BIND_SERVICE", "host-namespaces": "set hostNetwork to false",
		"privilege-escalation": "set securityContext.allowPrivilegeEscalation to false", "seccomp": "set securityContext.seccompProfile.type to RuntimeDefault",
		"host-path": "use another kind of volume than hostPath", "sysctls": "take the setting out of securityContext.sysctls",
		"limits-memory": "set a smaller limit in resources.limits.memory", "limits-cpus": "set a smaller limit in resources.limits.cpu",
	},
}

// fileFix is a reason's fix in the words of the file. What a grant would do
// stays as it is.
func (q question) fileFix(r policy.Reason) string {
	if q.container == nil || !strings.HasPrefix(r.Code, "baseline.") && !strings.HasPrefix(r.Code, "restricted.") {
		return r.Fix
	}
	kind := manifest.Compose
	if q.K8s != nil {
		kind = "k8s"
	}
	how := ""
	for _, lf := range lineFlags {
		if strings.Contains(r.Code, lf[0]) {
			how = inFile[kind][lf[0]]
			break
		}
	}
	if how == "" && strings.HasSuffix(r.Code, "host-path") {
		how = inFile[kind]["host-path"]
	}
	if how == "" {
		return r.Fix
	}
	if strings.Contains(how, "%s") {
		how = fmt.Sprintf(how, capabilityIn(r.Msg))
	}
	if _, grant, ok := strings.Cut(r.Fix, ", or "); ok {
		how += "; or " + grant
	}
	return how
}

// capabilityIn is the name in "capability NAME may not be added…".
func capabilityIn(msg string) string {
	rest, ok := strings.CutPrefix(msg, "capability ")
	name, _, found := strings.Cut(rest, " ")
	if !ok || !found {
		return ""
	}
	return name
}

// together makes one of the reasons that differ in the capability alone: a Pod
// that does not drop them has a dozen, and a pipeline shows only so many.
func together(rs []reports.Reason) []reports.Reason {
	var out []reports.Reason
	at := map[string]int{}
	for _, r := range rs {
		name := capabilityIn(r.Msg)
		key := fmt.Sprint(r.Code, " ", r.Line, " ", strings.Replace(r.Msg, "capability "+name+" ", "", 1))
		i, seen := at[key]
		if name == "" || !seen {
			at[key] = len(out)
			out = append(out, r)
			continue
		}
		first := capabilityIn(out[i].Msg)
		_, rest, _ := strings.Cut(out[i].Msg, "capability "+first+" ")
		out[i].Msg = "capability " + first + "," + name + " " + rest
		// Grants of several are written in one list.
		out[i].Fix = strings.Replace(out[i].Fix, `"`+first+`"]`, `"`+first+`", "`+name+`"]`, 1)
		if cut := strings.LastIndex(first, ","); cut >= 0 {
			last := first[cut+1:]
			out[i].Fix = strings.Replace(out[i].Fix, `"`+last+`"]`, `"`+last+`", "`+name+`"]`, 1)
		}
	}
	for i := range out {
		if name := capabilityIn(out[i].Msg); strings.Contains(name, ",") {
			out[i].Msg = strings.Replace(out[i].Msg, "capability "+name, "capabilities "+strings.ReplaceAll(name, ",", ", "), 1)
			out[i].Msg = strings.Replace(out[i].Msg, " is not one a ", " are not among those a ", 1)
		}
	}
	return out
}
