package transfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"berth/fault"
	"berth/kernel"
)

// Source is a client that sends files by a protocol of its own.
type Source interface {
	// Want says which entries' content will be asked for, by their indices, in the order in which Content is called.
	Want(wanted []int) error
	// Content writes what entry k has, and gives its size and times now: what changed since it was listed is for the caller to say.
	Content(k int, w io.Writer) (now Entry, err error)
}

// Relay is the sending end in place of a client of another protocol: it passes a list on, and then what the other end wants of it.
func Relay(ctx context.Context, conn io.ReadWriter, list []Entry, from Source) error {
	out := bufio.NewWriterSize(conn, 256<<10)
	var buf []byte
	for k := range list {
		buf = AppendEntry(append(buf[:0], markEntry), &list[k])
		if _, err := out.Write(buf); err != nil {
			return err
		}
	}
	if err := errors.Join(out.WriteByte(markEnd), out.Flush()); err != nil {
		return err
	}
	wanted, err := readWanted(bufio.NewReaderSize(conn, 32<<10), len(list))
	if err != nil {
		return fmt.Errorf("send the build context: %w", err)
	}
	if len(wanted) == 0 {
		return nil
	}
	if err = from.Want(wanted); err == nil {
		for _, k := range wanted {
			if err = relay(ctx, out, k, from); err != nil {
				break
			}
		}
	}
	if err != nil {
		_, werr := out.Write(appendString([]byte{markError}, err.Error()))
		return errors.Join(err, werr, out.Flush())
	}
	return out.Flush()
}

// relay passes one file on. What fails in the middle of it is told at its end.
func relay(ctx context.Context, out *bufio.Writer, k int, from Source) error {
	if err := ctx.Err(); err != nil {
		return fault.Wrap(fault.Canceled, err)
	}
	if err := out.WriteByte(markData); err != nil {
		return err
	}
	p := NewPieces(out)
	now, err := from.Content(k, p)
	if closed := p.Close(); err != nil || closed != nil {
		return errors.Join(err, closed)
	}
	_, err = out.Write(AppendEntry([]byte{markEnd}, &now))
	return err
}

// EntryOf is an entry as such a client tells of it: a file's size and times are all that is known of its identity. A time in whole seconds is one
// that was set, and often the same for other files of the same size: such a file counts as changed. false: it is of no kind that is carried.
func EntryOf(path string, mode fs.FileMode, size int64, mtime time.Time, target string, now time.Time) (e Entry, is bool) {
	e = Entry{Path: path, Mode: uint32(mode.Perm()), MTime: mtime.UnixNano()}
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&flag != 0 {
			e.Mode |= bit
		}
	}
	switch {
	case mode.IsRegular():
		e.Mode |= kernel.TypeRegular
		e.Size = size
		if mtime.Nanosecond() != 0 && now.Sub(mtime) > settled {
			e.CTime = e.MTime
		}
	case mode.IsDir():
		e.Mode |= kernel.TypeDir
	case mode&fs.ModeSymlink != 0:
		e.Mode |= kernel.TypeSymlink
		e.Target = target
	case mode&fs.ModeNamedPipe != 0:
		e.Mode |= kernel.TypeFifo
	default:
		return e, false
	}
	return e, true
}
