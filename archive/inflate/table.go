package inflate

import (
	"io"
	"math/bits"
)

// An entry of a table tells what the next bits stand for:
//
//	bits  0– 5  how many bits to drop, a length's or distance's own bits included; of a link: the bits of its second table (0–3)
//	bits  8–11  of a length or distance: the bits of the code alone
//	bits 12–13  of literals: how many, one or two
//	bit  7      end of block
//	bit  6      link to a second table
//	bit  14     rare: link, end, or no code at all
//	bit  15     special: anything but literals
//	bits 16–31  one or two literals, the base of a length or distance, or the place of the second table
const (
	end     = 1 << 7
	link    = 1 << 6
	rare    = 1 << 14
	special = 1 << 15
	invalid = special | rare
)

const (
	litBits  = 11 // of the first table
	distBits = 9
	preBits  = 7
	maxBits  = 15
	maxLit   = 288
	maxDist  = 32

	// A second table has 2^(15-litBits) entries, and no more of them are needed than there are symbols.
	litEntries  = 8192
	distEntries = 4096
	litMask     = 1<<litBits - 1
	distMask    = 1<<distBits - 1
)

// Lengths and distances, RFC 1951, 3.2.5: base and number of own bits.
var (
	lengthBase  = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase    = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distExtra   = [30]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
	preOrder    = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
)

// litEntry is what a symbol of the first alphabet means.
func litEntry(symbol int) uint32 {
	switch {
	case symbol < 256:
		return uint32(symbol)<<16 | 1<<12
	case symbol == 256:
		return invalid | end
	case symbol < 286:
		return special | uint32(lengthBase[symbol-257])<<16 | uint32(lengthExtra[symbol-257])
	}
	return invalid
}

// distEntry is what a symbol of the second alphabet means.
func distEntry(symbol int) uint32 {
	if symbol >= 30 {
		return invalid
	}
	return special | uint32(distBase[symbol])<<16 | uint32(distExtra[symbol])
}

// preEntry is a code length of the alphabet in which the others' are written.
func preEntry(symbol int) uint32 { return special | uint32(symbol)<<16 }

// build makes a table of the codes with these lengths; first is the number of bits that it is looked up by. A set of codes must be complete,
// be a single one of one bit, or be empty, as other decoders have it.
func build(table []uint32, first int, lens []uint8, entry func(int) uint32) bool {
	var count [maxBits + 1]int
	for _, l := range lens {
		count[l]++
	}
	count[0] = 0
	longest, used := 0, 0
	var code [maxBits + 1]int // the next of each length
	for l, c := 1, 0; l <= maxBits; l++ {
		c <<= 1
		code[l] = c
		c += count[l]
		used += count[l] << (maxBits - l)
		if count[l] > 0 {
			longest = l
		}
	}
	single := longest == 1 && count[1] == 1
	if used != 1<<maxBits {
		if used != 0 && !single {
			return false
		}
		for i := range table[:1<<first] {
			table[i] = invalid
		}
	}
	if longest > first {
		clear(table[:1<<first]) // which no entry is: a link is made where none is yet
	}
	seconds := 1 << first // where the next second table goes
	for symbol, l8 := range lens {
		l := int(l8)
		if l == 0 {
			continue
		}
		at := int(bits.Reverse16(uint16(code[l])) >> (16 - l))
		code[l]++
		e := entry(symbol)
		e += uint32(l)
		if e&special != 0 {
			e |= uint32(l) << 8
		}
		if l <= first {
			for ; at < 1<<first; at += 1 << l {
				table[at] = e
			}
			continue
		}
		// Symbols come in no order of lengths, so all second tables have the size that the longest code needs.
		more := longest - first
		head := at & (1<<first - 1)
		if table[head] == 0 {
			table[head] = invalid | link | uint32(more) | uint32(seconds)<<16
			seconds += 1 << more
		}
		second := table[table[head]>>16:]
		for i := at >> first; i < 1<<more; i += 1 << (l - first) {
			second[i] = e
		}
	}
	return true
}

// pair lets entries of a literal that leave room for another one stand for both.
func pair(table *[litEntries]uint32) {
	for i := litMask; i >= 0; i-- { // what is looked at stands before i, or is i itself, and is single still
		e := table[i]
		if e&special != 0 {
			continue
		}
		l := e & 63
		f := table[i>>l]
		if f&special == 0 && l+f&63 <= litBits {
			table[i] = f<<8&0xff000000 | e&0xff0000 | 2<<12 | (l + f&63)
		}
	}
}

// fixedTables are those of RFC 1951, 3.2.6.
func (r *Reader) fixedTables() {
	lens := r.lens[:maxLit]
	for i := range lens {
		switch {
		case i < 144, i >= 280:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		default:
			lens[i] = 7
		}
	}
	build(r.lit[:], litBits, lens, litEntry)
	pair(&r.lit)
	lens = r.lens[:maxDist]
	for i := range lens {
		lens[i] = 5
	}
	build(r.dist[:], distBits, lens, distEntry)
	r.fixed = true
}

// dynamicTables reads a block's codes, RFC 1951, 3.2.7.
func (r *Reader) dynamicTables() error {
	r.fixed = false
	head, err := r.take(14)
	if err != nil {
		return err
	}
	lits, dists, pres := int(head&31)+257, int(head>>5&31)+1, int(head>>10)+4
	if lits > 286 || dists > 30 {
		return ErrData
	}
	var pre [19]uint8
	for i := range pres {
		l, err := r.take(3)
		if err != nil {
			return err
		}
		pre[preOrder[i]] = uint8(l)
	}
	if !build(r.code[:], preBits, pre[:], preEntry) {
		return ErrData
	}
	lens := r.lens[:lits+dists]
	if err := r.lengths(lens); err != nil {
		return err
	}
	if !build(r.lit[:], litBits, lens[:lits], litEntry) || !build(r.dist[:], distBits, lens[lits:], distEntry) {
		return ErrData
	}
	pair(&r.lit)
	return nil
}

// lengths reads the lengths of the codes, which are a code themselves.
func (r *Reader) lengths(lens []uint8) error {
	for i := 0; i < len(lens); {
		if err := r.need(14); err != nil && err != io.ErrUnexpectedEOF { // a code of 7 bits and 7 of its own; the last may be shorter
			return err
		}
		e := r.code[r.bits&(1<<preBits-1)]
		if e&rare != 0 {
			return ErrData
		}
		if _, err := r.take(uint(e & 63)); err != nil {
			return err
		}
		symbol := e >> 16
		if symbol < 16 {
			lens[i] = uint8(symbol)
			i++
			continue
		}
		again, least, value := uint(2), 3, uint8(0)
		switch symbol {
		case 16:
			if i == 0 {
				return ErrData
			}
			value = lens[i-1]
		case 17:
			again = 3
		case 18:
			again, least = 7, 11
		}
		more, err := r.take(again)
		if err != nil {
			return err
		}
		n := least + int(more)
		if i+n > len(lens) {
			return ErrData
		}
		for range n {
			lens[i] = value
			i++
		}
	}
	return nil
}
