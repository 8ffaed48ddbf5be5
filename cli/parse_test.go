package cli

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"berth/cli/session"
)

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
	s := &session.Session{Program: &session.Program{Getenv: func(string) (string, bool) { return "", false }}}
	fs := command(s, &verbs[0], "run").Flags()
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
