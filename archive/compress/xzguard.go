package compress

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
)

const xzMagic = "\xfd7zXZ\x00"

// xzGuard passes an xz stream through and follows its structure, so that a
// block which claims a dictionary beyond maxWindow is refused before the
// decoder reserves it: the decoder itself has no bound below 4 GiB.
// The format: xz-file-format 1.2.1; LZMA2 chunks as its reference decoder reads them.
type xzGuard struct {
	br    *bufio.Reader
	pass  int64                // bytes to hand on before the next look
	next  func(*xzGuard) error // looks at what follows and sets pass and next
	pos   int64                // bytes within the part whose length gets padded to 4
	check int64                // size of a block's check
	left  uint64               // numbers of the index still to come
}

func (g *xzGuard) Read(p []byte) (int, error) {
	for g.pass == 0 {
		look := g.next
		if look == nil {
			look = (*xzGuard).streamHeader
		}
		if err := look(g); err != nil {
			return 0, err
		}
	}
	if int64(len(p)) > g.pass {
		p = p[:g.pass]
	}
	n, err := g.br.Read(p)
	g.pass -= int64(n)
	return n, err
}

// then hands on n bytes and looks again with next.
func (g *xzGuard) then(n int64, next func(*xzGuard) error) {
	g.pass, g.next = n, next
	g.pos += n
}

func (g *xzGuard) peek(n int) ([]byte, error) {
	b, err := g.br.Peek(n)
	if len(b) > 0 {
		err = noEOF(err)
	}
	return b, err
}

// streamHeader: magic 6, flags 2, CRC 4; or four zeros of padding between streams; or the end.
func (g *xzGuard) streamHeader() error {
	b, err := g.peek(4)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(b) == 0 {
		g.then(4, (*xzGuard).streamHeader)
		return nil
	}
	b, err = g.peek(12)
	if err != nil {
		return noEOF(err)
	}
	if string(b[:6]) != xzMagic {
		return errors.New("other bytes follow the last stream")
	}
	// Sizes by the check's id, section 2.1.1.2.
	g.check = []int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[b[7]&15]
	g.then(12, (*xzGuard).blockHeader)
	return nil
}

// blockHeader: length/4-1 1, flags 1, optional sizes, filters, padding, CRC 4; a zero byte starts the index instead.
func (g *xzGuard) blockHeader() error {
	b, err := g.peek(1)
	if err != nil {
		return noEOF(err)
	}
	g.pos = 0
	if b[0] == 0 {
		g.then(1, (*xzGuard).indexCount)
		return nil
	}
	size := (int(b[0]) + 1) * 4
	if b, err = g.peek(size); err != nil {
		return noEOF(err)
	}
	flags, rest := b[1], b[2:size-4]
	for _, bit := range []byte{0x40, 0x80} { // compressed and uncompressed size
		if flags&bit != 0 {
			_, n := binary.Uvarint(rest)
			if n <= 0 {
				return errors.New("bad block header")
			}
			rest = rest[n:]
		}
	}
	if flags&3 != 0 || len(rest) < 3 || rest[0] != 0x21 || rest[1] != 1 {
		return errors.New("a block uses another filter than LZMA2")
	}
	// 2^(bits/2+12), times 1.5 when odd, section 5.3.1.
	bits := rest[2]
	if bits > 40 || int64(2|bits&1)<<(bits/2+11) > maxWindow {
		return fmt.Errorf("a block wants a dictionary of more than %d MiB", maxWindow>>20)
	}
	g.then(int64(size), (*xzGuard).chunk)
	g.pos = 0
	return nil
}

// chunk: control 1, then by its value nothing (end), or sizes and data.
func (g *xzGuard) chunk() error {
	b, err := g.peek(1)
	if err != nil {
		return noEOF(err)
	}
	control := b[0]
	if control == 0 {
		g.then(1, (*xzGuard).blockEnd)
		return nil
	}
	if control < 0x80 { // uncompressed: size-1 2, data
		if control > 2 {
			return errors.New("bad LZMA2 chunk")
		}
		if b, err = g.peek(3); err != nil {
			return noEOF(err)
		}
		g.then(3+int64(binary.BigEndian.Uint16(b[1:]))+1, (*xzGuard).chunk)
		return nil
	}
	if b, err = g.peek(5); err != nil {
		return noEOF(err)
	}
	size := 5 + int64(binary.BigEndian.Uint16(b[3:])) + 1
	if control >= 0xc0 { // new properties: one byte more
		size++
	}
	g.then(size, (*xzGuard).chunk)
	return nil
}

// blockEnd passes the padding and the check.
func (g *xzGuard) blockEnd() error {
	g.then(-g.pos&3+g.check, (*xzGuard).blockHeader)
	return nil
}

func (g *xzGuard) number() (uint64, int64, error) {
	b, err := g.br.Peek(9)
	if len(b) == 0 {
		return 0, 0, noEOF(err)
	}
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, 0, errors.New("bad index")
	}
	return v, int64(n), nil
}

// indexCount: the number of records; each has two numbers.
func (g *xzGuard) indexCount() error {
	v, n, err := g.number()
	if err != nil {
		return err
	}
	if v > 1<<60 {
		return errors.New("bad index")
	}
	g.left = 2 * v
	g.then(n, (*xzGuard).indexNumber)
	return nil
}

// indexNumber passes one number, or the padding, the CRC 4 and the stream's footer 12 after the last.
func (g *xzGuard) indexNumber() error {
	if g.left == 0 {
		g.then(-g.pos&3+4+12, (*xzGuard).streamHeader)
		return nil
	}
	_, n, err := g.number()
	if err != nil {
		return err
	}
	g.left--
	g.then(n, (*xzGuard).indexNumber)
	return nil
}
