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
// them, only http and https are followed, nothing of the user's is shown there, and of the hosts of this machine and of private networks
// only those are asked that the user listed as insecure registries, and the registry's own.
func (r *Repository) foreign(ctx context.Context, desc ocispec.Descriptor, offset int64) (*http.Response, error) {
	e := elsewhere{settings: r.client.current(), home: r.registry().lane.host}
	var errs []string
	for _, address := range desc.URLs {
		resp, err := e.get(ctx, address, offset)
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

// elsewhere is what images name outside of their registry, home.
type elsewhere struct {
	settings *settings
	home     string
}

// trusts tells whether a host may be asked wherever it is; a port that is usual may be left out.
func (e elsewhere) trusts(host string) bool {
	for _, h := range []string{host, strings.TrimSuffix(host, ":443"), strings.TrimSuffix(host, ":80"), hostname(host)} {
		if e.settings.hosts[strings.ToLower(h)] || h == e.home {
			return true
		}
	}
	addr, err := netip.ParseAddr(hostname(host))
	// This machine is among the insecure ones without anybody having said so.
	return err == nil && !addr.Unmap().IsLoopback() && e.settings.within(addr)
}

// leads refuses addresses that lead inside, as far as their names tell.
func (e elsewhere) leads(ctx context.Context, u *url.URL) error {
	if !e.trusts(u.Host) && isPrivate(ctx, u.Hostname()) {
		return errPrivate(u.Host)
	}
	return nil
}

// dial connects. After the name was looked up it is checked again, so that no name leads around the rule; a proxy is the user's choice.
func (e elsewhere) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{Timeout: dialTimeout, Control: publicOnly}
	if e.trusts(address) || e.isProxy(address) {
		d.Control = nil
	}
	return d.DialContext(ctx, network, address)
}

func (e elsewhere) isProxy(address string) bool {
	return slices.ContainsFunc([]string{e.settings.HTTPProxy, e.settings.HTTPSProxy}, func(text string) bool {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" { // HOST:PORT is a proxy, too
			return text != "" && text == address
		}
		return u.Host == address || u.Port() == "" && u.Hostname() == hostname(address)
	})
}

func (e elsewhere) get(ctx context.Context, address string, offset int64) (*http.Response, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("%q is no http or https address", address)
	}
	if err := e.leads(ctx, u); err != nil {
		return nil, err
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
	t := &http.Transport{Proxy: e.settings.proxy, DialContext: e.dial, TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: answerTime, DisableCompression: true, DisableKeepAlives: true}
	client := &http.Client{Transport: t, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return fmt.Errorf("stopped after %d redirects", maxRedirects)
		}
		return e.leads(req.Context(), req.URL)
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
	return fmt.Errorf("%s is a host of this machine or of a private network, which an image can't send us to unless it is among the insecure-registries", host)
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
