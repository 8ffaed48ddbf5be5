package btrfs

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"berth/fault"
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

// Limit bounds the bytes that the subvolume of f refers to, shared ones included; 0 lifts the bound. Writes beyond it fail with EDQUOT,
// for everybody. fault.Unsupported when quotas are off.
func Limit(f *os.File, bytes uint64) error {
	var args struct { // struct btrfs_ioctl_qgroup_limit_args; group 0 is that of the subvolume
		group, flags, referenced, exclusive, reservedReferenced, reservedExclusive uint64
	}
	args.flags, args.referenced = 1, bytes // BTRFS_QGROUP_LIMIT_MAX_RFER
	if bytes == 0 {
		args.referenced = ^uint64(0) // CLEAR_VALUE of fs/btrfs/qgroup.c
	}
	err := ioctl(f, qgroupLimit, unsafe.Pointer(&args))
	if errors.Is(err, unix.ENOTCONN) {
		return fault.New(fault.Unsupported, "limit the size of %s: quotas of this btrfs are off", f.Name())
	}
	return failed("limit the size of", f.Name(), err)
}

// Limited is the bound that Limit set, 0 when there is none.
func Limited(f *os.File) (uint64, error) {
	id, err := ID(f)
	if err != nil {
		return 0, err
	}
	item, ok, err := quotaItem(f, limitItem, id) // flags, max_rfer, …
	if err != nil || !ok || item[0]&1 == 0 {
		return 0, err
	}
	return item[1], nil
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
