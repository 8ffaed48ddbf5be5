package dm

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

var order = binary.NativeEndian

// encodeTable lays targets out as struct dm_target_spec, each followed by its parameters, at steps of 8 bytes.
func encodeTable(table []Target) []byte {
	var out []byte
	for _, t := range table {
		size := (unix.SizeofDmTargetSpec + len(t.Params) + 1 + 7) / 8 * 8
		spec := make([]byte, size)
		order.PutUint64(spec[0:], t.Start)
		order.PutUint64(spec[8:], t.Length)
		order.PutUint32(spec[20:], uint32(size))
		copy(spec[24:24+unix.DM_MAX_TYPE_NAME-1], t.Type)
		copy(spec[unix.SizeofDmTargetSpec:], t.Params)
		out = append(out, spec...)
	}
	return out
}

// parseTable reads count targets; in answers "next" counts from the start of all.
func parseTable(data []byte, count uint32) []Target {
	var table []Target
	at := 0
	for range count {
		if at < 0 || at+unix.SizeofDmTargetSpec > len(data) {
			break
		}
		spec := data[at:]
		table = append(table, Target{
			Start: order.Uint64(spec[0:]), Length: order.Uint64(spec[8:]),
			Type: cString(spec[24 : 24+unix.DM_MAX_TYPE_NAME]), Params: cString(spec[unix.SizeofDmTargetSpec:]),
		})
		at = int(order.Uint32(spec[20:]))
	}
	return table
}

// parseNames reads struct dm_name_list; an empty list is one entry of device 0.
func parseNames(data []byte) []string {
	var names []string
	for len(data) > 12 && order.Uint64(data) != 0 {
		names = append(names, cString(data[12:]))
		next := int(order.Uint32(data[8:]))
		if next == 0 || next > len(data) {
			break
		}
		data = data[next:]
	}
	return names
}

// parseVersions reads struct dm_target_versions.
func parseVersions(data []byte) map[string]string {
	versions := map[string]string{}
	for len(data) > 16 {
		if name := cString(data[16:]); name != "" {
			versions[name] = fmt.Sprintf("%d.%d.%d", order.Uint32(data[4:]), order.Uint32(data[8:]), order.Uint32(data[12:]))
		}
		next := int(order.Uint32(data))
		if next == 0 || next > len(data) {
			break
		}
		data = data[next:]
	}
	return versions
}

func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
