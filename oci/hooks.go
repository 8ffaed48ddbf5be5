package oci

import (
	"bytes"
	"context"
	"encoding/json"
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
