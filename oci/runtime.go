package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/internal/record"
	"berth/kernel"
	"berth/kernel/cgroup"
)

// Runtime keeps containers whose creator does not stay with them, as the OCI runtime command line wants
// it: what later commands need lies in a directory per container below Root, and the first process belongs
// to whoever adopts the creator's children.
type Runtime struct {
	Root    string // state directory, on tmpfs
	Systemd bool   // cgroup paths are "slice:prefix:name"
}

// Container is the record of one container, kept as state.json.
type Container struct {
	ID      string    `json:"id"`
	Pid     int       `json:"pid"`
	Started uint64    `json:"started"` // of the first process, in ticks since boot: numbers are used again
	Boot    string    `json:"boot"`    // boot id
	Created time.Time `json:"created"`
	Bundle  Bundle    `json:"bundle"`
	dir     string
}

// CreateOptions are the command line's choices.
type CreateOptions struct {
	Stdio
	NoPivot     bool
	PreserveFDs int
}

const (
	stateFile  = "state.json"
	gateFile   = "gate"
	statusFile = "status"
)

// validID keeps names that are safe as a directory's and a cgroup's.
func validID(id string) bool {
	if id == "" || id == "." || id == ".." || len(id) > 1024 {
		return false
	}
	return !strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_+-.", r)
	})
}

// Load reads the bundle in dir: config.json, with a relative root path resolved.
func (r *Runtime) Load(id, dir string) (*Bundle, error) {
	if !validID(id) {
		return nil, fault.New(fault.Invalid, "container id %q: letters, digits and _+-. are allowed", id)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	var spec specs.Spec
	if err := record.Load(filepath.Join(dir, "config.json"), &spec); err != nil {
		return nil, err
	}
	if spec.Root == nil || spec.Root.Path == "" {
		return nil, fault.New(fault.Invalid, "%s/config.json names no root file system", dir)
	}
	if !filepath.IsAbs(spec.Root.Path) {
		spec.Root.Path = filepath.Join(dir, spec.Root.Path)
	}
	if spec.Linux == nil {
		spec.Linux = &specs.Linux{}
	}
	for i, m := range spec.Mounts {
		if bind := m.Type == "bind" || parseOptions(m.Options).bind; bind && !filepath.IsAbs(m.Source) {
			spec.Mounts[i].Source = filepath.Join(dir, m.Source)
		}
	}
	allowDefaultDevices(spec.Linux)
	spec.Linux.CgroupsPath = r.cgroupPath(spec.Linux.CgroupsPath, id)
	return &Bundle{ID: id, Dir: dir, Spec: &spec, UserFromSpec: true}, nil
}

// cgroupPath makes a path of what the bundle names.
func (r *Runtime) cgroupPath(path, id string) string {
	if path == "" {
		return "/berth-oci/" + id
	}
	if slice, rest, ok := strings.Cut(path, ":"); r.Systemd && ok {
		if slice == "" {
			slice = "system.slice"
		}
		prefix, name, _ := strings.Cut(rest, ":")
		if strings.HasSuffix(name, ".slice") {
			return "/" + slice + "/" + name
		}
		return "/" + slice + "/" + strings.TrimPrefix(prefix+"-"+name, "-") + ".scope"
	}
	return filepath.Join("/", path)
}

// Create makes the container and leaves its first process waiting at a gate that Start finds by name. The
// returned Process is only good for its Pid, Console and Warnings. On failure nothing is left.
func (r *Runtime) Create(ctx context.Context, b *Bundle, o CreateOptions) (p *Process, err error) {
	c, err := r.reserve(b)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(c.dir))
		}
	}()
	gate, err := kernel.NewFIFO(filepath.Join(c.dir, gateFile))
	if err != nil {
		return nil, err
	}
	status, err := kernel.NewFIFO(filepath.Join(c.dir, statusFile))
	if err != nil {
		gate.Close()
		return nil, err
	}
	p, err = create(ctx, b, o.Stdio, nil, options{preserve: o.PreserveFDs, noPivot: o.NoPivot, gate: gate, status: status})
	if err != nil {
		return nil, err
	}
	if err := c.save(p.Pid()); err != nil {
		p.discard()
		return nil, errors.Join(err, p.Delete())
	}
	return p, nil
}

// Run makes the container and starts it; the caller waits for the Process, and then calls Delete.
func (r *Runtime) Run(ctx context.Context, b *Bundle, o CreateOptions) (p *Process, err error) {
	c, err := r.reserve(b)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(c.dir))
		}
	}()
	p, err = create(ctx, b, o.Stdio, nil, options{preserve: o.PreserveFDs, noPivot: o.NoPivot})
	if err != nil {
		return nil, err
	}
	if err = c.save(p.Pid()); err == nil {
		err = p.Start()
	}
	if err != nil {
		return nil, errors.Join(err, p.Delete())
	}
	return p, nil
}

// reserve takes the container's name.
func (r *Runtime) reserve(b *Bundle) (*Container, error) {
	if err := os.MkdirAll(r.Root, 0o711); err != nil {
		return nil, err
	}
	c := &Container{ID: b.ID, Bundle: *b, Created: time.Now().UTC(), dir: filepath.Join(r.Root, b.ID)}
	err := os.Mkdir(c.dir, 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil, fault.New(fault.Exists, "container with id %s exists: delete it first", b.ID)
	}
	if err == nil { // so that a killed creator's leftovers can be found and deleted
		err = record.Put(filepath.Join(c.dir, stateFile), c)
	}
	return c, err
}

func (c *Container) save(pid int) (err error) {
	c.Pid = pid
	if c.Started, err = kernel.StartTime(pid); err != nil {
		return err
	}
	if c.Boot, err = kernel.BootID(); err != nil {
		return err
	}
	return record.Put(filepath.Join(c.dir, stateFile), c)
}

// Open finds a container; fault.NotFound when there is none.
func (r *Runtime) Open(id string) (*Container, error) {
	c := &Container{dir: filepath.Join(r.Root, id)}
	err := fault.Wrap(fault.NotFound, os.ErrNotExist)
	if validID(id) {
		err = record.Load(filepath.Join(c.dir, stateFile), c)
	}
	if errors.Is(err, fault.NotFound) {
		return nil, fault.New(fault.NotFound, "container %s does not exist", id)
	}
	return c, err
}

// List returns all containers, by name.
func (r *Runtime) List() ([]*Container, error) {
	entries, err := os.ReadDir(r.Root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []*Container
	for _, e := range entries {
		if c, err := r.Open(e.Name()); err == nil {
			list = append(list, c)
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	return list, nil
}

// Status looks at the first process and its gate.
func (c *Container) Status() specs.ContainerState {
	if c.Pid == 0 {
		return specs.StateCreating
	}
	if !c.alive() {
		return specs.StateStopped
	}
	if c.waits() {
		return specs.StateCreated
	}
	if frozen, err := c.group().Frozen(); err == nil && frozen {
		return "paused"
	}
	return specs.StateRunning
}

// alive tells whether the first process still runs: the same, not another one with its number.
func (c *Container) alive() bool {
	boot, err := kernel.BootID()
	if err != nil || boot != c.Boot {
		return false
	}
	started, err := kernel.StartTime(c.Pid)
	return err == nil && started == c.Started
}

// waits tells whether the first process stands at its gate: it is the gate's only reader.
func (c *Container) waits() bool {
	f, err := kernel.OpenIn(nil, filepath.Join(c.dir, gateFile), os.O_WRONLY|kernel.ONonblock, 0, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

func (c *Container) group() *cgroup.Group { return cgroup.Load(c.Bundle.Spec.Linux.CgroupsPath) }

// State is the container's state as the runtime-spec has it.
func (c *Container) State() specs.State {
	s := specs.State{Version: specs.Version, ID: c.ID, Status: c.Status(), Bundle: c.Bundle.Dir, Annotations: c.Bundle.Spec.Annotations}
	if s.Status != specs.StateStopped {
		s.Pid = c.Pid
	}
	return s
}

// Start lets the program of a created container run, and returns when it was executed.
func (c *Container) Start() error {
	if status := c.Status(); status != specs.StateCreated {
		return fault.New(fault.Conflict, "cannot start a container that has %s", map[bool]string{true: "stopped", false: "been started"}[status == specs.StateStopped])
	}
	answer, err := kernel.OpenIn(nil, filepath.Join(c.dir, statusFile), os.O_RDONLY|kernel.ONonblock, 0, 0)
	if err != nil {
		return err
	}
	gate, err := kernel.OpenIn(nil, filepath.Join(c.dir, gateFile), os.O_WRONLY|kernel.ONonblock, 0, 0)
	if err != nil {
		answer.Close()
		return err
	}
	_, err = gate.Write([]byte{1})
	err = errors.Join(err, gate.Close(), kernel.Follow(&kernel.Child{}, answer).Started())
	if err != nil {
		return execError(c.Bundle.Spec.Process.Args[0], err)
	}
	return c.Bundle.runHooks(hooksOf(c.Bundle.Spec).Poststart, c.Pid, specs.StateRunning)
}

// Signal sends signal n to the first process, or to all of the container's.
func (c *Container) Signal(n int, all bool) error {
	if all {
		return c.signalAll(n)
	}
	pidfd, err := kernel.OpenPid(c.Pid)
	if err == nil {
		defer pidfd.Close()
	}
	if err != nil || !c.alive() {
		return fault.New(fault.Conflict, "container not running")
	}
	return kernel.SignalPid(pidfd, n)
}

func (c *Container) signalAll(n int) error {
	if n == kill {
		return c.group().Kill()
	}
	pids, err := c.group().Procs()
	for _, pid := range pids {
		if pidfd, err := kernel.OpenPid(pid); err == nil {
			kernel.SignalPid(pidfd, n)
			pidfd.Close()
		}
	}
	return err
}

// Pids lists the container's processes.
func (c *Container) Pids() ([]int, error) { return c.group().Procs() }

// Pause freezes the container; Resume lets it go on.
func (c *Container) Pause() error { return c.group().Freeze() }

// Resume undoes Pause.
func (c *Container) Resume() error { return c.group().Thaw() }

// Update changes the container's limits; the strings are warnings.
func (c *Container) Update(r *specs.LinuxResources) ([]string, error) { return c.group().Set(r) }

// Exec starts one more process in the running container.
func (c *Container) Exec(ctx context.Context, e ExecSpec, s Stdio) (*Process, error) {
	if status := c.Status(); status != specs.StateRunning && status != specs.StateCreated {
		return nil, fault.New(fault.Conflict, "cannot exec in a %s container", status)
	}
	return Exec(ctx, c.Pid, &c.Bundle, e, s)
}

// Delete removes a stopped or never started container; force kills a running one, and removes what a killed
// creator left. It is complete: processes, groups, record.
func (c *Container) Delete(force bool) error {
	if status := c.Status(); status != specs.StateStopped {
		if !force && status != specs.StateCreated {
			return fault.New(fault.Conflict, "cannot delete container %s that is not stopped: %s", c.ID, status)
		}
		if err := c.end(); err != nil {
			return err
		}
	}
	if err := remove(c.group()); err != nil {
		return err
	}
	hookErr := c.Bundle.Poststop()
	return errors.Join(os.RemoveAll(c.dir), hookErr)
}

// end kills the first process and waits until it is gone.
func (c *Container) end() error {
	pidfd, err := kernel.OpenPid(c.Pid)
	if err != nil || !c.alive() {
		return nil
	}
	defer pidfd.Close()
	if err := kernel.SignalPid(pidfd, kill); err != nil && !kernel.IsGone(err) {
		return err
	}
	c.group().Thaw()
	const patience = 10 * time.Second
	if err := kernel.AwaitEnd(pidfd, patience); err != nil {
		return fmt.Errorf("container %s does not end: %w", c.ID, err)
	}
	return nil
}

// ParseProcess reads a process.json, as exec --process takes it.
func ParseProcess(data []byte) (specs.Process, error) {
	var p specs.Process
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fault.New(fault.Invalid, "process: %w", err)
	}
	return p, nil
}
