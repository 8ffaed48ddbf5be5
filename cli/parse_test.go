package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/spf13/pflag"
)

// both gives a result or its error as text, for tables.
func both(v any, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	if s, ok := v.(string); ok {
		return s
	}
	b, _ := json.Marshal(v)
	return string(b)
}

func TestParsers(t *testing.T) {
	type parser func(string) string
	keys := func(v string) string { k, err := parseKeys(v); return both(fmt.Sprintf("%x", k), err) }
	ref := func(v string) string {
		r, err := parseRef(v)
		return both(r.String()+" "+r.tagged().familiar(), err)
	}
	for _, c := range []struct {
		name  string
		parse parser
		in    string
		want  string
	}{
		{"keys", keys, "", "1011"},
		{"keys", keys, "ctrl-@,ctrl-[,a", "001b61"},
		{"keys", keys, "ctrl-", "error: invalid detach keys (ctrl-): unknown character: 'ctrl-'; use a letter or ctrl- and a letter, with commas between"},
		{"ref", ref, "busybox", "docker.io/library/busybox busybox:latest"},
		{"ref", ref, "localhost:5000/a/b:v1", "localhost:5000/a/b:v1 localhost:5000/a/b:v1"},
		{"ref", ref, "ubuntu:16:04", `error: invalid reference format: "ubuntu:16:04" has two tags; did you mean ubuntu:16.04?`},
		{"ref", ref, "a__b/c--d", "docker.io/a__b/c--d a__b/c--d:latest"},
		{"ref", ref, "a___b", `error: invalid reference format: "a___b": "a___b" is not a part of a repository's name`},
		{"ref", ref, "-a", `error: invalid reference format: "-a": "-a" is not a part of a repository's name`},
		{"ref", ref, "a:", `error: invalid reference format: "a:": "" is not a tag`},
		{"ref", ref, "a@b", `error: invalid reference format: "a@b": "b" is not a digest`},
		{"ref", ref, "a@sha256:" + strings.Repeat("a", 64), "docker.io/library/a@sha256:" + strings.Repeat("a", 64) + " a@sha256:" + strings.Repeat("a", 64)},
		{"ref", ref, strings.Repeat("a", 64), "error: invalid repository name (" + strings.Repeat("a", 64) + "), cannot specify 64-byte hexadecimal strings"},
		{"ref", ref, "", "error: invalid reference format: the image's name is empty"},
	} {
		if got := c.parse(c.in); got != c.want {
			t.Errorf("%s %q:\n got  %s\n want %s", c.name, c.in, got, c.want)
		}
	}
}

func TestSpellingsAreCorrected(t *testing.T) {
	flags := func() *pflag.FlagSet {
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		fs.SetOutput(io.Discard)
		fs.BoolP("interactive", "i", false, "")
		fs.BoolP("tty", "t", false, "")
		fs.StringP("publish", "p", "", "")
		fs.String("name", "", "")
		fs.Bool("rm", false, "")
		fs.StringP("volume", "v", "", "")
		return fs
	}
	for _, c := range []struct{ in, out, warning string }{
		{"-name x image -name y", "--name x image -name y", "'-name' is an old spelling; use '--name'"},
		{"-rm -name=x image", "--rm --name=x image", "'-rm' is an old spelling; use '--rm' '-name' is an old spelling; use '--name'"},
		{"-it -p 80:80 image", "-it -p 80:80 image", ""},
		{"-p -name image", "-p -name image", ""},
		{"-itp -rm image", "-itp -rm image", ""},
		{"-volume /a:/b image", "-volume /a:/b image", "'-volume' means '-v olume'; did you mean '--volume'?"},
		{"-- -name", "-- -name", ""},
		{"--name -rm image", "--name -rm image", ""},
	} {
		out, warnings := longOptions(flags(), strings.Fields(c.in), false)
		if got := strings.Join(out, " "); got != c.out || strings.Join(warnings, " ") != c.warning {
			t.Errorf("%s: got %s, %q", c.in, got, warnings)
		}
	}
	for in, want := range map[string]string{
		"--it":      "unknown flag: --it; did you mean -it?",
		"--nmae":    "unknown flag: --nmae; did you mean --name?",
		"--zzzzzzz": "unknown flag: --zzzzzzz",
		"-z":        "unknown shorthand flag: 'z' in -z",
	} {
		fs := flags()
		if got := suggestFlag(fs, fs.Parse([]string{in})); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
	f := newFake(t)
	got := f.berth("run", "-d", "-name", "wp3", "busybox")
	if got.code != 0 || got.err != "WARNING: '-name' is an old spelling; use '--name'\n" || f.take()[0].query.Get("name") != "wp3" {
		t.Errorf("got %+v", got)
	}
	if got := f.berth("imags"); got.code != 1 || !strings.Contains(got.err, "unknown command: berth imags\n\nDid you mean 'berth images'?") {
		t.Errorf("got %+v", got)
	}
	if got := f.berth("container", "strat"); got.code != 1 || !strings.Contains(got.err, "'berth container start'") {
		t.Errorf("got %+v", got)
	}
}

func TestAllOptionsOfRunAreKnown(t *testing.T) {
	s := &session{Program: &Program{Getenv: func(string) (string, bool) { return "", false }}}
	fs := s.command(&verbs[0], "run").Flags()
	n := 0
	for _, f := range strings.Fields(`add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile cpu-count cpu-percent cpu-period
		cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems detach detach-keys device device-cgroup-rule device-read-bps device-read-iops device-write-bps
		device-write-iops dns dns-option dns-search domainname entrypoint env env-file expose gpus group-add health-cmd health-interval health-retries health-start-interval
		health-start-period health-timeout help hostname init interactive io-maxbandwidth io-maxiops ip ip6 ipc isolation label label-file link link-local-ip log-driver log-opt
		mac-address memory memory-reservation memory-swap memory-swappiness mount name network network-alias no-healthcheck oom-kill-disable oom-score-adj pid pids-limit platform
		privileged publish publish-all pull quiet read-only restart rm runtime security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs tty ulimit
		use-api-socket user userns uts volume volume-driver volumes-from workdir`) {
		n++
		if fs.Lookup(f) == nil {
			t.Errorf("--%s is not known", f)
		}
	}
	if n != 102 {
		t.Errorf("the list has %d options", n)
	}
	for short, long := range map[string]string{"a": "attach", "c": "cpu-shares", "d": "detach", "e": "env", "h": "hostname", "i": "interactive", "l": "label", "m": "memory", "p": "publish", "P": "publish-all", "q": "quiet", "t": "tty", "u": "user", "v": "volume", "w": "workdir"} {
		if f := fs.ShorthandLookup(short); f == nil || f.Name != long {
			t.Errorf("-%s is not --%s", short, long)
		}
	}
}

func TestKeyReader(t *testing.T) {
	for _, c := range []struct {
		in, out string
		err     error
	}{
		{"abc", "abc", nil},
		{"a\x10\x11b", "a", errDetached},
		{"a\x10b\x10\x10\x11", "a\x10b\x10", errDetached},
		{"a\x10", "a\x10", nil},
	} {
		for _, size := range []int{1, 2, 100} {
			k := &keyReader{r: &pieces{c.in, size}, keys: []byte{0x10, 0x11}}
			got, err := io.ReadAll(k)
			if string(got) != c.out || err != c.err {
				t.Errorf("%q by %d: got %q, %v", c.in, size, got, err)
			}
		}
	}
}

// pieces reads a string in pieces of n bytes.
type pieces struct {
	s string
	n int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.s == "" {
		return 0, io.EOF
	}
	n := copy(b, p.s[:min(p.n, len(p.s))])
	p.s = p.s[n:]
	return n, nil
}

func TestProgressOnATerminal(t *testing.T) {
	now := time.Unix(0, 0)
	v := &progressView{terminal: true, width: 120, lines: map[string]int{}, started: map[string]time.Time{}, now: func() time.Time { return now }}
	var screen []string
	for _, m := range []jsonstream.Message{
		{ID: "latest", Status: "Pulling from library/x"},
		{ID: "aaa", Status: "Pulling fs layer", Progress: &jsonstream.Progress{}},
		{ID: "bbb", Status: "Pulling fs layer", Progress: &jsonstream.Progress{}},
		{ID: "aaa", Status: "Downloading", Progress: &jsonstream.Progress{Current: 1_000_000, Total: 4_000_000}},
		{ID: "aaa", Status: "Pull complete", Progress: &jsonstream.Progress{}},
		{Status: "Digest: sha256:x"},
	} {
		screen = append(screen, fmt.Sprintf("%q", v.render(m)))
	}
	want := []string{
		`"\x1b[2Klatest: Pulling from library/x\r\n"`,
		`"\x1b[2Kaaa: Pulling fs layer\r\n"`,
		`"\x1b[2Kbbb: Pulling fs layer\r\n"`,
		`"\x1b[2A\x1b[2K\raaa: Downloading [============>                                      ]      1MB/4MB\r\x1b[2B"`,
		`"\x1b[2A\x1b[2K\raaa: Pull complete\r\x1b[2B"`,
		`"\x1b[2KDigest: sha256:x\r\n"`,
	}
	if !slices.Equal(screen, want) {
		t.Errorf("got\n%s", strings.Join(screen, "\n"))
	}
}

func FuzzParsers(f *testing.F) {
	for _, s := range []string{"80", "[::1]:8080:80/udp", "type=bind,src=/a,dst=/b", "nofile=1:2", "name=x,ip=1.2.3.4", "busybox:1@sha256:aa", "/dev/a:rw", "1.5", "ctrl-a,b", "c 1:3 rwm", "a=b\nC"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		parseKeys(v)
		if r, err := parseRef(v); err == nil {
			again, err := parseRef(r.String())
			if err != nil || again != r {
				t.Errorf("%q: %q is read as %+v, %v", v, r, again, err)
			}
			if again, err = parseRef(r.familiar()); err != nil || again != r {
				t.Errorf("%q: the short %q is read as %+v, %v", v, r.familiar(), again, err)
			}
		}
	})
}
