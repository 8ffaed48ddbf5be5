package oci

import (
	"errors"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel/namespace"
)

func TestSysctlsOfTheMachineAreRefused(t *testing.T) {
	all := namespaces{fresh: namespace.IPC | namespace.Net | namespace.UTS}
	for key, c := range map[string]struct {
		ns   namespaces
		want string
	}{
		"net.core.somaxconn":              {all, ""},
		"net/ipv4/conf/eth0.1/forwarding": {all, ""},
		"kernel.shmmax":                   {all, ""},
		"fs.mqueue.msg_max":               {all, ""},
		"kernel.domainname":               {all, ""},
		"net.ipv4.ip_forward":             {namespaces{fresh: namespace.IPC}, "not allowed in host network namespace"},
		"kernel.msgmax":                   {namespaces{}, "not allowed in the hosts ipc namespace"},
		"kernel/shmmax":                   {namespaces{}, "not allowed in the hosts ipc namespace"},
		"kernel.core_pattern":             {all, "is not in a separate kernel namespace"},
		"vm.swappiness":                   {all, "is not in a separate kernel namespace"},
		"kernel.hostname":                 {all, `conflicts with the OCI "hostname" field`},
		"net/../kernel/core_pattern":      {all, "is no name of a setting"},
		"user.max_user_namespaces":        {all, "is not in a separate kernel namespace"},
	} {
		err := checkSysctls(&specs.Spec{Linux: &specs.Linux{Sysctl: map[string]string{key: "1"}}}, c.ns)
		if (c.want == "") != (err == nil) || err != nil && (!errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", key, err, c.want)
		}
	}
}
