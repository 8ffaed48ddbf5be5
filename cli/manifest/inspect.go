package manifest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"berth/cli/reference"
	"berth/cli/session"
	"berth/fault"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

// Inspect is the command "manifest inspect".
func Inspect(s *session.Session) *cobra.Command {
	var verbose, insecure bool
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] [MANIFEST_LIST] MANIFEST", Args: session.Between(1, 2), Example: "manifest inspect debian\nmanifest inspect -v debian:12",
		RunE: func(cmd *cobra.Command, args []string) error {
			return inspect(cmd.Context(), s, verbose, insecure, args)
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&insecure, "insecure", false, "Allow communication with an insecure registry")
	fs.BoolVarP(&verbose, "verbose", "v", false, "Output additional info including layers and platform")
	return cmd
}

// inspect prints a manifest of a list that is kept here, else the list of that name that is kept here, else what the registry has.
func inspect(ctx context.Context, s *session.Session, verbose, insecure bool, args []string) error {
	r, err := name(args[len(args)-1])
	if err != nil {
		return err
	}
	kept := newStore(s)
	if len(args) == 2 {
		list, err := name(args[0])
		if err != nil {
			return err
		}
		e, err := kept.get(list.String(), r.String())
		if err != nil {
			return err
		}
		return printEntry(s, e, verbose)
	}
	all, err := kept.list(r.String())
	if err == nil {
		return printList(s, all, r, verbose)
	}
	if !errors.Is(err, fault.NotFound) {
		return err
	}
	desc, text, err := fetch(ctx, s, r, insecure)
	if err != nil {
		return err
	}
	switch desc.MediaType {
	case dockerList, ocispec.MediaTypeImageIndex:
		return inspectIndex(ctx, s, r, text, verbose, insecure)
	}
	e, err := newEntry(r.String(), desc, text)
	if err == nil && verbose {
		e, err = describe(ctx, s, r, desc, text, insecure)
	}
	if err != nil {
		return err
	}
	return printEntry(s, e, verbose)
}

// inspectIndex prints a registry's list.
func inspectIndex(ctx context.Context, s *session.Session, r reference.Name, text []byte, verbose, insecure bool) error {
	var there ocispec.Index
	if err := json.Unmarshal(text, &there); err != nil {
		return fmt.Errorf("read the index %s: %w", r, err)
	}
	if !verbose {
		return printIndex(s, there.Manifests)
	}
	all := []entry{}
	for _, d := range there.Manifests {
		one := r
		one.Digest = d.Digest.String()
		desc, text, err := fetch(ctx, s, one, insecure)
		if err != nil {
			return err
		}
		e, err := newEntry(one.String(), desc, text)
		if err != nil {
			return err
		}
		e.Descriptor.Platform = d.Platform // what the list says counts
		all = append(all, e)
	}
	return printJSON(s, all)
}

func printEntry(s *session.Session, e entry, verbose bool) error {
	if verbose {
		return printJSON(s, e)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, e.text(), "", "\t"); err != nil {
		return fmt.Errorf("read the manifest of %s: %w", e.Ref, err)
	}
	b.WriteByte('\n')
	_, err := b.WriteTo(s.Out)
	return err
}

func printList(s *session.Session, all []entry, list reference.Name, verbose bool) error {
	if verbose {
		return printJSON(s, all)
	}
	var found []ocispec.Descriptor
	for _, e := range all {
		if err := sameRegistry(e, list); err != nil {
			return err
		}
		found = append(found, e.Descriptor)
	}
	return printIndex(s, found)
}

func printIndex(s *session.Session, all []ocispec.Descriptor) error {
	_, text, err := newIndex(all)
	if err == nil {
		_, err = fmt.Fprintf(s.Out, "%s\n", text)
	}
	return err
}

func printJSON(s *session.Session, v any) error {
	text, err := json.MarshalIndent(v, "", "\t")
	if err == nil {
		_, err = fmt.Fprintf(s.Out, "%s\n", text)
	}
	return err
}

// sameRegistry refuses a manifest of another registry than the list's, which could not name it.
func sameRegistry(e entry, list reference.Name) error {
	r, err := reference.Parse(e.Ref)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", e.Ref, err)
	}
	if r.Domain != list.Domain {
		return fmt.Errorf("cannot use source images from a different registry than the target image: %s != %s", r.Domain, list.Domain)
	}
	return nil
}
