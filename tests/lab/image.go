package lab

import (
	"archive/tar"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Rootfs writes the root file system of a small image to a tar file: static
// busybox under /bin with a link for each of its tools, and what every image
// has. The entries of extra follow and may replace what came before.
func Rootfs(file string, extra ...tar.Header) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	tools, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("busybox --list: %w", err)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	replaced := map[string]bool{}
	for _, h := range extra {
		replaced[filepath.Clean(h.Name)] = true
	}
	put := func(h tar.Header, body string) {
		if err == nil && !replaced[filepath.Clean(h.Name)] {
			h.Size, h.ModTime = int64(len(body)), time.Unix(1e9, 0)
			if err = w.WriteHeader(&h); err == nil {
				_, err = w.Write([]byte(body))
			}
		}
	}
	for _, d := range []string{"bin/", "dev/", "etc/", "proc/", "root/", "run/", "sys/", "tmp/", "var/"} {
		put(tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: 0o755}, "")
	}
	put(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, string(program))
	for _, tool := range strings.Fields(string(tools)) {
		if tool != "busybox" {
			put(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + tool, Linkname: "busybox", Mode: 0o777}, "")
		}
	}
	put(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")
	put(tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, "root:x:0:\nuser:x:1000:\n")
	clear(replaced)
	for _, h := range extra {
		body := ""
		if h.Typeflag == tar.TypeReg {
			body = h.PAXRecords["WARD.body"]
			h.PAXRecords = nil
		}
		put(h, body)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return f.Close()
}
