package builds

import (
	"errors"
	"testing"

	"berth/build/dockerfile"
	"berth/fault"
)

// TestHostNetworkForAllIsGrantedAsForOne asks for the machine's network in both ways.
func TestHostNetworkForAllIsGrantedAsForOne(t *testing.T) {
	for _, o := range []Options{{Network: "host"}, {Allow: []string{dockerfile.NetworkHost}}} {
		s := &Service{Granted: Grants{NoHostNetwork: true}}
		if _, err := s.Solve(t.Context(), o, nil, Teller{}); !errors.Is(err, fault.Denied) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
