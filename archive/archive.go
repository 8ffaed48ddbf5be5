// Package archive turns tar streams into directories and back.
//
// It is not a general tar tool: it speaks the dialect of container layers
// (whiteouts, owners, extended attributes, hard links) and keeps no state.
// Invariant: whatever the input says, nothing outside the directory that the
// caller opened is read, written or linked to.
package archive

import (
	"path"
	"strings"

	"berth/fault"
	"berth/kernel"
)

// A layer's tar says "this is gone" by a member .wh.NAME, and "nothing from below shows
// in here" by .wh..wh..opq in the directory (OCI image-spec, layer.md, "Whiteouts").
// Other names with the double prefix were aufs' own bookkeeping and mean nothing.
const (
	whiteoutPrefix = ".wh."
	metaPrefix     = ".wh..wh."
	opaqueName     = ".wh..wh..opq"
)

// The overlay file system says the same by a 0/0 character device and by this attribute on
// the directory (the kernel's Documentation/filesystems/overlayfs.rst).
const opaqueXattr = "trusted.overlay.opaque"

// isWhiteout tells overlay's mark of a deleted name.
func isWhiteout(mode uint32, rdev uint64) bool {
	return mode&kernel.TypeMask == kernel.TypeChar && rdev == 0
}

// Carries tells whether an extended attribute travels in archives. Those of the union file
// system itself would let an archive hide or redirect what lies below it, and labels
// of a security module belong to the host that set them.
func Carries(attr string) bool {
	switch {
	case strings.HasPrefix(attr, "trusted.overlay."), strings.HasPrefix(attr, "user.overlay."), strings.HasPrefix(attr, "user.fuseoverlayfs."):
		return false
	case attr == "security.capability", strings.HasPrefix(attr, "system.posix_acl_"):
		return true
	}
	return strings.HasPrefix(attr, "user.") || strings.HasPrefix(attr, "trusted.")
}

// maxPath is the kernel's PATH_MAX, the final zero included (linux/limits.h).
const maxPath = 4096

// memberPath gives a member's path below the root: "." for the root itself,
// leading slashes dropped as tar does. A name that climbs out of the root, or that no system call takes, is fault.Invalid.
func memberPath(name string) (string, error) {
	if len(name) >= maxPath {
		return "", fault.New(fault.Invalid, "the archive has a member with a path of %d bytes, %q…: file name too long", len(name), name[:64])
	}
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return "", fault.New(fault.Invalid, "the archive's member %s leaves the directory", shown(name))
			}
		default:
			depth++
		}
	}
	return path.Clean("./" + strings.TrimLeft(name, "/")), nil
}
