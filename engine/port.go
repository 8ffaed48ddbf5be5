package engine

const (
	bridgeNetwork = "bridge"
	hostNetwork   = "host"
	noneNetwork   = "none"
)
