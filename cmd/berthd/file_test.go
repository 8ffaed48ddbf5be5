package main

import (
	"errors"
	"strings"
	"testing"

	"berth/engine/disk"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// reading applies a file's text to fresh flags, after args were given on the command line.
func reading(text string, args ...string) (*defaults, *pflag.FlagSet, error) {
	d := &defaults{}
	f := pflag.NewFlagSet("berthd", pflag.ContinueOnError)
	d.declare(f)
	r := &registries{}
	r.declare(f)
	f.StringArray("host", nil, "")
	f.Bool("debug", false, "")
	if err := f.Parse(args); err != nil {
		return nil, nil, err
	}
	err := d.apply(f, []byte(text))
	if err == nil {
		err = errors.Join(d.finish(), r.finish())
	}
	return d, f, err
}

func TestFile(t *testing.T) {
	d, f, err := reading(`{
		"hosts": ["unix:///a", "tcp://127.0.0.1:1"], "debug": true, "default-shm-size": "1m", "init": true, "default-runtime": "x",
		"runtimes": {"x": {"path": "/bin/x", "runtimeArgs": ["-v"]}}, "default-ulimits": {"nofile": {"Soft": 1, "Hard": 2}},
		"log-opts": {"max-size": "1m"}, "cdi-spec-dirs": [], "default-stop-timeout": 3, "metrics-addr": "1.1.1.1:1",
		"registry-mirrors": ["https://m.example", "quay.io/team=https://c.example:5000/q/"], "insecure-registries": ["10.0.0.0/8", "r.example:5000"],
		"proxies": {"http-proxy": "http://p:1", "no-proxy": "x"}}`, "--add-runtime", "y=/bin/y")
	if err != nil {
		t.Fatal(err)
	}
	s := d.set
	if s.ShmSize != 1<<20 || !s.Init || s.Runtime != "x" || len(s.Runtimes) != 2 || s.Runtimes["x"].Args[0] != "-v" || s.Ulimits["nofile"].Hard != 2 || s.LogOpts["max-size"] != "1m" || s.StopTimeout != 3 {
		t.Errorf("%+v", s)
	}
	if diff := cmp.Diff([]string{`the configuration file's "metrics-addr" has no effect in this version`}, d.warnings); diff != "" {
		t.Error(diff)
	}
	if hosts, _ := f.GetStringArray("host"); len(hosts) != 2 {
		t.Errorf("hosts: %q", hosts)
	}
	if list, _ := f.GetStringArray("registry-mirror"); len(list) != 2 {
		t.Errorf("mirrors: %q", list)
	}
	if p, _ := f.GetString("http-proxy"); p != "http://p:1" {
		t.Errorf("proxy: %q", p)
	}
	for text, want := range map[string]string{
		`{"registry-mirrors": ["ftp://x"]}`:           "unsupported scheme",
		`{"registry-mirrors": ["https://u:p@x"]}`:     "username/password not allowed",
		`{"registry-mirrors": ["https://x?y"]}`:       "query or fragment",
		`{"registry-mirrors": ["team=https://x"]}`:    "is no registry",
		`{"insecure-registries": ["http://x"]}`:       "insecure registry http://x is not valid",
		`{"proxies": {"ftp-proxy": "x"}}`:             "none of http-proxy",
		`{"proxies": {"http-proxy": "http://%zz:1"}}`: "can't be read",
		`{"x": 1}`:    "the following directives don't match any configuration option: x",
		`{"init": 5}`: "init: ",
		`{`:           "unexpected end",
		`{"runtimes": {"berth": {"path": "/x"}}}`:                       "is reserved",
		`{"runtimes": {"x": {"path": "/x", "runtimeType": "kata.v2"}}}`: "runtimeType kata.v2 is not supported",
		`{"default-ulimits": {"nofile": null}}`:                         "has no value",
		`{"default-ulimits": {"fun": {"Soft": 1}}}`:                     "fun",
		`{"hosts": [1]}`:          "a list of texts is wanted",
		`{"seccomp-profile": {}}`: "an object is not wanted",
	} {
		if _, _, err := reading(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, _, err := reading(`{"debug": false}`, "--debug"); err == nil || !strings.Contains(err.Error(), "specified both as a flag and in the configuration file: debug: (from flag: true, from file: false)") {
		t.Errorf("given twice: %v", err)
	}
	if _, _, err := reading("\xef\xbb\xbf \n"); err != nil {
		t.Errorf("an empty file: %v", err)
	}
}

// TestSettingsOfTheField says what becomes of those that are not ours: in the file and as flags they are told alike.
func TestSettingsOfTheField(t *testing.T) {
	for _, c := range []struct{ key, value, told, refused string }{
		{"ip-forward-no-drop", "true", "", ""},
		{"ip-forward-no-drop", "false", "changes nothing: the policy of the host's firewall for forwarded packets is never changed", ""},
		{"allow-direct-routing", "false", "", ""},
		{"allow-direct-routing", "true", "gateway_mode_ipv4=routed", ""},
		{"bridge-accept-fwmark", "0x1", "changes nothing: let packets with a mark in by a rule of your own, such as nft add rule ip berth user meta mark 0x1 accept", ""},
		{"iptables", "true", "", ""},
		{"iptables", "false", "changes nothing: berth writes a table of its own", ""},
		{"tlsverify", "false", "", ""},
		{"tlsverify", "true", "", "TLS is not served by this version: leave it out, listen on a unix socket"},
		{"tls", "true", "", "TLS is not served"},
		{"tlscacert", "/ca.pem", "", "TLS is not served"},
		{"authorization-plugin", "opa", "", "authorization plugins are not asked by this version"},
	} {
		d := &defaults{}
		f := pflag.NewFlagSet("berthd", pflag.ContinueOnError)
		d.declareOthers(f)
		err := f.Parse([]string{"--" + c.key + "=" + c.value})
		if err == nil {
			err = d.noteOthers(f)
		}
		tells(t, "--"+c.key+"="+c.value, d.warnings, err, c.told, c.refused)
		value := c.value
		if value != "true" && value != "false" {
			value = `"` + value + `"`
		}
		if c.key == "authorization-plugin" {
			c.key, value = "authorization-plugins", "["+value+"]"
		}
		d, _, err = reading(`{"` + c.key + `": ` + value + `}`)
		if d == nil {
			d = &defaults{}
		}
		tells(t, c.key+" in the file", d.warnings, err, c.told, c.refused)
	}
	if _, _, err := reading(`{"authorization-plugins": [], "tls": false, "tlskey": ""}`); err != nil {
		t.Error(err)
	}
}

func tells(t *testing.T, what string, warnings []string, err error, told, refused string) {
	t.Helper()
	switch all := strings.Join(warnings, "\n"); {
	case refused != "":
		if err == nil || !strings.Contains(err.Error(), refused) {
			t.Errorf("%s: %v", what, err)
		}
	case err != nil || (told == "") != (all == "") || !strings.Contains(all, told):
		t.Errorf("%s: %q, %v", what, all, err)
	}
}

// TestPasswordsInAddressesAreNotTold makes mistakes about addresses that have one.
func TestPasswordsInAddressesAreNotTold(t *testing.T) {
	for _, c := range []struct{ text, flag string }{
		{`{"registry-mirrors": ["https://u:secret@x"]}`, ""},
		{`{"registry-mirrors": ["https://u:secret%zz@x"]}`, ""},
		{`{"registry-mirrors": ["quay.io=https://u:secret/@x"]}`, ""},
		{`{"registry-mirrors": ["https://a", "https://u:secret@x"]}`, "--registry-mirror=https://u:secret@y"},
		{`{"proxies": {"http-proxy": "http://u:secret@%zz"}}`, ""},
		{`{"proxies": {"http-proxy": "http://u:secret@x"}}`, "--http-proxy=http://u:secret@y"},
	} {
		if _, _, err := reading(c.text, strings.Fields(c.flag)...); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s %s: %v", c.text, c.flag, err)
		}
	}
}

func TestBuilder(t *testing.T) {
	d, _, err := reading(`{"builder": {"gc": {"enabled": true, "defaultKeepStorage": "20GB", "policy": [
		{"keepStorage": "512MB", "filter": ["unused-for=48h", "type==source.local"]}, {"all": true, "maxUsedSpace": "1g", "minFreeSpace": "2g"}]}}}`)
	if err != nil {
		t.Fatal(err)
	}
	c := d.collection
	if c.Off || c.Budget != (disk.Budget{Reserved: 20 << 30}) || len(c.Policies) != 2 {
		t.Errorf("got %+v", c)
	} else if p, q := c.Policies[0], c.Policies[1]; p.Reserved != 512<<20 || p.Filters["type"][0] != "source.local" || !q.All || q.MaxUsed != 1<<30 || q.MinFree != 2<<30 {
		t.Errorf("got %+v", c.Policies)
	}
	if d, _, err := reading(`{"builder": {"gc": {"enabled": false}}}`); err != nil || !d.collection.Off {
		t.Errorf("off: %v", err)
	}
	for _, bad := range []string{`1`, `{"gc": 1}`, `{"nosuch": {}}`, `{"gc": {"policy": [{"filter": ["x"]}]}}`, `{"gc": {"policy": [{"filter": ["nosuch=1"]}]}}`, `{"gc": {"defaultKeepStorage": "much"}}`} {
		if _, _, err := reading(`{"builder": ` + bad + `}`); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
}

func FuzzFile(f *testing.F) {
	f.Add(`{"hosts": ["unix:///a"], "runtimes": {"x": {"path": "/x"}}}`)
	f.Add(`{"default-ulimits": {"nofile": {"Soft": 1, "Hard": 2}}, "log-opts": {"a": "b"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		d, _, err := reading(text)
		if err == nil && d.set.Check() != nil {
			t.Errorf("%q passes and can't be used: %v", text, d.set.Check())
		}
	})
}
