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

// fetch copies a directory of the client into an empty one.
func (c *session) fetch(ctx context.Context, name string, want selection, into *os.Root, told func(bytes int64)) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	head := metadata.MD{}
	put(head, "dir-name", name)
	put(head, "followpaths", want.follow...)
	put(head, "exclude-patterns", want.exclude...)
	stream, err := c.open(ctx, "/moby.filesync.v1.FileSync/DiffCopy", head)
	if err == nil {
		in := &incoming{stream: stream, into: into, told: told}
		if err = in.list(); err == nil {
			err = in.place()
		}
		if err == nil {
			err = in.contents(cancel)
		}
	}
	if err != nil {
		return fmt.Errorf("receive %s from the client: %w", what(name), err)
	}
	return nil
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
	into   *os.Root
	told   func(bytes int64)

	all  []*types.Stat
	want []uint32 // places of the files whose content is wanted
}

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
func (in *incoming) list() error {
	for {
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
		in.all = append(in.all, p.Stat)
	}
}

// place makes all that has no content. Whoever sends could name a path outside: the root doesn't let it.
func (in *incoming) place() error {
	for n, st := range in.all {
		var err error
		switch mode := fs.FileMode(st.Mode); {
		case mode.IsDir():
			err = in.into.Mkdir(st.Path, 0o700)
		case mode&fs.ModeSymlink != 0:
			err = in.into.Symlink(st.Linkname, st.Path)
		case mode.IsRegular() && st.Linkname == "":
			in.want = append(in.want, uint32(n))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// contents asks for the files and writes them. Asking is a side of its own: the client may wait for what it sends to be read before it reads on.
func (in *incoming) contents(cancel func()) error {
	var asking errgroup.Group
	asking.Go(func() error {
		for _, id := range in.want {
			if err := in.stream.SendMsg(&types.Packet{Type: types.PACKET_REQ, ID: id}); err != nil {
				return plain(err)
			}
		}
		return nil
	})
	err := in.write()
	if err != nil {
		cancel()
	}
	if err := errors.Join(err, asking.Wait()); err != nil {
		return err
	}
	if err := in.finish(); err != nil {
		return err
	}
	if err := in.stream.SendMsg(&types.Packet{Type: types.PACKET_FIN}); err != nil {
		return plain(err)
	}
	if _, err := in.next(); err != nil {
		return err
	}
	return plain(in.stream.CloseSend())
}

// write takes the content of files until all have come.
func (in *incoming) write() (err error) {
	open := map[uint32]*os.File{}
	left := make(map[uint32]bool, len(in.want))
	for _, id := range in.want {
		left[id] = true
	}
	defer func() {
		for _, f := range open {
			err = errors.Join(err, f.Close())
		}
	}()
	for len(left) > 0 {
		p, err := in.next()
		if err != nil {
			return err
		}
		if p.Type != types.PACKET_DATA || !left[p.ID] {
			return fmt.Errorf("a packet of kind %d for entry %d, which was not asked for", p.Type, p.ID)
		}
		f := open[p.ID]
		if f == nil {
			if f, err = in.into.OpenFile(in.all[p.ID].Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
				return err
			}
			open[p.ID] = f
		}
		if len(p.Data) == 0 {
			delete(open, p.ID)
			delete(left, p.ID)
			if err := f.Close(); err != nil {
				return err
			}
			continue
		}
		if _, err := f.Write(p.Data); err != nil {
			return err
		}
		in.told(int64(len(p.Data)))
	}
	return nil
}

// finish makes hard links, and gives what was made its mode and time: directories last, as what comes into them changes theirs.
func (in *incoming) finish() error {
	for n := range in.all {
		st := in.all[n]
		if mode := fs.FileMode(st.Mode); mode.IsRegular() && st.Linkname != "" {
			if err := in.into.Link(st.Linkname, st.Path); err != nil {
				return err
			}
		}
	}
	for n := range in.all {
		st := in.all[len(in.all)-1-n]
		mode := fs.FileMode(st.Mode)
		if !mode.IsDir() && !mode.IsRegular() {
			continue
		}
		when := time.Unix(0, st.ModTime)
		if err := errors.Join(in.into.Chmod(st.Path, mode&^fs.ModeType), in.into.Chtimes(st.Path, when, when)); err != nil {
			return err
		}
	}
	return nil
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
