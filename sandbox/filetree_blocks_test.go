package sandbox_test

import (
	"io/fs"
	"syscall"
)

func blocks(st fs.FileInfo) int64 { return st.Sys().(*syscall.Stat_t).Blocks }
