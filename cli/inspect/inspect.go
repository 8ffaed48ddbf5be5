// Package inspect has the commands that print objects whole, of whichever kind.
//
// It lists nothing. Invariant: what is found is printed before what isn't is complained about.
package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"berth/cli/format"
	"berth/cli/reference"
	"berth/cli/session"
	"berth/client"
	"berth/fault"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"
)

type inspectOptions struct {
	format, kind, platform, as string
	size, verbose              bool
}

// Any is the command "inspect".
func Any(s *session.Session) *cobra.Command {
	var o inspectOptions
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] NAME|ID [NAME|ID...]", Args: session.AtLeast(1),
		Example: `inspect web
inspect --as run web
inspect --format '{{.State.Running}}' web`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch o.kind {
			case "", "container", "image", "network", "volume":
			case "node", "service", "task", "plugin", "secret", "config":
				return fault.New(fault.Unsupported, "inspect --type %s: this engine has containers, images, networks and volumes; objects of that type are not supported", o.kind)
			default:
				return fmt.Errorf("%q is not a valid value for --type", o.kind)
			}
			return inspect(cmd.Context(), s, &o, args)
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.format, "format", "f", "", format.ObjectUsage)
	fs.BoolVarP(&o.size, "size", "s", false, "Display total file sizes if the type is container")
	fs.StringVar(&o.kind, "type", "", "Only inspect objects of the given type")
	fs.StringVar(&o.as, "as", "", asUsage)
	return cmd
}

// Container is the command "container inspect".
func Container(s *session.Session) *cobra.Command {
	o := inspectOptions{kind: "container"}
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] CONTAINER [CONTAINER...]", Args: session.AtLeast(1), Example: "container inspect web",
		RunE: func(cmd *cobra.Command, args []string) error { return inspect(cmd.Context(), s, &o, args) },
	}
	cmd.Flags().StringVarP(&o.format, "format", "f", "", format.ObjectUsage)
	cmd.Flags().BoolVarP(&o.size, "size", "s", false, "Display total file sizes")
	cmd.Flags().StringVar(&o.as, "as", "", asUsage)
	return cmd
}

// Image is the command "image inspect".
func Image(s *session.Session) *cobra.Command {
	o := inspectOptions{kind: "image"}
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] IMAGE [IMAGE...]", Args: session.AtLeast(1), Example: "image inspect debian",
		RunE: func(cmd *cobra.Command, args []string) error { return inspect(cmd.Context(), s, &o, args) },
	}
	cmd.Flags().StringVarP(&o.format, "format", "f", "", format.ObjectUsage)
	cmd.Flags().StringVar(&o.platform, "platform", "", "Inspect a specific platform of the multi-platform image. Formatted as os[/arch[/variant]] (e.g., linux/amd64)")
	return cmd
}

// Network is the command "network inspect".
func Network(s *session.Session) *cobra.Command {
	o := inspectOptions{kind: "network"}
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] NETWORK [NETWORK...]", Args: session.AtLeast(1), Example: "network inspect front",
		RunE: func(cmd *cobra.Command, args []string) error { return inspect(cmd.Context(), s, &o, args) },
	}
	cmd.Flags().StringVarP(&o.format, "format", "f", "", format.ObjectUsage)
	cmd.Flags().BoolVarP(&o.verbose, "verbose", "v", false, "Verbose output for diagnostics")
	return cmd
}

// Volume is the command "volume inspect".
func Volume(s *session.Session) *cobra.Command {
	o := inspectOptions{kind: "volume"}
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] VOLUME [VOLUME...]", Args: session.AtLeast(1), Example: "volume inspect data\nvolume inspect --format '{{.Mountpoint}}' data",
		RunE: func(cmd *cobra.Command, args []string) error { return inspect(cmd.Context(), s, &o, args) },
	}
	cmd.Flags().StringVarP(&o.format, "format", "f", "", format.ObjectUsage)
	return cmd
}

// inspect prints what is found, and then says what isn't.
func inspect(ctx context.Context, s *session.Session, o *inspectOptions, args []string) error {
	if o.as != "" {
		return inspectAs(ctx, s, o, args)
	}
	if o.format != "" && o.format != "json" {
		if _, err := format.Parse(o.format); err != nil {
			return &session.Exit{Code: 64, Message: err.Error()}
		}
	}
	if o.size && o.kind == "image" {
		fmt.Fprintln(s.Err, "WARNING: --size ignored for images")
	}
	platform, err := reference.Platform(o.platform)
	if err != nil {
		return err
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	var found []json.RawMessage
	failure := s.Each(args, func(ref string) error {
		raw, typed, err := find(ctx, api, o, platform, ref)
		if err != nil {
			return err
		}
		if _, isImage := typed.(*image.InspectResponse); isImage && o.size && o.kind == "" {
			fmt.Fprintln(s.Err, "WARNING: --size ignored for images")
		}
		if o.format == "" || o.format == "json" {
			found = append(found, raw)
			return nil
		}
		return format.Object(s.Out, o.format, typed, raw)
	})
	if o.format == "" || o.format == "json" {
		if err := printArray(s, found, o.format == "json"); err != nil {
			return err
		}
	}
	return failure
}

// find asks for a container, then for an image of that name, then for a network, then for a volume. typed is the answer in the API's own types.
func find(ctx context.Context, api *client.Client, o *inspectOptions, platform, ref string) (raw json.RawMessage, typed any, err error) {
	if o.kind == "" || o.kind == "container" {
		if raw, err = api.Containers.Inspect(ctx, ref, o.size); err == nil {
			typed = new(client.Inspection)
		}
	}
	if raw == nil && (o.kind == "image" || o.kind == "" && errors.Is(err, fault.NotFound)) {
		if raw, err = api.Images.Inspect(ctx, ref, platform); err == nil {
			typed = new(image.InspectResponse)
		}
	}
	if raw == nil && (o.kind == "network" || o.kind == "" && errors.Is(err, fault.NotFound)) {
		if raw, err = api.Networks.Inspect(ctx, ref, "", o.verbose); err == nil {
			typed = new(network.Inspect)
		}
	}
	if raw == nil && (o.kind == "volume" || o.kind == "" && errors.Is(err, fault.NotFound)) {
		if raw, err = api.Volumes.Inspect(ctx, ref); err == nil {
			typed = new(volume.Volume)
		}
	}
	if err != nil {
		if o.kind == "" && errors.Is(err, fault.NotFound) {
			err = fmt.Errorf("error: no such object: %s", ref)
		}
		return nil, nil, err
	}
	if o.format == "" {
		return raw, typed, nil
	}
	if json.Unmarshal(raw, typed) != nil {
		typed = nil // another engine's form: the template sees the JSON as it is
	}
	return raw, typed, nil
}

func printArray(s *session.Session, found []json.RawMessage, compact bool) error {
	if found == nil {
		found = []json.RawMessage{}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if !compact {
		e.SetIndent("", "    ")
	}
	if err := e.Encode(found); err != nil {
		return err
	}
	_, err := b.WriteTo(s.Out)
	return err
}
