package request

import (
	"errors"
	"testing"
	"time"

	"berth/container"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

func TestSettingsThatCanNotBeKeptTo(t *testing.T) {
	for mac, ok := range map[string]bool{"": true, "02:42:ac:11:00:02": true, "zz": false, "02:42": false} {
		if err := CheckSettings(container.Settings{MAC: mac}, &api.Config{}); (err == nil) != ok || err != nil && !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", mac, err)
		}
	}
}

func TestUpdateKeepsToTheRulesOfHealthChecks(t *testing.T) {
	old := &container.Record{Config: &api.Config{}, HostConfig: &api.HostConfig{NetworkMode: "bridge"}}
	for interval, ok := range map[time.Duration]bool{time.Second: true, -5: false, 5: false} {
		_, _, err := Changed(old, Update{Changes: Changes{Health: &api.HealthConfig{Test: []string{"CMD", "x"}, Interval: interval}}}, Machine{})
		if (err == nil) != ok || err != nil && !errors.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", interval, err)
		}
	}
}
