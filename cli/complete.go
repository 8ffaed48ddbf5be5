package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"berth/cli/session"
	"berth/client"

	"github.com/spf13/cobra"
)

// completer answers shells that ask what may come next on a command line.
type completer struct{ *session.Session }

// tree builds all commands under one root, which only completion needs.
func (s completer) tree() *cobra.Command {
	root := &cobra.Command{Use: session.Name, SilenceErrors: true, SilenceUsage: true}
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.SetIn(s.In)
	root.CompletionOptions.DisableDefaultCmd = true
	root.TraverseChildren = true
	globalFlags(s.Session, root.Flags())
	parents := map[string]*cobra.Command{"": root}
	for g, about := range groups {
		parents[g] = &cobra.Command{Use: g, Short: about}
		root.AddCommand(parents[g])
	}
	for i := range verbs {
		v := &verbs[i]
		for _, path := range v.paths {
			group, _, ok := strings.Cut(path, " ")
			if !ok {
				group = ""
			}
			if parents[group] == nil { // another spelling, below a command
				continue
			}
			whole := command(s.Session, v, path)
			whole.Parent().RemoveCommand(whole)
			whole.ValidArgsFunction = s.names(v)
			s.values(v, whole)
			parents[group].AddCommand(whole)
		}
	}
	root.AddCommand(&cobra.Command{Use: "completion", Short: "Generate the completion script for a shell", ValidArgs: shells, Run: func(*cobra.Command, []string) {}})
	return root
}

var shells = []string{"bash", "zsh", "fish", "powershell"}

// complete answers the shell's question what may come next.
func (s completer) complete(args []string) error {
	root := s.tree()
	root.SetArgs(args)
	return root.ExecuteContext(context.Background())
}

// script prints a script that makes a shell ask this program.
func (s completer) script(args []string) error {
	if len(args) == 2 {
		root := s.tree()
		switch args[1] {
		case "bash":
			return root.GenBashCompletionV2(s.Out, true)
		case "zsh":
			return root.GenZshCompletion(s.Out)
		case "fish":
			return root.GenFishCompletion(s.Out, true)
		case "powershell":
			return root.GenPowerShellCompletionWithDesc(s.Out)
		}
	}
	usage := fmt.Sprintf("Usage:  %s completion bash|zsh|fish|powershell\n\nGenerate the completion script for a shell; for bash: source <(%s completion bash)", session.Name, session.Name)
	if len(args) == 2 && (args[1] == "--help" || args[1] == "-h") {
		fmt.Fprintln(s.Out, usage)
		return nil
	}
	return &session.Exit{Code: 1, Message: usage}
}

// completionTime is how long a shell may wait for names.
const completionTime = 2 * time.Second

// names completes containers or images, whichever the command takes. It starts no daemon.
func (s completer) names(v *verb) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, said string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(context.Background(), completionTime)
		defer cancel()
		api, err := s.quiet()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var found []string
		switch kind, verb, _ := strings.Cut(v.paths[0], " "); {
		case kind == "login" || kind == "logout":
			found = s.Credentials().Servers()
		case kind == "manifest" || kind == "image" && (verb == "push" || verb == "pull"):
			if kind == "image" && len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			found = imageNames(ctx, api)
		case kind == "search":
			return nil, cobra.ShellCompDirectiveNoFileComp
		case kind == "network":
			switch {
			case verb == "create" || verb == "dns" || verb == "ls" || verb == "prune" || (verb == "connect" || verb == "disconnect") && len(args) > 1:
				return nil, cobra.ShellCompDirectiveNoFileComp
			case (verb == "connect" || verb == "disconnect") && len(args) == 1:
				found = containerNames(ctx, api, verb)
			default:
				found = slices.DeleteFunc(networkNames(ctx, api), func(n string) bool { return slices.Contains(args, n) })
			}
		case kind == "volume":
			if verb == "create" || verb == "ls" || verb == "prune" || len(args) > 0 && verb != "rm" && verb != "inspect" && verb != "snapshots" && verb != "rollback" {
				return nil, cobra.ShellCompDirectiveDefault
			}
			if verb == "rollback" && len(args) == 1 {
				found = snapshotNames(ctx, api, args[0])
			} else if verb != "rollback" || len(args) == 0 {
				found = slices.DeleteFunc(volumeNames(ctx, api), func(n string) bool { return slices.Contains(args, n) })
			}
		case verb == "run" || verb == "create" || kind == "image" && strings.Contains("rm save history tag inspect ls diff explore", verb):
			if verb == "run" && len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			found = imageNames(ctx, api)
		case kind == "container" && verb != "ls":
			if verb == "exec" && len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			if len(args) > 0 && takesOne(verb) {
				return nil, cobra.ShellCompDirectiveDefault
			}
			found = containerNames(ctx, api, verb)
			if verb == "cp" {
				return places(found, said)
			}
			found = slices.DeleteFunc(found, func(n string) bool { return slices.Contains(args, n) })
		case kind == "inspect":
			found = slices.Concat(containerNames(ctx, api, verb), imageNames(ctx, api), networkNames(ctx, api), volumeNames(ctx, api))
		default:
			return nil, cobra.ShellCompDirectiveDefault
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// networkNames are those that can be asked for.
func networkNames(ctx context.Context, api *client.Client) (names []string) {
	all, err := api.Networks.List(ctx, nil)
	if err != nil {
		return nil
	}
	for _, n := range all {
		names = append(names, n.Name)
	}
	return names
}

// volumeNames are those that there are.
func volumeNames(ctx context.Context, api *client.Client) (names []string) {
	all, err := api.Volumes.List(ctx, nil)
	if err != nil {
		return nil
	}
	for _, v := range all.Volumes {
		names = append(names, v.Name)
	}
	return names
}

func snapshotNames(ctx context.Context, api *client.Client, volume string) (names []string) {
	all, err := api.Volumes.Snapshots(ctx, volume)
	if err != nil {
		return nil
	}
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names
}

// quiet is the client, which starts no daemon for a shell's question.
func (s completer) quiet() (*client.Client, error) {
	s.Launch = nil
	return s.API()
}

// takesOne tells whether only a verb's first argument is a container.
func takesOne(verb string) bool {
	switch verb {
	case "attach", "commit", "debug", "diff", "exec", "explain", "export", "logs", "port", "rename", "top":
		return true
	}
	return false
}

// places offers containers as cp takes them, with a path to follow; what looks like a path is left to the shell.
func places(names []string, said string) ([]string, cobra.ShellCompDirective) {
	if strings.ContainsAny(said, "/.:") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	for i := range names {
		names[i] += ":"
	}
	return names, cobra.ShellCompDirectiveNoSpace
}

func imageNames(ctx context.Context, api *client.Client) []string {
	all, err := api.Images.List(ctx, client.ImageListing{})
	if err != nil {
		return nil
	}
	var found []string
	for _, i := range all {
		found = append(found, i.RepoTags...)
	}
	return found
}

// containerNames lists the containers that a verb can act on.
func containerNames(ctx context.Context, api *client.Client, verb string) []string {
	q := client.Listing{All: true}
	switch verb {
	case "stop", "kill", "pause", "exec", "attach", "top":
		q.All = false
	case "start":
		q.Filters = client.Filters{"status": {"created", "exited"}}
	case "unpause":
		q.Filters = client.Filters{"status": {"paused"}}
	}
	all, err := api.Containers.List(ctx, q)
	if err != nil {
		return nil
	}
	var found []string
	for _, c := range all {
		for _, n := range c.Names {
			found = append(found, strings.TrimPrefix(n, "/"))
		}
	}
	return found
}
