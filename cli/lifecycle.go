package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"berth/cli/flag"
	"berth/client"
	"berth/fault"

	"github.com/spf13/cobra"
)

// act is a command that does the same to every container named and prints the names as they were given.
func (s *session) act(use, example string, do func(context.Context, client.Containers, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Args: atLeast(1), Example: example,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := s.api()
			if err != nil {
				return err
			}
			return s.together(args, func(id string) error { return do(cmd.Context(), api.Containers, id) })
		},
	}
}

// parallel is how many requests of one command run at a time.
const parallel = 16

// together does something to every argument, many at a time, prints each success in the
// order of the arguments, and reports all failures at the end.
func (s *session) together(args []string, do func(string) error) error {
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
	return s.each(args, func(a string) error {
		err := <-results[i]
		i++
		if err == nil {
			fmt.Fprintln(s.Out, a)
		}
		return err
	})
}

// haltCommand is stop and restart.
func haltCommand(s *session, use, example string, do func(client.Containers, context.Context, string, client.Halt) error) *cobra.Command {
	var h client.Halt
	var timeout int
	var cmd *cobra.Command
	var telling sync.Mutex // several are stopped at a time
	cmd = s.act(use, example, func(ctx context.Context, c client.Containers, id string) error {
		h := h
		if cmd.Flags().Changed("timeout") || cmd.Flags().Changed("time") {
			h.Timeout = &timeout
		}
		h.Warn = func(lines []string) {
			telling.Lock()
			defer telling.Unlock()
			s.warn(lines)
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

func stopCommand(s *session) *cobra.Command {
	return haltCommand(s, "stop [OPTIONS] CONTAINER [CONTAINER...]", "stop web\nstop -t 2 web db", client.Containers.Stop)
}

func restartCommand(s *session) *cobra.Command {
	return haltCommand(s, "restart [OPTIONS] CONTAINER [CONTAINER...]", "restart web", client.Containers.Restart)
}

func killCommand(s *session) *cobra.Command {
	var signal string
	cmd := s.act("kill [OPTIONS] CONTAINER [CONTAINER...]", "kill web\nkill -s HUP web", func(ctx context.Context, c client.Containers, id string) error {
		return c.Kill(ctx, id, signal)
	})
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	return cmd
}

func pauseCommand(s *session) *cobra.Command {
	return s.act("pause CONTAINER [CONTAINER...]", "pause web", func(ctx context.Context, c client.Containers, id string) error {
		return c.Pause(ctx, id)
	})
}

func unpauseCommand(s *session) *cobra.Command {
	return s.act("unpause CONTAINER [CONTAINER...]", "unpause web", func(ctx context.Context, c client.Containers, id string) error {
		return c.Unpause(ctx, id)
	})
}

func rmCommand(s *session) *cobra.Command {
	var o client.Removal
	cmd := s.act("rm [OPTIONS] CONTAINER [CONTAINER...]", "rm web\nrm -f $(berth ps -aq)", func(ctx context.Context, c client.Containers, id string) error {
		if id == "" {
			return fmt.Errorf("container name cannot be empty")
		}
		err := c.Remove(ctx, id, o)
		if o.Force && errors.Is(err, fault.NotFound) {
			return tolerated{err} // -f says that it need not be there
		}
		return err
	})
	fs := cmd.Flags()
	fs.BoolVarP(&o.Force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	fs.BoolVarP(&o.Link, "link", "l", false, "Remove the specified link")
	fs.BoolVarP(&o.Volumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	return cmd
}

func renameCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use: "rename CONTAINER NEW_NAME", Args: exactly(2), Example: "rename web old-web",
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[1] == "" {
				return fmt.Errorf("invalid container name: the new name is empty")
			}
			api, err := s.api()
			if err != nil {
				return err
			}
			return api.Containers.Rename(cmd.Context(), args[0], args[1])
		},
	}
}

func waitCommand(s *session) *cobra.Command {
	return &cobra.Command{
		Use: "wait CONTAINER [CONTAINER...]", Args: atLeast(1), Example: "wait job; echo done",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := s.api()
			if err != nil {
				return err
			}
			return s.each(args, func(id string) error {
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
