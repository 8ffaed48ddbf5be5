package container

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"berth/cli/create"
	"berth/cli/flag"
	"berth/cli/reference"
	"berth/cli/session"
	"berth/cli/terminal"
	"berth/client"
	"berth/fault"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

type debugOptions struct {
	request    client.DebugRequest
	env, files []string
	in, quiet  bool
	keys       string
}

// Debug is the command "container debug".
func Debug(s *session.Session) *cobra.Command {
	var o debugOptions
	cmd := &cobra.Command{
		Use:  "debug [OPTIONS] CONTAINER|IMAGE [COMMAND] [ARG...]",
		Args: session.AtLeast(1),
		Example: `debug web
debug -c 'ps; netstat -tln' web
debug --image busybox hello-world ls -l /`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), s, args) },
	}
	fs := cmd.Flags()
	fs.StringVar(&o.request.Image, "image", "", "Image whose programs are the tools (default: busybox, or any here with a shell)")
	fs.StringVarP(&o.request.Script, "command", "c", "", "Commands for the tools' shell, instead of a session")
	fs.StringVar(&o.keys, "detach-keys", "", "Override the key sequence for detaching")
	fs.VarP(flag.Checked(&o.env, create.ValidEnv), "env", "e", "Set environment variables")
	fs.Var(flag.List(&o.files), "env-file", "Read in a file of environment variables")
	fs.BoolVarP(&o.in, "interactive", "i", false, "Keep STDIN open; without a command it is")
	fs.BoolVar(&o.request.Privileged, "privileged", false, "Give extended privileges to the shell")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress the pull output")
	fs.BoolVarP(&o.request.Tty, "tty", "t", false, "Allocate a pseudo-TTY; without a command there is one if STDIN is one")
	fs.StringVarP(&o.request.User, "user", "u", "", `Username or UID (format: <name|uid>[:<group|gid>]) (default "0")`)
	fs.StringVarP(&o.request.WorkingDir, "workdir", "w", "", "Working directory inside the container")
	return cmd
}

func (o *debugOptions) run(ctx context.Context, s *session.Session, args []string) (err error) {
	q := o.request
	q.Cmd, q.DetachKeys = args[1:], s.Config().KeysToDetach(o.keys)
	keys, err := parseKeys(q.DetachKeys)
	if err != nil {
		return err
	}
	if q.Env, err = create.Environment(o.files, o.env, s.Getenv); err != nil {
		return err
	}
	session := len(q.Cmd) == 0 && q.Script == ""
	if len(q.Cmd) > 0 && q.Script != "" {
		return errors.New("conflicting options: a command and --command")
	}
	q.AttachStdin, q.AttachStdout, q.AttachStderr = o.in || session, true, true
	if session && terminal.Is(s.In) && terminal.Is(s.Out) {
		q.Tty = true
	}
	if q.AttachStdin && q.Tty && !terminal.Is(s.In) {
		return errors.New("the input device is not a TTY")
	}
	start := container.ExecStartRequest{Tty: q.Tty}
	if h, w := terminal.Size(s.Out); q.Tty && h > 0 {
		size := [2]uint{uint(h), uint(w)}
		q.ConsoleSize, start.ConsoleSize = &size, &size
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	ready, err := o.prepare(ctx, s, api, args[0], q)
	if err != nil {
		return err
	}
	if session && q.Tty {
		fmt.Fprintln(s.Err, welcome(ready))
	}
	if ready.Exec != "" {
		return execForeground(ctx, s, ready.Exec, q.ExecCreateRequest, start, keys)
	}
	config := &container.Config{AttachStdin: q.AttachStdin, AttachStdout: true, AttachStderr: true, Tty: q.Tty}
	r := &foreground{Session: s, api: api, id: ready.Container, config: config, remove: true, keys: keys, detachKeys: q.DetachKeys, proxy: !q.Tty}
	return r.run(ctx)
}

// welcome says where things are, and what becomes of what is written to a container for tools.
func welcome(r client.DebugResponse) string {
	text := fmt.Sprintf("Tools of %s are at %s.", r.Image, r.Tools)
	if r.Files != "/" && r.Files != "" {
		text = fmt.Sprintf("This is %s; the container's files are at %s, its processes are all here.", r.Image, r.Files)
	}
	if r.Container != "" {
		text += " It is not running: this is a copy, and what you write to it is discarded at the end (volumes excepted)."
	}
	return text
}

// prepare asks the daemon, and pulls the image that is named when it isn't there.
func (o *debugOptions) prepare(ctx context.Context, s *session.Session, api *client.Client, ref string, q client.DebugRequest) (client.DebugResponse, error) {
	ready, err := api.Containers.Debug(ctx, ref, q)
	err = s.OnlyOurs(err, "debug")
	if q.Image == "" || !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "No such image") {
		return ready, err
	}
	name, parseErr := reference.Parse(q.Image)
	if parseErr != nil || name.Path == "" {
		return ready, err
	}
	if err := s.PullImage(ctx, s.Err, name.Tagged(), "", o.quiet); err != nil {
		return ready, err
	}
	return api.Containers.Debug(ctx, ref, q)
}
