package forward

import (
	"context"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"berth/fault"
)

// driver is a way to send messages.
type driver struct {
	options []string // beside those that all have
	check   func(opts map[string]string) error
	dial    func(ctx context.Context, info *Info) (destination, error)
}

// drivers is the table of them.
func drivers() map[string]driver {
	return map[string]driver{
		"journald": {nil, func(map[string]string) error { return nil }, dialJournald},
		"syslog": {[]string{
			"syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify",
		}, checkSyslog, dialSyslog},
		"gelf": {[]string{
			"gelf-address", "gelf-compression-level", "gelf-compression-type", "gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay",
		}, checkGELF, dialGELF},
		"fluentd": {[]string{
			"fluentd-address", "fluentd-async", "fluentd-async-reconnect-interval", "fluentd-buffer-limit", "fluentd-max-retries", "fluentd-read-timeout",
			"fluentd-request-ack", "fluentd-retry-wait", "fluentd-sub-second-precision", "fluentd-write-timeout",
		}, checkFluentd, dialFluentd},
	}
}

// commonOptions are those of every driver that sends.
func commonOptions() []string { return []string{"env", "env-regex", "labels", "labels-regex", "tag"} }

// Names lists the drivers.
func Names() []string {
	var names []string
	for name := range drivers() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Check tells whether a driver can be used with these options; fault.Invalid in the field's words. known are
// options that others take care of.
func Check(name string, opts map[string]string, known []string) error {
	for k := range opts {
		if slices.Contains(known, k) {
			continue
		}
		if d, ok := drivers()[name]; ok && !slices.Contains(d.options, k) && !slices.Contains(commonOptions(), k) {
			return fault.New(fault.Invalid, "unknown log opt '%s' for %s log driver", k, name)
		}
	}
	d, ok := drivers()[name]
	if !ok {
		return invalid("logger: no log driver named '%s' is registered", name)
	}
	if err := d.check(opts); err != nil {
		return err
	}
	return CheckSelection(opts)
}

// CheckSelection checks what selects attributes and makes the tag.
func CheckSelection(opts map[string]string) error {
	info := Info{Opts: opts}
	if _, err := info.Attributes(); err != nil {
		return err
	}
	_, err := info.Tag()
	return err
}

// Is tells whether a log driver sends elsewhere.
func Is(name string) bool {
	_, ok := drivers()[name]
	return ok
}

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

// parseAddress reads proto://address. For a socket the address is its path; the port is added where there is none.
func parseAddress(option, text, port string, protocols ...string) (network, address string, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || !slices.Contains(protocols, u.Scheme) {
		return "", "", invalid("%s should be in form proto://address, with one of %s, got %s", option, strings.Join(protocols, ", "), text)
	}
	if strings.HasPrefix(u.Scheme, "unix") {
		return u.Scheme, u.Path, nil
	}
	address = u.Host
	if _, _, err := net.SplitHostPort(address); err != nil {
		if port == "" || !strings.Contains(err.Error(), "missing port in address") {
			return "", "", invalid("%s: %w", option, err)
		}
		address = net.JoinHostPort(strings.Trim(address, "[]"), port)
	}
	return u.Scheme, address, nil
}

// checkFile tells of a file that can't be read now rather than at the first line.
func checkFile(option, path string) error {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return invalid("%s: %w", option, err)
	}
	return f.Close()
}
