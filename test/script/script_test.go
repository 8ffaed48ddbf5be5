// Package script runs the scenarios of testdata: shell transcripts as users
// type them, against a daemon of their own. It tests what users see and nothing below it.
package script

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/internal/kerneltest"
	"berth/test/testengine"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// TestScenarios types every scenario into our own client.
func TestScenarios(t *testing.T) { scenarios(t, client{name: "berth"}, all(t)) }

// TestScenariosByDocker types the scenarios whose first line says "# also: docker" into the docker client that is installed.
func TestScenariosByDocker(t *testing.T) {
	path, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("the docker client is not installed")
	}
	scenarios(t, client{name: "docker", path: path}, also(t, "docker"))
}

// TestScenariosByOldDocker does so with Debian's docker.io, years older, for "# also: docker docker.io". It is part of the soak.
func TestScenariosByOldDocker(t *testing.T) {
	if os.Getenv("BERTH_SOAK") == "" {
		t.Skip("part of the long tests: BERTH_SOAK=1")
	}
	scenarios(t, client{name: "docker.io", path: testengine.OldDocker(t)}, also(t, "docker.io"))
}

// client is the program that scenarios call berth, and the storage driver of the daemon that it speaks to ("" for the daemon's own choice) and where
// that has its data ("" for anywhere).
type client struct{ name, path, driver, top string }

func (c client) flags() []string {
	if c.driver == "" {
		return nil
	}
	return []string{"--storage-driver", c.driver}
}

func all(t *testing.T) []string {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	return files
}

// also lists the scenarios whose first line says that client understands them.
func also(t *testing.T, client string) []string {
	var files []string
	for _, f := range all(t) {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		if clients, ok := strings.CutPrefix(first, "# also:"); ok && slices.Contains(strings.Fields(clients), client) {
			files = append(files, f)
		}
	}
	return files
}

// stuck is how long a scenario may take. Then its daemon is ended, so that whatever waits for it fails: the scenario says where, the daemon's log why.
const stuck = 5 * time.Minute

func scenarios(t *testing.T, c client, files []string) {
	kerneltest.Root(t)
	tar := testengine.BusyboxTar(t)
	top := t.TempDir() // testscript's own stays for each scenario that -run leaves out
	for _, file := range files {
		testscript.RunT(sequential{t}, testscript.Params{
			Files:               []string{file},
			WorkdirRoot:         top,
			RequireExplicitExec: true,
			RequireUniqueNames:  true,
			UpdateScripts:       os.Getenv("UPDATE") != "",
			Setup:               func(env *testscript.Env) error { return setup(env, c, tar) },
			Condition:           c.condition,
			Cmds: map[string]func(*testscript.TestScript, bool, []string){
				"daemon":   daemon,
				"busybox":  busybox,
				"until":    until,
				"setvar":   setvar,
				"internet": internet,
				"asked":    asked,
				"registry": registry,

				"volumeplugin": volumeplugin,
			},
		})
	}
}

func setup(env *testscript.Env, c client, tar string) error {
	env.Defer(func() {
		if err := os.RemoveAll(env.WorkDir); err != nil {
			env.T().(sequential).Errorf("remove the scenario's files: %v", err)
		}
	})
	e := testengine.New(env.T().(sequential).T, c.flags()...)
	if c.top != "" {
		e.Data = filepath.Join(c.top, filepath.Base(e.Exec))
	}
	e.Up(env.T().(sequential).T)
	env.Values["flags"] = c.flags()
	env.Values["engine"] = e
	env.Values["registries"] = registries{}
	limit := stuck
	if c.driver != "" { // some copy every file for each container
		limit *= 2
	}
	end := time.AfterFunc(limit, func() { e.Break(fmt.Sprintf("the scenario takes longer than %v", limit)) })
	env.Defer(func() { end.Stop() })
	for _, v := range e.Environ() {
		key, value, _ := strings.Cut(v, "=")
		switch key {
		case "DOCKER_HOST", "BERTH_AUTOSTART", "PATH", "DOCKER_CONFIG":
			env.Setenv(key, value)
		}
	}
	tools, err := tools(env.WorkDir)
	if err != nil {
		return err
	}
	path := env.Getenv("PATH") + ":" + tools
	if c.path != "" {
		clients := filepath.Join(env.WorkDir, ".client")
		if err := os.Mkdir(clients, 0o755); err != nil {
			return err
		}
		if err := os.Symlink(c.path, filepath.Join(clients, "berth")); err != nil {
			return err
		}
		path = clients + ":" + path
	}
	env.Setenv("PATH", path)
	env.Setenv("BUSYBOX_TAR", tar)
	env.Setenv("SOCKET", e.Socket)
	env.Setenv("PARENT", kerneltest.CgroupParent()) // a cgroup that the test takes away
	env.Setenv("DEBIAN_TAR", filepath.Join(testengine.Cache(), "debian.tar"))
	return nil
}

// tools gives scripts the small network tools that a fresh Debian lacks.
func tools(work string) (string, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(work, ".tools")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	for _, name := range []string{"wget", "nc", "bzip2", "xz"} {
		if err := os.Symlink(busybox, filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// sequential lets testscript run its scripts one after the other: they share one network namespace.
type sequential struct{ *testing.T }

func (s sequential) Parallel() {}
func (s sequential) Run(name string, f func(testscript.T)) {
	s.T.Run(name, func(t *testing.T) { f(sequential{t}) })
}
func (s sequential) Verbose() bool { return testing.Verbose() }

// condition knows [docker], when the client is not our own, [old], when it is years older, and [debian], when there is a Debian root file system.
func (c client) condition(name string) (bool, error) {
	switch name {
	case "docker":
		return c.path != "", nil
	case "old":
		return c.name == "docker.io", nil
	case "v1", "v2": // of cgroups
		_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
		return (err == nil) == (name == "v2"), nil
	case "debian":
		_, err := os.Stat(filepath.Join(testengine.Cache(), "debian.tar"))
		return err == nil, nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

func engine(ts *testscript.TestScript) *testengine.Engine {
	return ts.Value("engine").(*testengine.Engine)
}

// daemon kill|start|stop ends and starts the script's daemon.
func daemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 || len(args) > 1 && args[0] != "start" {
		ts.Fatalf("usage: daemon kill|stop|start [FLAG...]")
	}
	e := engine(ts)
	switch args[0] {
	case "kill":
		e.Kill()
	case "stop":
		e.Down()
	case "start":
		e.Args = append(slices.Clone(ts.Value("flags").([]string)), args[1:]...)
		e.Up(ts)
	default:
		ts.Fatalf("daemon %s: unknown", args[0])
	}
}

// busybox imports the busybox image.
func busybox(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(ts.Exec("berth", "import", "-c", `CMD ["sh"]`, ts.Getenv("BUSYBOX_TAR"), "busybox:latest"))
}

// until repeats a command until it succeeds (with !: fails), for at most 20 seconds.
func until(ts *testscript.TestScript, neg bool, args []string) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := ts.Exec(args[0], args[1:]...)
		if (err == nil) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("until %v: %v", args, err)
		}
		exec.Command("sleep", "0.05").Run()
	}
}

// setvar NAME COMMAND… sets a variable to a command's trimmed output, as NAME=$(COMMAND) does.
func setvar(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: setvar NAME COMMAND...")
	}
	ts.Check(ts.Exec(args[1], args[2:]...))
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}
