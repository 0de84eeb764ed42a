package launcher

// #cgo LDFLAGS: -Wl,-wrap=clone
import "C" // ocijoin.c
