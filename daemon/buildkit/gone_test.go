package buildkit

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"berth/engine/builds"
	"berth/fault"

	control "github.com/moby/buildkit/api/services/control"
	"github.com/opencontainers/go-digest"
)

// TestGivingUpTwiceEnds gives a tree up as an export does whose client goes: once as its context ends, and once more as writing fails.
func TestGivingUpTwiceEnds(t *testing.T) {
	a := &asker{Server: &Server{Builds: &builds.Service{Dir: t.TempDir()}}}
	w, err := a.spool(t.Context(), output{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	gone := errors.New("the client is gone")
	if err := w.(*spooled).PipeWriter.CloseWithError(gone); err != nil { // who comes first counts
		t.Fatal(err)
	}
	for range 2 {
		go func() { ended <- w.(*spooled).CloseWithError(gone) }()
	}
	go func() { ended <- w.Close() }()
	for range 3 {
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatal("an output that was given up never ends")
		}
	}
}

// TestRefusedBuildsEndAtOnce asks for a build without a session, of which nobody will tell anything.
func TestRefusedBuildsEndAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		_, err := (&Server{}).Build(t.Context(), Direct{Query: url.Values{}, Tell: func(string, any) error { return nil }})
		if !errors.Is(err, fault.Invalid) {
			t.Error(err)
		}
		if waited := time.Since(begun); waited != 0 { // of the bubble's clock, which stands still while anybody works
			t.Errorf("waited %s for a build that never began", waited)
		}
	})
}

// TestCachesOfNothing has the absurd in place of caches.
func TestCachesOfNothing(t *testing.T) {
	from, to, err := readCaches(&control.SolveRequest{Cache: &control.CacheOptions{Exports: []*control.CacheOptionsEntry{nil}}}, map[string]string{"cache-imports": "[null]"})
	if err != nil || len(from) != 1 || len(to) != 1 || from[0].Type != "" {
		t.Error(from, to, err)
	}
	_, err = (&builds.Service{}).Solve(context.Background(), builds.Options{CacheFrom: from}, nil, builds.Teller{})
	if !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

// TestLayoutsEnd has an image below more indexes than anybody writes, of which each costs the daemon a part of its stack.
func TestLayoutsEnd(t *testing.T) {
	var text bytes.Buffer
	c := &copying{tar: tar.NewWriter(&text), seen: map[digest.Digest]bool{}}
	if err := c.graph(digest.FromString("x"), []byte(`{}`), maxNested); err != nil {
		t.Error(err)
	}
	if err := c.graph(digest.FromString("y"), []byte(`{}`), maxNested+1); !errors.Is(err, fault.Unsupported) {
		t.Error(err)
	}
}
