package main

import (
	"fmt"
	"strings"

	"berth/engine/disk"
	"berth/engine/journal"

	"github.com/docker/go-units"
)

// builderGC is the configuration file's "builder": {"gc": …}.
type builderGC struct {
	Enabled              *bool      `json:"enabled"`
	DefaultKeepStorage   size       `json:"defaultKeepStorage"` // the old name of the next
	DefaultReservedSpace size       `json:"defaultReservedSpace"`
	DefaultMaxUsedSpace  size       `json:"defaultMaxUsedSpace"`
	DefaultMinFreeSpace  size       `json:"defaultMinFreeSpace"`
	Policy               []gcPolicy `json:"policy"`
}

// gcPolicy is one of its rules.
type gcPolicy struct {
	All           bool     `json:"all"`
	KeepStorage   size     `json:"keepStorage"` // the old name of the next
	ReservedSpace size     `json:"reservedSpace"`
	MaxUsedSpace  size     `json:"maxUsedSpace"`
	MinFreeSpace  size     `json:"minFreeSpace"`
	Filter        []string `json:"filter"`
}

// size is a number of bytes, written as 20GB.
type size int64

// UnmarshalJSON implements json.Unmarshaler.
func (s *size) UnmarshalJSON(text []byte) error {
	n, err := units.RAMInBytes(strings.Trim(string(text), `"`))
	*s = size(n)
	return err
}

// collection reads it.
func (g *builderGC) collection() (c disk.Collection, err error) {
	c.Off = g.Enabled != nil && !*g.Enabled
	c.Budget = disk.Budget{Reserved: int64(max(g.DefaultReservedSpace, g.DefaultKeepStorage)), MaxUsed: int64(g.DefaultMaxUsedSpace), MinFree: int64(g.DefaultMinFreeSpace)}
	for _, p := range g.Policy {
		one := disk.CachePrune{All: p.All, Reserved: int64(max(p.ReservedSpace, p.KeepStorage)), MaxUsed: int64(p.MaxUsedSpace), MinFree: int64(p.MinFreeSpace), Filters: journal.Filters{}}
		for _, f := range p.Filter {
			key, value, ok := strings.Cut(f, "=")
			if !ok {
				return c, fmt.Errorf("gc: policy: filter %q is not KEY=VALUE", f)
			}
			one.Filters[key] = append(one.Filters[key], strings.TrimPrefix(value, "=")) // some write type==source.local
		}
		if err := one.Check(); err != nil {
			return c, fmt.Errorf("gc: policy: %w", err)
		}
		c.Policies = append(c.Policies, one)
	}
	return c, nil
}
