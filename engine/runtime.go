package engine

import (
	"os/exec"

	"berth/oci"
)

// foreign finds the program of the runtime that a container names; nil for ours.
func (c *starter) foreign(name string) (*oci.Foreign, error) {
	r, own, err := c.defaults.Runtimes.Find(name)
	if own || err != nil {
		return nil, err
	}
	path, err := exec.LookPath(r.Path)
	if err != nil { // without the system's words: clients take "no such file" for the container's program
		return nil, invalid("OCI runtime %s: there is no program %s: install it, or tell the daemon where it is (--add-runtime %s=PATH)", name, r.Path, name)
	}
	return &oci.Foreign{Name: name, Path: path, Args: r.Args}, nil
}
