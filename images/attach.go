package images

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sort"
	"strings"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/internal/fsx"
)

// The two kinds of Attachment.
const (
	// KindCosign is a simple-signing payload with its signature in Annotations.
	KindCosign = "cosign"
	// KindBundle is a sigstore bundle.
	KindBundle = "bundle"
)

// Attachment is a signature kept beside an image. It is as somebody sent it:
// package verify decides what it proves.
type Attachment struct {
	// Subject is the digest that was signed: a manifest's or an index's.
	Subject string `json:"subject"`
	// Kind is KindCosign or KindBundle.
	Kind      string `json:"kind"`
	MediaType string `json:"media_type"`
	Payload   []byte `json:"payload"`
	// Annotations are those of the layer (cosign) or the manifest (bundle).
	Annotations map[string]string `json:"annotations,omitempty"`
}

const sigAnnotation = "dev.cosignproject.cosign/signature"

// maxAnnotations bounds the text beside a payload; certificate chains and
// transparency log entries stay far below.
const maxAnnotations = 512 << 10

func (a Attachment) check() error { return a.checkUpTo(maxAttachment) }

func (a Attachment) checkUpTo(limit int) error {
	if _, err := parseDigest(a.Subject); err != nil {
		return err
	}
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "image.attachment", "signature of "+a.Subject+": "+fmt.Sprintf(format, args...), "sign the image again")
	}
	if len(a.Payload) == 0 || len(a.Payload) > limit {
		return bad("payload has %d bytes; 1 to %d are allowed", len(a.Payload), limit)
	}
	n := len(a.MediaType)
	for k, v := range a.Annotations {
		n += len(k) + len(v)
	}
	if n > maxAnnotations {
		return bad("annotations exceed %d bytes", maxAnnotations)
	}
	switch {
	case a.Kind == KindCosign && a.Annotations[sigAnnotation] == "":
		return bad("annotation %s is missing", sigAnnotation)
	case a.Kind == KindBundle && !isBundle(a.MediaType):
		return bad("media type %.100q is not that of a sigstore bundle", a.MediaType)
	case a.Kind != KindCosign && a.Kind != KindBundle:
		return bad("kind %.40q is not known", a.Kind)
	}
	return nil
}

func isBundle(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.dev.sigstore.bundle") && len(mediaType) < 100
}

// name is what makes two attachments the same one. A bundle says everything
// itself; what the manifest around it says (a time, mostly) does not count.
func (a Attachment) name() string {
	if a.Kind == KindBundle {
		a.Annotations, a.MediaType = nil, ""
	}
	b, err := json.Marshal(a) // map keys are sorted
	if err != nil {
		panic(err) // strings and bytes always encode
	}
	return fmt.Sprintf("%x.json", sha256.Sum256(b))
}

// Attach keeps a signature beside the image with digest a.Subject, durably. It
// may be attached before the image is there and as often as one likes; more
// than 64 different ones for a digest are refused.
func (s *Store) Attach(ctx context.Context, a Attachment) error {
	if err := a.check(); err != nil {
		return err
	}
	w, err := s.begin(ctx)
	if err != nil {
		return diskFault(err)
	}
	defer w.end()
	return diskFault(s.attach(a))
}

// attach is Attach for a caller who has begun work and checked a.
func (s *Store) attach(a Attachment) error {
	h, err := parseDigest(a.Subject)
	if err != nil {
		return err
	}
	dir := s.path("attachments", h.Hex)
	if _, err := os.Lstat(dir + "/" + a.name()); err == nil {
		return nil
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	es, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(es) >= maxAttachments {
		return tooMany(a.Subject)
	}
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := fsx.WriteFile(dir+"/"+a.name(), b, 0o600); err != nil {
		return err
	}
	return fsx.SyncDir(s.path("attachments"))
}

func tooMany(subject string) error {
	return fault.New(fault.Invalid, "image.attachments", fmt.Sprintf("%s has more than %d signatures", subject, maxAttachments), "remove those that are not needed from the registry")
}

// Attachments returns the signatures kept for digest, in an order that is
// always the same; it asks no registry. None is not an error. A file that does
// not read is one, and is never left out.
func (s *Store) Attachments(_ context.Context, digest string) ([]Attachment, error) {
	h, err := parseDigest(digest)
	if err != nil {
		return nil, err
	}
	dir := s.path("attachments", h.Hex)
	es, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sort.Slice(es, func(i, j int) bool { return es[i].Name() < es[j].Name() })
	var list []Attachment
	for _, e := range es {
		if strings.HasPrefix(e.Name(), ".tmp-") {
			continue // being written, or left by a process that was killed
		}
		a, err := readAttachment(dir + "/" + e.Name())
		if err != nil {
			return nil, err
		}
		if a.Subject != digest {
			return nil, fault.New(fault.Invalid, "image.attachment", fmt.Sprintf("%s/%s is about %.80q", dir, e.Name(), a.Subject), "remove the file")
		}
		list = append(list, a)
	}
	return list, nil
}

func readAttachment(path string) (Attachment, error) {
	f, err := os.Open(path)
	if err != nil {
		return Attachment{}, err
	}
	defer f.Close()
	b, err := readBounded(f, 2*maxAttachment+2*maxAnnotations, path)
	if err != nil {
		return Attachment{}, err
	}
	var a Attachment
	if err := json.Unmarshal(b, &a); err != nil {
		return Attachment{}, fault.New(fault.Invalid, "image.attachment", fmt.Sprintf("%s: %v", path, err), "remove the file and pull the image again")
	}
	return a, a.check()
}
