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
	source := r.Source
	if source != "-" {
		u, err := parseSource(source)
		if err != nil {
			return err
		}
		remote, err := open(ctx, i.Registry.HTTP(), u)
		if err != nil {
			return err
		}
		defer remote.Close()
		source = u.Redacted() // a password belongs neither on a screen nor into the image's history
		out(jsonstream.Message{Status: "Downloading from " + source})
		body = remote
	}
	if o.Message == "" {
		o.Message = "Imported from " + source
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

// parseSource reads the address of what an import takes from the network; without a scheme it is http.
func parseSource(source string) (*url.URL, error) {
	if !strings.Contains(source, "://") {
		source = "http://" + source
	}
	u, err := url.Parse(source)
	if err != nil { // its words would have the whole address, a password included
		return nil, invalid("import: the source is not an http or https URL")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, invalid("import from %q: not an http or https URL", u.Redacted())
	}
	return u, nil
}

// open asks for what an import takes from the network. The caller closes it.
func open(ctx context.Context, client *http.Client, u *url.URL) (io.ReadCloser, error) {
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
		return nil, fault.New(fault.Unavailable, "import from %s: the server answered %s", u.Redacted(), response.Status)
	}
	return response.Body, nil
}
