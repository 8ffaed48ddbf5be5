package network

import (
	"errors"
	"net"
	"slices"
	"testing"

	"berth/fault"
	"berth/kernel/nft"
)

// wantPublished wants the tables to have all of an attachment's ports.
func wantPublished(t *testing.T, b *Host, a *Attachment) {
	t.Helper()
	count := 0
	for _, f := range b.wall.families() {
		want := must(a.elements(a.Ports, f))(t)
		for _, m := range want {
			count += len(m.Elements)
			// What is there can't be added again with another value; a removal of all of it works only if all of it is there.
			if err := b.wall.fw.Update(nft.Change{Family: f, Table: b.Table(), Remove: []nft.Map{m}}); err != nil {
				t.Errorf("%v: not all of it is published: %v", m.Elements, err)
			} else if err := b.wall.fw.Update(nft.Change{Family: f, Table: b.Table(), Add: []nft.Map{m}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if count != len(a.Ports) {
		t.Errorf("%d elements for %d ports", count, len(a.Ports))
	}
}

func TestPortsOfARunningContainerChange(t *testing.T) {
	h := newHost(t)
	b := restored(t, Config{})
	ep, ns := attach(t, b, "web", port("", 8080, 80, "tcp"), port("127.0.0.1", 8081, 80, "tcp"), port("", 0, 81, "tcp"))
	serve(t, ns, "tcp", "0.0.0.0:80")
	serve(t, ns, "tcp", "0.0.0.0:81")
	serve(t, ns, "udp", "0.0.0.0:53")
	chosen := ep.Ports[2].HostPort

	next := must(b.SetPorts(ep, []PortRequest{port("", 8090, 80, "tcp"), port("", 0, 81, "tcp"), port("", 8080, 80, "tcp"), port("", 5353, 53, "udp")}))(t)
	if len(next.Ports) != 4 || next.Ports[0].HostPort != 8090 || next.Ports[1].HostPort != chosen || next.Endpoints[0].Address != ep.Endpoints[0].Address || next.Endpoints[0].Link != ep.Endpoints[0].Link || len(ep.Ports) != 3 {
		t.Errorf("%+v", next)
	}
	wantPublished(t, b, next)
	for _, address := range []string{"127.0.0.1:8080", "127.0.0.1:8090"} {
		reaches(t, "host", nil, "tcp", address, "")
	}
	reaches(t, "outside", h.outside, "udp", uplinkHost+":5353", outsideIP)
	reachesNot(t, "host", nil, "tcp", "127.0.0.1:8081")
	free(t, "127.0.0.1:8081")

	// The same port of the host leads elsewhere.
	moved := must(b.SetPorts(next, []PortRequest{port("", 8080, 81, "tcp"), port("", 8090, 80, "tcp")}))(t)
	if !slices.Equal(moved.Ports, []Port{{next.Ports[0].HostIP, 8080, 81, "tcp", false}, {next.Ports[0].HostIP, 8090, 80, "tcp", false}}) {
		t.Errorf("%+v", moved.Ports)
	}
	wantPublished(t, b, moved)
	reaches(t, "host", nil, "tcp", "127.0.0.1:8080", "")
	reachesNot(t, "outside", h.outside, "udp", uplinkHost+":5353")

	// What is refused changes nothing and holds nothing.
	other, _ := attach(t, b, "other", port("", 9000, 80, "tcp"))
	_, err := b.SetPorts(moved, []PortRequest{port("", 9001, 80, "tcp"), port("", 8080, 82, "tcp"), port("", 9000, 80, "tcp")})
	if err == nil || !errors.Is(err, fault.Conflict) || err.Error() != "Bind for 0.0.0.0:9000 failed: port is already allocated" {
		t.Error(err)
	}
	wantPublished(t, b, moved)
	free(t, "0.0.0.0:9001")
	if l, err := net.Listen("tcp4", "0.0.0.0:8080"); err == nil {
		l.Close()
		t.Error("another program gets a published port")
	}
	reaches(t, "host", nil, "tcp", "127.0.0.1:8080", "")

	// None at all, and again some: the container reaches its own, too.
	none := must(b.SetPorts(moved, nil))(t)
	for _, address := range []string{"0.0.0.0:8080", "0.0.0.0:8090"} {
		free(t, address)
	}
	first := must(b.SetPorts(other, nil))(t)
	again := must(b.SetPorts(none, []PortRequest{port("", 8080, 80, "tcp")}))(t)
	reaches(t, "the container itself", ns, "tcp", subnetOf(b).Addr().String()+":8080", "")
	wantPublished(t, b, again)
	for _, e := range []*Attachment{again, first} {
		if err := b.Release(e); err != nil {
			t.Error(err)
		}
	}
	free(t, "0.0.0.0:8080")
	if _, err := b.SetPorts(again, nil); !errors.Is(err, fault.Conflict) {
		t.Errorf("a released endpoint: %v", err)
	}
}

// TestPortsAreAddedToAContainerWithout needs its link to send frames back where they came from.
func TestPortsAreAddedToAContainerWithout(t *testing.T) {
	newHost(t)
	b := restored(t, Config{})
	ep, ns := attach(t, b, "web")
	serve(t, ns, "tcp", "0.0.0.0:80")
	ep = must(b.SetPorts(ep, []PortRequest{port("", 8080, 80, "tcp")}))(t)
	reaches(t, "the container itself", ns, "tcp", subnetOf(b).Addr().String()+":8080", "")
	reaches(t, "host", nil, "tcp", "127.0.0.1:8080", "")
	if err := b.Release(ep); err != nil {
		t.Error(err)
	}
}

// free wants a port that any program can have.
func free(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp4", address)
	if err != nil {
		t.Errorf("it is not free: %v", err)
		return
	}
	l.Close()
}
