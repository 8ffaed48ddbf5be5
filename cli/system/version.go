package system

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sort"
	"strings"

	"berth/cli/format"
	"berth/cli/session"
	"berth/client"

	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"
)

// clientVersion is what version tells about this program.
type clientVersion struct {
	Platform          *system.PlatformInfo `json:",omitempty"`
	Version           string
	APIVersion        string `json:"ApiVersion"`
	DefaultAPIVersion string
	GitCommit         string
	GoVersion         string
	Os                string
	Arch              string
	Context           string
}

// versions is what version shows; the fields are what templates may use.
type versions struct {
	Client clientVersion
	Server *system.VersionResponse
}

// Version is the command "version".
func Version(s *session.Session) *cobra.Command {
	var text string
	cmd := &cobra.Command{
		Use: "version [OPTIONS]", Args: session.NoArgs, Example: "version --format '{{.Server.Version}}'",
		RunE: func(cmd *cobra.Command, _ []string) error { return version(cmd.Context(), s, text) },
	}
	cmd.Flags().StringVarP(&text, "format", "f", "", format.ObjectUsage)
	return cmd
}

func version(ctx context.Context, s *session.Session, text string) error {
	api, err := s.API()
	if err != nil {
		return err
	}
	server, serverErr := api.System.Version(ctx)
	v := versions{Client: clientVersion{
		Version: s.Version, APIVersion: api.Version(), DefaultAPIVersion: client.NewestVersion, GitCommit: s.Commit,
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH, Context: "default",
	}}
	if serverErr == nil {
		v.Server = &server
	}
	if text != "" {
		err = format.Object(s.Out, text, v, rawJSON(v))
	} else {
		err = printVersions(s.Out, v)
	}
	if serverErr != nil {
		return serverErr
	}
	return err
}

func printVersions(out io.Writer, v versions) error {
	w := new(strings.Builder)
	c := v.Client
	fmt.Fprintf(w, "Client:\n Version:\t%s\n API version:\t%s", c.Version, c.APIVersion)
	if c.APIVersion != c.DefaultAPIVersion {
		fmt.Fprintf(w, " (downgraded from %s)", c.DefaultAPIVersion)
	}
	fmt.Fprintf(w, "\n Go version:\t%s\n Git commit:\t%s\n OS/Arch:\t%s/%s\n Context:\t%s\n", c.GoVersion, c.GitCommit, c.Os, c.Arch, c.Context)
	if v.Server == nil {
		return format.Align(out, w.String(), format.Layout{Least: 20, Gap: 1})
	}
	platform := ""
	if n := v.Server.Platform.Name; n != "" {
		platform = " " + n
	}
	fmt.Fprintf(w, "\nServer:%s\n", platform)
	for _, part := range v.Server.Components {
		fmt.Fprintf(w, " %s:\n  Version:\t%s\n", part.Name, part.Version)
		if part.Name == "Engine" {
			d := part.Details
			fmt.Fprintf(w, "  API version:\t%s (minimum version %s)\n  Go version:\t%s\n  Git commit:\t%s\n  Built:\t%s\n  OS/Arch:\t%s/%s\n  Experimental:\t%s\n",
				d["ApiVersion"], d["MinAPIVersion"], d["GoVersion"], d["GitCommit"], d["BuildTime"], d["Os"], d["Arch"], d["Experimental"])
			continue
		}
		printDetails(w, part.Details)
	}
	return format.Align(out, w.String(), format.Layout{Least: 20, Gap: 1})
}

func printDetails(w io.Writer, details map[string]string) {
	var keys []string
	for k := range details {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		fmt.Fprintf(w, "  %s:\t%s\n", k, strings.TrimSpace(details[k]))
	}
}
