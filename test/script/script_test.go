// Package script runs the scenarios of testdata: shell transcripts as users
// type them, against a daemon of their own. It tests what users see and nothing below it.
package script

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/kerneltest"
	"berth/test/testengine"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func TestScenarios(t *testing.T) {
	kerneltest.Root(t)
	tar := testengine.BusyboxTar(t)
	testscript.RunT(sequential{t}, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			e := testengine.Start(env.T().(sequential).T)
			env.Values["engine"] = e
			for _, v := range e.Environ() {
				key, value, _ := strings.Cut(v, "=")
				switch key {
				case "DOCKER_HOST", "BERTH_AUTOSTART", "PATH", "DOCKER_CONFIG":
					env.Setenv(key, value)
				}
			}
			tools, err := busyboxTools(env.WorkDir)
			if err != nil {
				return err
			}
			env.Setenv("PATH", env.Getenv("PATH")+":"+tools)
			env.Setenv("BUSYBOX_TAR", tar)
			env.Setenv("DEBIAN_TAR", filepath.Join(testengine.Cache(), "debian.tar"))
			return nil
		},
		Condition: condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"daemon":  daemon,
			"busybox": busybox,
			"until":   until,
			"setvar":  setvar,
		},
	})
}

// busyboxTools gives scripts the small network tools that a fresh Debian lacks.
func busyboxTools(work string) (string, error) {
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

func condition(name string) (bool, error) {
	if name == "debian" {
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
	if neg || len(args) != 1 {
		ts.Fatalf("usage: daemon kill|stop|start")
	}
	e := engine(ts)
	switch args[0] {
	case "kill":
		e.Kill()
	case "stop":
		e.Down()
	case "start":
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
