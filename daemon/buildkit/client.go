package buildkit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"berth/archive"
	"berth/build"
	"berth/engine/builds"
	"berth/fault"

	"github.com/distribution/reference"
	wire "github.com/moby/moby/api/types/registry"
	"github.com/moby/patternmatcher/ignorefile"
	"google.golang.org/grpc/metadata"
)

// asker is the client of a build, asked back through its session.
type asker struct {
	*Server
	session *session
	outputs []output // in the order in which the client has them
	dirs    *directories

	attrs  map[string]string            // of the frontend
	ignore []string                     // patterns of the ignore file
	told   func(bytes int64, done bool) // of the build context's files that came, all in all
}

// with is the same client, asked for a build with these attributes.
func (a *asker) with(attrs map[string]string, t builds.Teller) *asker {
	one := *a
	one.attrs = attrs
	one.told = func(bytes int64, done bool) { t.Part(builds.LoadContext, builds.Transferring, bytes, 0, done) }
	return &one
}

// directories are those that go with a build, or that it has for itself as long as it goes on.
type directories struct {
	mu  sync.Mutex
	end []func() error

	brought map[string]func() (*build.Files, error) // by what they are of
}

// once brings what key says if it is not here yet: nothing is sent twice, and some can't be.
func (d *directories) once(key string, bring func() (*build.Files, error)) (*build.Files, error) {
	d.mu.Lock()
	if d.brought == nil {
		d.brought = map[string]func() (*build.Files, error){}
	}
	if d.brought[key] == nil {
		d.brought[key] = sync.OnceValues(bring)
	}
	bring = d.brought[key]
	d.mu.Unlock()
	return bring()
}

// add takes one, with what ends the build's use of it.
func (d *directories) add(end func() error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.end = append(d.end, end)
}

// whole takes a directory that goes with the build.
func (d *directories) whole(dir *os.File) *build.Files {
	d.add(func() error { return errors.Join(dir.Close(), os.RemoveAll(dir.Name())) })
	return &build.Files{Top: dir}
}

// close ends the use of all.
func (d *directories) close() (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, end := range d.end {
		err = errors.Join(err, end())
	}
	d.end = nil
	return err
}

// output is an exporter that the client asked for.
type output struct {
	builds.Output
	index int
}

// holder is the session that has a directory: clients that build several things of one directory keep it in a session of its own.
func (a *asker) holder(ctx context.Context, name string) (*session, error) {
	if id := a.attrs["local-sessionid:"+name]; id != "" && id != a.session.id {
		return a.sessions.get(ctx, id)
	}
	return a.session, nil
}

// fetch brings a directory of the client into a tree, which has a key when it is to be kept for the next build.
func (a *asker) fetch(ctx context.Context, name string, want selection, key string, patterns []string) (*build.Files, error) {
	from, err := a.holder(ctx, name)
	if err != nil {
		return nil, err
	}
	tree, err := a.Builds.Contexts.Tree(key, name+" of a client of BuildKit")
	if err != nil {
		return nil, err
	}
	a.dirs.add(tree.Close)
	tell := func(int64, bool) {}
	if name == a.contextName() && want.follow == nil {
		tell = a.told
	}
	told := time.Now()
	bytes, err := from.fetch(ctx, name, want, tree, patterns, func(bytes int64) {
		if now := time.Now(); now.Sub(told) > tellEvery {
			told = now
			tell(bytes, false)
		}
	})
	if err != nil {
		return nil, err
	}
	tell(bytes, true)
	return &build.Files{Top: tree.Top(), Each: tree.Each}, nil
}

// tellEvery is how often it is told how much came.
const tellEvery = 100 * time.Millisecond

// keyOf is what a directory of the client is kept under: clients say what they have in common with their next build. "": this one doesn't.
func (a *asker) keyOf(name string) string {
	shared := a.session.key
	if name != a.contextName() {
		shared = a.attrs["sharedkey:localdir:"+name]
	}
	if shared == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("buildkit\x00" + name + "\x00" + shared))
	return hex.EncodeToString(sum[:])
}

// read brings files of a directory of the client, those that there are.
func (a *asker) read(ctx context.Context, name string, files ...string) (map[string][]byte, error) {
	dir, err := a.fetch(ctx, name, selection{follow: files}, "", nil)
	if err != nil {
		return nil, err
	}
	return readAll(dir.Top, files)
}

// readContext reads files of a context that is no directory of the client.
func (a *asker) readContext(ctx context.Context, files ...string) (map[string][]byte, error) {
	context, err := a.Files(ctx, "", nil)
	if err != nil {
		return nil, err
	}
	return readAll(context.Top, files)
}

func readAll(dir *os.File, files []string) (map[string][]byte, error) {
	texts := map[string][]byte{}
	for _, f := range files {
		text, err := archive.ReadFile(dir, f, maxMessage)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		texts[f] = text
	}
	return texts, nil
}

// dockerfile brings the Dockerfile and the ignore file into o.
func (a *asker) dockerfile(ctx context.Context, o *builds.Options) error {
	if at := a.attrs["context"]; at != "" && !strings.HasPrefix(at, sentContext) && !strings.HasPrefix(at, uploadContext) {
		if o.Remote = at; a.attrs["dockerfilekey"] == "" {
			return nil // it lies there
		}
	}
	name, local := o.Dockerfile, a.attrs["dockerfilekey"]
	if local == "" {
		local = "dockerfile"
	}
	lower := ""
	files := []string{name, name + ".dockerignore"}
	if path.Base(name) == "Dockerfile" {
		lower = path.Join(path.Dir(name), "dockerfile")
		files = append(files, lower)
	}
	var texts map[string][]byte
	var err error
	if at := a.attrs["context"]; at != "" && a.attrs["dockerfilekey"] == "" {
		texts, err = a.readContext(ctx, append(files, ".dockerignore")...)
	} else {
		texts, err = a.read(ctx, local, files...)
	}
	if err != nil {
		return err
	}
	text, ok := texts[name]
	if !ok {
		if text, ok = texts[lower]; !ok {
			return fault.New(fault.Invalid, "failed to read dockerfile: open %s: no such file or directory", name)
		}
	}
	o.Text, o.Ignore = text, texts[name+".dockerignore"]
	if o.Ignore == nil {
		o.Ignore = texts[".dockerignore"]
	}
	if o.Ignore == nil && a.attrs["context"] == "" {
		if texts, err = a.read(ctx, a.contextName(), ".dockerignore"); err != nil {
			return err
		}
		o.Ignore = texts[".dockerignore"]
	}
	a.ignore, err = ignorefile.ReadAll(strings.NewReader(string(o.Ignore)))
	if err != nil {
		return fault.New(fault.Invalid, "error reading the ignore file: %w", err)
	}
	return nil
}

// contextName is what the client calls the build context.
func (a *asker) contextName() string {
	if name := a.attrs["contextkey"]; name != "" {
		return name
	}
	return "context"
}

// Files implements build.Client.
func (a *asker) Files(ctx context.Context, name string, patterns []string) (*build.Files, error) {
	at := a.attrs["context"]
	if name == "" && at != "" {
		return a.dirs.once("context at "+at, func() (*build.Files, error) { return a.archive(ctx, at) })
	}
	if at := a.attrs["context:"+name]; strings.HasPrefix(at, "oci-layout:") {
		return a.dirs.once("layout "+at, func() (*build.Files, error) { return a.layout(ctx, at) })
	}
	key := fmt.Sprint(a.attrs["local-sessionid:"+name], "\x00", name, "\x00", patterns == nil, strings.Join(patterns, "\x00"), "\x00\x00", strings.Join(a.ignore, "\x00"))
	return a.dirs.once(key, func() (*build.Files, error) { return a.bring(ctx, name, patterns) })
}

// bring brings a directory of the client; one that has a name has its own ignore file.
func (a *asker) bring(ctx context.Context, name string, patterns []string) (*build.Files, error) {
	if name == "" {
		name = a.contextName()
		return a.fetch(ctx, name, selection{exclude: a.ignore}, a.keyOf(name), patterns)
	}
	texts, err := a.read(ctx, name, ".dockerignore")
	if err != nil {
		return nil, err
	}
	ignore, err := ignorefile.ReadAll(strings.NewReader(string(texts[".dockerignore"])))
	if err != nil {
		return nil, fault.New(fault.Invalid, "error reading the ignore file of %s: %w", name, err)
	}
	return a.fetch(ctx, name, selection{exclude: ignore}, a.keyOf(name), patterns)
}

// sentContext begins the address of a context that the client sends as an archive.
const sentContext = "http://buildkit-session"

// archive brings a context that the client sends whole.
func (a *asker) archive(ctx context.Context, address string) (files *build.Files, err error) {
	if id, ok := strings.CutPrefix(address, uploadContext); ok {
		return a.uploaded(ctx, id)
	}
	at, ok := strings.CutPrefix(address, sentContext)
	if !ok {
		return nil, fault.New(fault.NotFound, "the client has no build context: it is at %s", address)
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := a.session.open(ctx, "/moby.upload.v1.Upload/Pull", metadata.Pairs("urlpath", at, "urlhost", "buildkit-session"))
	if err != nil {
		cancel()
		return nil, err
	}
	body := &bytesStream{stream: stream, cancel: cancel}
	dir, err := a.Builds.Unpack(ctx, body)
	if err == nil {
		files = a.dirs.whole(dir)
	}
	return files, errors.Join(err, body.Close())
}

// Secret implements build.Client.
func (a *asker) Secret(ctx context.Context, id string) ([]byte, error) {
	return a.session.secret(ctx, id)
}

// Agent implements build.Client.
func (a *asker) Agent(ctx context.Context, id string) (io.ReadWriteCloser, error) {
	return a.session.agent(ctx, id)
}

// Credentials implements builds.Client.
func (a *asker) Credentials(ctx context.Context, name reference.Named) (wire.AuthConfig, error) {
	host := reference.Domain(name)
	if host == "docker.io" {
		host = "registry-1.docker.io" // as BuildKit asks, and clients look for what they have under the name of old
	}
	user, secret, err := a.session.credentials(ctx, host)
	if user == "" { // the secret is a token then
		return wire.AuthConfig{IdentityToken: secret}, err
	}
	return wire.AuthConfig{Username: user, Password: secret}, err
}

// Output implements builds.Client.
func (a *asker) Output(ctx context.Context, name string) (io.WriteCloser, error) {
	for _, o := range a.outputs {
		if o.Name != name {
			continue
		}
		if o.Type == "local" {
			return a.spool(ctx, o)
		}
		ctx, cancel := context.WithCancel(ctx)
		stream, err := a.session.open(ctx, fileSend, exporterHead(o))
		if err != nil {
			cancel()
			return nil, err
		}
		return &bytesStream{stream: stream, cancel: cancel, wait: true}, nil
	}
	return nil, fault.New(fault.NotFound, "the client has no output %s", name)
}

// fileSend is where a client takes outputs, told apart by their places in its request.
const fileSend = "/moby.filesync.v1.FileSend/DiffCopy"

func exporterHead(o output) metadata.MD {
	return metadata.Pairs("buildkit-attachable-exporter-id", fmt.Sprint(o.index), "buildkit-exporter-multi-platform", "1")
}

// spooled is a tree that a client shall have as files: it is unpacked here, and sent when it is whole.
type spooled struct {
	*io.PipeWriter
	done chan struct{} // closed when err is set
	err  error
}

// Close implements io.Closer: the client has all then, or the error says why not.
func (s *spooled) Close() error {
	err := s.PipeWriter.Close()
	<-s.done
	return errors.Join(err, s.err)
}

// CloseWithError gives the output up: nothing of it is sent. It may be called more than once, and while Close waits.
func (s *spooled) CloseWithError(cause error) error {
	err := s.PipeWriter.CloseWithError(cause)
	<-s.done
	return err
}

func (a *asker) spool(ctx context.Context, o output) (io.WriteCloser, error) {
	r, w := io.Pipe()
	s := &spooled{PipeWriter: w, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		dir, err := a.Builds.Unpack(ctx, r)
		r.CloseWithError(err)
		if err == nil {
			err = errors.Join(a.send(ctx, o, dir), dir.Close(), os.RemoveAll(dir.Name()))
		}
		s.err = err
	}()
	return s, nil
}

// send sends a tree.
func (a *asker) send(ctx context.Context, o output, dir *os.File) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := a.session.open(ctx, fileSend, exporterHead(o))
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir.Name())
	if err != nil {
		return err
	}
	out := &outgoing{stream: stream, from: root}
	if err = out.list(); err == nil {
		err = out.serve()
	}
	return errors.Join(err, root.Close())
}
