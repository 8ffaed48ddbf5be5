// Package daemon listens: it serves the Docker Engine API on sockets and turns
// requests into calls of engine, results into JSON and streams.
//
// It decides nothing about containers or images. Invariant: everything that
// depends on the API version a client speaks (fields that came and went, old
// spellings) lives here and nowhere below; engine knows only the newest types.
package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"berth/daemon/buildkit"
	"berth/engine"
	"berth/engine/volumes"
)

// Config is what a server needs beside its engine.
type Config struct {
	Version string       // of the product, such as "0.1.0"
	Log     *slog.Logger // nil: nothing is logged
}

// Server serves one engine on any number of listeners.
type Server struct {
	engine *engine.Engine
	config Config
	log    *slog.Logger
	http   *http.Server
}

// New returns a server; nothing is served before Serve. The caller keeps the engine and closes it after Shutdown.
func New(e *engine.Engine, c Config) *Server {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{engine: e, config: c, log: c.Log}
	s.http = &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 5 * time.Minute,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// Handler is the whole API as one handler, for embedding and tests.
func (s *Server) Handler() http.Handler {
	e, mux := s.engine, http.NewServeMux()
	k := &buildkit.Server{Builds: e.Builds, Disk: e.Disk, Version: s.config.Version, Log: s.log}
	for _, routes := range [][]route{
		s.systemRoutes(), containers{e.Containers}.routes(), execs{e.Containers}.routes(), insight{e.Insight, e.Containers}.routes(),
		images{e.Images, s.log}.routes(), buildRoutes(e.Builds, k), registries{e.Images}.routes(), imageLayers{e.Layers, s.log}.routes(),
		networks{e.Networks, e.Containers, e.Names}.routes(), volumeRoutes{volumes.Contents{Service: e.Volumes}}.routes(), diskRoutes(e.Disk), missing(),
	} {
		for _, r := range routes {
			mux.HandleFunc(r.method+" "+r.pattern, s.adapt(r.handle))
		}
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusOK)
			return
		}
		writeMessage(w, http.StatusNotFound, "page not found")
	})
	return s.versioned(mux)
}

// Serve answers on all listeners until Shutdown, and returns the first error that was not caused by it.
func (s *Server) Serve(listeners []net.Listener) error {
	var wg sync.WaitGroup
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		wg.Go(func() {
			if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		})
	}
	wg.Wait()
	close(failed)
	return <-failed
}

// Shutdown stops listening and lets requests in flight end, until ctx is done; then they are cut.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}
