package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"

	"berth/fault"
)

// maxManifest bounds a manifest's size in bytes; the distribution specification lets registries refuse larger ones.
const maxManifest = 4 << 20

var manifestTypes = []string{
	ocispec.MediaTypeImageIndex,
	"application/vnd.docker.distribution.manifest.list.v2+json",
	ocispec.MediaTypeImageManifest,
	"application/vnd.docker.distribution.manifest.v2+json",
}

// Repository is one repository, seen by one user. It fits image.Source.
type Repository struct {
	client *Client
	name   reference.Named
	host   string
	path   string
	auth   Auth
}

// Resolve is Client.Resolve in this repository.
func (r *Repository) Resolve(ctx context.Context, ref reference.Named) (ocispec.Descriptor, error) {
	want := "latest"
	if digested, ok := ref.(reference.Digested); ok {
		want = digested.Digest().String()
	} else if tagged, ok := ref.(reference.Tagged); ok {
		want = tagged.Tag()
	}
	desc, err := r.resolve(ctx, want)
	if err != nil {
		return ocispec.Descriptor{}, r.translate(err, reference.TagNameOnly(ref))
	}
	return desc, nil
}

func (r *Repository) resolve(ctx context.Context, want string) (ocispec.Descriptor, error) {
	resp, err := r.send(ctx, request{method: http.MethodHead, what: "manifests/" + want, accept: manifestTypes})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	discard(resp)
	if desc, ok := describe(resp, want); ok {
		return desc, nil
	}
	// HEAD has no body to say why, and not every registry has HEAD or tells the digest.
	resp, err = r.send(ctx, request{method: http.MethodGet, what: "manifests/" + want, accept: manifestTypes})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return ocispec.Descriptor{}, readProblem(resp)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if len(data) > maxManifest {
		return ocispec.Descriptor{}, fault.New(fault.Unsupported, "manifest %s is larger than %d bytes", want, maxManifest)
	}
	desc := ocispec.Descriptor{MediaType: mediaType(resp), Digest: digest.FromBytes(data), Size: int64(len(data))}
	if d := digest.Digest(want); d.Validate() == nil && d != desc.Digest {
		return ocispec.Descriptor{}, fault.New(fault.Corrupt, "the registry answers %s with content of digest %s", want, desc.Digest)
	}
	return desc, nil
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
	if err := s.connect(); err != nil {
		s.Close()
		return nil, r.translate(err, r.name)
	}
	return s, nil
}

// open asks for content from offset on, and tells where the body begins: a server without ranges begins at 0.
func (r *Repository) open(ctx context.Context, desc ocispec.Descriptor, offset int64) (body io.ReadCloser, start int64, err error) {
	q := request{method: http.MethodGet, what: "blobs/" + desc.Digest.String(), offset: offset, patient: true}
	if slices.Contains(manifestTypes, desc.MediaType) {
		q.what, q.accept = "manifests/"+desc.Digest.String(), []string{desc.MediaType}
	}
	resp, err := r.send(ctx, q)
	if err != nil {
		return nil, 0, err
	}
	switch {
	case resp.StatusCode == http.StatusOK:
		return resp.Body, 0, nil
	case resp.StatusCode == http.StatusPartialContent && offset > 0:
		if begins(resp.Header.Get("Content-Range")) == offset {
			return resp.Body, offset, nil
		}
		resp.Body.Close()
		return nil, 0, fault.New(fault.Corrupt, "asked for bytes from %d on, the registry sends range %q", offset, resp.Header.Get("Content-Range"))
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		resp.Body.Close()
		return nil, 0, fault.New(fault.Corrupt, "the registry has no more than %d bytes of %s, whose manifest says %d", offset, desc.Digest, desc.Size)
	}
	defer resp.Body.Close()
	return nil, 0, readProblem(resp)
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

// request is one question to the repository.
type request struct {
	method  string
	what    string // the path below the repository
	accept  []string
	offset  int64
	patient bool // a host that can't be reached may come back: it answered before
}

// send asks, and asks again with growing pauses while that makes sense. The last answer, whatever it says, is returned.
func (r *Repository) send(ctx context.Context, q request) (*http.Response, error) {
	scheme, err := r.client.scheme(ctx, r.host)
	if err != nil {
		return nil, err
	}
	ctx = auth.WithScopesForHost(ctx, r.host, auth.ScopeRepository(r.path, auth.ActionPull))
	url := scheme + "://" + r.host + "/v2/" + r.path + "/" + q.what
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, q.method, url, nil)
		if err != nil {
			return nil, err
		}
		if q.accept != nil {
			req.Header["Accept"] = q.accept
		}
		if q.offset > 0 {
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-", q.offset))
		}
		resp, err := r.client.authorized(r.host, r.auth).Do(req)
		if ctx.Err() != nil || !retryable(resp, err, q.patient) || try+1 >= maxTries {
			return resp, err
		}
		pause, sensible := r.client.pause(try, resp)
		if !sensible {
			return resp, err
		}
		reason := ""
		if err != nil {
			reason = err.Error()
		} else {
			reason = resp.Status
			discard(resp)
		}
		if err := r.client.wait(ctx, r.host, reason, pause); err != nil {
			return nil, err
		}
	}
}
