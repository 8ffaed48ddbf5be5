package daemon

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"berth/client"
	record "berth/container"
	"berth/engine"

	"github.com/google/go-cmp/cmp"
)

// TestSettingsHaveOneForm compares what client sends with what is read here, field by field.
func TestSettingsHaveOneForm(t *testing.T) {
	fields := func(v any) []string {
		var all []string
		for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			all = append(all, f.Name+" "+strings.NewReplacer("container.", "", "client.", "").Replace(f.Type.String())+" "+string(f.Tag))
		}
		return all
	}
	if diff := cmp.Diff(fields(record.Settings{}), fields(client.Settings{})); diff != "" {
		t.Errorf("container.Settings and client.Settings differ:\n%s", diff)
	}
	if diff := cmp.Diff(fields(record.Debug{}), fields(client.Debug{})); diff != "" {
		t.Errorf("container.Debug and client.Debug differ:\n%s", diff)
	}
	if diff := cmp.Diff(fields(engine.Changes{}), fields(client.Changes{})); diff != "" {
		t.Errorf("engine.Changes and client.Changes differ:\n%s", diff)
	}
}

func TestSettingsTravelBesideHostConfig(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/containers/create", strings.NewReader(`{"Image":"x","Cmd":"one","HostConfig":{},"Berth":{"DependsOn":["db:healthy"]}}`))
	body, err := readCreate(r)
	if err != nil || len(body.Berth.DependsOn) != 1 || body.Image != "x" || len(body.Cmd) != 1 {
		t.Errorf("%+v, %v", body, err)
	}
	for text, v := range map[string]any{
		`"Berth":{"DependsOn":["a"]}`: client.CreateRequest{Berth: client.Settings{DependsOn: []string{"a"}}},
		"":                            client.CreateRequest{},
	} {
		data, err := json.Marshal(v)
		if err != nil || !strings.Contains(string(data), text) || text == "" && strings.Contains(string(data), "Berth") {
			t.Errorf("%s, %v", data, err)
		}
	}
}
