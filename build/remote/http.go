package remote

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/build/dockerfile"
	"berth/fault"
	"berth/internal/record"
)

// Bounds on what a server may do.
const (
	maxRedirects = 10
	maxAttempts  = 5
	patience     = time.Minute // without a byte
)

func newClient() *http.Client {
	dialer := &net.Dialer{Timeout: 30 * time.Second}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSHandshakeTimeout: 30 * time.Second, ResponseHeaderTimeout: patience,
			DisableCompression: true, // what a file is compressed by is the file's own
			ForceAttemptHTTP2:  true, MaxIdleConns: 4, IdleConnTimeout: 30 * time.Second,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) >= maxRedirects {
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
				req.Header.Del("Authorization")
			}
			return nil
		},
	}
}

// unnamed is what a file is called of which nobody says a name, as BuildKit has it.
const unnamed = "__unnamed__"

// fileName makes a name of what an address or a server says; "" when it is none.
func fileName(s string) string {
	if name := path.Base(s); name != "." && name != ".." && name != "/" && len(name) < 256 && !strings.ContainsRune(name, 0) {
		return name
	}
	return ""
}

// name is what the file is called.
func (k *kept) name(from *dockerfile.Source, u *url.URL) string {
	switch {
	case from.As != "":
		return from.As
	case fileName(u.Path) != "":
		return fileName(u.Path)
	case fileName(k.Name) != "":
		return fileName(k.Name)
	}
	return unnamed
}

// findHTTP asks for what an address has, and keeps a copy. Of a known checksum nobody is asked.
func (s *Store) findHTTP(ctx context.Context, from *dockerfile.Source, c Client, tell func(Progress)) (*Found, error) {
	u, err := url.Parse(from.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fault.New(fault.Invalid, "invalid address: it is http://HOST/PATH or https://HOST/PATH")
	}
	d := &download{s: s, u: u, id: "http/" + hash(u.Scheme, u.Host, u.RequestURI()), client: c, tell: tell, want: digest.Digest(from.Checksum)}
	f := &Found{s: s, fetch: d.give}
	if d.want != "" {
		f.Name = (&kept{}).name(from, u)
		f.Key = from.Checksum
		d.name = f.Name
		return f, nil
	}
	// The copy may be replaced before it is fetched: f has it from now on.
	if err := f.own(); err != nil {
		return nil, err
	}
	k, err := d.bring(ctx, f, func(k *kept) string { return k.name(from, u) })
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	f.Name = d.name
	f.Key = k.Digest + " " + k.LastModified
	return f, nil
}

// download is one on its way.
type download struct {
	s      *Store
	u      *url.URL
	id     string
	client Client
	tell   func(Progress)
	want   digest.Digest // "": whatever there is
	name   string
}

// give is Found.fetch.
func (d *download) give(ctx context.Context, f *Found) (err error) {
	if d.want != "" {
		if _, err := d.bring(ctx, f, func(*kept) string { return d.name }); err != nil {
			return err
		}
	}
	f.top, err = os.Open(f.dir)
	return err
}

// bring gets the copy up to date, and puts it into f's directory.
func (d *download) bring(ctx context.Context, f *Found, name func(*kept) string) (*kept, error) {
	unlock, err := d.s.lock(ctx, d.id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	k := d.load()
	if k == nil || d.want == "" || d.want.String() != k.Digest {
		if k, err = d.update(ctx, k); err != nil {
			return nil, err
		}
	}
	if err := d.check(k); err != nil {
		return nil, err
	}
	k.use()
	if err := record.Put(d.path("record.json"), k); err != nil {
		return nil, err
	}
	d.name = name(k)
	return k, os.Link(d.path(k.Content), filepath.Join(f.dir, d.name))
}

func (d *download) path(name string) string { return filepath.Join(d.s.dir, d.id, name) }

// load gives the kept copy, or nil.
func (d *download) load() *kept {
	k := &kept{}
	if record.Load(d.path("record.json"), k) != nil {
		return nil
	}
	if info, err := os.Lstat(d.path(k.Content)); err != nil || !info.Mode().IsRegular() || info.Size() != k.Size {
		return nil
	}
	return k
}

// check compares a copy with the checksum that is wanted.
func (d *download) check(k *kept) error {
	if d.want == "" || d.want.String() == k.Digest {
		return nil
	}
	got := digest.Digest(k.Digest)
	if a := d.want.Algorithm(); a != got.Algorithm() {
		f, err := os.Open(d.path(k.Content))
		if err != nil {
			return err
		}
		defer f.Close()
		if got, err = a.FromReader(f); err != nil || got == d.want {
			return err
		}
	}
	return fault.New(fault.Invalid, "digest mismatch for %s: %s (expected: %s)", d.u.Redacted(), got, d.want)
}

// update asks the server, and gives what is kept then.
func (d *download) update(ctx context.Context, old *kept) (*kept, error) {
	if err := os.MkdirAll(d.path("."), 0o700); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(d.path("."), "content-")
	if err != nil {
		return nil, err
	}
	k, err := d.receive(ctx, file, old)
	err = errors.Join(err, file.Close())
	if err == nil && k != old {
		k.Content = filepath.Base(file.Name())
		err = d.finish(file.Name(), k)
	}
	if err != nil || k == old {
		err = errors.Join(err, os.Remove(file.Name()))
	}
	if err != nil {
		return nil, err
	}
	if k == old {
		return k, nil
	}
	if err := record.Save(d.path("record.json"), k); err != nil {
		return nil, err
	}
	d.sweep(k.Content)
	return k, nil
}

// sweep removes what lies beside the copy that counts.
func (d *download) sweep(current string) {
	names, err := filepath.Glob(d.path("content-*"))
	for _, name := range names {
		if filepath.Base(name) != current {
			err = errors.Join(err, os.Remove(name))
		}
	}
	if err != nil {
		d.s.log.Warn("an old copy stays", "address", d.u.Redacted(), "error", err)
	}
}

// finish gives the file the time that the server says.
func (d *download) finish(file string, k *kept) error {
	at := time.Unix(0, 0)
	if t, err := http.ParseTime(k.LastModified); err == nil {
		at = t
	}
	return os.Chtimes(file, at, at)
}

// broken is an error after which the rest can be asked for.
type broken struct{ error }

func (b broken) Unwrap() error { return b.error }

// receive writes what the server has to file, or gives old when that is still it. What breaks is gone on with.
func (d *download) receive(ctx context.Context, file *os.File, old *kept) (*kept, error) {
	r := &receiving{download: d, file: file, old: old, k: &kept{From: d.u.Redacted()}}
	if err := r.authorize(ctx); err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		err := r.once(ctx)
		var b broken
		if err == nil || attempt == maxAttempts || !errors.As(err, &b) || ctx.Err() != nil {
			if err == nil && r.k != old {
				r.k.Digest, r.k.Size = "sha256:"+fmt.Sprintf("%x", r.hash.Sum(nil)), r.at
				err = file.Sync()
			}
			d.tell(Progress{Part: "fetch " + d.u.Redacted(), Current: r.at, Total: r.total, Done: true})
			return r.k, err
		}
		d.s.log.Info("a download broke off and goes on", "address", d.u.Redacted(), "at", r.at, "error", err)
		select {
		case <-time.After(100 * time.Millisecond << attempt):
		case <-ctx.Done():
		}
	}
}

// receiving is a file that comes.
type receiving struct {
	*download
	file   *os.File
	old, k *kept
	secret string // the header Authorization
	hash   interface {
		io.Writer
		Sum([]byte) []byte
	}
	at, total int64
	told      time.Time
}

// authorize asks the client for what the server may want.
func (r *receiving) authorize(ctx context.Context) error {
	if p, ok := r.u.User.Password(); ok {
		r.secret = "Basic " + base64.StdEncoding.EncodeToString([]byte(r.u.User.Username()+":"+p))
	}
	for _, s := range []struct{ id, prefix string }{{"HTTP_AUTH_TOKEN_", "Bearer "}, {"HTTP_AUTH_HEADER_", ""}} {
		text, err := r.client.Secret(ctx, s.id+r.u.Hostname())
		if errors.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		r.secret = s.prefix + strings.TrimSpace(string(text))
		return nil
	}
	return nil
}

// once makes one request.
func (r *receiving) once(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	bare := *r.u
	bare.User, bare.Fragment = nil, ""
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, bare.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "berth")
	if r.secret != "" {
		req.Header.Set("Authorization", r.secret)
	}
	resume := r.at > 0 && (r.k.ETag != "" && !strings.HasPrefix(r.k.ETag, "W/") || r.k.LastModified != "")
	switch {
	case resume:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", r.at))
		if req.Header.Set("If-Range", r.k.LastModified); r.k.ETag != "" && !strings.HasPrefix(r.k.ETag, "W/") {
			req.Header.Set("If-Range", r.k.ETag)
		}
	case r.old != nil:
		if r.old.ETag != "" {
			req.Header.Set("If-None-Match", r.old.ETag)
		}
		if r.old.LastModified != "" {
			req.Header.Set("If-Modified-Since", r.old.LastModified)
		}
	}
	res, err := r.s.http.Do(req)
	if err != nil {
		err = fault.New(fault.Unavailable, "fetch %s: %w", r.u.Redacted(), bareError(err))
		if r.at > 0 {
			return broken{err}
		}
		return err
	}
	defer res.Body.Close()
	if err := r.answer(res, resume); err != nil || r.k == r.old {
		return err
	}
	return r.body(res.Body, cancel)
}

// bareError leaves out the address, which is told anyway, and may have a password.
func bareError(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// answer looks at what the server says before the content.
func (r *receiving) answer(res *http.Response, resume bool) error {
	switch code := res.StatusCode; {
	case code == http.StatusNotModified && r.old != nil && !resume:
		r.k = r.old
		return nil
	case code == http.StatusPartialContent && resume && strings.HasPrefix(res.Header.Get("Content-Range"), "bytes "+strconv.FormatInt(r.at, 10)+"-"):
		return nil
	case code == http.StatusOK:
		r.at, r.total, r.hash = 0, max(res.ContentLength, 0), sha256.New()
		r.k.ETag, r.k.LastModified = res.Header.Get("ETag"), res.Header.Get("Last-Modified")
		if _, params, err := mime.ParseMediaType(res.Header.Get("Content-Disposition")); err == nil {
			r.k.Name = params["filename"]
		}
		if r.total > r.s.Limit {
			return r.tooBig()
		}
		return errors.Join(r.file.Truncate(0), seekStart(r.file))
	case code >= 500 || code == http.StatusTooManyRequests || resume:
		return broken{r.refused(res)}
	}
	return r.refused(res)
}

func seekStart(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

func (r *receiving) refused(res *http.Response) error {
	kind, hint := fault.Unavailable, ""
	switch res.StatusCode {
	case http.StatusNotFound, http.StatusGone:
		kind = fault.NotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		kind, hint = fault.Denied, ": a secret HTTP_AUTH_TOKEN_"+r.u.Hostname()+" would be sent there"
	}
	return fault.New(kind, "failed to GET %s with status %s%s", r.u.Redacted(), res.Status, hint)
}

func (r *receiving) tooBig() error {
	return fault.New(fault.Denied, "fetch %s: it has more than %d bytes", r.u.Redacted(), r.s.Limit)
}

// body takes the content. A server that says nothing for long is hung up on.
func (r *receiving) body(from io.Reader, cancel context.CancelCauseFunc) error {
	stalled := time.AfterFunc(patience, func() { cancel(errors.New("the server sends nothing any more")) })
	defer stalled.Stop()
	buf := make([]byte, 256<<10)
	for {
		n, err := from.Read(buf)
		stalled.Reset(patience)
		if r.at += int64(n); r.at > r.s.Limit {
			return r.tooBig()
		}
		r.hash.Write(buf[:n])
		if _, err := r.file.Write(buf[:n]); err != nil {
			return fmt.Errorf("keep what %s gave: %w", r.u.Redacted(), err)
		}
		if now := time.Now(); now.Sub(r.told) > 100*time.Millisecond {
			r.told = now
			r.tell(Progress{Part: "fetch " + r.u.Redacted(), Current: r.at, Total: r.total})
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return broken{fault.New(fault.Unavailable, "fetch %s: %w", r.u.Redacted(), err)}
		}
	}
}
