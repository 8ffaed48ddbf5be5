package kernel_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/kernel"
)

func TestFilesTravel(t *testing.T) {
	a, b, err := kernel.SocketPair("test")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	if _, err := kernel.TryRead(b, make([]byte, 1)); err != kernel.ErrWouldBlock {
		t.Errorf("read of nothing: %v", err)
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("content"); err != nil {
		t.Fatal(err)
	}
	if err := kernel.SendFiles(a, []byte("hello"), []*os.File{f, f}); err != nil {
		t.Fatal(err)
	}
	if err := kernel.AwaitReadable(b); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 3)
	n, files, err := kernel.ReceiveFiles(b, buf)
	if err != nil || string(buf[:n]) != "hel" || len(files) != 2 {
		t.Fatalf("%q, %d files, %v", buf[:n], len(files), err)
	}
	got := make([]byte, 10)
	if n, _ := files[1].ReadAt(got, 0); string(got[:n]) != "content" {
		t.Errorf("the file has %q", got[:n])
	}
	kernel.CloseAll(append(files, nil))
	if n, files, err = kernel.ReceiveFiles(b, buf); string(buf[:n]) != "lo" || len(files) != 0 || err != nil {
		t.Errorf("the rest: %q, %d files, %v", buf[:n], len(files), err)
	}
	if err := kernel.SendFiles(a, []byte("x"), make([]*os.File, kernel.MaxFiles+1)); err == nil {
		t.Error("too many files are taken")
	}
	if kernel.HungUp(b) {
		t.Error("hung up before the end")
	}
	if err := kernel.CloseWrite(a); err != nil {
		t.Fatal(err)
	}
	if _, _, err := kernel.ReceiveFiles(b, buf); err != io.EOF || kernel.HungUp(b) {
		t.Errorf("half closed: %v, hung up %v", err, kernel.HungUp(b))
	}
	gone := make(chan error)
	go func() { gone <- kernel.AwaitHangup(b) }()
	a.Close()
	if err := <-gone; err != nil || !kernel.HungUp(b) {
		t.Errorf("closed: %v, hung up %v", err, kernel.HungUp(b))
	}
	b.SetReadDeadline(time.Unix(1, 0))
	if err := kernel.AwaitReadable(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
}

func TestListenInALongDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := kernel.DialUnix(dir, "sock"); !kernel.NobodyListens(err) {
		t.Errorf("nothing there: %v", err)
	}
	l, err := kernel.ListenUnix(dir, "sock")
	if err != nil {
		t.Fatal(err)
	}
	c, err := kernel.DialUnix(dir, "sock")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := kernel.Accept(l)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	ended := make(chan error)
	go func() { _, err := kernel.Accept(l); ended <- err }()
	l.Close()
	if err := <-ended; err == nil {
		t.Error("accept after close")
	}
	if _, err := kernel.DialUnix(dir, "sock"); !kernel.NobodyListens(err) {
		t.Errorf("a stale socket: %v", err)
	}
}

func TestSealed(t *testing.T) {
	f, err := kernel.Sealed("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if w, err := os.OpenFile(kernel.ProcFD(f), os.O_RDWR, 0); err == nil {
		if _, err := w.WriteAt([]byte("x"), 0); err == nil {
			t.Error("a sealed program can be written")
		}
		if err := w.Truncate(0); err == nil {
			t.Error("a sealed program can be truncated")
		}
		w.Close()
	}
	info, err := f.Stat()
	self, serr := os.Stat("/proc/self/exe")
	if err != nil || serr != nil || info.Size() != self.Size() {
		t.Errorf("%d bytes of %d: %v, %v", info.Size(), self.Size(), err, serr)
	}
}

func TestLocks(t *testing.T) {
	dir := t.TempDir()
	a, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if free, err := kernel.TryLock(a); err != nil || !free {
		t.Fatal(free, err)
	}
	if free, err := kernel.TryLock(b); err != nil || free {
		t.Errorf("locked twice: %v, %v", free, err)
	}
	got := make(chan error)
	go func() { got <- kernel.Lock(b) }()
	if err := kernel.Unlock(a); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestAwaitTaken(t *testing.T) {
	a, b, err := kernel.SocketPair("pair")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	if _, err := a.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	returned := make(chan struct{})
	go func() {
		kernel.AwaitTaken(a, time.Hour)
		close(returned)
	}()
	buf := make([]byte, 3)
	if _, err := io.ReadFull(b, buf); err != nil {
		t.Fatal(err)
	}
	select {
	case <-returned:
		t.Error("returned before all was read")
	default:
	}
	if _, err := io.ReadFull(b, buf[:2]); err != nil {
		t.Fatal(err)
	}
	<-returned
	if _, err := a.WriteString("to nobody"); err != nil {
		t.Fatal(err)
	}
	b.Close()
	kernel.AwaitTaken(a, time.Hour)
}
