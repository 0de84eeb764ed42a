# Vulnerability reports: Trivy's and Grype's in cosign's vuln predicate, and
# in-toto's vulns predicate.
package ward.lib.scan

import data.ward.lib.evidence

reports contains r if {
	some type in {"https://cosign.sigstore.dev/attestation/vuln", "https://in-toto.io/attestation/vulns"}
	some a in evidence.of_type(type)
	result := object.get(evidence.members(a, ["predicate"]), ["scanner", "result"], null)
	r := {
		"format": format(result),
		"scanner": evidence.text(a.predicate, ["scanner", "uri"]),
		"version": evidence.text(a.predicate, ["scanner", "version"]),
		"started": evidence.text(a.predicate, ["metadata", "scanStartedOn"]),
		"finished": evidence.text(a.predicate, ["metadata", "scanFinishedOn"]),
		"findings": findings(result),
		"signers": a.signers,
		"digest": a.digest,
	}
}

format(result) := "trivy" if {
	result.SchemaVersion == 2
} else := "grype" if {
	is_array(result.matches)
} else := "in-toto" if {
	is_array(result)
} else := "unknown"

# What a scan found, each as ids (a set: its number and other names for it),
# severity, package, version, fixed (the version that is), purl.
findings(result) := {f |
	some target in evidence.list(result, ["Results"])
	some v in evidence.list(target, ["Vulnerabilities"])
	f := {
		"ids": names([evidence.text(v, ["VulnerabilityID"])], evidence.texts(v, ["VendorIDs"])),
		"severity": upper(evidence.text(v, ["Severity"])),
		"package": evidence.text(v, ["PkgName"]),
		"version": evidence.text(v, ["InstalledVersion"]),
		"fixed": evidence.text(v, ["FixedVersion"]),
		"purl": evidence.text(v, ["PkgIdentifier", "PURL"]),
	}
} if {
	format(result) == "trivy"
}

findings(result) := {f |
	some m in result.matches
	related := [evidence.text(r, ["id"]) | some r in evidence.list(m, ["relatedVulnerabilities"])]
	f := {
		"ids": names([evidence.text(m, ["vulnerability", "id"])], related),
		"severity": upper(evidence.text(m, ["vulnerability", "severity"])),
		"package": evidence.text(m, ["artifact", "name"]),
		"version": evidence.text(m, ["artifact", "version"]),
		"fixed": concat(",", evidence.texts(m, ["vulnerability", "fix", "versions"])),
		"purl": evidence.text(m, ["artifact", "purl"]),
	}
} if {
	format(result) == "grype"
}

# in-toto gives scores, not words: only the highest of CVSS is read.
findings(result) := {f |
	some v in result
	f := {
		"ids": names([evidence.text(v, ["id"])], []),
		"severity": of_score(max({0} | {n | some s in evidence.list(v, ["severity"]); n := score(s)})),
		"package": "", "version": "", "fixed": "", "purl": "",
	}
} if {
	format(result) == "in-toto"
}

findings(result) := set() if format(result) == "unknown"

names(own, others) := {n | some n in array.concat(own, others); n != ""}

score(s) := s.score if is_number(s.score)

score(s) := to_number(s.score) if {
	is_string(s.score)
	regex.match(`^\d{1,2}(\.\d{1,4})?$`, s.score)
}

of_score(n) := "CRITICAL" if {
	n >= 9
} else := "HIGH" if {
	n >= 7
} else := "MEDIUM" if {
	n >= 4
} else := "LOW" if {
	n > 0
} else := "UNKNOWN"

# Finished no longer ago than that ("24h"), and not in the future.
fresh(r, age) if {
	took := evidence.now - evidence.instant(r.finished)
	took >= 0
	took <= time.parse_duration_ns(age)
}

fresh_reports(age) := {r | some r in reports; fresh(r, age)}

# There is a scan of this very image that is fresh, and every fresh one can be
# read. A want says who has to have signed it; {} is anybody.
scanned_within(age, want) if {
	some r in fresh_reports(age)
	evidence.by(r, want)
	every other in fresh_reports(age) {
		other.format != "unknown"
	}
}

# What all fresh scans found, whoever signed them: one that found less hides
# nothing that another found.
findings_within(age) := {f | some r in fresh_reports(age); some f in r.findings}

ranks := {"NONE": 0, "NEGLIGIBLE": 1, "LOW": 1, "MEDIUM": 2, "MODERATE": 2, "HIGH": 3, "IMPORTANT": 3, "CRITICAL": 4}

# A severity that is not known, or no word at all, is the worst.
at_least(f, severity) if object.get(ranks, f.severity, 4) >= ranks[severity]

fixable(f) if f.fixed != ""
