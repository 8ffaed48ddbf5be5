package seccomp

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel"
)

// bound runs fn on a thread that p is loaded on and that ends with it.
func bound(t *testing.T, p Program, fn func()) {
	t.Helper()
	err := kernel.Thread(func() error {
		err := p.Load()
		if err == nil {
			fn()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func mustCompile(t *testing.T, s *specs.LinuxSeccomp, err error) Program {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestKernelAgrees loads the default profile on a thread and makes calls that it treats in each of its ways.
func TestKernelAgrees(t *testing.T) {
	kerneltest.Root(t)
	s, err := Default(nil)
	p := mustCompile(t, s, err)
	try := func(number, arg uintptr) error {
		_, _, errno := unix.RawSyscall(number, arg, 0, 0)
		return errno
	}
	unknown := uintptr(900)
	want := []struct {
		what   string
		number uintptr
		arg    uintptr
		errno  unix.Errno
	}{
		{"getpid", unix.SYS_GETPID, 0, 0},
		{"mount", unix.SYS_MOUNT, 0, unix.EPERM},
		{"clone3", unix.SYS_CLONE3, 0, unix.ENOSYS},
		{"clone with a new user namespace", unix.SYS_CLONE, unix.CLONE_NEWUSER, unix.EPERM},
		{"socket of AF_VSOCK", unix.SYS_SOCKET, unix.AF_VSOCK, unix.EPERM},
		{"socket of AF_UNIX without a type", unix.SYS_SOCKET, unix.AF_UNIX, unix.ESOCKTNOSUPPORT},
		{"personality 1", unix.SYS_PERSONALITY, 1, unix.EPERM},
		{"personality 0", unix.SYS_PERSONALITY, 0, 0},
		{"a call of the future", unknown, 0, unix.ENOSYS},
	}
	bound(t, p, func() {
		for _, w := range want {
			if err := try(w.number, w.arg); err != w.errno {
				t.Errorf("%s: %v, want %v", w.what, err, w.errno)
			}
		}
		if mode := seccompMode(t, "/proc/thread-self/status"); mode != "2" {
			t.Errorf("the thread's seccomp mode is %q", mode)
		}
	})
	if err := unix.Unshare(0); err != nil {
		t.Errorf("another thread is bound too: unshare: %v", err)
	}
}

func seccompMode(t *testing.T, file string) string {
	status, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
	}
	const name = "\nSeccomp:\t"
	for i := range status {
		if len(status) > i+len(name) && string(status[i:i+len(name)]) == name {
			return string(status[i+len(name) : i+len(name)+1])
		}
	}
	return ""
}

// TestForeignArchitecture runs a 32-bit x86 program under programs that do and don't allow its calls.
func TestForeignArchitecture(t *testing.T) {
	kerneltest.Root(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("needs an amd64 machine: the test program is one for 32-bit x86")
	}
	file := filepath.Join(t.TempDir(), "exit42")
	if err := os.WriteFile(file, exit42(), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(p Program) (ws syscall.WaitStatus, err error) {
		bound(t, p, func() {
			var pid int
			if pid, err = syscall.ForkExec(file, []string{file}, nil); err == nil {
				_, err = syscall.Wait4(pid, &ws, 0, nil)
			}
		})
		return ws, err
	}
	if _, err := run(Program{}); errors.Is(err, unix.ENOEXEC) {
		t.Skip("needs CONFIG_IA32_EMULATION: this kernel runs no 32-bit program")
	}
	s, err := Default(nil)
	p := mustCompile(t, s, err)
	if ws, err := run(p); err != nil || ws.ExitStatus() != 42 {
		t.Errorf("allowed by the profile: status %#x, %v", ws, err)
	}
	s.Architectures = slices.DeleteFunc(s.Architectures, func(a specs.Arch) bool { return a == specs.ArchX86 })
	if ws, err := run(mustCompile(t, s, nil)); err != nil || !ws.Signaled() || ws.Signal() != syscall.SIGSYS {
		t.Errorf("not in the profile: status %#x, %v, want SIGSYS", ws, err)
	}
}

// exit42 is an ELF file for 32-bit x86 that ends with 42 by int 0x80.
func exit42() []byte {
	code := []byte{0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80}
	const base, header = 0x08048000, 52 + 32
	b := append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 9)...)
	for _, v := range []any{
		uint16(2), uint16(3), uint32(1), uint32(base + header), uint32(52), uint32(0), uint32(0), // executable, x86, entry, program headers
		uint16(52), uint16(32), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(0), uint32(base), uint32(base), uint32(header + len(code)), uint32(header + len(code)), uint32(5), uint32(4096),
	} {
		b, _ = binary.Append(b, binary.LittleEndian, v)
	}
	return append(b, code...)
}

// TestLoadNeedsARight loses both rights and asks for the words.
func TestLoadNeedsARight(t *testing.T) {
	kerneltest.Root(t)
	s, err := Default(nil)
	p := mustCompile(t, s, err)
	err = kernel.Thread(func() error {
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&head, &none[0]); err != nil {
			return err
		}
		return p.Load()
	})
	if !errors.Is(err, fault.Denied) {
		t.Errorf("load without rights: %v", err)
	}
}

// TestNotifications hands a call to a supervisor.
func TestNotifications(t *testing.T) {
	kerneltest.Root(t)
	p := mustCompile(t, &specs.LinuxSeccomp{DefaultAction: specs.ActAllow,
		Syscalls: []specs.LinuxSyscall{{Names: []string{"sethostname"}, Action: specs.ActNotify}}}, nil)
	listener, called := make(chan *os.File), make(chan error)
	go func() {
		called <- kernel.Thread(func() error {
			f, err := p.Listen()
			if err != nil {
				t.Error(err)
			}
			listener <- f
			_, _, errno := unix.RawSyscall(unix.SYS_SETHOSTNAME, 0, 0, 0)
			return errno
		})
	}()
	f := <-listener
	if f == nil {
		return
	}
	poll := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, 10_000)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n != 1 {
			t.Fatalf("no notification: %d, %v", n, err)
		}
		break
	}
	f.Close() // nobody answers: the kernel gives ENOSYS
	if err := <-called; err != unix.ENOSYS {
		t.Errorf("the call that nobody answered: %v", err)
	}
}
