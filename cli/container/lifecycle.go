package container

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"berth/cli/flag"
	"berth/cli/session"
	"berth/client"
	"berth/fault"

	"github.com/spf13/cobra"
)

// act is a command that does the same to every container named and prints the names as they were given.
func act(s *session.Session, use, example string, do func(context.Context, client.Containers, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Args: session.AtLeast(1), Example: example,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := s.API()
			if err != nil {
				return err
			}
			return together(s, args, func(id string) error { return do(cmd.Context(), api.Containers, id) })
		},
	}
}

// parallel is how many requests of one command run at a time.
const parallel = 16

// together does something to every argument, many at a time, prints each success in the
// order of the arguments, and reports all failures at the end.
func together(s *session.Session, args []string, do func(string) error) error {
	results := make([]chan error, len(args))
	slots := make(chan struct{}, parallel)
	var all sync.WaitGroup
	defer all.Wait()
	for i, a := range args {
		results[i] = make(chan error, 1)
		if len(args) == 1 {
			results[i] <- do(a)
			break
		}
		all.Add(1)
		go func() {
			defer all.Done()
			slots <- struct{}{}
			results[i] <- do(a)
			<-slots
		}()
	}
	i := 0
	return s.Each(args, func(a string) error {
		err := <-results[i]
		i++
		if err == nil {
			fmt.Fprintln(s.Out, a)
		}
		return err
	})
}

// haltCommand is stop and restart.
func haltCommand(s *session.Session, use, example string, do func(client.Containers, context.Context, string, client.Halt) error) *cobra.Command {
	var h client.Halt
	var timeout int
	var cmd *cobra.Command
	var telling sync.Mutex // several are stopped at a time
	cmd = act(s, use, example, func(ctx context.Context, c client.Containers, id string) error {
		h := h
		if cmd.Flags().Changed("timeout") || cmd.Flags().Changed("time") {
			h.Timeout = &timeout
		}
		h.Warn = func(lines []string) {
			telling.Lock()
			defer telling.Unlock()
			s.Warn(lines)
		}
		return do(c, ctx, id, h)
	})
	fs := cmd.Flags()
	fs.StringVarP(&h.Signal, "signal", "s", "", "Signal to send to the container")
	fs.IntVarP(&timeout, "timeout", "t", 0, "Seconds to wait before killing the container")
	fs.IntVar(&timeout, "time", 0, "Seconds to wait before killing the container")
	flag.Old(fs, "time", "use --timeout instead")
	return cmd
}

// Stop is the command "container stop".
func Stop(s *session.Session) *cobra.Command {
	return haltCommand(s, "stop [OPTIONS] CONTAINER [CONTAINER...]", "stop web\nstop -t 2 web db", client.Containers.Stop)
}

// Restart is the command "container restart".
func Restart(s *session.Session) *cobra.Command {
	return haltCommand(s, "restart [OPTIONS] CONTAINER [CONTAINER...]", "restart web", client.Containers.Restart)
}

// Kill is the command "container kill".
func Kill(s *session.Session) *cobra.Command {
	var signal string
	cmd := act(s, "kill [OPTIONS] CONTAINER [CONTAINER...]", "kill web\nkill -s HUP web", func(ctx context.Context, c client.Containers, id string) error {
		return c.Kill(ctx, id, signal)
	})
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	return cmd
}

// Pause is the command "container pause".
func Pause(s *session.Session) *cobra.Command {
	return act(s, "pause CONTAINER [CONTAINER...]", "pause web", func(ctx context.Context, c client.Containers, id string) error {
		return c.Pause(ctx, id)
	})
}

// Unpause is the command "container unpause".
func Unpause(s *session.Session) *cobra.Command {
	return act(s, "unpause CONTAINER [CONTAINER...]", "unpause web", func(ctx context.Context, c client.Containers, id string) error {
		return c.Unpause(ctx, id)
	})
}

// Remove is the command "container rm".
func Remove(s *session.Session) *cobra.Command {
	var o client.Removal
	cmd := act(s, "rm [OPTIONS] CONTAINER [CONTAINER...]", "rm web\nrm -f $(berth ps -aq)", func(ctx context.Context, c client.Containers, id string) error {
		if id == "" {
			return fmt.Errorf("container name cannot be empty")
		}
		err := c.Remove(ctx, id, o)
		if o.Force && errors.Is(err, fault.NotFound) {
			return session.Tolerated{Err: err} // -f says that it need not be there
		}
		return err
	})
	fs := cmd.Flags()
	fs.BoolVarP(&o.Force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	fs.BoolVarP(&o.Link, "link", "l", false, "Remove the specified link")
	fs.BoolVarP(&o.Volumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	return cmd
}

// Rename is the command "container rename".
func Rename(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "rename CONTAINER NEW_NAME", Args: session.Exactly(2), Example: "rename web old-web",
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[1] == "" {
				return fmt.Errorf("invalid container name: the new name is empty")
			}
			api, err := s.API()
			if err != nil {
				return err
			}
			return api.Containers.Rename(cmd.Context(), args[0], args[1])
		},
	}
}

// Wait is the command "container wait".
func Wait(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "wait CONTAINER [CONTAINER...]", Args: session.AtLeast(1), Example: "wait job; echo done",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := s.API()
			if err != nil {
				return err
			}
			return s.Each(args, func(id string) error {
				w, err := api.Containers.Wait(cmd.Context(), id, "")
				if err != nil {
					return err
				}
				result, err := w.Result()
				if err != nil {
					return fmt.Errorf("wait for container %s: %w", id, err)
				}
				if result.Error != nil && result.Error.Message != "" {
					return fmt.Errorf("wait for container %s: %s", id, result.Error.Message)
				}
				fmt.Fprintln(s.Out, result.StatusCode)
				return nil
			})
		},
	}
}
