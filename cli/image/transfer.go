package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"berth/cli/flag"
	"berth/cli/progress"
	"berth/cli/reference"
	"berth/cli/session"
	"berth/cli/terminal"
	"berth/fault"

	"github.com/spf13/cobra"
)

// Pull is the command "image pull".
func Pull(s *session.Session) *cobra.Command {
	var all, quiet bool
	var platform string
	cmd := &cobra.Command{
		Use: "pull [OPTIONS] NAME[:TAG|@DIGEST]", Args: session.Exactly(1), Example: "pull debian\npull localhost:5000/tool:v2",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := reference.Parse(args[0])
			if err != nil {
				return err
			}
			switch {
			case all && (r.Tag != "" || r.Digest != ""):
				return errors.New("tag can't be used with --all-tags/-a")
			case !all && r.Tag == "" && r.Digest == "":
				r = r.Tagged()
				if !quiet {
					fmt.Fprintf(s.Out, "Using default tag: %s\n", r.Tag)
				}
			}
			if err := s.PullImage(cmd.Context(), s.Out, r, platform, quiet); err != nil {
				return err
			}
			fmt.Fprintln(s.Out, r)
			return nil
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all-tags", "a", false, "Download all tagged images in the repository")
	fs.StringVar(&platform, "platform", s.Env("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	fs.Bool("disable-content-trust", true, "Skip image verification")
	flag.Old(fs, "disable-content-trust", "and is ignored.")
	return cmd
}

type importOptions struct {
	changes           []string
	message, platform string
}

// Import is the command "image import".
func Import(s *session.Session) *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use: "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]", Args: session.Between(1, 2),
		Example: "cat template.tar.gz | berth import - ubuntu:14.04\nimport rootfs.tar.xz mine:v1",
		RunE:    func(cmd *cobra.Command, args []string) error { return importImage(cmd.Context(), s, o, args) },
	}
	fs := cmd.Flags()
	fs.VarP(flag.List(&o.changes), "change", "c", "Apply Dockerfile instruction to the created image")
	fs.StringVarP(&o.message, "message", "m", "", "Set commit message for imported image")
	fs.StringVar(&o.platform, "platform", s.Env("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	return cmd
}

func importImage(ctx context.Context, s *session.Session, o importOptions, args []string) error {
	q := url.Values{"fromSrc": {"-"}}
	if len(o.changes) > 0 {
		q["changes"] = o.changes
	}
	for key, v := range map[string]string{"message": o.message, "platform": o.platform} {
		if v != "" {
			q.Set(key, v)
		}
	}
	if len(args) == 2 {
		r, err := reference.Parse(args[1])
		if err != nil {
			return err
		}
		q.Set("repo", reference.Name{Domain: r.Domain, Path: r.Path}.Familiar())
		if r.Tag != "" {
			q.Set("tag", r.Tag)
		}
	}
	var body io.Reader
	switch src := args[0]; {
	case src == "-":
		body = s.In
	case strings.HasPrefix(src, "http://") || strings.HasPrefix(src, "https://"):
		q.Set("fromSrc", src)
	default:
		f, err := os.Open(src)
		if err != nil {
			return err
		}
		defer f.Close()
		body = f
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	p, err := api.Images.Create(ctx, q, "", body)
	if err != nil {
		return err
	}
	return progress.New(s.Out).Show(p, nil)
}

// Load is the command "image load".
func Load(s *session.Session) *cobra.Command {
	var input string
	var quiet bool
	var platforms []string
	cmd := &cobra.Command{
		Use: "load [OPTIONS]", Args: session.NoArgs, Example: "load -i myfile.tar\nload < myfile.tar.gz",
		RunE: func(cmd *cobra.Command, _ []string) error { return load(cmd.Context(), s, input, quiet, platforms) },
	}
	fs := cmd.Flags()
	fs.StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	fs.StringArrayVar(&platforms, "platform", nil, "Load only the given platform(s). Formatted as a comma-separated list of \"os[/arch[/variant]]\"")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	return cmd
}

func load(ctx context.Context, s *session.Session, input string, quiet bool, platforms []string) error {
	only, err := reference.Platforms(platforms)
	if err != nil {
		return err
	}
	in := s.In
	if input != "" && input != "-" {
		f, err := os.Open(input)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	} else if terminal.Is(s.In) {
		return errors.New("requested load from stdin, but stdin is empty")
	}
	// Without a terminal, progress would only be noise between the names.
	quiet = quiet || !terminal.Is(s.Out)
	api, err := s.API()
	if err != nil {
		return err
	}
	p, err := api.Images.Load(ctx, in, quiet, only)
	if err != nil {
		return err
	}
	return progress.New(s.Out).Show(p, nil)
}

// Save is the command "image save".
func Save(s *session.Session) *cobra.Command {
	var output string
	var platforms []string
	cmd := &cobra.Command{
		Use: "save [OPTIONS] IMAGE [IMAGE...]", Args: session.AtLeast(1), Example: "save -o myfile.tar busybox:latest\nsave debian | gzip > debian.tar.gz",
		RunE: func(cmd *cobra.Command, args []string) error { return save(cmd.Context(), s, output, args, platforms) },
	}
	fs := cmd.Flags()
	fs.StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	fs.StringArrayVar(&platforms, "platform", nil, "Save only the given platform(s). Formatted as a comma-separated list of \"os[/arch[/variant]]\"")
	return cmd
}

func save(ctx context.Context, s *session.Session, output string, refs, platforms []string) (err error) {
	only, err := reference.Platforms(platforms)
	if err != nil {
		return err
	}
	if output == "" && terminal.Is(s.Out) {
		return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	r, err := api.Images.Save(ctx, refs, only)
	if err != nil {
		return err
	}
	defer fault.Close(r, &err)
	if output == "" {
		_, err = io.Copy(s.Out, r)
		return err
	}
	if i, err := os.Stat(output); err == nil && !i.Mode().IsRegular() {
		return saveInto(output, r)
	}
	// A broken archive must not take the place of a good one.
	f, err := os.CreateTemp(filepath.Dir(output), "."+filepath.Base(output)+"-")
	if err != nil {
		return fmt.Errorf("failed to save image: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = io.Copy(f, r)
	err = errors.Join(err, f.Close())
	if err != nil {
		return fmt.Errorf("failed to save image: %w", err)
	}
	return os.Rename(f.Name(), output)
}

// saveInto writes to what is no regular file, such as a pipe.
func saveInto(output string, r io.Reader) (err error) {
	f, err := os.OpenFile(output, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("failed to save image: %w", err)
	}
	defer fault.Close(f, &err)
	_, err = io.Copy(f, r)
	return err
}

// Tag is the command "image tag".
func Tag(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", Args: session.Exactly(2), Example: "tag debian registry.example.org/base:v1",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := reference.Parse(args[1])
			if err != nil {
				return err
			}
			if r.Digest != "" {
				return errors.New("refusing to create a tag with a digest reference")
			}
			api, err := s.API()
			if err != nil {
				return err
			}
			return api.Images.Tag(cmd.Context(), args[0], r.Repository(), r.Tagged().Tag)
		},
	}
}

// Remove is the command "image rm".
func Remove(s *session.Session) *cobra.Command {
	var force, keep bool
	var platforms []string
	cmd := &cobra.Command{
		Use: "rmi [OPTIONS] IMAGE [IMAGE...]", Args: session.AtLeast(1), Example: "rmi busybox",
		RunE: func(cmd *cobra.Command, args []string) error {
			only, err := reference.Platforms(platforms)
			if err != nil {
				return err
			}
			api, err := s.API()
			if err != nil {
				return err
			}
			return s.Each(args, func(ref string) error {
				removed, err := api.Images.Remove(cmd.Context(), ref, force, keep, only)
				if force && errors.Is(err, fault.NotFound) {
					fmt.Fprintln(s.Err, err)
					return nil
				}
				if err != nil {
					return err
				}
				for _, r := range removed {
					if r.Untagged != "" {
						fmt.Fprintln(s.Out, "Untagged: "+r.Untagged)
					}
					if r.Deleted != "" {
						fmt.Fprintln(s.Out, "Deleted: "+r.Deleted)
					}
				}
				return nil
			})
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&force, "force", "f", false, "Force removal of the image")
	fs.BoolVar(&keep, "no-prune", false, "Do not delete untagged parents")
	fs.StringArrayVar(&platforms, "platform", nil, "Remove only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")")
	return cmd
}
