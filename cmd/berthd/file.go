package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"berth/engine/request"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// defaultFile is read when it is there; one that the user names must be.
const defaultFile = "/etc/berth/daemon.json"

// flagOf are the flags whose key in the file is spelled otherwise.
func flagOf(key string) string {
	switch key {
	case "hosts":
		return "host"
	case "runtimes":
		return "add-runtime"
	case "default-ulimits":
		return "default-ulimit"
	case "log-opts":
		return "log-opt"
	case "exec-opts":
		return "exec-opt"
	case "storage-opts":
		return "storage-opt"
	case "registry-mirrors":
		return "registry-mirror"
	case "insecure-registries":
		return "insecure-registry"
	case "proxies":
		return "http-proxy" // and two more: see applyProxies
	case "cdi-spec-dirs":
		return "cdi-spec-dir"
	case "default-address-pools":
		return "default-address-pool"
	case "default-network-opts":
		return "default-network-opt"
	case "dns-opts":
		return "dns-opt"
	case "host-gateway-ips":
		return "host-gateway-ip"
	case "default-init":
		return "init"
	case "graph":
		return "data-root"
	}
	return key
}

// withoutEffect are keys of the field's engine that this one takes and does nothing for. Most are flags as well.
func withoutEffect() []string {
	return strings.Fields(`min-api-version log-format raw-logs metrics-addr
		network-diagnostic-port nri-opts shutdown-timeout
		firewall-backend network-control-plane-mtu
		swarm-default-advertise-addr swarm-raft-heartbeat-tick
		swarm-raft-election-tick node-generic-resources labels label experimental features feature containerd containerd-namespace
		containerd-plugin-namespace containerd-plugins-namespace cri-containerd rootless`)
}

// fixed is what this engine does anyway.
type fixed struct {
	as  string // the setting that says so, and needs no warning
	why string // what it does, and what to do where something else is wanted
}

// asItIs are the settings for what this engine does anyway.
func asItIs() map[string]fixed {
	outlive := fixed{"true", "containers always outlive the daemon"}
	noProxy := fixed{"true", "published ports need no process"}
	rules := fixed{"true", "berth writes a table of its own for nftables and nobody's iptables rules (see doc/firewall.md)"}
	return map[string]fixed{
		"live-restore": outlive, "userland-proxy": noProxy, "userland-proxy-path": {"", noProxy.why},
		"iptables": rules, "ip6tables": rules,
		"ip-forward-no-drop": {"true", "the policy of the host's firewall for forwarded packets is never changed"},
		"allow-direct-routing": {"false", "containers' own addresses can be reached from elsewhere on networks that say so" +
			" (network create -o com.docker.network.bridge.gateway_mode_ipv4=routed; on the default network, --default-network-opt bridge=com.docker.network.bridge.gateway_mode_ipv4=routed)"},
		"bridge-accept-fwmark": {"", "let packets with a mark in by a rule of your own, such as nft add rule ip berth user meta mark 0x1 accept (see doc/firewall.md)"},
	}
}

// refused tells why a setting can't be had, where to pass it over would leave open what the user wants closed; "" where value turns it off.
func refused(key, value string) string {
	switch key {
	case "tls", "tlsverify", "tlscacert", "tlscert", "tlskey":
		if value == "false" || value == "" {
			return ""
		}
		return "TLS is not served by this version: leave it out, listen on a unix socket, and come from elsewhere by ssh (DOCKER_HOST=ssh://HOST)"
	case "authorization-plugins", "authorization-plugin":
		if value == "" || value == "[]" || value == "null" {
			return ""
		}
		return "authorization plugins are not asked by this version: leave it out, and let only those use the socket who may do everything (--group)"
	}
	return ""
}

// refusable are the flags that refused knows.
func refusable() []string {
	return strings.Fields("tls tlsverify tlscacert tlscert tlskey authorization-plugin")
}

// declareOthers takes the field's flags that change nothing, hidden.
func (d *defaults) declareOthers(f *pflag.FlagSet) {
	for _, name := range slices.Concat(withoutEffect(), refusable(), slices.Sorted(maps.Keys(asItIs()))) {
		if f.Lookup(name) != nil {
			continue
		}
		f.String(name, "", "")
		f.Lookup(name).NoOptDefVal = "true"
		switch name { // those that have a value, in the next word
		case "log-format", "metrics-addr", "network-diagnostic-port", "nri-opts", "shutdown-timeout", "firewall-backend", "bridge-accept-fwmark",
			"network-control-plane-mtu", "swarm-default-advertise-addr", "label", "feature", "containerd", "containerd-namespace", "containerd-plugins-namespace", "userland-proxy-path",
			"tlscacert", "tlscert", "tlskey", "authorization-plugin":
			f.Lookup(name).NoOptDefVal = ""
		}
		f.MarkHidden(name)
	}
}

// noteOthers warns of those that were given, and refuses some.
func (d *defaults) noteOthers(f *pflag.FlagSet) (err error) {
	as := asItIs()
	f.Visit(func(flag *pflag.Flag) {
		value := flag.Value.String()
		if what, ok := as[flag.Name]; ok {
			if value != what.as {
				d.warnings = append(d.warnings, fmt.Sprintf("--%s=%s changes nothing: %s", flag.Name, value, what.why))
			}
		} else if slices.Contains(withoutEffect(), flag.Name) {
			d.warnings = append(d.warnings, fmt.Sprintf("--%s has no effect in this version", flag.Name))
		} else if why := refused(flag.Name, value); why != "" {
			err = errors.Join(err, fmt.Errorf("--%s: %s", flag.Name, why))
		}
	})
	return err
}

// readFile applies a configuration file to the flags. What stands in both is refused, as is what is not known.
func (d *defaults) readFile(f *pflag.FlagSet, path string, mustExist bool) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && !mustExist {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unable to configure the daemon with file %s: %w", path, err)
	}
	if err := d.apply(f, text); err != nil {
		return fmt.Errorf("unable to configure the daemon with file %s: %w", path, err)
	}
	return nil
}

func (d *defaults) apply(f *pflag.FlagSet, text []byte) error {
	var keys map[string]json.RawMessage
	text = bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")))
	if len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, &keys); err != nil {
		return err
	}
	var unknown, both []string
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		flag := f.Lookup(flagOf(key))
		what, same := asItIs()[key]
		value := strings.Trim(string(bytes.TrimSpace(keys[key])), `"`)
		if why := refused(key, value); why != "" {
			return fmt.Errorf("%q: %s", key, why)
		}
		switch {
		case same && value != what.as:
			d.warnings = append(d.warnings, fmt.Sprintf("the configuration file's %q changes nothing: %s", key, what.why))
			delete(keys, key)
		case same, slices.Contains(refusable(), key), key == "authorization-plugins": // as it is anyway, or turned off
			delete(keys, key)
		case slices.Contains(withoutEffect(), key):
			d.warnings = append(d.warnings, fmt.Sprintf("the configuration file's %q has no effect in this version", key))
			delete(keys, key)
		case key == "builder": // no flag says it
		case flag == nil:
			unknown = append(unknown, key)
		// Hosts add up nowhere else either; runtimes are a list with parts here and there.
		case flag.Changed && key != "runtimes" && key != "proxies":
			both = append(both, hidden(fmt.Sprintf("%s: (from flag: %s, from file: %s)", key, flag.Value, bytes.TrimSpace(keys[key]))))
		}
	}
	if len(unknown) > 0 {
		return fmt.Errorf("the following directives don't match any configuration option: %s", strings.Join(unknown, ", "))
	}
	if len(both) > 0 {
		return fmt.Errorf("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(both, ", "))
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if err := d.applyKey(f, key, keys[key]); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

func (d *defaults) applyKey(f *pflag.FlagSet, key string, raw json.RawMessage) error {
	switch key {
	case "runtimes":
		return d.applyRuntimes(raw)
	case "default-ulimits":
		var list map[string]*units.Ulimit
		if err := json.Unmarshal(raw, &list); err != nil {
			return err
		}
		for name, u := range list {
			if u == nil {
				return fmt.Errorf("the limit %s has no value", name)
			}
			u.Name = name
			if _, err := u.GetRlimit(); err != nil {
				return err
			}
			d.addUlimit(u)
		}
		return nil
	case "proxies":
		return d.applyProxies(f, raw)
	case "builder":
		return d.applyBuilder(raw)
	case "log-opts":
		return json.Unmarshal(raw, &d.set.LogOpts)
	}
	values, err := valuesOf(key, raw)
	if err != nil {
		return err
	}
	for _, v := range values {
		if err := f.Set(flagOf(key), v); err != nil {
			return err
		}
	}
	return nil
}

// valuesOf are what a key's value would be on the command line.
func valuesOf(key string, raw json.RawMessage) ([]string, error) {
	switch key {
	case "default-address-pools":
		return poolFlags(raw)
	case "default-network-opts":
		return optionFlags(raw)
	}
	return flagValues(raw)
}

// flagValues are what a key's value would be on the command line.
func flagValues(raw json.RawMessage) ([]string, error) {
	var v any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case nil:
		return nil, nil
	case []any:
		var all []string
		for _, one := range v {
			s, ok := one.(string)
			if !ok {
				return nil, fmt.Errorf("a list of texts is wanted")
			}
			all = append(all, s)
		}
		return all, nil
	case map[string]any:
		return nil, fmt.Errorf("an object is not wanted here")
	default:
		return []string{fmt.Sprint(v)}, nil
	}
}

func (d *defaults) applyRuntimes(raw json.RawMessage) error {
	var list map[string]struct {
		Path        string   `json:"path"`
		RuntimeArgs []string `json:"runtimeArgs"`
		RuntimeType string   `json:"runtimeType"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		r := list[name]
		if r.RuntimeType != "" && r.RuntimeType != "io.containerd.runc.v2" {
			return fmt.Errorf("%s: runtimeType %s is not supported: give the path of an OCI runtime", name, r.RuntimeType)
		}
		if err := d.addRuntime(name, request.Runtime{Path: r.Path, Args: r.RuntimeArgs}); err != nil {
			return err
		}
	}
	return nil
}
