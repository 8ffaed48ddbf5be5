package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"berth/fault"
)

// Listen opens one listener per host: unix:///path or tcp://address:port.
// A socket file that nobody listens on any more is replaced; one that
// somebody does is fault.Conflict. Unix sockets get mode 0660 and group, when
// that is not "" (a missing group is an error only when it was asked for by mandatory).
func Listen(hosts []string, group string, mandatory bool) (all []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			all = nil
		}
	}()
	for _, h := range hosts {
		proto, addr, ok := strings.Cut(h, "://")
		if !ok {
			return all, fault.New(fault.Invalid, "listen on %q: not an address; use unix:///path or tcp://127.0.0.1:2375", h)
		}
		var l net.Listener
		switch proto {
		case "unix":
			l, err = listenUnix(addr, group, mandatory)
		case "tcp":
			l, err = listenTCP(addr)
		default:
			err = fault.New(fault.Invalid, "listen on %q: protocol %q is not known; use unix:// or tcp://", h, proto)
		}
		if err != nil {
			return all, err
		}
		all = append(all, l)
	}
	return all, nil
}

// listenTCP refuses addresses that others can reach: without TLS whoever reaches the API is root here.
func listenTCP(addr string) (net.Listener, error) {
	if !isLocal(addr) {
		return nil, fault.New(fault.Denied, "listen on tcp://%s: whoever reaches this port is root on this machine; use 127.0.0.1, or a unix socket through ssh", addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on tcp://%s: %w", addr, err)
	}
	return l, nil
}

func listenUnix(path, group string, mandatory bool) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// The final name appears only with the final owner and mode, so that nobody gets in between.
	temp := path + ".new"
	os.Remove(temp)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on unix://%s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	gid, err := groupID(group, mandatory)
	if err == nil {
		err = errors.Join(os.Chown(temp, -1, gid), os.Chmod(temp, 0o660), os.Rename(temp, path))
	}
	if err != nil {
		os.Remove(temp)
		return nil, errors.Join(fmt.Errorf("listen on unix://%s: %w", path, err), l.Close())
	}
	return unlinking{l, path}, nil
}

// unlinking removes its socket's name when it is closed.
type unlinking struct {
	net.Listener
	path string
}

func (u unlinking) Close() error {
	os.Remove(u.path)
	return u.Listener.Close()
}

func removeStale(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
		return fault.New(fault.Conflict, "listen on unix://%s: another daemon listens there; stop it, or choose another address with -H", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("listen on unix://%s: %w", path, err)
	}
	return os.Remove(path)
}

// groupID looks up the group of the socket; -1 leaves it to be ours. The default group need not exist.
func groupID(name string, mandatory bool) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.Atoi(name); err == nil {
		return n, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		if !mandatory {
			return -1, nil
		}
		return 0, fault.New(fault.NotFound, "group %s: %w; create it with groupadd, or leave -G out", name, err)
	}
	return strconv.Atoi(g.Gid)
}
