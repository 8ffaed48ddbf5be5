package engine

import (
	"fmt"
	"os"
	"strings"

	"berth/container"
	"berth/engine/bundle"
	"berth/fault"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// joinNamespaces finds the namespaces of other containers that r is to share.
func (c *starter) joinNamespaces(r *container.Record, f *bundle.Facts) error {
	if m := r.HostConfig.PidMode; m.IsContainer() {
		pid, err := c.pidOf(m.Container(), "PID")
		if err != nil {
			return err
		}
		f.Join[specs.PIDNamespace] = fmt.Sprintf("/proc/%d/ns/pid", pid)
	}
	if m := r.HostConfig.IpcMode; m.IsContainer() {
		pid, err := c.shareableIPC(m.Container())
		if err != nil {
			return err
		}
		f.Join[specs.IPCNamespace] = fmt.Sprintf("/proc/%d/ns/ipc", pid)
		f.Shm = fmt.Sprintf("/proc/%d/root/dev/shm", pid)
	}
	return nil
}

// shareableIPC is the first process of a container whose IPC namespace and /dev/shm others may share.
func (c *starter) shareableIPC(ref string) (int, error) {
	pid, err := c.pidOf(ref, "IPC")
	if err != nil {
		return 0, err
	}
	other, err := c.index.Get(ref)
	if err != nil {
		return 0, err
	}
	if m := other.record().HostConfig.IpcMode; m.IsPrivate() || m.IsNone() {
		return 0, fault.New(fault.Invalid, "failed to join IPC namespace: container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", ref)
	}
	return pid, nil
}

// hasAppArmor tells whether profiles are applied (the kernel's Documentation/admin-guide/LSM/apparmor.rst).
func hasAppArmor() bool {
	text, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(text), "Y")
}
