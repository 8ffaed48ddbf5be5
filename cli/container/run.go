// Package container has the commands about containers.
//
// It is not the tree of commands, which package cli puts them in. Invariant: a command does by the engine's API what it does.
package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"berth/cli/create"
	"berth/cli/format"
	"berth/cli/reference"
	"berth/cli/session"
	"berth/cli/terminal"
	"berth/client"
	"berth/fault"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

// runOptions are those of run beside create's.
type runOptions struct {
	*create.Options
	detach, proxy bool
	detachKeys    string
}

// Run is the command "container run".
func Run(s *session.Session) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:  "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Args: session.AtLeast(1),
		Example: `run --rm hello-world
run -it --rm debian bash
run -d --name web -p 8080:80 -v ./site:/usr/share/nginx/html:ro nginx`,
		RunE: func(cmd *cobra.Command, args []string) error { return run(s, cmd, &o, args) },
	}
	fs := cmd.Flags()
	o.Options = create.New(fs, s.Getenv)
	fs.BoolVarP(&o.detach, "detach", "d", false, "Run container in background and print container ID")
	fs.BoolVar(&o.proxy, "sig-proxy", true, "Proxy received signals to the process")
	fs.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

func run(s *session.Session, cmd *cobra.Command, o *runOptions, args []string) error {
	o.detachKeys = s.Config().KeysToDetach(o.detachKeys)
	m := maker{s, o.Options}
	req, err := m.request(args)
	if o.detach && len(o.Attach) > 0 {
		return errors.New("conflicting options: cannot specify both --attach and --detach")
	}
	keys, keysErr := parseKeys(o.detachKeys)
	if err == nil {
		err = keysErr
	}
	if err != nil {
		return session.Failed(cmd, 125, err)
	}
	f := req.Config
	if o.detach {
		f.AttachStdin, f.AttachStdout, f.AttachStderr, f.StdinOnce = false, false, false, false
	} else if f.AttachStdin && f.Tty && !terminal.Is(s.In) {
		return errors.New("the input device is not a TTY")
	}
	if f.Tty {
		h, w := terminal.Size(s.Out)
		req.HostConfig.ConsoleSize = [2]uint{uint(h), uint(w)}
	}
	api, err := s.API()
	if err != nil {
		return session.Failed(cmd, 125, err)
	}
	ctx := cmd.Context()
	id, err := m.create(ctx, req)
	if err != nil {
		return session.Failed(cmd, 125, err)
	}
	if o.detach {
		if err := api.Containers.Start(ctx, id, nil); err != nil {
			discard(ctx, s, id, req.HostConfig.AutoRemove)
			return session.Failed(cmd, startCode(err), err)
		}
		fmt.Fprintln(s.Out, id)
		return nil
	}
	r := &foreground{Session: s, api: api, id: id, config: f, remove: req.HostConfig.AutoRemove, keys: keys, detachKeys: o.detachKeys, proxy: o.proxy}
	err = r.run(ctx)
	var e *session.Exit
	if err != nil && !errors.As(err, &e) {
		err = session.Failed(cmd, startCode(err), err)
	}
	return err
}

// maker makes a container of the options of run or create.
type maker struct {
	*session.Session
	*create.Options
}

// request is the container that the options ask for, with what the user's configuration adds.
func (m maker) request(args []string) (client.CreateRequest, error) {
	api, err := m.API()
	if err != nil {
		return client.CreateRequest{}, err
	}
	m.Proxies = m.Config().ProxyEnv(api.Host())
	return m.Request(args)
}

// startCode is the exit code for a container that didn't start (sh(1): 127 not found, 126 not executable).
func startCode(err error) int {
	text := err.Error()
	var e *client.Error
	if !errors.As(err, &e) {
		return 125
	}
	for _, words := range []string{"executable file not found", "no such file or directory"} {
		if strings.Contains(text, words) {
			return 127
		}
	}
	if strings.Contains(text, syscall.EACCES.Error()) || strings.Contains(text, syscall.EISDIR.Error()) {
		return 126
	}
	return 125
}

// discard removes a container that didn't start, when it was to be removed in any case.
func discard(ctx context.Context, s *session.Session, id string, remove bool) {
	if remove {
		s.Conn.Containers.Remove(ctx, id, client.Removal{Force: true, Volumes: true}) // the engine may have done so itself
	}
}

// foreground runs a created container with the standard streams joined to it.
type foreground struct {
	*session.Session
	api        *client.Client
	id         string
	config     *container.Config
	remove     bool
	keys       []byte
	detachKeys string
	proxy      bool
}

func (r *foreground) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var caught chan os.Signal
	var ready <-chan struct{}
	if r.proxy {
		var stop func()
		caught, ready, stop = catchSignals()
		defer stop()
	}
	stream, waiting, err := r.open(ctx)
	if err != nil {
		return err
	}
	var joined <-chan error
	if stream != nil {
		defer stream.Close()
		j := r.joint(stream)
		if j.tty && j.in != nil {
			restore, err := terminal.Raw(r.In)
			if err != nil {
				return err
			}
			defer restore()
		}
		joined = j.join()
	}
	if r.proxy {
		<-ready // no signal may end this process while the container runs on
	}
	if err := r.api.Containers.Start(ctx, r.id, nil); err != nil {
		discard(ctx, r.Session, r.id, r.remove)
		return err
	}
	result := r.watch(ctx, waiting)
	ended := make(chan struct{})
	defer close(ended)
	go forward(ctx, r.api, r.id, caught, ended)
	if r.config.Tty {
		defer terminal.FollowSize(r.Out, func(h, w int) error { return r.api.Containers.Resize(ctx, r.id, h, w) })()
	}
	if joined != nil {
		if err := <-joined; errors.Is(err, errDetached) {
			fmt.Fprintln(r.Err, err)
			return nil
		} else if err != nil {
			return err
		}
	}
	return status(<-result)
}

// open attaches and begins to wait, side by side: both must stand before the start.
func (r *foreground) open(ctx context.Context) (*client.Stream, *client.Waiting, error) {
	var stream *client.Stream
	var attachErr error
	var both sync.WaitGroup
	if f := r.config; f.AttachStdin || f.AttachStdout || f.AttachStderr {
		both.Add(1)
		go func() {
			defer both.Done()
			stream, attachErr = r.api.Containers.Attach(ctx, r.id, attachQuery(f.AttachStdin, f.AttachStdout, f.AttachStderr, r.detachKeys))
		}()
	}
	condition := container.WaitConditionNextExit
	if r.remove {
		condition = container.WaitConditionRemoved
	}
	waiting, err := r.api.Containers.Wait(ctx, r.id, condition)
	both.Wait()
	if err == nil && attachErr != nil {
		waiting.Close()
		err = attachErr
	}
	if err != nil {
		if stream != nil {
			stream.Close()
		}
		discard(ctx, r.Session, r.id, r.remove)
		return nil, nil, err
	}
	return stream, waiting, nil
}

func attachQuery(stdin, stdout, stderr bool, keys string) url.Values {
	q := url.Values{"stream": {"1"}}
	for key, given := range map[string]bool{"stdin": stdin, "stdout": stdout, "stderr": stderr} {
		if given {
			q.Set(key, "1")
		}
	}
	if keys != "" {
		q.Set("detachKeys", keys)
	}
	return q
}

func (r *foreground) joint(stream *client.Stream) *joint {
	j := &joint{stream: stream, tty: r.config.Tty, keys: r.keys}
	if r.config.AttachStdin {
		j.in = r.In
	}
	if r.config.AttachStdout {
		j.out = r.Out
	}
	if r.config.AttachStderr {
		j.err = r.Err
		if j.tty {
			j.err, j.out = nil, r.Out
		}
	}
	return j
}

// outcome is how a wait ended.
type outcome struct {
	container.WaitResponse
	err error
}

// watch waits for the container's end beside its caller, through restarts of the daemon. Ending ctx gives it up.
func (r *foreground) watch(ctx context.Context, waiting *client.Waiting) <-chan outcome {
	since := strconv.FormatInt(time.Now().Unix()-1, 10)
	result := make(chan outcome, 1)
	go func() {
		w, err := waiting.Result()
		if err != nil && ctx.Err() == nil {
			// The daemon is gone, but the container runs on: ask the next one.
			w, err = r.again(ctx, since)
		}
		result <- outcome{w, err}
	}()
	return result
}

// status makes a container's exit code this process's.
func status(o outcome) error {
	switch {
	case o.err != nil:
		return o.err
	case o.Error != nil && o.Error.Message != "":
		return &session.Exit{Code: 125, Message: session.Name + ": " + o.Error.Message}
	case o.StatusCode != 0:
		return &session.Exit{Code: int(o.StatusCode)}
	}
	return nil
}

// patience is how long a client waits for a daemon to come back.
const patience = 15 * time.Second

// again waits for a container after the daemon's connection broke.
func (r *foreground) again(ctx context.Context, since string) (container.WaitResponse, error) {
	condition := container.WaitConditionNotRunning
	if r.remove {
		condition = container.WaitConditionRemoved
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; {
		waiting, err := r.api.Containers.Wait(ctx, r.id, condition)
		if err == nil {
			var result container.WaitResponse
			if result, err = waiting.Result(); err == nil {
				return result, nil
			}
			end = time.Now().Add(patience) // it was back, for a while
		}
		if errors.Is(err, fault.NotFound) {
			return r.recall(ctx, since)
		}
		if time.Now().After(end) {
			return container.WaitResponse{}, fmt.Errorf("the connection to the daemon broke while container %s ran; when the daemon is back, 'berth wait' gives its exit code: %w", format.ShortID(r.id), err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return container.WaitResponse{}, ctx.Err()
		}
	}
}

// recall finds the exit code of a container that has been removed, among the daemon's events.
func (r *foreground) recall(ctx context.Context, since string) (container.WaitResponse, error) {
	lost := fmt.Errorf("the connection to the daemon broke, and container %s has been removed: its exit code is not known", format.ShortID(r.id))
	q := url.Values{"since": {since}, "until": {strconv.FormatInt(time.Now().Unix()+1, 10)}}
	q.Set("filters", client.Filters{"container": {r.id}, "event": {"die"}}.String())
	stream, err := r.api.System.Events(ctx, q)
	if err != nil {
		return container.WaitResponse{}, errors.Join(lost, err)
	}
	defer stream.Close()
	event, err := stream.Next()
	if err != nil {
		return container.WaitResponse{}, lost
	}
	code, err := strconv.ParseInt(event.Actor.Attributes["exitCode"], 10, 64)
	if err != nil {
		return container.WaitResponse{}, lost
	}
	return container.WaitResponse{StatusCode: code}, nil
}

// create makes the container, with its image pulled when that is asked for or needed.
func (m maker) create(ctx context.Context, req client.CreateRequest) (string, error) {
	ref, err := m.check(req.Image)
	if err != nil {
		return "", err
	}
	var cid *os.File
	if m.CIDFile != "" {
		if cid, err = newCIDFile(m.CIDFile); err != nil {
			return "", err
		}
		defer cid.Close()
	}
	out, err := m.createOrPull(ctx, req, ref)
	if err != nil {
		if cid != nil {
			os.Remove(m.CIDFile)
		}
		return "", err
	}
	m.Warn(out.Warnings)
	if cid != nil {
		if _, err := io.WriteString(cid, out.ID); err != nil {
			return "", fmt.Errorf("failed to write the container ID to the file: %w", err)
		}
	}
	return out.ID, nil
}

func (m maker) check(image string) (reference.Name, error) {
	switch m.Pull {
	case "always", "missing", "never":
	default:
		return reference.Name{}, fmt.Errorf("invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", m.Pull)
	}
	if reference.IsID(image) || len(image) == 64 && reference.Only(image, "0123456789abcdef") {
		return reference.Name{}, nil
	}
	r, err := reference.Parse(image)
	return r.Tagged(), err
}

func (m maker) createOrPull(ctx context.Context, req client.CreateRequest, ref reference.Name) (container.CreateResponse, error) {
	api, err := m.API()
	if err != nil {
		return container.CreateResponse{}, err
	}
	pull := func() error { return m.PullImage(ctx, m.Err, ref, m.Platform, m.Quiet) }
	if m.Pull == "always" && ref.Path != "" {
		if err := pull(); err != nil {
			return container.CreateResponse{}, err
		}
	}
	out, err := api.Containers.Create(ctx, m.Name, m.Platform, req)
	if err == nil || m.Pull != "missing" || ref.Path == "" || !errors.Is(err, fault.NotFound) || !strings.Contains(strings.ToLower(err.Error()), "no such image") {
		return out, err
	}
	if !m.Quiet {
		fmt.Fprintf(m.Err, "Unable to find image '%s' locally\n", ref.Familiar())
	}
	if err := pull(); err != nil {
		return out, err
	}
	return api.Containers.Create(ctx, m.Name, m.Platform, req)
}

// newCIDFile makes the file before the container, so that a wrong path costs nothing.
func newCIDFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return f, nil
}

// Create is the command "container create".
func Create(s *session.Session) *cobra.Command {
	var c *create.Options
	cmd := &cobra.Command{
		Use:  "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Args: session.AtLeast(1),
		Example: `create --name db -v data:/var/lib/postgresql postgres
create -it debian bash`,
		RunE: func(cmd *cobra.Command, args []string) error {
			m := maker{s, c}
			req, err := m.request(args)
			if err != nil {
				return session.Failed(cmd, 125, err)
			}
			if req.Config.Tty {
				h, w := terminal.Size(s.Out)
				req.HostConfig.ConsoleSize = [2]uint{uint(h), uint(w)}
			}
			id, err := m.create(cmd.Context(), req)
			if err != nil {
				return err
			}
			fmt.Fprintln(s.Out, id)
			return nil
		},
	}
	c = create.New(cmd.Flags(), s.Getenv)
	return cmd
}
