package network

import "net/netip"

// ResolvOptions are what a container's settings put in the place of the host's.
type ResolvOptions struct {
	Servers []string // --dns
	Search  []string // --dns-search; "." alone = none
	Options []string // --dns-opt
}

// HostEntry is a line of /etc/hosts.
type HostEntry struct {
	Address netip.Addr
	Names   []string
}

// Resolv prints a container's /etc/resolv.conf from the host's.
// Loopback name servers are left out, as a container can't reach them. With
// none left and none given, public ones stand in and warning says so.
func Resolv(hostConf, hostPath string, o ResolvOptions) (text, warning string) { return "", "" }

// HostResolvConf reads the host's resolv.conf at path ("" = /etc/resolv.conf). Where that names nothing but a
// local stub (systemd-resolved's 127.0.0.53), it reads the file with the real upstreams instead. It returns the path that was read.
func HostResolvConf(path string) (text, from string, err error) { return "", "", nil }

// Hosts prints a container's /etc/hosts: the loopback lines, extra entries in their order, then the own ones.
func Hosts(own []HostEntry, extra []HostEntry) string { return "" }

// Hostname prints a container's /etc/hostname.
func Hostname(name string) string { return "" }
