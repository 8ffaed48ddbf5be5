package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// maxWhole is the size in bytes up to which a blob is sent in the request that ends its upload. A larger one goes in a
// request of its own, which can be taken up again where it broke.
const maxWhole = 8 << 20

// scopes is what a push may do.
func (r *Repository) scopes() []string {
	return []string{"repository:" + r.registry().path + ":pull,push"}
}

// Has tells whether the repository has the content that desc names. Mirrors are not asked.
func (r *Repository) Has(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	if r.broken != nil {
		return false, fault.Wrap(fault.Unavailable, r.broken)
	}
	q := request{method: http.MethodHead, what: "blobs/" + desc.Digest.String(), scopes: r.scopes()}
	if slices.Contains(manifestTypes, desc.MediaType) {
		q.what, q.accept = "manifests/"+desc.Digest.String(), []string{desc.MediaType}
	}
	resp, err := r.client.ask(ctx, r.registry(), q)
	var p *problem
	switch {
	case err == nil:
		discard(resp)
		return true, nil
	case errors.As(err, &p) && !p.token && (p.status == http.StatusNotFound || p.status == http.StatusMethodNotAllowed):
		return false, nil
	}
	return false, r.pushError(err)
}

// Mount makes content of another repository of the same registry available in this one, without sending it. False:
// the registry doesn't do it, or lacks the content, and it has to be sent.
func (r *Repository) Mount(ctx context.Context, desc ocispec.Descriptor, from reference.Named) (bool, error) {
	if r.broken != nil {
		return false, fault.Wrap(fault.Unavailable, r.broken)
	}
	if reference.Domain(from) != reference.Domain(r.name) || reference.Path(from) == reference.Path(r.name) {
		return false, nil
	}
	e := r.registry()
	query := url.Values{"mount": {desc.Digest.String()}, "from": {reference.Path(from)}}
	resp, err := r.client.ask(ctx, e, request{
		method: http.MethodPost, what: "blobs/uploads/?" + query.Encode(),
		scopes: append(r.scopes(), "repository:"+reference.Path(from)+":pull"),
	})
	var p *problem
	switch {
	case errors.As(err, &p) && !p.passing(): // perhaps the other repository is not for this user
		return false, nil
	case err != nil:
		return false, r.pushError(err)
	}
	defer discard(resp)
	if resp.StatusCode == http.StatusAccepted {
		if at, err := location(resp); err == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.begun[desc.Digest.String()] = at.String()
		}
	}
	return resp.StatusCode == http.StatusCreated, nil
}

// PutManifest stores a manifest or index whose content is there already, and gives it the tag unless that is "".
func (r *Repository) PutManifest(ctx context.Context, desc ocispec.Descriptor, data []byte, tag string) error {
	if r.broken != nil {
		return fault.Wrap(fault.Unavailable, r.broken)
	}
	if tag == "" {
		tag = desc.Digest.String()
	}
	resp, err := r.client.ask(ctx, r.registry(), request{
		method: http.MethodPut, what: "manifests/" + tag, header: http.Header{"Content-Type": {desc.MediaType}}, scopes: r.scopes(),
		body: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }, size: int64(len(data)),
	})
	if err != nil {
		return r.pushError(err)
	}
	discard(resp)
	stored := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if stored.Validate() == nil && stored.Algorithm() == desc.Digest.Algorithm() && stored != desc.Digest && desc.MediaType != signedSchema1 {
		return fault.New(fault.Corrupt, "%s: the registry stored %s with another digest, %s", r.name, desc.Digest, stored)
	}
	return nil
}

// Put sends a blob. open gives its bytes from the beginning and is called again for another try; what it opens is closed
// here. An upload that breaks goes on where the registry says that it has got to, and begins anew when it knows nothing of it.
func (r *Repository) Put(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	if r.broken != nil {
		return fault.Wrap(fault.Unavailable, r.broken)
	}
	u := &upload{r: r, e: r.registry(), desc: desc, open: open}
	r.mu.Lock()
	if text := r.begun[desc.Digest.String()]; text != "" {
		u.at, _ = url.Parse(text) // it was one when it was kept
		delete(r.begun, desc.Digest.String())
	}
	r.mu.Unlock()
	giveBack, err := r.client.current().up.take(ctx)
	if err != nil {
		return err
	}
	defer giveBack()
	return r.pushError(u.run(ctx))
}

// upload is one blob on its way.
type upload struct {
	r    *Repository
	e    *endpoint
	desc ocispec.Descriptor
	open func() (io.ReadCloser, error)
	at   *url.URL // of the session; nil = there is none
	have int64    // bytes that the registry says it has
}

func (u *upload) run(ctx context.Context) error {
	for broken := 0; ; {
		before := u.have
		err := u.send(ctx)
		if err == nil || ctx.Err() != nil || !u.resumable(err) {
			return u.reason(ctx, err)
		}
		done, stateErr := u.look(ctx)
		if done || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if broken++; u.have-before >= minStep {
			broken = 0
		}
		if stateErr != nil || broken >= u.r.client.current().Attempts {
			return fault.New(fault.Unavailable, "upload of %s to %s broke after %d of %d bytes, %d tries got no further: %w",
				u.desc.Digest, u.e.lane.host, u.have, u.desc.Size, broken, errors.Join(err, stateErr))
		}
		if broken > 0 {
			pause, _ := u.r.client.pause(broken, nil)
			if err := u.r.client.wait(ctx, u.e.lane.host, fmt.Sprintf("upload broke: %v", err), pause); err != nil {
				return err
			}
		}
	}
}

// reason is why an upload ended.
func (u *upload) reason(ctx context.Context, err error) error {
	var local *localError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &local):
		return fmt.Errorf("read %s: %w", u.desc.Digest, local.err)
	}
	return err
}

// resumable tells whether the upload may go on, or begin anew, after an error.
func (u *upload) resumable(err error) bool {
	var local *localError
	var p *problem
	switch {
	case errors.As(err, &local):
		return false
	case errors.As(err, &p):
		return p.code == codeUploadUnknown || p.status == http.StatusRequestedRangeNotSatisfiable || u.at != nil && p.status == http.StatusNotFound
	}
	return retryable(err, u.at != nil)
}

// send begins or goes on with the upload, and ends it.
func (u *upload) send(ctx context.Context) error {
	if u.at == nil {
		resp, err := u.r.client.ask(ctx, u.e, request{method: http.MethodPost, what: "blobs/uploads/", scopes: u.r.scopes()})
		if err != nil {
			return err
		}
		discard(resp)
		if u.at, err = location(resp); err != nil {
			return err
		}
		u.have = 0
	}
	last := request{method: http.MethodPut, header: http.Header{"Content-Type": {"application/octet-stream"}}, body: u.rest, size: u.desc.Size - u.have}
	if u.desc.Size > maxWhole || u.have > 0 {
		if err := u.patch(ctx); err != nil {
			return err
		}
		last.body, last.size = nil, 0
	}
	last.at, last.scopes, last.once = u.end(), u.r.scopes(), true
	resp, err := u.r.client.ask(ctx, u.e, last)
	if err != nil {
		return err
	}
	discard(resp)
	if stored := digest.Digest(resp.Header.Get("Docker-Content-Digest")); stored.Validate() == nil && stored.Algorithm() == u.desc.Digest.Algorithm() && stored != u.desc.Digest {
		return fault.New(fault.Corrupt, "%s: the registry stored %s with another digest, %s", u.r.name, u.desc.Digest, stored)
	}
	return nil
}

// patch sends what the registry doesn't have yet.
func (u *upload) patch(ctx context.Context) error {
	if u.have >= u.desc.Size {
		return nil
	}
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	if u.have > 0 { // without it, as other clients send, a whole blob is taken by every registry
		header.Set("Content-Range", fmt.Sprintf("%d-%d", u.have, u.desc.Size-1))
	}
	resp, err := u.r.client.ask(ctx, u.e, request{
		method: http.MethodPatch, at: u.at, scopes: u.r.scopes(), once: true, body: u.rest, size: u.desc.Size - u.have, header: header,
	})
	if err != nil {
		return err
	}
	discard(resp)
	if next, err := location(resp); err == nil {
		u.at = next
	}
	u.have = u.desc.Size
	return nil
}

// rest opens the content where the registry has got to.
func (u *upload) rest() (io.ReadCloser, error) {
	body, err := u.open()
	if err != nil || u.have == 0 {
		return body, err
	}
	if seeker, ok := body.(io.Seeker); ok {
		_, err = seeker.Seek(u.have, io.SeekStart)
	} else {
		_, err = io.CopyN(io.Discard, body, u.have)
	}
	if err != nil {
		body.Close()
		return nil, err
	}
	return body, nil
}

// end is the address that ends the upload. What stands in it already may be signed, and stays as it is.
func (u *upload) end() *url.URL {
	at := *u.at
	if at.RawQuery != "" {
		at.RawQuery += "&"
	}
	at.RawQuery += "digest=" + url.QueryEscape(u.desc.Digest.String())
	return &at
}

// look asks how far the upload has got; done: the blob is there, and only the answer was lost. Of an upload that the registry doesn't
// know the next try begins anew.
func (u *upload) look(ctx context.Context) (done bool, err error) {
	if u.at != nil {
		resp, err := u.r.client.ask(ctx, u.e, request{method: http.MethodGet, at: u.at, scopes: u.r.scopes(), patient: true})
		if err == nil {
			discard(resp)
			if next, err := location(resp); err == nil {
				u.at = next
			}
			u.have = received(resp.Header.Get("Range"), u.desc.Size)
			return false, nil
		}
		var p *problem
		if !errors.As(err, &p) {
			return false, err
		}
	}
	u.at, u.have = nil, 0
	resp, err := u.r.client.ask(ctx, u.e, request{method: http.MethodHead, what: "blobs/" + u.desc.Digest.String(), scopes: u.r.scopes(), patient: true})
	var p *problem
	switch {
	case err == nil:
		discard(resp)
		return true, nil
	case errors.As(err, &p):
		return false, nil
	}
	return false, err
}

// received reads the Range of an upload's state, such as "0-99" or "bytes=0-99": so many bytes are there, of size. "0-0" is how
// registries say both one byte and none; it counts as none.
func received(s string, size int64) int64 {
	first, last, ok := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(s, "bytes="), "bytes "), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if !ok || first != "0" || err != nil || n <= 0 || n >= size {
		return 0
	}
	return n + 1
}

// location is where an upload goes on.
func location(resp *http.Response) (*url.URL, error) {
	u, err := resp.Location()
	if err != nil {
		return nil, fmt.Errorf("the registry began an upload and doesn't say where it goes on: %w", err)
	}
	if asked := resp.Request.URL; asked.Scheme == "https" && u.Scheme == "http" && u.Host == asked.Host {
		u.Scheme = "https" // a registry behind a proxy that ends TLS, which it knows nothing of
	}
	return u, nil
}
