package thin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"berth/fault"
	"berth/kernel/block"
)

// The pool's metadata as they lie on their disk (drivers/md/dm-thin-metadata.c, persistent-data/dm-btree-internal.h): blocks of
// metadataBlock bytes, little-endian. Trees map a volume to the root of its own tree, which maps the volume's blocks to the pool's, and
// a volume to its details.
const (
	superMagic   = 27022010
	superMagicAt = 32
	mappingsAt   = 320
	detailsAt    = 328

	nodeHeader   = 32
	internalNode = 1
	leafNode     = 2

	timeBits   = 24 // of a mapping, below the block's number: the pool's time when it was made
	creationAt = 16 // in a volume's details of detailSize bytes
	detailSize = 24
)

// metadata reads one moment of a pool's metadata, which the pool keeps for us.
type metadata struct {
	disk io.ReaderAt
	left int // blocks that may still be read; a damaged tree may go in circles
}

// exclusive counts the blocks that were given to a volume since it was made: those that its origin doesn't have.
func (p *pool) exclusive(id uint32) (n uint64, err error) {
	p.reading.Lock()
	defer p.reading.Unlock()
	if _, err := p.dm.Message(p.name, "reserve_metadata_snap"); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.release()) }()
	s, err := p.state(false)
	if err != nil {
		return 0, err
	}
	disk, err := p.openMetadata()
	if err != nil {
		return 0, err
	}
	defer fault.Close(disk, &err)
	m := metadata{disk, int(min(s.metadata.total, 1<<24))}
	return m.exclusive(s.held, uint64(id))
}

// release gives the moment back that exclusive, or a killed process, had reserved.
func (p *pool) release() error {
	_, err := p.dm.Message(p.name, "release_metadata_snap")
	return err
}

// openMetadata opens the metadata's disk past the cache of the device, which knows nothing of what the pool writes.
func (p *pool) openMetadata() (*os.File, error) {
	if p.options.pool == "" && p.options.metadataDev == "" {
		return os.Open(p.path("metadata"))
	}
	table, err := p.dm.Table(p.name)
	if err != nil {
		return nil, err
	}
	numbers, _, ok := disks(table)
	if !ok {
		return nil, fault.New(fault.Corrupt, "device %s is no thin pool", p.name)
	}
	disk, err := block.Open(numbers, p.path("nodes"))
	if err != nil {
		return nil, err
	}
	if err := block.DropCache(disk); err != nil {
		return nil, errors.Join(err, disk.Close())
	}
	return disk, nil
}

// exclusive counts in the metadata whose superblock, or a copy of it, is at block super.
func (m *metadata) exclusive(super, volume uint64) (n uint64, err error) {
	b, err := m.read(super)
	if err != nil {
		return 0, err
	}
	if magic := binary.LittleEndian.Uint64(b[superMagicAt:]); magic != superMagic {
		return 0, fault.New(fault.Corrupt, "thin pool's metadata: magic number %d in block %d", magic, super)
	}
	mappings, details := binary.LittleEndian.Uint64(b[mappingsAt:]), binary.LittleEndian.Uint64(b[detailsAt:])
	detail, err := m.find(details, volume, detailSize)
	if err != nil {
		return 0, err
	}
	made := uint64(binary.LittleEndian.Uint32(detail[creationAt:]))
	root, err := m.find(mappings, volume, 8)
	if err != nil {
		return 0, err
	}
	err = m.walk(binary.LittleEndian.Uint64(root), 8, func(_ uint64, value []byte) {
		if binary.LittleEndian.Uint64(value)&(1<<timeBits-1) >= made {
			n++
		}
	})
	return n, err
}

func (m *metadata) read(block uint64) ([]byte, error) {
	if m.left--; m.left < 0 || block > 1<<40 {
		return nil, fault.New(fault.Corrupt, "thin pool's metadata: a tree has no end")
	}
	b := make([]byte, metadataBlock)
	if _, err := m.disk.ReadAt(b, int64(block)*metadataBlock); err != nil {
		return nil, fmt.Errorf("thin pool's metadata: block %d: %w", block, err)
	}
	return b, nil
}

// node is one block of a tree.
type node struct {
	leaf   bool
	keys   []byte // 8 bytes each
	values []byte
	size   int // of a value
}

func (n node) key(i int) uint64   { return binary.LittleEndian.Uint64(n.keys[8*i:]) }
func (n node) value(i int) []byte { return n.values[n.size*i : n.size*(i+1)] }
func (n node) len() int           { return len(n.keys) / 8 }

func (m *metadata) node(block uint64, size int) (node, error) {
	b, err := m.read(block)
	if err != nil {
		return node{}, err
	}
	flags := binary.LittleEndian.Uint32(b[4:])
	count, most := int(binary.LittleEndian.Uint32(b[16:])), int(binary.LittleEndian.Uint32(b[20:]))
	n := node{leaf: flags&leafNode != 0, size: int(binary.LittleEndian.Uint32(b[24:]))}
	if !n.leaf {
		size = 8
	}
	at := nodeHeader + 8*most // of the values
	if flags&(leafNode|internalNode) == 0 || n.size != size || most > metadataBlock || count > most || at+size*most > metadataBlock ||
		binary.LittleEndian.Uint64(b[8:]) != block {
		return node{}, fault.New(fault.Corrupt, "thin pool's metadata: block %d is no node of a tree", block)
	}
	n.keys, n.values = b[nodeHeader:nodeHeader+8*count], b[at:at+size*count]
	return n, nil
}

// find gives the value of key, which has size bytes; fault.NotFound when there is none.
func (m *metadata) find(root, key uint64, size int) ([]byte, error) {
	for {
		n, err := m.node(root, size)
		if err != nil {
			return nil, err
		}
		i := n.len() - 1
		for i >= 0 && n.key(i) > key {
			i--
		}
		if i < 0 || n.leaf && n.key(i) != key {
			return nil, fault.New(fault.NotFound, "thin pool's metadata: there is no volume %d", key)
		}
		if n.leaf {
			return n.value(i), nil
		}
		root = binary.LittleEndian.Uint64(n.value(i))
	}
}

// walk calls fn for all values of a tree.
func (m *metadata) walk(root uint64, size int, fn func(key uint64, value []byte)) error {
	n, err := m.node(root, size)
	if err != nil {
		return err
	}
	for i := range n.len() {
		if n.leaf {
			fn(n.key(i), n.value(i))
		} else if err := m.walk(binary.LittleEndian.Uint64(n.value(i)), size, fn); err != nil {
			return err
		}
	}
	return nil
}
