package kernel

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// Thread runs fn on an operating system thread that ends afterwards, so that
// fn may change what belongs to a thread (namespaces, capabilities, filters). Goroutines
// that fn starts run elsewhere. Children that fn starts may outlive the thread.
// The process's first thread is never used: the runtime can't end it, and /proc/self shows its namespaces and groups.
func Thread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- Thread(fn) // meanwhile the first thread is taken
			return
		}
		err := errors.New("thread ended early")
		defer func() { done <- err }()
		err = fn()
	}()
	return <-done
}
