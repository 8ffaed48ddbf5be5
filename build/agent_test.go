package build

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"berth/build/dockerfile"
	"berth/internal/kerneltest"
)

// silent is a client that says it has an agent, and then never opens a connection to it.
type silent struct {
	Client
	asked chan struct{}
	first bool
}

// Agent implements Client.
func (s *silent) Agent(ctx context.Context, _ string) (io.ReadWriteCloser, error) {
	if s.first {
		s.first = false
		here, there := net.Pipe()
		there.Close()
		return here, nil
	}
	close(s.asked)
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestProgramsEndThoughAnAgentNeverAnswers has a program that asked an agent, and ended before there was an answer.
func TestProgramsEndThoughAnAgentNeverAnswers(t *testing.T) {
	kerneltest.Root(t)
	dir, c := t.TempDir(), &silent{asked: make(chan struct{}), first: true}
	m := &mounting{doing: &doing{building: &building{Builder: &Builder{Dir: dir, Log: slog.New(slog.DiscardHandler)}, Request: Request{Client: c}}}}
	if err := m.agent(t.Context(), &dockerfile.Mount{ID: "default", Target: "/agent"}); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*", socketName))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	program, err := net.Dial("unix", found[0])
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	<-c.asked
	ended := make(chan error, 1)
	go func() { ended <- m.end() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the step waits for an agent that never answers")
	}
}
