# The privileged policy: the Kubernetes Pod Security Standards' "privileged",
# which asks for nothing. Ward still asks who vouches for the image; what its
# sandbox never gives, no level gives.
package ward.levels.privileged

violations contains ["baseline.input", []] if not complete

complete := [input.image.checksum, input.image.ref, input.run.capabilities, data.ward.granted.evidence]

violations contains ["baseline.evidence", [input.image.checksum, input.image.ref]] if not verified

verified if {
	input.evidence.verified == true
	input.evidence.digest == input.image.checksum
}

violations contains ["baseline.evidence-static", [input.image.ref]] if {
	verified
	not signed
	not "static" in data.ward.granted.evidence
}

signed if {
	some s in input.evidence.signers
	s.kind != "static"
}
