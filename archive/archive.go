// Package archive turns tar streams into directories and back, and undoes the compressions that layers travel in.
//
// It is not a general tar tool: it speaks the dialect of container layers
// (whiteouts, owners, extended attributes, hard links) and keeps no state.
// Invariant: whatever the input says, nothing outside the directory that the
// caller opened is read, written or linked to.
package archive

import (
	"context"
	"io"
	"os"

	"berth/fault"
)

// Compression names the outer format of a stream.
type Compression string

// What Decompress recognises. None is any stream that starts like no other.
const (
	None  Compression = "none"
	Gzip  Compression = "gzip"
	Bzip2 Compression = "bzip2"
	XZ    Compression = "xz"
	Zstd  Compression = "zstd"
)

// Decompress looks at the first bytes of r and returns the plain stream with
// the compression found. Memory is bounded whatever the stream claims. Reading gives
// fault.Corrupt, naming the compression, for truncated or damaged input; r's
// own errors pass unchanged. The caller closes the result, which does not close r.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	return nil, None, fault.New(fault.Unsupported, "decompress: not built yet")
}

// UnpackOptions says how foreign an archive is taken.
type UnpackOptions struct {
	// Whiteouts translates .wh. members into overlay's form: a 0/0 character
	// device, and trusted.overlay.opaque on directories. Unset, they are ordinary files.
	Whiteouts bool
	// MaxBytes bounds the tar stream and, separately, the sum of file sizes; 0 is no bound but the disk's.
	MaxBytes int64
	// MaxMembers bounds the number of members; 0 is no bound.
	MaxMembers int
}

// Unpacked tells what Unpack made.
type Unpacked struct {
	Size    int64    // sum of the regular files' sizes in bytes, holes counted, hard links once
	Implied []string // directories that no member named, parents first, "." for the root itself
}

// Unpack reads a plain tar stream to its end (bytes after the archive's end included, so that a
// digest over the stream is complete) and makes its members beneath root, an open directory that
// stays the caller's. A member that would leave root is fault.Invalid, a damaged stream fault.Corrupt; a
// full disk keeps ENOSPC in the chain. After an error the tree is partial and the caller discards it.
func Unpack(ctx context.Context, tar io.Reader, root *os.File, o UnpackOptions) (Unpacked, error) {
	return Unpacked{}, fault.New(fault.Unsupported, "unpack: not built yet")
}

// PackOptions says what Pack writes.
type PackOptions struct {
	// Whiteouts translates overlay's 0/0 devices and opaque directories into .wh. members.
	Whiteouts bool
}

// Pack writes the tree beneath root as a tar stream with its end marker. The
// same tree gives the same bytes: members sorted by name, times in whole seconds, numeric owners only.
// Sockets are left out. root stays the caller's.
func Pack(ctx context.Context, w io.Writer, root *os.File, o PackOptions) error {
	return fault.New(fault.Unsupported, "pack: not built yet")
}
