package session

import (
	"context"
	"io"
	"net/url"

	"berth/cli/progress"
	"berth/cli/reference"
)

// PullImage pulls an image and shows the progress on out.
func (s *Session) PullImage(ctx context.Context, out io.Writer, r reference.Name, platform string, quiet bool) error {
	api, err := s.API()
	if err != nil {
		return err
	}
	q := url.Values{"fromImage": {r.Repository()}}
	if tag := r.Tag; r.Digest != "" {
		q.Set("tag", r.Digest)
	} else if tag != "" {
		q.Set("tag", tag)
	}
	if platform != "" {
		q.Set("platform", platform)
	}
	p, err := api.Images.Create(ctx, q, s.Auth(ctx, r.Domain), nil)
	if err != nil {
		return err
	}
	if quiet {
		out = io.Discard
	}
	view := progress.New(out)
	view.Kept = "The pull was interrupted. What has been downloaded is kept; the next pull goes on from there."
	return view.Show(p, nil)
}
