package build

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// agent is an ssh agent of this build's own, which has keys that are files.
type agent struct {
	dir   string // of its socket
	life  io.Closer
	child *exec.Cmd
}

// holdKeys adds keys to the agent that it runs under, says so, and ends that agent when its input ends: also when who started it is killed.
const holdKeys = `trap 'kill "$SSH_AGENT_PID"' EXIT
trap 'exit 1' INT TERM HUP
ssh-add -q -- "$@" </dev/null || exit 1
echo added
cat`

// keys makes the agent id of key files. A passphrase is asked for on the terminal.
func (g *given) keys(ctx context.Context, id string, files []string) (err error) {
	for _, f := range files {
		key, err := os.Open(f)
		if err != nil {
			return err
		}
		if err := key.Close(); err != nil {
			return err
		}
	}
	a := &agent{}
	if a.dir, err = os.MkdirTemp("", "berth-ssh-"); err != nil {
		return err
	}
	g.ours = append(g.ours, a)
	g.agents[id] = filepath.Join(a.dir, "agent")
	a.child = exec.CommandContext(ctx, "ssh-agent", append([]string{"-a", g.agents[id], "sh", "-c", holdKeys, "sh"}, files...)...)
	var wrong bytes.Buffer
	a.child.Stderr = &wrong
	if a.life, err = a.child.StdinPipe(); err != nil {
		return err
	}
	out, err := a.child.StdoutPipe()
	if err != nil {
		return err
	}
	if err := a.child.Start(); err != nil {
		a.child = nil
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("keys are given through ssh-agent, which is not installed (Debian's package openssh-client): %w", err)
		}
		return err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		waitErr := a.child.Wait()
		a.child = nil
		return fmt.Errorf("add the key to an agent: %s (%w)", strings.TrimSpace(wrong.String()), waitErr)
	}
	return nil
}

// close ends the build's own agents.
func (g *given) close() (err error) {
	for _, a := range g.ours {
		if a.child != nil {
			err = errors.Join(err, a.life.Close())
			if waitErr := a.child.Wait(); waitErr != nil && a.child.ProcessState == nil {
				err = errors.Join(err, waitErr)
			}
		}
		err = errors.Join(err, os.RemoveAll(a.dir))
	}
	g.ours = nil
	return err
}
