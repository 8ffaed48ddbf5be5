package transfer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"berth/fault"
)

// Pieces writes content in pieces, each after its length (as in encoding/binary's Uvarint), so that its end can be told from a sender's death.
type Pieces struct{ w io.Writer }

// NewPieces writes to w, which stays the caller's.
func NewPieces(w io.Writer) *Pieces { return &Pieces{w} }

// Write implements io.Writer: p is one piece.
func (p *Pieces) Write(data []byte) (int, error) {
	if len(data) == 0 {
		return 0, nil
	}
	if _, err := p.w.Write(binary.AppendUvarint(nil, uint64(len(data)))); err != nil {
		return 0, err
	}
	return p.w.Write(data)
}

// Close says that the content is whole.
func (p *Pieces) Close() error {
	_, err := p.w.Write([]byte{0})
	return err
}

// maxPiece is how long a piece may be, in bytes.
const maxPiece = 1 << 30

// ReadPieces gives content that Pieces wrote. One that breaks off ends with io.ErrUnexpectedEOF.
func ReadPieces(r *bufio.Reader) io.Reader { return &pieces{r: r} }

type pieces struct {
	r    *bufio.Reader
	left uint64
	err  error
}

// Read implements io.Reader.
func (p *pieces) Read(data []byte) (int, error) {
	if len(data) == 0 {
		return 0, nil
	}
	if p.left == 0 && p.err == nil {
		if p.left, p.err = binary.ReadUvarint(p.r); p.err == nil && p.left == 0 {
			p.err = io.EOF
			return 0, p.err
		}
		if p.left > maxPiece {
			p.err = fault.New(fault.Invalid, "a piece of %d bytes", p.left)
		}
		p.cut()
	}
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.r.Read(data[:min(uint64(len(data)), p.left)])
	p.left -= uint64(n)
	p.err = err
	p.cut()
	return n, p.err
}

func (p *pieces) cut() {
	if errors.Is(p.err, io.EOF) {
		p.err = io.ErrUnexpectedEOF
	}
}
