package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// verb is a command that can be run. Only the one that was asked for is built.
type verb struct {
	paths   []string // all its spellings, the full one first
	short   string
	common  bool // shown among the first in help
	command func(*session) *cobra.Command
}

func (v *verb) build(s *session) *cobra.Command {
	c := v.command(s)
	c.Short = v.short
	c.SilenceErrors, c.SilenceUsage = true, true
	return c
}

// interspersed tells whether options may follow arguments; not where the arguments are a command of their own.
func (v *verb) interspersed() bool {
	switch v.paths[0] {
	case "container run", "container create", "container exec", "container top", "container debug":
		return false
	}
	return true
}

// groups are the nouns that verbs are sorted under.
var groups = map[string]string{
	"container": "Manage containers",
	"image":     "Manage images",
	"system":    "Manage the engine",
}

// verbs is the table of all commands.
var verbs = []verb{
	{paths: []string{"container run", "run"}, short: "Create and run a new container from an image", common: true, command: runCommand},
	{paths: []string{"container exec", "exec"}, short: "Execute a command in a running container", common: true, command: execCommand},
	{paths: []string{"container ls", "container list", "container ps", "ps"}, short: "List containers", common: true, command: psCommand},
	{paths: []string{"image pull", "pull"}, short: "Download an image from a registry", common: true, command: pullCommand},
	{paths: []string{"image ls", "image list", "images"}, short: "List images", common: true, command: imagesCommand},
	{paths: []string{"container logs", "logs"}, short: "Fetch the logs of a container", common: true, command: logsCommand},
	{paths: []string{"version"}, short: "Show the version of client and engine", common: true, command: versionCommand},
	{paths: []string{"system info", "info"}, short: "Display system-wide information", common: true, command: infoCommand},

	{paths: []string{"container attach", "attach"}, short: "Attach local standard input, output, and error streams to a running container", command: attachCommand},
	{paths: []string{"container commit", "commit"}, short: "Create a new image from a container's changes", command: commitCommand},
	{paths: []string{"container cp", "cp"}, short: "Copy files/folders between containers and the local filesystem", command: cpCommand},
	{paths: []string{"container create", "create"}, short: "Create a new container", command: createCommand},
	{paths: []string{"container debug", "debug"}, short: "Open a shell with tools in a container or image that has none", command: debugCommand},
	{paths: []string{"container diff", "diff"}, short: "Inspect changes to files or directories on a container's filesystem", command: diffCommand},
	{paths: []string{"container export", "export"}, short: "Export a container's filesystem as a tar archive", command: exportCommand},
	{paths: []string{"container prune"}, short: "Remove all stopped containers", command: pruneContainersCommand},
	{paths: []string{"system events", "events"}, short: "Get real time events from the server", command: eventsCommand},
	{paths: []string{"container explain", "explain"}, short: "Show a container as the kernel sees it", command: explainCommand},
	{paths: []string{"image history", "history"}, short: "Show the history of an image", command: historyCommand},
	{paths: []string{"image import", "import"}, short: "Import the contents from a tarball to create a filesystem image", command: importCommand},
	{paths: []string{"inspect"}, short: "Return low-level information on containers and images", command: inspectCommand},
	{paths: []string{"container inspect"}, short: "Display detailed information on one or more containers", command: inspectContainerCommand},
	{paths: []string{"image inspect"}, short: "Display detailed information on one or more images", command: inspectImageCommand},
	{paths: []string{"container kill", "kill"}, short: "Kill one or more running containers", command: killCommand},
	{paths: []string{"image load", "load"}, short: "Load an image from a tar archive or STDIN", command: loadCommand},
	{paths: []string{"container pause", "pause"}, short: "Pause all processes within one or more containers", command: pauseCommand},
	{paths: []string{"container port", "port"}, short: "List port mappings or a specific mapping for the container", command: portCommand},
	{paths: []string{"container rename", "rename"}, short: "Rename a container", command: renameCommand},
	{paths: []string{"container restart", "restart"}, short: "Restart one or more containers", command: restartCommand},
	{paths: []string{"container rm", "container remove", "rm"}, short: "Remove one or more containers", command: rmCommand},
	{paths: []string{"image rm", "image remove", "rmi"}, short: "Remove one or more images", command: rmiCommand},
	{paths: []string{"image save", "save"}, short: "Save one or more images to a tar archive (streamed to STDOUT by default)", command: saveCommand},
	{paths: []string{"container start", "start"}, short: "Start one or more stopped containers", command: startCommand},
	{paths: []string{"container stats", "stats"}, short: "Display a live stream of container(s) resource usage statistics", command: statsCommand},
	{paths: []string{"container stop", "stop"}, short: "Stop one or more running containers", command: stopCommand},
	{paths: []string{"image tag", "tag"}, short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", command: tagCommand},
	{paths: []string{"container top", "top"}, short: "Display the running processes of a container", command: topCommand},
	{paths: []string{"container unpause", "unpause"}, short: "Unpause all processes within one or more containers", command: unpauseCommand},
	{paths: []string{"container update", "update"}, short: "Update configuration of one or more containers", command: updateCommand},
	{paths: []string{"container wait", "wait"}, short: "Block until one or more containers stop, then print their exit codes", command: waitCommand},
}

// The numbers of arguments that a command takes.

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return countError(cmd, "accepts no arguments")
	}
	return nil
}

func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return countError(cmd, "requires "+plural(n, "argument"))
		}
		return nil
	}
}

func atLeast(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return countError(cmd, "requires at least "+plural(n, "argument"))
		}
		return nil
	}
}

func between(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < low || len(args) > high {
			return countError(cmd, fmt.Sprintf("requires at least %d and at most %s", low, plural(high, "argument")))
		}
		return nil
	}
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func countError(cmd *cobra.Command, why string) error {
	return &exit{1, fmt.Sprintf("%s: '%s' %s\n\nUsage:  %s\n\nRun '%s --help' for more information", name, cmd.CommandPath(), why, cmd.UseLine(), cmd.CommandPath())}
}
