package cli

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/audit"
	"github.com/ward-project/ward/tests/lab"
	"github.com/ward-project/ward/tests/sigstore"
)

const (
	signerMail = "dev@example.test"
	rekorAddr  = "127.0.0.1:8906"
)

// inNamespace runs the test again in a network namespace of its own, where
// nothing but loopback is up, and returns true there.
func inNamespace(t *testing.T) bool {
	t.Helper()
	lab.NeedsRoot(t)
	if os.Getenv("WARD_IN_NAMESPACE") != "" {
		loopbackUp(t)
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "-n", self, "-test.v", "-test.count=1", "-test.timeout=4m", "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "WARD_IN_NAMESPACE=1", "WARD_BIN="+lab.Bin())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in its namespace: %v\n%s", err, out)
	}
	return false
}

// loopbackUp is ip link set lo up, which not every machine has.
func loopbackUp(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Fatal(err)
	}
}

// keyless are the pieces of a test with sigstore's own Fulcio and timestamp
// authority, and a log of ours.
type keyless struct {
	*lab.Ward
	c   lab.Cosign
	s   *sigstore.Servers
	ref string
}

func newKeyless(t *testing.T) keyless {
	t.Helper()
	w, c, ref := signingWard(t)
	s := sigstore.Start(t, lab.Tool(t, "fulcio", "WARD_FULCIO"), lab.Tool(t, "timestamp-server", "WARD_TIMESTAMPS"), w.Dir)
	log := sigstore.New(t)
	sigstore.Serve(t, rekorAddr, log.Rekor())
	write(t, w, "root.json", string(s.Root(log)))
	write(t, w, "strangers.json", string(sigstore.New(t).Root()))
	return keyless{w, c, s, ref}
}

func (k keyless) services() []string {
	return []string{"--fulcio-url", k.s.FulcioURL, "--timestamp-server-url", k.s.TimestampURL, "--trusted-root", "root.json"}
}

// who are the flags for the signer, as cosign and ward have them.
func (k keyless) who(mail string) []string {
	return []string{"--certificate-identity", mail, "--certificate-oidc-issuer", k.s.IssuerURL, "--trusted-root", "root.json", "--use-signed-timestamps", "--insecure-ignore-sct"}
}

func join(parts ...[]string) []string {
	var all []string
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// Signed by name with sigstore's own programs: it verifies here, lets the
// image run, and cosign accepts it; who signed is on record, the token nowhere.
func TestKeylessSigning(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	k := newKeyless(t)
	token := k.s.Token(signerMail, time.Minute)
	r := k.Do(join([]string{"sign", "--identity-token", token, "--yes", "--upload", k.ref}, k.services())...)
	if r.Code != 0 || !strings.Contains(r.Stderr, signerMail) {
		t.Fatalf("exit %d %s", r.Code, r.Stderr)
	}
	if ev := lastImageEvent(t, k.Ward, audit.ImageSign); ev.Signer != signerMail || ev.Issuer != k.s.IssuerURL || ev.Format != "bundle" || ev.KeyID == "" {
		t.Errorf("recorded %+v", ev)
	}
	_, secret, _ := strings.Cut(token, ".")
	for _, e := range k.Records() {
		if strings.Contains(string(e.Leaf), secret) {
			t.Errorf("the token is on record: %s", e.Leaf)
		}
	}
	if strings.Contains(r.Stdout+r.Stderr, secret) {
		t.Error("the token is printed")
	}
	k.c.Must(t, join([]string{"verify", "--new-bundle-format", "--insecure-ignore-tlog", k.ref}, k.who(signerMail))...)
	k.Must(join([]string{"verify", "--insecure-ignore-tlog", k.ref}, k.who(signerMail))...)
	if r := k.c.Do(t, join([]string{"verify", "--new-bundle-format", "--insecure-ignore-tlog", k.ref}, k.who("eve@example.test"))...); r.Code == 0 {
		t.Error("cosign accepts any name")
	}
	if r := k.Do(join([]string{"verify", "--insecure-ignore-tlog", k.ref}, k.who("eve@example.test"))...); r.Code != 1 {
		t.Errorf("another name: exit %d", r.Code)
	}
	write(t, k.Ward, "policy.yaml", fmt.Sprintf("apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: ci}\nspec:\n  images: [{glob: \"**\"}]\n"+
		"  authorities:\n    - keyless: {identities: [{issuer: %q, subject: %q}], insecureIgnoreSCT: true}\n      rfc3161timestamp: {}\n", k.s.IssuerURL, signerMail))
	k.Must("trust", "import", "policy.yaml")
	if r := k.Do("run", "--rm", k.ref, "true"); r.Code != 125 {
		t.Errorf("without the trust root: exit %d %s", r.Code, r.Stderr)
	}
	k.Must("trust", "root", "add", "default", "root.json")
	k.Must("run", "--rm", k.ref, "true")
}

// The log's entry, a key with witnesses, statements, a signing config, and the
// places a token may come from.
func TestKeylessServices(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	k := newKeyless(t)
	k.Must("trust", "root", "add", "default", "root.json") // now --trusted-root is not needed
	write(t, k.Ward, "token", k.s.Token(signerMail, time.Minute)+"\n")
	k.Must("sign", "--identity-token", "token", "--fulcio-url", k.s.FulcioURL, "--rekor-url", "http://"+rekorAddr, "--upload", k.ref)
	with := []string{"--certificate-identity", signerMail, "--certificate-oidc-issuer", k.s.IssuerURL, "--trusted-root", "root.json", "--insecure-ignore-sct"}
	k.Must(join([]string{"verify", k.ref}, with)...)
	k.c.Must(t, join([]string{"verify", "--new-bundle-format", k.ref}, with)...)

	k.Env = append(k.Env, "SIGSTORE_ID_TOKEN="+k.s.Token(signerMail, time.Minute))
	write(t, k.Ward, "config.json", fmt.Sprintf(`{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json",
		"caUrls":[{"url":%q,"majorApiVersion":1,"validFor":{"start":"2020-01-01T00:00:00Z"},"operator":"x"}],
		"rekorTlogUrls":[{"url":"http://%s","majorApiVersion":1,"validFor":{"start":"2020-01-01T00:00:00Z"},"operator":"x"}],
		"tsaUrls":[{"url":%q,"majorApiVersion":1,"validFor":{"start":"2020-01-01T00:00:00Z"},"operator":"x"}],
		"rekorTlogConfig":{"selector":"ANY"},"tsaConfig":{"selector":"ANY"}}`, k.s.FulcioURL, rekorAddr, k.s.TimestampURL))
	k.Must("attest", "--signing-config", "config.json", "--type", "vuln", "--predicate", "p.json", "--upload", k.ref)
	k.c.Must(t, join([]string{"verify-attestation", "--new-bundle-format", "--type", "vuln", "--use-signed-timestamps", k.ref}, with)...)
	k.Must(join([]string{"verify-attestation", "--type", "vuln", "--use-signed-timestamps", k.ref}, with)...)
	if ev := lastImageEvent(t, k.Ward, audit.ImageAttest); ev.Signer != signerMail || ev.PredicateType == "" {
		t.Errorf("recorded %+v", ev)
	}

	// A key with witnesses, on another image.
	other := strings.Replace(k.ref, "app", "keyed", 1)
	k.Must("tag", k.ref, other)
	k.Must("sign", "--key", "cosign.key", "--timestamp-server-url", k.s.TimestampURL, "--rekor-url", "http://"+rekorAddr, "--upload", other)
	k.Must("verify", "--key", "cosign.pub", "--insecure-ignore-tlog=false", "--use-signed-timestamps", other)
	k.c.Must(t, "verify", "--new-bundle-format", "--key", "cosign.pub", "--trusted-root", "root.json", "--use-signed-timestamps", other)
}

// What cannot give a signature that lasts is refused, with nothing kept.
func TestKeylessSigningRefusals(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	k := newKeyless(t)
	good := k.s.Token(signerMail, time.Minute)
	late := k.s.Token(signerMail, -time.Second)
	redirect := "127.0.0.1:8907"
	sigstore.Serve(t, redirect, http.RedirectHandler(k.s.FulcioURL, http.StatusTemporaryRedirect))
	fulcio, stamps, root := []string{"--fulcio-url", k.s.FulcioURL}, []string{"--timestamp-server-url", k.s.TimestampURL}, []string{"--trusted-root", "root.json"}
	token := []string{"--identity-token", good}
	for what, c := range map[string]struct {
		args []string
		code int
		rule string
	}{
		"no authority":        {join(token, stamps, root), 2, "sign.no-authority"},
		"no token":            {join(fulcio, stamps, root), 2, "sign.no-token"},
		"no token file":       {join([]string{"--identity-token", "nowhere"}, fulcio, stamps, root), 2, "sign.no-token"},
		"no time":             {join(token, fulcio, root), 2, "sign.no-time"},
		"no log either":       {join(token, fulcio, root, []string{"--rekor-url", "http://" + rekorAddr, "--tlog-upload=false"}), 2, "sign.no-time"},
		"no trust root":       {join(token, fulcio, stamps), 2, "sign.no-root"},
		"a default log":       {join(token, fulcio, stamps, root, []string{"--tlog-upload=true"}), 2, "usage"},
		"two ways":            {join(token, fulcio, stamps, root, []string{"--key", "cosign.key"}), 2, "usage"},
		"plain http":          {join(token, stamps, root, []string{"--fulcio-url", "http://192.0.2.1"}), 2, "sign.address"},
		"a redirect":          {join(token, stamps, root, []string{"--fulcio-url", "http://" + redirect}), 3, "sign.service"},
		"an old token":        {join([]string{"--identity-token", late}, fulcio, stamps, root), 3, "sign.service"},
		"a forged token":      {join([]string{"--identity-token", good[:len(good)-8] + "AAAAAAAA"}, fulcio, stamps, root), 3, "sign.service"},
		"nobody there":        {join(token, fulcio, root, []string{"--timestamp-server-url", "http://127.0.0.1:9/"}), 3, "sign.service"},
		"not an authority":    {join(token, fulcio, root, []string{"--timestamp-server-url", k.s.FulcioURL + "/healthz"}), 3, "sign.service"},
		"another trust root":  {join(token, fulcio, stamps, []string{"--trusted-root", "strangers.json"}), 1, "sign.check"},
		"the other format":    {join(token, fulcio, stamps, root, []string{"--format", "cosign"}), 2, "usage"},
		"a bad configuration": {join(token, root, []string{"--signing-config", "root.json"}), 2, "sign.config"},
	} {
		r := k.Do(join([]string{"sign", k.ref}, c.args)...)
		if r.Code != c.code || !strings.Contains(r.Stderr, c.rule) {
			t.Errorf("%s: exit %d, %s", what, r.Code, r.Stderr)
		}
		if strings.Contains(r.Stderr, strings.Split(good, ".")[2]) {
			t.Errorf("%s: the token is printed", what)
		}
	}
	if n := k.Count(audit.ImageSign, ""); n != 0 {
		t.Errorf("%d signatures are on record", n)
	}
	if es, _ := filepath.Glob(filepath.Join(k.Root, "lib/images/attachments/*/*")); len(es) != 0 {
		t.Errorf("kept: %v", es)
	}
}
