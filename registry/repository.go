package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// maxManifest bounds a manifest's size in bytes; the distribution specification lets registries refuse larger ones.
const maxManifest = 4 << 20

var manifestTypes = []string{
	ocispec.MediaTypeImageIndex,
	"application/vnd.docker.distribution.manifest.list.v2+json",
	ocispec.MediaTypeImageManifest,
	"application/vnd.docker.distribution.manifest.v2+json",
	signedSchema1,
	"application/vnd.docker.distribution.manifest.v1+json",
}

// signedSchema1 is the type of the oldest manifests. Their digest is not that of their bytes, but of what is signed in them.
const signedSchema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"

// Repository is one repository, seen by one user. It fits image.Source and image.Target.
type Repository struct {
	client    *Client
	name      reference.Named
	auth      Auth
	endpoints []*endpoint // mirrors, and as the last the registry itself
	broken    error       // why there are none

	mu     sync.Mutex
	missed map[*endpoint]bool // mirrors without this image
	begun  map[string]string  // uploads that a mount left open, by digest
}

// registry is the endpoint that has the last word, and takes pushes.
func (r *Repository) registry() *endpoint { return r.endpoints[len(r.endpoints)-1] }

// pull asks the mirrors in turn, then the registry, whose answer is the one that counts. It tells who answered.
func (r *Repository) pull(ctx context.Context, q request) (*http.Response, *endpoint, error) {
	if r.broken != nil {
		return nil, nil, fault.Wrap(fault.Unavailable, r.broken)
	}
	manifest := strings.HasPrefix(q.what, "manifests/")
	for _, e := range r.endpoints[:len(r.endpoints)-1] {
		if r.passes(e) || manifest && !e.resolves || !e.pulls && !manifest {
			continue
		}
		mine := q
		mine.scopes = []string{"repository:" + e.path + ":pull"}
		resp, err := e.try(ctx, mine)
		if err == nil {
			return resp, e, nil
		}
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		var p *problem
		if !errors.As(err, &p) {
			e.lane.rest()
		}
		if manifest {
			r.miss(e)
		}
	}
	e := r.registry()
	q.scopes = []string{"repository:" + e.path + ":pull"}
	resp, err := r.client.ask(ctx, e, q)
	return resp, e, err
}

func (r *Repository) passes(e *endpoint) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.missed[e] || e.lane.resting()
}

// Distrust makes everything come from the registry itself from now on, as what came before was wrong. False: nothing can have come from elsewhere.
func (r *Repository) Distrust() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := false
	for _, e := range r.endpoints {
		if e.mirror && !r.missed[e] {
			r.missed[e], changed = true, true
		}
	}
	return changed
}

// miss remembers that a mirror is of no use here.
func (r *Repository) miss(e *endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missed[e] = true
}

// Resolve asks what ref means now: HEAD of the manifest, and GET where HEAD tells too little.
// Errors are in Docker's words. fault.NotFound: no such repository or tag, or no right to know;
// fault.Unauthorized: wrong credentials; fault.Unavailable: the registry does not answer.
func (r *Repository) Resolve(ctx context.Context, ref reference.Named) (ocispec.Descriptor, error) {
	desc, err := r.resolve(ctx, wanted(ref))
	if err != nil {
		return ocispec.Descriptor{}, r.translate(err, reference.TagNameOnly(ref))
	}
	return desc, nil
}

// wanted is the digest or tag that a reference names.
func wanted(ref reference.Named) string {
	if digested, ok := ref.(reference.Digested); ok {
		return digested.Digest().String()
	}
	if tagged, ok := ref.(reference.Tagged); ok {
		return tagged.Tag()
	}
	return "latest"
}

func (r *Repository) resolve(ctx context.Context, want string) (ocispec.Descriptor, error) {
	resp, _, err := r.pull(ctx, request{method: http.MethodHead, what: "manifests/" + want, accept: manifestTypes})
	if err == nil {
		discard(resp)
		if desc, ok := describe(resp, want); ok {
			return desc, nil
		}
	}
	var p *problem
	if err != nil && (!errors.As(err, &p) || p.token) {
		return ocispec.Descriptor{}, err
	}
	// HEAD has no body to say why, and not every registry has HEAD or tells the digest. After long waits it is the words that are wanted.
	desc, _, err := r.manifest(ctx, want, p != nil && p.passing())
	return desc, err
}

// Manifest fetches the manifest or index that ref means now. Its digest is checked, but that of a signed schema 1
// manifest is what the registry says: see signedSchema1.
func (r *Repository) Manifest(ctx context.Context, ref reference.Named) (ocispec.Descriptor, []byte, error) {
	desc, data, err := r.manifest(ctx, wanted(ref), false)
	if err != nil {
		return ocispec.Descriptor{}, nil, r.translate(err, reference.TagNameOnly(ref))
	}
	return desc, data, nil
}

func (r *Repository) manifest(ctx context.Context, want string, hasty bool) (ocispec.Descriptor, []byte, error) {
	resp, _, err := r.pull(ctx, request{method: http.MethodGet, what: "manifests/" + want, accept: manifestTypes, hasty: hasty})
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	if len(data) > maxManifest {
		return ocispec.Descriptor{}, nil, fault.New(fault.Unsupported, "manifest %s is larger than %d bytes", want, maxManifest)
	}
	desc := ocispec.Descriptor{MediaType: mediaType(resp), Digest: digest.FromBytes(data), Size: int64(len(data))}
	d := digest.Digest(want)
	if told := digest.Digest(resp.Header.Get("Docker-Content-Digest")); desc.MediaType == signedSchema1 && told.Validate() == nil {
		desc.Digest = told
	}
	if d.Validate() == nil && d.Algorithm() != desc.Digest.Algorithm() {
		desc.Digest = d.Algorithm().FromBytes(data)
	}
	if d.Validate() == nil && d != desc.Digest {
		return ocispec.Descriptor{}, nil, fault.New(fault.Corrupt, "the registry answers %s with content of digest %s", want, desc.Digest)
	}
	return desc, data, nil
}

// describe reads a descriptor from a response's headers, if they have all of it.
func describe(resp *http.Response, want string) (ocispec.Descriptor, bool) {
	desc := ocispec.Descriptor{MediaType: mediaType(resp), Digest: digest.Digest(resp.Header.Get("Docker-Content-Digest")), Size: resp.ContentLength}
	if d := digest.Digest(want); d.Validate() == nil {
		desc.Digest = d // the header may lie, this can't
	}
	ok := resp.StatusCode == http.StatusOK && desc.Size > 0 && desc.Digest.Validate() == nil && slices.Contains(manifestTypes, desc.MediaType)
	return desc, ok
}

func mediaType(resp *http.Response) string {
	t, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return strings.TrimSpace(t)
}

// Fetch opens the manifest or blob that desc names, from byte offset on. The stream takes up
// again where it broke, as long as it gets further each time. The caller closes it.
func (r *Repository) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	s := newStream(ctx, r, desc, offset)
	if !slices.Contains(manifestTypes, desc.MediaType) {
		var err error
		if s.slot, err = r.client.current().down.take(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.connect(); err != nil {
		s.Close()
		return nil, r.translate(err, r.name)
	}
	return s, nil
}

// open asks for content from offset on, and tells where the body begins: a server without ranges begins at 0.
func (r *Repository) open(ctx context.Context, desc ocispec.Descriptor, offset int64) (body io.ReadCloser, from *endpoint, start int64, err error) {
	q := request{method: http.MethodGet, what: "blobs/" + desc.Digest.String(), offset: offset, patient: true}
	if slices.Contains(manifestTypes, desc.MediaType) {
		q.what, q.accept = "manifests/"+desc.Digest.String(), []string{desc.MediaType}
	}
	resp, from, err := r.pull(ctx, q)
	var p *problem
	if errors.As(err, &p) && p.status == http.StatusNotFound && isForeign(desc) {
		from = r.registry()
		resp, err = r.foreign(ctx, desc, offset)
	}
	switch {
	case errors.As(err, &p) && p.status == http.StatusRequestedRangeNotSatisfiable:
		return nil, nil, 0, fault.New(fault.Corrupt, "the registry has no more than %d bytes of %s, whose manifest says %d", offset, desc.Digest, desc.Size)
	case err != nil:
		return nil, nil, 0, err
	case resp.StatusCode == http.StatusOK:
		return resp.Body, from, 0, nil
	case resp.StatusCode == http.StatusPartialContent && offset > 0 && begins(resp.Header.Get("Content-Range")) == offset:
		return resp.Body, from, offset, nil
	}
	resp.Body.Close()
	return nil, nil, 0, fault.New(fault.Corrupt, "asked for bytes from %d on, %s answers %s with range %q", offset, from.lane.host, resp.Status, resp.Header.Get("Content-Range"))
}

// begins returns where a Content-Range such as "bytes 5-9/10" starts, -1 if it can't be read.
func begins(s string) int64 {
	s, ok := strings.CutPrefix(s, "bytes ")
	first, _, found := strings.Cut(s, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	if !ok || !found || err != nil {
		return -1
	}
	return n
}
