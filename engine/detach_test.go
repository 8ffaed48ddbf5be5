package engine

import (
	"context"
	"io"
	"slices"
	"testing"

	"berth/container"

	api "github.com/moby/moby/api/types/container"
)

func TestDetachingIsTold(t *testing.T) {
	w := newWorld(t)
	id := w.create(func(r *CreateRequest) { r.Config.OpenStdin, r.Config.Tty = true, true }, "cat")
	w.start(id)
	told := func(action string) {
		t.Helper()
		w.await(id, "no "+action, func(*container.Record) bool { return slices.Contains(w.actions(id), action) })
	}
	keys := []byte{16, 17}
	client := w.attach(id, AttachRequest{Stdin: true, Stream: true, DetachKeys: "ctrl-p,ctrl-q"})
	if _, err := client.Write(keys); err != nil {
		t.Fatal(err)
	}
	told("detach")
	if _, err := io.Copy(io.Discard, client); err != nil { // to its end: the connection is closed
		t.Error(err)
	}
	exec, err := w.Containers.ExecCreate(t.Context(), id, api.ExecCreateRequest{Cmd: []string{"cat"}, AttachStdin: true, AttachStdout: true, Tty: true})
	if err != nil {
		t.Fatal(err)
	}
	client, server := socketPair(t)
	if err := w.Containers.ExecStart(context.Background(), exec, ExecStartRequest{Tty: true, Attach: &AttachRequest{Conn: server, Stdin: true, Stdout: true, Stream: true, DetachKeys: "ctrl-p,ctrl-q"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write(keys); err != nil {
		t.Fatal(err)
	}
	told("exec_detach")
	if s := w.status(id); s != api.StateRunning {
		t.Errorf("%s", s)
	}
	if i, err := w.Containers.ExecInspect(exec); err != nil || !i.Running {
		t.Errorf("%+v, %v", i, err)
	}
}
