// Package inflate decodes gzip and the deflate format in it (RFC 1952, RFC 1951).
//
// It is not a library of compressions: it decodes only, and for one reader at a time. It exists because inflating is most of the work of
// a pull, and a decoder that looks at several symbols at once takes six tenths of the time of those to be had. Invariant: the
// memory is bounded, and nothing comes out before what a member's own checksum covers was decoded from valid codes.
package inflate

import (
	"errors"
	"hash/crc32"
	"io"
)

// What is wrong with a stream. One that ends early is io.ErrUnexpectedEOF.
var (
	ErrHeader   = errors.New("no gzip header")
	ErrData     = errors.New("invalid code or length")
	ErrChecksum = errors.New("checksum or length differs")
	ErrTrailing = errors.New("other bytes follow the last member")
)

const (
	window  = 32 << 10 // the history that a distance can reach
	outSize = window + 128<<10
	outRoom = 320      // for the longest match, and what copying by words writes beyond it
	inSize  = 68 << 10 // a little more than what those before hand over at once
	inRoom  = 64       // what may be looked at, never used, beyond the input's end
	inAhead = 32       // input bytes that one round of the inner loop may look at
)

// step is what comes next in a stream.
type step uint8

const (
	atMember step = iota
	atBlock
	inStored
	inCodes
	atTrailer
)

// Reader reads the plain content of gzip members, one after another. After the last one zeros may follow, as tapes
// and block devices leave them.
type Reader struct {
	src io.Reader
	err error // sticky, returned when all output is read

	in     [inSize + inRoom]byte
	ip, iw int  // of in: the next byte to take, and where the input ends
	eof    bool // nothing comes behind iw

	bits uint64 // the next bits; those above the lowest n repeat what stands at in[ip]
	n    uint

	out    [outSize]byte
	op, or int // of out: decoded up to, and read up to

	next   step
	first  bool // no member was complete yet
	last   bool // the present block is its member's last
	fixed  bool // lit and dist are those of fixed codes
	stored int  // bytes left of a stored block
	begun  int  // of out: where the present member's bytes begin, as far as they aren't summed
	sum    uint32
	size   uint32
	since  int // bytes of the member so far, as far as distances can reach

	lit  [litEntries]uint32
	dist [distEntries]uint32
	code [1 << preBits]uint32
	lens [maxLit + maxDist]uint8
}

// NewReader reads a gzip stream's first header from src. It reads ahead as it likes.
func NewReader(src io.Reader) (*Reader, error) {
	r := &Reader{src: src, first: true}
	if err := r.member(); err != nil {
		return nil, err
	}
	r.next = atBlock
	return r, nil
}

// Read gives plain bytes. The error io.EOF means that all members were complete and their checksums right.
func (r *Reader) Read(p []byte) (int, error) {
	for r.or == r.op {
		if r.err != nil {
			return 0, r.err
		}
		if r.op > outSize-2*outRoom {
			r.slide()
		}
		r.err = r.decode()
		if r.op > r.begun {
			r.add()
		}
	}
	n := copy(p, r.out[r.or:r.op])
	r.or += n
	return n, nil
}

// slide moves the history to the front.
func (r *Reader) slide() {
	copy(r.out[:window], r.out[r.op-window:r.op])
	r.op, r.or, r.begun = window, window, window
}

// add brings the member's checksum up to date.
func (r *Reader) add() {
	data := r.out[r.begun:r.op]
	r.sum = crc32.Update(r.sum, crc32.IEEETable, data)
	r.size += uint32(len(data))
	r.since = min(r.since+len(data), window)
	r.begun = r.op
}

// decode goes on until the output is full, or the stream ends.
func (r *Reader) decode() error {
	for {
		var err error
		switch r.next {
		case atMember:
			if err = r.member(); err == nil {
				r.next = atBlock
			}
		case atBlock:
			err = r.block()
		case inStored:
			err = r.copyStored()
		case inCodes:
			err = r.codes()
		case atTrailer:
			err = r.trailer()
		}
		if err != nil {
			return r.cut(err)
		}
		if r.op > outSize-2*outRoom {
			return nil
		}
	}
}

// cut turns damage into the early end of the input, if that is what it comes from: behind the end there seem to be zeros.
func (r *Reader) cut(err error) error {
	if err == ErrData && r.eof && r.ip-int(r.n>>3)+8 > r.iw {
		return io.ErrUnexpectedEOF
	}
	return err
}

// fill reads until there are bytes for a round of the inner loop, or the input ends.
func (r *Reader) fill() error {
	if r.eof || r.iw-r.ip >= inAhead {
		return nil
	}
	from := max(0, r.ip-8) // what is loaded may be given back
	r.iw = copy(r.in[:], r.in[from:r.iw])
	r.ip -= from
	for empty := 0; r.iw-r.ip < inAhead; empty++ {
		n, err := r.src.Read(r.in[r.iw:inSize])
		r.iw += n
		if err == io.EOF {
			r.eof = true
			clear(r.in[r.iw : r.iw+inRoom])
			return nil
		}
		if err != nil {
			return err
		}
		if n > 0 {
			empty = 0
		} else if empty > 100 {
			return io.ErrNoProgress
		}
	}
	return nil
}

// need loads at least k ≤ 32 bits.
func (r *Reader) need(k uint) error {
	if r.n >= k {
		return nil
	}
	if err := r.fill(); err != nil {
		return err
	}
	r.ip, r.bits, r.n = load(&r.in, r.ip, r.bits, r.n)
	if r.over(k) {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// over tells whether k more bits go beyond the input's end.
func (r *Reader) over(k uint) bool {
	return r.eof && 8*r.ip-int(r.n)+int(k) > 8*r.iw
}

// take returns the next k ≤ 32 bits.
func (r *Reader) take(k uint) (uint32, error) {
	if err := r.need(k); err != nil {
		return 0, err
	}
	if r.over(k) {
		return 0, io.ErrUnexpectedEOF
	}
	v := uint32(r.bits & (1<<k - 1))
	r.bits >>= k
	r.n -= k
	return v, nil
}

// align drops the bits up to the next byte and gives whole bytes back to the input.
func (r *Reader) align() {
	r.ip -= int(r.n >> 3)
	r.bits, r.n = 0, 0
}

// copyStored passes a stored block's bytes on.
func (r *Reader) copyStored() error {
	for r.stored > 0 {
		if r.ip == r.iw {
			if r.eof {
				return io.ErrUnexpectedEOF
			}
			if err := r.fill(); err != nil {
				return err
			}
			continue
		}
		room := outSize - outRoom - r.op
		if room <= 0 {
			return nil
		}
		n := min(r.stored, r.iw-r.ip, room)
		copy(r.out[r.op:], r.in[r.ip:r.ip+n])
		r.op += n
		r.ip += n
		r.stored -= n
	}
	r.ended()
	return nil
}

// ended goes to what follows a block.
func (r *Reader) ended() {
	r.next = atBlock
	if r.last {
		r.next = atTrailer
	}
}
