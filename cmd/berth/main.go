// Command berth is the command line of the container engine.
package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"berth/cli"
	"berth/cli/session"
	"berth/client"
)

// version and commit are set when a release is built.
var (
	version = "dev"
	commit  = "unknown"
)

func main() {
	os.Exit(cli.Main(&session.Program{
		Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Getenv: os.LookupEnv, Version: version, Commit: commit, Launch: launch, Lock: lockDir,
	}))
}

// launch says how to start the daemon; nil for those who may not.
func launch() *client.Launch {
	if os.Geteuid() != 0 {
		return nil
	}
	dir := "/run/berth"
	return &client.Launch{Program: daemon(), Dir: dir, Log: filepath.Join(dir, "berthd.log"), Lock: lock}
}

// daemon finds berthd beside this program, else where PATH leads.
func daemon() string {
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), "berthd"); executable(beside) {
			return beside
		}
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if p := filepath.Join(dir, "berthd"); filepath.IsAbs(dir) && executable(p) {
			return p
		}
	}
	return "berthd"
}

func executable(path string) bool {
	i, err := os.Stat(path)
	return err == nil && i.Mode().IsRegular() && i.Mode()&0o111 != 0
}

// lock waits for the exclusive lock on a file (flock(2)); it is free again when its holder ends, in whatever way.
func lock(path string) (func() error, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return flock(f)
}

// lockDir waits for the exclusive lock on a directory, so that no file of it is in the way of others.
func lockDir(path string) (func() error, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return flock(f)
}

func flock(f *os.File) (unlock func() error, err error) {
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(&os.PathError{Op: "flock", Path: f.Name(), Err: err}, f.Close())
	}
	return f.Close, nil
}
