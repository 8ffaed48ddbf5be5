package shim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strconv"
	"time"
)

const (
	packedSuffix = ".gz"
	tempSuffix   = ".gz.tmp" // what a helper is writing
	newSuffix    = ".new"    // a file that is about to be the current one
)

// worthPacking is the size of files below which a helper's start would cost more than they hold.
const worthPacking = 16 << 10

// Arguments of Log.Packer. Compressing takes a megabyte and a processor, and even the tables of a compressor are a tenth of an idle supervisor: so it
// is another program's.
const (
	helperArg = "log-helper"
	packArg   = "compress"
	unpackArg = "decompress"
)

// packing is a helper that compresses one of the older files. At most one is at work, and only the
// supervisor renames, so numbers don't race; the log may rotate meanwhile. Whoever of the two is killed, either the plain file is
// left or the packed one, or both with the same content.
type packing struct {
	number  int // of the file now; 0: it is not wanted any more
	process *os.Process
	done    chan struct{}
}

// moveUp tells the helper's file number after a rotation.
func (p *packing) moveUp(files int) {
	if p == nil || p.number == 0 {
		return
	}
	if p.number++; p.number >= files {
		p.number = 0
		p.process.Kill()
	}
}

// pack has the newest of the older files compressed that is not yet, unless a helper is at work. The
// oldest may be dropped before its turn comes, when output comes faster than it can be compressed.
func (l *logger) pack() {
	if l.Packer == "" || l.MaxSize < worthPacking || l.settled || l.packing != nil {
		return
	}
	for i := 1; i < l.MaxFiles; i++ {
		in, err := os.Open(l.name(i))
		if err != nil {
			continue
		}
		defer in.Close()
		os.Remove(l.Path + tempSuffix)
		out, err := os.OpenFile(l.Path+tempSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
		if err != nil {
			return
		}
		defer out.Close()
		process, err := l.helper(packArg, in, out)
		if err != nil {
			return
		}
		l.packing = &packing{number: i, process: process, done: make(chan struct{})}
		go l.finishPacking(l.packing)
		return
	}
}

// finishPacking gives the packed file its name, and goes on with the next. After a failure the file stays plain until another rotation.
func (l *logger) finishPacking(p *packing) {
	state, err := p.process.Wait()
	l.mu.Lock()
	l.packing = nil
	temp := l.Path + tempSuffix
	switch {
	case p.number == 0:
		os.Remove(temp)
		l.pack()
	case err == nil && state.Success() && os.Rename(temp, l.packed(p.number)) == nil:
		os.Remove(l.name(p.number))
		l.pack()
	default:
		os.Remove(temp)
	}
	l.mu.Unlock()
	close(p.done)
	l.idle()
}

// settle waits until all older files are packed, or for so long: then the rest is for the next run.
func (l *logger) settle(patience time.Duration) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		l.mu.Lock()
		p := l.packing
		l.mu.Unlock()
		if p == nil {
			break
		}
		select {
		case <-p.done:
		case <-timer.C:
			l.mu.Lock()
			l.settled = true
			l.mu.Unlock()
			p.process.Kill()
			<-p.done
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settled = true
}

// tidy removes what a killed supervisor left half done.
func (l *logger) tidy() {
	os.Remove(l.Path + newSuffix)
	os.Remove(l.Path + tempSuffix)
	for i := 1; i < l.MaxFiles; i++ {
		if _, err := os.Lstat(l.packed(i)); err == nil {
			os.Remove(l.name(i)) // packed completely
		}
	}
}

// endOf is the number of bytes logged up to the end of the i-th file, 0 when that can't be told.
func (l *logger) endOf(i int) int64 {
	if f, err := os.Open(l.name(i)); err == nil {
		defer f.Close()
		if info, err := f.Stat(); err == nil {
			return firstOffset(f) + info.Size()
		}
	}
	f, err := os.Open(l.packed(i))
	if err != nil {
		return 0
	}
	defer f.Close()
	head := make([]byte, 64)
	n, _ := f.ReadAt(head, 0)
	return packedEnd(head[:n])
}

// firstOffset is what a file's first record tells of the bytes before it; 0 when it doesn't.
func firstOffset(f io.ReaderAt) int64 {
	for size := 512; size <= 1<<20; size *= 8 {
		head := make([]byte, size)
		n, err := f.ReadAt(head, 0)
		if line, _, whole := bytes.Cut(head[:n], []byte{'\n'}); whole {
			return recordOffset(line)
		}
		if err != nil {
			break
		}
	}
	return 0
}

// recordOffset finds the offset in a record.
func recordOffset(record []byte) int64 {
	_, rest, _ := bytes.Cut(ownFields(record), []byte(offsetKey))
	n := 0
	for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
		n++
	}
	offset, _ := strconv.ParseInt(string(rest[:n]), 10, 64)
	return offset
}

// packedEnd reads the comment that the packer writes, from the beginning of a file (RFC 1952, 2.3): 0 when there is none of ours.
func packedEnd(head []byte) int64 {
	const fixed, comment = 10, 0x10
	if len(head) < fixed || binary.BigEndian.Uint16(head) != 0x1f8b || head[3] != comment {
		return 0
	}
	text, _, whole := bytes.Cut(head[fixed:], []byte{0})
	number, ours := bytes.CutPrefix(text, []byte(endWords))
	end, err := strconv.ParseInt(string(number), 10, 64)
	if !whole || !ours || err != nil {
		return 0
	}
	return end
}

const endWords = "berth log up to "

// helper starts the packer, to read in and write out. Whoever starts it waits for it.
func (l *Log) helper(what string, in, out *os.File) (*os.Process, error) {
	return os.StartProcess(l.Packer, []string{l.Packer, helperArg, what}, &os.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"}, Files: []*os.File{in, out, os.Stderr},
	})
}

// unpacked is a packed file's content. Its helper starts with the first read.
type unpacked struct {
	log        *Log
	file, pipe *os.File
	process    *os.Process
}

func (u *unpacked) Read(p []byte) (int, error) {
	if u.process == nil {
		r, w, err := os.Pipe()
		if err != nil {
			return 0, err
		}
		defer w.Close()
		if u.process, err = u.log.helper(unpackArg, u.file, w); err != nil {
			r.Close()
			return 0, err
		}
		u.pipe = r
	}
	return u.pipe.Read(p)
}

func (u *unpacked) Close() error {
	err := u.file.Close()
	if u.process != nil {
		err = errors.Join(err, u.pipe.Close())
		_, failed := u.process.Wait()
		err = errors.Join(err, failed)
	}
	return err
}

// snapshot opens what is logged up to now, oldest first. Rotation and later lines don't change
// what the readers give; the caller closes the closers.
func (l *logger) snapshot() (closers []io.Closer, parts []io.Reader) {
	if l == nil {
		return nil, nil
	}
	for i := max(l.MaxFiles, 1) - 1; i >= 0; i-- {
		f, err := os.Open(l.name(i))
		if err == nil && i == 0 {
			closers, parts = append(closers, f), append(parts, io.LimitReader(f, l.size))
			continue
		}
		if err == nil {
			closers, parts = append(closers, f), append(parts, f)
			continue
		}
		if f, err = os.Open(l.packed(i)); err == nil {
			u := &unpacked{log: &l.Log, file: f}
			closers, parts = append(closers, u), append(parts, u)
		}
	}
	return closers, parts
}
