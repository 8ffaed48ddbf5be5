package images

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	"berth/fault"
	"berth/image"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
)

// Import makes an image of one layer; the last message's status is its ID.
func (i *Service) Import(ctx context.Context, r ImportRequest, body io.Reader, out func(jsonstream.Message)) (err error) {
	o := image.ImportOptions{Message: r.Message, Changes: r.Changes, Platform: r.Platform}
	if r.Repository != "" {
		if o.Ref, err = TargetName(r.Repository, r.Tag); err != nil {
			return err
		}
	}
	if o.Message == "" {
		o.Message = "Imported from " + r.Source
	}
	if r.Source != "-" {
		remote, err := openURL(ctx, i.Registry.HTTP(), r.Source)
		if err != nil {
			return err
		}
		defer remote.Close()
		out(jsonstream.Message{Status: "Downloading from " + r.Source})
		body = remote
	}
	img, err := i.Store.Import(ctx, body, o)
	if err != nil {
		return err
	}
	out(jsonstream.Message{Status: img.ID.String()})
	if o.Ref != nil {
		i.Announce(events.ActionTag, img.ID.String(), reference.FamiliarString(o.Ref))
	}
	i.Announce(events.ActionImport, img.ID.String(), img.ID.String())
	return nil
}

// openURL opens what an import takes from the network. The caller closes it.
func openURL(ctx context.Context, client *http.Client, source string) (io.ReadCloser, error) {
	if !strings.Contains(source, "://") {
		source = "http://" + source
	}
	u, err := url.Parse(source)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, invalid("import from %q: not an http or https URL", source)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "import: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, fault.New(fault.Unavailable, "import from %s: the server answered %s", source, response.Status)
	}
	return response.Body, nil
}
