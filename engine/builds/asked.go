package builds

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/build"
	"berth/build/contexts"
	"berth/build/protocol"
	"berth/build/transfer"
	"berth/engine/images"
	"berth/fault"

	"github.com/distribution/reference"
	wire "github.com/moby/moby/api/types/registry"
)

// Conn is a connection to whoever asked for a build.
type Conn interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// Asked is a client that is asked for what a build needs when it needs it. Close it when the build is over.
type Asked struct {
	service *Service
	request protocol.Request
	auth    map[string]wire.AuthConfig
	ask     func(context.Context, protocol.Ask) (Conn, error)
	tell    Teller

	mu    sync.Mutex
	trees map[string]*brought
}

// brought is a tree that the client sent, or is sending.
type brought struct {
	once  sync.Once
	files *build.Files
	err   error
	close func() error
}

// Asked makes a client of a request. ask sends a question and gives the connection that answers it; it fails when its context ends, and
// says fault.NotFound when the client has no such thing.
func (s *Service) Asked(r protocol.Request, auth map[string]wire.AuthConfig, t Teller, ask func(context.Context, protocol.Ask) (Conn, error)) *Asked {
	return &Asked{service: s, request: r, auth: auth, ask: ask, tell: t, trees: map[string]*brought{}}
}

// Close ends the use of what the client sent.
func (a *Asked) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var err error
	for _, b := range a.trees {
		if b.close != nil {
			err = errors.Join(err, b.close())
		}
	}
	a.trees = nil
	return err
}

// Read reads the Dockerfile into o where the client did not send its text: it lies in the context.
func (a *Asked) Read(ctx context.Context, o *Options) error {
	if o.Text = a.request.Dockerfile; o.Text != nil {
		o.Ignore = a.request.Ignore
		return nil
	}
	if o.Remote != "" {
		return nil
	}
	files, err := a.Files(ctx, "", nil)
	if err != nil {
		return err
	}
	return o.readFrom(files.Top)
}

// Files implements build.Client. The same is brought once.
func (a *Asked) Files(ctx context.Context, name string, patterns []string) (*build.Files, error) {
	if patterns != nil {
		patterns = slices.Compact(slices.Sorted(slices.Values(patterns)))
	}
	if name == "" && a.request.Context == protocol.Archive {
		patterns = nil
	}
	key := fmt.Sprint(name, "\x00", patterns == nil, "\x00", strings.Join(patterns, "\x00"))
	a.mu.Lock()
	if a.trees == nil {
		a.mu.Unlock()
		return nil, fault.New(fault.Canceled, "the build is over")
	}
	b := a.trees[key]
	if b == nil {
		b = &brought{}
		a.trees[key] = b
	}
	a.mu.Unlock()
	b.once.Do(func() { b.files, b.close, b.err = a.bring(ctx, name, patterns) })
	return b.files, b.err
}

// bring has a tree sent.
func (a *Asked) bring(ctx context.Context, name string, patterns []string) (files *build.Files, end func() error, err error) {
	switch {
	case name == "" && a.request.Context == protocol.Archive:
		return a.archive(ctx)
	case name == "" && a.request.Context != protocol.Local:
		return nil, nil, fault.New(fault.Invalid, "there is no build context: give a directory, an archive or an address")
	}
	d, ok := a.request.Directories[name]
	if !ok {
		return nil, nil, fault.New(fault.NotFound, "there is no build context %q", name)
	}
	tree, err := a.service.Contexts.Tree(d.Key, d.Path)
	if err != nil {
		return nil, nil, err
	}
	conn, err := a.open(ctx, protocol.Ask{What: protocol.Files, Name: name})
	if err != nil {
		return nil, nil, errors.Join(err, tree.Close())
	}
	told := time.Now()
	n, err := tree.Receive(conn, patterns, func(bytes int64) {
		if now := time.Now(); name == "" && now.Sub(told) > tellEvery {
			told = now
			a.tell.Part(LoadContext, Transferring, bytes, 0, false)
		}
	})
	if err = errors.Join(gone(ctx, err), conn.Close()); err != nil {
		return nil, nil, errors.Join(err, tree.Close())
	}
	if name == "" {
		a.tell.Part(LoadContext, Transferring, n, 0, true)
	}
	return filesOf(tree), tree.Close, nil
}

// tellEvery is how often it is told how much came.
const tellEvery = 100 * time.Millisecond

func filesOf(t *contexts.Tree) *build.Files {
	return &build.Files{Top: t.Top(), Each: t.Each}
}

// archive takes an archive whole.
func (a *Asked) archive(ctx context.Context) (files *build.Files, end func() error, err error) {
	conn, err := a.open(ctx, protocol.Ask{What: protocol.Content})
	if err != nil {
		return nil, nil, err
	}
	c := &counting{Reader: transfer.ReadPieces(bufio.NewReaderSize(conn, 256<<10))}
	dir, err := a.service.context(ctx, c)
	if err = errors.Join(gone(ctx, err), conn.Close()); err != nil {
		return nil, nil, err
	}
	a.tell.Part(LoadContext, Transferring, c.n, 0, true)
	return &build.Files{Top: dir}, func() error { return removeContext(dir) }, nil
}

// counting counts what is read.
type counting struct {
	io.Reader
	n int64
}

// Read implements io.Reader.
func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

// gone is err, or that the client is not there any more, which is then its cause.
func gone(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return fault.Wrap(fault.Canceled, ctx.Err())
	}
	return err
}

// line is a connection that ends with a context.
type line struct {
	Conn
	stop func() bool
}

// Close implements io.Closer.
func (l line) Close() error {
	l.stop()
	return l.Conn.Close()
}

func (a *Asked) open(ctx context.Context, q protocol.Ask) (Conn, error) {
	conn, err := a.ask(ctx, q)
	if err != nil {
		return nil, err
	}
	return line{conn, context.AfterFunc(ctx, func() { _ = conn.Close() })}, nil // who reads from it hears of it
}

// maxSecret is how long a secret may be, in bytes: BuildKit's bound.
const maxSecret = 500 << 10

// Secret implements build.Client.
func (a *Asked) Secret(ctx context.Context, id string) ([]byte, error) {
	if !slices.Contains(a.request.Secrets, id) {
		return nil, fault.New(fault.NotFound, "secret %s: not found: give it by --secret id=%s,src=FILE", id, id)
	}
	conn, err := a.open(ctx, protocol.Ask{What: protocol.Secret, Name: id})
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", id, err)
	}
	data, err := io.ReadAll(io.LimitReader(transfer.ReadPieces(bufio.NewReader(conn)), maxSecret+1))
	if err == nil && len(data) > maxSecret {
		err = fault.New(fault.Invalid, "it has more than %d bytes", maxSecret)
	}
	if err = errors.Join(gone(ctx, err), conn.Close()); err != nil {
		return nil, fmt.Errorf("secret %s: %w", id, err)
	}
	return data, nil
}

// Agent implements build.Client.
func (a *Asked) Agent(ctx context.Context, id string) (io.ReadWriteCloser, error) {
	if !slices.Contains(a.request.Agents, id) {
		return nil, fault.New(fault.NotFound, "unset ssh forward key %s: give it by --ssh %s", id, id)
	}
	conn, err := a.open(ctx, protocol.Ask{What: protocol.Agent, Name: id})
	if err != nil {
		return nil, fmt.Errorf("ssh agent %s: %w", id, err)
	}
	return conn, nil
}

// Output implements Client.
func (a *Asked) Output(ctx context.Context, name string) (io.WriteCloser, error) {
	conn, err := a.open(ctx, protocol.Ask{What: protocol.Destination, Name: name})
	if err != nil {
		return nil, fmt.Errorf("output %s: %w", name, err)
	}
	return &destination{ctx: ctx, conn: conn, out: transfer.NewPieces(conn), name: name}, nil
}

// destination is where an output goes.
type destination struct {
	ctx  context.Context
	conn Conn
	out  *transfer.Pieces
	name string
}

// Write implements io.Writer.
func (d *destination) Write(p []byte) (int, error) {
	n, err := d.out.Write(p)
	if err != nil {
		err = cmp.Or(d.said(), err) // the client's own words are more
	}
	return n, gone(d.ctx, err)
}

// Close implements io.Closer: all is where it belongs, or the error says why not.
func (d *destination) Close() error {
	err := errors.Join(d.out.Close(), d.conn.CloseWrite())
	if err == nil {
		err = d.said()
	}
	return errors.Join(gone(d.ctx, err), d.conn.Close())
}

// CloseWithError gives the output up: the client does not take what came for the whole.
func (d *destination) CloseWithError(error) error { return d.conn.Close() }

// said is what the client says of what it got; nil when it has all.
func (d *destination) said() error {
	text, err := io.ReadAll(io.LimitReader(d.conn, 64<<10))
	switch {
	case err != nil:
		return fmt.Errorf("output %s: %w", d.name, err)
	case string(text) == protocol.Received:
		return nil
	case len(text) == 0:
		return fault.New(fault.Canceled, "output %s: the client went away", d.name)
	}
	return fault.New(fault.Invalid, "output %s: %s", d.name, strings.TrimSpace(string(text)))
}

// Credentials implements Client.
func (a *Asked) Credentials(_ context.Context, name reference.Named) (wire.AuthConfig, error) {
	return images.ForHost(a.auth, name), nil
}
