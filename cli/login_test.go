package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"berth/cli/session"

	"github.com/google/go-cmp/cmp"
)

// TestLoginsAreDockers logs in and out with both programs, each from the same config.json, and compares what
// they write there and ask a credential helper.
func TestLoginsAreDockers(t *testing.T) {
	needDocker(t)
	dir := t.TempDir()
	helper := "#!/bin/sh\nin=$(cat)\necho \"$1 $in\" >>" + dir + "/calls\nif [ $1 = get ]; then cat " + dir + "/secret 2>/dev/null || { echo credentials not found in native keychain; exit 1; }; fi\n" +
		"if [ $1 = store ]; then echo \"$in\" >" + dir + "/secret; fi\nif [ $1 = erase ]; then rm -f " + dir + "/secret; fi\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for _, c := range []struct{ config, answer, lines string }{
		{"", `{"Status": "Login Succeeded"}`, "login -u me -p secret localhost:5000;login -u hub -p word;logout localhost:5000;logout"},
		{`{"auths": {"https://index.docker.io/v1/": {"auth": "b2xkOm9sZA=="}}, "credHelpers": {}, "psFormat": "x"}`, `{"Status": "Login Succeeded", "IdentityToken": "tok"}`, "login -u me -p secret r.example.org;login -u hub -p word;logout r.example.org"},
		{`{"auths": {"https://r.example.org": {"auth": "b2xkOm9sZA=="}}}`, `{"Status": "Login Succeeded"}`, "logout r.example.org"},
		{`{"auths": {"r.example.org": {"auth": "b2xkOm9sZA=="}}}`, `{"Status": "Login Succeeded"}`, "login r.example.org;logout https://r.example.org/v2/"},
		{`{"credHelpers": {"r.example.org": "test"}}`, `{"Status": "Login Succeeded"}`, "login -u me -p secret r.example.org;pull r.example.org/x:v1;login r.example.org;logout r.example.org"},
		{`usual`, `{"Status": "Login Succeeded"}`, "login -u me -p secret localhost:5000;pull localhost:5000/x:v1;logout localhost:5000"},
		{`{"credsStore": "test"}`, `{"Status": "Login Succeeded", "IdentityToken": "tok"}`, "login -u me -p secret localhost:5000;pull localhost:5000/x:v1;logout localhost:5000"},
	} {
		type state struct {
			File, Calls string
			Auths       []string
			Codes       []int
			Out         []string
		}
		run := func(program func(f *fake, args ...string) ran) state {
			os.Remove(filepath.Join(dir, "calls"))
			os.Remove(filepath.Join(dir, "secret"))
			f := imageAnswers(t)
			f.on("POST /auth", json.RawMessage(c.answer))
			path := filepath.Join(f.config, "config.json")
			usual := filepath.Join(dir, "docker-credential-secretservice")
			os.Remove(usual)
			if c.config == "usual" {
				if err := os.Symlink("docker-credential-test", usual); err != nil {
					t.Fatal(err)
				}
			} else if c.config != "" {
				write(t, path, c.config)
			}
			var s state
			for _, line := range strings.Split(c.lines, ";") {
				got := program(f, strings.Fields(line)...)
				s.Codes, s.Out = append(s.Codes, got.code), append(s.Out, got.out)
				for _, a := range f.take() {
					if a.path == "/auth" {
						s.Auths = append(s.Auths, strings.TrimSpace(a.body))
					} else if a.auth != "" {
						s.Auths = append(s.Auths, credentials(t, a.auth))
					}
				}
				text, _ := os.ReadFile(path)
				var file map[string]any
				json.Unmarshal(text, &file)
				if helpers, _ := file["credHelpers"].(map[string]any); len(helpers) == 0 {
					delete(file, "credHelpers") // docker leaves out what is empty
				}
				plain, _ := json.Marshal(file)
				s.File += string(plain) + "\n"
			}
			calls, _ := os.ReadFile(filepath.Join(dir, "calls"))
			s.Calls = strings.Join(slices.Compact(strings.Split(string(calls), "\n")), "\n") // docker erases twice
			return s
		}
		d := run(func(f *fake, args ...string) ran { return f.docker(args...) })
		b := run(func(f *fake, args ...string) ran { return f.berth(args...) })
		if diff := cmp.Diff(d, b); diff != "" {
			t.Errorf("%s from %s: docker (-) and berth (+):\n%s", c.lines, c.config, diff)
		}
	}
}

// TestPasswordIsAskedFor types name and password on a terminal, which shows the name alone.
func TestPasswordIsAskedFor(t *testing.T) {
	f := imageAnswers(t)
	cmd, screen, tty := onTerminal(t, f, "login", "localhost:5000")
	mode := func() string {
		c := exec.Command("stty", "-a")
		c.Stdin = tty
		out, err := c.Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	silent := func() {
		for end := time.Now().Add(20 * time.Second); !strings.Contains(mode(), " -echo "); {
			if time.Now().After(end) {
				t.Fatal("the terminal shows what is typed")
			}
		}
	}
	before := mode()
	expect(t, screen, "Username: ")
	screen.WriteString("me\r")
	expect(t, screen, "Password: ")
	silent()
	screen.WriteString("hidden words\r")
	if shown := expect(t, screen, "Login Succeeded"); strings.Contains(shown, "hidden") {
		t.Errorf("the screen shows %q", shown)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if after := mode(); after != before {
		t.Errorf("the terminal was\n%s and is\n%s", before, after)
	}
	all := f.take()
	if len(all) == 0 || !strings.Contains(all[len(all)-1].body, `"password":"hidden words"`) {
		t.Errorf("asked %v", all)
	}
	// Given up, the terminal is as it was too.
	cmd, screen, tty = onTerminal(t, f, "login", "-u", "me", "localhost:5000")
	before = mode()
	expect(t, screen, "Password: ")
	silent()
	screen.WriteString("\x03")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("got %v", err)
	}
	if after := mode(); after != before {
		t.Errorf("the terminal was\n%s and is\n%s", before, after)
	}
}

// TestLoginsSideBySide lets many write the same file: none is lost.
func TestLoginsSideBySide(t *testing.T) {
	f := imageAnswers(t)
	lock := func(dir string) (func() error, error) {
		d, err := os.Open(dir)
		if err == nil {
			err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX)
		}
		return d.Close, err
	}
	var all sync.WaitGroup
	const logins = 20
	for i := range logins {
		all.Add(1)
		go func() {
			defer all.Done()
			env := map[string]string{"DOCKER_HOST": f.host, "DOCKER_CONFIG": f.config}
			code := Main(&session.Program{
				Args: []string{"login", "-u", "me", "-p", "x", fmt.Sprintf("r%d.example.org", i)}, In: strings.NewReader(""), Out: io.Discard, Err: io.Discard, Lock: lock,
				Getenv: func(k string) (string, bool) { v, ok := env[k]; return v, ok },
			})
			if code != 0 {
				t.Errorf("login %d: exit code %d", i, code)
			}
		}()
	}
	all.Wait()
	var file struct{ Auths map[string]any }
	text, err := os.ReadFile(filepath.Join(f.config, "config.json"))
	if err != nil || json.Unmarshal(text, &file) != nil || len(file.Auths) != logins {
		t.Errorf("got %d of %d: %s, %v", len(file.Auths), logins, text, err)
	}
	if left, err := os.ReadDir(f.config); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
