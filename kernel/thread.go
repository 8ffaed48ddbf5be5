package kernel

import (
	"errors"
	"runtime"
)

// Thread runs fn on an operating system thread that ends afterwards, so that
// fn may change what belongs to a thread (namespaces, capabilities, filters). Goroutines
// that fn starts run elsewhere. Children that fn starts may outlive the thread.
func Thread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		err := errors.New("thread ended early")
		defer func() { done <- err }()
		err = fn()
	}()
	return <-done
}
