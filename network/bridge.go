package network

import (
	"context"
	"net/netip"
	"os"

	"berth/fault"
)

// Bridge is the default network. Its methods may be called from any goroutine.
type Bridge struct{}

var errUnbuilt = fault.New(fault.Unsupported, "network: being built")

// Open makes the bridge and our nftables table or adopts those that a former
// daemon left; traffic of running containers is not interrupted. Restore must be called once, with all endpoints that are in
// use (or none), before Reserve and Attach.
func Open(ctx context.Context, c Config) (*Bridge, error) { return nil, errUnbuilt }

// Restore makes exactly eps exist: their addresses and ports are taken, their
// elements stand in the table, and every other link of ours is removed in the background.
func (b *Bridge) Restore(eps []*Endpoint) error { return errUnbuilt }

// Close ends the pool and gives up the held host ports; bridge, table and the
// links of running containers stay for the next Open.
func (b *Bridge) Close() error { return errUnbuilt }

// Cleanup removes the bridge, our table and the forwarding settings, and
// closes b. Containers that still run lose their network.
func (b *Bridge) Cleanup() error { return errUnbuilt }

// Reserve decides an endpoint's address and host ports and holds them until
// Release. A port that another container has: fault.Conflict
// "Bind for 0.0.0.0:8080 failed: port is already allocated"; one that another program
// has: fault.Conflict "failed to bind host port 0.0.0.0:8080/tcp: address already in use".
// No address left: fault.Unavailable.
func (b *Bridge) Reserve(containerID string, ports []PortRequest) (*Endpoint, error) {
	return nil, errUnbuilt
}

// Attach hands out a network namespace whose eth0 is configured as ep says and
// publishes its ports. It sets ep.Link. The caller closes the file; the link dies
// with the namespace. A bridge that has its 1,023 ports: fault.Unavailable.
func (b *Bridge) Attach(ctx context.Context, ep *Endpoint) (netns *os.File, err error) {
	return nil, errUnbuilt
}

// Release takes ports and address back. It is idempotent and does not wait
// for the link's deletion.
func (b *Bridge) Release(ep *Endpoint) error { return errUnbuilt }

// Loopback hands out a network namespace with only lo, which is up; for --network none. The caller closes it.
func (b *Bridge) Loopback() (*os.File, error) { return nil, errUnbuilt }

// ID is the network's own, 64 hex digits, stable over restarts.
func (b *Bridge) ID() string { return "" }

// Name is the bridge's link, such as "berth0"; empty when there is none.
func (b *Bridge) Name() string { return "" }

// Subnet is the bridge's address and prefix length, such as 172.17.0.1/16.
func (b *Bridge) Subnet() netip.Prefix { return netip.Prefix{} }

// MTU is that of the bridge and of every container's eth0, in bytes.
func (b *Bridge) MTU() int { return 0 }
