package buildkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/build/contexts"
	"berth/build/transfer"
	"berth/fault"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// selection is what of a client's directory is wanted.
type selection struct {
	follow  []string // these, with what links in them lead to; none: all
	exclude []string // patterns as an ignore file has them
}

// fetch brings a tree to what a directory of the client has, as far as patterns need it, and gives how many bytes came.
func (c *session) fetch(ctx context.Context, name string, want selection, into *contexts.Tree, patterns []string, told func(bytes int64)) (bytes int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	head := metadata.MD{}
	put(head, "dir-name", name)
	put(head, "followpaths", want.follow...)
	put(head, "exclude-patterns", want.exclude...)
	stream, err := c.open(ctx, "/moby.filesync.v1.FileSync/DiffCopy", head)
	if err != nil {
		return 0, err
	}
	in := &incoming{stream: stream, held: map[int]*held{}}
	if err := in.list(time.Now()); err != nil {
		return 0, fmt.Errorf("receive %s from the client: %w", what(name), err)
	}
	lists, contents := io.Pipe()
	wishes, wanted := io.Pipe()
	var relay errgroup.Group
	relay.Go(func() error {
		err := transfer.Relay(ctx, readWriter{wishes, contents}, in.all, in)
		if err == nil {
			err = in.end()
		}
		contents.CloseWithError(err)
		wishes.CloseWithError(err)
		return err
	})
	bytes, err = into.Receive(readWriter{lists, wanted}, patterns, told)
	lists.CloseWithError(err)
	wanted.CloseWithError(err)
	if sent := relay.Wait(); err == nil && sent != nil {
		err = fmt.Errorf("receive %s from the client: %w", what(name), sent)
	}
	return bytes, err
}

type readWriter struct {
	io.Reader
	io.Writer
}

func what(name string) string {
	if name == "context" {
		return "the build context"
	}
	return "the context " + name
}

// put adds values to a request's head, where only ASCII may be: others are escaped, and a second key says so.
func put(head metadata.MD, key string, values ...string) {
	if len(values) == 0 {
		return
	}
	if slices.ContainsFunc(values, func(v string) bool { return strings.ContainsFunc(v, func(r rune) bool { return r > 0x7e || r < 0x20 }) }) {
		values = slices.Clone(values)
		for n, v := range values {
			values[n] = url.QueryEscape(v)
		}
		head.Set(key+"-encoded", "1")
	}
	head.Set(key, values...)
}

// incoming is a directory that a client sends: it tells of each entry in order, sends the content of the files that it is then asked for by
// their places in that order, four at a time, and an empty part at a file's end.
type incoming struct {
	stream grpc.ClientStream

	all    []transfer.Entry
	places []uint32 // of all, in the client's order

	queue []int // entries that are to be asked for
	open  int64 // bytes of those that were asked for and have not come, as far as the list says
	held  map[int]*held
	total int64 // bytes that are held
}

// held is content that came before its turn.
type held struct {
	data []byte
	end  bool
}

// How much is asked for ahead. A client of old reads no further question when 128 are open.
const (
	maxAhead  = 64
	maxBytes  = 8 << 20
	maxAstray = 64 << 20 // what a client may send of files that grew meanwhile
)

// next gives the next packet.
func (in *incoming) next() (*types.Packet, error) {
	p := &types.Packet{}
	if err := in.stream.RecvMsg(p); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, plain(err)
	}
	if p.Type == types.PACKET_ERR {
		return nil, errors.New(string(p.Data))
	}
	return p, nil
}

// list takes what the client tells of its entries.
func (in *incoming) list(now time.Time) error {
	byPath := map[string]int{}
	for place := uint32(0); ; place++ {
		p, err := in.next()
		if err != nil {
			return err
		}
		if p.Type != types.PACKET_STAT {
			return fmt.Errorf("a packet of kind %d before the list's end", p.Type)
		}
		if p.Stat == nil {
			return nil
		}
		mode := fs.FileMode(p.Stat.Mode)
		e, is := transfer.EntryOf(p.Stat.Path, mode, p.Stat.Size, time.Unix(0, p.Stat.ModTime), p.Stat.Linkname, now)
		if !is {
			continue
		}
		if mode.IsRegular() {
			if first, ok := byPath[p.Stat.Linkname]; ok && p.Stat.Linkname != "" {
				e.Same, e.Mode = 1+first, in.all[first].Mode
			} else {
				byPath[e.Path] = len(in.all)
			}
		}
		in.all, in.places = append(in.all, e), append(in.places, place)
	}
}

// Want implements transfer.Source.
func (in *incoming) Want(wanted []int) error {
	in.queue = wanted
	return in.ask()
}

// ask asks for files as far ahead as may be; one that is long, when nothing else is open.
func (in *incoming) ask() error {
	for len(in.queue) > 0 && len(in.held) < maxAhead && (len(in.held) == 0 || in.open+in.all[in.queue[0]].Size <= maxBytes) {
		k := in.queue[0]
		if err := in.stream.SendMsg(&types.Packet{Type: types.PACKET_REQ, ID: in.places[k]}); err != nil {
			return plain(err)
		}
		in.queue, in.held[k] = in.queue[1:], &held{}
		in.open += in.all[k].Size
	}
	return nil
}

// Content implements transfer.Source.
func (in *incoming) Content(k int, w io.Writer) (now transfer.Entry, err error) {
	mine := in.held[k]
	size := int64(len(mine.data))
	in.total -= size
	if _, err := w.Write(mine.data); err != nil {
		return now, err
	}
	for !mine.end {
		p, err := in.next()
		if err != nil {
			return now, err
		}
		at, found := slices.BinarySearch(in.places, p.ID)
		h := in.held[at]
		if p.Type != types.PACKET_DATA || !found || h == nil || h.end {
			return now, fmt.Errorf("a packet of kind %d for entry %d, which was not asked for", p.Type, p.ID)
		}
		switch {
		case len(p.Data) == 0:
			h.end = true
		case h == mine:
			size += int64(len(p.Data))
			if _, err := w.Write(p.Data); err != nil {
				return now, err
			}
		default:
			h.data = append(h.data, p.Data...)
			if in.total += int64(len(p.Data)); in.total > maxAstray {
				return now, errors.New("files grow while they are sent: build when they are finished")
			}
		}
	}
	delete(in.held, k)
	now = in.all[k]
	in.open -= now.Size
	if now.Size != size { // it changed meanwhile
		now.Size, now.CTime = size, 0
	}
	return now, in.ask()
}

// end tells the client that it has sent all.
func (in *incoming) end() error {
	if err := in.stream.SendMsg(&types.Packet{Type: types.PACKET_FIN}); err != nil {
		return plain(err)
	}
	if _, err := in.next(); err != nil {
		return err
	}
	return plain(in.stream.CloseSend())
}

// outgoing sends a directory to the client, which asks for the files' content as it was asked above.
type outgoing struct {
	stream grpc.ClientStream
	from   *os.Root
	mu     sync.Mutex // of sending

	files map[uint32]string
}

func (out *outgoing) send(p *types.Packet) error {
	out.mu.Lock()
	defer out.mu.Unlock()
	return plain(out.stream.SendMsg(p))
}

// list tells of all entries.
func (out *outgoing) list() error {
	out.files = map[uint32]string{}
	n := uint32(0)
	err := fs.WalkDir(out.from.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := &types.Stat{Path: p, Mode: uint32(info.Mode()), ModTime: info.ModTime().UnixNano()}
		switch mode := info.Mode(); {
		case mode.IsRegular():
			st.Size, out.files[n] = info.Size(), p
		case mode&fs.ModeSymlink != 0:
			if st.Linkname, err = out.from.Readlink(p); err != nil {
				return err
			}
		case !mode.IsDir():
			return nil // a device, which a client could not make
		}
		n++
		return out.send(&types.Packet{Type: types.PACKET_STAT, Stat: st})
	})
	if err != nil {
		return err
	}
	return out.send(&types.Packet{Type: types.PACKET_STAT})
}

// serve sends what the client asks for until it has all.
func (out *outgoing) serve() error {
	for {
		p := &types.Packet{}
		if err := out.stream.RecvMsg(p); err != nil {
			return plain(err)
		}
		switch p.Type {
		case types.PACKET_ERR:
			return errors.New(string(p.Data))
		case types.PACKET_FIN:
			return out.send(&types.Packet{Type: types.PACKET_FIN})
		case types.PACKET_REQ:
			name, ok := out.files[p.ID]
			if !ok {
				return fmt.Errorf("the client asked for entry %d, which is no file", p.ID)
			}
			if err := out.content(p.ID, name); err != nil {
				return err
			}
		}
	}
}

func (out *outgoing) content(id uint32, name string) (err error) {
	f, err := out.from.Open(name)
	if err != nil {
		return err
	}
	defer fault.Close(f, &err)
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			if err := out.send(&types.Packet{Type: types.PACKET_DATA, ID: id, Data: buf[:n]}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return out.send(&types.Packet{Type: types.PACKET_DATA, ID: id})
		}
		if err != nil {
			return err
		}
	}
}
