package oci

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/cgroup"
	"berth/kernel/namespace"
)

// builder sets one container up. All of its methods run on one locked thread that
// has (or makes) the container's namespaces: setup up to the moment where only the first process
// itself can go on, then settle, and a kernel.Script for what that process does.
type builder struct {
	tree
	stdio    [3]*os.File
	inNS     bool // the namespaces are there already: the thread belongs to the re-executed init
	preserve int  // how many files after stdio the program inherits
	ask      func() error
	groups   []*os.File // what a process writes "0" to in order to join the group
	self     *os.File   // our program, sealed: what Bundle.Init executes
	user     user
	uids     []specs.LinuxIDMapping // of the user namespace that the thread acts for from outside; nil inside
	program  string
	env      []string
}

// tree is the container's file tree while it is made.
type tree struct {
	bundle   *Bundle
	spec     *specs.Spec
	ns       namespaces
	group    *cgroup.Group
	grouped  func() error // waits for group, which is made beside all this; nil: it is there
	noPivot  bool         // the caller's root can't be pivoted
	first    bool         // we are the container's first process
	proc     *os.File     // the procfs that the caller sees, verified
	root     *os.File     // the container's root directory
	late     []lateMount
	masks    []lateMask
	console  bool
	master   *os.File // of the console; the caller's to close
	terminal *os.File // the console's other side
	warnings []string
	files    []*os.File // closed with the tree
	given    gifts      // in a user namespace: what was made outside; else nil
	served   gifts      // the root alone, when a program serves it that the container is not to hold; else nil
}

// own makes f be closed with the tree.
func (t *tree) own(f *os.File) *os.File {
	t.files = append(t.files, f)
	return f
}

func (t *tree) close() {
	kernel.CloseAll(t.files)
	t.files = nil
}

// setup does everything that can be done before there is a first process. It runs
// inside the new namespaces and ends with all mounted that doesn't need that process.
func (b *builder) setup() error {
	for _, step := range []func() error{
		b.openProc, b.enterNamespaces, b.privateMounts, b.mountRoot, b.mountAll, b.awaitGroup, b.devices, b.makeConsole, b.maskPaths,
		b.sysctls, b.names, b.hooks, b.readonlyRoot,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// settle makes the container's root the only one and resolves, inside of it, who runs what and where.
func (b *builder) settle() error {
	for _, step := range []func() error{b.pivot, b.resolveUser, b.workingDirectory, b.findProgram} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// hooks runs those that want to see the container before its root is the only one.
func (b *builder) hooks() error {
	if b.ask == nil {
		return nil
	}
	return b.ask()
}

// openProc keeps the caller's procfs at hand, for what is written through it
// later, when paths lead into the container. CVE-2025-52881: such writes go to a procfs that was verified.
func (b *builder) openProc() error {
	f, err := kernel.OpenIn(nil, "/proc", kernel.OPath|kernel.ODirectory, 0, 0)
	if err != nil {
		return err
	}
	b.proc = b.own(f)
	return kernel.IsProc(f)
}

func (b *builder) enterNamespaces() error {
	if b.inNS {
		kernel.Umask(0)
		return nil
	}
	if err := kernel.UnshareFS(); err != nil {
		return err
	}
	kernel.Umask(0) // of this thread alone: modes are what they are asked to be
	for _, j := range b.ns.joined {
		if err := namespace.Enter(j.file, j.kind); err != nil {
			return err
		}
	}
	return namespace.Unshare(b.ns.fresh &^ (namespace.PID | namespace.Cgroup))
}

// privateMounts keeps what we mount out of the host's table, while what the host
// unmounts goes here too.
func (b *builder) privateMounts() error {
	flag := uint64(kernel.PropSlave)
	switch p := b.spec.Linux.RootfsPropagation; p {
	case "", "slave", "rslave":
	case "private", "rprivate":
		flag = kernel.PropPrivate
	case "shared", "rshared":
		flag = kernel.PropShared
	case "unbindable", "runbindable":
		flag = kernel.PropPrivate // set on the root itself at the end
	default:
		return fault.New(fault.Invalid, "root propagation %q: want private, slave, shared or unbindable", p)
	}
	return kernel.Propagation("/", flag, true)
}

func (b *builder) sysctls() error {
	for key, value := range b.spec.Linux.Sysctl {
		name := strings.ReplaceAll(key, ".", "/")
		if strings.Contains(key, "/") {
			name = key // an interface name may hold dots: net/ipv4/conf/eth0.1/forwarding
		}
		f, err := kernel.OpenIn(b.proc, path.Join("sys", name), os.O_WRONLY, 0, kernel.Beneath|kernel.NoSymlinks)
		if err != nil {
			return fmt.Errorf("set sysctl %s: %w", key, err)
		}
		_, err = f.WriteString(value)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("set sysctl %s to %q: %w", key, value, err)
		}
	}
	return nil
}

func (b *builder) names() error {
	if name := b.spec.Hostname; name != "" && b.ns.has(namespace.UTS) {
		if err := kernel.SetHostname(name); err != nil {
			return fmt.Errorf("set hostname %q: %w", name, err)
		}
	}
	if name := b.spec.Domainname; name != "" && b.ns.has(namespace.UTS) {
		if err := kernel.SetDomainname(name); err != nil {
			return fmt.Errorf("set domainname %q: %w", name, err)
		}
	}
	return nil
}

// workingDirectory goes into the program's directory. A symbolic link of the image may lead
// anywhere in the root, but not out (CVE-2024-21626): the kernel's own name for where we are says so.
func (b *builder) workingDirectory() error {
	dir := b.spec.Process.Cwd
	if dir == "" {
		dir = "/"
	}
	err := kernel.Chdir(dir)
	if errors.Is(err, os.ErrNotExist) && b.bundle.MakeCwd {
		made, merr := makeIn(nil, dir, true, int(b.user.uid), int(b.user.gid))
		if merr != nil {
			return fmt.Errorf("create working directory %q: %w", dir, merr)
		}
		made.Close()
		err = kernel.Chdir(dir)
	}
	if err != nil {
		return &StartError{Code: 126, Err: fmt.Errorf("chdir to cwd (%q) set in config.json failed: %w", dir, bare(err))}
	}
	return kernel.InsideRoot()
}

// bare strips the path from an error that is told with another one.
func bare(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
