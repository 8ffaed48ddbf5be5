// Package netlink changes and lists links, addresses, routes and flows of one network namespace.
//
// It decides nothing: names, addresses and order come from the caller. It is a thin layer over
// github.com/vishvananda/netlink, whose messages it uses; the socket is its own, so
// that several changes cost one system call and no 64 KiB buffer each.
// Invariant: a Conn speaks to the namespace of the thread that opened it, whatever thread uses it later.
package netlink

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Conn is an rtnetlink socket. Its methods may be called from any goroutine; they run one after the other.
type Conn struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	buf []byte
}

// Open opens a socket in the calling thread's network namespace (rtnetlink(7)). The caller closes it.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	// The reason in the kernel's own words, and a refused request not echoed (4.12).
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &Conn{fd: fd, buf: make([]byte, 16<<10)}, nil
}

// Close closes the socket. Closing twice is fine.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return os.NewSyscallError("close", err)
}

// Change is one modification, made by the functions of this package and carried out by Apply.
type Change struct {
	what string
	req  *nl.NetlinkRequest
}

// Apply makes the changes in their order, by one system call. All are tried; the error joins those
// that failed and wraps the kernel's errno.
func (c *Conn) Apply(changes ...Change) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var packet []byte
	first := c.seq + 1
	for _, ch := range changes {
		c.seq++
		ch.req.Seq = c.seq
		ch.req.Flags |= unix.NLM_F_REQUEST | unix.NLM_F_ACK
		packet = append(packet, ch.req.Serialize()...)
	}
	if err := c.send(packet); err != nil {
		return err
	}
	var all error
	for answered := 0; answered < len(changes); {
		err := c.receive(func(m syscall.NetlinkMessage) {
			i := int(m.Header.Seq - first)
			if m.Header.Type != unix.NLMSG_ERROR || i < 0 || i >= len(changes) {
				return
			}
			answered++
			if err := answer(m); err != nil {
				all = errors.Join(all, fmt.Errorf("%s: %w", changes[i].what, err))
			}
		})
		if err != nil {
			return errors.Join(all, err)
		}
	}
	return all
}

// get sends one request and returns the payload of its single answer.
func (c *Conn) get(what string, req *nl.NetlinkRequest) (payload []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	req.Seq = c.seq
	req.Flags |= unix.NLM_F_REQUEST
	if err := c.send(req.Serialize()); err != nil {
		return nil, err
	}
	for payload == nil && err == nil {
		failed := c.receive(func(m syscall.NetlinkMessage) {
			switch {
			case m.Header.Seq != req.Seq:
			case m.Header.Type != unix.NLMSG_ERROR:
				payload = append([]byte{}, m.Data...)
			default:
				if err = answer(m); err != nil {
					err = fmt.Errorf("%s: %w", what, err)
				}
			}
		})
		if failed != nil {
			return nil, failed
		}
	}
	return payload, err
}

func (c *Conn) send(packet []byte) error {
	for {
		err := unix.Sendto(c.fd, packet, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err != unix.EINTR {
			return os.NewSyscallError("sendto", err)
		}
	}
}

// receive hands the messages of one datagram to take.
func (c *Conn) receive(take func(syscall.NetlinkMessage)) error {
	n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
	if err == unix.EINTR {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("recvfrom", err)
	}
	messages, err := syscall.ParseNetlinkMessage(c.buf[:n])
	if err != nil {
		return fmt.Errorf("netlink answer of %d bytes: %w", n, err)
	}
	for _, m := range messages {
		take(m)
	}
	return nil
}

// answer reads an NLMSG_ERROR message: nil is an acknowledgement. The kernel's
// explanation, where it gives one, is part of the message (struct nlmsgerr, NLMSGERR_ATTR_MSG).
func answer(m syscall.NetlinkMessage) error {
	if len(m.Data) < 4 {
		return unix.EBADMSG
	}
	errno := unix.Errno(-int32(nl.NativeEndian().Uint32(m.Data)))
	if errno == 0 {
		return nil
	}
	const header = 4 + unix.NLMSG_HDRLEN // with NETLINK_CAP_ACK only the request's header follows the number
	if m.Header.Flags&unix.NLM_F_ACK_TLVS == 0 || len(m.Data) < header {
		return errno
	}
	attrs, err := nl.ParseRouteAttr(m.Data[header:])
	if err != nil {
		return errno
	}
	for _, a := range attrs {
		if a.Attr.Type == nl.NLMSGERR_ATTR_MSG {
			return fmt.Errorf("%w (%s)", errno, nl.BytesToString(a.Value))
		}
	}
	return errno
}

// Errors that callers act on, for use with errors.Is.
var (
	ErrNoLink  error = unix.ENODEV     // no such link
	ErrFull    error = unix.EXFULL     // the bridge has BridgePorts already
	ErrNoKind  error = unix.EOPNOTSUPP // the kernel has no links of that kind
	ErrNoRoute error = unix.ESRCH      // no such route
)
