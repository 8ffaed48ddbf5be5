//go:build linux

// Command breakout runs inside a container and tries to get out, or at the machine.
//
// Each try is harmless where it succeeds: it writes back what it read, or asks for what no kernel
// grants after the check of rights. It prints one line for each, "refused" or "ESCAPED", and ends
// with 1 when anything was let through. Arguments name tries to leave out.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// try is one way out. It returns why it failed, nil when it did not.
type try struct {
	name string
	do   func() error
}

// isRefusal tells whether a kernel says no for want of rights, as opposed to anything else.
func isRefusal(err error) bool {
	for _, no := range []error{unix.EPERM, unix.EACCES, unix.EROFS, unix.ENOSYS, errNothing} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// errNothing is for what is hidden rather than refused.
var errNothing = errors.New("there is nothing")

func main() {
	escaped := 0
	all := slices.Concat(writes(), mounts(), calls(), devices(), leaks())
	for _, t := range all {
		if slices.Contains(os.Args[1:], t.name) {
			continue
		}
		err := t.do()
		if isRefusal(err) {
			fmt.Printf("refused %s: %v\n", t.name, err)
			continue
		}
		escaped++
		fmt.Printf("ESCAPED %s: %v\n", t.name, err)
	}
	fmt.Printf("%d tries, %d escaped\n", len(all), escaped)
	if escaped > 0 {
		os.Exit(1)
	}
}

// rewrite writes to a file what it holds.
func rewrite(path string) func() error {
	return func() error {
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return errNothing
		}
		if err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(text)
		return errors.Join(err, f.Close())
	}
}

// openTo opens an existing file for writing, and writes nothing.
func openTo(path string) func() error {
	return func() error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EISDIR) {
			return errNothing
		}
		if err == nil {
			f.Close()
		}
		return err
	}
}

// hidden reads what must be empty.
func hidden(path string) func() error {
	return func() error {
		entries, err := os.ReadDir(path)
		if err == nil && len(entries) == 0 || errors.Is(err, os.ErrNotExist) {
			return errNothing
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if n, _ := f.Read(make([]byte, 16)); n == 0 && len(entries) == 0 {
			return errNothing
		}
		return nil
	}
}

// writes try settings of the machine, and control groups.
func writes() []try {
	all := []try{
		{"sysrq", openTo("/proc/sysrq-trigger")},
		{"uevent", openTo("/sys/kernel/uevent_helper")},
		{"make a cgroup", func() error { return unlessMade("/sys/fs/cgroup/breakout", "/sys/fs/cgroup/pids/breakout") }},
	}
	for _, path := range []string{"kernel/core_pattern", "kernel/modprobe", "kernel/panic", "vm/overcommit_memory", "fs/file-max", "net/ipv4/ip_forward", "kernel/hostname"} {
		all = append(all, try{"sysctl " + path, rewrite("/proc/sys/" + path)})
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/release_agent", "/sys/fs/cgroup/*/notify_on_release", "/sys/fs/cgroup/*/cgroup.procs", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/*/devices.allow", "/sys/kernel/mm/ksm/run", "/proc/irq/*/smp_affinity"} {
		all = append(all, try{"write " + pattern, func() error {
			found, err := filepath.Glob(pattern)
			if err != nil || len(found) == 0 {
				return errors.Join(err, errNothing)
			}
			for _, path := range found {
				if err = openTo(path)(); !isRefusal(err) {
					return fmt.Errorf("%s: %w", path, err)
				}
			}
			return err
		}})
	}
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware", "/proc/scsi", "/proc/acpi", "/proc/interrupts", "/sys/devices/virtual/powercap"} {
		all = append(all, try{"read " + path, hidden(path)})
	}
	return all
}

func unlessMade(paths ...string) error {
	err := errNothing
	for _, p := range paths {
		if _, missing := os.Stat(filepath.Dir(p)); missing != nil {
			continue // of the other version
		}
		if err = os.Mkdir(p, 0o755); err == nil {
			return errors.Join(err, os.Remove(p))
		}
	}
	return err
}

// mounts try to change what is seen.
func mounts() []try {
	path := func(s string) uintptr { return uintptr(unsafe.Pointer(&append([]byte(s), 0)[0])) }
	call := func(number uintptr, args ...uintptr) error {
		a := append(args, 0, 0, 0, 0, 0, 0)
		n, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno != 0 {
			return errno
		}
		_ = n
		return nil
	}
	return []try{
		{"mount tmpfs", func() error { return unix.Mount("x", "/tmp", "tmpfs", 0, "") }},
		{"mount proc", func() error { return unix.Mount("x", "/tmp", "proc", 0, "") }},
		{"mount cgroup", func() error { return unix.Mount("x", "/tmp", "cgroup", 0, "pids") }},
		{"mount cgroup2", func() error { return unix.Mount("x", "/tmp", "cgroup2", 0, "") }},
		{"remount", func() error { return unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND, "") }},
		{"bind", func() error { return unix.Mount("/proc/sys", "/tmp", "", unix.MS_BIND, "") }},
		{"propagation", func() error { return unix.Mount("", "/", "", unix.MS_SHARED, "") }},
		{"unmount /proc/sys", func() error { return unix.Unmount("/proc/sys", unix.MNT_DETACH) }},
		{"unmount a mask", func() error { return unix.Unmount("/proc/keys", unix.MNT_DETACH) }},
		{"pivot_root", func() error { return unix.PivotRoot("/", "/") }},
		{"fsopen", func() error { return call(unix.SYS_FSOPEN, path("tmpfs")) }},
		{"open_tree", func() error { return call(unix.SYS_OPEN_TREE, ^uintptr(99), path("/"), unix.OPEN_TREE_CLONE) }},
		{"mount_setattr", func() error {
			var attr unix.MountAttr
			return call(unix.SYS_MOUNT_SETATTR, ^uintptr(99), path("/proc/sys"), 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		}},
		{"unshare mounts", func() error { return unix.Unshare(unix.CLONE_NEWNS) }},
		{"unshare users", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
		{"unshare network", func() error { return unix.Unshare(unix.CLONE_NEWNET) }},
		{"setns", func() error { return unix.Setns(0, unix.CLONE_NEWNS) }},
		{"open by handle", func() error { return call(unix.SYS_OPEN_BY_HANDLE_AT, ^uintptr(99), 0, 0) }},
	}
}

// calls are system calls that are nobody's business in a container; their arguments are nonsense.
func calls() []try {
	bad := func(name string, number uintptr, args ...uintptr) try {
		return try{name, func() error {
			a := append(args, 0, 0, 0, 0, 0, 0)
			if _, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
				return errno
			}
			return nil
		}}
	}
	all := ^uintptr(0)
	return []try{
		bad("init_module", unix.SYS_INIT_MODULE), bad("finit_module", unix.SYS_FINIT_MODULE, all), bad("delete_module", unix.SYS_DELETE_MODULE),
		bad("reboot", unix.SYS_REBOOT, 1, 2, 3), bad("kexec_load", unix.SYS_KEXEC_LOAD, 0, 0, 0, all), bad("swapon", unix.SYS_SWAPON), bad("swapoff", unix.SYS_SWAPOFF),
		bad("acct", unix.SYS_ACCT, 1), bad("quotactl", unix.SYS_QUOTACTL, all), bad("sethostname", unix.SYS_SETHOSTNAME, 0, all),
		bad("setdomainname", unix.SYS_SETDOMAINNAME, 0, all), bad("settimeofday", unix.SYS_SETTIMEOFDAY, 1, 1), bad("clock_settime", unix.SYS_CLOCK_SETTIME, 0, 1),
		{"adjtimex", func() error { // a tick of nothing is refused after the check of rights
			_, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_TICK})
			return err
		}},
		bad("syslog", unix.SYS_SYSLOG, 3, 1, 1), bad("keyctl", unix.SYS_KEYCTL, 0, all-3, 1), bad("add_key", unix.SYS_ADD_KEY),
		bad("request_key", unix.SYS_REQUEST_KEY), bad("bpf", unix.SYS_BPF, all), bad("perf_event_open", unix.SYS_PERF_EVENT_OPEN), bad("userfaultfd", unix.SYS_USERFAULTFD, all),
		bad("io_uring_setup", unix.SYS_IO_URING_SETUP, 1, 0), bad("lookup_dcookie", unix.SYS_LOOKUP_DCOOKIE), bad("move_pages of another", unix.SYS_MOVE_PAGES, 1, 1, 1, 1, 1, all), bad("vhangup", unix.SYS_VHANGUP),
		{"vsock", func() error { return socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0) }},
		{"packet capture of another namespace", func() error { return openTo("/proc/1/ns/net")() }},
		{"nice", func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -20) }},
		{"raise a hard limit", func() error {
			var l unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
				return err
			}
			l.Max++
			return unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
		}},
	}
}

func socket(family, kind, proto int) error {
	fd, err := unix.Socket(family, kind, proto)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// devices are nodes of the machine's memory, disks and log, made by ourselves where that is allowed.
func devices() []try {
	open := func(name string, kind uint32, major, minor uint32) try {
		return try{name, func() error {
			node := "/tmp/breakout-node"
			os.Remove(node)
			if err := unix.Mknod(node, kind|0o600, int(unix.Mkdev(major, minor))); err != nil {
				return err
			}
			defer os.Remove(node)
			f, err := os.Open(node)
			if err == nil {
				f.Close()
			}
			return err
		}}
	}
	all := []try{
		open("/dev/mem", unix.S_IFCHR, 1, 1), open("/dev/port", unix.S_IFCHR, 1, 4), open("/dev/kmsg", unix.S_IFCHR, 1, 11),
		open("/dev/fuse", unix.S_IFCHR, 10, 229), open("/dev/loop-control", unix.S_IFCHR, 10, 237), open("/dev/net/tun", unix.S_IFCHR, 10, 200), open("/dev/loop0", unix.S_IFBLK, 7, 0),
	}
	partitions, _ := os.ReadFile("/proc/partitions")
	for _, line := range strings.Split(string(partitions), "\n") {
		if f := strings.Fields(line); len(f) == 4 && f[0] != "major" {
			major, _ := strconv.Atoi(f[0])
			minor, _ := strconv.Atoi(f[1])
			all = append(all, open("disk "+f[3], unix.S_IFBLK, uint32(major), uint32(minor)))
			break
		}
	}
	return all
}

// leaks look for what the runtime may have left open.
func leaks() []try {
	return []try{
		{"open files", func() error {
			entries, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				return err
			}
			for _, e := range entries {
				n, _ := strconv.Atoi(e.Name())
				to, err := os.Readlink("/proc/self/fd/" + e.Name())
				// Go's own: its poller, its look at the processors' quota, and the directory that is being read.
				own := strings.HasPrefix(to, "anon_inode:[event") || strings.HasPrefix(to, "/sys/fs/cgroup/") && strings.Contains(to, "/cpu") || strings.HasSuffix(to, "/fd")
				if n > 2 && err == nil && !own {
					return fmt.Errorf("file %d is %s", n, to)
				}
			}
			return errNothing
		}},
		{"working directory", func() error {
			dir, err := os.Getwd()
			if err == nil && filepath.IsAbs(dir) {
				return errNothing
			}
			return fmt.Errorf("it is %q, %w", dir, err)
		}},
		{"out by chroot", func() error { // the old trick: keep a directory, go to another root, climb
			if err := os.MkdirAll("/tmp/jail", 0o755); err != nil {
				return err
			}
			here, err := os.Open("/")
			if err != nil {
				return err
			}
			defer here.Close()
			if err := unix.Chroot("/tmp/jail"); err != nil {
				return err
			}
			defer unix.Chroot(".")
			if err := here.Chdir(); err != nil {
				return err
			}
			for range 100 {
				os.Chdir("..")
			}
			if _, err := os.Stat("canary-of-the-host"); err == nil {
				return nil
			}
			return errNothing
		}},
		{"processes of others", func() error {
			found, err := filepath.Glob("/proc/[0-9]*/comm")
			for _, f := range found {
				if comm, _ := os.ReadFile(f); strings.HasPrefix(string(comm), "berth") && !strings.HasPrefix(string(comm), "berth-init") {
					return fmt.Errorf("%s is %s, %w", f, comm, err)
				}
			}
			return errNothing
		}},
		{"root of process 1 leads out", func() error {
			if _, err := os.Stat("/proc/1/root/canary-of-the-host"); err == nil {
				return nil
			}
			return errNothing
		}},
	}
}
