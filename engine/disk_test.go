package engine

import (
	"testing"

	"berth/engine/disk"
)

// TestCheckBesideARemoval: between the end of a container's record and its leaving the index nothing is wrong with it.
func TestCheckBesideARemoval(t *testing.T) {
	w := newWorld(t)
	i, err := w.Containers.index.Get(w.create(nil, "true"))
	if err != nil {
		t.Fatal(err)
	}
	i.op.Lock() // as a removal does
	if err := w.Containers.store.Forget(i.id); err != nil {
		t.Fatal(err)
	}
	looking, ended := make(chan struct{}, 8), make(chan error)
	go func() {
		ended <- w.Disk.Check(t.Context(), disk.CheckOptions{Repair: true}, func(c disk.Checking) {
			if c.Stage == "records" {
				looking <- struct{}{}
			}
			if c.Finding != nil && !c.Finding.Leftover {
				t.Errorf("found %+v", *c.Finding)
			}
		})
	}()
	<-looking
	w.Containers.index.Remove(i.id, i.record().Name)
	i.op.Unlock()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if _, err := w.Containers.store.Load(i.id); err == nil {
		t.Error("the check has brought the record back")
	}
}
