package workloads

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

//go:embed smoke
var smoke embed.FS

// smokeDir is where the images have the smoke tests.
const smokeDir = "usr/local/share/smoke/"

// The recipe of the image. Changing any of it makes a new one.
const suite = "bookworm"

// packages, without what they merely recommend.
var packages = []string{
	"ca-certificates", "curl", "g++", "golang-go", "make", "nginx", "nodejs", "openssl", "perl", "postgresql-15",
	"python3", "redis-server",
}

// left out of the packages: what no program reads while it runs, and a second
// and third compiler. It halves the image.
var left = []string{
	"/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*",
	"/usr/share/zoneinfo/*", "/usr/lib/*/gconv/*", "/usr/include/node/*",
	// PostgreSQL goes without its compiler when that is not installed.
	"/usr/lib/*/libLLVM*", "/usr/lib/*/libz3*", "/usr/lib/postgresql/*/lib/llvmjit*", "/usr/lib/postgresql/*/lib/bitcode/*",
	"/usr/bin/*lto-dump*", "/usr/lib/gcc/*/lto1", "/usr/lib/gcc/*/cc1", "/usr/lib/*/lib*san.so*", "/usr/lib/gcc/*/lib*san*",
	"/usr/lib/go-*/pkg/linux_amd64/cmd/*", "/usr/lib/go-*/pkg/tool/*/[dnopt]*", "/usr/lib/go-*/pkg/tool/*/a[dp]*",
	"/usr/share/go-*/api/*", "/usr/share/go-*/src/cmd/*", "/usr/share/go-*/*.syso", "/usr/share/go-*/*_test.go",
	"/usr/share/go-*/testdata/*",
}

// hook keeps the package from making a database while it is installed.
const hook = `mkdir -p "$1/etc/postgresql-common" && echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.conf"`

func recipe() []string {
	args := []string{"--quiet", "--mode=root", "--skip=output/dev", "--variant=essential", "--include=" + strings.Join(packages, ","), "--essential-hook=" + hook}
	for _, path := range left {
		args = append(args, "--dpkgopt=path-exclude="+path)
	}
	return append(args, "--format=tar", suite)
}

// debian returns the root file system's archive, made on first use and kept
// for each recipe in the user's cache directory. Delete it there for newer
// packages. Without mmdebstrap or a Debian mirror it skips.
func debian(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(strings.Join(recipe(), "\n")))
	dir := filepath.Join(cache, "ward", "workloads")
	file := filepath.Join(dir, suite+"-"+hex.EncodeToString(sum[:8])+".tar")
	if _, err := os.Stat(file); err == nil {
		return file
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skipf("the image cannot be made: %v (make deps-test installs it)", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	old, _ := filepath.Glob(filepath.Join(dir, suite+"-*.tar"))
	tmp, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	start := time.Now()
	made := filepath.Join(tmp, "rootfs.tar")
	cmd := exec.Command("mmdebstrap", append(recipe(), made)...)
	// Its own temporary directory is below ours, which goes whatever happens.
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	if err := os.Chmod(tmp, 0o755); err != nil { // apt's own user has to get in
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("the image cannot be made: %v\n%s", err, out)
	}
	// Renamed into place when whole: other runs, and interrupted ones, do no harm.
	if err := os.Rename(made, file); err != nil {
		t.Fatal(err)
	}
	for _, o := range old {
		_ = os.Remove(o)
	}
	t.Logf("made the image's root file system in %.0f s", time.Since(start).Seconds())
	return file
}

// withSmoke copies a root file system's archive and adds files.
func withSmoke(from string, to io.Writer, files []tar.Header) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	end, err := endOfArchive(f)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	if _, err := io.Copy(to, io.NewSectionReader(f, 0, end)); err != nil {
		return err
	}
	w := tar.NewWriter(to)
	for _, h := range files {
		body := h.PAXRecords["WARD.body"]
		h.PAXRecords, h.Size = nil, int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		if _, err := io.WriteString(w, body); err != nil {
			return err
		}
	}
	return w.Close()
}

// endOfArchive finds the two blocks of zeros that end an archive, which may
// have more of them after it.
func endOfArchive(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	const block = 512
	b, zero := make([]byte, block), make([]byte, block)
	end := st.Size()
	for end >= block {
		if _, err := f.ReadAt(b, end-block); err != nil {
			return 0, err
		}
		if !bytes.Equal(b, zero) {
			break
		}
		end -= block
	}
	if end == st.Size() || end%block != 0 {
		return 0, errors.New("not a whole tar archive")
	}
	return end, nil
}

// smokeFiles are the smoke tests as lab.Rootfs wants additional files.
func smokeFiles(t *testing.T) []tar.Header {
	t.Helper()
	var all []tar.Header
	for _, d := range []string{"usr/", "usr/local/", "usr/local/share/", smokeDir} {
		all = append(all, tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: 0o755, ModTime: time.Unix(1e9, 0)})
	}
	err := fs.WalkDir(smoke, "smoke", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := smoke.ReadFile(p)
		if err != nil {
			return err
		}
		all = append(all, tar.Header{
			Typeflag: tar.TypeReg, Name: smokeDir + d.Name(), Mode: 0o644, ModTime: time.Unix(1e9, 0),
			PAXRecords: map[string]string{"WARD.body": string(b)},
		})
		return nil
	})
	if err != nil || len(all) < 2 {
		t.Fatal(fmt.Errorf("no smoke tests: %w", err))
	}
	return all
}
