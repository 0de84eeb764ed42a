package engine

import (
	"reflect"
	"testing"
)

const testPasswd = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:web:/srv:/bin/false\n" +
	"odd:x:44:4294967296::/:/bin/sh\nnogid:x:45:::/:/bin/sh\nbroken\n4294967296:x:0:0:trap:/:/bin/sh\nbig:x:70000:1::/:/bin/sh\n"
const testGroup = "root:x:0:\nweb:x:34:www\naudio:x:29:www,root\n"

func TestLookUser(t *testing.T) {
	for spec, want := range map[string]identity{
		"":         {home: "/root"},
		"0":        {home: "/root"},
		"root":     {home: "/root", groups: []uint32{29}},
		"www":      {uid: 33, gid: 34, home: "/srv", groups: []uint32{34, 29}},
		"33":       {uid: 33, gid: 34, home: "/srv", groups: []uint32{34, 29}},
		"1234":     {uid: 1234, home: "/"},
		"www:root": {uid: 33, home: "/srv"},
		"www:7":    {uid: 33, gid: 7, home: "/srv"},
		"5:web":    {uid: 5, gid: 34, home: "/"},
	} {
		got, err := lookUser(spec, []byte(testPasswd), []byte(testGroup))
		if spec == "" || spec == "0" {
			want.groups = []uint32{29}
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v; want %+v", spec, got, err, want)
		}
	}
	for _, spec := range []string{
		"nobody", "4294967296", "2147483648", "65536", "-1", "+1", "1:", ":1", ":", "root\n",
		"1:-1", "1:4294967296", "1:nogroup", "99999999999", "big", "44", "odd", "45", "nogid", "www:root:x", "0x10", "1 ",
	} {
		if got, err := lookUser(spec, []byte(testPasswd), []byte(testGroup)); err == nil {
			t.Errorf("%q was taken as %+v", spec, got)
		}
	}
}

func FuzzLookUser(f *testing.F) {
	f.Add("www:web", testPasswd, testGroup)
	f.Add("4294967296", "4294967296:x:0:0:::", "")
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		id, err := lookUser(spec, []byte(passwd), []byte(group))
		if err == nil && (id.uid > maxID || id.gid > maxID) {
			t.Fatalf("id outside the range: %+v", id)
		}
	})
}
