package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The old packet filter, beside nftables (linux/netfilter_ipv4/ip_tables.h): getsockopt(2) options and the layout of its
// answers in bytes.
const (
	getInfo    = 64 // IPT_SO_GET_INFO: struct ipt_getinfo
	getEntries = 65 // IPT_SO_GET_ENTRIES: struct ipt_get_entries

	infoSize, infoHooks, infoUnderflows, infoBytes = 84, 36, 56, 80
	entriesAt                                      = 40
	entryIn, entryOut, entryTarget, entryNext      = 16, 32, 88, 90
	entrySize, targetVerdict                       = 112, 32
	forwardHook                                    = 2 // NF_INET_FORWARD
	dropVerdict                                    = -1
)

// LegacyBlocker tells whether the table "filter" of iptables-legacy drops forwarded IPv4 packets by its policy and
// names no link in links. A table that nobody has loaded is not loaded by looking.
func LegacyBlocker(links ...string) (bool, error) {
	names, err := os.ReadFile("/proc/net/ip_tables_names")
	if errors.Is(err, fs.ErrNotExist) || (err == nil && !slices.ContainsFunc(bytes.Fields(names), func(n []byte) bool { return string(n) == "filter" })) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return false, os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	info := make([]byte, infoSize)
	copy(info, "filter")
	if err := getsockopt(s, getInfo, info); err != nil {
		return false, fmt.Errorf("read the iptables-legacy table filter: %w", err)
	}
	size := binary.NativeEndian.Uint32(info[infoBytes:])
	table := make([]byte, entriesAt+int(size))
	copy(table, "filter")
	binary.NativeEndian.PutUint32(table[32:], size)
	if err := getsockopt(s, getEntries, table); err != nil { // EAGAIN: it changed in between
		return false, fmt.Errorf("read the iptables-legacy table filter: %w", err)
	}
	word := func(at int) int { return int(binary.NativeEndian.Uint32(info[at+4*forwardHook:])) }
	return legacyDrops(table[entriesAt:], word(infoHooks), word(infoUnderflows), links), nil
}

// legacyDrops reads the rules of one chain: those from first up to the policy at last.
func legacyDrops(table []byte, first, last int, links []string) bool {
	for at := first; at >= 0 && at+entrySize <= len(table); {
		e := table[at:]
		if at == last {
			verdict := int(binary.NativeEndian.Uint16(e[entryTarget:])) + targetVerdict
			return verdict+4 <= len(e) && int32(binary.NativeEndian.Uint32(e[verdict:])) == dropVerdict
		}
		for _, l := range links {
			if bytes.Equal(e[entryIn:entryIn+16], LinkKey(l)) || bytes.Equal(e[entryOut:entryOut+16], LinkKey(l)) {
				return false
			}
		}
		next := int(binary.NativeEndian.Uint16(e[entryNext:]))
		if next < entrySize {
			return false
		}
		at += next
	}
	return false
}

func getsockopt(s, option int, buf []byte) error {
	size := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s), unix.SOL_IP, uintptr(option),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return os.NewSyscallError("getsockopt", errno)
	}
	return nil
}
