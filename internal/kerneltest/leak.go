package kerneltest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"time"
)

// checkLeaks runs the tests and fails them when they leave something behind.
func checkLeaks(run func() int) int {
	before := held()
	code := run()
	if code != 0 {
		return code
	}
	var left []string
	// What is torn down in the background gets a while to finish.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left = held().minus(before)
		if len(left) == 0 {
			return code
		}
		if time.Now().After(deadline) {
			break
		}
	}
	fmt.Fprintln(os.Stderr, "FAIL: the tests left behind:")
	for _, l := range left {
		fmt.Fprintln(os.Stderr, "  "+l)
	}
	return 1
}

// holdings counts, by name, what a process can leak.
type holdings map[string]int

func held() holdings {
	h := holdings{}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		target, err := os.Readlink("/proc/self/fd/" + fd.Name())
		// The runtime's own epoll and eventfd come with the first use of the network poller.
		if err != nil || strings.HasPrefix(target, "anon_inode:[event") || strings.HasSuffix(target, "/fd") {
			continue
		}
		h["open file "+normal(target)]++
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for _, line := range strings.Split(string(mounts), "\n") {
		if f := strings.Fields(line); len(f) > 4 {
			h["mount "+f[4]]++
		}
	}
	links, _ := os.ReadDir("/sys/class/net")
	for _, l := range links {
		h["link "+l.Name()]++
	}
	for _, top := range groups(strings.TrimPrefix(CgroupParent(), "/")) {
		filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() && path != top {
				h["cgroup "+path]++
			}
			return nil
		})
	}
	h["goroutine"] = runtime.NumGoroutine()
	return h
}

// normal drops the inode number from names such as socket:[123].
func normal(target string) string {
	if i := strings.Index(target, ":["); i > 0 {
		return target[:i]
	}
	return target
}

func (h holdings) minus(before holdings) []string {
	var left []string
	for name, n := range h {
		if extra := n - before[name]; extra > 0 {
			left = append(left, fmt.Sprintf("%s (%d)", name, extra))
		}
	}
	if extra := h["goroutine"] - before["goroutine"]; extra > 0 {
		buf := make([]byte, 1<<16)
		left = append(left, string(buf[:runtime.Stack(buf, true)]))
	}
	sort.Strings(left)
	return left
}
