package network

import "testing"

func TestForwardingLeftToTheHost(t *testing.T) {
	w := newHost(t)
	serve(t, w.outside, "tcp", "0.0.0.0:7")
	dir := t.TempDir()
	h := restored(t, Config{Dir: dir}) // one that switched
	bridge := standard(h).link
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	told := &wordsOf{}
	h = restored(t, Config{Dir: dir, NoForwarding: true, Warn: told.add})
	for _, link := range []string{uplink, lan, bridge} {
		if got := getSysctl(forwardSwitch(link)); got != "0" {
			t.Errorf("%s forwards", link)
		}
	}
	if !told.has("this host forwards nothing") {
		t.Errorf("told: %q", told.all)
	}
	a, b := place(t, h, "a", nil, standardSpec(h)), place(t, h, "b", nil, standardSpec(h))
	serve(t, a.ns, "tcp", "0.0.0.0:80")
	reaches(t, "a neighbour", b.ns, "tcp", a.on(standardSpec(h))+":80", b.on(standardSpec(h)))
	reachesNot(t, "to outside", a.ns, "tcp", outsideIP+":7")
	if err := setSysctl("net/ipv4/ip_forward", "1"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := setSysctl("net/ipv4/ip_forward", "0"); err != nil {
			t.Error(err)
		}
	})
	reaches(t, "to outside, when the host wants it", a.ns, "tcp", outsideIP+":7", uplinkHost)
}

func standardSpec(h *Host) *Spec { return &standard(h).Spec }
