package launcher

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ward-project/ward/internal/fault"
	"github.com/ward-project/ward/sandbox"
)

// maxInit bounds the size of ward-init.
const maxInit = 16 << 20

// initMode lets everybody in the container read it too: a program that cannot
// be read makes its process one that nobody can look at, and ps would not show
// the container's first process.
const initMode = 0o555

// initProgram is ward-init as a memory file, by a descriptor that cannot write
// it. As a mount it would need a place in the image's tree, and a bind would
// show a path of the host's; this way the container's tree is as without it.
func initProgram() (*os.File, error) {
	// By the kernel's own word and never through PATH: beside this program.
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	content, err := readInit(filepath.Join(filepath.Dir(self), sandbox.InitName))
	if err != nil {
		return nil, err
	}
	f, err := sealedFile(sandbox.InitName, content)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Chmod(initMode); err != nil {
		return nil, err
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), sandbox.InitName), nil
}

// readInit reads the program at path if not everybody can change it, as with
// the launcher itself, and if it is of this program's build. What is checked is what is returned.
func readInit(path string) ([]byte, error) {
	const remedy = "install ward-init beside ward-launch (make install), or run without --init"
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Unavailable, "init.missing", "there is no "+path, remedy)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "init.missing", err, remedy)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 || st.Size > maxInit:
		return nil, fault.New(fault.Unavailable, "init.missing", path+" is not a program", remedy)
	case st.Mode&0o002 != 0:
		return nil, fault.New(fault.Denied, "init.writable", path+" can be replaced by any user", "chmod o-w "+path)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxInit))
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(content, []byte(sandbox.InitName+":"+sandbox.Build+":")) {
		return nil, fault.New(fault.Unavailable, "init.build", fmt.Sprintf("%s is not of build %q, as this launcher is", path, sandbox.Build),
			"install ward-launch and ward-init from the same build")
	}
	return content, nil
}
