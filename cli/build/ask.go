package build

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"berth/build/progress"
	"berth/build/protocol"
	"berth/build/transfer"
	"berth/cli/session"
	"berth/client"
	"berth/fault"
)

// asked is a build whose daemon asks for what it needs.
type asked struct {
	api     *client.Client
	request protocol.Request
	archive io.Reader             // a context that is one
	dirs    map[string]*directory // contexts that are directories, by name
	given   *given
	put     func(ctx context.Context, name string, from io.Reader) error // takes an output; nil: there is none
	env     func(string) (string, bool)
}

// directory is a context that is one.
type directory struct {
	path  string
	leave func(p string, isDir bool) (out, enter bool) // nil: nothing is left out
	look  func() (*transfer.Listing, error)

	mu      sync.Mutex
	skipped []string // sockets
}

// ask builds by a daemon that asks.
func (o *options) ask(ctx context.Context, s *session.Session, api *client.Client, place string) (err error) {
	a := &asked{api: api, dirs: map[string]*directory{}, env: s.Getenv}
	if a.given, err = o.secrets.open(ctx, s, &a.request); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.given.close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dockerfile, err := o.context(ctx, s, a, place)
	if err != nil {
		return err
	}
	q, err := o.query(s, dockerfile)
	if isAddress(place) && err == nil {
		q.Set("remote", place)
	}
	if err == nil {
		err = o.contexts.apply(ctx, a)
	}
	if err == nil {
		err = o.outputs.apply(&a.request, q, o.tags)
	}
	if err != nil {
		return err
	}
	a.put = func(ctx context.Context, name string, from io.Reader) error {
		return o.outputs.receive(ctx, s, name, from)
	}
	if err := o.caches.lend(ctx, a); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.outputs.discard()) }()
	d, err := o.showing.open(s, o.quiet)
	if err != nil {
		return err
	}
	b, err := api.Images.BuildAsked(ctx, q, s.Registries(ctx), a.request)
	if err != nil {
		d.End()
		return err
	}
	result, err := a.follow(ctx, b, d)
	d.End()
	s.Warn(a.leftOut())
	if err = errors.Join(err, b.Close()); err != nil {
		return err
	}
	if is, err := o.calling.answered(s.Out, result); is {
		return err
	}
	id := result["containerimage.digest"]
	if o.quiet && id != "" {
		fmt.Fprintln(s.Out, id)
	}
	return o.outputs.finish(result, o.iidfile)
}

// context says in a's request what the build's context is, and gives the Dockerfile's name.
func (o *options) context(ctx context.Context, s *session.Session, a *asked, place string) (dockerfile string, err error) {
	if place == "-" {
		return o.fromStdin(s, a)
	}
	if isAddress(place) {
		if o.file != "-" {
			return o.file, nil
		}
		a.request.Dockerfile, err = io.ReadAll(s.In)
		return "Dockerfile", err
	}
	if err := checkPlace(place); err != nil {
		return "", err
	}
	c, err := openFiles(place, o.file, s.In)
	if err != nil {
		return "", err
	}
	if a.request.Dockerfile, err = c.read(); err != nil {
		return "", err
	}
	a.request.Context, a.request.Ignore = protocol.Local, c.ignoreText
	if len(bytes.TrimSpace(a.request.Dockerfile)) == 0 {
		return "", fmt.Errorf("the Dockerfile (%s) cannot be empty", c.name())
	}
	d := &directory{path: place, leave: c.leave}
	if err := a.add("", d, filepath.Base(c.ignoreName)); err != nil {
		return "", err
	}
	d.begin(ctx, usesContext(a.request.Dockerfile))
	return c.name(), nil
}

// fromStdin takes an archive, or a Dockerfile without a context.
func (o *options) fromStdin(s *session.Session, a *asked) (dockerfile string, err error) {
	if err := checkStdin(o.file); err != nil {
		return "", err
	}
	text, rest, err := firstBytes(s.In)
	if err != nil {
		return "", err
	}
	if isArchive(text) {
		a.request.Context, a.archive = protocol.Archive, io.MultiReader(bytes.NewReader(text), rest)
		if o.file == "" {
			return "Dockerfile", nil
		}
		return o.file, nil
	}
	if o.file != "" {
		return "", errAmbiguous
	}
	more, err := io.ReadAll(rest)
	a.request.Dockerfile = append(text, more...)
	if err == nil && len(bytes.TrimSpace(a.request.Dockerfile)) == 0 {
		err = errors.New("the Dockerfile (stdin) cannot be empty")
	}
	return "Dockerfile", err
}

// usesContext guesses whether a Dockerfile takes files from its context, so that these are listed before they are asked for.
func usesContext(text []byte) bool {
	text = bytes.ToUpper(text)
	return slices.ContainsFunc([]string{"COPY", "ADD", "TYPE=BIND"}, func(word string) bool { return bytes.Contains(text, []byte(word)) })
}

// add makes a directory a context. variant tells apart what is left out of it in several ways.
func (a *asked) add(name string, d *directory, variant string) error {
	full, err := filepath.Abs(d.path)
	if err == nil {
		full, err = filepath.EvalSymlinks(full)
	}
	if err != nil {
		return fmt.Errorf("unable to prepare context: %w", err)
	}
	d.path = full
	machine, _ := os.ReadFile("/etc/machine-id") // where there is none the host's name has to do
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	h := sha256.New()
	for _, part := range []string{"berth build context", string(machine), host, strconv.Itoa(os.Getuid()), full, variant} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	if a.request.Directories == nil {
		a.request.Directories = map[string]protocol.Directory{}
	}
	a.request.Directories[name] = protocol.Directory{Key: hex.EncodeToString(h.Sum(nil)), Path: full}
	a.dirs[name] = d
	return nil
}

// leftOut tells of what was not sent, though nobody said so.
func (a *asked) leftOut() (lines []string) {
	for _, name := range slices.Sorted(maps.Keys(a.dirs)) {
		d := a.dirs[name]
		d.mu.Lock()
		if n := len(d.skipped); n > 0 {
			lines = append(lines, fmt.Sprintf("%s in %s: a socket means nothing elsewhere, and is left out of the build context", d.skipped[0], d.path))
			if n > 1 {
				lines[len(lines)-1] += fmt.Sprintf(" (and %d more)", n-1)
			}
		}
		d.mu.Unlock()
	}
	return lines
}

// begin makes d ready to be asked for; at once when it surely will be.
func (d *directory) begin(ctx context.Context, surely bool) {
	d.look = sync.OnceValues(func() (*transfer.Listing, error) {
		l, err := transfer.List(ctx, d.path, d.leave)
		if err == nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.skipped = l.Skipped
		}
		return l, err
	})
	if surely {
		go d.look() // whoever asks gets the same error
	}
}

// follow answers the daemon's questions until the build is over.
func (a *asked) follow(ctx context.Context, b *client.Building, d display) (map[string]string, error) {
	for {
		m, err := b.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil, errors.New("the daemon ended the build without a word: its log tells why")
		case err != nil:
			return nil, err
		case m.Error != "":
			return nil, fmt.Errorf("failed to solve: %s", m.Error)
		case m.Ask != nil:
			go func() {
				if err := a.answer(ctx, m.Ask); err != nil {
					// The daemon tells the build's end, also where this is the cause of it.
					_ = a.api.Images.Refuse(ctx, m.Ask, err, errors.Is(err, fault.NotFound))
				}
			}()
		case len(m.Status) > 0:
			var s progress.Status
			if err := json.Unmarshal(m.Status, &s); err != nil {
				return nil, fmt.Errorf("read the build's progress: %w", err)
			}
			d.Show(&s)
		case m.Result != nil:
			return m.Result, nil
		}
	}
}

// answer answers one question. An error is one of before the daemon got an answer.
func (a *asked) answer(ctx context.Context, q *protocol.Ask) error {
	switch q.What {
	case protocol.Files:
		d := a.dirs[q.Name]
		if d == nil {
			return fault.New(fault.NotFound, "there is no build context %q", q.Name)
		}
		return a.over(ctx, q, func(conn *client.Stream) error { return transfer.Send(ctx, conn, d.look, nil) })
	case protocol.Content:
		if a.archive == nil {
			return fault.New(fault.NotFound, "the build context is no archive")
		}
		return a.over(ctx, q, func(conn *client.Stream) error { return sendPieces(conn, a.archive) })
	case protocol.Secret:
		from, ok := a.given.secrets[q.Name]
		if !ok {
			return fault.New(fault.NotFound, "there is no secret %s", q.Name)
		}
		data, err := from.read(a.env)
		if err != nil {
			return err
		}
		return a.over(ctx, q, func(conn *client.Stream) error { return sendPieces(conn, bytes.NewReader(data)) })
	case protocol.Agent:
		agent, err := a.given.dial(q.Name)
		if err != nil {
			return err
		}
		defer agent.Close()
		return a.over(ctx, q, func(conn *client.Stream) error { return join(conn, agent) })
	case protocol.Destination:
		if a.put == nil {
			return fault.New(fault.NotFound, "there is no output %q", q.Name)
		}
		return a.over(ctx, q, func(conn *client.Stream) error {
			said := protocol.Received
			pieces := transfer.ReadPieces(bufio.NewReaderSize(conn, 256<<10))
			if err := a.put(ctx, q.Name, pieces); err != nil {
				said = err.Error()
			}
			// An archive ends before its stream does: the daemon hears nothing while it can't write the rest.
			if _, err := io.Copy(io.Discard, pieces); err != nil {
				return err
			}
			_, err := io.WriteString(conn, said)
			return err
		})
	}
	return fault.New(fault.Unsupported, "this client does not know what %q is: it is older than the daemon", q.What)
}

// over answers over a connection. What goes wrong on it the other end sees.
func (a *asked) over(ctx context.Context, q *protocol.Ask, talk func(*client.Stream) error) error {
	conn, err := a.api.Images.Answer(ctx, q)
	if err != nil {
		return err
	}
	_ = talk(conn)
	_ = conn.Close()
	return nil
}

func sendPieces(conn *client.Stream, r io.Reader) error {
	p := transfer.NewPieces(conn)
	if _, err := io.CopyBuffer(p, struct{ io.Reader }{r}, make([]byte, 256<<10)); err != nil {
		return err
	}
	if err := p.Close(); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, conn) // the daemon has all when it closes
	return err
}

// join carries two streams' bytes to each other until both have ended.
func join(conn *client.Stream, agent interface {
	io.ReadWriter
	CloseWrite() error
}) error {
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(agent, conn)
		done <- errors.Join(err, agent.CloseWrite())
	}()
	_, err := io.Copy(conn, agent)
	return errors.Join(err, conn.CloseWrite(), <-done)
}

// checkPlace says what is wrong with a context that should be a directory.
func checkPlace(place string) error {
	if place == "" {
		return errors.New("please specify build context (e.g. \".\" for the current directory)")
	}
	info, err := os.Stat(place)
	if err != nil {
		return fmt.Errorf("unable to prepare context: path %q not found", place)
	}
	if !info.IsDir() {
		return fmt.Errorf("unable to prepare context: %s is not a directory", place)
	}
	return nil
}
