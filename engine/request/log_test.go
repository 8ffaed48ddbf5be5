package request

import (
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/container"
)

func TestParseLog(t *testing.T) {
	type opts = map[string]string
	for name, c := range map[string]struct {
		driver string
		opts   opts
		want   Log
		words  string // of the error
	}{
		"default":          {"json-file", nil, Log{true, 20 << 20, 5, true, false, true}, ""},
		"given":            {"json-file", opts{"max-size": "10m", "max-file": "3"}, Log{true, 10_000_000, 3, true, false, true}, ""},
		"unlimited":        {"json-file", opts{"max-size": "-1"}, Log{true, 0, 5, false, false, true}, ""},
		"one file":         {"local", opts{"max-file": "1"}, Log{true, 20 << 20, 1, false, false, true}, ""},
		"plain":            {"local", opts{"compress": "false"}, Log{true, 20 << 20, 5, false, false, true}, ""},
		"none":             {"none", opts{"any": "thing"}, Log{}, ""},
		"journald":         {"journald", opts{"tag": "{{.Name}}", "cache-max-size": "1k"}, Log{true, 1000, 5, true, true, true}, ""},
		"no cache":         {"syslog", opts{"cache-disabled": "true"}, Log{true, 20 << 20, 5, true, true, false}, ""},
		"all modes":        {"json-file", opts{"mode": "non-blocking", "max-buffer-size": "4m"}, Log{true, 20 << 20, 5, true, false, true}, ""},
		"selection":        {"json-file", opts{"labels": "a,b", "env-regex": "^X", "tag": "{{.ImageName}}/{{json .Name}}"}, Log{true, 20 << 20, 5, true, false, true}, ""},
		"unknown driver":   {"x", nil, Log{}, "logger: no log driver named 'x' is registered"},
		"a service":        {"awslogs", nil, Log{}, "no log driver named 'awslogs' is registered: berth has"},
		"unknown option":   {"json-file", opts{"x": "y"}, Log{}, "unknown log opt 'x' for json-file log driver"},
		"another's option": {"syslog", opts{"max-size": "1m"}, Log{}, "unknown log opt 'max-size' for syslog log driver"},
		"size":             {"json-file", opts{"max-size": "big"}, Log{}, "invalid value for max-size"},
		"files":            {"json-file", opts{"max-file": "0"}, Log{}, "max-file cannot be less than 1"},
		"compress alone":   {"json-file", opts{"max-file": "1", "compress": "true"}, Log{}, "compress cannot be true when max-file is less than 2"},
		"compress what":    {"json-file", opts{"compress": "maybe"}, Log{}, "invalid value for compress"},
		"mode":             {"json-file", opts{"mode": "x"}, Log{}, "logger: logging mode not supported: x"},
		"buffer":           {"json-file", opts{"max-buffer-size": "1m"}, Log{}, "only supported with 'mode=non-blocking'"},
		"buffer size":      {"json-file", opts{"mode": "non-blocking", "max-buffer-size": "x"}, Log{}, "error parsing option max-buffer-size"},
		"tag":              {"json-file", opts{"tag": "{{.Nam}}"}, Log{}, "log tag"},
		"regex":            {"gelf", opts{"gelf-address": "udp://h:1", "labels-regex": "("}, Log{}, "log opt labels-regex"},
		"gelf":             {"gelf", nil, Log{}, "gelf-address is a required parameter"},
		"gelf scheme":      {"gelf", opts{"gelf-address": "http://h:1"}, Log{}, "gelf-address should be in form proto://address"},
		"gelf type":        {"gelf", opts{"gelf-address": "udp://h:1", "gelf-compression-type": "x"}, Log{}, `unknown value "x" for log opt "gelf-compression-type"`},
		"facility":         {"syslog", opts{"syslog-facility": "x"}, Log{}, "invalid syslog facility: x"},
		"format":           {"syslog", opts{"syslog-format": "x"}, Log{}, "Invalid syslog format: x"},
		"address":          {"syslog", opts{"syslog-address": "nowhere"}, Log{}, "syslog-address should be in form proto://address"},
		"fluentd":          {"fluentd", opts{"fluentd-async": "perhaps"}, Log{}, "invalid value for fluentd-async"},
	} {
		got, err := ParseLog(api.LogConfig{Type: c.driver, Config: c.opts})
		if c.words == "" && (err != nil || got != c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("%s: %v, want %q", name, err, c.words)
		}
	}
}
