// Package images pulls, keeps and removes images for the engine, and tells the journal of it.
//
// It is not the store of images (package image) nor the registry's protocol: it introduces them to each other, and
// speaks the API's types. Invariant: what it announces is in the store.
package images

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"berth/engine/journal"
	"berth/fault"
	"berth/image"
	"berth/registry"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Service is all that can be done with images.
type Service struct {
	Store    *image.Store
	Registry *registry.Client
	Events   *journal.Journal
	Driver   string // of the layers
	// Settle waits for what containers leave, as that may still stand on layers.
	Settle func()
	// UsedBy lists the containers of an image, by whether they run.
	UsedBy func(image string) (running, stopped []string)
}

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

// helloWorld is the image that is built in.
const helloWorld = "docker.io/library/hello-world:latest"

// ForCreate finds the image of a new container; the built-in one needs no registry.
func (i *Service) ForCreate(ctx context.Context, ref string, platform *ocispec.Platform) (*image.Image, error) {
	if ref == "" {
		return nil, invalid("no image given")
	}
	var img *image.Image
	var err error
	if platform != nil {
		img, err = i.Store.GetPlatform(ref, *platform)
	} else {
		img, err = i.Store.Get(ref)
	}
	if errors.Is(err, fault.NotFound) && platform == nil {
		if named, parseErr := image.ParseName(ref); parseErr == nil && named.String() == helloWorld {
			return i.Store.Hello(ctx)
		}
	}
	return img, err
}

// ID is the image ID that ref means.
func (i *Service) ID(ref string) (string, error) {
	img, err := i.Store.Get(ref)
	if err != nil {
		return "", err
	}
	return img.ID.String(), nil
}

// Names maps every name of an image, with and without its tag where that is latest, to its ID.
func (i *Service) Names() map[string]string {
	m := map[string]string{}
	list, err := i.Store.List()
	if err != nil {
		return m
	}
	for _, img := range list {
		for _, tag := range img.Tags() {
			m[tag] = img.ID.String()
			if bare, ok := strings.CutSuffix(tag, ":latest"); ok {
				m[bare] = img.ID.String()
			}
		}
	}
	return m
}

// Announce tells of an image.
func (i *Service) Announce(action events.Action, id digest.Digest, name string) {
	i.Events.Publish(events.ImageEventType, action, id.String(), map[string]string{"name": name})
}

// Tag gives an image a further name.
func (i *Service) Tag(ref, repo, tag string) error {
	target, err := TargetName(repo, tag)
	if err != nil {
		return err
	}
	if err := i.Store.Tag(ref, target); err != nil {
		return err
	}
	if img, err := i.Store.Get(target.String()); err == nil {
		i.Announce(events.ActionTag, img.ID, reference.FamiliarString(target))
	}
	return nil
}

// TargetName reads the name that an image shall get; without tag it is latest.
func TargetName(repo, tag string) (reference.NamedTagged, error) {
	name := repo
	if tag != "" {
		name += ":" + tag
	}
	named, err := image.ParseName(name)
	if err != nil {
		return nil, err
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, invalid("refusing to create a tag with a digest reference")
	}
	tagged, ok := named.(reference.NamedTagged)
	if !ok {
		return nil, invalid("invalid reference format: %q has no tag", name)
	}
	return tagged, nil
}

// Remove untags, and deletes what nothing names any more.
func (i *Service) Remove(_ context.Context, ref string, force, noPrune bool) ([]wire.DeleteResponse, error) {
	i.Settle()
	removed, err := i.Store.Remove(ref, image.RemoveOptions{Force: force, NoPrune: noPrune, InUse: func(id digest.Digest) ([]string, []string) {
		return i.UsedBy(id.String())
	}})
	all := make([]wire.DeleteResponse, 0, len(removed))
	for _, r := range removed {
		all = append(all, wire.DeleteResponse{Untagged: r.Untagged, Deleted: r.Deleted})
		if r.Untagged != "" {
			i.Announce(events.ActionUnTag, digest.Digest(r.Untagged), r.Untagged)
		} else {
			i.Announce(events.ActionDelete, digest.Digest(r.Deleted), r.Deleted)
		}
	}
	return all, err
}

// Save writes the images as one archive that is both a docker-archive and an OCI layout. Unknown names fail
// before the first byte.
func (i *Service) Save(ctx context.Context, w io.Writer, refs []string) error {
	for _, ref := range refs {
		img, err := i.Store.Get(ref)
		if err != nil {
			return err
		}
		i.Announce(events.ActionSave, img.ID, ref)
	}
	return i.Store.Save(ctx, w, refs)
}

// Load reads a docker-archive or OCI layout.
func (i *Service) Load(ctx context.Context, r io.Reader, quiet bool, out func(jsonstream.Message)) error {
	progress := image.Progress(nil)
	if !quiet {
		progress = showProgress(out)
	}
	loaded, err := i.Store.Load(ctx, r, progress)
	if err != nil {
		return err
	}
	for _, l := range loaded {
		if l.Name == nil {
			out(jsonstream.Message{Stream: "Loaded image ID: " + l.ID.String() + "\n"})
		} else {
			out(jsonstream.Message{Stream: "Loaded image: " + reference.FamiliarString(l.Name) + "\n"})
		}
		i.Announce(events.ActionLoad, l.ID, l.ID.String())
	}
	return nil
}

// showProgress turns a layer's steps into the wire's messages.
func showProgress(out func(jsonstream.Message)) image.Progress {
	return func(e image.Event) {
		m := jsonstream.Message{ID: e.ID, Status: e.Status, Progress: &jsonstream.Progress{}}
		if e.Total > 0 || e.Current > 0 {
			m.Progress.Current, m.Progress.Total = e.Current, e.Total
		}
		out(m)
	}
}

// Import makes an image of one layer; the last message's status is its ID.
func (i *Service) Import(ctx context.Context, r ImportRequest, body io.Reader, out func(jsonstream.Message)) (err error) {
	o := image.ImportOptions{Message: r.Message, Changes: r.Changes, Platform: r.Platform}
	if r.Ref != "" {
		if o.Ref, err = TargetName(r.Ref, ""); err != nil {
			return err
		}
	}
	if o.Message == "" {
		o.Message = "Imported from " + r.Source
	}
	if r.Source != "-" {
		remote, err := openURL(ctx, r.Source)
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
	i.Announce(events.ActionImport, img.ID, r.Ref)
	return nil
}

// openURL opens what an import takes from the network. The caller closes it.
func openURL(ctx context.Context, source string) (io.ReadCloser, error) {
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
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "import: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, fault.New(fault.Unavailable, "import from %s: the server answered %s", source, response.Status)
	}
	return response.Body, nil
}

// Pull fetches an image. An error before the first call of out is an answer of its own; one after it belongs
// into the stream.
func (i *Service) Pull(ctx context.Context, r PullRequest, out func(jsonstream.Message)) error {
	if r.All {
		return fault.New(fault.Unsupported, "pulling all tags is not supported yet: name one, such as %s:latest", r.Ref)
	}
	named, err := image.ParseName(r.Ref)
	if err != nil {
		return err
	}
	auth := registry.Auth{Username: r.Auth.Username, Password: r.Auth.Password, IdentityToken: r.Auth.IdentityToken, RegistryToken: r.Auth.RegistryToken}
	root, err := i.Registry.Resolve(ctx, named, auth)
	if err != nil {
		return err
	}
	familiar := reference.FamiliarString(named)
	out(jsonstream.Message{Status: "Pulling from " + reference.Path(named), ID: tagOrDigest(named)})
	before, _ := i.ID(named.String()) // "" when it is not here
	img, err := i.Store.Pull(ctx, i.Registry.Repository(named, auth), root, []reference.Named{named}, r.Platform, showProgress(out))
	if err != nil {
		return err
	}
	out(jsonstream.Message{Status: "Digest: " + root.Digest.String()})
	if before == img.ID.String() {
		out(jsonstream.Message{Status: "Status: Image is up to date for " + familiar})
	} else {
		out(jsonstream.Message{Status: "Status: Downloaded newer image for " + familiar})
	}
	i.Announce(events.ActionPull, img.ID, familiar)
	return nil
}

func tagOrDigest(n reference.Named) string {
	if d, ok := n.(reference.Digested); ok {
		return d.Digest().String()
	}
	if t, ok := n.(reference.Tagged); ok {
		return t.Tag()
	}
	return "latest"
}

// Inspect describes an image.
func (i *Service) Inspect(ref string) (wire.InspectResponse, error) {
	img, err := i.Store.Get(ref)
	if err != nil {
		return wire.InspectResponse{}, err
	}
	p := img.Platform()
	d := wire.InspectResponse{
		ID: img.ID.String(), RepoTags: nonNil(img.Tags()), RepoDigests: nonNil(img.Digests()), Author: img.Config.Author, Config: &img.Config.Config,
		Architecture: p.Architecture, Variant: p.Variant, Os: p.OS, OsVersion: p.OSVersion, Size: img.Size,
		GraphDriver: &storage.DriverData{Name: i.Driver, Data: map[string]string{}}, RootFS: wire.RootFS{Type: "layers"},
		Metadata: wire.Metadata{LastTagTime: img.Tagged}, Descriptor: &img.Target,
	}
	if created := img.Created(); !created.IsZero() {
		d.Created = created.Format(time.RFC3339Nano)
	}
	for _, diff := range img.DiffIDs {
		d.RootFS.Layers = append(d.RootFS.Layers, diff.String())
	}
	if n := len(img.Config.History); n > 0 {
		d.Comment = img.Config.History[n-1].Comment
	}
	return d, nil
}

// Origin is the container that an image was made of.
func (i *Service) Origin(ref string) (image.Origin, error) {
	img, err := i.Store.Get(ref)
	if err != nil {
		return image.Origin{}, err
	}
	return i.Store.OriginOf(img)
}

func nonNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// History lists what an image was made by, newest first.
func (i *Service) History(ref string) ([]wire.HistoryResponseItem, error) {
	img, err := i.Store.Get(ref)
	if err != nil {
		return nil, err
	}
	items, err := i.Store.History(img)
	if err != nil {
		return nil, err
	}
	all := make([]wire.HistoryResponseItem, 0, len(items))
	for _, h := range items {
		all = append(all, wire.HistoryResponseItem{ID: h.ID, Created: h.Created, CreatedBy: h.CreatedBy, Comment: h.Comment, Tags: h.Tags, Size: h.Size})
	}
	return all, nil
}

// List describes the images that fit, newest first.
func (i *Service) List(r ListRequest) ([]wire.Summary, error) {
	list, err := i.Store.List()
	if err != nil {
		return nil, err
	}
	list, err = image.Select(list, image.Filter(r.Filters), time.Now(), i.Store.Get)
	if err != nil {
		return nil, err
	}
	all := make([]wire.Summary, 0, len(list))
	for _, img := range list {
		s := wire.Summary{
			ID: img.ID.String(), RepoTags: nonNil(img.Tags()), RepoDigests: nonNil(img.Digests()), Size: img.Size, SharedSize: -1,
			Labels: img.Config.Config.Labels, Descriptor: &img.Target,
		}
		if s.Labels == nil {
			s.Labels = map[string]string{}
		}
		if created := img.Created(); !created.IsZero() {
			s.Created = created.Unix()
		}
		running, stopped := i.UsedBy(s.ID)
		s.Containers = int64(len(running) + len(stopped))
		all = append(all, s)
	}
	return all, nil
}
