// Package system has the commands about the engine itself.
//
// It starts and stops none. Invariant: a command does by the engine's API what it does.
package system

import (
	"context"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"

	"berth/cli/format"
	"berth/cli/session"

	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"
)

// infoResponse is what info shows; the fields are what templates may use.
type infoResponse struct {
	*system.Info `json:",omitempty"`
	ServerErrors []string `json:",omitempty"`
	ClientInfo   clientVersion
}

// Info is the command "system info".
func Info(s *session.Session) *cobra.Command {
	var text string
	cmd := &cobra.Command{
		Use: "info [OPTIONS]", Args: session.NoArgs, Example: "info --format '{{.Driver}}'",
		RunE: func(cmd *cobra.Command, _ []string) error { return info(cmd.Context(), s, text) },
	}
	cmd.Flags().StringVarP(&text, "format", "f", "", format.ObjectUsage)
	return cmd
}

func info(ctx context.Context, s *session.Session, text string) error {
	api, err := s.API()
	if err != nil {
		return err
	}
	i, serverErr := api.System.Info(ctx)
	if serverErr != nil && text != "" {
		return serverErr
	}
	if text != "" {
		v := infoResponse{Info: &i, ClientInfo: clientVersion{Version: s.Version, Context: "default", Os: "linux"}}
		return format.Object(s.Out, text, v, rawJSON(v))
	}
	fmt.Fprintf(s.Out, "Client:\n Version:    %s\n Context:    default\n Debug Mode: %t\n\nServer:\n", s.Version, s.Global.Debug)
	if serverErr != nil {
		return serverErr
	}
	printInfo(s.Out, &i)
	for _, w := range i.Warnings {
		fmt.Fprintln(s.Err, w)
	}
	return nil
}

// row prints a setting that has a value.
func row(w io.Writer, name, value string) {
	if value != "" {
		fmt.Fprintf(w, " %s: %s\n", name, value)
	}
}

func printInfo(w io.Writer, i *system.Info) {
	fmt.Fprintf(w, " Containers: %d\n  Running: %d\n  Paused: %d\n  Stopped: %d\n Images: %d\n", i.Containers, i.ContainersRunning, i.ContainersPaused, i.ContainersStopped, i.Images)
	row(w, "Server Version", i.ServerVersion)
	row(w, "Storage Driver", i.Driver)
	for _, pair := range i.DriverStatus {
		fmt.Fprintf(w, "  %s: %s\n", pair[0], pair[1])
	}
	row(w, "Logging Driver", i.LoggingDriver)
	row(w, "Cgroup Driver", i.CgroupDriver)
	row(w, "Cgroup Version", i.CgroupVersion)
	fmt.Fprintf(w, " Plugins:\n  Volume: %s\n  Network: %s\n", strings.Join(i.Plugins.Volume, " "), strings.Join(i.Plugins.Network, " "))
	if len(i.Plugins.Authorization) > 0 {
		fmt.Fprintf(w, "  Authorization: %s\n", strings.Join(i.Plugins.Authorization, " "))
	}
	fmt.Fprintf(w, "  Log: %s\n", strings.Join(i.Plugins.Log, " "))
	if len(i.CDISpecDirs) > 0 {
		fmt.Fprintf(w, " CDI spec directories:\n  %s\n", strings.Join(i.CDISpecDirs, "\n  "))
	}
	if i.Swarm.LocalNodeState != "" {
		fmt.Fprintf(w, " Swarm: %s\n", i.Swarm.LocalNodeState)
	}
	if len(i.Runtimes) > 0 {
		var names []string
		for n := range i.Runtimes {
			names = append(names, n)
		}
		sort.Strings(names)
		fmt.Fprintf(w, " Runtimes: %s\n", strings.Join(names, " "))
		row(w, "Default Runtime", i.DefaultRuntime)
	}
	printSecurity(w, i)
	printMachine(w, i)
}

func printSecurity(w io.Writer, i *system.Info) {
	row(w, "Init Binary", i.InitBinary)
	row(w, "containerd version", i.ContainerdCommit.ID)
	row(w, "runc version", i.RuncCommit.ID)
	row(w, "init version", i.InitCommit.ID)
	if len(i.SecurityOptions) == 0 {
		return
	}
	fmt.Fprintln(w, " Security Options:")
	for _, o := range i.SecurityOptions {
		var more []string
		name := o
		for _, field := range strings.Split(o, ",") {
			key, value, ok := strings.Cut(field, "=")
			switch {
			case ok && key == "name":
				name = value
			case ok && key == "profile":
				more = append(more, "Profile: "+value)
			}
		}
		fmt.Fprintf(w, "  %s\n", name)
		for _, m := range more {
			fmt.Fprintf(w, "   %s\n", m)
		}
	}
}

func printMachine(w io.Writer, i *system.Info) {
	row(w, "Kernel Version", i.KernelVersion)
	row(w, "Operating System", i.OperatingSystem)
	row(w, "OSType", i.OSType)
	row(w, "Architecture", i.Architecture)
	fmt.Fprintf(w, " CPUs: %d\n Total Memory: %s\n", i.NCPU, format.BinarySize(i.MemTotal))
	row(w, "Name", i.Name)
	row(w, "ID", i.ID)
	row(w, "Docker Root Dir", i.DockerRootDir)
	fmt.Fprintf(w, " Debug Mode: %t\n", i.Debug)
	if i.Debug {
		fmt.Fprintf(w, "  File Descriptors: %d\n  Goroutines: %d\n  System Time: %s\n  EventsListeners: %d\n", i.NFd, i.NGoroutines, i.SystemTime, i.NEventsListener)
	}
	row(w, "HTTP Proxy", i.HTTPProxy)
	row(w, "HTTPS Proxy", i.HTTPSProxy)
	row(w, "No Proxy", i.NoProxy)
	if len(i.Labels) > 0 {
		fmt.Fprintf(w, " Labels:\n  %s\n", strings.Join(i.Labels, "\n  "))
	}
	fmt.Fprintf(w, " Experimental: %t\n", i.ExperimentalBuild)
	if r := i.RegistryConfig; r != nil && (len(r.InsecureRegistryCIDRs) > 0 || len(r.IndexConfigs) > 0) {
		printRegistries(w, i)
	}
	fmt.Fprintf(w, " Live Restore Enabled: %s\n", strconv.FormatBool(i.LiveRestoreEnabled))
	if len(i.DefaultAddressPools) > 0 {
		fmt.Fprintln(w, " Default Address Pools:")
		for _, p := range i.DefaultAddressPools {
			fmt.Fprintf(w, "   Base: %s, Size: %d\n", p.Base, p.Size)
		}
	}
	if f := i.FirewallBackend; f != nil && f.Driver != "" {
		fmt.Fprintf(w, " Firewall Backend: %s\n", f.Driver)
		for _, pair := range f.Info {
			fmt.Fprintf(w, "  %s: %s\n", pair[0], pair[1])
		}
	}
}

func printRegistries(w io.Writer, i *system.Info) {
	fmt.Fprintln(w, " Insecure Registries:")
	var names []string
	for name, r := range i.RegistryConfig.IndexConfigs {
		if r != nil && !r.Secure {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, n := range names {
		fmt.Fprintf(w, "  %s\n", n)
	}
	for _, c := range i.RegistryConfig.InsecureRegistryCIDRs {
		fmt.Fprintf(w, "  %s\n", c)
	}
	if len(i.RegistryConfig.Mirrors) > 0 {
		fmt.Fprintln(w, " Registry Mirrors:")
		for _, m := range i.RegistryConfig.Mirrors {
			fmt.Fprintf(w, "  %s\n", m)
		}
	}
}
