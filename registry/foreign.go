package registry

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// isForeign tells whether content may be kept elsewhere than in registries, by its licence. Other descriptors' URLs are not followed.
func isForeign(desc ocispec.Descriptor) bool {
	return len(desc.URLs) > 0 && (strings.Contains(desc.MediaType, ".nondistributable.") || strings.Contains(desc.MediaType, ".foreign."))
}

// foreign opens content that the registry lacks at the addresses that its descriptor names, from offset on. As whoever made the image chose
// them, only http and https are followed, nothing of the user's is shown there, and hosts of this machine or
// of private networks are asked only on behalf of a registry that is such a host itself.
func (r *Repository) foreign(ctx context.Context, desc ocispec.Descriptor, offset int64) (*http.Response, error) {
	s := r.client.current()
	local := r.registry().lane.insecure || isPrivate(ctx, hostname(r.registry().lane.host))
	var errs []string
	for _, address := range desc.URLs {
		resp, err := getForeign(ctx, s, address, offset, local)
		if err == nil {
			return resp, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		errs = append(errs, err.Error())
	}
	return nil, fault.New(fault.NotFound, "layer %s is not in the registry, which is usual for what may not be passed on, nor at the addresses that the image names: %s", desc.Digest, strings.Join(errs, "; "))
}

func getForeign(ctx context.Context, s *settings, address string, offset int64, local bool) (*http.Response, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("%q is no http or https address", address)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	if offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	t := &http.Transport{Proxy: s.proxy, TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: answerTime, DisableCompression: true, DisableKeepAlives: true}
	dial := &net.Dialer{Timeout: dialTimeout}
	if !local {
		if proxy, err := s.proxy(req); err == nil && proxy == nil {
			dial.Control = publicOnly // after the name was looked up, so that no name leads around it
		} else if isPrivate(ctx, u.Hostname()) {
			cancel(nil)
			return nil, errPrivate(u.Host)
		}
	}
	t.DialContext = dial.DialContext
	client := &http.Client{Transport: t, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return fmt.Errorf("stopped after %d redirects", maxRedirects)
		}
		if !local && isPrivate(req.Context(), req.URL.Hostname()) {
			return errPrivate(req.URL.Host)
		}
		return nil
	}}
	resp, err := client.Do(req)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = &answer{resp.Body, time.AfterFunc(maxStall, func() { cancel(errSlow) }), cancel}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		resp.Body.Close()
		return nil, fmt.Errorf("%s answers %s", u.Host, resp.Status)
	}
	return resp, nil
}

func errPrivate(host string) error {
	return fmt.Errorf("%s is a host of this machine or of a private network, which an image can't send us to", host)
}

func publicOnly(_, address string, _ syscall.RawConn) error {
	host := hostname(address)
	if addr, err := netip.ParseAddr(host); err != nil || isInside(addr) {
		return errPrivate(host)
	}
	return nil
}

// isInside tells whether an address is of this machine, this link, or a private network.
func isInside(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast()
}

// isPrivate is isInside for a name or an address.
func isPrivate(ctx context.Context, host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return isInside(addr)
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host) // who isn't known can't be reached either
	return slices.ContainsFunc(addrs, isInside)
}
