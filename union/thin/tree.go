package thin

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"berth/fault"
	"berth/internal/record"
	"berth/kernel"
	"berth/kernel/block"
	"berth/kernel/dm"
)

// Mount says how a tree is mounted (see kernel.NewMount).
type Mount = struct {
	Type, Source string
	Options      []string
}

// tree is one volume; mu is held over what is done with its device.
type tree struct {
	name string
	mu   sync.Mutex
	volume
}

// volume is a tree's record.
type volume struct {
	ID     uint32 // in the pool
	FS     string
	Bytes  int64 // the volume's size
	Grown  int64 // up to where the file system was grown
	Ready  bool  `json:",omitzero"` // of a base: has its file system
	Frozen bool  `json:",omitzero"`
}

// maxID is the last number for a volume, which have 24 bits (thin-provisioning.rst).
const maxID = 1<<24 - 1

var names = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9-]{1,64}$`) })

// load reads the records.
func (t *Trees) load() error {
	entries, err := os.ReadDir(t.path("trees"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		r := &tree{name: e.Name()}
		if err := record.Load(t.path("trees", r.name), &r.volume); err != nil {
			return err
		}
		t.trees[r.name] = r
		t.ids[r.ID] = true
		t.last = max(t.last, r.ID)
	}
	return nil
}

func (t *Trees) find(name string) (*tree, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.trees[name]
	if r == nil {
		return nil, fault.New(fault.NotFound, "devicemapper: no such tree: %s", name)
	}
	return r, nil
}

// add records a tree with a number of its own, before there is a volume.
func (t *Trees) add(r *tree) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.trees[r.name] != nil {
		return fault.New(fault.Exists, "devicemapper: tree %s is there already", r.name)
	}
	for range maxID {
		if t.last++; t.last > maxID {
			t.last = 1
		}
		if t.ids[t.last] {
			continue
		}
		r.ID = t.last
		if err := t.save(r); err != nil {
			return err
		}
		t.ids[r.ID] = true
		t.trees[r.name] = r
		return nil
	}
	return fault.New(fault.Unavailable, "devicemapper: thin pool %s has no number left for a volume", t.pool.name)
}

func (t *Trees) save(r *tree) error { return record.Save(t.path("trees", r.name), r.volume) }

// drop forgets a tree whose volume is gone.
func (t *Trees) drop(r *tree) error {
	if err := os.Remove(t.path("trees", r.name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.trees, r.name)
	delete(t.ids, r.ID)
	return nil
}

// List lists all trees, half-made ones too.
func (t *Trees) List() ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []string
	for name := range t.trees {
		if names().MatchString(name) { // bases are ours alone
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list, nil
}

// Make makes a tree as a snapshot of another, or of an empty file system for "".
func (t *Trees) Make(name, from string) error {
	if !names().MatchString(name) {
		return fault.New(fault.Invalid, "devicemapper: tree name %q", name)
	}
	if from == "" {
		from = baseName(t.options.fs)
	}
	origin, err := t.find(from)
	if err != nil {
		return err
	}
	if err := t.room(); err != nil {
		return err
	}
	origin.mu.Lock()
	defer origin.mu.Unlock()
	r := &tree{name: name, volume: volume{FS: origin.FS, Bytes: origin.Bytes, Grown: origin.Grown}}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := t.add(r); err != nil {
		return err
	}
	if err := t.snapshot(r, origin); err != nil {
		return errors.Join(fmt.Errorf("make tree %s: %w", name, err), t.drop(r))
	}
	return nil
}

// room refuses new trees when the pool, or what holds its data file, is nearly full.
func (p *pool) room() error {
	s, err := p.state(false)
	if err != nil {
		return err
	}
	if err := s.trouble(p.name, p.options.minFree); err != nil {
		return err
	}
	if p.options.minFree == 0 || p.options.pool != "" || p.options.dataDev != "" {
		return nil
	}
	dir, err := os.Open(p.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := kernel.Room(dir); err != nil {
		return fault.New(fault.Unavailable, "devicemapper: the file system of %s: %w", p.path("data"), err)
	}
	return nil
}

// snapshot makes r's volume as origin is now. An origin in use is held back meanwhile, its file system brought to a
// state that is whole.
func (t *Trees) snapshot(r, origin *tree) (err error) {
	device := t.prefix + origin.name
	info, err := t.dm.Info(device)
	if err == nil && info.Live && !info.Suspended {
		held := t.dm.Suspend(device)
		if held != nil && !errors.Is(held, fault.NotFound) { // it may be on its way out
			return held
		}
		if held == nil {
			defer func() {
				_, resumeErr := t.dm.Resume(device)
				err = errors.Join(err, resumeErr)
			}()
		}
	} else if err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	_, err = t.dm.Message(t.pool.name, copyMessage(r.ID, origin.ID))
	return err
}

// volumeTable is a volume of the pool.
func volumeTable(pool string, v volume) dm.Target {
	return dm.Target{Length: uint64(v.Bytes / dm.Sector), Type: "thin", Params: fmt.Sprintf("%s %d", pool, v.ID)}
}

// What the pool is asked for (thin-provisioning.rst). It has done it, on the disk, when it answers.
func makeMessage(id uint32) string         { return fmt.Sprintf("create_thin %d", id) }
func copyMessage(id, origin uint32) string { return fmt.Sprintf("create_snap %d %d", id, origin) }
func deleteMessage(id uint32) string       { return fmt.Sprintf("delete %d", id) }
func claimMessage() string                 { return fmt.Sprintf("set_transaction_id 0 %d", ours) }

// patience bounds waiting for others who hold a device for a moment: udev when it appears, a process between fork and
// exec which has inherited our descriptor of a mount.
const patience = 10 * time.Second

// activate makes the device of r and returns its state. r.mu is held.
func (t *Trees) activate(r *tree) (dm.Info, error) {
	device := t.prefix + r.name
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		info, err := t.dm.Info(device)
		if err == nil && info.Deferred {
			if err = t.dm.Keep(device); err == nil {
				continue
			}
			if (errors.Is(err, fault.NotFound) || errors.Is(err, fault.Conflict)) && time.Now().Before(end) {
				continue // it is going, or gone
			}
			return info, err
		}
		switch {
		case err == nil && info.Live && !info.Suspended:
			return info, nil
		case errors.Is(err, fault.NotFound):
			_, err = t.dm.Create(device)
			if errors.Is(err, fault.Exists) && time.Now().Before(end) {
				continue
			}
		}
		if err != nil {
			return info, err
		}
		if err = t.reload(r); err == nil {
			return t.dm.Info(device)
		}
		return info, errors.Join(err, t.dm.Remove(device, true))
	}
}

// reload gives the device of r the table that belongs to its record.
func (t *Trees) reload(r *tree) error {
	pool, err := t.dm.Info(t.pool.name)
	if err != nil {
		return err
	}
	device := t.prefix + r.name
	if err := t.dm.Load(device, r.Frozen, volumeTable(pool.Numbers(), r.volume)); err != nil {
		return err
	}
	_, err = t.dm.Resume(device)
	return err
}

// deactivate removes the device of r: fault.Conflict while it is held, unless that is deferred. r.mu is held.
func (t *Trees) deactivate(r *tree, deferred bool) error {
	device := t.prefix + r.name
	info, err := t.dm.Info(device)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err == nil {
		err = t.dm.Remove(device, deferred)
	}
	if errors.Is(err, fault.NotFound) {
		err = nil // a deferred removal came first
	}
	if err == nil && !deferred {
		err = t.dm.DropNode(info)
	}
	return err
}

// settle removes the device of r as soon as those who hold it for a moment let go. r.mu is held.
func (t *Trees) settle(r *tree) error {
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := t.deactivate(r, false)
		if !errors.Is(err, fault.Conflict) || time.Now().After(end) {
			return err
		}
	}
}

// Remove removes a tree: fault.Conflict while it is mounted. An absent one is no error.
func (t *Trees) Remove(name string) error {
	r, err := t.find(name)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := t.dm.Info(t.prefix + name)
	if err == nil && info.Open > 0 {
		return fault.New(fault.Conflict, "devicemapper: tree %s is mounted", name)
	}
	if t.options.discard {
		if err := t.discard(r); err != nil {
			return fmt.Errorf("remove tree %s: %w", name, err)
		}
	}
	if err = t.settle(r); err == nil {
		_, err = t.dm.Message(t.pool.name, deleteMessage(r.ID))
	}
	if err != nil && !errors.Is(err, fault.NotFound) { // not found: it never was made, or a killed process deleted it
		return fmt.Errorf("remove tree %s: %w", name, err)
	}
	return t.drop(r)
}

// discard gives the blocks that only r has back to the disk below, which deleting does not do.
func (t *Trees) discard(r *tree) error {
	v := r.volume
	r.Frozen = false // for the device: nobody writes any more
	defer func() { r.volume = v }()
	if err := t.settle(r); err != nil {
		return err
	}
	info, err := t.activate(r)
	if err != nil {
		if errors.Is(err, fault.NotFound) {
			return nil // there is no such volume
		}
		return err
	}
	node, err := t.dm.Node(info)
	if err != nil {
		return err
	}
	dev, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = block.Discard(dev)
	fault.Close(dev, &err)
	if errors.Is(err, fault.Unsupported) {
		return nil
	}
	return err
}

// Mount makes the tree's device, when that isn't there, and tells how it is mounted.
func (t *Trees) Mount(name string) (Mount, error) {
	r, err := t.find(name)
	if err != nil {
		return Mount{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m, err := t.mount(r)
	if err == nil && r.Grown < r.Bytes && !r.Frozen { // a growing was cut short
		err = t.grow(r, m)
	}
	if err != nil {
		return Mount{}, fmt.Errorf("mount tree %s: %w", name, err)
	}
	t.lend(name, time.Now().Add(grace))
	return m, nil
}

// Data tells tools where a tree is, in the words of Docker's driver. Its device is there only while somebody has it mounted.
func (t *Trees) Data(name string) map[string]string {
	r, err := t.find(name)
	if err != nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return map[string]string{"DeviceId": strconv.Itoa(int(r.ID)), "DeviceName": t.prefix + name, "DeviceSize": strconv.FormatInt(r.Bytes, 10)}
}

func (t *Trees) mount(r *tree) (Mount, error) {
	info, err := t.activate(r)
	if err != nil {
		return Mount{}, err
	}
	node, err := t.dm.Node(info)
	if err != nil {
		return Mount{}, err
	}
	return Mount{Type: r.FS, Source: node, Options: mountOptions(r.volume, t.options.mount)}, nil
}

// mountOptions of a volume. Removed files give their blocks back to the pool. ext4 is not to write the inode tables that mkfs left out,
// as each snapshot would have its own copy of them; xfs is to bear that all snapshots have one UUID.
func mountOptions(v volume, more []string) []string {
	var list []string
	switch {
	case v.Frozen && v.FS == "xfs":
		list = []string{"nouuid", "norecovery", "ro"}
	case v.Frozen:
		list = []string{"noload", "ro"}
	case v.FS == "xfs":
		list = []string{"nouuid", "discard"}
	default:
		list = []string{"discard", "noinit_itable"}
	}
	for _, o := range more {
		if o = strings.TrimSpace(o); o != "" && !slices.Contains(list, o) {
			list = append(list, o)
		}
	}
	return list
}

// Unmounted lets the tree's device go soon, or when the last mount of it ends.
func (t *Trees) Unmounted(name string) error {
	if _, err := t.find(name); err == nil {
		t.lend(name, time.Now().Add(linger))
	}
	return nil
}

// Freeze makes the tree read-only for everybody: fault.Conflict while it is mounted.
func (t *Trees) Freeze(name string) error {
	r, err := t.find(name)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Frozen {
		return nil
	}
	if err := t.settle(r); err != nil {
		return fmt.Errorf("freeze tree %s: %w", name, err)
	}
	r.Frozen = true
	if err := t.save(r); err != nil {
		r.Frozen = false
		return err
	}
	return nil
}

// Sync makes what was written to the tree survive a power cut.
func (t *Trees) Sync(name string) error {
	r, err := t.find(name)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if info, err := t.dm.Info(t.prefix + name); err == nil && info.Live && !info.Suspended && !r.Frozen {
		if err := t.syncMounted(r); err != nil {
			return fmt.Errorf("sync tree %s: %w", name, err)
		}
	}
	_, err = t.state(true) // which commits the pool's metadata, data first
	return err
}

// syncMounted writes back the file system on an active device; a detached mount of it for a moment reaches that which others have mounted.
func (t *Trees) syncMounted(r *tree) error {
	m, err := t.mount(r)
	if err != nil {
		return err
	}
	return within(m, kernel.SyncFS)
}

// within calls fn with the top of a mount that nobody else sees.
func within(m Mount, fn func(dir *os.File) error) (err error) {
	mounted, err := kernel.NewMount(m.Type, m.Source, m.Options, 0)
	if err != nil {
		return err
	}
	defer fault.Close(mounted, &err)
	dir, err := kernel.OpenIn(mounted, ".", kernel.ODirectory, 0, 0)
	if err != nil {
		return err
	}
	defer fault.Close(dir, &err)
	return fn(dir)
}

// Limit sets the size of the whole tree, of what its origin has too: fault.Invalid below what it has.
func (t *Trees) Limit(name string, size int64) error {
	r, err := t.find(name)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return t.limit(r, size)
}

func (t *Trees) limit(r *tree, size int64) error {
	size = size / t.blocks * t.blocks
	switch {
	case r.Frozen:
		return fault.New(fault.Conflict, "devicemapper: tree %s is read-only", r.name)
	case size < r.Bytes:
		return fault.New(fault.Invalid, "devicemapper: a size of %s is below the %s that the base device has (dm.basesize)", human(size), human(r.Bytes))
	case size > r.Bytes:
		was := r.Bytes
		r.Bytes = size
		if err := t.save(r); err != nil {
			r.Bytes = was
			return err
		}
	}
	if r.Grown == r.Bytes {
		return nil
	}
	info, err := t.dm.Info(t.prefix + r.name)
	active := err == nil && info.Live
	if active {
		err = t.reload(r)
	}
	if err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	m, err := t.mount(r)
	if err == nil {
		err = t.grow(r, m)
	}
	if !active {
		err = errors.Join(err, t.deactivate(r, t.options.deferred))
	}
	return err
}

// grow lets the file system have the whole device, mounted by others or not.
func (t *Trees) grow(r *tree, m Mount) error {
	err := within(m, func(dir *os.File) error { return block.Grow(dir, r.Bytes) })
	if err != nil {
		return err
	}
	r.Grown = r.Bytes
	return t.save(r)
}

// Usage is how many bytes of the pool the tree has that its origin has not.
func (t *Trees) Usage(name string) (int64, error) {
	r, err := t.find(name)
	if err != nil {
		return 0, err
	}
	blocks, err := t.exclusive(r.ID)
	return int64(blocks) * t.blocks, err
}
