package image

import (
	"context"
	"io"
	"net/url"
	"os"
	"strings"

	"berth/cli/flag"
	"berth/cli/progress"
	"berth/cli/reference"
	"berth/cli/session"

	"github.com/spf13/cobra"
)

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
		if _, err := reference.Parse(args[1]); err != nil {
			return err
		}
		q.Set("repo", args[1])
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
	view := progress.New(s.Out)
	view.Kept = "The import was interrupted. Nothing is left of it."
	return view.Show(p, nil)
}
