// Package deps holds the rules of the package map: who may import what, what
// each program may link, and what must not show in an exported signature.
//
// It states policy. A build that does not pass is changed until it does; the
// rules are not. The sources are opened inside the tests, so that go test's
// cache knows about them; what the go tool alone can answer needs -count=1.
package deps

const module = "github.com/ward-project/ward"

// everything is what the front doors may import: all but the launcher.
var everything = []string{
	"images", "images/registry", "verify", "policy", "sandbox", "sandbox/profile", "audit", "audit/receipt", "audit/export", "audit/witness",
	"internal/engine", "internal/engine/oci", "internal/api", "internal/ci/manifest", "internal/ci/report", "internal/ci/vsa", "internal/doctor", "internal/doctor/forge", "internal/network", "internal/volume", "internal/early", "internal/fault", "internal/fsx",
}

// mayImport says which of our packages a package may import, tests excluded.
// A package without a line of its own follows the nearest one above it, and
// may import that one and its neighbours below it.
//
// Two departures from the first drawing of the map, both towards leaves that
// import nothing of ours: internal/fsx (durable files) is open to sandbox, its
// launcher, verify and policy; internal/fault to the launcher, whose refusals
// cross a process boundary in fault's wire form.
var mayImport = map[string][]string{
	"images":           {"internal/fault", "internal/fsx"},
	"images/build":     {"images", "internal/fault", "internal/fsx"},
	"verify":           {"internal/fault", "internal/fsx"},
	"policy":           {"internal/fault", "internal/fsx"},
	"sandbox":          {"audit/receipt", "internal/fault", "internal/fsx"},
	"sandbox/profile":  {},
	"sandbox/launcher": {"sandbox", "sandbox/profile", "audit", "audit/receipt", "internal/fault", "internal/fsx"},
	"audit":            {"audit/receipt", "internal/fsx"},
	"audit/receipt":    {},
	"audit/export":     {"audit", "internal/fsx"},
	// It speaks HTTP: nothing that is linked into the launcher imports it.
	"audit/witness": {"audit/receipt", "internal/fault", "internal/fsx"},
	// Readers of files that pipelines have, writers of reports that they read.
	"internal/ci": {"internal/fault", "policy"},
	// It tries out what is installed, by the programs themselves.
	"internal/doctor": {
		"images", "images/registry", "verify", "policy", "sandbox", "audit", "audit/export", "internal/engine", "internal/doctor/forge", "internal/fault", "internal/fsx",
	},
	"internal/doctor/forge": {"internal/fault"},
	"internal/early":        {},
	"internal/fault":        {},
	"internal/fsx":          {},
	"internal/network":      {"internal/fault", "internal/fsx"},
	"internal/volume":       {"internal/fault", "internal/fsx"},
	"internal/engine": {
		"images", "verify", "policy", "sandbox", "sandbox/profile", "audit", "audit/receipt",
		"internal/network", "internal/volume", "internal/fault", "internal/fsx",
	},
	"internal/api":   {"internal/engine", "internal/fault"},
	"cmd/ward":       everything,
	"cmd/ward-oci":   everything,
	"cmd/ward-build": everything,
	// It runs inside containers and knows nothing of ward.
	"cmd/ward-init":   {},
	"cmd/ward-launch": {"sandbox", "sandbox/profile", "sandbox/launcher", "audit", "audit/receipt", "internal/fault", "internal/fsx"},
	// tests look from outside; they run the programs, they do not link them.
	"tests": append([]string{"sandbox/launcher"}, everything...),
}

// never lists imports that not even a test may have: from, to.
var never = [][2]string{
	{"", "cmd"},
	{"sandbox", "images"}, {"sandbox", "verify"}, {"sandbox", "policy"},
	{"images", "verify"}, {"images", "policy"},
	{"verify", "images"}, {"verify", "policy"},
	{"policy", "images"}, {"policy", "verify"},
}

// adapters says which of our packages hides a library: its types may not show
// in any other package's exported signatures.
var adapters = map[string]string{
	"github.com/open-policy-agent/opa":       "policy",
	"github.com/sigstore":                    "verify",
	"github.com/google/go-containerregistry": "images",
	"github.com/containerd/containerd":       "images",
	"github.com/opencontainers/runc":         "sandbox/launcher",
	"github.com/opencontainers/cgroups":      "sandbox/launcher",
	"github.com/opencontainers/runtime-spec": "sandbox/launcher",
	"github.com/seccomp/libseccomp-golang":   "sandbox/launcher",
}

// mayNotLink lists, for each program, what must not be in its link closure.
// A name ending in / forbids everything below it.
var mayNotLink = map[string][]string{
	"cmd/ward-launch": {
		// Hostile bytes are the gate's business, and every package's
		// initialisation is paid on each container start.
		"net/http", "net/http/", "crypto/tls", "crypto/x509", "archive/", "compress/",
		"text/template", "html/", "encoding/gob",
		"github.com/open-policy-agent/", "github.com/sigstore/", "github.com/google/go-containerregistry/",
		"github.com/containerd/containerd/", "github.com/spf13/",
		module + "/images", module + "/verify", module + "/policy", module + "/internal/engine", module + "/audit/export",
	},
	"cmd/ward": {
		// nsenter runs C before main; the gate reads hostile bytes and must
		// have nothing of the kind.
		"github.com/opencontainers/runc/", "github.com/opencontainers/cgroups/", "github.com/seccomp/",
		"runtime/cgo", module + "/sandbox/launcher",
	},
	"cmd/ward-oci": {
		// It reads the specifications of others, and starts nothing itself.
		"github.com/opencontainers/runc/", "github.com/opencontainers/cgroups/", "github.com/seccomp/",
		"runtime/cgo", module + "/sandbox/launcher",
	},
	"cmd/ward-init": {
		// Every container with --init pays for it, in memory and in start time.
		"net", "net/", "crypto/", "archive/", "compress/", "encoding/json", "encoding/gob", "text/template", "html/", "log/", "regexp", "runtime/cgo",
		module + "/sandbox", module + "/sandbox/", module + "/internal/", module + "/images", module + "/verify", module + "/policy", module + "/audit",
	},
}

// programs maps each program to how it is built.
var programs = map[string]struct{ tags, cgo string }{
	"cmd/ward":        {"", "0"},
	"cmd/ward-oci":    {"", "0"},
	"cmd/ward-launch": {"seccomp,netgo,osusergo", "1"},
	"cmd/ward-init":   {"", "0"},
}

// mustExist are the packages of the map that are built today; that one goes
// missing is a finding, not a reason to check less.
var mustExist = []string{
	"images", "verify", "policy", "sandbox", "sandbox/profile", "sandbox/launcher", "audit", "audit/receipt", "audit/export",
	"internal/engine", "internal/fault", "internal/fsx", "cmd/ward", "cmd/ward-oci", "cmd/ward-launch", "cmd/ward-init",
}

// maxLines is the length at which a source file has become two.
const maxLines = 500
