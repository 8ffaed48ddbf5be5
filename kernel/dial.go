package kernel

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Socket makes a "tcp" or "udp" socket for talks with a, in the calling thread's network namespace, in which it stays. The caller closes it.
func Socket(proto string, a netip.Addr) (*os.File, error) {
	family, kind := unix.AF_INET6, unix.SOCK_STREAM
	if a.Unmap().Is4() {
		family = unix.AF_INET
	}
	if proto == "udp" {
		kind = unix.SOCK_DGRAM
	}
	s, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, callError("socket", err)
	}
	return os.NewFile(uintptr(s), proto+" "+a.String()), nil
}

// Connect connects a Socket to an address without a zone. It waits as the socket's write deadline allows.
func Connect(s *os.File, a netip.AddrPort) error {
	var to unix.Sockaddr
	if ip := a.Addr().Unmap(); ip.Is4() {
		to = &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}
	} else {
		to = &unix.SockaddrInet6{Port: int(a.Port()), Addr: ip.As16()}
	}
	c, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	begun := false
	err = c.Write(func(n uintptr) bool {
		if !begun {
			begun = true
			failed = retry(func() error { return unix.Connect(int(n), to) })
			return failed != unix.EINPROGRESS
		}
		code, err := unix.GetsockoptInt(int(n), unix.SOL_SOCKET, unix.SO_ERROR)
		if failed = err; err == nil && code != 0 {
			failed = unix.Errno(code)
		}
		return true
	})
	if err != nil {
		return err
	}
	return callError("connect", failed)
}
