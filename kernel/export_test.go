package kernel

import (
	"os"

	"golang.org/x/sys/unix"
)

// OverlayByPath is the way of kernels before 6.7.
var OverlayByPath = overlayByPath

// AufsData and MountAside are the two halves of an aufs mount.
var (
	AufsData   = aufsData
	MountAside = mountAside
)

// IsFirstThread tells whether the caller runs on the thread that never ends.
func IsFirstThread() bool { return unix.Gettid() == os.Getpid() }
