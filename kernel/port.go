package kernel

import (
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// HoldPort binds a "tcp", "udp" or "sctp" socket to a, without listening, so that no other program can have that
// port as long as the file is open: EADDRINUSE when one has it already, EADDRNOTAVAIL when
// the address is not this host's. The caller closes the file.
func HoldPort(proto string, a netip.AddrPort) (*os.File, error) {
	f, err := bind(proto, a, false)
	// Connections of a server that has ended (TIME_WAIT) hold a port against all but those who say that they
	// reuse it; a server that lives holds it against them too, as it listens.
	if proto != "udp" && errors.Is(err, unix.EADDRINUSE) {
		f, err = bind(proto, a, true)
	}
	return f, err
}

func bind(proto string, a netip.AddrPort, reuse bool) (*os.File, error) {
	family, kind := unix.AF_INET6, unix.SOCK_STREAM
	var to unix.Sockaddr
	if ip := a.Addr().Unmap(); ip.Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}
	} else {
		to = &unix.SockaddrInet6{Port: int(a.Port()), Addr: ip.As16()}
	}
	protocol := 0
	switch proto {
	case "udp":
		kind = unix.SOCK_DGRAM
	case "sctp":
		protocol = unix.IPPROTO_SCTP
	}
	s, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, callError("socket", err)
	}
	if reuse {
		err = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil && kind == unix.SOCK_DGRAM {
		err = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUF, 0) // the kernel's minimum: nobody reads it
	}
	if err == nil && family == unix.AF_INET6 { // the IPv4 address of that port is another one's
		err = unix.SetsockoptInt(s, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = unix.Bind(s, to)
	}
	if err != nil {
		unix.Close(s)
		return nil, callError("bind", err)
	}
	return os.NewFile(uintptr(s), "port "+a.String()+"/"+proto), nil
}

// Why HoldPort fails, for use with errors.Is.
var (
	ErrPortInUse  error = unix.EADDRINUSE      // another program has the port
	ErrNotLocal   error = unix.EADDRNOTAVAIL   // the address is not this host's
	ErrNoProtocol error = unix.EPROTONOSUPPORT // the kernel has no such protocol
)
