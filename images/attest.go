package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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

// KindEnvelope is a DSSE envelope as cosign keeps attestations in the layers
// of the sha256-….att tag; a certificate and log entry are in Annotations.
// An attestation in a sigstore bundle has KindBundle, as a signature has.
const KindEnvelope = "envelope"

const (
	dsseEnvelope = "application/vnd.dsse.envelope.v1+json"
	// predicateKey is where cosign repeats an envelope's predicate type.
	predicateKey = "predicateType"
	// bundlePredicateKey is the same for the manifest around a bundle.
	bundlePredicateKey = "dev.sigstore.bundle.predicateType"
)

// Bounds on the attestations of one digest. A payload is the base64 of a
// statement, so 12 MiB hold 8 MiB of predicate.
const (
	maxAttestations     = 64
	maxAttestation      = 12 << 20
	maxAttestationBytes = 24 << 20
)

// Attestation is a signed statement about an image, as somebody sent it:
// package verify decides what it proves.
type Attestation struct {
	Attachment
	// PredicateType is the one in its payload, for listing; "" if there is none.
	PredicateType string `json:"predicate_type"`
	// Size and Digest are the payload's.
	Size   int64  `json:"size"`
	Digest string `json:"payload_digest"`
	// From is the repository it was pulled from, "" for one made here.
	From string `json:"from,omitempty"`
	// Omitted says why the payload is not kept: too large, too many. Then
	// nobody can say what it states.
	Omitted string `json:"omitted,omitempty"`
}

func (a Attestation) check() error {
	if a.Omitted != "" {
		_, err := parseDigest(a.Subject)
		return err
	}
	if a.Kind == KindEnvelope && a.MediaType != dsseEnvelope {
		return badDocument("image.attestation", "attestation of %s: media type %.100q is not that of a DSSE envelope", a.Subject, a.MediaType)
	}
	if a.Kind != KindEnvelope && a.Kind != KindBundle {
		return badDocument("image.attestation", "attestation of %s: kind %.40q is not known", a.Subject, a.Kind)
	}
	b := a.Attachment
	if a.Kind == KindEnvelope {
		// The signature is inside; the rest is bounded as for a bundle.
		b.Kind, b.MediaType = KindBundle, bundleV03
	}
	return b.checkUpTo(maxAttestation)
}

// newAttestation fills in what is read from the payload.
func newAttestation(a Attachment, from string) Attestation {
	return Attestation{Attachment: a, From: from, Size: int64(len(a.Payload)), Digest: digestOf(a.Payload).String(),
		PredicateType: statedType(a)}
}

// statedType is the predicate type a payload states, or "". It decides only
// where something is filed; package verify reads the payload strictly.
func statedType(a Attachment) string {
	type envelope struct {
		Payload []byte `json:"payload"`
	}
	var e struct {
		envelope
		DSSE envelope `json:"dsseEnvelope"`
	}
	if json.Unmarshal(a.Payload, &e) != nil {
		return ""
	}
	statement := e.Payload
	if a.Kind == KindBundle {
		statement = e.DSSE.Payload
	}
	var s struct {
		PredicateType string `json:"predicateType"`
	}
	if json.Unmarshal(statement, &s) != nil || len(s.PredicateType) > 1024 {
		return ""
	}
	return s.PredicateType
}

// file is the name under which an attestation is kept: the header at
// file+".json", the payload at file+".payload". The annotations count for an
// envelope, whose certificate is in them.
func (a Attestation) file() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00", a.Kind, a.Digest)
	if a.Kind == KindEnvelope {
		b, err := json.Marshal(a.Annotations) // map keys are sorted
		if err != nil {
			panic(err) // strings always encode
		}
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Attest keeps an attestation made here beside the image with digest
// a.Subject, durably. More than 64 for a digest, or 24 MiB, are refused.
func (s *Store) Attest(ctx context.Context, a Attachment) error { return s.attest(ctx, a, false) }

// ReplaceAttestations does as Attest and removes, from the local store, those
// of the same form that say of the image what a is about: of its predicate
// type. PushOptions.Replace does the same in a registry.
func (s *Store) ReplaceAttestations(ctx context.Context, a Attachment) error {
	return s.attest(ctx, a, true)
}

func (s *Store) attest(ctx context.Context, a Attachment, replace bool) error {
	at := newAttestation(a, "")
	if err := at.check(); err != nil {
		return err
	}
	w, err := s.begin(ctx)
	if err != nil {
		return diskFault(err)
	}
	defer w.end()
	there, err := s.attestationHeaders(a.Subject)
	if err != nil {
		return diskFault(err)
	}
	n, size := len(there), at.Size
	var old []Attestation
	for _, t := range there {
		same := t.file() == at.file()
		switch {
		case replace && !same && t.Kind == at.Kind && t.PredicateType == at.PredicateType:
			old = append(old, t)
			n--
			continue
		case same && !replace:
			return nil
		}
		size += t.Size
	}
	if n >= maxAttestations || size > maxAttestationBytes {
		return fault.New(fault.Invalid, "image.attestations", fmt.Sprintf("%s already has %d attestations; at most %d of %d bytes in all are kept", a.Subject, n, maxAttestations, maxAttestationBytes), "remove those that are not needed from the registry and pull the image again")
	}
	// The new one comes first: whoever looks in between sees both, not neither.
	if err := s.writeAttestation(at); err != nil {
		return diskFault(err)
	}
	for _, t := range old {
		if err := s.removeAttestation(t); err != nil {
			return diskFault(err)
		}
	}
	return nil
}

func (s *Store) removeAttestation(a Attestation) error {
	base := s.path("attestations", strings.TrimPrefix(a.Subject, "sha256:"), a.file())
	if err := os.Remove(base + ".json"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(base + ".payload"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeAttestation makes one durable. The header comes last: without it the
// payload is not there.
func (s *Store) writeAttestation(a Attestation) error {
	h, err := parseDigest(a.Subject)
	if err != nil {
		return err
	}
	dir := s.path("attestations", h.Hex)
	// Stores made before there were attestations have no such directory.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	base := dir + "/" + a.file()
	if a.Omitted == "" {
		if err := fsx.WriteFile(base+".payload", a.Payload, 0o600); err != nil {
			return err
		}
	}
	a.Payload = nil
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := fsx.WriteFile(base+".json", b, 0o600); err != nil {
		return err
	}
	return fsx.SyncDir(s.path("attestations"))
}

// replaceAttestations makes list what the repository from has on subject: what
// it had once and no longer has goes, what was made here or came from
// elsewhere stays.
func (s *Store) replaceAttestations(subject, from string, list []Attestation) error {
	old, err := s.attestationHeaders(subject)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, a := range list {
		keep[a.file()] = true
	}
	had := map[string]bool{}
	for _, a := range old {
		if had[a.file()] = true; a.From != from || keep[a.file()] {
			continue
		}
		had[a.file()] = false
		if err := s.removeAttestation(a); err != nil {
			return err
		}
	}
	for _, a := range list {
		if had[a.file()] {
			continue
		}
		if err := s.writeAttestation(a); err != nil {
			return err
		}
	}
	return nil
}

// ListAttestations returns what is kept about digest without the payloads, in
// an order that is always the same; it asks no registry.
func (s *Store) ListAttestations(_ context.Context, digest string) ([]Attestation, error) {
	return s.attestationHeaders(digest)
}

func (s *Store) attestationHeaders(digest string) ([]Attestation, error) {
	h, err := parseDigest(digest)
	if err != nil {
		return nil, err
	}
	dir := s.path("attestations", h.Hex)
	es, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sort.Slice(es, func(i, j int) bool { return es[i].Name() < es[j].Name() })
	var list []Attestation
	for _, e := range es {
		base, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(base, ".") {
			continue // a payload, or something being written
		}
		a, err := readAttestation(dir + "/" + e.Name())
		if err != nil {
			return nil, err
		}
		if a.Subject != digest || a.file() != base {
			return nil, fault.New(fault.Invalid, "image.attestation", fmt.Sprintf("%s/%s is about %.80q", dir, e.Name(), a.Subject), "remove the file and pull the image again")
		}
		list = append(list, a)
	}
	return list, nil
}

func readAttestation(path string) (a Attestation, err error) {
	f, err := os.Open(path)
	if err != nil {
		return a, err
	}
	defer f.Close()
	b, err := readBounded(f, 2*maxAnnotations, path)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fault.New(fault.Invalid, "image.attestation", fmt.Sprintf("%s: %v", path, err), "remove the file and pull the image again")
	}
	return a, nil
}

// Attestations returns the attestations kept for digest with their payloads,
// in an order that is always the same; it asks no registry. None is not an
// error. One that does not read is, and none is left out: of what was too much
// to keep there is at least the reason.
func (s *Store) Attestations(_ context.Context, digest string) ([]Attestation, error) {
	list, err := s.attestationHeaders(digest)
	if err != nil {
		return nil, err
	}
	if len(list) > maxAttestations+1 { // one may say that there are more
		return nil, fault.New(fault.Invalid, "image.attestations", fmt.Sprintf("%s has more than %d attestations", digest, maxAttestations), "ward rmi the image and pull it again")
	}
	for i := range list {
		a := &list[i]
		if a.Omitted != "" {
			continue
		}
		path := s.path("attestations", strings.TrimPrefix(digest, "sha256:"), a.file()+".payload")
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		a.Payload, err = readBounded(f, maxAttestation, path)
		f.Close()
		if err != nil {
			return nil, err
		}
		if got := digestOf(a.Payload).String(); got != a.Digest {
			return nil, tampered("stored attestation %s hashes to %s", path, got)
		}
		if err := a.check(); err != nil {
			return nil, err
		}
	}
	return list, nil
}
