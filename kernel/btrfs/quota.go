package btrfs

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"berth/fault"
	"berth/kernel"
)

// Kinds of items in the quota tree (linux/btrfs_tree.h).
const (
	statusItem = 240
	infoItem   = 242
	limitItem  = 244
)

// HasQuota tells whether quotas are on in the file system of f. It needs CAP_SYS_ADMIN.
func HasQuota(f *os.File) (bool, error) {
	_, ok, err := quotaItem(f, statusItem, 0)
	return ok, err
}

// EnableQuota switches quotas on in the whole file system of f, and waits until what is there has been counted, which reads all its metadata. It is no error when they
// are on. From then on deletes of snapshots cost more.
func EnableQuota(f *os.File) error {
	on, err := HasQuota(f)
	if err != nil {
		return err
	}
	if !on {
		args := [2]uint64{1} // struct btrfs_ioctl_quota_ctl_args with BTRFS_QUOTA_CTL_ENABLE
		if err := ioctl(f, quotaCtl, unsafe.Pointer(&args)); err != nil {
			return failed("enable quotas of", f.Name(), err)
		}
	}
	return failed("count for the quotas of", f.Name(), ioctl(f, rescanWait, nil))
}

// Bits of a group's limit: which bounds hold (BTRFS_QGROUP_LIMIT_MAX_RFER, BTRFS_QGROUP_LIMIT_MAX_EXCL).
const (
	boundReferenced = 1 << 0
	boundExclusive  = 1 << 1
)

// Limit bounds the bytes that the subvolume of f refers to, shared ones included, and those of them that only it does; 0 lifts a bound. Writes beyond
// it fail with EDQUOT, for everybody. fault.Unsupported when quotas are off.
func Limit(f *os.File, referenced, exclusive uint64) error {
	var args struct { // struct btrfs_ioctl_qgroup_limit_args; group 0 is that of the subvolume
		group, flags, referenced, exclusive, reservedReferenced, reservedExclusive uint64
	}
	args.flags = boundReferenced | boundExclusive
	args.referenced, args.exclusive = referenced, exclusive
	if referenced == 0 {
		args.referenced = clearBound
	}
	if exclusive == 0 {
		args.exclusive = clearBound
	}
	err := ioctl(f, qgroupLimit, unsafe.Pointer(&args))
	if errors.Is(err, unix.ENOTCONN) {
		return fault.New(fault.Unsupported, "limit the size of %s: quotas of this btrfs are off", f.Name())
	}
	return failed("limit the size of", f.Name(), err)
}

const clearBound = ^uint64(0) // CLEAR_VALUE of fs/btrfs/qgroup.c

// LimitOwn bounds what the subvolume of f takes beyond what it shares with others now. Later copies of it don't widen the bound: what they share with it still counts.
func LimitOwn(f *os.File, bytes uint64) error {
	if err := kernel.SyncFS(f); err != nil { // the count is that of the last transaction
		return err
	}
	referenced, exclusive, ok, err := Usage(f)
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Unsupported, "limit the size of %s: quotas of this btrfs are off", f.Name())
	}
	return Limit(f, referenced-min(referenced, exclusive)+bytes, bytes)
}

// Limited gives the bounds that Limit set, 0 where there is none.
func Limited(f *os.File) (referenced, exclusive uint64, err error) {
	id, err := ID(f)
	if err != nil {
		return 0, 0, err
	}
	item, ok, err := quotaItem(f, limitItem, id) // flags, max_rfer, max_excl, …
	if err != nil || !ok {
		return 0, 0, err
	}
	if item[0]&boundReferenced != 0 {
		referenced = item[1]
	}
	if item[0]&boundExclusive != 0 {
		exclusive = item[2]
	}
	return referenced, exclusive, nil
}

// Usage gives the bytes that the subvolume of f refers to and those of them that only it does, as of the last transaction (a
// SyncFS ends one). ok is false when quotas are off.
func Usage(f *os.File) (referenced, exclusive uint64, ok bool, err error) {
	id, err := ID(f)
	if err != nil {
		return 0, 0, false, err
	}
	item, ok, err := quotaItem(f, infoItem, id) // generation, rfer, rfer_cmpr, excl, excl_cmpr
	return item[1], item[3], ok, err
}

// quotaItem reads one item of the quota tree: for a group of one subvolume the key's offset is the subvolume's number.
func quotaItem(f *os.File, kind uint32, group uint64) (item [5]uint64, ok bool, err error) {
	k := key{tree: quotaTree, minKind: kind, maxKind: kind, minOffset: group, maxOffset: group}
	err = search(f, k, func(h header, data []byte) bool {
		for n := range item {
			if len(data) >= 8*n+8 {
				item[n] = little64(data[8*n:])
			}
		}
		ok = true
		return false
	})
	if errors.Is(err, unix.ENOENT) { // no quota tree
		return item, false, nil
	}
	return item, ok, err
}

// dropGroup removes the quota group of a subvolume that is gone. Newer kernels do so themselves, and where quotas are off there is none: what can't be removed stays, empty.
func dropGroup(dir *os.File, id uint64) {
	args := [2]uint64{0, id} // struct btrfs_ioctl_qgroup_create_args
	_ = ioctl(dir, qgroupCreate, unsafe.Pointer(&args))
}
