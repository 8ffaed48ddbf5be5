package oci

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"berth/kernel"
)

// findProgram resolves what is executed, in the container's root and from its working directory.
func (b *builder) findProgram() (err error) {
	b.program, err = findProgram(b.spec.Process.Args, b.env)
	return err
}

// findProgram looks args[0] up in the PATH of env, as seen by the calling thread, whose root and working directory
// are the container's. Errors are StartErrors with the texts that the field's tools know.
func findProgram(args, env []string) (string, error) {
	if len(args) == 0 || args[0] == "" {
		return "", &StartError{Code: 127, Err: errors.New("no command specified")}
	}
	name := args[0]
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	// As in a shell: the first that can be executed, else the first that is there but can't be.
	var denied error
	for _, dir := range strings.Split(pathOf(env), ":") {
		if dir == "" {
			dir = "."
		}
		full := dir + "/" + name
		err := executable(full)
		if err == nil {
			return full, nil
		}
		var s *StartError
		if errors.As(err, &s) && s.Code == 126 && denied == nil && errors.Is(err, os.ErrPermission) {
			denied = &StartError{Code: 126, Err: fmt.Errorf("exec: %q: %w", name, os.ErrPermission)}
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &StartError{Code: 127, Err: fmt.Errorf("exec: %q: executable file not found in $PATH", name)}
}

func pathOf(env []string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], "PATH="); ok {
			return v
		}
	}
	return ""
}

// executable checks that path can be executed by anyone at all; whether by the container's user shows when it is tried.
func executable(path string) error {
	f, err := kernel.OpenIn(nil, path, kernel.OPath, 0, 0)
	if err != nil {
		return startError(path, err)
	}
	defer f.Close()
	st, err := kernel.Stat(f)
	if err != nil {
		return startError(path, err)
	}
	if dir, _ := kernel.IsDir(f); dir {
		return &StartError{Code: 126, Err: fmt.Errorf("exec: %q: is a directory: %w", path, os.ErrPermission)}
	}
	if st.Mode&0o111 == 0 {
		return startError(path, os.ErrPermission)
	}
	return nil
}

// startError words a failure to find or execute path.
func startError(path string, err error) error {
	switch err = bare(err); {
	case errors.Is(err, os.ErrNotExist) || kernel.IsNotDir(err):
		return &StartError{Code: 127, Err: fmt.Errorf("exec: %q: stat %s: %w", path, path, err)}
	case errors.Is(err, os.ErrPermission):
		return &StartError{Code: 126, Err: fmt.Errorf("exec: %q: %w", path, os.ErrPermission)}
	default:
		return &StartError{Code: 126, Err: fmt.Errorf("exec: %q: %w", path, err)}
	}
}

// execError words what the execution itself failed with.
func execError(path string, err error) error {
	var s *kernel.ScriptError
	if !errors.As(err, &s) || !s.Exec {
		return err
	}
	code := 126
	if errors.Is(s.Err, os.ErrNotExist) { // the file is there: its interpreter or loader is not
		code = 127
	}
	return &StartError{Code: code, Err: fmt.Errorf("exec %s: %w", path, s.Err)}
}
