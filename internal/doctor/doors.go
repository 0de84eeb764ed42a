package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ward-project/ward/internal/doctor/forge"
)

// doors shows every forgery to every door that is there.
func (v *victim) doors(p *Proof, f *forger, all []forgery, t trust) {
	ref := func(repo string) string { return f.Addr + "/" + repo + ":1" }
	goods := []string{byKey + "/good", byCA + "/good"}
	show := func(door Door, c forgery, program string, args ...string) {
		v.add(p, Trial{Door: door, Case: c.name, Class: c.class, Rule: c.rule}, program, args...)
	}
	control := func(door Door, name, program string, args ...string) {
		v.add(p, Trial{Door: door, Case: name, Good: true}, program, args...)
	}
	ward := v.cfg.Ward

	// The gate comes first: it has to find out without the image.
	v.cfg.say("gate")
	for _, repo := range goods {
		control(DoorGate, repo, ward, "gate", ref(repo))
	}
	for _, c := range all {
		if c.seen <= inManifest {
			show(DoorGate, c, ward, "gate", ref(c.repo))
		}
	}
	v.cfg.say("pull")
	for _, repo := range goods {
		control(DoorPull, repo, ward, "pull", "-q", ref(repo))
	}
	for _, c := range all {
		// A pull lets nothing run; it refuses what is not what it says it is.
		if c.seen == inManifest || c.seen == inLayers {
			show(DoorPull, c, ward, "pull", "-q", ref(c.repo))
		}
	}
	if !v.cfg.Root {
		p.Skipped = append(p.Skipped, "run, create, start, exec, ward-oci: starting containers needs root")
		return
	}
	v.cfg.say("run, create")
	for _, door := range []struct {
		door Door
		args []string
	}{{DoorRun, []string{"run", "--rm"}}, {DoorCreate, []string{"create"}}} {
		for _, repo := range goods {
			control(door.door, repo, ward, append(door.args, ref(repo))...)
		}
		for _, c := range all {
			show(door.door, c, ward, append(door.args, ref(c.repo))...)
		}
	}
	v.later(p, ref, t)
	v.oci(p, ref, all)
}

// spoiling makes the image of a container bad after it was let in.
type spoiling struct {
	name, kind, class, rule string
	do, undo                func() error
}

// later shows containers whose image was good when they were let in to the
// doors that come after: start and exec.
func (v *victim) later(p *Proof, ref func(string) string, t trust) {
	if v.err != nil {
		return
	}
	v.cfg.say("start, exec")
	for _, kind := range []string{byKey, byCA} {
		v.must("create", "--name", "start-"+kind, ref(kind+"/good"))
		v.must("run", "-d", "--name", "exec-"+kind, ref(kind+"/good"), forge.Waits)
	}
	if v.ctx.Err() != nil {
		return
	}
	if v.err != nil {
		// That a good image is not let in has been said by the controls.
		p.Skipped = append(p.Skipped, "start, exec: no container could be made: "+short(v.err.Error()))
		v.err = nil
		return
	}
	digest, config := v.digests(ref(byKey + "/good"))
	if v.err != nil {
		return
	}
	flip := func(digest string) func() error {
		return func() error { v.flip(v.blob(digest)); return v.err }
	}
	attached := filepath.Join(v.root, "lib", "images", "attachments", strings.TrimPrefix(digest, "sha256:"))
	good, err := t.f.key.PublicPEM()
	if err != nil {
		v.fail(err)
		return
	}
	strange, err := t.f.stranger.PublicPEM()
	if err != nil {
		v.fail(err)
		return
	}
	restored := func() error { return t.key(good, "") }
	for _, s := range []spoiling{
		{"its signature is gone", byKey, "unverified", "trust.unsigned",
			func() error { return os.Rename(attached, attached+".away") }, func() error { return os.Rename(attached+".away", attached) }},
		{"its key is trusted no more", byKey, "unverified", "trust.wrong-key", func() error { return t.key(strange, "") }, restored},
		{"its key's time is over", byKey, "unverified", "trust.key-window",
			func() error { return t.key(good, time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)) }, restored},
		{"another name is trusted", byCA, "unverified", "trust.identity",
			func() error { return t.certificate("another@forged.invalid") }, func() error { return t.certificate(holder) }},
		{"its manifest was changed in the store", byKey, "invalid", "image.digest", flip(digest), flip(digest)},
		{"its configuration was changed in the store", byKey, "invalid", "image.digest", flip(config), flip(config)},
	} {
		if err := s.do(); err != nil {
			v.fail(err)
			return
		}
		tr := Trial{Case: s.name, Class: s.class, Rule: s.rule}
		tr.Door = DoorStart
		v.add(p, tr, v.cfg.Ward, "start", "start-"+s.kind)
		tr.Door = DoorExec
		v.add(p, tr, v.cfg.Ward, "exec", "exec-"+s.kind, forge.Ends)
		if err := s.undo(); err != nil {
			v.fail(err)
			return
		}
	}
	for _, kind := range []string{byKey, byCA} {
		v.add(p, Trial{Door: DoorStart, Case: kind + "/good", Good: true}, v.cfg.Ward, "start", "start-"+kind)
		v.add(p, Trial{Door: DoorExec, Case: kind + "/good", Good: true}, v.cfg.Ward, "exec", "exec-"+kind, forge.Ends)
		v.must("rm", "-f", "exec-"+kind)
	}
}

// digests are those of a local image's manifest and configuration.
func (v *victim) digests(ref string) (manifest, config string) {
	r := v.ward("images", "--no-trunc", "--digests", "--format", "json")
	for _, line := range strings.Split(r.said, "\n") {
		var i struct{ ID, Digest, Repository, Tag string }
		if json.Unmarshal([]byte(line), &i) == nil && i.Repository+":"+i.Tag == ref {
			return i.Digest, i.ID
		}
	}
	v.fail(fmt.Errorf("ward images does not list %s: %s", ref, short(r.said)))
	return "", ""
}

// oci shows bundles that name forged images to ward-oci, first as a caller
// whom nobody has named.
func (v *victim) oci(p *Proof, ref func(string) string, all []forgery) {
	if v.cfg.OCI == "" {
		p.Skipped = append(p.Skipped, "ward-oci: it is not installed beside ward")
		return
	}
	if v.err != nil {
		return
	}
	v.cfg.say("ward-oci")
	b := bundle{v: v, dir: filepath.Join(v.cfg.Dir, "bundle")}
	good := ref(byKey + "/good")
	run := func(ref, id string) []string { return b.run(ref, id) }
	args := run(good, "nobody")
	if v.ctx.Err() != nil {
		return
	}
	if v.err != nil {
		p.Skipped = append(p.Skipped, "ward-oci: there is no good image: "+short(v.err.Error()))
		v.err = nil
		return
	}
	v.add(p, Trial{Door: DoorOCI, Case: "a caller whom nobody named", Class: "denied", Rule: "oci.caller"}, v.cfg.OCI, args...)
	trusted, err := trustCaller(filepath.Join(v.root, "etc", "policy.d"), v.cfg.Ward)
	if err != nil {
		p.Skipped = append(p.Skipped, "ward-oci as a trusted caller: "+err.Error())
		return
	}
	defer trusted()
	p.Uses = append(p.Uses, "ward-oci: the policy, and this program as a caller it trusts")
	v.add(p, Trial{Door: DoorOCI, Case: byKey + "/good", Good: true}, v.cfg.OCI, run(good, "good")...)
	for i, c := range all {
		// run has fetched these before it refused them; others are not in the store.
		if c.seen == whoSigned {
			v.add(p, Trial{Door: DoorOCI, Case: c.name, Class: c.class, Rule: c.rule}, v.cfg.OCI, run(ref(c.repo), fmt.Sprintf("forged-%d", i))...)
		}
	}
}

// bundle is an OCI bundle that says which image it is of.
type bundle struct {
	v   *victim
	dir string
}

// run writes the bundle for an image and returns the command that runs it.
func (b bundle) run(ref, id string) []string {
	digest, _ := b.v.digests(ref)
	if b.v.err != nil {
		return nil
	}
	if err := b.write(ref, digest); err != nil {
		b.v.fail(err)
	}
	return []string{"--ward-root", b.v.root, "--root", filepath.Join(b.v.root, "oci"), "run", "--bundle", b.dir, "doctor-" + filepath.Base(b.v.cfg.Dir) + "-" + id}
}

func (b bundle) write(ref, digest string) error {
	bin := filepath.Join(b.dir, "rootfs", "bin")
	for _, d := range []string{bin, filepath.Join(b.dir, "rootfs", "proc"), filepath.Join(b.dir, "rootfs", "dev"), filepath.Join(b.dir, "rootfs", "sys")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	ends, err := forge.Program(forge.Ends)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "rootfs", forge.Ends), ends, 0o755); err != nil {
		return err
	}
	config := filepath.Join(b.dir, "config.json")
	if err := os.Remove(config); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if r := b.v.do(b.v.cfg.OCI, "--ward-root", b.v.root, "spec", "--bundle", b.dir); r.code != 0 {
		return fmt.Errorf("ward-oci spec: %s", short(r.said))
	}
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	process, ok := spec["process"].(map[string]any)
	if !ok {
		return errors.New("ward-oci spec writes no process")
	}
	process["terminal"], process["args"] = false, []string{forge.Ends}
	spec["annotations"] = map[string]string{"org.ward.image.digest": digest, "org.ward.image.ref": ref}
	if text, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(config, text, 0o600)
}

// trustCaller adds a program to those that a policy directory lets call
// ward-oci, and returns what takes it out again.
func trustCaller(dir, exe string) (undo func(), err error) {
	for _, other := range []string{"grants.yaml", "grants.yml"} {
		if _, err := os.Stat(filepath.Join(dir, other)); err == nil {
			return nil, fmt.Errorf("the grants are in %s, which is not rewritten", other)
		}
	}
	path := filepath.Join(dir, "grants.json")
	before, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	grants := map[string]any{}
	if err == nil {
		if err := json.Unmarshal(before, &grants); err != nil {
			return nil, err
		}
	}
	oci, _ := grants["oci"].(map[string]any)
	if oci == nil {
		oci = map[string]any{}
	}
	callers, _ := oci["callers"].([]any)
	oci["callers"] = append(callers, map[string]any{"exe": exe, "uid": os.Getuid()})
	grants["oci"] = oci
	after, err := json.Marshal(grants)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(path, after, 0o644)
	}
	return func() {
		if before == nil {
			_ = os.Remove(path) // it goes with the directory anyway
			return
		}
		_ = os.WriteFile(path, before, 0o644)
	}, err
}
