package create

import (
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/client"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
)

// parse reads a command line of create.
func parse(t *testing.T, words []string) (client.CreateRequest, string) {
	t.Helper()
	fs := pflag.NewFlagSet("create", pflag.ContinueOnError)
	fs.SetInterspersed(false)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	o := New(fs, func(string) (string, bool) { return "", false })
	if err := fs.Parse(words); err != nil {
		t.Fatalf("%q: %v", words, err)
	}
	r, err := o.Request(fs.Args())
	if err != nil {
		t.Fatalf("%q: %v", words, err)
	}
	return r, o.Name
}

// asInspected is what inspect says of a container that r made, on an engine that fills nothing in.
func asInspected(r client.CreateRequest, name string) *client.Inspection {
	c := &client.Inspection{InspectResponse: container.InspectResponse{
		ID: strings.Repeat("ab", 32), Name: "/" + name, Config: r.Config, HostConfig: r.HostConfig, NetworkSettings: &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{}},
	}, Berth: r.Berth}
	for n, e := range r.NetworkingConfig.EndpointsConfig {
		copied := *e
		if n == "default" {
			n = "bridge"
		}
		if len(e.MacAddress) > 0 {
			c.Berth.MAC = e.MacAddress.String()
			copied.MacAddress = nil
		}
		c.NetworkSettings.Networks[n] = &copied
	}
	return c
}

func text(v any) string {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		panic(err)
	}
	return string(b)
}

// lines are command lines of create, without what no two containers can share.
var lines = [][]string{
	{"busybox"},
	{"--name", "web", "busybox", "sh", "-c", "echo 'it'\"s\" $HOME\n\ttab \\ back `x` | & ; <>"},
	{"-it", "--rm", "busybox", "--not", "-an", "option"},
	{"-i", "-a", "stdout", "busybox"}, {"-a", "stderr", "busybox"},
	{"-h", "box", "--domainname", "example.org", "-u", "1000:wheel", "-w", "/a b", "busybox"},
	{"--entrypoint", "/bin/echo", "busybox", "-n", ""}, {"--entrypoint", "", "busybox", "sh"},
	{"--init", "busybox"}, {"--init=false", "busybox"},
	{"--restart", "always", "busybox"}, {"--restart", "on-failure:3", "busybox"}, {"--restart", "unless-stopped", "busybox"},
	{"--stop-signal", "SIGINT", "--stop-timeout", "0", "busybox"}, {"--stop-timeout", "-1", "busybox"}, {"--runtime", "crun", "busybox"},
	{"-e", "A=1", "-e", "EMPTY=", "-e", "UNSET", "-e", "MULTI=a\nb", "-e", "ÜNI=ñ ☃ 日本 \u202e x", "-e", "CTRL=\x1b[31m\a", "busybox"},
	{"-l", "a=b", "-l", "empty", "-l", "com.example.x=a,b=c \"q\"", "--annotation", "x.y=z", "busybox"},
	{"--log-driver", "local", "--log-opt", "max-size=1m", "--log-opt", "tag={{.ID}}", "busybox"}, {"--log-driver", "none", "busybox"},
	{"-m", "512m", "--memory-swap", "-1", "--memory-reservation", "300000001b", "--memory-swappiness", "0", "busybox"},
	{"-m", "1g", "--memory-swap", "3g", "--oom-kill-disable", "--oom-score-adj", "-500", "busybox"},
	{"--cpus", "1.5", "-c", "512", "--cpuset-cpus", "0-1", "--cpuset-mems", "0", "busybox"},
	{"--cpu-period", "50000", "--cpu-quota", "25000", "--cpu-rt-period", "1000000", "--cpu-rt-runtime", "950000", "busybox"},
	{"--cpus", "0.000000001", "--pids-limit", "-1", "--ulimit", "nofile=1024:2048", "--ulimit", "core=-1", "--cgroup-parent", "/x", "busybox"},
	{"--blkio-weight", "300", "--blkio-weight-device", "/dev/sda:200", "--device-read-bps", "/dev/sda:1mb", "--device-write-bps", "/dev/sda:1000",
		"--device-read-iops", "/dev/sda:10", "--device-write-iops", "/dev/sdb:20", "busybox"},
	{"--cpu-count", "2", "--cpu-percent", "50", "--io-maxbandwidth", "1m", "--io-maxiops", "10", "--isolation", "process", "busybox"},
	{"--device", "/dev/null", "--device", "/dev/zero:/dev/z:r", "--device", "/dev/full:rw", "--device-cgroup-rule", "c 1:* rwm", "busybox"},
	{"--device", "vendor.com/class=name", "--device", "vendor.com/class=other", "busybox"},
	{"--gpus", "all", "busybox"}, {"--gpus", "2", "busybox"}, {"--gpus", `"device=0,1",driver=nvidia,"capabilities=compute,utility","options=a=b"`, "busybox"},
	{"--network", "none", "busybox"}, {"--network", "host", "busybox"}, {"--network", "container:other", "busybox"},
	{"--network", "mine", "--network-alias", "a", "--network-alias", "b", "--ip", "10.0.0.7", "--ip6", "fd00::7", "--link-local-ip", "169.254.1.1", "busybox"},
	{"--network", "name=one,alias=x,ip=10.0.0.8,gw-priority=5", "--network", "name=two,driver-opt=com.example.k=v", "busybox"},
	{"--mac-address", "02:42:ac:11:00:99", "busybox"},
	{"--link", "db:database", "--link", "cache:cache", "busybox"},
	{"-p", "8080:80", "-p", "127.0.0.1:53:53/udp", "-p", "[::1]:90:90", "-p", "443", "-p", "9000-9010:91", "-p", "192.0.2.1::77", "--expose", "1234/udp", "--expose", "5000-5002", "busybox"},
	{"-P", "--dns", "192.0.2.53", "--dns-option", "ndots:2", "--dns-search", "example.org", "--add-host", "db:192.0.2.9", "--add-host", "six:fd00::1", "--add-host", "gw:host-gateway", "busybox"},
	{"-v", "/srv/a b:/data:ro,rshared", "-v", "named:/named:nocopy", "-v", "/anonymous", "--tmpfs", "/run:size=1m,exec", "--tmpfs", "/tmp", "--volumes-from", "other:ro", "--volume-driver", "local", "busybox"},
	{"--mount", "type=bind,src=/a,dst=/b,ro,bind-propagation=rprivate,bind-recursive=readonly", "--mount", "type=bind,src=/c,dst=/d,bind-create-src",
		"--mount", "type=bind,src=/e,dst=/f,bind-recursive=disabled", "busybox"},
	{"--mount", `type=volume,src=v,dst=/v,volume-nocopy,volume-subpath=sub,volume-label=a=b,volume-driver=local,volume-opt=type=nfs,"volume-opt=o=addr=1,rw"`,
		"--mount", "type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770", "--mount", "type=image,src=busybox,dst=/i,image-subpath=bin", "--mount", "type=volume,dst=/anon", "busybox"},
	{"--read-only", "--shm-size", "1g", "--storage-opt", "size=10G", "busybox"},
	{"--cap-add", "NET_ADMIN", "--cap-add", "sys_time", "--cap-drop", "ALL", "--group-add", "audio", "--group-add", "1234", "busybox"},
	{"--privileged", "busybox"},
	{"--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined", "--security-opt", "label=type:x", "--security-opt", "systempaths=unconfined", "busybox"},
	{"--security-opt", `seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`, "busybox"},
	{"--pid", "host", "--ipc", "shareable", "--uts", "host", "--userns", "host", "--cgroupns", "host", "busybox"}, {"--pid", "container:x", "--ipc", "container:y", "busybox"},
	{"--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=8192", "--umask", "027", "busybox"},
	{"--health-cmd", "curl -f http://localhost || exit 1", "--health-interval", "5s", "--health-timeout", "1500ms", "--health-retries", "2", "--health-start-period", "1m", "--health-start-interval", "2s", "busybox"},
	{"--no-healthcheck", "busybox"}, {"--net-cls", "0x100001", "busybox"},
}

// TestCommandIsTheInverse: what the options say, and what the options say that are found again, is the same.
func TestCommandIsTheInverse(t *testing.T) {
	for _, words := range lines {
		first, name := parse(t, words)
		want := text(first)
		o := Recover(asInspected(first, name), Surroundings{})
		c := o.Command()
		if len(c.Lost) > 0 {
			t.Errorf("%q: lost %q", words, c.Lost)
		}
		again, nameAgain := parse(t, c.Words())
		if got := text(again); got != want || nameAgain != name {
			t.Errorf("%q: came back as %q:\n%s", words, c.Words(), cmp.Diff(want, got))
		}
	}
}

// TestEveryFieldIsPrinted sets each field of what makes a container, one at a time: the command must tell, or say that it can't.
func TestEveryFieldIsPrinted(t *testing.T) {
	// Of the client, of the image's builder, or the usual value of a field that has but two.
	silent := []string{"Config.ArgsEscaped", "Config.OnBuild", "Config.AttachStdin", "Config.StdinOnce", "HostConfig.ContainerIDFile", "HostConfig.ConsoleSize",
		"HostConfig.MaskedPaths", "HostConfig.ReadonlyPaths", "Berth.IDs"}
	bare := func() *client.Inspection {
		return &client.Inspection{InspectResponse: container.InspectResponse{Config: &container.Config{AttachStdout: true, AttachStderr: true}, HostConfig: &container.HostConfig{}}}
	}
	describe := func(c *client.Inspection) string {
		o := Recover(c, Surroundings{})
		command := o.Command()
		return fmt.Sprint(o.Detached(), command.Words(), command.Lost)
	}
	empty := describe(bare())
	for _, part := range []struct {
		name string
		of   func(*client.Inspection) reflect.Value
	}{
		{"Config", func(c *client.Inspection) reflect.Value { return reflect.ValueOf(c.Config).Elem() }},
		{"HostConfig", func(c *client.Inspection) reflect.Value { return reflect.ValueOf(c.HostConfig).Elem() }},
		{"Resources", func(c *client.Inspection) reflect.Value { return reflect.ValueOf(&c.HostConfig.Resources).Elem() }},
		{"Berth", func(c *client.Inspection) reflect.Value { return reflect.ValueOf(&c.Berth).Elem() }},
	} {
		kind := part.of(bare()).Type()
		for i := range kind.NumField() {
			name := part.name + "." + kind.Field(i).Name
			if kind.Field(i).Anonymous || slices.Contains(silent, name) {
				continue
			}
			c := bare()
			fill(part.of(c).Field(i), kind.Field(i).Name)
			if got := describe(c); got == empty {
				t.Errorf("%s is set, and the command doesn't tell: %s", name, got)
			}
		}
	}
}

// fill sets v to something that is nobody's default.
func fill(v reflect.Value, name string) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString("some")
		switch name {
		case "MAC":
			v.SetString("02:42:ac:11:00:99")
		}
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint16, reflect.Uint64, reflect.Uint32, reflect.Uint8:
		v.SetUint(7)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), "")
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, "")
		fill(value, "")
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), "")
	case reflect.Struct:
		if port, ok := v.Addr().Interface().(*network.Port); ok {
			*port = network.MustParsePort("7/tcp")
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i), v.Type().Field(i).Name)
			}
		}
	}
}

// TestRecoverLeavesDefaultsOut: what image and engine give is not said.
func TestRecoverLeavesDefaultsOut(t *testing.T) {
	img := &dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{User: "app", Env: []string{"PATH=/bin", "A=image"}, Entrypoint: []string{"/entry"}, Cmd: []string{"serve"},
		Volumes: map[string]struct{}{"/data": {}}, ExposedPorts: map[string]struct{}{"80/tcp": {}}, Labels: map[string]string{"l": "1"}, WorkingDir: "/srv", StopSignal: "SIGQUIT"}}
	img.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD", "probe"}, Interval: time.Second}
	base := func() *client.Inspection {
		pids := int64(0)
		return &client.Inspection{InspectResponse: container.InspectResponse{ID: strings.Repeat("ab", 32), Name: "/n", Config: &container.Config{
			Image: "app", Hostname: "abababababab", User: "app", Env: []string{"PATH=/bin", "A=image"}, Entrypoint: []string{"/entry"}, Cmd: []string{"serve"},
			Volumes: map[string]struct{}{"/data": {}}, ExposedPorts: network.PortSet{network.MustParsePort("80/tcp"): {}}, Labels: map[string]string{"l": "1"}, WorkingDir: "/srv", StopSignal: "SIGQUIT",
			Healthcheck: &container.HealthConfig{Test: []string{"CMD", "probe"}, Interval: time.Second},
		}, HostConfig: &container.HostConfig{
			NetworkMode: "bridge", IpcMode: "private", CgroupnsMode: "private", LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{}}, RestartPolicy: container.RestartPolicy{Name: "no"},
			ShmSize: 64 << 20, Runtime: "berth", MaskedPaths: []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"}, Resources: container.Resources{PidsLimit: &pids},
		}, NetworkSettings: &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{"bridge": {EndpointID: "x", Aliases: []string{"abababababab"}}}}}}
	}
	for _, c := range []struct {
		name   string
		change func(*client.Inspection)
		want   string
	}{
		{"all as it comes", func(*client.Inspection) {}, "--name n app"},
		{"another command", func(c *client.Inspection) { c.Config.Cmd = []string{"sh"} }, "--name n app sh"},
		{"the entry point said without a command", func(c *client.Inspection) { c.Config.Cmd = nil }, "--name n --entrypoint /entry app"},
		{"the entry point taken away", func(c *client.Inspection) { c.Config.Entrypoint, c.Config.Cmd = nil, []string{"sh"} }, "--name n --entrypoint '' app sh"},
		{"an entry point of two words", func(c *client.Inspection) { c.Config.Entrypoint = []string{"a", "b"} }, "--name n --entrypoint a app b serve"},
		{"a variable changed", func(c *client.Inspection) { c.Config.Env = []string{"A=mine", "PATH=/bin"} }, "--name n --env A=mine app"},
		{"published", func(c *client.Inspection) {
			c.HostConfig.PortBindings = network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "8080"}}}
		}, "--name n --publish 8080:80 app"},
		{"probed less often", func(c *client.Inspection) { c.Config.Healthcheck.Interval = time.Minute }, "--name n --health-interval 1m0s app"},
		{"a link", func(c *client.Inspection) { c.HostConfig.Links = []string{"/db:/n/alias"} }, "--name n --link db:alias app"},
	} {
		in := base()
		c.change(in)
		o := Recover(in, Surroundings{Image: img})
		if got := Quoted(o.Command().Words()); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	// Nothing that was asked is changed.
	in := base()
	before := text(in)
	Recover(in, Surroundings{Image: img})
	if after := text(in); after != before {
		t.Errorf("Recover changed its argument: %s", cmp.Diff(before, after))
	}
}

// TestShellsReadTheSameWords lets real shells judge the quoting.
func TestShellsReadTheSameWords(t *testing.T) {
	words := []string{"", "a b", "it's", `"`, `\`, "$HOME `id` $(id)", "*", "~", "#x", "a=b", "!x", "\n", "a\n\nb", "\t", "ñ☃日本", "-n", "--", "{a,b}", "[x]", "&&", ";"}
	for _, shell := range []struct {
		command []string
		words   []string
	}{
		{[]string{"sh", "-c"}, words},
		{[]string{"busybox", "sh", "-c"}, words},
		{[]string{"bash", "-c"}, append(words, "\x1b[31m'x'\\", "\x01\x02\x7f", "a\u202eb", "\u00a0", "\xff\xfe", "\r7")},
	} {
		if _, err := exec.LookPath(shell.command[0]); err != nil {
			t.Logf("no %s here", shell.command[0])
			continue
		}
		script := `printf '%s\0' ` + Quoted(shell.words)
		out, err := exec.Command(shell.command[0], append(shell.command[1:], script)...).Output()
		if err != nil {
			t.Errorf("%v: %v", shell.command, err)
		}
		got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
		if !slices.Equal(got, shell.words) {
			t.Errorf("%v: got %q, want %q", shell.command, got, shell.words)
		}
		if strings.ContainsAny(script, "\x1b\x01\x7f\r") {
			t.Errorf("a control character goes to the terminal: %q", script)
		}
	}
}
