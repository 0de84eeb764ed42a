package doctor

import (
	"archive/tar"
	"fmt"
	"time"

	"github.com/ward-project/ward/internal/doctor/forge"
)

// The names that are trusted in a proof, and by whom: images below key/ by a
// key, below late/ by the same key until yesterday, below ca/ by the holder of
// a certificate.
const (
	byKey  = "key"
	byLate = "late"
	byCA   = "ca"
	holder = "builder@forged.invalid"
)

// forgery is an image that must not be let in, and by which rule.
type forgery struct {
	name, repo, class, rule string
	// seen says where it shows: as soon as its manifest is read, when its layers
	// are fetched, or when they are unpacked.
	seen depth
	make func(*forger) error
}

type depth int

const (
	// whoSigned shows wherever somebody asks who vouches for the image.
	whoSigned depth = iota
	// inManifest shows to everybody who reads manifest and configuration.
	inManifest
	// inLayers shows to whoever fetches layers, inArchives to who unpacks them.
	inLayers
	inArchives
)

// forger makes the images of a proof.
type forger struct {
	*forge.Registry
	rootfs                      []byte
	key, stranger               *forge.Signer
	ca                          *forge.Authority
	builder, impostor, outdated *forge.Signer
	foreign                     *forge.Signer
}

func newForger(r *forge.Registry) (*forger, error) {
	f := &forger{Registry: r}
	var err error
	if f.rootfs, err = forge.Rootfs(); err != nil {
		return nil, err
	}
	now := time.Now()
	other, err := forge.NewAuthority()
	if err != nil {
		return nil, err
	}
	if f.ca, err = forge.NewAuthority(); err != nil {
		return nil, err
	}
	for _, s := range []struct {
		to   **forge.Signer
		make func() (*forge.Signer, error)
	}{
		{&f.key, forge.NewSigner}, {&f.stranger, forge.NewSigner},
		{&f.builder, func() (*forge.Signer, error) { return f.ca.Issue(holder, now.Add(-time.Hour), now.Add(time.Hour)) }},
		{&f.impostor, func() (*forge.Signer, error) {
			return f.ca.Issue("builder@forged.invalid.example", now.Add(-time.Hour), now.Add(time.Hour))
		}},
		{&f.outdated, func() (*forge.Signer, error) { return f.ca.Issue(holder, now.Add(-2*time.Hour), now.Add(-time.Hour)) }},
		{&f.foreign, func() (*forge.Signer, error) { return other.Issue(holder, now.Add(-time.Hour), now.Add(time.Hour)) }},
	} {
		if *s.to, err = s.make(); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// signed pushes an image of these layers, or the usual one, signed by s; nil
// signs nothing.
func (f *forger) signed(repo string, s *forge.Signer, layers ...forge.Layer) error {
	if len(layers) == 0 {
		layers = []forge.Layer{{Archive: f.rootfs}}
	}
	digest, err := f.Push(repo, layers...)
	if err != nil || s == nil {
		return err
	}
	sig, err := s.Sign(f.Addr+"/"+repo, digest)
	if err != nil {
		return err
	}
	return f.Attach(repo, digest, sig)
}

// by makes an image that is as it should be but for who signed it.
func by(repo string, who func(*forger) *forge.Signer) func(*forger) error {
	return func(f *forger) error { return f.signed(repo, who(f)) }
}

// broken makes a good image whose registry serves something else.
func broken(repo string, how forge.Fault) func(*forger) error {
	return func(f *forger) error {
		f.Break(repo, how)
		return f.signed(repo, f.key)
	}
}

// holding makes a signed image with more entries in its archive.
func holding(repo string, extra ...forge.Entry) func(*forger) error {
	return func(f *forger) error {
		archive, err := forge.Rootfs(extra...)
		if err != nil {
			return err
		}
		return f.signed(repo, f.key, forge.Layer{Archive: archive})
	}
}

func entry(h tar.Header) forge.Entry {
	e := forge.Entry{Header: h}
	if h.Typeflag == tar.TypeReg && h.Size == 0 {
		e.Body = []byte("escaped\n")
	}
	return e
}

func nobody(*forger) *forge.Signer { return nil }

// forgeries are all of them. A function: no start of ward pays for it.
func forgeries() []forgery {
	const unverified, invalid = "unverified", "invalid"
	link := tar.Header{Typeflag: tar.TypeSymlink, Name: "way", Linkname: "/tmp", Mode: 0o777}
	return []forgery{
		{"unsigned", byKey + "/unsigned", unverified, "trust.unsigned", whoSigned, by(byKey+"/unsigned", nobody)},
		{"signed by a stranger", byKey + "/stranger", unverified, "trust.wrong-key", whoSigned, by(byKey+"/stranger", func(f *forger) *forge.Signer { return f.stranger })},
		{"another image's signature", byKey + "/other", unverified, "trust.wrong-digest", whoSigned, anotherImages(byKey + "/other")},
		{"a name that nobody is trusted for", "nobody/image", unverified, "trust.no-policy", whoSigned, by("nobody/image", func(f *forger) *forge.Signer { return f.key })},
		{"a key whose time is over", byLate + "/image", unverified, "trust.key-window", whoSigned, by(byLate+"/image", func(f *forger) *forge.Signer { return f.key })},
		{"a certificate that has expired", byCA + "/outdated", unverified, "trust.time", whoSigned, by(byCA+"/outdated", func(f *forger) *forge.Signer { return f.outdated })},
		{"a certificate of somebody else", byCA + "/impostor", unverified, "trust.identity", whoSigned, by(byCA+"/impostor", func(f *forger) *forge.Signer { return f.impostor })},
		{"a certificate by a strange authority", byCA + "/foreign", unverified, "trust.certificate", whoSigned, by(byCA+"/foreign", func(f *forger) *forge.Signer { return f.foreign })},
		{"a changed manifest", byKey + "/flip-manifest", invalid, "image.digest", inManifest, broken(byKey+"/flip-manifest", forge.FlipManifest)},
		{"a changed configuration", byKey + "/flip-config", invalid, "image.digest", inManifest, broken(byKey+"/flip-config", forge.FlipConfig)},
		{"a changed layer", byKey + "/flip-layer", invalid, "image.digest", inLayers, broken(byKey+"/flip-layer", forge.FlipLayer)},
		{"a manifest without end", byKey + "/grow-manifest", invalid, "image.bounds", inManifest, broken(byKey+"/grow-manifest", forge.GrowManifest)},
		{"layers of terabytes", byKey + "/huge", invalid, "image.bounds", inManifest, func(f *forger) error {
			return f.signed(byKey+"/huge", f.key, forge.Layer{Archive: f.rootfs, Size: 8 << 40})
		}},
		{"hundreds of layers", byKey + "/many", invalid, "image.bounds", inManifest, manyLayers(byKey + "/many")},
		{"a file of terabytes", byKey + "/bomb", invalid, "image.bounds", inArchives, holding(byKey+"/bomb", entry(tar.Header{Typeflag: tar.TypeReg, Name: "bomb", Mode: 0o644, Size: 8 << 40}))},
		{"a file above the root", byKey + "/dotdot", invalid, "image.entry", inArchives, holding(byKey+"/dotdot", entry(tar.Header{Typeflag: tar.TypeReg, Name: "../../escaped", Mode: 0o644}))},
		{"a file with a path from the host's root", byKey + "/absolute", invalid, "image.entry", inArchives, holding(byKey+"/absolute", entry(tar.Header{Typeflag: tar.TypeReg, Name: "/tmp/ward-escaped", Mode: 0o644}))},
		{"a file through a link", byKey + "/through", invalid, "image.entry", inArchives, holding(byKey+"/through", entry(link), entry(tar.Header{Typeflag: tar.TypeReg, Name: "way/ward-escaped", Mode: 0o644}))},
		{"a hard link out", byKey + "/hard", invalid, "image.entry", inArchives, holding(byKey+"/hard", entry(tar.Header{Typeflag: tar.TypeLink, Name: "shadow", Linkname: "../../../../etc/passwd", Mode: 0o644}))},
		{"a disk of the host's", byKey + "/disk", invalid, "image.device", inArchives, holding(byKey+"/disk", entry(tar.Header{Typeflag: tar.TypeBlock, Name: "dev/disk", Devmajor: 8, Mode: 0o666}))},
		{"a root whose /proc is a link", byKey + "/proc", invalid, "image.root-symlink", inArchives, procLink(byKey + "/proc")},
	}
}

// anotherImages hangs the good image's signature on a different one.
func anotherImages(repo string) func(*forger) error {
	return func(f *forger) error {
		archive, err := forge.Rootfs(entry(tar.Header{Typeflag: tar.TypeReg, Name: "other", Mode: 0o644}))
		if err != nil {
			return err
		}
		digest, err := f.Push(repo, forge.Layer{Archive: archive})
		if err != nil {
			return err
		}
		sig, err := f.key.Sign(f.Addr+"/"+repo, fmt.Sprintf("sha256:%064x", 1))
		if err != nil {
			return err
		}
		return f.Attach(repo, digest, sig)
	}
}

func manyLayers(repo string) func(*forger) error {
	return func(f *forger) error {
		layers := make([]forge.Layer, 300)
		for i := range layers {
			layers[i].Archive = f.rootfs
		}
		return f.signed(repo, f.key, layers...)
	}
}

func procLink(repo string) func(*forger) error {
	return func(f *forger) error {
		archive, err := forge.Archive(
			entry(tar.Header{Typeflag: tar.TypeDir, Name: "elsewhere/", Mode: 0o755}), entry(tar.Header{Typeflag: tar.TypeSymlink, Name: "proc", Linkname: "/elsewhere", Mode: 0o777}))
		if err != nil {
			return err
		}
		return f.signed(repo, f.key, forge.Layer{Archive: archive})
	}
}

// good makes the images that have to be let in.
func (f *forger) good() error {
	for _, g := range []struct {
		repo string
		by   *forge.Signer
	}{{byKey + "/good", f.key}, {byCA + "/good", f.builder}} {
		if err := f.signed(g.repo, g.by); err != nil {
			return err
		}
	}
	return nil
}
