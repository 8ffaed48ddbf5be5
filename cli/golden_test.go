package cli

import (
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden compares whole outputs with files; -update writes them.
func TestGolden(t *testing.T) {
	f := canned(t)
	f.version = "1.56"
	f.on("GET /version", map[string]any{"Platform": map[string]string{"Name": "Berth"}, "Version": "1.0", "ApiVersion": "1.56", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64",
		"Components": []map[string]any{
			{"Name": "Engine", "Version": "1.0", "Details": map[string]string{"ApiVersion": "1.56", "MinAPIVersion": "1.24", "GoVersion": "go1.26", "GitCommit": "c0ffee", "BuildTime": "today", "Os": "linux", "Arch": "amd64", "Experimental": "false"}},
			{"Name": "shim", "Version": "1", "Details": map[string]string{"Protocol": "3", "A": "b"}},
		}})
	f.on("GET /info", map[string]any{"ID": "abc", "Containers": 3, "ContainersRunning": 1, "ContainersPaused": 1, "ContainersStopped": 1, "Images": 7, "Driver": "overlay2", "DriverStatus": [][2]string{{"Backing Filesystem", "extfs"}, {"Supports d_type", "true"}},
		"LoggingDriver": "json-file", "CgroupDriver": "cgroupfs", "CgroupVersion": "2", "Plugins": map[string]any{"Volume": []string{"local"}, "Network": []string{"bridge", "host"}, "Log": []string{"json-file"}},
		"Swarm": map[string]any{"LocalNodeState": "inactive"}, "Runtimes": map[string]any{"runc": map[string]string{}, "berth": map[string]string{}}, "DefaultRuntime": "berth", "SecurityOptions": []string{"name=seccomp,profile=builtin", "name=cgroupns"},
		"KernelVersion": "6.1", "OperatingSystem": "Debian", "OSType": "linux", "Architecture": "x86_64", "NCPU": 2, "MemTotal": 25_233_408_000, "Name": "host", "DockerRootDir": "/var/lib/berth", "ServerVersion": "1.0", "LiveRestoreEnabled": true,
		"RegistryConfig": map[string]any{"InsecureRegistryCIDRs": []string{"127.0.0.0/8"}, "IndexConfigs": map[string]any{"docker.io": map[string]any{"Name": "docker.io", "Secure": true}}, "Mirrors": []string{"http://127.0.0.1:5000/"}},
		"Warnings":       []string{"WARNING: No swap limit support"}})
	for name, args := range map[string][]string{
		"help": {"help"}, "help-run": {"help", "run"}, "help-container": {"container", "--help"}, "ps-help": {"ps", "--help"}, "version": {"version"}, "version-json": {"version", "--format", "{{json .Server}}"}, "info": {"info"},
		"unknown-option": {"run", "--it", "busybox"}, "no-argument": {"run"}, "info-format": {"info", "-f", "{{.Driver}} {{.ID}} {{.NCPU}}"}, "completion-usage": {"completion"}, "fsck-help": {"system", "fsck", "--help"},
	} {
		got := f.berth(args...)
		text := "$ berth " + strings.Join(args, " ") + "\n" + got.out + "--- errors\n" + got.err
		if name == "version" {
			text = strings.ReplaceAll(text, goVersion(), "go1.X")
		}
		path := filepath.Join("testdata", name+".golden")
		if *update {
			write(t, path, text)
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(text, "\n")); diff != "" {
			t.Errorf("%s: the file (-) and what is printed (+) differ:\n%s", path, diff)
		}
	}
}

// TestEveryCommandHasHelp reads the pages of all commands in all spellings.
func TestEveryCommandHasHelp(t *testing.T) {
	for _, v := range verbs {
		for _, path := range v.paths {
			got := runMain(nil, nil, append([]string{"help"}, strings.Fields(path)...)...)
			if got.code != 0 || !strings.HasPrefix(got.out, "Usage:  berth "+path) || !strings.Contains(got.out, v.short) {
				t.Errorf("help %s: %+v", path, got)
			}
			if other := runMain(nil, nil, append(strings.Fields(path), "--help")...); other != got {
				t.Errorf("%s --help differs from help %s", path, path)
			}
			if !strings.Contains(got.out, "\nExamples:\n") && path != "version" {
				t.Errorf("%s has no example", path)
			}
		}
	}
}

func TestCompletion(t *testing.T) {
	f := canned(t)
	write(t, filepath.Join(f.config, "config.json"), `{"auths": {"localhost:5000": {}}}`)
	for line, want := range map[string]string{
		"sto": "stop\t", "container st": "start\t", "ps --fil": "--filter\t", "stop ": "web", "image rm ": "debian:12", "run --rm --ne": "--network\t",
		"run --restart al": "always", "run --network container:": "container:web", "run --network ho": "host", "run --cap-add SYS_PT": "SYS_PTRACE", "kill -s HU": "HUP", "ps --filter status=p": "status=paused",
		"cp ": "web:", "logs ": "web", "container prune --filter la": "label=", "run --volumes-from ": "web", "update --restart unl": "unless-stopped", "explain ": "web",
		"push de": "debian:12", "pull ": "example.org:5000/base:v1", "logout ": "localhost:5000", "login loc": "localhost:5000", "pull --platform linux/arm": "linux/arm64", "search -f st": "stars=", "manifest create ": "debian:12",
	} {
		got := f.berth(append([]string{"__complete"}, strings.Split(line, " ")...)...)
		if got.code != 0 || !strings.Contains(got.out, want) {
			t.Errorf("%q: %+v lacks %q", line, got, want)
		}
	}
	for _, shell := range shells {
		if got := f.berth("completion", shell); got.code != 0 || len(got.out) < 500 {
			t.Errorf("%s: %+v", shell, got)
		}
	}
}

func goVersion() string { return runtime.Version() }
