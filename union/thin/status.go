package thin

import (
	"fmt"
	"strings"

	"berth/fault"
)

// metadataBlock is the size of the pool's own blocks (thin-provisioning.rst).
const metadataBlock = 4096

// state is what a pool says about itself.
type state struct {
	transaction  uint64
	metadata     space // of metadataBlock bytes
	data         space // of the pool's block size
	mode         string
	needsCheck   bool
	held         uint64 // block of the metadata that a reader was given, 0 = none
	readable     bool   // false: the pool gave up and says nothing else
	errorsIfFull bool
}

type space struct{ used, total uint64 }

func (s space) free() uint64 { return s.total - min(s.used, s.total) }

// parseState reads a thin-pool's status:
//
//	TRANSACTION USED/TOTAL USED/TOTAL HELD|- rw|ro|out_of_data_space [no_]discard_passdown error|queue_if_no_space needs_check|- …
//
// or "Fail", or "Error".
func parseState(text string) (s state, err error) {
	if text == "Fail" || text == "Error" {
		return state{mode: strings.ToLower(text)}, nil
	}
	words := strings.Fields(text)
	if len(words) < 5 {
		return s, fault.New(fault.Corrupt, "thin pool: status %q is too short", text)
	}
	if _, err = fmt.Sscanf(strings.Join(words[:3], " "), "%d %d/%d %d/%d", &s.transaction, &s.metadata.used, &s.metadata.total, &s.data.used, &s.data.total); err != nil {
		return s, fault.New(fault.Corrupt, "thin pool: status %q: %w", text, err)
	}
	if words[3] != "-" {
		if _, err = fmt.Sscanf(words[3], "%d", &s.held); err != nil {
			return s, fault.New(fault.Corrupt, "thin pool: status %q: %w", text, err)
		}
	}
	s.mode, s.readable = words[4], true
	for _, w := range words[5:] {
		s.needsCheck = s.needsCheck || w == "needs_check"
		s.errorsIfFull = s.errorsIfFull || w == "error_if_no_space"
	}
	return s, nil
}

// trouble tells why nothing new can be made on a pool in this state; nil when it can.
func (s state) trouble(pool string, minFree int64) error {
	switch {
	case s.needsCheck || !s.readable:
		return fault.New(fault.Unavailable, "devicemapper: thin pool %s is damaged: stop the daemon and repair its metadata (thin_check --clear-needs-check-flag, or thin_repair)", pool)
	case s.mode == "out_of_data_space":
		return fault.New(fault.Unavailable, "devicemapper: thin pool %s is full: remove containers or images, or enlarge the pool", pool)
	case s.mode != "rw":
		return fault.New(fault.Unavailable, "devicemapper: thin pool %s is in mode %s: stop the daemon and check its metadata (thin_check)", pool, s.mode)
	}
	for _, of := range []struct {
		what string
		space
	}{{"data", s.data}, {"metadata", s.metadata}} {
		if least := of.total * uint64(minFree) / 100; of.free() < least {
			return fault.New(fault.Unavailable, "devicemapper: Thin Pool has %d free %s blocks which is less than minimum required %d free %s blocks. Create more free space in thin pool or use dm.min_free_space option to change behavior",
				of.free(), of.what, least, of.what)
		}
	}
	return nil
}
