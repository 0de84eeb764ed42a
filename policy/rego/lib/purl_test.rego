package ward.lib.purl_test

import data.ward.lib.purl

test_parts if {
	purl.parse("pkg:deb/debian/libxml2@2.9.14%2Bdfsg-1.3?arch=amd64&distro=debian-12.9#sub") == {
		"type": "deb", "namespace": "debian", "name": "libxml2", "version": "2.9.14+dfsg-1.3",
		"qualifiers": {["arch", "amd64"], ["distro", "debian-12.9"]},
	}
	purl.parse("pkg:golang/github.com/team/app@v1.4.2") == {"type": "golang", "namespace": "github.com/team", "name": "app", "version": "v1.4.2", "qualifiers": set()}
	purl.parse("pkg:npm/%40scope/name@1").namespace == "@scope"
	purl.parse("pkg:generic/a@1+b%zz").version == "1+b%zz"
	purl.parse("pkg:oci/app@sha256%3A11?repository_url=r.example%2Fteam&x=a=b&y").qualifiers == {["repository_url", "r.example/team"], ["x", "a=b"], ["y", ""]}
}

test_none if {
	every s in ["", "deb/debian/libxml2", "pkg:deb", "pkg:deb/", "pkg:/x", "https://pkg:deb/a", 7, null, {}, concat("", ["pkg:deb/", concat("", [x | some _ in numbers.range(1, 2050); x := "a"])])] {
		not purl.parse(s)
	}
}

test_covers if {
	every wide in [
		"pkg:deb/debian/libxml2", "pkg:deb/debian/libxml2@2", "pkg:DEB/debian/libxml2@2?arch=amd64", "pkg:deb/debian/libxml2@2?other=1",
	] {
		purl.covers(wide, "pkg:deb/debian/libxml2@2?arch=amd64&distro=12")
	}
	every other in [
		"pkg:deb/debian/libxml2@3", "pkg:deb/debian/libxml", "pkg:deb/ubuntu/libxml2", "pkg:rpm/debian/libxml2", "pkg:deb/libxml2", "pkg:deb/debian/libxml2@2?arch=arm64", "", "libxml2",
	] {
		not purl.covers(other, "pkg:deb/debian/libxml2@2?arch=amd64&distro=12")
	}
	not purl.covers("pkg:deb/debian/libxml2@2", "pkg:deb/debian/libxml2")
}
