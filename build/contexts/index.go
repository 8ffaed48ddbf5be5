package contexts

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"berth/build/transfer"
	"berth/fault"
	"berth/internal/record"
	"berth/kernel"
)

// index is what a tree has, in a walk's order.
type index struct {
	boot string // files that were written under another boot may have been lost with it
	from string
	made int64 // when the tree was begun: ns since 1970
	size int64
	all  []kept
}

// kept is one thing in a tree.
type kept struct {
	transfer.Entry
	state  state
	link   string // the path of the first of several names of a file
	digest [32]byte
}

// state says what is known of a path.
type state byte

const (
	have   state = iota // it is there, as the entry says
	unsure              // something may be there
	gone                // nothing is there: it is not written
)

// never is a directory's time when what it should be is not known: none is equal to it.
const never = math.MinInt64

const magic = "berth build context 2\n" // another form of what follows gets another number

var table = crc32.MakeTable(crc32.Castagnoli)

// write puts the index in place of the one before.
func (x *index) write(path string) (err error) {
	if x.boot, err = kernel.BootID(); err != nil {
		return err
	}
	x.size = 0
	n := 0
	for k := range x.all {
		if one := &x.all[k]; one.state != gone {
			n++
			if one.state == have && one.link == "" {
				x.size += one.Size
			}
		}
	}
	b := make([]byte, 0, 128*(n+2))
	b = append(b, magic...)
	b = appendText(appendText(b, x.boot), x.from)
	b = binary.AppendVarint(binary.AppendVarint(b, x.made), x.size)
	b = binary.AppendUvarint(b, uint64(n))
	for k := range x.all {
		one := &x.all[k]
		if one.state == gone {
			continue
		}
		b = append(b, byte(one.state))
		b = appendText(transfer.AppendEntry(b, &one.Entry), one.link)
		b = append(b, one.digest[:]...)
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, table))
	return record.WriteFile(path, b, 0o600, false)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

var errIndex = errors.New("the index of a build context is damaged")

// readIndex reads what write wrote under this boot.
func readIndex(path string) (x index, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return x, err
	}
	if x, err = parse(b); err != nil {
		return index{}, err
	}
	boot, err := kernel.BootID()
	if err == nil && boot != x.boot {
		err = fault.New(fault.Corrupt, "a build context is of another boot")
	}
	if err != nil {
		return index{}, err
	}
	return x, nil
}

func parse(b []byte) (x index, err error) {
	n := len(b) - 4
	if n < len(magic) || crc32.Checksum(b[:n], table) != binary.BigEndian.Uint32(b[n:]) {
		return x, errIndex
	}
	r := bufio.NewReaderSize(bytes.NewReader(b[:n]), 64<<10)
	count, err := x.head(r)
	if err != nil {
		return x, err
	}
	if count > uint64(n) {
		return x, errIndex
	}
	x.all = make([]kept, 0, count)
	for range count {
		var k kept
		st, err := r.ReadByte()
		if err != nil || st > byte(unsure) {
			return x, errIndex
		}
		k.state = state(st)
		if k.Entry, err = transfer.ReadEntry(r); err != nil {
			return x, err
		}
		if k.link, err = text(r); err != nil {
			return x, err
		}
		if _, err := io.ReadFull(r, k.digest[:]); err != nil {
			return x, err
		}
		x.all = append(x.all, k)
	}
	if _, err := r.ReadByte(); err == nil { // more than it says: files that nobody knows of
		return x, errIndex
	}
	return x, nil
}

// head reads what stands before the entries, and how many there are.
func (x *index) head(r *bufio.Reader) (count uint64, err error) {
	begin := make([]byte, len(magic))
	if _, err := io.ReadFull(r, begin); err != nil || string(begin) != magic {
		return 0, errIndex
	}
	if x.boot, err = text(r); err != nil {
		return 0, err
	}
	if x.from, err = text(r); err != nil {
		return 0, err
	}
	if x.made, err = binary.ReadVarint(r); err != nil {
		return 0, err
	}
	if x.size, err = binary.ReadVarint(r); err != nil {
		return 0, err
	}
	return binary.ReadUvarint(r)
}

func text(r *bufio.Reader) (string, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil || n > 1<<16 {
		return "", errors.Join(err, errIndex)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return string(b), err
}

// readHead reads an index without its entries.
func readHead(path string) (x index, info os.FileInfo, err error) {
	f, err := os.Open(path)
	if err != nil {
		return x, nil, err
	}
	defer fault.Close(f, &err)
	if info, err = f.Stat(); err != nil {
		return x, nil, err
	}
	_, err = x.head(bufio.NewReaderSize(f, 1<<10))
	return x, info, err
}

// find gives what is at a path.
func (x *index) find(p string) (*kept, bool) {
	k, ok := slices.BinarySearchFunc(x.all, p, func(k kept, p string) int { return transfer.Compare(k.Path, p) })
	if !ok {
		return nil, false
	}
	return &x.all[k], true
}

// span is where the entry at a path and those below it are; "" is the top.
func (x *index) span(p string) (from, to int) {
	if p == "" {
		return 0, len(x.all)
	}
	from, ok := slices.BinarySearchFunc(x.all, p, func(k kept, p string) int { return transfer.Compare(k.Path, p) })
	if !ok || x.all[from].state != have {
		return 0, 0
	}
	to = from + 1
	for to < len(x.all) && strings.HasPrefix(x.all[to].Path, p+"/") {
		to++
	}
	return from, to
}

// used notes when the tree was used last.
func used(path string) error {
	now := time.Now()
	return os.Chtimes(path, now, now)
}
