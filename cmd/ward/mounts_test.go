package main

import (
	"strings"
	"testing"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// TestMountFlags reads Docker's spellings; an empty want means refused.
func TestMountFlags(t *testing.T) {
	vol := func(name, target string) sandbox.Mount {
		return sandbox.Mount{Type: sandbox.MountVolume, Name: name, Target: target, Exec: true, CopyUp: true}
	}
	with := func(m sandbox.Mount, f func(*sandbox.Mount)) sandbox.Mount { f(&m); return m }
	tmp := sandbox.Mount{Type: sandbox.MountTmpfs, Target: "/t", Size: sandbox.TmpfsSize, Mode: 0o1777}
	bind := sandbox.Mount{Type: sandbox.MountBind, Source: "/usr", Target: "/b", Exec: true}
	var refused sandbox.Mount
	for _, c := range []struct {
		parse func(string) (sandbox.Mount, error)
		specs string // alternatives, separated by |
		want  sandbox.Mount
	}{
		{parseVolume, "/data|/data/|//data", vol("", "/data")},
		{parseVolume, "data:/data|data:/x/../data|data:/data:rw|data:/data:rprivate", vol("data", "/data")},
		{parseVolume, "data:/data:ro|data:/data:ro,rw", with(vol("data", "/data"), func(m *sandbox.Mount) { m.ReadOnly = true })},
		{parseVolume, "data:/data:nocopy", with(vol("data", "/data"), func(m *sandbox.Mount) { m.CopyUp = false })},
		{parseVolume, "data:/data:noexec", with(vol("data", "/data"), func(m *sandbox.Mount) { m.Exec = false })},
		{parseVolume, "/usr:/b|/usr/:/b/|/usr/../usr:/b:private", bind},
		{parseVolume, "||data||:/data|a:/b:c:d|data:|data:data|x:/data|da/ta:/data|..x:/data|data:/data:Z|data:/data:z|data:/data:shared" +
			"|data:/data:rslave|/usr:/b:nocopy|data:/data:bogus|/no/such/thing:/b|-x:/data|relative", refused},
		{parseMount, "type=volume,source=data,target=/data|src=data,dst=/data|TYPE=volume,src=data,destination=/data|\"src=data\",dst=/data|src=data,dst=/data,volume-driver=local", vol("data", "/data")},
		{parseMount, "dst=/data", vol("", "/data")},
		{parseMount, "src=data,dst=/data,volume-nocopy|src=data,dst=/data,volume-nocopy=true", with(vol("data", "/data"), func(m *sandbox.Mount) { m.CopyUp = false })},
		{parseMount, "src=data,dst=/data,volume-subpath=a/b", with(vol("data", "/data"), func(m *sandbox.Mount) { m.CopyUp, m.Subpath = false, "a/b" })},
		{parseMount, "type=bind,src=/usr,dst=/b|type=bind,src=/usr,dst=/b,bind-propagation=rprivate|type=bind,src=/usr,dst=/b,consistency=cached,readonly=false", bind},
		{parseMount, "type=bind,src=/usr,dst=/b,ro|type=bind,src=/usr,dst=/b,readonly=1", with(bind, func(m *sandbox.Mount) { m.ReadOnly = true })},
		{parseMount, "type=tmpfs,dst=/t|type=tmpfs,dst=/t,tmpfs-mode=1777", tmp},
		{parseMount, "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700", with(tmp, func(m *sandbox.Mount) { m.Size, m.Mode = 1<<20, 0o700 })},
		{parseMount, "type=image,src=i:1,dst=/i|type=image,src=i:1,dst=/i,readonly", sandbox.Mount{Type: sandbox.MountImage, Name: "i:1", Target: "/i", ReadOnly: true, Exec: true}},
		{parseMount, "type=volume|src=data|src=data,dst=data|type=image,dst=/i|type=image,src=i,dst=/i,readonly=false|type=bind,dst=/b|type=npipe,src=a,dst=/b" +
			"|src=data,dst=/data,volume-driver=nfs|src=data,dst=/data,volume-label=a=b|src=data,dst=/data,volume-opt=a=b|src=data,dst=/data,tmpfs-size=1m" +
			"|type=bind,src=/usr,dst=/b,volume-nocopy|type=bind,src=/usr,dst=/b,bind-propagation=shared|type=bind,src=/usr,dst=/b,bind-recursive=disabled" +
			"|type=tmpfs,dst=/t,tmpfs-size=0|type=tmpfs,dst=/t,tmpfs-size=-1|type=tmpfs,dst=/t,tmpfs-mode=4755|type=tmpfs,src=a,dst=/t|src|src=data,dst=/data,readonly=maybe" +
			"|bogus=1,dst=/data|dst=/data,volume-subpath=a|\"src=data,dst=/data", refused},
		{parseTmpfs, "/t|/t:|/t:rw,nosuid,nodev,noexec|/t:mode=1777|/t:exec,noexec", tmp},
		{parseTmpfs, "/t:size=1m,mode=750,uid=5,gid=6,exec,ro", sandbox.Mount{Type: sandbox.MountTmpfs, Target: "/t", Size: 1 << 20, Mode: 0o750, UID: 5, GID: 6, Exec: true, ReadOnly: true}},
		{parseTmpfs, "|t|/t:size=0|/t:size=50%|/t:suid|/t:dev|/t:mode=4755|/t:mode=9|/t:uid=65536|/t:uid=-1|/t:uid=4294967296|/t:gid=x|/t:huge=always", refused},
	} {
		for _, spec := range strings.Split(c.specs, "|") {
			got, err := c.parse(spec)
			switch {
			case c.want.Type == "" && fault.As(err).Class != fault.Invalid:
				t.Errorf("%q: not refused: %+v %v", spec, got, err)
			case c.want.Type != "" && err != nil:
				t.Errorf("%q: %v", spec, err)
			case c.want.Type != "" && !same(got, c.want):
				t.Errorf("%q:\n%+v, want\n%+v", spec, got, c.want)
			}
		}
	}
}

func same(a, b sandbox.Mount) bool {
	return a.Type == b.Type && a.Name == b.Name && a.Source == b.Source && a.Target == b.Target && a.Subpath == b.Subpath && a.ReadOnly == b.ReadOnly &&
		a.Exec == b.Exec && a.CopyUp == b.CopyUp && a.Size == b.Size && a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID
}
