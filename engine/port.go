package engine

import "net/netip"

const (
	bridgeNetwork = "bridge"
	hostNetwork   = "host"
	noneNetwork   = "none"
)

func loopbackAddress() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }
