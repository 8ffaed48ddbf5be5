// Package hostile gives the built programs bad input, hostile content, broken
// clients, full disks and a daemon that is killed at any time, and looks whether anything
// changed that should not have. It tests what users see and what the host sees, and nothing between.
package hostile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/internal/kerneltest"
	"berth/test/testengine"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// state is what can leak or change, by name. Names that begin with "+" may shrink but not grow.
type state map[string]int

// ours is the cgroup of an engine's containers, as a path below each hierarchy.
func ours(e *testengine.Engine) string {
	return kerneltest.CgroupParent() + "/" + filepath.Base(e.Exec)
}

// look takes the whole state of an engine and of the world around it.
func look(t testing.TB, e *testengine.Engine) state {
	t.Helper()
	s := state{}
	for _, image := range list(t, e, "/images/json?all=1") {
		s[fmt.Sprintf("image %v %v %v", image["Id"], image["RepoTags"], image["RepoDigests"])]++
	}
	for _, c := range list(t, e, "/containers/json?all=1") {
		s[fmt.Sprintf("container %v %v %v", c["Id"], c["Names"], c["State"])]++
	}
	var info struct{ NGoroutines int }
	get(t, e, "/info", &info)
	s["+goroutines"] = info.NGoroutines
	s.files(e)
	s.host(e)
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", e.Pid()))
	for _, fd := range fds {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", e.Pid(), fd.Name()))
		if err == nil {
			s["+berthd holds "+kind(target)]++
		}
	}
	return s
}

// files counts what lies in the data root and the run root. Spares and trash come and go by themselves.
func (s state) files(e *testengine.Engine) {
	filepath.WalkDir(e.Data, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		name, _ := filepath.Rel(e.Data, path)
		switch name {
		case "layers/spare", "layers/inits":
			return fs.SkipDir
		case "blobs/unsynced", "layers/unsynced": // says only that a crash would cost a check
			return nil
		}
		if strings.HasSuffix(name, ".part") { // stays for a week, for the pull that goes on
			return nil
		}
		if strings.HasSuffix(name, "/diff") { // what a layer holds is its digest's business
			s["file "+name]++
			return fs.SkipDir
		}
		size := int64(0)
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() && strings.Contains(name, "blobs/") {
			size = info.Size()
		}
		s[fmt.Sprintf("file %s %d", name, size)]++
		return nil
	})
	runs, _ := os.ReadDir(e.Exec + "/containers")
	for _, r := range runs {
		s["run directory "+r.Name()]++
	}
}

// host counts what the world around the engine shows: mounts, links, nft elements, groups and processes.
func (s state) host(e *testengine.Engine) {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for _, line := range strings.Split(string(mounts), "\n") {
		s["mount "+line]++
	}
	links, _ := net.Interfaces()
	for _, l := range links {
		s["+link "+strings.TrimRight(l.Name, "0123456789abcdef")]++
	}
	if out, err := exec.Command("nft", "list", "ruleset").Output(); err == nil {
		for _, line := range strings.Split(string(out), "\n") {
			s["nft "+line]++
		}
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*" + ours(e) + "/*")
	more, _ := filepath.Glob("/sys/fs/cgroup" + ours(e) + "/*")
	for _, g := range append(groups, more...) {
		if info, err := os.Stat(g); err == nil && info.IsDir() {
			s["cgroup "+g]++
		}
	}
	processes, _ := os.ReadDir("/proc")
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		line, err := os.ReadFile("/proc/" + p.Name() + "/cmdline")
		stat, _ := os.ReadFile("/proc/" + p.Name() + "/stat")
		if err != nil {
			continue
		}
		name := strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " ")
		if _, after, ok := strings.Cut(string(stat), ") "); ok && strings.HasPrefix(after, "Z") {
			name = "zombie " + string(stat[:strings.Index(string(stat), ")")+1])
			name = regexp.MustCompile(`\d+ `).ReplaceAllString(name, "")
		}
		if strings.HasPrefix(name, "berth-oci shim ") { // a spare or one in use; what follows tells them apart
			name = "berth-oci shim"
		}
		s["+process "+name]++
	}
}

var number = regexp.MustCompile(`\[?\d+\]?$`)

// kind of an open file: socket:[4711] is a socket.
func kind(target string) string {
	target = number.ReplaceAllString(target, "")
	// Sockets of clients, spares and links are kept in small numbers; which of them it is can't be seen.
	return strings.TrimSuffix(target, " (deleted)")
}

// diff says what differs from before.
func (s state) diff(before state) error {
	var lines []string
	for name, n := range s {
		if n > before[name] {
			lines = append(lines, fmt.Sprintf("%s: %d, was %d", name, n, before[name]))
		}
	}
	for name, n := range before {
		if n > s[name] && !strings.HasPrefix(name, "+") {
			lines = append(lines, fmt.Sprintf("%s: %d, was %d", name, s[name], n))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	slices.Sort(lines)
	return errors.New("the state changed:\n  " + strings.Join(lines, "\n  "))
}

// settled is the state once the pools are full after a first container of each kind.
func settled(t testing.TB, e *testengine.Engine) state {
	t.Helper()
	e.Run(t, "run", "--rm", "busybox", "true")
	e.Run(t, "run", "--rm", "--network", "none", "busybox", "true")
	before := look(t, e)
	stable := 0
	testengine.Eventually(t, 20*time.Second, func() error {
		now := look(t, e)
		err := now.diff(before)
		if err == nil && before.diff(now) == nil {
			if stable++; stable >= 10 {
				return nil
			}
			return errors.New("not for long enough yet")
		}
		before, stable = now, 0
		return fmt.Errorf("not settled: %w", err)
	})
	return before
}

// same waits until the state is as before: what is freed in the background gets a while.
func same(t testing.TB, e *testengine.Engine, before state) {
	t.Helper()
	testengine.Eventually(t, 20*time.Second, func() error { return look(t, e).diff(before) })
}

// refused runs berth and expects a failure with this code (0: any) whose words match.
func refused(t testing.TB, e *testengine.Engine, code int, words string, args ...string) {
	t.Helper()
	cmd := e.Command("berth", args...)
	out, err := cmd.CombinedOutput()
	show := strings.Join(args, " ")
	if len(show) > 200 {
		show = show[:200] + "…"
	}
	text := string(out)
	if len(text) > 1000 {
		text = text[:500] + "…" + text[len(text)-500:]
		t.Errorf("berth %s: an error of %d bytes is no clear one", show, len(out))
	}
	if err == nil {
		t.Errorf("berth %s: accepted\n%s", show, text)
		return
	}
	if got := cmd.ProcessState.ExitCode(); code != 0 && got != code {
		t.Errorf("berth %s: exit code %d, want %d\n%s", show, got, code, text)
	}
	if !regexp.MustCompile(words).MatchString(text) {
		t.Errorf("berth %s: want words %q\n%s", show, words, text)
	}
	if strings.Contains(text, "panic") || strings.Contains(text, "goroutine ") {
		t.Errorf("berth %s: a panic\n%s", show, text)
	}
	t.Logf("berth %s: %s", show, strings.TrimSpace(text))
}

func list(t testing.TB, e *testengine.Engine, path string) (all []map[string]any) {
	t.Helper()
	get(t, e, path, &all)
	return all
}

// get reads one JSON document from the API.
func get(t testing.TB, e *testengine.Engine, path string, into any) {
	t.Helper()
	status, body := call(t, e, "GET", path, "", "")
	if status != 200 {
		t.Fatalf("GET %s: %d %s", path, status, body)
	}
	if err := json.Unmarshal([]byte(body), into); err != nil {
		t.Fatalf("GET %s: %v in %s", path, err, body)
	}
}

func matches(words, text string) bool { return regexp.MustCompile(words).MatchString(text) }
