package hostile

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/test/testengine"
)

// TestSecretsStayNowhere: what a build's program was given as a secret is in no layer, history, cache, log, record or file afterwards, whoever died meanwhile.
func TestSecretsStayNowhere(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	dir, elsewhere := t.TempDir(), t.TempDir()
	byFile, byEnv := rand.Text(), rand.Text()
	file := filepath.Join(elsewhere, "secret")
	dockerfile := func(command string) {
		t.Helper()
		text := "FROM busybox\n" +
			"RUN --mount=type=secret,id=file,required --mount=type=secret,id=env,env=TOKEN --mount=type=secret,id=file,target=/etc/deep/secret,mode=0444 --mount=type=cache,target=/c --mount=target=/ctx,rw " + command + "\n" +
			"RUN [ ! -e /run/secrets/file ] && [ -z \"$TOKEN\" ] && [ ! -e /etc/deep ]\n"
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, []byte(byFile), 0o600); err != nil {
		t.Fatal(err)
	}
	build := func(args ...string) *exec.Cmd {
		cmd := e.Command("berth", append([]string{"build", "-t", "img", "--secret", "id=file,src=" + file, "--secret", "id=env,env=TOKEN"}, append(args, dir)...)...)
		cmd.Env = append(cmd.Env, "TOKEN="+byEnv)
		return cmd
	}
	use := `cat /run/secrets/file /etc/deep/secret | wc -c > /said && echo ${#TOKEN} >> /said && touch /c/used /ctx/used`
	dockerfile(use + "; exec sleep 314162")
	cut := build()
	if err := cut.Start(); err != nil {
		t.Fatal(err)
	}
	testengine.Eventually(t, time.Minute, func() error {
		out, err := exec.Command("pgrep", "-fx", "sleep 314162").Output()
		if err == nil && len(bytes.TrimSpace(out)) == 0 {
			err = errors.New("the step does not run")
		}
		return err
	})
	nowhere := func(when string) {
		t.Helper()
		for name, secret := range map[string]string{"file": byFile, "variable": byEnv} {
			for _, where := range []string{e.Data, e.Exec} {
				if found := filesWith(t, where, secret); len(found) > 0 {
					t.Errorf("%s: the secret of the %s is in %v", when, name, found)
				}
			}
		}
	}
	nowhere("while it is in use")
	e.Kill()
	if err := cut.Wait(); err == nil {
		t.Error("a build whose daemon was killed went well")
	}
	nowhere("after the daemon was killed")
	e.Up(t)
	dockerfile(use)
	since := time.Now().Add(-time.Hour).Format(time.RFC3339)
	out, err := build("--no-cache").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	said := map[string]string{"the build's output": string(out)}
	if got := e.Run(t, "run", "--rm", "img", "cat", "/said"); got != "52\n26\n" {
		t.Errorf("%q", got)
	}
	// What failed says what failed, and not with what.
	dockerfile(use + "; exit 3")
	out, err = build().CombinedOutput()
	if err == nil {
		t.Error("a step that failed went well")
	}
	said["a failure"] = string(out)
	archive := filepath.Join(elsewhere, "saved")
	e.Run(t, "save", "-o", archive, "img")
	tree := filepath.Join(elsewhere, "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-C", tree, "-xf", archive).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	said["history"] = e.Run(t, "history", "--no-trunc", "img")
	said["inspect"] = e.Run(t, "inspect", "img")
	said["events"] = e.Run(t, "events", "--since", since, "--until", time.Now().Format(time.RFC3339))
	for name, secret := range map[string]string{"file": byFile, "variable": byEnv} {
		for where, text := range said {
			if strings.Contains(text, secret) {
				t.Errorf("the secret of the %s is in %s:\n%s", name, where, text)
			}
		}
		if found := filesWith(t, tree, secret); len(found) > 0 {
			t.Errorf("the secret of the %s is in the saved image: %v", name, found)
		}
	}
	// Layers are compressed where they lie; their trees lie in the data root, and are looked through as files.
	nowhere("in the end")
}

// filesWith lists the files below dir that have text in them.
func filesWith(t *testing.T, dir, text string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var data []byte
			if data, err = os.ReadFile(p); err == nil && bytes.Contains(data, []byte(text)) {
				found = append(found, p)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went meanwhile
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
