package container

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"berth/cli/create"
	"berth/cli/flag"
	"berth/cli/session"
	"berth/cli/terminal"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

type execOptions struct {
	request    container.ExecCreateRequest
	env, files []string
	detach, in bool
	keys       string
}

// Exec is the command "container exec".
func Exec(s *session.Session) *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use:  "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
		Args: session.AtLeast(2),
		Example: `exec web ps
exec -it web sh`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), s, args) },
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.detach, "detach", "d", false, "Detached mode: run command in the background")
	fs.StringVar(&o.keys, "detach-keys", "", "Override the key sequence for detaching a container")
	fs.VarP(flag.Checked(&o.env, create.ValidEnv), "env", "e", "Set environment variables")
	fs.Var(flag.List(&o.files), "env-file", "Read in a file of environment variables")
	fs.BoolVarP(&o.in, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVar(&o.request.Privileged, "privileged", false, "Give extended privileges to the command")
	fs.BoolVarP(&o.request.Tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.StringVarP(&o.request.User, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	fs.StringVarP(&o.request.WorkingDir, "workdir", "w", "", "Working directory inside the container")
	return cmd
}

func (o *execOptions) run(ctx context.Context, s *session.Session, args []string) (err error) {
	q := o.request
	q.Cmd, q.DetachKeys = args[1:], s.Config().KeysToDetach(o.keys)
	keys, err := parseKeys(q.DetachKeys)
	if err != nil {
		return err
	}
	if q.Env, err = create.Environment(o.files, o.env, s.Getenv); err != nil {
		return err
	}
	if !o.detach {
		q.AttachStdin, q.AttachStdout, q.AttachStderr = o.in, true, true
		if q.AttachStdin && q.Tty && !terminal.Is(s.In) {
			return errors.New("the input device is not a TTY")
		}
	}
	start := container.ExecStartRequest{Detach: o.detach, Tty: q.Tty}
	if h, w := terminal.Size(s.Out); q.Tty && h > 0 {
		size := [2]uint{uint(h), uint(w)}
		q.ConsoleSize, start.ConsoleSize = &size, &size
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	id, err := api.Containers.ExecCreate(ctx, args[0], q)
	if err != nil {
		return err
	}
	if o.detach {
		if err := api.Containers.ExecStart(ctx, id, start); err != nil {
			return &session.Exit{Code: startCode(err), Message: err.Error()}
		}
		return nil
	}
	return execForeground(ctx, s, id, q, start, keys)
}

func execForeground(ctx context.Context, s *session.Session, id string, q container.ExecCreateRequest, start container.ExecStartRequest, keys []byte) error {
	stream, err := s.Conn.Containers.ExecAttach(ctx, id, start)
	if err != nil {
		return &session.Exit{Code: startCode(err), Message: err.Error()}
	}
	defer stream.Close()
	j := &joint{stream: stream, tty: q.Tty, keys: keys, out: s.Out, err: s.Err}
	if q.Tty {
		j.err = nil
	}
	if q.AttachStdin {
		j.in = s.In
		if q.Tty {
			restore, err := terminal.Raw(s.In)
			if err != nil {
				return err
			}
			defer restore()
		}
	}
	joined := j.join()
	if q.Tty && q.AttachStdin {
		defer terminal.FollowSize(s.Out, func(h, w int) error { return s.Conn.Containers.ExecResize(ctx, id, h, w) })()
	}
	if err := <-joined; errors.Is(err, errDetached) {
		fmt.Fprintln(s.Err, err)
		return nil
	} else if err != nil {
		return err
	}
	result, err := s.Conn.Containers.ExecInspect(ctx, id)
	if err != nil {
		return err
	}
	if code := exitCode(result.ExitCode); code != 0 {
		return &session.Exit{Code: code}
	}
	return nil
}

func exitCode(code *int) int {
	if code == nil {
		return 0
	}
	return *code
}

// Attach is the command "container attach".
func Attach(s *session.Session) *cobra.Command {
	var noStdin, proxy bool
	var keys string
	cmd := &cobra.Command{
		Use:     "attach [OPTIONS] CONTAINER",
		Args:    session.Exactly(1),
		Example: `attach web      # leave it running with ctrl-p ctrl-q`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return attach(cmd.Context(), s, args[0], !noStdin, proxy, keys)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&keys, "detach-keys", "", "Override the key sequence for detaching a container")
	fs.BoolVar(&noStdin, "no-stdin", false, "Do not attach STDIN")
	fs.BoolVar(&proxy, "sig-proxy", true, "Proxy all received signals to the process")
	return cmd
}

func attach(ctx context.Context, s *session.Session, id string, stdin, proxy bool, keyNames string) error {
	keyNames = s.Config().KeysToDetach(keyNames)
	keys, err := parseKeys(keyNames)
	if err != nil {
		return err
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	c, err := api.Containers.Get(ctx, id)
	if err != nil {
		return err
	}
	switch st := c.State; {
	case st == nil || c.Config == nil:
		return errors.New("the daemon's answer about the container lacks its state")
	case !st.Running:
		return errors.New("cannot attach to a stopped container, start it first")
	case st.Paused:
		return errors.New("cannot attach to a paused container, unpause it first")
	case st.Restarting:
		return errors.New("cannot attach to a restarting container, wait until it is running")
	}
	stdin = stdin && c.Config.OpenStdin
	if stdin && c.Config.Tty && !terminal.Is(s.In) {
		return errors.New("the input device is not a TTY")
	}
	config := *c.Config
	config.AttachStdin, config.AttachStdout, config.AttachStderr = stdin, true, true
	r := &foreground{Session: s, api: api, id: c.ID, config: &config, keys: keys, detachKeys: keyNames, proxy: proxy && !config.Tty}
	return r.rejoin(ctx)
}

// rejoin joins a container that runs already.
func (r *foreground) rejoin(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	waiting, err := r.api.Containers.Wait(ctx, r.id, "")
	if err != nil {
		return err
	}
	result := r.watch(ctx, waiting)
	stream, err := r.api.Containers.Attach(ctx, r.id, attachQuery(r.config.AttachStdin, true, true, r.detachKeys))
	if err != nil {
		return err
	}
	defer stream.Close()
	j := r.joint(stream)
	if j.tty && j.in != nil {
		restore, err := terminal.Raw(r.In)
		if err != nil {
			return err
		}
		defer restore()
	}
	if r.proxy {
		caught, ready, stop := catchSignals()
		defer stop()
		<-ready
		ended := make(chan struct{})
		defer close(ended)
		go forward(ctx, r.api, r.id, caught, ended)
	}
	joined := j.join()
	if j.tty {
		defer terminal.FollowSize(r.Out, func(h, w int) error { return r.api.Containers.Resize(ctx, r.id, h, w) })()
	}
	if err := <-joined; errors.Is(err, errDetached) {
		fmt.Fprintln(r.Err, err)
		return nil
	} else if err != nil {
		return err
	}
	return status(<-result)
}

type startOptions struct {
	attach, interactive bool
	keys                string
	checkpoint, dir     string
}

// Start is the command "container start".
func Start(s *session.Session) *cobra.Command {
	var o startOptions
	proxy := true
	cmd := &cobra.Command{
		Use:     "start [OPTIONS] CONTAINER [CONTAINER...]",
		Args:    session.AtLeast(1),
		Example: "start web db\nstart -ai shell",
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.attach || o.interactive {
				if len(args) > 1 {
					return errors.New("you cannot start and attach multiple containers at once")
				}
				return o.attached(cmd.Context(), s, args[0], proxy)
			}
			return o.all(cmd.Context(), s, args)
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	fs.StringVar(&o.checkpoint, "checkpoint", "", "Restore from this checkpoint")
	fs.StringVar(&o.dir, "checkpoint-dir", "", "Use a custom checkpoint storage directory")
	fs.StringVar(&o.keys, "detach-keys", "", "Override the key sequence for detaching a container")
	fs.BoolVarP(&o.interactive, "interactive", "i", false, "Attach container's STDIN")
	fs.BoolVar(&proxy, "sig-proxy", true, "Proxy all received signals to the process")
	fs.Lookup("sig-proxy").Hidden = true
	return cmd
}

func (o startOptions) all(ctx context.Context, s *session.Session, args []string) error {
	api, err := s.API()
	if err != nil {
		return err
	}
	q := map[string][]string{}
	if o.checkpoint != "" {
		q["checkpoint"] = []string{o.checkpoint}
	}
	if o.dir != "" {
		q["checkpoint-dir"] = []string{o.dir}
	}
	var failedOnes []string
	err = s.Each(args, func(id string) error {
		if err := api.Containers.Start(ctx, id, q); err != nil {
			failedOnes = append(failedOnes, id)
			return err
		}
		fmt.Fprintln(s.Out, id)
		return nil
	})
	var e *session.Exit
	if errors.As(err, &e) {
		e.Message += "\nfailed to start containers: " + join(slices.Clone(failedOnes))
	}
	return err
}

func join(words []string) string {
	out := ""
	for i, w := range words {
		if i > 0 {
			out += ", "
		}
		out += w
	}
	return out
}

func (o startOptions) attached(ctx context.Context, s *session.Session, id string, proxy bool) error {
	o.keys = s.Config().KeysToDetach(o.keys)
	keys, err := parseKeys(o.keys)
	if err != nil {
		return err
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	c, err := api.Containers.Get(ctx, id)
	if err != nil {
		return err
	}
	if c.Config == nil || c.HostConfig == nil || c.State == nil {
		return errors.New("the daemon's answer about the container lacks its settings")
	}
	config := *c.Config
	config.AttachStdin, config.AttachStdout, config.AttachStderr = o.interactive && config.OpenStdin, true, true
	if config.AttachStdin && config.Tty && !terminal.Is(s.In) {
		return errors.New("the input device is not a TTY")
	}
	r := &foreground{Session: s, api: api, id: c.ID, config: &config, remove: c.HostConfig.AutoRemove, keys: keys, detachKeys: o.keys, proxy: proxy && !config.Tty}
	if c.State.Running {
		return r.rejoin(ctx)
	}
	return r.run(ctx)
}
