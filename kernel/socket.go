package kernel

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// MaxFiles is how many descriptors SendFiles takes at once; the kernel's own
// bound is 253 (SCM_MAX_FD, unix(7)).
const MaxFiles = 64

// ErrWouldBlock is returned where a call that never waits found nothing to do.
var ErrWouldBlock = errors.New("nothing to read now")

// SocketPair returns two connected stream sockets of the unix family.
func SocketPair(name string) (a, b *os.File, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, callError("socketpair", err)
	}
	return os.NewFile(uintptr(p[0]), name), os.NewFile(uintptr(p[1]), name), nil
}

// underDir names an entry of dir so that it fits into a socket's address, which ends at 108 bytes (unix(7)).
func underDir(dir *os.File, name string) string { return ProcFD(dir) + "/" + name }

// ListenUnix makes a stream socket called name in dir and listens on it. The
// name stays when the socket is closed; an existing one is EADDRINUSE.
func ListenUnix(dir *os.File, name string) (*os.File, error) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, callError("socket", err)
	}
	err = unix.Bind(s, &unix.SockaddrUnix{Name: underDir(dir, name)})
	keep(dir)
	if err == nil {
		err = unix.Listen(s, unix.SOMAXCONN)
	}
	if err != nil {
		unix.Close(s)
		return nil, pathError("listen", dir.Name()+"/"+name, err)
	}
	return os.NewFile(uintptr(s), dir.Name()+"/"+name), nil
}

// DialUnix connects to the stream socket called name in dir. ENOENT and
// ECONNREFUSED mean that nobody listens.
func DialUnix(dir *os.File, name string) (*os.File, error) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, callError("socket", err)
	}
	// A non-blocking connect of this family is done or refused at once; EAGAIN is a full backlog.
	err = retry(func() error { return unix.Connect(s, &unix.SockaddrUnix{Name: underDir(dir, name)}) })
	keep(dir)
	if err != nil {
		unix.Close(s)
		return nil, pathError("connect", dir.Name()+"/"+name, err)
	}
	return os.NewFile(uintptr(s), dir.Name()+"/"+name), nil
}

// NobodyListens tells whether a failed DialUnix means that no process serves the socket.
func NobodyListens(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT)
}

// Accept waits for a connection to the listening socket l. Closing l ends the wait with an error.
func Accept(l *os.File) (*os.File, error) {
	c, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	n, failed := -1, error(nil)
	err = c.Read(func(s uintptr) bool {
		failed = retry(func() (err error) {
			n, _, err = unix.Accept4(int(s), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return err
		})
		return failed != unix.EAGAIN
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, callError("accept", err)
	}
	return os.NewFile(uintptr(n), l.Name()), nil
}

// SendFiles writes all of data, which is not empty, to the stream socket s; files travel with its first
// bytes (SCM_RIGHTS) and stay the caller's. It waits as the socket's deadline allows.
func SendFiles(s *os.File, data []byte, files []*os.File) error {
	if len(files) > MaxFiles {
		return callError("sendmsg", unix.ETOOMANYREFS)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = fd(f)
		}
		rights = unix.UnixRights(fds...)
	}
	c, err := s.SyscallConn()
	if err != nil {
		return err
	}
	for len(data) > 0 {
		n, failed := 0, error(nil)
		err = c.Write(func(s uintptr) bool {
			failed = retry(func() (err error) {
				n, err = unix.SendmsgN(int(s), data, rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
				return err
			})
			return failed != unix.EAGAIN
		})
		if err = errors.Join(err, failed); err != nil {
			return callError("sendmsg", err)
		}
		data, rights = data[n:], nil
	}
	keep(files...)
	return nil
}

// ReceiveFiles waits for bytes on the stream socket s, reads what is there, at most len(buf), and the files
// that came with them; those are the caller's to close. The end of the stream is io.EOF.
func ReceiveFiles(s *os.File, buf []byte) (n int, files []*os.File, err error) {
	c, err := s.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	var oob [64 + 4*MaxFiles]byte
	control, flags, failed := 0, 0, error(nil)
	err = c.Read(func(s uintptr) bool {
		failed = retry(func() (err error) {
			n, control, flags, _, err = unix.Recvmsg(int(s), buf, oob[:], unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
			return err
		})
		return failed != unix.EAGAIN
	})
	if err = errors.Join(err, failed); err != nil {
		return 0, nil, callError("recvmsg", err)
	}
	if control > 0 {
		files, err = received(oob[:control])
	}
	if flags&unix.MSG_CTRUNC != 0 {
		err = errors.Join(err, callError("recvmsg", unix.ETOOMANYREFS))
	}
	if err != nil {
		CloseAll(files)
		return 0, nil, err
	}
	if n == 0 && len(buf) > 0 {
		return 0, files, io.EOF
	}
	return n, files, nil
}

// received makes files of the descriptors in a control message.
func received(oob []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, callError("recvmsg", err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil { // something else than files
			continue
		}
		for _, n := range fds {
			files = append(files, os.NewFile(uintptr(n), "received"))
		}
	}
	return files, nil
}

// CloseAll closes files; nil entries are skipped.
func CloseAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// Pollable returns f as a file whose reads and writes wait without a thread and end when it is closed or its
// deadline passes. It takes f over: f is closed. The description becomes non-blocking for all who share it.
func Pollable(f *os.File) (*os.File, error) {
	n, err := unix.FcntlInt(uintptr(fd(f)), unix.F_DUPFD_CLOEXEC, 0)
	keep(f)
	name := f.Name()
	f.Close()
	if err != nil {
		return nil, pathError("dup", name, err)
	}
	if err := unix.SetNonblock(n, true); err != nil {
		unix.Close(n)
		return nil, pathError("fcntl", name, err)
	}
	return os.NewFile(uintptr(n), name), nil
}

// CloseWrite ends the sending direction of the socket s; the peer reads to its end.
func CloseWrite(s *os.File) error {
	err := unix.Shutdown(fd(s), unix.SHUT_WR)
	keep(s)
	return callError("shutdown", err)
}

// AwaitTaken waits until the peer of the socket s has read all that was written to it, at most for limit. On TCP it
// only knows that the peer's kernel has it (SIOCOUTQ; unix(7), tcp(7)).
func AwaitTaken(s *os.File, limit time.Duration) {
	defer keep(s)
	end := time.Now().Add(limit)
	for pause := 10 * time.Microsecond; ; pause *= 2 {
		left, err := unix.IoctlGetInt(fd(s), unix.SIOCOUTQ)
		if err != nil || left == 0 || HungUp(s) || time.Now().After(end) {
			return
		}
		time.Sleep(min(pause, time.Millisecond))
	}
}

// HungUp tells whether the peer of f is gone altogether. A peer that only closed its sending side is not.
func HungUp(f *os.File) bool {
	defer keep(f)
	return hungUp(fd(f))
}

func hungUp(n int) bool {
	p := []unix.PollFd{{Fd: int32(n)}}
	err := retry(func() error { _, err := unix.Poll(p, 0); return err })
	return err == nil && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
}

// AwaitHangup waits until the peer of f is gone, or f is closed. A TCP peer that ended its sending side first can't be
// told from one that is gone until something is written (tcp(7)).
func AwaitHangup(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return c.Read(func(n uintptr) bool { return hungUp(int(n)) })
}

// AwaitReadable waits until a read of f, or an Accept, would not block: there is something, or the end. Unlike a
// read with its buffer in hand, an idle wait holds no memory, and nothing has happened when it is broken off.
func AwaitReadable(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return c.Read(func(n uintptr) bool {
		p := []unix.PollFd{{Fd: int32(n), Events: unix.POLLIN}}
		err := retry(func() error { _, err := unix.Poll(p, 0); return err })
		return err != nil || p[0].Revents != 0
	})
}

// TryRead reads what is there and never waits: ErrWouldBlock when there is nothing.
func TryRead(f *os.File, buf []byte) (n int, err error) {
	c, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = c.Control(func(s uintptr) { n, failed = readNow(int(s), buf) })
	return result(n, errors.Join(err, failed))
}

func readNow(fd int, buf []byte) (n int, err error) {
	err = retry(func() (err error) { n, err = unix.Read(fd, buf); return err })
	return max(n, 0), err
}

func result(n int, err error) (int, error) {
	switch {
	case errors.Is(err, unix.EAGAIN):
		return 0, ErrWouldBlock
	case err != nil:
		return 0, callError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}
