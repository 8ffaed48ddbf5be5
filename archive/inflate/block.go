package inflate

import (
	"encoding/binary"
	"io"
)

// block reads a block's header, RFC 1951, 3.2.3.
func (r *Reader) block() error {
	head, err := r.take(3)
	if err != nil {
		return err
	}
	r.last = head&1 != 0
	switch head >> 1 {
	case 0:
		return r.storedHeader()
	case 1:
		if !r.fixed {
			r.fixedTables()
		}
	case 2:
		if err := r.dynamicTables(); err != nil {
			return err
		}
	default:
		return ErrData
	}
	r.next = inCodes
	return nil
}

func (r *Reader) storedHeader() error {
	if _, err := r.take(r.n & 7); err != nil {
		return err
	}
	word, err := r.take(32)
	if err != nil {
		return err
	}
	if uint16(word) != ^uint16(word>>16) {
		return ErrData
	}
	r.align()
	r.stored = int(word & 0xffff)
	r.next = inStored
	return nil
}

// codes decodes symbols until the block ends, the output is full, or it fails.
func (r *Reader) codes() error {
	for {
		if err := r.fill(); err != nil {
			return err
		}
		ended, err := r.inner()
		if err != nil {
			return err
		}
		if r.over(0) {
			return io.ErrUnexpectedEOF
		}
		if ended {
			r.ended()
			return nil
		}
		if r.op > outSize-outRoom {
			return nil
		}
	}
}

// inner is the loop that all time is spent in. It ends with its block, or before input or output run out, and leaves the rest to the caller, who
// also finds out whether it went beyond the input's end.
func (r *Reader) inner() (ended bool, err error) {
	in, out := &r.in, &r.out
	lit, dist := &r.lit, &r.dist
	ip, op, bits, n := r.ip, r.op, r.bits, r.n
	zero := r.begun - r.since // where this member's bytes begin
	limit := r.iw - inAhead
	if r.eof {
		limit = r.iw + 8
	}
	for ip <= limit && op <= outSize-outRoom {
		ip, bits, n = load(in, ip, bits, n)
		e := lit[bits&litMask]
		if e&special == 0 {
			// Four looks at one or two literals each: at most 4 × litBits bits.
			op, bits, n = literals(out, e, op, bits, n)
			e = lit[bits&litMask]
			if e&special == 0 {
				op, bits, n = literals(out, e, op, bits, n)
				e = lit[bits&litMask]
				if e&special == 0 {
					op, bits, n = literals(out, e, op, bits, n)
					e = lit[bits&litMask]
					if e&special == 0 {
						op, bits, n = literals(out, e, op, bits, n)
						continue
					}
				}
			}
			// 15 bits of a length's code and 5 of its own, 15 and 13 of a distance.
			ip, bits, n = load(in, ip, bits, n)
		}
		if e&rare != 0 {
			if e&link != 0 {
				e = lit[(e>>16+uint32(bits>>litBits)&(1<<(e&15)-1))&(litEntries-1)]
			}
			if e&special == 0 {
				out[op] = byte(e >> 16)
				op++
				bits, n = bits>>(e&63), n-uint(e&63)
				continue
			}
			if e&rare != 0 {
				if ended = e&end != 0; !ended {
					err = ErrData
				}
				bits, n = bits>>(e&63), n-uint(e&63)
				break
			}
		}
		length := int(e>>16) + int(bits&(1<<(e&63)-1)>>(e>>8&15))
		bits, n = bits>>(e&63), n-uint(e&63)

		d := dist[bits&distMask]
		if d&rare != 0 {
			if d&link != 0 {
				d = dist[(d>>16+uint32(bits>>distBits)&(1<<(d&15)-1))&(distEntries-1)]
			}
			if d&rare != 0 {
				err = ErrData
				break
			}
		}
		back := int(d>>16) + int(bits&(1<<(d&63)-1)>>(d>>8&15))
		bits, n = bits>>(d&63), n-uint(d&63)
		from, to := op-back, op+length
		if from < zero {
			err = ErrData
			break
		}
		if back < 8 {
			repeat(out, op, to, back)
		}
		for ; back >= 8 && op < to; op, from = op+8, from+8 {
			binary.LittleEndian.PutUint64(out[op:], binary.LittleEndian.Uint64(out[from:]))
		}
		op = to
	}
	r.ip, r.op, r.bits, r.n = ip, op, bits, n
	return ended, err
}

// load makes them 56 bits or more.
func load(in *[inSize + inRoom]byte, ip int, bits uint64, n uint) (int, uint64, uint) {
	return ip + int((63-n)>>3), bits | binary.LittleEndian.Uint64(in[ip:])<<(n&63), n | 56
}

// literals writes one or two of them, and a byte of no meaning behind one.
func literals(out *[outSize]byte, e uint32, op int, bits uint64, n uint) (int, uint64, uint) {
	binary.LittleEndian.PutUint16(out[op:], uint16(e>>16))
	return op + int(e>>12&3), bits >> (e & 63), n - uint(e&63)
}

// repeat writes the last back < 8 bytes before op again and again up to to.
func repeat(out *[outSize]byte, op, to, back int) {
	var pattern uint64
	for i := range 8 {
		pattern |= uint64(out[op-back+i%back]) << (8 * i)
	}
	step := 8 - 8%back
	for ; op < to; op += step {
		binary.LittleEndian.PutUint64(out[op:], pattern)
	}
}
