package main

import (
	"bytes"
	"encoding/json"

	"berth/engine/builds"
)

// builder is what the configuration file's key of that name says.
type builder struct {
	Entitlements struct {
		NetworkHost      *bool `json:"network-host"`
		SecurityInsecure *bool `json:"security-insecure"`
		Device           *bool `json:"device"`
	} `json:"entitlements"`
	GC builderGC `json:"gc"`
}

func (d *defaults) applyBuilder(raw json.RawMessage) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d.builder); err != nil {
		return err
	}
	c, err := d.builder.GC.collection()
	d.collection = c
	return err
}

// grants are what builds may have: the host's network, and nothing more, when nothing is said.
func (b *builder) grants() builds.Grants {
	e := b.Entitlements
	return builds.Grants{NoHostNetwork: e.NetworkHost != nil && !*e.NetworkHost, Insecure: e.SecurityInsecure != nil && *e.SecurityInsecure}
}
