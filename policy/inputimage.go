package policy

import (
	"encoding/json"
	"strings"
	"time"
)

// Image is the image as resolved: names are what the user wrote made
// complete, Checksum is what will run. The members in camel case are those of
// buildx's input.image, which this is a superset of.
type Image struct {
	// Ref is the full reference: "registry.example/team/app:1".
	Ref string `json:"ref"`
	// Host and Repo are its registry and repository, Tag its tag or "".
	Host string `json:"host"`
	Repo string `json:"repo"`
	Tag  string `json:"tag"`
	// FullRepo is registry and repository: "registry.example/team/app".
	// IsCanonical says that the reference names a digest. Decide fills both.
	FullRepo    string `json:"fullRepo"`
	IsCanonical bool   `json:"isCanonical"`
	// Checksum is the manifest's digest, "sha256:…"; Index that of the index
	// it was chosen from, or ""; ID the configuration's.
	Checksum string `json:"checksum"`
	Index    string `json:"index"`
	ID       string `json:"id"`
	// Platform is "os/arch[/variant]"; OS, Arch and Variant its parts.
	Platform string `json:"platform"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	Variant  string `json:"variant"`
	// Labels, Env, User, Volumes and WorkingDir are the image configuration's.
	Labels     map[string]string `json:"labels"`
	Env        []string          `json:"env"`
	User       string            `json:"user"`
	Volumes    []string          `json:"volumes"`
	WorkingDir string            `json:"workingDir"`
	// CreatedTime is 1970 where the image does not say; Created is the same for
	// policies that were written for buildx, and Decide's to fill.
	CreatedTime time.Time `json:"created_time"`
	Created     time.Time `json:"createdTime"`
	// HasProvenance, Provenance and Signatures are Decide's to fill, from
	// verified evidence for this very image alone.
	HasProvenance bool        `json:"hasProvenance"`
	Provenance    Provenance  `json:"provenance"`
	Signatures    []Signature `json:"signatures"`
}

// Provenance is what verified SLSA provenance says about how the image was
// made; all empty if there is none.
type Provenance struct {
	PredicateType string `json:"predicateType"`
	BuildType     string `json:"buildType"`
	BuilderID     string `json:"builderID"`
	InvocationID  string `json:"invocationID"`
	StartedOn     string `json:"startedOn"`
	FinishedOn    string `json:"finishedOn"`
	// ConfigSource is where the build's definition came from.
	ConfigSource ConfigSource `json:"configSource"`
}

// ConfigSource is a file in a source repository.
type ConfigSource struct {
	URI    string            `json:"uri"`
	Digest map[string]string `json:"digest"`
	Path   string            `json:"path"`
}

// Signature is one verified signature, in buildx's form.
type Signature struct {
	// Kind is "self-signed", and "self-signed-github-repo" for a workflow's.
	Kind string `json:"kind"`
	// Type is "bundle-v0.3" or "simplesigning-v1".
	Type       string          `json:"type"`
	Signer     SignatureSigner `json:"signer"`
	Timestamps []Timestamp     `json:"timestamps"`
}

// SignatureSigner is who signed; all empty for a key.
type SignatureSigner struct {
	CertificateIssuer      string `json:"certificateIssuer"`
	SubjectAlternativeName string `json:"subjectAlternativeName"`
	Issuer                 string `json:"issuer"`
	BuildSignerURI         string `json:"buildSignerURI"`
	RunnerEnvironment      string `json:"runnerEnvironment"`
	SourceRepositoryURI    string `json:"sourceRepositoryURI"`
	SourceRepositoryDigest string `json:"sourceRepositoryDigest"`
	SourceRepositoryRef    string `json:"sourceRepositoryRef"`
	BuildTrigger           string `json:"buildTrigger"`
}

// Timestamp is when a signature was seen by somebody who is trusted to tell.
type Timestamp struct {
	Type      string `json:"type"`
	URI       string `json:"uri"`
	Timestamp string `json:"timestamp"`
}

// fill completes what follows from the rest, and turns absent lists into
// empty ones.
func (i *Image) fill() {
	if i.CreatedTime = i.CreatedTime.UTC(); i.CreatedTime.IsZero() {
		i.CreatedTime = time.Unix(0, 0).UTC() // year 1 is not a time to Rego
	}
	i.Created = i.CreatedTime
	if i.FullRepo = i.Repo; i.Host != "" {
		i.FullRepo = i.Host + "/" + i.Repo
	}
	i.IsCanonical = strings.Contains(i.Ref, "@")
	if parts := strings.SplitN(i.Platform, "/", 3); len(parts) == 3 {
		i.Variant = parts[2]
	}
	if i.Labels == nil {
		i.Labels = map[string]string{}
	}
	for _, l := range []*[]string{&i.Env, &i.Volumes} {
		if *l == nil {
			*l = []string{}
		}
	}
	i.HasProvenance, i.Provenance, i.Signatures = false, Provenance{ConfigSource: ConfigSource{Digest: map[string]string{}}}, []Signature{}
}

// believe fills in what the evidence proves about this image. Evidence for
// another digest, and evidence that verified nothing, proves nothing.
func (i *Image) believe(evidence json.RawMessage) error {
	var ev struct {
		Verified bool   `json:"verified"`
		Digest   string `json:"digest"`
		Signers  []struct {
			Kind            string `json:"kind"`
			Format          string `json:"format"`
			Issuer, Subject string
		} `json:"signers"`
		Attestations []attested `json:"attestations"`
	}
	if err := json.Unmarshal(evidence, &ev); err != nil {
		return err
	}
	if !ev.Verified || ev.Digest == "" || ev.Digest != i.Checksum {
		return nil
	}
	for _, a := range ev.Attestations {
		if p, ok := provenanceOf(a); ok {
			i.HasProvenance, i.Provenance = true, p
			break
		}
	}
	for _, s := range ev.Signers {
		if s.Kind == "static" {
			continue // nobody signed
		}
		sig := Signature{Kind: "self-signed", Type: map[string]string{"bundle": "bundle-v0.3", "cosign": "simplesigning-v1"}[s.Format], Timestamps: []Timestamp{}}
		sig.Signer.Issuer, sig.Signer.SubjectAlternativeName = s.Issuer, s.Subject
		i.Signatures = append(i.Signatures, sig)
	}
	return nil
}

// provenanceOf reads SLSA provenance of the two versions in use. What it does
// not say, or says in another form, stays empty.
func provenanceOf(a attested) (p Provenance, ok bool) {
	p = Provenance{PredicateType: a.Type, ConfigSource: ConfigSource{Digest: map[string]string{}}}
	switch a.Type {
	case "https://slsa.dev/provenance/v1":
		var s struct {
			BuildDefinition struct {
				BuildType          string
				ExternalParameters struct {
					// ConfigSource is BuildKit's, Workflow GitHub's.
					ConfigSource ConfigSource
					Workflow     struct{ Repository, Ref, Path string }
				}
			}
			RunDetails struct {
				Builder  struct{ ID string }
				Metadata struct{ InvocationID, StartedOn, FinishedOn string }
			}
		}
		if json.Unmarshal(a.Stated, &s) != nil {
			return p, false
		}
		d, r := s.BuildDefinition, s.RunDetails
		p.BuildType, p.BuilderID = d.BuildType, r.Builder.ID
		p.InvocationID, p.StartedOn, p.FinishedOn = r.Metadata.InvocationID, r.Metadata.StartedOn, r.Metadata.FinishedOn
		p.ConfigSource = d.ExternalParameters.ConfigSource
		if w := d.ExternalParameters.Workflow; p.ConfigSource.URI == "" && w.Repository != "" {
			p.ConfigSource = ConfigSource{URI: "git+" + w.Repository + "@" + w.Ref, Path: w.Path}
		}
	case "https://slsa.dev/provenance/v0.2":
		var s struct {
			BuildType  string
			Builder    struct{ ID string }
			Invocation struct {
				ConfigSource struct {
					URI        string
					Digest     map[string]string
					EntryPoint string
				}
			}
			Metadata struct{ BuildInvocationID, BuildStartedOn, BuildFinishedOn string }
		}
		if json.Unmarshal(a.Stated, &s) != nil {
			return p, false
		}
		c := s.Invocation.ConfigSource
		p.BuildType, p.BuilderID = s.BuildType, s.Builder.ID
		p.InvocationID, p.StartedOn, p.FinishedOn = s.Metadata.BuildInvocationID, s.Metadata.BuildStartedOn, s.Metadata.BuildFinishedOn
		p.ConfigSource = ConfigSource{c.URI, c.Digest, c.EntryPoint}
	default:
		return p, false
	}
	if p.ConfigSource.Digest == nil {
		p.ConfigSource.Digest = map[string]string{}
	}
	return p, true
}
