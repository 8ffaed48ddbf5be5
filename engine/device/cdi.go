package device

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

// CDI is what vendors describe of their devices in the directories of the Container Device Interface. Files are read anew
// for each question: there are few, and hardly ever any.
type CDI struct{ Dirs []string }

func (c CDI) open() (*cdi.Cache, error) {
	return cdi.NewCache(cdi.WithSpecDirs(c.Dirs...), cdi.WithAutoRefresh(false))
}

// Names lists all devices, such as "vendor.com/class=name".
func (c CDI) Names() ([]string, error) {
	if len(c.Dirs) == 0 {
		return nil, nil
	}
	cache, err := c.open()
	if err != nil {
		return nil, err
	}
	return cache.ListDevices(), nil
}

// Select turns the requests of --device and --gpus into names of devices. fault.Invalid, in the field's words, where nothing answers one.
func (c CDI) Select(requests []api.DeviceRequest) ([]string, error) {
	var names []string
	for _, r := range requests {
		if r.Driver == "cdi" {
			if len(c.Dirs) == 0 {
				return nil, invalid("CDI is not enabled: the daemon has no --cdi-spec-dir")
			}
			names = append(names, r.DeviceIDs...)
			continue
		}
		found, err := c.gpus(r)
		if err != nil {
			return nil, err
		}
		names = append(names, found...)
	}
	return names, nil
}

// gpus finds what a request for graphics processors means. One vendor's are taken: the one that the request names, else the first
// that has any.
func (c CDI) gpus(r api.DeviceRequest) ([]string, error) {
	none := invalid("could not select device driver %q with capabilities: %v", r.Driver, r.Capabilities)
	if !slices.ContainsFunc(r.Capabilities, func(all []string) bool { return slices.Contains(all, "gpu") }) {
		return nil, none
	}
	all, err := c.Names()
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b string) int { // numbers as numbers
		if n := len(a) - len(b); n != 0 && numbered(a) && numbered(b) {
			return n
		}
		return strings.Compare(a, b)
	})
	vendor := ""
	for _, v := range []string{"nvidia.com", "amd.com", "intel.com"} {
		if (r.Driver == "" || strings.HasPrefix(v, r.Driver+".")) && slices.ContainsFunc(all, func(n string) bool { return strings.HasPrefix(n, v+"/gpu=") }) {
			vendor = v
			break
		}
	}
	if vendor == "" {
		return nil, none
	}
	kind := vendor + "/gpu="
	if len(r.DeviceIDs) > 0 {
		var names []string
		for _, id := range r.DeviceIDs {
			names = append(names, kind+id)
		}
		return names, nil
	}
	if r.Count < 0 && slices.Contains(all, kind+"all") {
		return []string{kind + "all"}, nil
	}
	all = slices.DeleteFunc(all, func(n string) bool { return !strings.HasPrefix(n, kind) || !numbered(n) && r.Count >= 0 })
	if r.Count > len(all) {
		return nil, invalid("could not select device driver %q with capabilities: %v: %d wanted, there are %d", r.Driver, r.Capabilities, r.Count, len(all))
	}
	if r.Count >= 0 {
		all = all[:r.Count]
	}
	return all, nil
}

func numbered(name string) bool {
	_, id, _ := strings.Cut(name, "=")
	_, err := strconv.Atoi(id)
	return err == nil
}

// Inject adds to a spec what the descriptions of the named devices say: nodes, mounts, variables, hooks.
func (c CDI) Inject(spec *specs.Spec, names []string) error {
	if len(names) == 0 {
		return nil
	}
	cache, err := c.open()
	if err != nil {
		return err
	}
	if _, err := cache.InjectDevices(spec, names...); err != nil {
		if broken := cache.GetErrors(); len(broken) > 0 {
			return invalid("CDI device injection failed: %w (%s)", err, firstError(broken))
		}
		return invalid("CDI device injection failed: %w", err)
	}
	return nil
}

func firstError(broken map[string][]error) string {
	for path, errs := range broken {
		if len(errs) > 0 {
			return fmt.Sprintf("%s: %v", path, errs[0])
		}
	}
	return ""
}
