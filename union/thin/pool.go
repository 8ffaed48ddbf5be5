// Package thin keeps file trees on thin volumes of one pool of the device mapper: the storage driver "devicemapper".
//
// It is not a storage driver by itself: it knows trees by name, made as snapshots of each other, and nothing of layers and
// roots. Invariant: a volume of the pool has a record on disk from before it is made until after it is deleted, so that no crash
// loses one.
package thin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// Trees is an open pool with its trees.
//
//	DIR/data, DIR/metadata   what loop devices show as the pool's disks, sparse, unless it has disks
//	DIR/pool.json            whose pool it is
//	DIR/trees/NAME           a tree's record; "_base-FS" is the empty file system that others begin as
//	DIR/nodes                device nodes that /dev lacks
type Trees struct {
	pool

	mu    sync.Mutex
	trees map[string]*tree
	ids   map[uint32]bool // taken, of the pool's volumes
	last  uint32
	lent  map[string]time.Time // devices that were given out, until when

	stop, done chan struct{} // of watch
}

// pool is what the trees' volumes are cut from.
type pool struct {
	dir     string
	options options
	dm      *dm.Control
	name    string
	prefix  string // of the names of our volumes
	blocks  int64  // its block size in bytes

	reading sync.Mutex // of its metadata, which it shows to one reader at a time
}

// claim is what DIR/pool.json says. The pool counts transactions for its user: ours have one, which takes an empty
// pool for this directory. A pool with another count is somebody else's, or lost its content.
type claim struct {
	Pool        string
	Transaction uint64
}

const ours = 1

// Open opens the pool of dir, made when missing, with options KEY=VALUE, and makes it and its volumes usable again
// after a restart. One process at a time does that. The caller closes it. fault.Unsupported says what this kernel lacks.
func Open(dir string, list []string) (_ *Trees, err error) {
	o, err := parse(list)
	if err != nil {
		return nil, err
	}
	t := &Trees{pool: pool{dir: dir, options: o}, trees: map[string]*tree{}, ids: map[uint32]bool{}, lent: map[string]time.Time{},
		stop: make(chan struct{}), done: make(chan struct{})}
	for _, d := range []string{"trees", "nodes"} {
		if err := os.MkdirAll(t.path(d), 0o700); err != nil {
			return nil, err
		}
	}
	if t.dm, err = dm.Open(t.path("nodes")); err != nil {
		return nil, lacking(err)
	}
	defer func() {
		if err != nil {
			t.dm.Close()
		}
	}()
	for _, kind := range []string{"thin-pool", "thin"} {
		if _, err := t.dm.Target(kind); err != nil {
			return nil, lacking(err)
		}
	}
	if err := t.open(); err != nil {
		return nil, errors.Join(err, t.putAway())
	}
	go t.watch()
	return t, nil
}

func lacking(err error) error {
	if errors.Is(err, fault.Unsupported) {
		return fault.New(fault.Unsupported, "devicemapper: this kernel has no device mapper (/dev/mapper/control, module dm_thin_pool): %w", err)
	}
	return err
}

func (t *Trees) open() error {
	if err := t.identify(); err != nil {
		return err
	}
	if err := record.Sweep(t.path("trees")); err != nil {
		return err
	}
	if err := t.load(); err != nil {
		return err
	}
	c, err := t.claimed()
	if err != nil {
		return err
	}
	if err := t.openPool(); err != nil {
		return err
	}
	if err := t.claim(c, len(t.trees) == 0); err != nil {
		return err
	}
	if err := t.resumeAll(); err != nil {
		return err
	}
	return t.openBase()
}

// name draws the names of our devices from what dir is, so that several engines on a machine are apart.
func (p *pool) identify() error {
	dir, err := os.Open(p.dir)
	if err != nil {
		return err
	}
	st, err := kernel.StatIn(dir, ".")
	fault.Close(dir, &err)
	if err != nil {
		return err
	}
	major, minor := kernel.DevNumbers(uint64(st.Dev))
	p.prefix = fmt.Sprintf("berth-%d:%d-%d-", major, minor, st.Ino)
	p.name = p.options.pool
	if p.name == "" {
		p.name = p.prefix + "pool"
	}
	return nil
}

func (p *pool) path(elem ...string) string {
	return filepath.Join(append([]string{p.dir}, elem...)...)
}

// openPool makes the pool when it is not there: at the first time, and after each boot.
func (p *pool) openPool() error {
	info, err := p.dm.Info(p.name)
	switch {
	case errors.Is(err, fault.NotFound) && p.options.pool != "":
		return fault.New(fault.NotFound, "there is no thin pool %s: make it, or give no dm.thinpooldev", p.name)
	case err != nil && !errors.Is(err, fault.NotFound):
		return err
	case err == nil && info.Live && info.Suspended:
		if _, err := p.dm.Resume(p.name); err != nil {
			return err
		}
	case err == nil && !info.Live && p.options.pool == "": // its maker was killed
		if err := p.dm.Remove(p.name, false); err != nil {
			return err
		}
		fallthrough
	case err != nil:
		if err := p.makePool(); err != nil {
			return fmt.Errorf("make thin pool %s: %w", p.name, err)
		}
	}
	table, err := p.dm.Table(p.name)
	if err != nil {
		return err
	}
	if len(table) != 1 || table[0].Type != "thin-pool" {
		return fault.New(fault.Invalid, "device %s is no thin pool", p.name)
	}
	p.blocks, err = blockSize(table[0].Params)
	return err
}

// blockSize reads the pool's block size in bytes off its table: METADATA DATA SECTORS …
func blockSize(params string) (int64, error) {
	f, err := fields(params, 3)
	if err != nil {
		return 0, err
	}
	sectors, err := strconv.ParseInt(f[2], 10, 32)
	if err != nil {
		return 0, fault.New(fault.Corrupt, "table of a thin pool %q: %w", params, err)
	}
	return sectors * dm.Sector, nil
}

func fields(params string, least int) ([]string, error) {
	f := strings.Fields(params)
	if len(f) < least {
		return nil, fault.New(fault.Corrupt, "table of a thin pool %q is too short", params)
	}
	return f, nil
}

// poolTable is a pool over two disks, named by numbers. Blocks are not zeroed before their first use: a file system shows
// nothing that it has not written. Writers of a full pool get an error at once; otherwise they would hang for a minute.
func poolTable(metadata, data string, size, blockSize int64) dm.Target {
	blocks := size / blockSize
	return dm.Target{
		Length: uint64(blocks * blockSize / dm.Sector), Type: "thin-pool",
		Params: fmt.Sprintf("%s %s %d %d 2 skip_block_zeroing error_if_no_space", metadata, data, blockSize/dm.Sector, blocks/100),
	}
}

func (p *pool) makePool() (err error) {
	metadata, err := p.disk("metadata", p.options.metadataDev, p.options.loopMetadata)
	if err != nil {
		return err
	}
	defer fault.Close(metadata, &err) // loop devices live on with the pool
	data, err := p.disk("data", p.options.dataDev, p.options.loopData)
	if err != nil {
		return err
	}
	defer fault.Close(data, &err)
	metadataNumbers, err := block.Numbers(metadata)
	if err != nil {
		return err
	}
	dataNumbers, err := block.Numbers(data)
	if err != nil {
		return err
	}
	size, err := block.Size(data)
	if err != nil {
		return err
	}
	if size < 16*p.options.block {
		return fault.New(fault.Invalid, "the data disk has only %s", human(size))
	}
	if _, err := p.dm.Create(p.name); err != nil {
		return err
	}
	if err = p.dm.Load(p.name, false, poolTable(metadataNumbers, dataNumbers, size, p.options.block)); err == nil {
		_, err = p.dm.Resume(p.name)
	}
	if err != nil {
		return errors.Join(err, p.dm.Remove(p.name, false))
	}
	return nil
}

// disk opens a disk of the pool: the device, or a loop device over a sparse file of ours, which grows when size has grown.
func (p *pool) disk(name, device string, size int64) (_ *os.File, err error) {
	if device != "" {
		return os.OpenFile(device, os.O_RDWR, 0) // the table's loading refuses one that is mounted or another's
	}
	// A pool whose metadata were never written begins with zeros.
	file, err := os.OpenFile(p.path(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer fault.Close(file, &err)
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() < size {
		if err := file.Truncate(size); err != nil {
			return nil, err
		}
		if err := file.Sync(); err != nil {
			return nil, err
		}
	}
	return block.Loop(file, p.path("nodes"))
}

// claimed reads whose pool dir has, nil at the first time: fault.Conflict when another one is wanted.
func (p *pool) claimed() (*claim, error) {
	var c claim
	err := record.Load(p.path("pool.json"), &c)
	switch {
	case errors.Is(err, fault.NotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case c.Pool == p.name, p.options.pool == "" && strings.HasPrefix(c.Pool, "berth-"): // the latter when dir was moved, and its pool with it
		return &c, nil
	}
	return nil, fault.New(fault.Conflict, "%s belongs to thin pool %s, not to %s: give dm.thinpooldev=%s, or another --data-root", p.dir, c.Pool, p.name, c.Pool)
}

// claim takes an empty pool, or makes sure that it is the one that dir has taken. fresh: dir has no trees.
func (p *pool) claim(c *claim, fresh bool) error {
	s, err := p.state(true)
	if err != nil {
		return err
	}
	if !s.readable {
		return s.trouble(p.name, 0)
	}
	if c == nil {
		if s.transaction != 0 || s.data.used != 0 {
			return fault.New(fault.Conflict, "thin pool %s is not empty (transaction %d, %d blocks used) and not of %s: give an empty one", p.name, s.transaction, s.data.used, p.dir)
		}
		if err := record.Save(p.path("pool.json"), claim{p.name, ours}); err != nil {
			return err
		}
	}
	if s.transaction == 0 && s.data.used == 0 && fresh {
		_, err := p.dm.Message(p.name, claimMessage())
		return err
	}
	if s.transaction != ours {
		return fault.New(fault.Corrupt, "thin pool %s has transaction %d where %d is expected: it lost its content or was taken by another engine", p.name, s.transaction, ours)
	}
	if s.held != 0 { // a killed reader's
		return p.release()
	}
	return nil
}

// state asks the pool how it is; with flush it brings its metadata to the disk first.
func (p *pool) state(flush bool) (state, error) {
	table, err := p.dm.Status(p.name, flush)
	if err != nil {
		return state{}, err
	}
	if len(table) != 1 {
		return state{}, fault.New(fault.Corrupt, "thin pool %s has %d targets", p.name, len(table))
	}
	return parseState(table[0].Params)
}

// resumeAll lets volumes go on that a killed process held back for a snapshot, and finishes what it had begun to make.
func (t *Trees) resumeAll() error {
	names, err := t.dm.Devices()
	if err != nil {
		return err
	}
	for _, device := range names {
		name, our := strings.CutPrefix(device, t.prefix)
		if !our || device == t.pool.name {
			continue
		}
		info, err := t.dm.Info(device)
		if errors.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		switch {
		case t.trees[name] == nil || !info.Live:
			err = t.dm.Remove(device, true)
		case info.Suspended:
			_, err = t.dm.Resume(device)
		}
		if err != nil {
			return err
		}
		t.lend(name, time.Now().Add(grace))
	}
	return nil
}

// Close lets go of the device mapper. Devices that nobody holds go; so does the pool when no tree is mounted. Otherwise it
// stays for those, and for the next Open.
func (t *Trees) Close() error {
	close(t.stop)
	<-t.done
	err := t.tidy(time.Now().Add(2 * grace))
	return errors.Join(err, t.putAway(), t.dm.Close())
}

// putAway removes a pool that we made, unless a tree is mounted.
func (p *pool) putAway() error {
	if p.options.pool != "" {
		return nil
	}
	err := p.dm.Remove(p.name, false)
	if errors.Is(err, fault.Conflict) || errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}
