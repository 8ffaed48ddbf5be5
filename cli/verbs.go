package cli

import (
	"berth/cli/build"
	"berth/cli/container"
	"berth/cli/image"
	"berth/cli/inspect"
	"berth/cli/manifest"
	"berth/cli/network"
	"berth/cli/prune"
	"berth/cli/registry"
	"berth/cli/session"
	"berth/cli/system"
	"berth/cli/volume"

	"github.com/spf13/cobra"
)

// verb is a command that can be run. Only the one that was asked for is built.
type verb struct {
	paths   []string // all its spellings, the full one first
	short   string
	common  bool // shown among the first in help
	command func(*session.Session) *cobra.Command
}

func (v *verb) build(s *session.Session) *cobra.Command {
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
	"manifest":  "Manage lists of manifests: images of several platforms under one name",
	"builder":   "Manage builds",
	"network":   "Manage networks",
	"system":    "Manage the engine",
	"volume":    "Manage volumes",
}

// verbs is the table of all commands.
var verbs = []verb{
	{paths: []string{"container run", "run"}, short: "Create and run a new container from an image", common: true, command: container.Run},
	{paths: []string{"container exec", "exec"}, short: "Execute a command in a running container", common: true, command: container.Exec},
	{paths: []string{"container ls", "container list", "container ps", "ps"}, short: "List containers", common: true, command: container.List},
	{paths: []string{"image build", "build", "builder build"}, short: "Build an image from a Dockerfile", common: true, command: build.Build},
	{paths: []string{"image pull", "pull"}, short: "Download an image from a registry", common: true, command: image.Pull},
	{paths: []string{"image push", "push"}, short: "Upload an image to a registry", common: true, command: image.Push},
	{paths: []string{"image ls", "image list", "images"}, short: "List images", common: true, command: image.List},
	{paths: []string{"container logs", "logs"}, short: "Fetch the logs of a container", common: true, command: container.Logs},
	{paths: []string{"login"}, short: "Authenticate to a registry", common: true, command: registry.Login},
	{paths: []string{"logout"}, short: "Log out from a registry", common: true, command: registry.Logout},
	{paths: []string{"search"}, short: "Search a registry for images", common: true, command: registry.Search},
	{paths: []string{"version"}, short: "Show the version of client and engine", common: true, command: system.Version},
	{paths: []string{"system info", "info"}, short: "Display system-wide information", common: true, command: system.Info},

	{paths: []string{"container attach", "attach"}, short: "Attach local standard input, output, and error streams to a running container", command: container.Attach},
	{paths: []string{"container commit", "commit"}, short: "Create a new image from a container's changes", command: container.Commit},
	{paths: []string{"container cp", "cp"}, short: "Copy files/folders between containers and the local filesystem", command: container.Copy},
	{paths: []string{"container create", "create"}, short: "Create a new container", command: container.Create},
	{paths: []string{"container debug", "debug"}, short: "Open a shell with tools in a container or image that has none", command: container.Debug},
	{paths: []string{"container diff", "diff"}, short: "Inspect changes to files or directories on a container's filesystem", command: container.Diff},
	{paths: []string{"container export", "export"}, short: "Export a container's filesystem as a tar archive", command: container.Export},
	{paths: []string{"container prune"}, short: "Remove all stopped containers", command: prune.Containers},
	{paths: []string{"system events", "events"}, short: "Get real time events from the server", command: system.Events},
	{paths: []string{"builder prune"}, short: "Remove build cache", command: prune.Cache},
	{paths: []string{"image prune"}, short: "Remove unused images", command: prune.Images},
	{paths: []string{"network prune"}, short: "Remove all unused networks", command: prune.Networks},
	{paths: []string{"system df"}, short: "Show what takes the engine's disk space", command: system.Usage},
	{paths: []string{"system fsck"}, short: "Check the engine's data, and mend it", command: system.Check},
	{paths: []string{"system prune"}, short: "Remove unused data", command: prune.Everything},
	{paths: []string{"volume clone"}, short: "Make a volume of another one's content", command: volume.Clone},
	{paths: []string{"volume create"}, short: "Create a volume", command: volume.Create},
	{paths: []string{"volume export"}, short: "Write the content of a volume to a tar archive", command: volume.Export},
	{paths: []string{"volume import"}, short: "Fill a volume from a tar archive", command: volume.Import},
	{paths: []string{"volume inspect"}, short: "Display detailed information on one or more volumes", command: inspect.Volume},
	{paths: []string{"volume ls", "volume list"}, short: "List volumes", command: volume.List},
	{paths: []string{"volume rename"}, short: "Rename a volume; stopped containers that have it follow", command: volume.Rename},
	{paths: []string{"volume rm", "volume remove"}, short: "Remove one or more volumes that no container has", command: volume.Remove},
	{paths: []string{"volume rollback"}, short: "Make the content of a volume what it was at a snapshot", command: volume.Rollback},
	{paths: []string{"volume snapshot"}, short: "Keep the content of a volume as it is now", command: volume.Snapshot},
	{paths: []string{"volume snapshots"}, short: "List the snapshots of volumes", command: volume.Snapshots},
	{paths: []string{"volume update"}, short: "Update a volume (cluster volumes only)", command: volume.Update},
	{paths: []string{"volume prune"}, short: "Remove unused local volumes", command: prune.Volumes},
	{paths: []string{"container explain", "explain"}, short: "Show a container as the kernel sees it", command: container.Explain},
	{paths: []string{"image diff"}, short: "Show in what two images differ: files and settings", command: image.Diff},
	{paths: []string{"image explore"}, short: "Browse the layers of an image and their files", command: image.Explore},
	{paths: []string{"image history", "history"}, short: "Show the history of an image", command: image.History},
	{paths: []string{"image import", "import"}, short: "Import the contents from a tarball to create a filesystem image", command: image.Import},
	{paths: []string{"inspect"}, short: "Return low-level information on containers, images, networks and volumes", command: inspect.Any},
	{paths: []string{"container inspect"}, short: "Display detailed information on one or more containers", command: inspect.Container},
	{paths: []string{"image inspect"}, short: "Display detailed information on one or more images", command: inspect.Image},
	{paths: []string{"container kill", "kill"}, short: "Kill one or more running containers", command: container.Kill},
	{paths: []string{"image load", "load"}, short: "Load an image from a tar archive or STDIN", command: image.Load},
	{paths: []string{"manifest annotate"}, short: "Add additional information to a local image manifest", command: manifest.Annotate},
	{paths: []string{"manifest create"}, short: "Create a local manifest list for annotating and pushing to a registry", command: manifest.Create},
	{paths: []string{"manifest inspect"}, short: "Display an image manifest, or manifest list", command: manifest.Inspect},
	{paths: []string{"manifest push"}, short: "Push a manifest list to a repository", command: manifest.Push},
	{paths: []string{"manifest rm"}, short: "Delete one or more manifest lists from local storage", command: manifest.Remove},
	{paths: []string{"network audit", "port audit"}, short: "Show who can reach which port of running containers", command: network.Audit},
	{paths: []string{"network connect"}, short: "Connect a container to a network", command: network.Connect},
	{paths: []string{"network create"}, short: "Create a network", command: network.Create},
	{paths: []string{"network disconnect"}, short: "Disconnect a container from a network", command: network.Disconnect},
	{paths: []string{"network dns"}, short: "Show who has a name, and how a container looks it up", command: network.Lookup},
	{paths: []string{"network inspect"}, short: "Display detailed information on one or more networks", command: inspect.Network},
	{paths: []string{"network ls", "network list"}, short: "List networks", command: network.List},
	{paths: []string{"network rm", "network remove"}, short: "Remove one or more networks", command: network.Remove},
	{paths: []string{"container pause", "pause"}, short: "Pause all processes within one or more containers", command: container.Pause},
	{paths: []string{"container port", "port"}, short: "List port mappings or a specific mapping for the container", command: container.Port},
	{paths: []string{"container rename", "rename"}, short: "Rename a container", command: container.Rename},
	{paths: []string{"container restart", "restart"}, short: "Restart one or more containers", command: container.Restart},
	{paths: []string{"container rm", "container remove", "rm"}, short: "Remove one or more containers", command: container.Remove},
	{paths: []string{"image rm", "image remove", "rmi"}, short: "Remove one or more images", command: image.Remove},
	{paths: []string{"image save", "save"}, short: "Save one or more images to a tar archive (streamed to STDOUT by default)", command: image.Save},
	{paths: []string{"container start", "start"}, short: "Start one or more stopped containers", command: container.Start},
	{paths: []string{"container stats", "stats"}, short: "Display a live stream of container(s) resource usage statistics", command: container.Stats},
	{paths: []string{"container stop", "stop"}, short: "Stop one or more running containers", command: container.Stop},
	{paths: []string{"image tag", "tag"}, short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", command: image.Tag},
	{paths: []string{"container top", "top"}, short: "Display the running processes of a container", command: container.Top},
	{paths: []string{"container unpause", "unpause"}, short: "Unpause all processes within one or more containers", command: container.Unpause},
	{paths: []string{"container update", "update"}, short: "Update configuration of one or more containers", command: container.Update},
	{paths: []string{"container wait", "wait"}, short: "Block until one or more containers stop, then print their exit codes", command: container.Wait},
}
