package inflate

import (
	"hash/crc32"
	"io"
)

// The flags of a member's header, RFC 1952, 2.3.1.
const (
	flagCRC     = 1 << 1
	flagExtra   = 1 << 2
	flagName    = 1 << 3
	flagComment = 1 << 4
)

// byte returns the next byte of a header; the bits are aligned.
func (r *Reader) byte() (byte, error) {
	if r.ip == r.iw {
		if err := r.fill(); err != nil {
			return 0, err
		}
		if r.ip == r.iw {
			return 0, io.EOF
		}
	}
	b := r.in[r.ip]
	r.ip++
	return b, nil
}

// member reads the header of a member; io.EOF when there is none any more.
func (r *Reader) member() error {
	b, err := r.byte()
	if err == io.EOF && r.first {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	if b == 0 && !r.first {
		return r.zeros()
	}
	head := [10]byte{b}
	for i := 1; i < len(head); i++ {
		if head[i], err = r.byte(); err != nil {
			return early(err)
		}
	}
	if head[0] != 0x1f || head[1] != 0x8b || head[2] != 8 {
		if r.first {
			return ErrHeader
		}
		return ErrTrailing
	}
	if err := r.optional(head); err != nil {
		return early(err)
	}
	r.sum, r.size, r.since, r.begun = 0, 0, 0, r.op
	return nil
}

// optional passes the parts of a header that its flags announce.
func (r *Reader) optional(head [10]byte) error {
	sum := crc32.Update(0, crc32.IEEETable, head[:])
	next := func() (byte, error) {
		b, err := r.byte()
		sum = crc32.Update(sum, crc32.IEEETable, []byte{b})
		return b, err
	}
	flags := head[3]
	if flags&flagExtra != 0 {
		low, _ := next()
		high, err := next()
		for n := int(high)<<8 | int(low); n > 0 && err == nil; n-- {
			_, err = next()
		}
		if err != nil {
			return err
		}
	}
	for _, flag := range []byte{flagName, flagComment} {
		if flags&flag == 0 {
			continue
		}
		for {
			if b, err := next(); err != nil {
				return err
			} else if b == 0 {
				break
			}
		}
	}
	if flags&flagCRC != 0 {
		want := uint16(sum)
		low, _ := r.byte()
		high, err := r.byte()
		if err != nil {
			return err
		}
		if uint16(high)<<8|uint16(low) != want {
			return ErrHeader
		}
	}
	return nil
}

// early makes the end of input inside a structure what it is.
func early(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// zeros reads to the end and returns io.EOF when there was nothing but zeros.
func (r *Reader) zeros() error {
	for {
		b, err := r.byte()
		if err != nil {
			return err
		}
		if b != 0 {
			return ErrTrailing
		}
	}
}

// trailer compares a member's checksum and length.
func (r *Reader) trailer() error {
	r.add()
	r.align()
	var word [2]uint32
	for i := range word {
		for shift := 0; shift < 32; shift += 8 {
			b, err := r.byte()
			if err != nil {
				return early(err)
			}
			word[i] |= uint32(b) << shift
		}
	}
	if word[0] != r.sum || word[1] != r.size {
		return ErrChecksum
	}
	r.first = false
	r.next = atMember
	return nil
}
