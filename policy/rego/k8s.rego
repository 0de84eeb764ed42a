# What is asked of a Pod beyond what is asked of a run: the Kubernetes Pod
# Security Standards' controls of things that no run of ward's own can ask for.
# The decision is that of point "run" and these on top.
package ward.k8s

deny contains reason("k8s.input", "the policy input lacks something the policy has to see", "use a ward and a policy of the same version") if not complete

complete := [
	input.k8s.privileged, input.k8s.host_network, input.k8s.host_pid, input.k8s.host_ipc, input.k8s.host_process,
	input.k8s.host_ports, input.k8s.probe_hosts, input.k8s.proc_mount, input.k8s.volume_types, input.k8s.run_as_non_root, input.k8s.run_as_root,
	input.unmapped,
]

# What a Pod asks for and ward cannot judge is not ignored.
deny contains reason("k8s.unmapped", sprintf("%v (line %v): %v", [field.path, field.line, field.why]), "take it out of the Pod") if {
	some field in input.unmapped
}

# PSS privileged asks for nothing.
judged if data.ward.level != "privileged"

# PSS HostProcess.
deny contains reason("k8s.host-process", "the container is a HostProcess of Windows", "set windowsOptions.hostProcess to false") if {
	judged
	not input.k8s.host_process == false
}

# PSS Host Namespaces.
deny contains reason("k8s.host-namespaces", sprintf("the Pod uses the node's namespaces: %v", [field]), sprintf("set %v to false", [field])) if {
	judged
	some field, used in {"hostNetwork": input.k8s.host_network, "hostPID": input.k8s.host_pid, "hostIPC": input.k8s.host_ipc}
	not used == false
}

# PSS Privileged Containers.
deny contains reason("k8s.privileged", "the container is privileged", "set securityContext.privileged to false") if {
	judged
	not input.k8s.privileged == false
}

# PSS Host Ports.
deny contains reason("k8s.host-ports", sprintf("the container takes port %v of the node", [port]), "leave out hostPort; use a Service") if {
	judged
	some port in input.k8s.host_ports
	port != 0
}

# PSS Host Probes / Lifecycle Hooks.
deny contains reason("k8s.probe-host", sprintf("a probe or hook is sent to host %q", [host]), "leave out host") if {
	judged
	some host in input.k8s.probe_hosts
	host != ""
}

# PSS /proc Mount Type.
deny contains reason("k8s.proc-mount", sprintf("procMount is %q", [input.k8s.proc_mount]), "set procMount to Default") if {
	judged
	not input.k8s.proc_mount in {"", "Default"}
}

# PSS HostPath Volumes.
deny contains reason("k8s.host-path", "the Pod mounts paths of the node", "leave out volumes of type hostPath") if {
	judged
	"hostPath" in input.k8s.volume_types
}

# PSS Volume Types, of restricted.
deny contains reason("k8s.volume-types", sprintf("volumes of type %v are not among those a Pod may mount", [type]), "use one that is") if {
	data.ward.level == "restricted"
	some type in input.k8s.volume_types
	not type in {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret", "hostPath"}
}

# PSS Running as Non-root, of restricted. On a node there may be no user
# namespace that makes root nobody, so unlike for a run it is asked for.
deny contains reason("k8s.run-as-non-root", "the container may run as root", "set securityContext.runAsNonRoot to true and runAsUser to another user than 0") if {
	data.ward.level == "restricted"
	not input.k8s.run_as_non_root == true
}

# PSS Running as Non-root user, of restricted.
deny contains reason("k8s.run-as-user", "the container asks to run as root", "set securityContext.runAsUser to another user than 0, or leave it out") if {
	data.ward.level == "restricted"
	not input.k8s.run_as_root == false
}

reason(code, msg, fix) := {"code": code, "msg": msg, "fix": fix}
