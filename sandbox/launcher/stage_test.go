package launcher

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestStageIsOnePiece: the stage's section is loaded without the rest of the
// program, so nothing in it may point outside.
func TestStageIsOnePiece(t *testing.T) {
	for _, optimize := range []string{"-O0", "-O1", "-O2", "-O3", "-Os"} {
		object := filepath.Join(t.TempDir(), "stage.o")
		cc := os.Getenv("CC")
		if cc == "" {
			cc = "gcc"
		}
		if out, err := exec.Command(cc, optimize, "-c", "-Wall", "-Werror", "-o", object, "stage.c").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		f, err := elf.Open(object)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if s := f.Section("ward_stage"); s == nil || s.Flags&elf.SHF_WRITE != 0 || s.Size > 12<<10 {
			t.Fatalf("section: %+v", s)
		}
		for _, s := range f.Sections {
			switch {
			case s.Name == ".rela.ward_stage" && s.Size > 0:
				t.Errorf("%s: %d places in the stage point outside", optimize, s.Size/24)
			case s.Flags&elf.SHF_ALLOC != 0 && s.Size > 0 && s.Name != "ward_stage" && s.Name != ".eh_frame" && s.Name != ".note.gnu.property":
				t.Errorf("%s: %d bytes are in section %s", optimize, s.Size, s.Name)
			}
		}
	}
}

// TestElf reads the stage's program as the kernel does.
func TestElf(t *testing.T) {
	f, err := executableFile()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Mode().Perm() != stageMode {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, err := f.Read(make([]byte, 1)); err == nil {
		t.Error("the program can be read by its descriptor")
	}
}

// TestLandlockFails: what the kernel does not take ends the stage, and is said.
func TestLandlockFails(t *testing.T) {
	err := stageError("x", []byte{0, stepLandlock, 0, 0, 22, 0, 0, 0})
	if err == nil || !strings.Contains(err.Error(), "invalid argument") {
		t.Errorf("%v", err)
	}
}
