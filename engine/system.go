package engine

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"berth/container"
	"berth/engine/device"
	"berth/engine/images"
	"berth/engine/journal"
	"berth/engine/machine"
	"berth/engine/request"
	"berth/engine/usage"
	"berth/engine/volumes"
	"berth/fault"
	"berth/internal/record"
	"berth/union"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
)

// System describes the engine and its machine.
type System struct {
	config     Config
	id         string
	layers     union.Driver
	containers *Containers
	images     *images.Service
	events     *journal.Journal
}

// engineID is kept with the data, so that it means this collection of images and containers.
func engineID(dir string) (string, error) {
	path := filepath.Join(dir, "engine-id.json")
	var id string
	err := record.Load(path, &id)
	if err == nil || !errors.Is(err, fault.NotFound) {
		return id, err
	}
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // a random UUID (RFC 9562)
	h := hex.EncodeToString(b[:])
	id = h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
	return id, record.Save(path, id)
}

// Version is the engine's version; the API versions are the daemon's to fill in.
func (s *System) Version() system.VersionResponse {
	kernel := machine.Kernel()
	return system.VersionResponse{
		Platform: system.PlatformInfo{Name: "Berth"}, Version: s.config.Version, Os: runtime.GOOS, Arch: runtime.GOARCH,
		GitCommit: s.config.GitCommit, GoVersion: runtime.Version(), KernelVersion: kernel, BuildTime: s.config.BuildTime,
		Components: []system.ComponentVersion{{
			Name: "Engine", Version: s.config.Version,
			Details: map[string]string{
				"Arch": runtime.GOARCH, "BuildTime": s.config.BuildTime, "Experimental": "false", "GitCommit": s.config.GitCommit,
				"GoVersion": runtime.Version(), "KernelVersion": kernel, "Os": runtime.GOOS,
			},
		}},
	}
}

// Info is the engine's whole self-description.
func (s *System) Info() (system.Info, error) {
	images, err := s.images.Store.List()
	if err != nil {
		return system.Info{}, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return system.Info{}, err
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return system.Info{}, err
	}
	distribution := machine.Distribution()
	version := machine.CgroupVersion()
	httpProxy, httpsProxy, noProxy := s.images.Registry.Proxies()
	d := system.Info{
		ID: s.id, Images: len(images), Driver: s.layers.Name(), DockerRootDir: s.config.DataRoot,
		DriverStatus:   append(s.layers.Status(), [2]string{"driver-type", "io.containerd.snapshotter.v1"}),
		Plugins:        system.PluginsInfo{Volume: append([]string{volumes.Local}, s.containers.volumes.Drivers.Names()...), Network: []string{"bridge", "host", "ipvlan", "macvlan", "null"}, Log: request.LogDrivers()},
		IPv4Forwarding: true, Debug: s.config.Debug, NFd: len(fds), NGoroutines: runtime.NumGoroutine(), SystemTime: time.Now().Format(time.RFC3339Nano),
		LoggingDriver: cmp.Or(s.config.Defaults.LogDriver, "json-file"), CgroupDriver: "cgroupfs", CgroupVersion: version, NEventsListener: s.events.Listeners(),
		KernelVersion: machine.Kernel(), OperatingSystem: distribution["PRETTY_NAME"], OSVersion: distribution["VERSION_ID"], OSType: runtime.GOOS,
		Architecture: machine.Architecture(), IndexServerAddress: "https://index.docker.io/v1/", NCPU: runtime.NumCPU(), MemTotal: machine.Memory(),
		RegistryConfig: s.images.Registry.ServiceConfig(), HTTPProxy: httpProxy, HTTPSProxy: httpsProxy, NoProxy: noProxy,
		Name: hostname, Labels: []string{}, ServerVersion: s.config.Version, LiveRestoreEnabled: true,
		Runtimes: s.config.Defaults.Runtimes.Describe(s.config.OCIPath), DefaultRuntime: cmp.Or(s.config.Defaults.Runtime, request.DefaultRuntime), Swarm: swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive}, InitBinary: "berth-oci",
		SecurityOptions: s.config.Defaults.SecurityOptions(),
		FirewallBackend: &system.FirewallInfo{Driver: "nftables"}, CDISpecDirs: append([]string{}, s.config.Defaults.CDISpecDirs...), Warnings: []string{},
	}
	if !s.containers.ids.Remap.IsZero() {
		d.SecurityOptions = append(d.SecurityOptions, "name=userns")
	}
	s.count(&d)
	for _, p := range s.config.Network.Sources {
		d.DefaultAddressPools = append(d.DefaultAddressPools, system.NetworkAddressPool{Base: p.Base, Size: p.Size})
	}
	devices, err := device.CDI{Dirs: d.CDISpecDirs}.Names()
	for _, id := range devices {
		d.DiscoveredDevices = append(d.DiscoveredDevices, system.DeviceInfo{Source: "cdi", ID: id})
	}
	usage.DescribeLimits(&d, s.containers.limits)
	return d, err
}

func (s *System) count(d *system.Info) {
	for _, i := range s.containers.index.All() {
		d.Containers++
		switch i.record().State.Status {
		case container.Running:
			d.ContainersRunning++
		case container.Paused:
			d.ContainersPaused++
		default:
			d.ContainersStopped++
		}
	}
}

// String names the engine in logs.
func (s *System) String() string { return fmt.Sprintf("engine %s at %s", s.id, s.config.DataRoot) }
