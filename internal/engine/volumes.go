package engine

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/images"
	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/volume"
	"github.com/ward-project/ward/sandbox"
)

// Volumes opens the store of named volumes.
func (e *Engine) Volumes() (*volume.Store, error) { return volume.Open(e.layout.Volumes()) }

// completeMounts turns what a request says of its mounts into all there is to
// say before policy sees it: those of other containers and those the image
// declares are added, a volume nobody named gets a name, and each image that is
// mounted is found and verified like the one that runs. It makes nothing.
//
// For a container that is there all but the verification has happened, and is
// in its record: it keeps its volumes.
func (e *Engine) completeMounts(ctx context.Context, a *attempt) error {
	req := &a.req
	if a.again == nil {
		mounts := slices.Clone(req.Mounts)
		for _, spec := range req.VolumesFrom {
			if err := e.mountsOf(ctx, spec, req, &mounts); err != nil {
				return err
			}
		}
		for _, target := range a.img.Config.Volumes {
			clean := path.Clean(target)
			if !path.IsAbs(target) || strings.Contains(target+"/", "/../") {
				// Not made harmless: an image that says this is up to something
				// (CVE-2022-23648) or does not mean what it would get.
				return fault.New(fault.Invalid, "run.image-volume", fmt.Sprintf("the image declares a volume at %.255q, which is no absolute path without ..", target),
					"rebuild the image with another VOLUME")
			}
			addMount(&mounts, sandbox.Mount{Type: sandbox.MountVolume, Target: clean, Exec: true, CopyUp: true})
		}
		for i := range mounts {
			if m := &mounts[i]; m.Type == sandbox.MountVolume && m.Name == "" {
				m.Name = volume.NewName()
				req.Anonymous = append(req.Anonymous, m.Name)
			}
		}
		// As Docker orders them: what is mounted further down comes later.
		slices.SortStableFunc(mounts, func(a, b sandbox.Mount) int {
			return strings.Count(a.Target, "/") - strings.Count(b.Target, "/")
		})
		req.Mounts, req.VolumesFrom = mounts, nil
	}
	for i := range req.Mounts {
		if m := &req.Mounts[i]; m.Type == sandbox.MountImage {
			if err := e.mountedImage(ctx, a, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// addMount adds m unless something is asked for at its target already.
func addMount(mounts *[]sandbox.Mount, m sandbox.Mount) {
	if !slices.ContainsFunc(*mounts, func(o sandbox.Mount) bool { return o.Target == m.Target }) {
		*mounts = append(*mounts, m)
	}
}

// mountsOf adds what the container named in spec mounts: CONTAINER[:ro|rw].
func (e *Engine) mountsOf(ctx context.Context, spec string, req *Request, mounts *[]sandbox.Mount) error {
	name, mode, _ := strings.Cut(spec, ":")
	if mode != "" && mode != "ro" && mode != "rw" {
		return fault.New(fault.Invalid, "run.volumes-from", fmt.Sprintf("--volumes-from %.128q: mode %.32q is not there", spec, mode), "use CONTAINER, CONTAINER:ro or CONTAINER:rw")
	}
	c, err := e.Find(ctx, name)
	if err != nil {
		return err
	}
	for _, m := range c.Request.Mounts {
		if m.Type == sandbox.MountTmpfs {
			continue // a container's own memory
		}
		m.CopyUp, m.ReadOnly = false, m.ReadOnly || mode == "ro"
		addMount(mounts, m)
		if slices.Contains(c.Request.Anonymous, m.Name) && !slices.Contains(req.Anonymous, m.Name) {
			req.Anonymous = append(req.Anonymous, m.Name)
		}
	}
	return nil
}

// mountedImage finds and verifies an image that is mounted, by its digest once
// that is known.
func (e *Engine) mountedImage(ctx context.Context, a *attempt, m *sandbox.Mount) error {
	other := &attempt{e: e, run: a.run, req: Request{Actor: a.req.Actor, Image: m.Name, Pull: a.req.Pull}}
	if m.Digest != "" {
		other.again = &Container{Name: a.req.Name, Digest: m.Digest, Reference: m.Name}
	}
	img, err := e.resolve(ctx, other)
	if err != nil {
		return fmt.Errorf("image to mount at %s: %w", m.Target, err)
	}
	ev, err := e.verify(ctx, img)
	if err == nil && !ev.Signed() {
		// Policy sees that it was verified, and not by whom.
		err = fault.New(fault.Unverified, "trust.static", "image "+img.Reference+" is let in by a trust policy that asks for no signature, which does not do for a mount",
			"sign it and trust the key: ward sign --key KEY "+img.Reference)
	}
	if err != nil {
		return fmt.Errorf("image to mount at %s: %w", m.Target, err)
	}
	m.Name, m.Digest = img.Reference, img.Digest
	if a.mounted == nil {
		a.mounted = map[string]images.Image{}
	}
	a.mounted[img.Digest] = img
	return nil
}

// placeMounts says where on this host volumes and images are. The images are
// in use by now: the container's record names them.
func (e *Engine) placeMounts(ctx context.Context, a *attempt, p *sandbox.Plan) error {
	p.Host.VolumeDir = e.layout.Volumes()
	p.Mounts = slices.Clone(p.Mounts)
	for i := range p.Mounts {
		m := &p.Mounts[i]
		switch m.Type {
		case sandbox.MountVolume:
			m.Source = sandbox.VolumeData(p.Host.VolumeDir, m.Name)
		case sandbox.MountImage:
			img := a.mounted[m.Digest]
			dirs, err := e.rootfs.Unpack(ctx, img)
			if err == nil {
				m.Layers, err = layers(img, dirs)
			}
			if err != nil {
				return fmt.Errorf("image to mount at %s: %w", m.Target, err)
			}
		}
	}
	return nil
}

// ensureVolumes makes the plan's volumes that are not there yet. It comes last
// of all that seals a plan: the container's record is there and says that the
// volumes are in use (see package volume), and no rule can refuse any more.
func (e *Engine) ensureVolumes(ctx context.Context, a *attempt, s *slot, p sandbox.Plan) error {
	var want []volume.Volume
	for _, m := range p.Mounts {
		if m.Type != sandbox.MountVolume {
			continue
		}
		v := volume.Volume{Name: m.Name}
		if slices.Contains(a.req.Anonymous, m.Name) {
			v.Labels = map[string]string{volume.AnonymousLabel: ""}
		}
		want = append(want, v)
	}
	if len(want) == 0 {
		return nil
	}
	store, err := e.Volumes()
	if err != nil {
		return err
	}
	s.release = func() error { return e.dropVolumes(context.WithoutCancel(ctx), a.req.Actor, s.container) }
	_, err = store.Ensure(ctx, want, func(fresh []volume.Volume) error {
		return e.recordVolumes(ctx, audit.VolumeCreate, a.req.Actor, a.container, a.run, fresh)
	})
	return err
}

// recordVolumes puts on record what is about to happen to volumes.
func (e *Engine) recordVolumes(ctx context.Context, kind audit.Type, actor audit.Actor, container, run string, vs []volume.Volume) error {
	for _, v := range vs {
		err := e.append(ctx, audit.Record{Type: kind, Run: run, Actor: actor, Data: audit.VolumeEvent{
			Name: v.Name, Driver: volume.Local, Labels: v.Labels, Container: container}})
		if err != nil {
			return err
		}
	}
	return nil
}

// CreateVolume makes a volume, or returns the one of that name.
func (e *Engine) CreateVolume(ctx context.Context, actor audit.Actor, v volume.Volume) (volume.Volume, error) {
	store, err := e.Volumes()
	if err != nil {
		return v, err
	}
	all, err := store.Ensure(ctx, []volume.Volume{v}, func(fresh []volume.Volume) error {
		return e.recordVolumes(ctx, audit.VolumeCreate, actor, "", "", fresh)
	})
	if err != nil {
		return v, err
	}
	return all[0], nil
}

// RemoveVolumes removes volumes that no container uses, and returns those that
// are gone. With unused, those in use or gone already are no error.
func (e *Engine) RemoveVolumes(ctx context.Context, actor audit.Actor, names []string, unused bool) ([]volume.Volume, error) {
	return e.removeVolumes(ctx, actor, names, unused, "")
}

// dropVolumes removes the volumes that were made for this container alone,
// before it goes itself: a crash in between leaves a container that is still to
// be removed, and not volumes that nobody remembers.
func (e *Engine) dropVolumes(ctx context.Context, actor audit.Actor, c Container) error {
	if len(c.Request.Anonymous) == 0 {
		return nil
	}
	_, err := e.removeVolumes(ctx, actor, c.Request.Anonymous, true, c.ID)
	return err
}

// removeVolumes is RemoveVolumes on behalf of the container whose id is given,
// which does not count as a user then.
func (e *Engine) removeVolumes(ctx context.Context, actor audit.Actor, names []string, unused bool, container string) ([]volume.Volume, error) {
	store, err := e.Volumes()
	if err != nil {
		return nil, err
	}
	return store.Remove(ctx, volume.Removal{
		Names: names, Unused: unused,
		Users: func() (map[string][]string, error) { return e.volumeUsers(container) },
		Record: func(vs []volume.Volume) error {
			return e.recordVolumes(ctx, audit.VolumeRemove, actor, container, "", vs)
		},
	})
}

// VolumeUsers says which containers use each volume, running or not.
func (e *Engine) VolumeUsers() (map[string][]string, error) { return e.volumeUsers("") }

func (e *Engine) volumeUsers(but string) (map[string][]string, error) {
	all, err := e.records()
	users := map[string][]string{}
	for _, c := range all {
		for _, m := range c.Request.Mounts {
			if m.Type == sandbox.MountVolume && c.ID != but && !slices.Contains(users[m.Name], c.ID) {
				users[m.Name] = append(users[m.Name], c.ID)
			}
		}
	}
	return users, err
}
