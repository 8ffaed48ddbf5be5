package create

import (
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"berth/cli/format"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
)

func validAttach(v string) (string, error) {
	switch s := strings.ToLower(v); s {
	case "stdin", "stdout", "stderr":
		return s, nil
	}
	return "", errors.New("valid streams are STDIN, STDOUT and STDERR")
}

// parseCPUs reads a number of processors into billionths.
func parseCPUs(v string) (int64, error) {
	if len(v) > 32 || strings.ContainsAny(v, "eEpPxX/_") {
		return 0, fmt.Errorf("failed to parse %v as a rational number", v)
	}
	r, ok := new(big.Rat).SetString(v)
	if !ok {
		return 0, fmt.Errorf("failed to parse %v as a rational number", v)
	}
	r.Mul(r, big.NewRat(1e9, 1))
	if !r.IsInt() {
		return 0, errors.New("value is too precise")
	}
	if !r.Num().IsInt64() {
		return 0, errors.New("value is out of range")
	}
	return r.Num().Int64(), nil
}

func devicePath(v string) (device, value string, err error) {
	device, value, ok := strings.Cut(v, ":")
	if !ok {
		return "", "", fmt.Errorf("bad format: %s", v)
	}
	if !strings.HasPrefix(device, "/dev/") {
		return "", "", fmt.Errorf("bad format for device path: %s", v)
	}
	return device, value, nil
}

func parseWeightDevice(v string) (*blkiodev.WeightDevice, error) {
	device, value, err := devicePath(v)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || n > 0 && (n < 10 || n > 1000) {
		return nil, fmt.Errorf("invalid weight for device: %s", v)
	}
	return &blkiodev.WeightDevice{Path: device, Weight: uint16(n)}, nil
}

func parseBps(v string) (*blkiodev.ThrottleDevice, error) {
	device, value, err := devicePath(v)
	if err != nil {
		return nil, err
	}
	n, err := format.ParseSize(value)
	if err != nil {
		return nil, fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb", v)
	}
	return &blkiodev.ThrottleDevice{Path: device, Rate: uint64(n)}, nil
}

func parseIOps(v string) (*blkiodev.ThrottleDevice, error) {
	device, value, err := devicePath(v)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>. Number must be a positive integer", v)
	}
	return &blkiodev.ThrottleDevice{Path: device, Rate: n}, nil
}

// isCDI tells whether a device has a qualified CDI name, vendor/class=name, instead of a path.
func isCDI(v string) bool {
	kind, device, ok := strings.Cut(v, "=")
	vendor, class, ok2 := strings.Cut(kind, "/")
	return ok && ok2 && vendor != "" && class != "" && device != "" && !strings.ContainsAny(vendor+class, ":/ ")
}

// deviceMode tells whether s names the accesses to a device, some of r, w and m once each.
func deviceMode(s string) bool {
	return s != "" && strings.Trim(s, "rwm") == "" && strings.Count(s, "r") < 2 && strings.Count(s, "w") < 2 && strings.Count(s, "m") < 2
}

func validDevice(v string) (string, error) {
	if isCDI(v) {
		return v, nil
	}
	if _, err := parseDevice(v); err != nil {
		return "", err
	}
	return v, nil
}

// parseDevice reads host[:container][:rwm].
func parseDevice(v string) (container.DeviceMapping, error) {
	parts := strings.Split(v, ":")
	d := container.DeviceMapping{PathOnHost: parts[0], CgroupPermissions: "rwm"}
	switch {
	case len(parts) > 3:
		return d, fmt.Errorf("bad format for path: %s", v)
	case len(parts) == 3:
		d.PathInContainer, d.CgroupPermissions = parts[1], parts[2]
		if !deviceMode(parts[2]) {
			return d, fmt.Errorf("bad mode specified: %s", parts[2])
		}
	case len(parts) == 2 && deviceMode(parts[1]):
		d.CgroupPermissions = parts[1]
	case len(parts) == 2:
		d.PathInContainer = parts[1]
	}
	if d.PathOnHost == "" {
		return d, fmt.Errorf("bad format for path: %s", v)
	}
	if d.PathInContainer == "" {
		d.PathInContainer = d.PathOnHost
	}
	if !path.IsAbs(d.PathInContainer) {
		return d, fmt.Errorf("%s is not an absolute path", d.PathInContainer)
	}
	return d, nil
}

// validDeviceRule checks a rule of the devices cgroup: type major:minor access.
func validDeviceRule(v string) (string, error) {
	f := strings.Split(v, " ")
	ok := len(f) == 3 && (f[0] == "a" || f[0] == "b" || f[0] == "c") && f[2] != "" && len(f[2]) <= 3 && strings.Trim(f[2], "rwm") == ""
	if ok {
		major, minor, two := strings.Cut(f[1], ":")
		ok = two && deviceNumber(major) && deviceNumber(minor)
	}
	if !ok {
		return "", fmt.Errorf("invalid device cgroup format '%s'", v)
	}
	return v, nil
}

func deviceNumber(s string) bool {
	return s == "*" || s != "" && strings.Trim(s, "0123456789") == ""
}

// parseGPUs reads "all", a number, or comma-separated driver=, count=, device=, capabilities= and options=.
func parseGPUs(v string) (container.DeviceRequest, error) {
	d := container.DeviceRequest{}
	fields, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return d, err
	}
	seen := map[string]bool{}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			key, value = "count", key
		}
		if seen[key] {
			return d, fmt.Errorf("gpu request key '%s' can be specified only once", key)
		}
		seen[key] = true
		switch key {
		case "driver":
			d.Driver = value
		case "count":
			if value == "all" {
				d.Count = -1
			} else if d.Count, err = strconv.Atoi(value); err != nil {
				return d, fmt.Errorf(`invalid count (%s): value must be either "all" or an integer`, value)
			}
		case "device":
			d.DeviceIDs = strings.Split(value, ",")
		case "capabilities":
			d.Capabilities = [][]string{append(strings.Split(value, ","), "gpu")}
		case "options":
			opts, err := csv.NewReader(strings.NewReader(value)).Read()
			if err != nil {
				return d, fmt.Errorf("failed to read gpu options: %w", err)
			}
			d.Options = toMap(opts)
		default:
			return d, fmt.Errorf("unexpected key '%s' in '%s'", key, f)
		}
	}
	if !seen["count"] && d.DeviceIDs == nil {
		d.Count = 1
	}
	if d.Options == nil {
		d.Options = map[string]string{}
	}
	if d.Capabilities == nil {
		d.Capabilities = [][]string{{"gpu"}}
	}
	return d, nil
}

// toMap makes a map of KEY=VALUE words.
func toMap(words []string) map[string]string {
	m := map[string]string{}
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		m[k] = v
	}
	return m
}

func validLink(v string) (string, error) {
	if v == "" {
		return "", errors.New("empty string specified for links")
	}
	if strings.Count(v, ":") > 1 {
		return "", fmt.Errorf("bad format for links: %s", v)
	}
	return v, nil
}

func parseDNS(v string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.TrimSpace(v))
	if err != nil {
		return a, fmt.Errorf("IP address is not correctly formatted: %s", v)
	}
	return a, nil
}

func validSearch(v string) (string, error) {
	v = strings.TrimSpace(v)
	if v == "." {
		return v, nil
	}
	d := strings.TrimRight(v, ".")
	ok := d != "" && len(d) < 255
	for _, label := range strings.Split(d, ".") {
		ok = ok && label != "" && len(label) < 64 && label[0] != '-' && label[len(label)-1] != '-' &&
			strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
	}
	if !ok {
		return "", fmt.Errorf("%s is not a valid domain", v)
	}
	return d, nil
}

// sysctlNames are the settings outside net. and fs.mqueue. that belong to a namespace.
const sysctlNames = " kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni kernel.shm_rmid_forced "

func validSysctl(v string) error {
	key, _, ok := strings.Cut(v, "=")
	if ok && (strings.HasPrefix(key, "net.") || strings.HasPrefix(key, "fs.mqueue.") ||
		key != "" && !strings.Contains(key, " ") && strings.Contains(sysctlNames, " "+key+" ")) {
		return nil
	}
	return fmt.Errorf("sysctl '%s' is not allowed", v)
}

func parseUmask(v string) (uint32, error) {
	n, err := strconv.ParseUint(v, 8, 32)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("invalid umask %q: use an octal number up to 0777", v)
	}
	return uint32(n), nil
}

// parseRestart reads no, always, unless-stopped, or on-failure with a number of tries.
func parseRestart(v string) (container.RestartPolicy, error) {
	var p container.RestartPolicy
	if v == "" {
		return p, nil
	}
	mode, count, two := strings.Cut(v, ":")
	if mode == "" {
		return p, errors.New("invalid restart policy format: no policy provided before colon")
	}
	if two && count != "" {
		n, err := strconv.Atoi(count)
		if err != nil || n > math.MaxInt32 {
			return p, errors.New("invalid restart policy format: maximum retry count must be an integer")
		}
		p.MaximumRetryCount = n
	}
	p.Name = container.RestartPolicyMode(mode)
	return p, nil
}
