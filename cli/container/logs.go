package container

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strings"

	"berth/cli/session"
	"berth/client"

	"github.com/spf13/cobra"
)

type logOptions struct {
	follow, stamps, details, clear bool
	since, until, tail             string
}

// Logs is the command "container logs".
func Logs(s *session.Session) *cobra.Command {
	var o logOptions
	cmd := &cobra.Command{
		Use: "logs [OPTIONS] CONTAINER", Args: session.Exactly(1),
		Example: "logs --tail 20 web\nlogs -f --since 10m web\nlogs --clear web",
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.clear {
				if o.since != "" || o.until != "" || cmd.Flags().Changed("tail") {
					return errors.New("conflicting options: --clear drops all that was logged: leave --since, --until and --tail out")
				}
				return clearLogs(cmd.Context(), s, args[0], o)
			}
			return logs(cmd.Context(), s, args[0], o)
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&o.clear, "clear", false, "Drop all that was logged so far, and with --follow show what comes")
	fs.BoolVar(&o.details, "details", false, "Show extra details provided to logs")
	fs.BoolVarP(&o.follow, "follow", "f", false, "Follow log output")
	fs.StringVar(&o.since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.StringVarP(&o.tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	fs.BoolVarP(&o.stamps, "timestamps", "t", false, "Show timestamps")
	fs.StringVar(&o.until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	return cmd
}

func logs(ctx context.Context, s *session.Session, id string, o logOptions) error {
	q := url.Values{"stdout": {"1"}, "stderr": {"1"}, "tail": {o.tail}}
	for key, given := range map[string]bool{"follow": o.follow, "timestamps": o.stamps, "details": o.details} {
		if given {
			q.Set(key, "1")
		}
	}
	if err := session.Moments(q, o.since, o.until); err != nil {
		return err
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	r, err := api.Containers.Logs(ctx, id, q)
	if err != nil {
		return err
	}
	defer r.Close()
	framed := strings.HasPrefix(r.Header["content-type"], "application/vnd.docker.multiplexed-stream")
	if !api.AtLeast(42) {
		// Older daemons don't tell.
		c, err := api.Containers.Get(ctx, id)
		if err != nil {
			return err
		}
		framed = c.Config != nil && !c.Config.Tty
	}
	if framed {
		return client.Demux(s.Out, s.Err, r)
	}
	_, err = io.Copy(s.Out, r)
	return err
}

// clearLogs empties the log, which a running container goes on writing.
func clearLogs(ctx context.Context, s *session.Session, id string, o logOptions) error {
	api, err := s.API()
	if err != nil {
		return err
	}
	if err := api.Containers.ClearLogs(ctx, id); err != nil || !o.follow {
		return err
	}
	return logs(ctx, s, id, o)
}
