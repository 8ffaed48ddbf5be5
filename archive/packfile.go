package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"

	"berth/fault"
	"berth/kernel"
)

// errReplaced says that a name stands for another kind of thing than a moment ago.
var errReplaced = fault.New(fault.Conflict, "it changed its kind while it was read")

func (p *Packer) file(dir *os.File, name string, hdr *tar.Header, written *bool) error {
	// Nonblocking: should the name have become a fifo meanwhile, the open doesn't hang.
	f, err := kernel.OpenIn(dir, name, kernel.ONoFollow|kernel.ONonblock, 0, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := kernel.Stat(f)
	if err != nil {
		return err
	}
	if st.Mode&kernel.TypeMask != kernel.TypeRegular {
		return errReplaced
	}
	hdr.Size, *written = st.Size, true
	if p.o.Holes && st.Blocks*512 < st.Size {
		parts, err := data(f, st.Size)
		if err != nil {
			return err
		}
		if parts != nil {
			return p.sparse(f, hdr, parts)
		}
	}
	if err := p.tw.WriteHeader(hdr); err != nil {
		return err
	}
	return p.copy(p.tw, f, 0, st.Size)
}

// copy writes length bytes of f from offset at on.
func (p *Packer) copy(w io.Writer, f *os.File, at, length int64) error {
	buf := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buf)
	for end := at + length; at < end; {
		n, err := f.ReadAt(buf[:min(end-at, int64(len(buf)))], at)
		if err == io.EOF && at+int64(n) < end {
			if !p.o.Live {
				return fault.New(fault.Conflict, "it shrank by %d bytes while it was read", end-at-int64(n))
			}
			rest := buf[n:min(end-at, int64(len(buf)))]
			clear(rest)
			n += len(rest)
		} else if err != nil && err != io.EOF {
			return err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		at += int64(n)
		if err := p.ctx.Err(); err != nil {
			return fault.New(fault.Canceled, "%w", err)
		}
	}
	return nil
}

// extent is a run of a file's bytes that is not a hole.
type extent struct{ at, length int64 }

// maxExtents bounds the table of a sparse member; a file in more pieces is written in full.
const maxExtents = 1 << 16

// minSaving is how many bytes holes must save to be worth a member that fewer programs understand.
const minSaving = 1 << 20

// data lists where f, size bytes long, has bytes of its own (lseek(2), SEEK_DATA). nil: not worth it.
func data(f *os.File, size int64) ([]extent, error) {
	parts, sum := []extent{}, int64(0)
	for at := int64(0); at < size; {
		from, ok, err := kernel.SeekData(f, at)
		if err != nil || !ok {
			if errors.Is(err, errors.ErrUnsupported) {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			break
		}
		to, err := kernel.SeekHole(f, from)
		if err != nil {
			return nil, err
		}
		from, to = min(from, size), min(to, size)
		if from == to {
			break
		}
		if len(parts) == maxExtents {
			return nil, nil
		}
		parts, sum = append(parts, extent{from, to - from}), sum+to-from
		at = to
	}
	if size-sum < minSaving {
		return nil, nil
	}
	return parts, nil
}

// sparse writes a file with holes in the PAX format 1.0 (GNU tar manual, "Storing Sparse Files"): the member's data
// begins with the table of extents, and the records name the real size.
// archive/tar reads this but does not write it, so the records' header is made here.
func (p *Packer) sparse(f *os.File, hdr *tar.Header, parts []extent) error {
	var table bytes.Buffer
	if end := (extent{hdr.Size, 0}); len(parts) == 0 || parts[len(parts)-1].at+parts[len(parts)-1].length < hdr.Size {
		parts = append(parts, end) // how readers learn of a hole at the end
	}
	fmt.Fprintf(&table, "%d\n", len(parts))
	stored := int64(0)
	for _, e := range parts {
		fmt.Fprintf(&table, "%d\n%d\n", e.at, e.length)
		stored += e.length
	}
	table.Write(make([]byte, -table.Len()&511))
	records := map[string]string{
		"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": hdr.Name, "GNU.sparse.realsize": strconv.FormatInt(hdr.Size, 10),
	}
	for k, v := range hdr.PAXRecords {
		records[k] = v
	}
	inner := *hdr
	inner.Size, inner.PAXRecords = int64(table.Len())+stored, nil
	if err := p.tw.Flush(); err != nil {
		return err
	}
	if err := p.rawHeader(&inner, records); err != nil {
		return err
	}
	if _, err := p.out.Write(table.Bytes()); err != nil {
		return err
	}
	for _, e := range parts {
		if err := p.copy(p.out, f, e.at, e.length); err != nil {
			return err
		}
	}
	_, err := p.out.Write(make([]byte, -stored&511))
	return err
}

// rawHeader writes a member's header behind a header of records, as archive/tar would if it took these records.
func (p *Packer) rawHeader(hdr *tar.Header, records map[string]string) error {
	small := func(key string, n, limit int64) int64 {
		if n >= 0 && n <= limit {
			return n
		}
		records[key] = strconv.FormatInt(n, 10)
		return 0
	}
	const octal7, octal11 = 1<<21 - 1, 1<<33 - 1
	b := block{
		name: "GNUSparseFile.0/" + path.Base(hdr.Name), mode: hdr.Mode, flag: tar.TypeReg,
		uid: small("uid", int64(hdr.Uid), octal7), gid: small("gid", int64(hdr.Gid), octal7),
		size: small("size", hdr.Size, octal11), mtime: small("mtime", hdr.ModTime.Unix(), octal11),
	}
	var text bytes.Buffer
	for _, key := range slices.Sorted(maps.Keys(records)) {
		text.WriteString(paxRecord(key, records[key]))
	}
	length := text.Len()
	text.Write(make([]byte, -length&511))
	for _, part := range [][]byte{block{name: "PaxHeaders.0/" + path.Base(hdr.Name), flag: tar.TypeXHeader, mode: 0o644, size: int64(length)}.bytes(), text.Bytes(), b.bytes()} {
		if _, err := p.out.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// paxRecord is "LENGTH KEY=VALUE\n", where the length counts its own digits (pax(1), "pax Extended Header").
func paxRecord(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	length := len(rest)
	for length != len(rest)+len(strconv.Itoa(length)) {
		length = len(rest) + len(strconv.Itoa(length))
	}
	return strconv.Itoa(length) + rest
}

// block is a header of the ustar format (pax(1), "ustar Header Block").
type block struct {
	name                        string
	mode, uid, gid, size, mtime int64
	flag                        byte
}

func (h block) bytes() []byte {
	b := make([]byte, 512)
	copy(b[:100], h.name)
	for _, f := range []struct {
		at, digits int
		value      int64
	}{{100, 7, h.mode}, {108, 7, h.uid}, {116, 7, h.gid}, {124, 11, h.size}, {136, 11, h.mtime}} {
		copy(b[f.at:], fmt.Sprintf("%0*o", f.digits, f.value))
	}
	b[156] = h.flag
	copy(b[257:], "ustar\x0000")
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}
