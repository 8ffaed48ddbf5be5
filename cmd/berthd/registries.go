package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"

	"berth/engine"
	"berth/registry"

	"github.com/moby/moby/api/types/events"
	"github.com/spf13/pflag"
)

// registries are the flags that say how registries are reached.
type registries struct {
	mirrors, insecure, certs []string
	hosts                    registry.Hosts
}

func (r *registries) declare(f *pflag.FlagSet) {
	f.StringArrayVar(&r.mirrors, "registry-mirror", nil, "pull from here before the registry itself: URL for the default registry, or PREFIX=URL such as quay.io/team=https://cache.example; repeatable")
	f.StringArrayVar(&r.insecure, "insecure-registry", nil, "registry whose TLS is not verified and that may have none: HOST, HOST:PORT or a network; repeatable (loopback addresses are anyway)")
	f.StringArrayVar(&r.certs, "registry-certs", []string{"/etc/berth/certs.d", "/etc/docker/certs.d"}, "directory with a registry's certificates, and other places, in a directory of its name; repeatable")
	f.StringVar(&r.hosts.HTTPProxy, "http-proxy", "", "proxy for plain HTTP to registries (default $HTTP_PROXY)")
	f.StringVar(&r.hosts.HTTPSProxy, "https-proxy", "", "proxy for HTTPS to registries (default $HTTPS_PROXY)")
	f.StringVar(&r.hosts.NoProxy, "no-proxy", "", "hosts and networks that are reached without a proxy, with commas between (default $NO_PROXY)")
	f.IntVar(&r.hosts.Downloads, "max-concurrent-downloads", 0, "layers that are downloaded at a time (default as many as are of use)")
	f.IntVar(&r.hosts.Uploads, "max-concurrent-uploads", 0, "layers that are uploaded at a time (default as many as are of use)")
	f.IntVar(&r.hosts.Attempts, "max-download-attempts", 0, "attempts of a transfer that gets no further, before it fails (default 6)")
}

// finish reads what the flags say.
func (r *registries) finish() error {
	r.hosts.Mirrors = nil
	for _, text := range nonEmpty(r.mirrors) {
		m, err := registry.ParseMirror(text)
		if err != nil {
			return fmt.Errorf("--registry-mirror %s: %s", hidden(text), hidden(err.Error()))
		}
		r.hosts.Mirrors = append(r.hosts.Mirrors, m)
	}
	r.hosts.Insecure, r.hosts.CertDirs = nonEmpty(r.insecure), nonEmpty(r.certs)
	return r.hosts.Check()
}

// hidden is text without what may be passwords in the addresses that it has.
func hidden(text string) string {
	return regexp.MustCompile(`://[^\s"\]]*@`).ReplaceAllString(text, "://…@")
}

// proxies are an object in the file, with the flags' names.
func (d *defaults) applyProxies(f *pflag.FlagSet, raw json.RawMessage) error {
	var p map[string]string
	if err := json.Unmarshal(raw, &p); err != nil {
		return err
	}
	for key, value := range p {
		switch key {
		case "http-proxy", "https-proxy", "no-proxy":
		default:
			return fmt.Errorf("%s is none of http-proxy, https-proxy and no-proxy", key)
		}
		if f.Changed(key) {
			return fmt.Errorf("the following directives are specified both as a flag and in the configuration file: %s", key)
		}
		if err := f.Set(key, value); err != nil {
			return err
		}
	}
	return nil
}

// reload reads the settings once more, as at the start, and puts those in effect that say how registries are reached.
func reload(e *engine.Engine, log *slog.Logger) error {
	o, err := parse(os.Args[1:])
	if err != nil {
		return err
	}
	if err := e.Images.Registry.Configure(o.registries.hosts); err != nil {
		return err
	}
	info, err := e.System.Info()
	mirrors, err1 := json.Marshal(nonNil(o.registries.mirrors))
	insecure, err2 := json.Marshal(nonNil(o.registries.insecure))
	if err := errors.Join(err, err1, err2); err != nil {
		return err
	}
	e.Events.Publish(events.DaemonEventType, events.ActionReload, info.ID, map[string]string{
		"name": info.Name, "registry-mirrors": string(mirrors), "insecure-registries": string(insecure),
	})
	log.Info("settings read again", "registry-mirrors", o.registries.mirrors, "insecure-registries", o.registries.insecure)
	return nil
}

func nonNil(list []string) []string { return append([]string{}, list...) }
