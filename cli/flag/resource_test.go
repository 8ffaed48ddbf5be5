package flag

import (
	"testing"

	"github.com/docker/go-units"
)

func TestUlimitsKeepTheLastOfAName(t *testing.T) {
	var all []*units.Ulimit
	v := Ulimits(&all)
	for _, text := range []string{"nofile=1:2", "core=0", "nofile=3"} {
		if err := v.Set(text); err != nil {
			t.Fatal(err)
		}
	}
	if len(all) != 2 || all[0].String() != "nofile=3:3" || all[1].String() != "core=0:0" {
		t.Error(all)
	}
	if v.Set("core=x") == nil || len(all) != 2 || all[1].Soft != 0 {
		t.Error("a limit that is no number is taken")
	}
}
