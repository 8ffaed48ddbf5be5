package kernel

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// FuseOverlay is the kind of mount that NewMount makes with the program fuse-overlayfs: source is the program's path, options
// are an overlay's. The program serves the mount until the last user of it is gone, and then ends by itself; it belongs to whoever
// called NewMount, but not to the calling thread's namespaces. It may write no more than a quota allows, so it has no CAP_SYS_RESOURCE.
const FuseOverlay = "fuse.fuse-overlayfs"

// fuseDevice is where the kernel gives a file system's requests to a program (fuse(4)).
const fuseDevice = "/dev/fuse"

// newFuseOverlay mounts it. The program gets the open device as a mount point of the name /dev/fd/N, which libfuse
// takes for a mount that is made already (libfuse 3.3).
func newFuseOverlay(program string, options []string, attrs int) (*os.File, error) {
	device, err := OpenIn(nil, fuseDevice, os.O_RDWR, 0, 0) // package os would make it one that doesn't wait
	if err != nil {
		return nil, err
	}
	defer device.Close()
	kind, name, _ := strings.Cut(FuseOverlay, ".")
	m, err := newMount(kind, filepath.Base(program), []string{
		"subtype=" + name, "fd=" + strconv.Itoa(fd(device)), "rootmode=40000", "user_id=0", "group_id=0", "allow_other", "default_permissions",
	}, attrs)
	keep(device)
	if err != nil {
		return nil, err
	}
	said, err := Memory(name, nil)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	defer said.Close()
	ended, err := serve(program, options, device, said)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	device.Close() // with the program, nobody has it: then the kernel answers in its place, instead of waiting
	if _, err = Stat(m); err == nil {
		return m, nil
	}
	m.Close()
	<-ended
	if text, rerr := io.ReadAll(io.NewSectionReader(said, 0, 1000)); rerr == nil && len(text) > 0 {
		err = &detail{err, strings.TrimSpace(string(text))}
	}
	return nil, fmt.Errorf("mount by %s: %w", program, err)
}

// serve starts the program. It runs in the namespaces that this process began with, or it would hold those of the
// calling thread, and what is mounted there, for ever. ended is closed when it ended and was reaped.
func serve(program string, options []string, device, said *os.File) (ended chan struct{}, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	var p *os.Process
	err = Thread(func() error {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_RESOURCE, 0, 0, 0); err != nil && err != unix.EINVAL {
			return callError("prctl", err)
		}
		p, err = os.StartProcess(program, []string{filepath.Base(program), "-f", "-o", fuseOptions(options), "/dev/fd/3"}, &os.ProcAttr{
			Dir: "/", Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Files: []*os.File{null, null, said, device},
			Sys: &syscall.SysProcAttr{Setsid: true}, // no terminal's signals
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = p.Wait() // its mount tells what is to be known
	}()
	return ended, nil
}

// fuseOptions joins an overlay's options as the program takes them.
func fuseOptions(options []string) string {
	var lowers, rest []string
	for _, o := range options {
		if path, ok := strings.CutPrefix(o, "lowerdir+="); ok {
			lowers = append(lowers, path)
		} else {
			rest = append(rest, o)
		}
	}
	return strings.Join(append([]string{"lowerdir=" + strings.Join(lowers, ":")}, rest...), ",")
}
