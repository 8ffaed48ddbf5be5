package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel"
)

// TestMain also plays the processes that the tests put into groups.
func TestMain(m *testing.M) {
	if part := os.Getenv("BERTH_PART"); part != "" {
		os.Exit(play(strings.Fields(part)))
	}
	// The fuzzer keeps a goroutine of its own, and what is fuzzed needs no world.
	if slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.fuzz") }) {
		os.Exit(m.Run())
	}
	kerneltest.Main(m)
}

// play waits for a line, does its part, and says so.
func play(part []string) int {
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return 3
	}
	switch part[0] {
	case "spin":
		for n := 0; ; n++ {
			in.Buffered() // a loop that does nothing is refused by linters
		}
	case "eat": // megabytes
		n, _ := strconv.Atoi(part[1])
		all := make([]byte, n<<20)
		for i := 0; i < len(all); i += 4096 {
			all[i] = 1
		}
		fmt.Println("eaten", len(all))
	case "fork":
		n, _ := strconv.Atoi(part[1])
		for range n {
			if err := exec.Command("/bin/sleep", "1000").Start(); err != nil {
				fmt.Println("refused:", err)
				break
			}
		}
		fmt.Println("done")
	case "nest":
		fmt.Println(kernel.Thread(nest))
	case "open": // a device, each time that a line comes
		for {
			f, err := os.OpenFile(part[1], os.O_RDWR, 0)
			if err == nil {
				f.Close()
			}
			fmt.Println(err)
			if _, err := in.ReadString('\n'); err != nil {
				return 0
			}
		}
	}
	io.Copy(io.Discard, in)
	return 0
}

// nest is an engine inside a container: its own group is the top of all that it sees, and it sits there itself.
func nest() error {
	if err := unix.Unshare(unix.CLONE_NEWCGROUP | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	layout := func() Layout {
		mounts, _ := os.ReadFile("/proc/thread-self/mountinfo")
		own, _ := os.ReadFile("/proc/thread-self/cgroup")
		return parseLayout(mounts, own, isGroup).located()
	}
	for _, h := range layout().Hierarchies {
		kind, options := "cgroup2", ""
		if h.Version == 1 {
			kind, options = "cgroup", strings.Join(h.Controllers, ",")
			if strings.HasPrefix(options, "name=") {
				options = "none," + options
			}
		}
		if err := unix.Unmount(h.Mount, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("umount %s: %w", h.Mount, err)
		}
		if err := unix.Mount("cgroup", h.Mount, kind, 0, options); err != nil {
			return fmt.Errorf("mount %s over %s: %w", kind, h.Mount, err)
		}
	}
	g, warnings, err := layout().Create("/inner/one", &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(64 * mega)}, Pids: &specs.LinuxPids{Limit: ptr(int64(9))}, Devices: dockers()})
	if err != nil || len(warnings) > 0 {
		return fmt.Errorf("%w %q", err, warnings)
	}
	child := exec.Command("/bin/sleep", "1000")
	if err := child.Start(); err != nil {
		return err
	}
	return g.Add(child.Process.Pid)
}

// actor is a process of the test's own.
type actor struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// start makes an actor that has done nothing yet; it is gone at the end of the test.
func start(t *testing.T, part string) *actor {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BERTH_PART="+part, "GOMAXPROCS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a := &actor{cmd, in, bufio.NewReader(out)}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return a
}

// in starts an actor inside g and lets it act.
func in(t *testing.T, g *Group, part string) *actor {
	t.Helper()
	a := start(t, part)
	if err := g.Add(a.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	a.act(t)
	return a
}

func (a *actor) act(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(a.in, "\n"); err != nil {
		t.Fatal(err)
	}
}

// says returns the actor's next line.
func (a *actor) says(t *testing.T) string {
	t.Helper()
	line, err := a.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// end waits for the actor's death.
func (a *actor) end() syscall.WaitStatus {
	a.cmd.Wait()
	return a.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// group makes a group that the test's end removes.
func group(t *testing.T, r *specs.LinuxResources) *Group {
	t.Helper()
	kerneltest.Root(t)
	path := kerneltest.CgroupParent() + "/" + strings.ReplaceAll(t.Name(), "/", "-")
	g, warnings, err := Create(path, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range warnings {
		t.Log("warning:", w)
	}
	t.Cleanup(func() {
		if err := errors.Join(g.Kill(), g.Delete()); err != nil {
			t.Error(err)
		}
		if err := Load(kerneltest.CgroupParent()).Delete(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// await repeats ok until it holds.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if done, _ := until(30*time.Second, func() (bool, error) { return ok(), nil }); !done {
		t.Fatalf("waited in vain: %s", what)
	}
}

// has skips what this machine can't do.
func has(t *testing.T, ok bool, what string) {
	t.Helper()
	if !ok {
		t.Skip("needs " + what + ", which this machine's cgroups don't have")
	}
}

func TestCreateAddDelete(t *testing.T) {
	g := group(t, nil)
	for c, d := range g.Paths() {
		if !exists(d) {
			t.Errorf("%s: %s is not there", c, d)
		}
	}
	a := start(t, "wait")
	if err := g.Add(a.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	mine, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", a.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range g.dirs {
		rel := strings.TrimPrefix(d.path, d.h.Mount)
		if !strings.Contains(string(mine), rel+"\n") {
			t.Errorf("the process is not in %s:\n%s", d.path, mine)
		}
	}
	if pids, err := g.Procs(); err != nil || !slices.Equal(pids, []int{a.cmd.Process.Pid}) {
		t.Errorf("processes %v, %v", pids, err)
	}
	if err := g.Delete(); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), strconv.Itoa(a.cmd.Process.Pid)) {
		t.Errorf("delete with a process inside: %v", err)
	}
	again, _, err := Create(g.Path(), nil)
	if err != nil {
		t.Fatalf("an existing group can't be taken over: %v", err)
	}
	if err := again.Kill(); err != nil {
		t.Error(err)
	}
	if ws := a.end(); ws.Signal() != syscall.SIGKILL {
		t.Errorf("status %#x", ws)
	}
	for range 2 {
		if err := Load(g.Path()).Delete(); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	for _, d := range g.dirs {
		if exists(d.path) {
			t.Errorf("%s is still there", d.path)
		}
	}
	if err := g.Add(os.Getpid()); !errors.Is(err, fault.NotFound) {
		t.Errorf("add to a group that is gone: %v", err)
	}
}

func TestThreadJoins(t *testing.T) {
	g := group(t, nil)
	if g.v2() != "" {
		if err := g.AddThread(0); !errors.Is(err, fault.Unsupported) {
			t.Errorf("a thread joins a v2 group: %v", err)
		}
		return
	}
	var table []byte
	err := kernel.Thread(func() (err error) {
		err = g.AddThread(0)
		table, _ = os.ReadFile("/proc/thread-self/cgroup")
		return err
	})
	if err != nil || strings.Count(string(table), g.Path()+"\n") != len(g.dirs) {
		t.Errorf("%v\n%s", err, table)
	}
	if table, _ := os.ReadFile("/proc/self/cgroup"); strings.Contains(string(table), g.Path()+"\n") {
		t.Errorf("the whole process moved:\n%s", table)
	}
	// A builder that fails half way kills what it started from the very thread that is in the group.
	a := start(t, "wait")
	err = kernel.Thread(func() error {
		if err := errors.Join(g.AddThread(0), g.Add(a.cmd.Process.Pid)); err != nil {
			return err
		}
		if err := g.Freeze(); !errors.Is(err, fault.Invalid) {
			t.Errorf("freezing oneself: %v", err)
		}
		return g.Kill()
	})
	if err != nil {
		t.Errorf("kill from inside: %v", err)
	}
	await(t, "the thread's end", func() bool { return g.Delete() == nil })
}

func TestCreateInParallel(t *testing.T) {
	kerneltest.Root(t)
	var wait sync.WaitGroup
	parent := kerneltest.CgroupParent()
	want := []string{}
	for i := range 8 {
		name := fmt.Sprintf("p%d", i)
		want = append(want, name)
		wait.Go(func() {
			g, _, err := Create(parent+"/deep/"+name, &specs.LinuxResources{Devices: dockers()})
			if err != nil {
				t.Error(err)
				return
			}
			a := start(t, "wait")
			if err := g.Add(a.cmd.Process.Pid); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if got, err := List(parent + "/deep"); err != nil || !slices.Equal(got, want) {
		t.Errorf("list: %v, %v", got, err)
	}
	if got, err := List(parent + "/no"); err != nil || len(got) != 0 {
		t.Errorf("list of nothing: %v, %v", got, err)
	}
	all := Load(parent)
	if pids, err := all.Procs(); err != nil || len(pids) != 8 {
		t.Errorf("processes below: %v, %v", pids, err)
	}
	if err := errors.Join(all.Kill(), all.Delete()); err != nil {
		t.Errorf("sweep: %v", err)
	}
}

// TestNestedGroups deletes what a container made inside its own group.
func TestNestedGroups(t *testing.T) {
	g := group(t, nil)
	inner, _, err := Create(g.Path()+"/a/b", nil)
	if err != nil {
		t.Fatal(err)
	}
	a := in(t, inner, "spin")
	if pids, _ := g.Procs(); !slices.Equal(pids, []int{a.cmd.Process.Pid}) {
		t.Errorf("processes below: %v", pids)
	}
	if err := errors.Join(g.Kill(), g.Delete()); err != nil {
		t.Error(err)
	}
}

// TestNestedEngine makes groups from inside a cgroup namespace whose top is full of processes.
func TestNestedEngine(t *testing.T) {
	g := group(t, nil)
	a := in(t, g, "nest")
	if line := a.says(t); line != "<nil>" {
		t.Fatal(line)
	}
	inner := Load(g.Path() + "/inner/one")
	if pids, err := inner.Procs(); err != nil || len(pids) != 1 {
		t.Errorf("processes %v, %v", pids, err)
	}
	if s := inner.Stats(); s.Memory.Limit != uint64(64*mega) || s.Pids.Limit != 9 {
		t.Errorf("limits of %d bytes, %d processes", s.Memory.Limit, s.Pids.Limit)
	}
	if pids, err := g.Procs(); err != nil || len(pids) != 2 {
		t.Errorf("processes of both %v, %v", pids, err)
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	kerneltest.Root(t)
	has(t, Supported().CPUSet, "cpusets")
	path := kerneltest.CgroupParent() + "/bad"
	for name, r := range map[string]*specs.LinuxResources{
		"cpus":    {CPU: &specs.LinuxCPU{Cpus: "4090"}},
		"words":   {CPU: &specs.LinuxCPU{Cpus: "one"}},
		"quota":   {CPU: &specs.LinuxCPU{Quota: ptr(int64(5))}},
		"devices": {Devices: []specs.LinuxDeviceCgroup{{Type: "z"}}},
	} {
		g, _, err := Create(path, r)
		if !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, %v", name, g, err)
		}
		for _, d := range Load(path).dirs {
			if exists(d.path) {
				t.Errorf("%s: %s is left", name, d.path)
			}
		}
	}
	if err := Load(kerneltest.CgroupParent()).Delete(); err != nil {
		t.Error(err)
	}
}

func TestKillOutrunsForks(t *testing.T) {
	g := group(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(200))}})
	a := start(t, "fork 50")
	if err := g.Add(a.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	a.act(t)
	await(t, "a few children", func() bool { pids, _ := g.Procs(); return len(pids) > 3 })
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	if pids, err := g.Procs(); err != nil || len(pids) != 0 {
		t.Errorf("left alive: %v, %v", pids, err)
	}
}

func TestFreeze(t *testing.T) {
	g := group(t, nil)
	has(t, Supported().Freezer, "a freezer")
	a := in(t, g, "open /dev/null")
	a.says(t)
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if frozen, err := g.Frozen(); err != nil || !frozen {
		t.Errorf("frozen: %v, %v", frozen, err)
	}
	a.act(t)
	fd := a.cmd.Process.Pid
	if state := stateOf(t, fd); state == "R" {
		t.Errorf("a frozen process is in state %s", state)
	}
	if err := errors.Join(g.Thaw(), g.Thaw()); err != nil {
		t.Fatal(err)
	}
	if line := a.says(t); line != "<nil>" {
		t.Errorf("after the thaw it says %q", line)
	}
	if err := errors.Join(g.Freeze(), g.Kill()); err != nil {
		t.Errorf("kill of a frozen group: %v", err)
	}
	if ws := a.end(); ws.Signal() != syscall.SIGKILL {
		t.Errorf("status %#x", ws)
	}
}

func stateOf(t *testing.T, pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return rest[:1]
}

func TestSupported(t *testing.T) {
	kerneltest.Root(t)
	s := Supported()
	t.Logf("%+v\n%+v", Detect(), s)
	if s.Driver != "cgroupfs" || s.Version != "1" && s.Version != "2" {
		t.Errorf("%+v", s)
	}
	if !s.MemoryLimit || !s.PidsLimit || !s.CPUCfsQuota || !s.Devices {
		t.Errorf("a test machine must hold the basic limits: %+v", s)
	}
}

// TestGroupsGoWhereOneMayWrite looks at a hierarchy whose top is read-only, as containers get it, and whose own group is not.
func TestGroupsGoWhereOneMayWrite(t *testing.T) {
	kerneltest.Root(t)
	top := t.TempDir()
	own := top + "/own"
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	bind := func(target string, flags uintptr) {
		if err := unix.Mount(target, target, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
		if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	base := func() string {
		h := Hierarchy{Version: 1, Mount: top, Own: "/own"}
		h.locate()
		return h.Base
	}
	if got := base(); got != top {
		t.Errorf("writable: %q", got)
	}
	bind(top, unix.MS_RDONLY)
	if got := base(); got != "" {
		t.Errorf("read-only: %q", got)
	}
	bind(own, 0)
	if got := base(); got != own {
		t.Errorf("only the own group is writable: %q", got)
	}
	l := Layout{Mode: V1, Hierarchies: []Hierarchy{{Version: 1, Controllers: []string{"pids"}, Mount: top}}}
	if _, _, err := l.Create("/x", nil); !errors.Is(err, fault.Unavailable) {
		t.Errorf("create where nothing is writable: %v", err)
	}
}

// TestUnifiedHierarchyOfAHybrid uses v2 beside v1 when a limit is only there.
func TestUnifiedHierarchyOfAHybrid(t *testing.T) {
	kerneltest.Root(t)
	l := Detect()
	has(t, l.Mode == Hybrid && slices.ContainsFunc(l.Hierarchies, func(h Hierarchy) bool {
		return h.Version == 2 && slices.Contains(h.Controllers, "hugetlb")
	}), "a hybrid with hugetlb on v2")
	g := group(t, &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}})
	if limit, err := read(g.v2(), "hugetlb.2MB.max"); err != nil || limit != "4194304" {
		t.Errorf("limit %s, %v", limit, err)
	}
	if err := g.AddThread(0); !errors.Is(err, fault.Unsupported) {
		t.Errorf("a thread joins v2: %v", err)
	}
	a := in(t, g, "wait")
	if table, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", a.cmd.Process.Pid)); !strings.Contains(string(table), "\n0::"+g.Path()+"\n") {
		t.Errorf("not in the v2 group:\n%s", table)
	}
	d, err := g.Dir()
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	var fs unix.Statfs_t
	if err := unix.Statfs(g.v2(), &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Errorf("%#x, %v", fs.Type, err)
	}
}
