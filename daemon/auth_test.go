package daemon

import (
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/moby/moby/api/types/registry"
)

func FuzzAuth(f *testing.F) {
	for _, s := range []string{"", "{}", "null", `{"username":"ann","password":"x","serveraddress":"https://index.docker.io/v1/"}`, `{"identitytoken":"t"}`, `{"username":1}`, `["a"]`, `{"auth":"YTpi"}`} {
		f.Add(base64.URLEncoding.EncodeToString([]byte(s)))
		f.Add(base64.RawURLEncoding.EncodeToString([]byte(s)))
		f.Add(base64.StdEncoding.EncodeToString([]byte(s)))
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		got := parseAuth(header)
		data, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if again := parseAuth(base64.URLEncoding.EncodeToString(data)); again != got {
			t.Errorf("%q is %+v, which is sent as %+v", header, got, again)
		}
		if got != (registry.AuthConfig{}) && base64.URLEncoding.EncodeToString(nil) == header {
			t.Errorf("nothing is %+v", got)
		}
	})
}
