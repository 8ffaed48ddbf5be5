package thin

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"berth/fault"
	"berth/kernel/dm"
)

func TestOptions(t *testing.T) {
	o, err := parse([]string{"dm.basesize=20G", "DM.fs=xfs", "dm.mkfsarg=-i", "dm.mkfsarg=size=512", "mountopt=defaults,nodiscard, barrier=0",
		"dm.loopdatasize=1.5T", "dm.loopmetadatasize=4GiB", "dm.blocksize=512K", "dm.min_free_space=5%", "dm.use_deferred_removal=false",
		"dm.use_deferred_deletion=true", "dm.override_udev_sync_check=true"})
	if err != nil {
		t.Fatal(err)
	}
	if o.baseSize != 20<<30 || o.fs != "xfs" || !slices.Equal(o.mkfs, []string{"-i", "size=512"}) || !slices.Equal(o.mount, []string{"nodiscard", "barrier=0"}) ||
		o.loopData != 3<<39 || o.loopMetadata != 4<<30 || o.block != 512<<10 || o.minFree != 5 || o.deferred || !o.discard {
		t.Errorf("%+v", o)
	}
	if o, err := parse([]string{"dm.thinpooldev=/dev/mapper/docker-thinpool"}); err != nil || o.pool != "docker-thinpool" || o.discard {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := parse([]string{"dm.datadev=/dev/sdb", "dm.metadatadev=/dev/sdc", "dm.blkdiscard=true"}); err != nil || o.dataDev != "/dev/sdb" || !o.discard {
		t.Errorf("%+v, %v", o, err)
	}
	o, err = parse(nil)
	if err != nil || o.baseSize != 10<<30 || o.loopData != 100<<30 || o.loopMetadata != 2<<30 || o.fs != "ext4" || o.block != 64<<10 || o.minFree != 10 {
		t.Errorf("defaults %+v, %v", o, err)
	}
}

func TestWrongOptions(t *testing.T) {
	for _, c := range []struct{ option, says string }{
		{"dm.nosuch=1", "unknown option \"dm.nosuch\": use one"},
		{"size=10G", "unknown option"},
		{"dm.basesize", "needs a value"},
		{"dm.basesize=", "needs a value"},
		{"dm.basesize=much", "a size such as 20G"},
		{"dm.basesize=-1G", "a size such as 20G"},
		{"dm.basesize=NaN", "a size such as 20G"},
		{"dm.basesize=9999999P", "a size such as 20G"},
		{"dm.fs=btrfs", "use one of ext4, xfs"},
		{"dm.blocksize=100K", "multiple of 64K"},
		{"dm.min_free_space=100%", "percentage"},
		{"dm.use_deferred_removal=perhaps", "true or false"},
		{"dm.use_deferred_deletion=false", "tried again"},
		{"dm.datadev=/dev/sdb", "belong together"},
		{"dm.thinpooldev=/dev/vg/pool", "below /dev/mapper"},
		{"dm.mountopt=nodiscard,noatime", "noatime is not an option"},
		{"dm.directlvm_device=/dev/sdb", "unknown option"},
	} {
		says := strings.Replace(c.says, ": use one", "", 1)
		if _, err := parse([]string{c.option}); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", c.option, err)
		}
	}
	if _, err := parse([]string{"dm.thinpooldev=pool", "dm.loopdatasize=1G"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("a given pool with a size: %v", err)
	}
}

func TestHuman(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 999: "999B", 65536: "65.54kB", 10 << 30: "10.74GB", 100 << 30: "107.4GB", 1e15: "1PB"} {
		if got := human(n); got != want {
			t.Errorf("%d is written %s, not %s", n, got, want)
		}
	}
}

// TestWhatTheKernelIsTold has the tables and commands word for word.
func TestWhatTheKernelIsTold(t *testing.T) {
	if got, want := poolTable("7:0", "7:1", 100<<30, 64<<10), (dm.Target{Length: 209715200, Type: "thin-pool",
		Params: "7:0 7:1 128 16384 2 skip_block_zeroing error_if_no_space"}); got != want {
		t.Errorf("pool %+v", got)
	}
	if got, want := poolTable("8:1", "8:2", 1<<30+5000, 64<<10).Length, uint64(1<<30/512); got != want {
		t.Errorf("a disk that is no multiple of the block: %d sectors, not %d", got, want)
	}
	if got, want := volumeTable("253:0", volume{ID: 7, Bytes: 10 << 30}), (dm.Target{Length: 20971520, Type: "thin", Params: "253:0 7"}); got != want {
		t.Errorf("volume %+v", got)
	}
	for _, c := range []struct {
		got, want string
	}{
		{makeMessage(3), "create_thin 3"},
		{copyMessage(4, 3), "create_snap 4 3"},
		{deleteMessage(4), "delete 4"},
		{claimMessage(), "set_transaction_id 0 1"},
		{strings.Join(mkfs("ext4", []string{"-J", "size=4"}, "/dev/dm-1"), " "), "mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=1,lazy_journal_init=0 -J size=4 /dev/dm-1"},
		{strings.Join(mkfs("xfs", nil, "/dev/dm-1"), " "), "mkfs.xfs -q -f -K /dev/dm-1"},
		{strings.Join(mountOptions(volume{FS: "ext4"}, []string{"nodiscard", "discard"}), ","), "discard,noinit_itable,nodiscard"},
		{strings.Join(mountOptions(volume{FS: "ext4", Frozen: true}, nil), ","), "noload,ro"},
		{strings.Join(mountOptions(volume{FS: "xfs"}, nil), ","), "nouuid,discard"},
		{strings.Join(mountOptions(volume{FS: "xfs", Frozen: true}, nil), ","), "nouuid,norecovery,ro"},
	} {
		if c.got != c.want {
			t.Errorf("%q, not %q", c.got, c.want)
		}
	}
	if n, err := blockSize("7:0 7:1 128 16384 1 skip_block_zeroing"); err != nil || n != 64<<10 {
		t.Errorf("block size %d, %v", n, err)
	}
}

func TestState(t *testing.T) {
	s, err := parseState("1 423/4096 188/32768 - rw discard_passdown error_if_no_space - 1024 ")
	want := state{transaction: 1, metadata: space{423, 4096}, data: space{188, 32768}, mode: "rw", readable: true, errorsIfFull: true}
	if err != nil || s != want {
		t.Errorf("%+v, %v", s, err)
	}
	if err := s.trouble("p", 10); err != nil {
		t.Errorf("of a pool that is fine: %v", err)
	}
	for _, c := range []struct{ text, says string }{
		{"1 423/4096 30000/32768 77 rw discard_passdown error_if_no_space - 1024", "2768 free data blocks which is less than minimum required 3276"},
		{"1 4000/4096 188/32768 - rw discard_passdown error_if_no_space - 1024", "96 free metadata blocks which is less than minimum required 409"},
		{"1 423/4096 32768/32768 - out_of_data_space discard_passdown error_if_no_space - 1024", "full"},
		{"1 423/4096 188/32768 - ro no_discard_passdown error_if_no_space - 1024", "mode ro"},
		{"1 423/4096 188/32768 - ro no_discard_passdown error_if_no_space needs_check 1024", "thin_check"},
		{"Fail", "damaged"},
		{"Error", "damaged"},
	} {
		s, err := parseState(c.text)
		if err != nil {
			t.Error(err)
			continue
		}
		if err := s.trouble("p", 10); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.text, err)
		}
	}
	if s, err := parseState("1 423/4096 188/32768 77 rw"); err != nil || s.held != 77 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, text := range []string{"", "1 2/3", "x 423/4096 188/32768 - rw", "1 423 188/32768 - rw", "1 423/4096 188/32768 y rw"} {
		if s, err := parseState(text); !errors.Is(err, fault.Corrupt) {
			t.Errorf("%q: %+v, %v", text, s, err)
		}
	}
}

// FuzzState is about a status of a kernel that writes it otherwise.
func FuzzState(f *testing.F) {
	f.Add("1 423/4096 188/32768 - rw discard_passdown error_if_no_space - 1024 ")
	f.Add("Fail")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := parseState(text); err == nil {
			s.trouble("p", 10)
		}
	})
}

// disk is metadata made by hand.
type disk []byte

func (d disk) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at >= int64(len(d)) {
		return 0, io.EOF
	}
	n := copy(b, d[at:])
	if n < len(b) {
		return n, io.ErrUnexpectedEOF
	}
	return n, nil
}

// put writes a node of a tree.
func (d disk) put(block uint64, leaf bool, size int, pairs ...[2]uint64) {
	b := d[block*metadataBlock:]
	const most = 100
	flags := uint32(internalNode)
	if leaf {
		flags = leafNode
	}
	le := binary.LittleEndian
	le.PutUint32(b[4:], flags)
	le.PutUint64(b[8:], block)
	le.PutUint32(b[16:], uint32(len(pairs)))
	le.PutUint32(b[20:], most)
	le.PutUint32(b[24:], uint32(size))
	for i, p := range pairs {
		le.PutUint64(b[nodeHeader+8*i:], p[0])
		value := b[nodeHeader+8*most+size*i:]
		if size == detailSize {
			le.PutUint32(value[creationAt:], uint32(p[1]))
		} else {
			le.PutUint64(value, p[1])
		}
	}
}

// metadataOf is a pool with volume 1, made at time 0, and its copy 2, made at time 3.
func metadataOf() disk {
	d := make(disk, 8*metadataBlock)
	le := binary.LittleEndian
	le.PutUint64(d[superMagicAt:], superMagic)
	le.PutUint64(d[mappingsAt:], 1)
	le.PutUint64(d[detailsAt:], 2)
	d.put(1, true, 8, [2]uint64{1, 3}, [2]uint64{2, 4})
	d.put(2, true, detailSize, [2]uint64{1, 0}, [2]uint64{2, 3})
	d.put(3, true, 8, [2]uint64{0, 10 << timeBits}, [2]uint64{5, 11<<timeBits | 1})
	d.put(4, false, 8, [2]uint64{0, 5}, [2]uint64{7, 6})
	d.put(5, true, 8, [2]uint64{0, 10 << timeBits}, [2]uint64{5, 12<<timeBits | 3})
	d.put(6, true, 8, [2]uint64{7, 13<<timeBits | 4}, [2]uint64{9, 14<<timeBits | 2})
	return d
}

func TestExclusiveBlocks(t *testing.T) {
	for volume, want := range map[uint64]uint64{1: 2, 2: 2} {
		m := metadata{metadataOf(), 100}
		if n, err := m.exclusive(0, volume); err != nil || n != want {
			t.Errorf("volume %d has %d blocks of its own, %v", volume, n, err)
		}
	}
	for _, volume := range []uint64{0, 3} {
		m := metadata{metadataOf(), 100}
		if _, err := m.exclusive(0, volume); !errors.Is(err, fault.NotFound) {
			t.Errorf("volume %d: %v", volume, err)
		}
	}
	circle := metadataOf()
	circle.put(4, false, 8, [2]uint64{0, 4}, [2]uint64{7, 4})
	m := metadata{circle, 100}
	if _, err := m.exclusive(0, 2); !errors.Is(err, fault.Corrupt) {
		t.Errorf("a tree in circles: %v", err)
	}
}

// FuzzMetadata is about a damaged disk.
func FuzzMetadata(f *testing.F) {
	f.Add([]byte(metadataOf()))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := metadata{disk(data), 1000}
		m.exclusive(0, 2)
	})
}
