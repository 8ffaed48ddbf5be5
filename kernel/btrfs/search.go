package btrfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// key bounds a search in one of the file system's trees (struct btrfs_ioctl_search_key).
type key struct {
	tree                 uint64 // 0 = the subvolume that the file lies in
	minObject, maxObject uint64
	minKind, maxKind     uint32
	minOffset, maxOffset uint64
	since                uint64 // only blocks that this transaction or a later one wrote
}

// header says what an item is.
type header struct {
	transid, object, offset uint64
	kind, size              uint32
}

func little64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) } // as everything on the disk

const keySize, headerSize = 104, 32

// search calls item with all items between the bounds, in the order of their keys, until it returns false. Data is valid during the call.
// It needs CAP_SYS_ADMIN. Bounds hold for the whole key, so an item between them may have any kind or offset.
func search(f *os.File, k key, item func(h header, data []byte) bool) error {
	for {
		var args page
		for n, v := range []uint64{k.tree, k.minObject, k.maxObject, k.minOffset, k.maxOffset, k.since, ^uint64(0)} {
			args.put64(8*n, v)
		}
		args.put32(56, k.minKind)
		args.put32(60, k.maxKind)
		args.put32(64, ^uint32(0)) // as many as there is room for
		if err := ioctl(f, treeSearch, args.pointer()); err != nil {
			return failed("search the trees of", f.Name(), err)
		}
		n := args.u32(64)
		if n == 0 {
			return nil
		}
		at, last := keySize, header{}
		for range n {
			if at+headerSize > len(args) {
				return fmt.Errorf("search the trees of %s: an answer of %d items is cut off", f.Name(), n)
			}
			last = header{args.u64(at), args.u64(at + 8), args.u64(at + 16), args.u32(at + 24), args.u32(at + 28)}
			at += headerSize
			end := at + int(last.size)
			if end > len(args) {
				return fmt.Errorf("search the trees of %s: an answer of %d items is cut off", f.Name(), n)
			}
			if !item(last, args[at:end]) {
				return nil
			}
			at = end
		}
		if !k.after(last) {
			return nil
		}
	}
}

// after moves the lower bound behind the item; false when that is behind the upper bound.
func (k *key) after(h header) bool {
	k.minObject, k.minKind, k.minOffset = h.object, h.kind, h.offset+1
	if k.minOffset == 0 {
		k.minKind++
		if k.minKind > 255 {
			k.minKind = 0
			k.minObject++
			if k.minObject == 0 {
				return false
			}
		}
	}
	if k.minObject != k.maxObject {
		return k.minObject < k.maxObject
	}
	if k.minKind != k.maxKind {
		return k.minKind < k.maxKind
	}
	return k.minOffset <= k.maxOffset
}

// Kinds of items (linux/btrfs_tree.h).
const (
	inodeItem  = 1
	rootRef    = 156 // in the tree of roots: a subvolume (the offset) inside of another (the object)
	extentItem = 108
)

// Own gives the bytes of file content that the subvolume that f is the top of has beyond what the one it is a copy of had then, with those inside of it, which Delete takes too: of extents
// that were written since, as they lie on the disk. It reads only what changed. Call SyncFS before it: what waits in memory has no place yet. It needs CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH.
func Own(f *os.File) (bytes int64, err error) {
	id, err := ID(f)
	if err != nil {
		return 0, err
	}
	refs, err := below(f, id)
	if err != nil {
		return 0, err
	}
	seen := map[uint64]bool{} // by place on the disk: clones of ranges share extents
	for _, r := range refs {
		sub, err := openByID(f, r.id)
		if errors.Is(err, unix.ESTALE) {
			continue // deleted meanwhile
		}
		if err != nil {
			return 0, err
		}
		own, err := own(sub, seen)
		if err = errors.Join(err, sub.Close()); err != nil {
			return 0, err
		}
		bytes += own
	}
	return bytes, nil
}

// own counts one subvolume's extents that are not in seen.
func own(f *os.File, seen map[uint64]bool) (bytes int64, err error) {
	about, err := About(f)
	if err != nil {
		return 0, err
	}
	since := about.Made
	if about.Copy {
		since++ // the transaction that made the snapshot is also the last of its origin that is in it
	}
	err = search(f, key{minObject: topInode, maxObject: ^uint64(0), maxKind: ^uint32(0), maxOffset: ^uint64(0), since: since}, func(h header, data []byte) bool {
		if h.kind != extentItem || len(data) < 21 || little64(data) < since {
			return true
		}
		// struct btrfs_file_extent_item: generation, ram_bytes, compression, encryption, other_encoding (2), type, then
		// the content itself (type 0), or disk_bytenr, disk_num_bytes, offset, num_bytes.
		if data[20] == 0 {
			bytes += int64(len(data) - 21)
			return true
		}
		if len(data) < 53 {
			return true
		}
		place, size := little64(data[21:]), little64(data[29:])
		if place == 0 || seen[place] { // a hole
			return true
		}
		seen[place] = true
		bytes += int64(size)
		return true
	})
	return bytes, err
}

// Inside lists the numbers of the subvolumes right inside of the one with that number, in the file system of f. It needs CAP_SYS_ADMIN.
func Inside(f *os.File, id uint64) (ids []uint64, err error) {
	k := key{tree: rootTree, minObject: id, maxObject: id, minKind: rootRef, maxKind: rootRef, maxOffset: ^uint64(0)}
	err = search(f, k, func(h header, _ []byte) bool {
		if h.object == id && h.kind == rootRef {
			ids = append(ids, h.offset)
		}
		return true
	})
	return ids, err
}

// generationOf reads the generation of a subvolume's top directory, by which a handle of it is known (kernels before 6.2 compare it always).
func generationOf(f *os.File, id uint64) (generation uint32, err error) {
	found := false
	k := key{tree: id, minObject: topInode, maxObject: topInode, minKind: inodeItem, maxKind: inodeItem}
	err = search(f, k, func(_ header, data []byte) bool {
		if found = len(data) >= 8; found {
			generation = uint32(little64(data)) // struct btrfs_inode_item begins with it
		}
		return false
	})
	if errors.Is(err, unix.ENOENT) || err == nil && !found {
		err = unix.ESTALE
	}
	return generation, err
}
