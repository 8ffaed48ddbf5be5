package schema1

import (
	"encoding/json"
	"testing"

	"berth/fault"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[{"blobSum":"` + string(emptyLayer) + `"}],"history":[{"v1Compatibility":"{\"os\":\"linux\",\"id\":\"1\"}"}]}`))
	f.Add([]byte(`{"schemaVersion":1,"signatures":[{"protected":"eyJmb3JtYXRMZW5ndGgiOjUsImZvcm1hdFRhaWwiOiJDbjAifQ"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		signed, err := Signed(data)
		if err != nil {
			return
		}
		m, err := Parse(signed)
		if err != nil {
			if fault.Of(err) == "" {
				t.Errorf("an error without a kind: %v", err)
			}
			return
		}
		history, layers, err := m.Steps()
		if err != nil {
			return
		}
		if len(history) != len(m.FSLayers) || len(layers) > len(history) {
			t.Errorf("%d layers become %d lines and %d layers", len(m.FSLayers), len(history), len(layers))
		}
		if c, err := m.Config(history, layers); err == nil {
			if _, err := json.Marshal(c); err != nil {
				t.Errorf("the config can't be written: %v", err)
			}
		}
	})
}
