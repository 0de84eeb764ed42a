package main

import (
	"fmt"
	"strings"

	reports "github.com/ward-project/ward/internal/ci/report"
	"github.com/ward-project/ward/policy"
)

// inFile says how what a run's option asks for is written, or not, in a file:
// a reason's fix is about options, and nobody has typed any. About is a part of
// the code, as in lineFlags; "" is nothing better than the option. (No map: each
// start of ward would make it.)
func inFile(k8s bool, about string) string {
	compose, pod := "", ""
	switch about {
	case "capabilities":
		compose, pod = "take %s out of cap_add", "drop ALL in securityContext.capabilities, and add no more than NET_BIND_SERVICE"
	case "host-namespaces":
		compose, pod = "take network_mode out, or say none", "set hostNetwork to false"
	case "privilege-escalation":
		compose, pod = "say no-new-privileges:true in security_opt", "set securityContext.allowPrivilegeEscalation to false"
	case "seccomp":
		compose, pod = "take seccomp out of security_opt", "set securityContext.seccompProfile.type to RuntimeDefault"
	case "host-path":
		compose, pod = "take the volume out", "use another kind of volume than hostPath"
	case "devices":
		compose = "take the device out of devices"
	case "sysctls":
		compose, pod = "take the setting out of sysctls", "take the setting out of securityContext.sysctls"
	case "limits-memory":
		compose, pod = "give a smaller mem_limit", "set a smaller limit in resources.limits.memory"
	case "limits-pids":
		compose = "give a smaller pids_limit"
	case "limits-cpus":
		compose, pod = "give smaller cpus", "set a smaller limit in resources.limits.cpu"
	}
	if k8s {
		return pod
	}
	return compose
}

// fileFix is a reason's fix in the words of the file. What a grant would do
// stays as it is.
func (q question) fileFix(r policy.Reason) string {
	if q.container == nil || !strings.HasPrefix(r.Code, "baseline.") && !strings.HasPrefix(r.Code, "restricted.") {
		return r.Fix
	}
	how := ""
	for _, lf := range lineFlags {
		if strings.Contains(r.Code, lf[0]) {
			how = inFile(q.K8s != nil, lf[0])
			break
		}
	}
	if how == "" && strings.HasSuffix(r.Code, "host-path") {
		how = inFile(q.K8s != nil, "host-path")
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
