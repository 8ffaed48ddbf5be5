package request

import (
	"slices"
	"strconv"
	"strings"

	"berth/container/forward"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"
)

// The log drivers that keep what is written on this machine. The others are package forward's.
const (
	LogJSONFile = "json-file"
	LogLocal    = "local"
	LogNone     = "none"
)

// Rotation by default: a container can't fill the disk.
const (
	defaultLogSize  = 20 << 20
	defaultLogFiles = 5
)

// Log is what a container's log driver and its options mean.
type Log struct {
	Keep     bool  // local files are written: with every driver but none
	Size     int64 // bytes of each at most; 0: no bound
	Files    int   // the current one included
	Compress bool  // the older ones
	Forward  bool  // the lines are sent elsewhere, too
	Readable bool  // users may read it
}

// checkLog is one of Complete's checks.
func checkLog(h *api.HostConfig, _ *api.Config, _ Machine) error {
	_, err := ParseLog(h.LogConfig)
	return err
}

// LogDrivers lists all of them.
func LogDrivers() []string {
	names := append(forward.Names(), LogJSONFile, LogLocal, LogNone)
	slices.Sort(names)
	return names
}

// clouds are drivers of services, which need an account and a library of theirs.
func clouds() []string { return []string{"awslogs", "splunk", "gcplogs", "etwlogs"} }

// ParseLog reads a driver's options; fault.Invalid in the field's words.
func ParseLog(l api.LogConfig) (Log, error) {
	log := Log{Keep: true, Size: defaultLogSize, Files: defaultLogFiles, Compress: true, Readable: true}
	if l.Type == LogNone {
		return Log{}, nil // whatever options there are
	}
	prefix := ""
	files := []string{"max-size", "max-file", "compress"}
	known := append([]string{"mode", "max-buffer-size"}, files...)
	switch {
	case l.Type == LogLocal || l.Type == LogJSONFile:
		if l.Type == LogJSONFile {
			known = append(known, "env", "env-regex", "labels", "labels-regex", "tag")
		}
		for k := range l.Config {
			if !slices.Contains(known, k) {
				return Log{}, invalid("unknown log opt '%s' for %s log driver", k, l.Type)
			}
		}
		if err := forward.CheckSelection(l.Config); err != nil {
			return Log{}, err
		}
	case forward.Is(l.Type):
		log.Forward, prefix = true, "cache-"
		known := []string{"mode", "max-buffer-size", "cache-disabled"}
		for _, k := range files {
			known = append(known, prefix+k)
		}
		if err := forward.Check(l.Type, l.Config, known); err != nil {
			return Log{}, err
		}
		if v := l.Config["cache-disabled"]; v != "" {
			disabled, err := strconv.ParseBool(v)
			if err != nil {
				return Log{}, invalid("invalid value for cache-disabled: %q", v)
			}
			log.Readable = !disabled
		}
	case slices.Contains(clouds(), l.Type):
		return Log{}, invalid("logger: no log driver named '%s' is registered: berth has %s; an agent such as fluentd, reached by --log-driver fluentd, sends on to services",
			l.Type, strings.Join(LogDrivers(), ", "))
	default:
		return Log{}, invalid("logger: no log driver named '%s' is registered", l.Type)
	}
	if err := checkMode(l.Config); err != nil {
		return Log{}, err
	}
	return log, log.bounds(l.Config, prefix)
}

// bounds reads size, number and compression of the files.
func (log *Log) bounds(opts map[string]string, prefix string) (err error) {
	if v := opts[prefix+"max-size"]; v == "-1" {
		log.Size, log.Compress = 0, false
	} else if v != "" {
		if log.Size, err = units.FromHumanSize(v); err != nil || log.Size <= 0 {
			return invalid("invalid value for %smax-size: %q", prefix, v)
		}
	}
	if v := opts[prefix+"max-file"]; v != "" {
		if log.Files, err = strconv.Atoi(v); err != nil || log.Files > 10_000 {
			return invalid("invalid value for %smax-file: %q", prefix, v)
		}
		if log.Files < 1 {
			return invalid("invalid value for %smax-file: %q: max-file cannot be less than 1", prefix, v)
		}
	}
	log.Compress = log.Compress && log.Files > 1
	if v := opts[prefix+"compress"]; v != "" {
		wanted, err := strconv.ParseBool(v)
		if err != nil {
			return invalid("invalid value for %scompress: %q", prefix, v)
		}
		if wanted && !log.Compress {
			return invalid("compress cannot be true when max-file is less than 2 or max-size is not set")
		}
		log.Compress = wanted
	}
	return nil
}

// checkMode checks how output and driver are coupled. Ours never holds a container up, so both ways are the same here.
func checkMode(opts map[string]string) error {
	mode := opts["mode"]
	switch mode {
	case "", "blocking", "non-blocking":
	default:
		return invalid("logger: logging mode not supported: %s", mode)
	}
	size, ok := opts["max-buffer-size"]
	if !ok {
		return nil
	}
	if mode != "non-blocking" {
		return invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
	}
	if _, err := units.RAMInBytes(size); err != nil {
		return invalid("error parsing option max-buffer-size: %w", err)
	}
	return nil
}
