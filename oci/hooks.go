package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func hooksOf(s *specs.Spec) specs.Hooks {
	if s.Hooks == nil {
		return specs.Hooks{}
	}
	return *s.Hooks
}

// prestart are the hooks that createRuntime's replaced; bundles still have them.
func prestart(h specs.Hooks) []specs.Hook {
	return h.Prestart //lint:ignore SA1019 deprecated, not gone
}

// HasHooks tells whether the bundle wants programs of the caller's run.
func (b *Bundle) HasHooks() bool {
	if b.Spec == nil {
		return false
	}
	h := hooksOf(b.Spec)
	return len(prestart(h))+len(h.CreateRuntime)+len(h.CreateContainer)+len(h.StartContainer)+len(h.Poststart)+len(h.Poststop) > 0
}

// Poststop runs the hooks that come after a container's end, all of them, whatever becomes of one.
func (b *Bundle) Poststop() error {
	var errs []error
	for _, h := range hooksOf(b.Spec).Poststop {
		errs = append(errs, b.runHooks([]specs.Hook{h}, 0, specs.StateStopped))
	}
	return errors.Join(errs...)
}

// runHooks runs programs of the caller's, in order, on the calling thread's namespaces; each gets the
// container's state on its stdin (runtime-spec, "POSIX-platform Hooks").
func (b *builder) runHooks(list []specs.Hook, pid int, status specs.ContainerState) error {
	return b.bundle.runHooks(list, pid, status)
}

func (b *Bundle) runHooks(list []specs.Hook, pid int, status specs.ContainerState) error {
	if len(list) == 0 {
		return nil
	}
	state, err := json.Marshal(specs.State{
		Version: specs.Version, ID: b.ID, Status: status, Pid: pid, Bundle: b.Dir, Annotations: b.Spec.Annotations,
	})
	if err != nil {
		return err
	}
	for _, h := range list {
		if err := runHook(h, state); err != nil {
			return err
		}
	}
	return nil
}

func runHook(h specs.Hook, state []byte) error {
	ctx := context.Background()
	if h.Timeout != nil {
		c, cancel := context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		defer cancel()
		ctx = c
	}
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, h.Path)
	cmd.Args, cmd.Env = args, h.Env
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	cmd.Stdin = bytes.NewReader(state)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("hook %s: %w: %s", h.Path, err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}
