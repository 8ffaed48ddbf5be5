package buildkit

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"berth/build"
	"berth/fault"

	control "github.com/moby/buildkit/api/services/control"
	"google.golang.org/protobuf/proto"
)

// Direct is a build by POST /build?version=2, as clients ask for it that have no client of BuildKit's own.
type Direct struct {
	Query url.Values
	Args  map[string]*string
	Label map[string]string
	// Tell takes a message for the client: its kind and what it says.
	Tell func(id string, aux any) error
}

// uploads are the contexts that clients send beside their builds, by the builds' names.
type uploads struct {
	mu      sync.Mutex
	waiting map[string]chan *upload
}

type upload struct {
	body io.Reader
	done chan error
}

// of gives where the context of a build is handed over.
func (u *uploads) of(id string) chan *upload {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.waiting == nil {
		u.waiting = map[string]chan *upload{}
	}
	if u.waiting[id] == nil {
		u.waiting[id] = make(chan *upload)
	}
	return u.waiting[id]
}

func (u *uploads) forget(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.waiting, id)
}

// Upload hands a context over to the build that waits for it, and returns when it was read.
func (s *Server) Upload(ctx context.Context, id string, body io.Reader) error {
	ctx, cancel := context.WithTimeout(ctx, sessionPatience)
	defer cancel()
	up := &upload{body: body, done: make(chan error, 1)}
	select {
	case s.uploads.of(id) <- up:
		return <-up.done
	case <-ctx.Done():
		s.uploads.forget(id)
		return fault.New(fault.NotFound, "no build %s waits for a context", id)
	}
}

// Build builds, tells the client as it goes, and gives the image's ID; "" when none was asked for.
func (s *Server) Build(ctx context.Context, d Direct) (string, error) {
	q := d.Query
	r := &control.SolveRequest{Ref: rand.Text(), Session: q.Get("session"), Frontend: dockerfileFrontend, FrontendAttrs: d.attributes()}
	var err error
	if r.Exporters, err = d.exporters(); err != nil {
		return "", err
	}
	id := q.Get("buildid")
	if id != "" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		s.cancels.Store(id, cancel)
		defer s.cancels.Delete(id)
	}
	r.Entitlements = entitlements(q)
	heard := make(chan error, 1)
	waiting, begun := context.WithCancel(ctx)
	go func() {
		j, err := s.jobs.get(waiting, r.Ref)
		if err == nil {
			err = j.hear(context.WithoutCancel(ctx), func(st *control.StatusResponse) error {
				text, err := proto.Marshal(st)
				if err != nil {
					return err
				}
				return d.Tell("moby.buildkit.trace", text)
			})
		}
		heard <- err
	}()
	response, err := s.solve(ctx, r)
	begun() // or refused: then there is nothing to hear
	if telling := <-heard; err == nil {
		err = telling
	}
	if err != nil {
		return "", err
	}
	image := response["containerimage.digest"]
	if image != "" {
		err = d.Tell("moby.image.id", map[string]string{"ID": image})
	}
	return image, err
}

// Cancel ends the build that a client named; one that has ended is nobody's trouble.
func (s *Server) Cancel(id string) {
	if cancel, ok := s.cancels.Load(id); ok {
		cancel.(context.CancelFunc)()
	}
}

func entitlements(q url.Values) []string {
	if q.Get("networkmode") == "host" {
		return []string{"network.host"}
	}
	return nil
}

// attributes are the query as the frontend has it.
func (d Direct) attributes() map[string]string {
	q := d.Query
	attrs := map[string]string{"image-resolve-mode": "default"}
	for name, key := range map[string]string{"dockerfile": "filename", "target": "target", "platform": "platform", "cgroupparent": "cgroup-parent",
		"memory": "memory", "memswap": "memswap", "cpushares": "cpushares", "cpuperiod": "cpuperiod", "cpuquota": "cpuquota", "cpusetcpus": "cpusetcpus", "cpusetmems": "cpusetmems"} {
		if v := q.Get(name); v != "" && v != "0" {
			attrs[key] = v
		}
	}
	if v := q.Get("shmsize"); v != "" && v != "0" {
		attrs["shm-size"] = v
	}
	switch remote := q.Get("remote"); {
	case remote == "client-session" || remote == "":
	case remote == uploadRequest:
		attrs["context"] = uploadContext + q.Get("buildid")
	default:
		attrs["context"] = remote
	}
	for k, v := range d.Args {
		if v != nil {
			attrs["build-arg:"+k] = *v
		}
	}
	for k, v := range d.Label {
		attrs["label:"+k] = v
	}
	if on(q, "nocache") {
		attrs["no-cache"] = ""
	}
	if on(q, "pull") {
		attrs["image-resolve-mode"] = "pull"
	}
	if n := q.Get("networkmode"); n == "host" || n == "none" {
		attrs["force-network-mode"] = n
	}
	var hosts []string
	for _, h := range q["extrahosts"] {
		hosts = append(hosts, strings.Replace(h, ":", "=", 1))
	}
	attrs["add-hosts"] = strings.Join(hosts, ",")
	var from []string
	if json.Unmarshal([]byte(q.Get("cachefrom")), &from) == nil {
		attrs["cache-from"] = strings.Join(from, ",")
	}
	return attrs
}

// Contexts that are sent by a request of their own.
const (
	uploadRequest = "upload-request"
	uploadContext = "http://buildkit-upload/"
)

func on(q url.Values, name string) bool {
	v, err := strconv.ParseBool(q.Get(name))
	return err == nil && v
}

// exporters are what the query wants: the image with its names when it says nothing.
func (d Direct) exporters() ([]*control.Exporter, error) {
	var wanted []struct {
		Type  string
		Attrs map[string]string
	}
	if text := d.Query.Get("outputs"); text != "" {
		if err := json.Unmarshal([]byte(text), &wanted); err != nil {
			return nil, fault.New(fault.Invalid, "outputs: %w", err)
		}
	}
	if len(wanted) > 1 {
		return nil, fault.New(fault.Invalid, "multiple outputs not supported")
	}
	one := &control.Exporter{Type: "moby", Attrs: map[string]string{}}
	if len(wanted) == 1 {
		one.Type = wanted[0].Type
		for k, v := range wanted[0].Attrs {
			one.Attrs[k] = v
		}
		if one.Type == "cacheonly" {
			return nil, nil
		}
	}
	if names := d.Query["t"]; len(names) > 0 && (one.Type == "moby" || one.Type == "image") {
		one.Attrs["name"] = strings.Join(names, ",")
	}
	return []*control.Exporter{one}, nil
}

// uploaded brings a context that the client sends by a request of its own.
func (a *asker) uploaded(ctx context.Context, id string) (files *build.Files, err error) {
	defer a.uploads.forget(id)
	wait, cancel := context.WithTimeout(ctx, sessionPatience)
	defer cancel()
	select {
	case up := <-a.uploads.of(id):
		dir, err := a.Builds.Unpack(ctx, up.body)
		if err == nil {
			files = a.dirs.whole(dir)
		}
		up.done <- err
		return files, err
	case <-wait.Done():
		return nil, errors.Join(fault.New(fault.Unavailable, "the client has not sent the build context"), ctx.Err())
	}
}
