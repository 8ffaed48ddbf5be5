package kernel

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Thread runs fn on an operating system thread that ends afterwards, so that
// fn may change what belongs to a thread (namespaces, capabilities, filters). Goroutines
// that fn starts run elsewhere. Children that fn starts may outlive the thread.
func Thread(fn func() error) error {
	done := make(chan error, 1)
	go onThread(fn, done)
	return <-done
}

func onThread(fn func() error, done chan error) {
	runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
	if unix.Gettid() == os.Getpid() {
		// The first thread never ends, and stands for the whole process in /proc. It is held here, so that another does the job.
		other := make(chan error, 1)
		go onThread(fn, other)
		err := <-other
		runtime.UnlockOSThread()
		done <- err
		return
	}
	err := errors.New("thread ended early")
	defer func() { done <- err }()
	err = fn()
}
