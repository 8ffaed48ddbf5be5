package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"berth/client"
)

// errDetached says that the user typed the keys that leave a container running.
var errDetached = errors.New("read escape sequence")

// joint joins a process's stream to the standard streams. A nil one is not joined.
type joint struct {
	stream *client.Stream
	tty    bool
	in     io.Reader
	out    io.Writer
	err    io.Writer
	keys   []byte // that detach; nil: none do

	left atomic.Bool // the keys were typed: the end of the outputs, which follows, is not the process's
}

// join begins to copy. The result is sent once: nil when the outputs have ended, errDetached, or what went wrong.
func (j *joint) join() <-chan error {
	result := make(chan error, 2)
	if j.out != nil || j.err != nil {
		go func() {
			err := j.output()
			if j.left.Load() {
				err = errDetached
			}
			result <- err
		}()
	}
	go func() {
		if err := j.input(); errors.Is(err, errDetached) || j.out == nil && j.err == nil {
			result <- err
		}
	}()
	return result
}

func (j *joint) output() error {
	out, errOut := j.out, j.err
	if out == nil {
		out = io.Discard
	}
	if errOut == nil {
		errOut = io.Discard
	}
	var err error
	if j.tty {
		_, err = io.Copy(out, j.stream)
	} else {
		err = client.Demux(out, errOut, j.stream)
	}
	if errors.Is(err, syscall.ECONNRESET) {
		err = nil // the process is gone with its side of the connection
	}
	return err
}

// input copies the standard input, and then tells the process that it has ended.
func (j *joint) input() error {
	if j.in != nil {
		in := j.in
		if j.tty && len(j.keys) > 0 {
			in = &keyReader{r: in, keys: j.keys}
		}
		if _, err := io.Copy(j.stream, in); errors.Is(err, errDetached) {
			j.left.Store(true)
			j.stream.Write(j.keys) // so that the daemon knows that this is no broken connection
			return err
		}
	}
	// The other side may be gone already.
	if err := j.stream.CloseWrite(); err != nil && !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.EPIPE) {
		return err
	}
	return nil
}

// keyReader passes input on until it holds the detach keys in a row.
type keyReader struct {
	r     io.Reader
	keys  []byte
	seen  int // how many of them have just been typed, and are held back
	ready []byte
	err   error
}

func (k *keyReader) Read(p []byte) (int, error) {
	for len(k.ready) == 0 {
		if k.err != nil {
			return 0, k.err
		}
		buf := make([]byte, max(len(p), 1))
		n, err := k.r.Read(buf)
		k.err = err
		for _, c := range buf[:n] {
			if c == k.keys[k.seen] {
				if k.seen++; k.seen == len(k.keys) {
					k.err = errDetached
					k.seen = 0
					break
				}
				continue
			}
			k.ready = append(k.ready, k.keys[:k.seen]...)
			k.seen = 0
			if c == k.keys[0] {
				k.seen = 1
				if len(k.keys) == 1 {
					k.err = errDetached
					break
				}
				continue
			}
			k.ready = append(k.ready, c)
		}
		if k.err != nil && k.err != errDetached {
			k.ready = append(k.ready, k.keys[:k.seen]...)
			k.seen = 0
		}
	}
	n := copy(p, k.ready)
	k.ready = k.ready[n:]
	return n, nil
}

// defaultDetachKeys are ctrl-p ctrl-q.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// parseKeys reads comma-separated keys: a letter, or ctrl- with a letter or one of @ [ \ ] ^ _.
func parseKeys(s string) ([]byte, error) {
	if s == "" {
		s = defaultDetachKeys
	}
	var keys []byte
	for _, k := range strings.Split(s, ",") {
		c, ctrl := strings.CutPrefix(strings.ToLower(k), "ctrl-")
		switch {
		case ctrl && len(c) == 1 && (c[0] >= '@' && c[0] <= '_' || c[0] >= 'a' && c[0] <= 'z'):
			keys = append(keys, c[0]&0x1f)
		case len(k) == 1:
			keys = append(keys, k[0])
		default:
			return nil, fmt.Errorf("invalid detach keys (%s): unknown character: '%s'; use a letter or ctrl- and a letter, with commas between", s, k)
		}
	}
	return keys, nil
}

// forwarded are the signals that a program may be sent on purpose. Those of
// job control concern this process. Not all of the sixty-four: catching one costs 10 µs, of a run's few milliseconds.
var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGALRM, syscall.SIGTERM, syscall.SIGCONT, syscall.SIGPWR,
}

// catchSignals collects signals until stop is called. It works beside its caller,
// which is waiting for the daemon meanwhile; ready is closed when they are caught.
func catchSignals() (caught chan os.Signal, ready <-chan struct{}, stop func()) {
	caught = make(chan os.Signal, 128)
	done := make(chan struct{})
	go func() {
		signal.Notify(caught, forwarded...)
		close(done)
	}()
	return caught, done, func() {
		go func() { // the process is about to end: not worth waiting for
			<-done
			signal.Stop(caught)
		}()
	}
}

// forward sends caught signals on to a container until stop is closed.
func forward(ctx context.Context, api *client.Client, id string, caught <-chan os.Signal, stop <-chan struct{}) {
	for {
		select {
		case sig := <-caught:
			if n, ok := sig.(syscall.Signal); ok {
				api.Containers.Kill(ctx, id, strconv.Itoa(int(n))) // it may have ended
			}
		case <-stop:
			return
		}
	}
}
