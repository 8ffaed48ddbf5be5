package network

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"berth/kernel/nft"
)

// Where another program flushes all tables, what changes next writes ours anew: a container that gets on a network, or off one, and one whose ports change.
func TestChangesWriteTablesAnewThatAreGone(t *testing.T) {
	w := newHost(t)
	b := restored(t, Config{Pool: -1})
	// Of equals, the first by name is the way out: ports move there and back.
	s := create(t, b, Spec{Name: "another"})
	c := place(t, b, "web", []PortRequest{port("", 8080, 80, "tcp")}, &standard(b).Spec)
	serve(t, c.ns, "tcp", "0.0.0.0:80")
	fw := must(nft.Open())(t)
	defer fw.Close()
	var held *Attachment
	for _, change := range []struct {
		what string
		do   func() error
	}{
		{"connected", func() (err error) {
			held, err = b.Connect(context.Background(), c.Attachment, Join{Network: s.ID}, c.ns)
			return err
		}},
		{"disconnected", func() (err error) {
			held, err = b.Disconnect(context.Background(), held, s.ID, c.ns)
			return err
		}},
		{"with other ports", func() (err error) {
			held, err = b.SetPorts(held, []PortRequest{port("", 8080, 80, "tcp"), port("", 8081, 80, "tcp")})
			return err
		}},
	} {
		if err := fw.Remove(b.Table()); err != nil {
			t.Fatal(err)
		}
		if err := change.do(); err != nil {
			t.Fatalf("%s: %v", change.what, err)
		}
		reaches(t, change.what+", from outside", w.outside, "tcp", uplinkHost+":8080", outsideIP)
	}
	reaches(t, "from outside", w.outside, "tcp", uplinkHost+":8081", outsideIP)
}

// Who waits for an address of a container that has gone waits no longer than its caller does.
func TestWaitingForAnAddressEndsWithTheCaller(t *testing.T) {
	newHost(t)
	b := restored(t, Config{Pool: -1})
	a := netip.MustParseAddr("172.17.0.9")
	b.departed.mu.Lock()
	b.departed.queue = append(b.departed.queue, &departed{addresses: []netip.Addr{a}, links: []string{uplink}, since: time.Now()})
	b.departed.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.departed.await(ctx, a); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	b.departed.mu.Lock()
	b.departed.queue = nil
	b.departed.mu.Unlock()
}
