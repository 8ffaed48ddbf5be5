package builds

import (
	"context"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"

	"berth/build"
)

// Work is something that is done for a build and is no step of it, or a part of such.
type Work struct {
	Name   string // as it is shown, and one in a build: "[internal] load build context"
	Part   string // "": the work as a whole
	Bytes  int64  // of a part
	Total  int64  // 0: not known
	Cached bool
	Done   bool
	Err    error // of what is done
	Time   time.Time
}

// The names of works that all builds have.
const (
	loadDefinition = "[internal] load build definition from "
	loadIgnore     = "[internal] load .dockerignore"
	LoadContext    = "[internal] load build context"
	loadMetadata   = "[internal] load metadata for "
	// Transferring is the part of LoadContext that counts what came.
	Transferring = "transferring context:"
	// Importing is the work of reading a cache from elsewhere, which the name ends with. It is done before any step, and by itself.
	Importing = "importing cache manifest from "
	// Exporting is the work of making an image of what was built.
	Exporting = "exporting to image"
)

// Begin tells that a work begins; the result is called when it has ended.
func (t Teller) Begin(name string) (end func(error)) {
	t.work(Work{Name: name})
	return func(err error) { t.work(Work{Name: name, Done: true, Err: err}) }
}

// Part tells of a part of a work.
func (t Teller) Part(name, part string, bytes, total int64, done bool) {
	t.work(Work{Name: name, Part: part, Bytes: bytes, Total: total, Done: done})
}

func (t Teller) work(w Work) {
	if t.Work == nil {
		return
	}
	w.Time = time.Now()
	t.Work(w)
}

// read tells of texts that are there already.
func (t Teller) read(o Options) {
	name := o.Dockerfile
	if name == "" {
		name = "Dockerfile"
	}
	if t.Read != nil {
		t.Read(name, o.Text, len(o.targets()))
	}
	end := t.Begin(loadDefinition + name)
	t.Part(loadDefinition+name, "transferring dockerfile:", int64(len(o.Text)), 0, true)
	end(nil)
	end = t.Begin(loadIgnore)
	t.Part(loadIgnore, Transferring, int64(len(o.Ignore)), 0, true)
	end(nil)
}

// metadata is the work of finding a base image.
func metadata(name string) string {
	if named, err := reference.ParseNormalizedNamed(name); err == nil {
		name = reference.TagNameOnly(named).String()
	}
	return loadMetadata + name
}

// pulling tells of a pull as of parts of the work name.
func (t Teller) pulling(name string) func(jsonstream.Message) {
	return func(m jsonstream.Message) {
		if t.Pull != nil {
			t.Pull(m)
		}
		t.layers(name, m)
	}
}

// layers tells of layers that are moved as of parts of the work name.
func (t Teller) layers(name string, m jsonstream.Message) {
	if m.ID == "" || strings.HasPrefix(m.Status, "Pulling from") {
		return
	}
	w := Work{Name: name, Part: m.ID}
	if p := m.Progress; p != nil {
		w.Bytes, w.Total = p.Current, p.Total
	}
	switch m.Status {
	case "Pull complete", "Already exists", "Pushed", "Layer already exists":
		w.Done = true
	case "Extracting": // it has come, and is no more bytes than that
		w.Bytes, w.Total = 0, 0
	}
	t.work(w)
}

// watched is a client whose context is told of.
type watched struct {
	Client
	t Teller
}

// Files implements build.Client.
func (w watched) Files(ctx context.Context, name string, patterns []string) (*build.Files, error) {
	if name != "" { // the stage that begins with it is told of
		return w.Client.Files(ctx, name, patterns)
	}
	end := w.t.Begin(LoadContext)
	files, err := w.Client.Files(ctx, name, patterns)
	end(err)
	return files, err
}
