package bundle

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"berth/fault"
	"berth/oci"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultCapabilities is the field's default set.
func defaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// allCapabilities are those of Linux 5.9 and later, by number (capabilities(7)).
func allCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
		"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
		"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
		"CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
		"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
	}
}

// capabilityNames turns names as users write them into the kernel's. fault.Invalid for an unknown one.
func capabilityNames(names []string) (caps []string, all bool, err error) {
	for _, n := range names {
		name := strings.ToUpper(n)
		if name == "ALL" {
			all = true
			continue
		}
		if !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		if !slices.Contains(allCapabilities(), name) {
			return nil, false, fault.New(fault.Invalid, "unknown capability: %q", name)
		}
		caps = append(caps, name)
	}
	return caps, all, nil
}

// Capabilities is the set that --cap-add, --cap-drop and --privileged leave.
func Capabilities(add, drop []string, privileged bool) ([]string, error) {
	added, addAll, err := capabilityNames(add)
	if err != nil {
		return nil, err
	}
	dropped, dropAll, err := capabilityNames(drop)
	if err != nil {
		return nil, err
	}
	var base []string
	switch {
	case privileged:
		return allCapabilities(), nil
	case addAll:
		base = allCapabilities()
	case dropAll:
		dropped = nil
	default:
		base = defaultCapabilities()
	}
	set := slices.DeleteFunc(base, func(c string) bool { return slices.Contains(dropped, c) })
	for _, c := range added {
		if !slices.Contains(set, c) {
			set = append(set, c)
		}
	}
	return set, nil
}

func capabilityRule(f *Facts, b *oci.Bundle) error {
	set, err := Capabilities(f.host().CapAdd, f.host().CapDrop, f.host().Privileged)
	b.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: set, Effective: set, Permitted: set}
	return err
}

// SecurityOptions is --security-opt, read.
type SecurityOptions struct {
	NoNewPrivileges *bool
	Seccomp         string // "": the daemon's default, "builtin", "unconfined", or a profile as JSON
	WritableCgroups bool
	SystemPaths     bool   // nothing of /proc and /sys is hidden or read-only
	AppArmor        string // a profile's name
	Labels          []string
}

// NoNewPrivs tells whether the container's processes may gain no rights.
func (s SecurityOptions) NoNewPrivs(d Defaults) bool {
	if s.NoNewPrivileges != nil {
		return *s.NoNewPrivileges
	}
	return d.NoNewPrivileges
}

// ParseSecurity reads --security-opt. Labels of modules that this kernel does not load are taken and do nothing.
func ParseSecurity(opts []string) (SecurityOptions, error) {
	var s SecurityOptions
	for _, o := range opts {
		switch o {
		case "no-new-privileges":
			s.NoNewPrivileges = new(true)
			continue
		case "writable-cgroups":
			s.WritableCgroups = true
			continue
		}
		key, value, ok := strings.Cut(o, "=")
		if !ok {
			if key, value, ok = strings.Cut(o, ":"); !ok {
				return s, fault.New(fault.Invalid, "invalid --security-opt 1: %q", o)
			}
		}
		var err error
		switch key {
		case "label":
			s.Labels = append(s.Labels, value)
		case "apparmor":
			s.AppArmor = value
		case "systempaths":
			if s.SystemPaths = value == "unconfined"; !s.SystemPaths {
				err = fmt.Errorf("unknown value")
			}
		case "seccomp":
			s.Seccomp = value
		case "no-new-privileges":
			var on bool
			on, err = strconv.ParseBool(value)
			s.NoNewPrivileges = &on
		case "writable-cgroups":
			s.WritableCgroups, err = strconv.ParseBool(value)
		default:
			err = fmt.Errorf("unknown option")
		}
		if err != nil {
			return s, fault.New(fault.Invalid, "invalid --security-opt 2: %q", o)
		}
	}
	return s, nil
}

// securityRule sets no_new_privs and what of /proc and /sys is hidden.
func securityRule(f *Facts, b *oci.Bundle) error {
	s, err := ParseSecurity(f.host().SecurityOpt)
	if err != nil {
		return err
	}
	b.Spec.Process.NoNewPrivileges = s.NoNewPrivs(f.Defaults)
	if f.AppArmor && s.AppArmor != "unconfined" {
		b.Spec.Process.ApparmorProfile = s.AppArmor
	}
	if !f.host().Privileged && !s.SystemPaths {
		b.Spec.Linux.MaskedPaths = f.host().MaskedPaths
		b.Spec.Linux.ReadonlyPaths = f.host().ReadonlyPaths
	}
	return nil
}

// DefaultMaskedPaths are what of /proc and /sys is hidden, as in the field.
func DefaultMaskedPaths() []string {
	return []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
}

// DefaultReadonlyPaths are what of /proc can be read only.
func DefaultReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// Filters keeps the default system call filter for each set of capabilities: it takes half a millisecond to
// work out, and compiled it is a tenth of the profile's size on its way to the supervisor.
type Filters interface {
	ForCapabilities(caps []string) (*oci.Filter, error)
}

// FilterCache is Filters from the field's own profile. The zero value is ready.
type FilterCache struct {
	mu     sync.Mutex
	byCaps map[string]*oci.Filter
}

// maxFilters bounds a cache: hardly anyone uses more combinations of capabilities.
const maxFilters = 32

// ForCapabilities returns the filter for a bounding set; it is shared, so nobody changes it.
func (p *FilterCache) ForCapabilities(caps []string) (*oci.Filter, error) {
	key := strings.Join(caps, ",")
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, ok := p.byCaps[key]; ok {
		return f, nil
	}
	f, err := oci.DefaultFilter(caps)
	if err != nil {
		return nil, err
	}
	if len(p.byCaps) >= maxFilters || p.byCaps == nil {
		p.byCaps = map[string]*oci.Filter{}
	}
	p.byCaps[key] = f
	return f, nil
}

// CheckSeccomp refuses the value of a seccomp option that is no profile.
func CheckSeccomp(profile string) error {
	switch {
	case profile == "", profile == "builtin", profile == "unconfined", json.Valid([]byte(profile)):
		return nil
	}
	return fault.New(fault.Invalid, "Decoding seccomp profile failed: the profile is not JSON (the client sends the file's content)")
}

// seccompRule filters system calls; a privileged container is not filtered. Another runtime gets the profile, ours the compiled filter.
func seccompRule(f *Facts, b *oci.Bundle) error {
	s, err := ParseSecurity(f.host().SecurityOpt)
	if err != nil {
		return err
	}
	profile := s.Seccomp
	if profile == "" {
		profile = f.Defaults.Seccomp
	}
	caps := b.Spec.Process.Capabilities.Bounding
	switch {
	case f.host().Privileged && s.Seccomp == "" || profile == "unconfined":
		return nil
	case (profile == "" || profile == "builtin") && b.Foreign != nil:
		b.Spec.Linux.Seccomp, err = oci.DefaultProfile(caps)
		return err
	case profile == "" || profile == "builtin":
		b.Filter, err = f.Seccomp.ForCapabilities(caps)
		return err
	case CheckSeccomp(profile) != nil:
		return CheckSeccomp(profile)
	case b.Foreign != nil:
		b.Spec.Linux.Seccomp, err = oci.ParseProfile([]byte(profile), caps)
	default:
		b.Filter, err = oci.ParseFilter([]byte(profile), caps)
	}
	if err != nil {
		return fault.New(fault.Invalid, "Decoding seccomp profile failed: %w", err)
	}
	return nil
}
