# What the grants document gives to this run: to every image, and to this one.
package ward.granted

scopes contains data.ward.grants

scopes contains scope if {
	some pattern, scope in data.ward.grants.images
	glob.match(pattern, ["/"], concat("/", [input.image.host, input.image.repo]))
}

networks contains n if some n in scopes[_].networks

capabilities contains c if some c in scopes[_].capabilities

sysctls contains s if some s in scopes[_].sysctls

seccomp contains c if some c in scopes[_].seccomp

evidence contains e if some e in scopes[_].evidence

landlock contains w if some w in scopes[_].landlock

tcp_bind contains p if some p in scopes[_].tcp_bind

tcp_connect contains p if some p in scopes[_].tcp_connect

devices contains d if some d in scopes[_].devices

# The source is clean and has no links left: Decide takes no other.
mounts contains m if {
	some m in input.run.mounts
	m.type == "bind"
	some dir in scopes[_][{true: {"binds", "binds_ro"}, false: {"binds"}}[m.read_only][_]]
	startswith(concat("", [m.source, "/"]), concat("", [dir, "/"]))
}
