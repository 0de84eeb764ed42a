package verify

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin"

	"github.com/ward-project/ward/internal/fault"
)

// loadSigner opens a private key for signing by cosign's ways to name one: a
// file, env://VARIABLE that holds what would stand in the file, or
// NAME://KEY, which the program sigstore-kms-NAME on PATH signs with
// (sigstore's plugin protocol; ctx bounds each of its answers).
func loadSigner(ctx context.Context, key string, password []byte) (signature.SignerVerifier, error) {
	scheme, rest, isRef := strings.Cut(key, "://")
	var sv signature.SignerVerifier
	var err error
	switch {
	case !isRef:
		var b []byte
		if b, err = readBounded(key, maxKeyFile); err != nil {
			return nil, fault.Wrap(fault.Invalid, "key.read", err, "name a private key made by `ward key generate` or cosign")
		}
		sv, err = privateKey(key, b, password)
	case scheme == "env":
		value, set := os.LookupEnv(rest)
		if !set || len(value) > maxKeyFile {
			return nil, fault.New(fault.Invalid, "key.read", key+": the variable is not set, or too long for a key", "set it to what stands in a private key file")
		}
		sv, err = privateKey(key, []byte(value), password)
	default:
		sv, err = pluginKey(ctx, key, scheme)
	}
	if err != nil {
		return nil, err
	}
	pub, err := sv.PublicKey()
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "key.read", fmt.Errorf("%s: %w", key, err), "see that the key exists and may be used")
	}
	if k, ok := pub.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return nil, fault.New(fault.Invalid, "key.type", key+": ward signs with ECDSA P-256 keys only",
			"make a key with `ward key generate`, or sign with cosign itself: other keys are accepted when verifying")
	}
	return sv, nil
}

func privateKey(shown string, b, password []byte) (signature.SignerVerifier, error) {
	sv, err := cosign.LoadPrivateKey(b, password, nil)
	if err != nil {
		return nil, fault.New(fault.Invalid, "key.read", fmt.Sprintf("%s: %v", shown, err),
			"give the key's password, or name a private key made by `ward key generate` or cosign")
	}
	return sv, nil
}

func pluginKey(ctx context.Context, key, name string) (signature.SignerVerifier, error) {
	// The name becomes that of a program: no path, and nothing a shell or a
	// terminal would see more in.
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return nil, fault.New(fault.Invalid, "key.read", fmt.Sprintf("%.64q is not the name of a key plugin", name), "use small letters, digits, - and _")
	}
	sv, err := cliplugin.LoadSignerVerifier(ctx, key, crypto.SHA256)
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fault.New(fault.Invalid, "key.plugin", fmt.Sprintf("%s: there is no program %s%s", key, cliplugin.PluginBinaryPrefix, name),
			"install that key plugin on PATH; ward has no cloud provider of its own")
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "key.plugin", err, "see that the plugin works: "+cliplugin.PluginBinaryPrefix+name)
	}
	return sv, nil
}
