package buildkit

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"berth/engine/builds"
	"berth/fault"
	"berth/image"

	"github.com/docker/go-units"
	control "github.com/moby/buildkit/api/services/control"
)

// dockerfileFrontend is the only frontend that there is.
const dockerfileFrontend = "dockerfile.v0"

// readOptions reads what a client asks of the frontend. Attributes that concern nothing of ours are passed over, as frontends do.
func readOptions(attrs map[string]string) (o builds.Options, err error) {
	o = builds.Options{Dockerfile: attrs["filename"], Args: map[string]string{}, Labels: map[string]string{}, Attest: map[string]string{}, Named: map[string]string{},
		Target: attrs["target"], Network: attrs["force-network-mode"], Pull: attrs["image-resolve-mode"] == "pull"}
	if o.Dockerfile == "" {
		o.Dockerfile = "Dockerfile"
	}
	for prefix, to := range map[string]map[string]string{"build-arg:": o.Args, "label:": o.Labels, "attest:": o.Attest, "context:": o.Named} {
		for k, v := range attrs {
			if name, ok := strings.CutPrefix(k, prefix); ok {
				to[name] = v
			}
		}
	}
	for _, text := range list(attrs["platform"]) {
		p, err := image.ParsePlatform(text)
		if err != nil {
			return o, err
		}
		o.Platforms = append(o.Platforms, p)
	}
	if stages, ok := attrs["no-cache"]; ok {
		o.NoCache, o.NoCacheFor = stages == "", list(stages)
	}
	s := &o.Settings
	s.CgroupParent, s.CPUSet, s.CPUSetMems = attrs["cgroup-parent"], attrs["cpusetcpus"], attrs["cpusetmems"]
	for _, h := range list(attrs["add-hosts"]) {
		name, address, ok := strings.Cut(h, "=")
		if !ok {
			return o, fault.New(fault.Invalid, "add-hosts: %q is not of the form HOST=ADDRESS", h)
		}
		s.Hosts = append(s.Hosts, name+":"+address)
	}
	for _, text := range list(attrs["ulimit"]) {
		u, err := units.ParseUlimit(text)
		if err != nil {
			return o, fault.New(fault.Invalid, "ulimit: %w", err)
		}
		s.Ulimits = append(s.Ulimits, u)
	}
	for name, to := range map[string]*int64{"shm-size": &s.ShmSize, "memory": &s.Memory, "memswap": &s.MemorySwap, "cpushares": &s.CPUShares,
		"cpuperiod": &s.CPUPeriod, "cpuquota": &s.CPUQuota} {
		if text := attrs[name]; text != "" {
			if *to, err = strconv.ParseInt(text, 10, 64); err != nil {
				return o, fault.New(fault.Invalid, "%s: %q is not a number", name, text)
			}
		}
	}
	return o, nil
}

// list splits a value with commas; those of clients that write quotes around elements lose them.
func list(text string) (all []string) {
	for _, one := range strings.Split(text, ",") {
		if one = strings.Trim(strings.TrimSpace(one), `"`); one != "" {
			all = append(all, one)
		}
	}
	return all
}

// checkFrontend refuses what is no Dockerfile: graphs of the client's own, and frontends that are programs of others. Those that are only
// Docker's own one in another version are ours.
func checkFrontend(name string, attrs map[string]string) error {
	switch name {
	case dockerfileFrontend:
		return nil
	case "gateway.v0":
		source := strings.TrimPrefix(attrs["source"], "docker.io/")
		for _, ours := range []string{"docker/dockerfile", "docker/dockerfile-upstream"} {
			if source == ours || strings.HasPrefix(source, ours+":") || strings.HasPrefix(source, ours+"@") {
				return nil
			}
		}
		return fault.New(fault.Unsupported, "the frontend %s is not supported: berth builds Dockerfiles itself, leave BUILDKIT_SYNTAX out", attrs["source"])
	}
	return fault.New(fault.Unsupported, "the frontend %q is not supported: berth builds Dockerfiles (%s)", name, dockerfileFrontend)
}

// outputs are the exporters of a request.
func outputs(r *control.SolveRequest) (all []output) {
	exporters := r.Exporters
	if len(exporters) == 0 && r.ExporterDeprecated != "" {
		exporters = []*control.Exporter{{Type: r.ExporterDeprecated, Attrs: r.ExporterAttrsDeprecated}}
	}
	for n, e := range exporters {
		one := output{index: n, Output: builds.Output{Name: strconv.Itoa(n), Type: e.Type, Attrs: map[string]string{}}}
		for k, v := range e.Attrs {
			if !slices.Contains(forClients, k) {
				one.Attrs[k] = v
			}
		}
		if e.Type == "moby" { // the image store of the engine itself
			one.Type = "image"
		}
		all = append(all, one)
	}
	return all
}

func plainOutputs(all []output) (list []builds.Output) {
	for _, o := range all {
		list = append(list, o.Output)
	}
	return list
}

// forClients are attributes that concern the client alone.
var forClients = []string{"prefer-image-digest", "dest", "context", "load", "buildinfo", "buildinfo-attrs"}

// readCaches reads which caches elsewhere a build shall look into, and fill.
func readCaches(r *control.SolveRequest, attrs map[string]string) (from, to []builds.CacheSpec, err error) {
	var imports []*control.CacheOptionsEntry
	if text := attrs["cache-imports"]; text != "" {
		if err := json.Unmarshal([]byte(text), &imports); err != nil {
			return nil, nil, fault.New(fault.Invalid, "cache-imports: %w", err)
		}
	} else {
		imports = r.GetCache().GetImports()
	}
	for _, ref := range list(attrs["cache-from"]) {
		imports = append(imports, &control.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": ref}})
	}
	for n, c := range imports {
		from = append(from, builds.CacheSpec{Name: builds.CacheFromName + strconv.Itoa(n), Type: c.GetType(), Attrs: c.GetAttrs()})
	}
	for n, c := range r.GetCache().GetExports() {
		to = append(to, builds.CacheSpec{Name: builds.CacheToName + strconv.Itoa(n), Type: c.GetType(), Attrs: c.GetAttrs()})
	}
	for _, c := range slices.Concat(from, to) {
		if c.Type == "local" {
			return nil, nil, fault.New(fault.Unsupported, "caches of type local are not supported by BuildKit's protocol: use berth build, or a registry")
		}
	}
	return from, to, nil
}
