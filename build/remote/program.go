package remote

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"berth/fault"
)

// user is whom git runs as: what a hostile repository makes of it has no power over the machine's files.
type user struct{ uid, gid int }

// nobody is the user that owns nothing, and its group, by custom.
const nobody = 65534

// Capabilities, by number (capabilities(7)).
const (
	capChown  = 0
	capSetgid = 6
	capSetuid = 7
)

// gitUser is nobody where the daemon can start programs as others, and others can reach dir.
func gitUser(dir string) *user {
	for p := filepath.Clean(dir); ; p = filepath.Dir(p) {
		if info, err := os.Stat(p); err != nil || info.Mode()&0o001 == 0 {
			return nil
		}
		if p == "/" || p == "." {
			break
		}
	}
	text, err := os.ReadFile("/proc/self/status")
	if err != nil || os.Geteuid() != 0 {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		hex, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		have, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		const wanted = 1<<capChown | 1<<capSetgid | 1<<capSetuid
		if err == nil && have&wanted == wanted {
			return &user{nobody, nobody}
		}
	}
	return nil
}

// git is how the program git is called, for one repository.
type git struct {
	s      *Store
	remote string   // its address, without user and password
	home   string   // a directory of the call's own
	agent  string   // the socket of an ssh agent
	known  string   // where hosts' keys are remembered
	config []string // name, value, name, value …: what may not be on a command line
	tell   func(Progress)
}

// settings are those of every call: nothing of the machine's and the users' configuration counts, and nothing of what a repository brings is run.
var settings = []string{
	"core.hooksPath", "/dev/null", "core.fsmonitor", "false", "core.autocrlf", "false", "core.logAllRefUpdates", "false", "core.protectNTFS", "true", "core.protectHFS", "true",
	"gc.auto", "0", "maintenance.auto", "false", "credential.helper", "", "advice.detachedHead", "false", "init.defaultBranch", "master",
	"fetch.recurseSubmodules", "false", "submodule.recurse", "false", "http.lowSpeedLimit", "1", "http.lowSpeedTime", "60", "protocol.version", "2",
}

// environment is all that git and its children have of one.
func (g *git) environment() []string {
	ssh := "ssh -F /dev/null -o BatchMode=yes -o IdentityFile=none -o StrictHostKeyChecking=accept-new -o ConnectTimeout=30 -o ServerAliveInterval=20 -o ServerAliveCountMax=3"
	if g.known != "" {
		ssh += " -o " + quoted(`UserKnownHostsFile="`+g.known+`"`)
	}
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + g.home, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "SSH_ASKPASS=", "GIT_ALLOW_PROTOCOL=http:https:ssh:git", "GIT_PROTOCOL_FROM_USER=0",
		"GIT_NO_REPLACE_OBJECTS=1", "GIT_SSH_VARIANT=ssh", "GIT_SSH_COMMAND=" + ssh,
	}
	if g.agent != "" {
		env = append(env, "SSH_AUTH_SOCK="+g.agent)
	}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	all := append(append([]string{}, settings...), g.config...)
	env = append(env, "GIT_CONFIG_COUNT="+strconv.Itoa(len(all)/2))
	for k := 0; k < len(all); k += 2 {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", k/2, all[k]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", k/2, all[k+1]))
	}
	return env
}

// quoted is a word as a shell takes it.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Bounds on what git may say, in bytes.
const (
	maxOutput   = 64 << 20
	maxComplain = 16 << 10
)

// bounded is a buffer that takes no more than so much: more is an error, or is forgotten.
type bounded struct {
	bytes.Buffer
	limit  int
	forget bool
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) <= b.limit {
		return b.Buffer.Write(p)
	}
	if !b.forget {
		return 0, fault.New(fault.Denied, "git says more than %d bytes", b.limit)
	}
	keep := append(append([]byte{}, b.Bytes()...), p...)
	keep = keep[max(len(keep)-b.limit/2, 0):]
	b.Reset()
	b.Buffer.Write(keep)
	return len(p), nil
}

// failure is git's own.
type failure struct {
	words string // of it
	error
}

// run runs git in dir. It is the first process of a namespace of its own: whoever ends it, or dies as its parent, ends all that it started.
func (g *git) run(ctx context.Context, dir string, extra []string, args ...string) ([]byte, error) {
	out := &bounded{limit: maxOutput}
	err := g.runTo(ctx, out, dir, extra, args...)
	return out.Bytes(), err
}

// runTo is run with the output going to a writer, whose error ends git and comes back.
func (g *git) runTo(ctx context.Context, out io.Writer, dir string, extra []string, args ...string) error {
	program, err := exec.LookPath("git")
	if err != nil {
		return fault.New(fault.Unsupported, "what lies in git repositories is fetched by the program git, which is not here: install the package git")
	}
	running, end := context.WithCancelCause(ctx)
	defer end(nil)
	cmd := exec.CommandContext(running, program, args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, append(g.environment(), extra...), 10*time.Second
	said := &bounded{limit: maxComplain, forget: true}
	cmd.Stdout, cmd.Stderr = &ending{out, end}, said
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL, Setsid: true}
		if u := g.s.user; u != nil {
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.gid)}
		}
	}
	runtime.LockOSThread() // the signal of a parent's death is that of its thread's
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return fault.Wrap(fault.Canceled, context.Cause(ctx))
		}
		if running.Err() != nil {
			return fmt.Errorf("git %s %s: %w", args[0], g.remote, context.Cause(running))
		}
		words := complaint(said.String())
		if words == "" {
			words = err.Error()
		}
		return &failure{words, fault.New(fault.Unavailable, "git %s %s: %s", args[0], g.remote, words)}
	}
	return nil
}

// ending is a writer whose error ends the program that writes, which may not notice it.
type ending struct {
	w   io.Writer
	end context.CancelCauseFunc
}

// Write implements io.Writer.
func (e *ending) Write(p []byte) (int, error) {
	n, err := e.w.Write(p)
	if err != nil {
		e.end(err)
	}
	return n, err
}

// complaint is what is worth repeating of git's last words.
func complaint(s string) string {
	var all []string
	for line := range strings.SplitSeq(s, "\n") {
		if k := strings.LastIndex(line, "\r"); k >= 0 {
			line = line[k+1:]
		}
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "hint:") {
			all = append(all, line)
		}
	}
	return strings.ToValidUTF8(strings.Join(all[max(len(all)-4, 0):], "; "), "\uFFFD")
}

// give lets git's user have what is at path.
func (s *Store) give(path string) error {
	if s.user == nil {
		return nil
	}
	return os.Chown(path, s.user.uid, s.user.gid)
}
