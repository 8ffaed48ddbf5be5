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
	if err != nil {
		return nil, invalid("OCI runtime %s: %w: install it, or tell the daemon where it is (--add-runtime %s=PATH)", name, err, name)
	}
	return &oci.Foreign{Name: name, Path: path, Args: r.Args}, nil
}
