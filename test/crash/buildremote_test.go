package crash

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"berth/test/testengine"
)

// TestKillDuringAFetch: whoever is killed while a server does not answer git, or has sent half of a file, nothing of it runs or is in use afterwards.
func TestKillDuringAFetch(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	asked, over := make(chan string, 100), make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/file" {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("half"))
			w.(http.Flusher).Flush()
		}
		asked <- r.URL.Path
		select {
		case <-over:
		case <-r.Context().Done():
		}
	}))
	defer web.Close()
	defer close(over)
	program, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	git := program + "\x00ls-remote\x00--symref\x00--\x00" + web.URL + "/p.git\x00HEAD\x00"
	e := testengine.Start(t)
	e.Busybox(t)
	for _, victim := range []string{"client", "daemon"} {
		for _, what := range []string{"p.git", "file"} {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM busybox\nADD "+web.URL+"/"+what+" /\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			build := e.Command("berth", "build", dir)
			if err := build.Start(); err != nil {
				t.Fatal(err)
			}
			select {
			case <-asked:
			case <-time.After(time.Minute):
				t.Fatalf("the server is not asked for %s\n%s", what, e.Log())
			}
			if what == "p.git" && len(processes(git)) == 0 {
				t.Error("git does not run")
			}
			if victim == "client" {
				_ = build.Process.Kill()
			} else {
				e.Kill()
			}
			if err := build.Wait(); err == nil {
				t.Errorf("%s: the build went well", victim)
			}
			testengine.Eventually(t, time.Minute, func() error {
				if left := processes(git); len(left) > 0 {
					return fmt.Errorf("%s killed: git still runs: %s", victim, left)
				}
				return nil
			})
			if victim == "daemon" {
				e.Up(t)
			}
			testengine.Eventually(t, time.Minute, func() error {
				for _, pattern := range []string{"build/remote/use/*", "build/remote/http/*/content-*"} {
					left, err := filepath.Glob(filepath.Join(e.Data, pattern))
					if victim == "daemon" && pattern != "build/remote/use/*" {
						continue // the next one who fetches it takes it away
					}
					if err != nil || len(left) > 0 {
						return fmt.Errorf("%s killed: left %s, %v", victim, left, err)
					}
				}
				return nil
			})
		}
	}
	if out, err := e.Command("berth", "system", "fsck").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
