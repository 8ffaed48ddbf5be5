package archive

import (
	"os"
	"sync/atomic"

	"berth/fault"
	"berth/kernel"
)

// Budget is what the members of several archives, such as all layers of an image, may take on disk together: bytes in blocks as they are
// allocated, so that holes are free, and files of any kind. What a later member replaces counts, too. Its methods may be called concurrently.
type Budget struct {
	maxBytes, maxFiles int64
	bytes, files       atomic.Int64
}

// NewBudget bounds bytes and files; 0 is no bound but the disk's.
func NewBudget(bytes, files int64) *Budget { return &Budget{maxBytes: bytes, maxFiles: files} }

// Charge counts all that another budget has counted so far.
func (b *Budget) Charge(other *Budget) error { return b.Take(other.bytes.Load(), other.files.Load()) }

// Take counts what is about to be made, and refuses what is too much with fault.Invalid.
func (b *Budget) Take(bytes, files int64) error {
	if n := b.bytes.Add(bytes); b.maxBytes > 0 && (n > b.maxBytes || n < 0) {
		return fault.New(fault.Invalid, "the image takes more than the %d bytes that one image may take on disk (max-image-size of the daemon)", b.maxBytes)
	}
	if n := b.files.Add(files); b.maxFiles > 0 && n > b.maxFiles {
		return fault.New(fault.Invalid, "the image has more than the %d files that one image may have (max-image-files of the daemon)", b.maxFiles)
	}
	return nil
}

// blockSize is the unit in bytes that files are allocated in, nearly everywhere.
const blockSize = 4096

func roundUp(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

// How much is made between two looks at what the file system has left.
const (
	lookBytes = 32 << 20
	lookFiles = 2000
)

// meter is one archive's part in a budget; without a budget nothing is counted.
type meter struct {
	of           *Budget
	root         *os.File
	bytes, files int64 // since the last look at the disk
	looked       bool
}

// take counts what is about to be made.
func (m *meter) take(bytes, files int64) error {
	if m.of == nil {
		return nil
	}
	m.bytes, m.files = m.bytes+bytes, m.files+files
	if !m.looked || m.bytes >= lookBytes || m.files >= lookFiles {
		m.bytes, m.files, m.looked = 0, 0, true
		if err := kernel.Room(m.root); err != nil {
			return err
		}
	}
	return m.of.Take(bytes, files)
}
