// Package compress undoes the compressions that archives travel in.
//
// It is not an archiver and compresses nothing. Invariant: whatever a stream claims, the memory to read it is bounded, and damage is
// fault.Corrupt. It stands apart from package archive because its decoders' tables cost every program that has them 0.3 ms at its start.
package compress

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"berth/archive/inflate"
	"berth/fault"
)

// Kind names the outer format of a stream.
type Kind string

// What Open recognises. None is any stream that starts like no other.
const (
	None  Kind = "none"
	Gzip  Kind = "gzip"
	Bzip2 Kind = "bzip2"
	XZ    Kind = "xz"
	Zstd  Kind = "zstd"
)

// maxWindow bounds the history in bytes that a zstd or xz stream may claim:
// the default bound of the zstd command, and twice what `xz -9` uses.
const maxWindow = 128 << 20

// Open looks at the first bytes of r and returns the plain stream with
// the compression found. Memory is bounded whatever the stream claims. Reading gives
// fault.Corrupt, naming the compression, for truncated or damaged input; r's
// own errors pass unchanged. The caller closes the result, which does not close r.
func Open(r io.Reader) (io.ReadCloser, Kind, error) {
	src := &source{r: r}
	br := bufio.NewReaderSize(src, 64<<10)
	head, err := br.Peek(10)
	if err != nil && err != io.EOF {
		return nil, None, err
	}
	kind := sniff(head)
	plain, stop, err := decoder(kind, br)
	if err != nil {
		return nil, kind, blame(kind, src, err)
	}
	return &plainReader{kind: kind, src: src, r: plain, stop: stop}, kind, nil
}

// sniff tells a format by its magic number.
func sniff(head []byte) Kind {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return Gzip // RFC 1952, 2.3.1
	case len(head) >= 10 && string(head[:3]) == "BZh" && head[3] >= '1' && head[3] <= '9' &&
		(string(head[4:10]) == "\x31\x41\x59\x26\x53\x59" || string(head[4:10]) == "\x17\x72\x45\x38\x50\x90"):
		return Bzip2 // a block's mark, or the end mark of an empty stream
	case bytes.HasPrefix(head, []byte(xzMagic)):
		return XZ
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return Zstd // RFC 8878, 3.1.1
	case len(head) >= 4 && head[0]&0xf0 == 0x50 && head[1] == 0x2a && head[2] == 0x4d && head[3] == 0x18:
		return Zstd // a skippable frame, RFC 8878, 3.1.2
	}
	return None
}

// decoder starts the decoder of a format; stop, when not nil, frees what it holds.
func decoder(kind Kind, br *bufio.Reader) (plain io.Reader, stop func(), err error) {
	switch kind {
	case Gzip:
		g, err := inflate.NewReader(br)
		return g, nil, err
	case Bzip2:
		return bzip2.NewReader(br), nil, nil
	case XZ:
		x, err := xz.NewReader(&xzGuard{br: br})
		return x, nil, err
	case Zstd:
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return br, nil, nil
}

// source remembers the error of the stream below, so that it isn't taken for damage.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// blame turns a decoder's error into the source's own, or into damage.
func blame(kind Kind, src *source, err error) error {
	switch {
	case src.err != nil:
		return src.err
	case errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF:
		return fault.New(fault.Corrupt, "%s data is truncated: %w", kind, io.ErrUnexpectedEOF)
	}
	return fault.New(fault.Corrupt, "%s data is damaged: %w", kind, err)
}

type plainReader struct {
	kind Kind
	src  *source
	r    io.Reader
	stop func()
	err  error // sticky
}

func (p *plainReader) Read(b []byte) (n int, err error) {
	if p.err != nil {
		return 0, p.err
	}
	n, err = p.decode(b)
	switch {
	case err == nil || p.kind == None:
	case err == io.EOF && p.src.err == nil:
	default:
		err = blame(p.kind, p.src, err)
	}
	p.err = err
	return n, err
}

// decode keeps a decoder's panic over foreign bytes from ending the process.
func (p *plainReader) decode(b []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			n, err = 0, fmt.Errorf("the decoder failed: %v", v)
		}
	}()
	return p.r.Read(b)
}

var errClosed = errors.New("read of a closed stream")

func (p *plainReader) Close() error {
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
	p.err = errClosed
	return nil
}

// noEOF makes the end of input inside a structure what it is.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
