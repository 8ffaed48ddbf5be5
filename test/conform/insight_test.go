package conform

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"berth/client"
	"berth/test/testengine"

	"github.com/google/go-cmp/cmp"
)

// asked are options of create that this machine's engine takes, each line for a container of its own.
var asked = [][]string{
	{"busybox"},
	{"busybox", "sh", "-c", "echo 'it'\"s\" $HOME\n\ttab \\ back `x` | & ; <>"},
	{"-it", "--rm", "busybox", "--not", "-an", "option"},
	{"-i", "-a", "stdout", "busybox"},
	{"-h", "box", "--domainname", "example.org", "-u", "1000:10", "-w", "/a b", "busybox"},
	{"--entrypoint", "/bin/echo", "busybox", "-n", ""},
	{"--entrypoint", "", "busybox", "sh"},
	{"--init", "busybox"},
	{"--restart", "on-failure:3", "busybox"},
	{"--restart", "unless-stopped", "--stop-signal", "SIGINT", "--stop-timeout", "0", "busybox"},
	{"-e", "A=1", "-e", "EMPTY=", "-e", "MULTI=a\nb", "-e", "ÜNI=ñ ☃ 日本 \u202e x", "-e", "CTRL=\x1b[31m\a", "busybox"},
	{"-l", "a=b", "-l", "empty", "-l", "com.example.x=a,b=c \"q\"", "--annotation", "x.y=z", "busybox"},
	{"--log-opt", "max-size=1m", "busybox"},
	{"--log-driver", "none", "busybox"},
	{"-m", "512m", "--memory-swap", "-1", "--memory-reservation", "300000001b", "--memory-swappiness", "0", "busybox"},
	{"-m", "1g", "--memory-swap", "3g", "--oom-score-adj", "500", "busybox"},
	{"--cpus", "0.5", "-c", "512", "--cpuset-cpus", "0", "busybox"},
	{"--cpu-period", "50000", "--cpu-quota", "25000", "--pids-limit", "64", "--ulimit", "nofile=1024:2048", "busybox"},
	{"--device", "/dev/null", "--device", "/dev/zero:/dev/z:r", "--device-cgroup-rule", "c 1:* rwm", "busybox"},
	{"--network", "none", "busybox"},
	{"--network", "host", "busybox"},
	{"--mac-address", "02:42:ac:11:00:99", "busybox"},
	{"-p", "8080:80", "-p", "127.0.0.1:53:53/udp", "-p", "443", "-p", "9000-9010:91", "--expose", "1234/udp", "--expose", "5000-5002", "busybox"},
	{"-P", "--dns", "192.0.2.53", "--dns-option", "ndots:2", "--dns-search", "example.org", "--add-host", "db:192.0.2.9", "--add-host", "gw:host-gateway", "busybox"},
	{"-v", "/:/data:ro,rslave", "-v", "named:/named:nocopy", "-v", "/anonymous", "--tmpfs", "/run:size=1m,exec", "--tmpfs", "/tmp", "busybox"},
	{"--mount", "type=bind,src=/etc,dst=/b,ro,bind-propagation=rprivate,bind-recursive=readonly", "--mount", "type=bind,src=/etc,dst=/f,bind-recursive=disabled", "busybox"},
	{"--mount", "type=volume,src=v,dst=/v,volume-nocopy", "--mount", "type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770", "busybox"},
	{"--read-only", "--shm-size", "1g", "busybox"},
	{"--cap-add", "NET_ADMIN", "--cap-add", "sys_time", "--cap-drop", "ALL", "--group-add", "10", "busybox"},
	{"--privileged", "busybox"},
	{"--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined", "busybox"},
	{"--security-opt", `seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`, "busybox"},
	{"--pid", "host", "--uts", "host", "--cgroupns", "host", "busybox"},
	{"--sysctl", "net.ipv4.ip_forward=1", "--umask", "027", "busybox"},
	{"--health-cmd", "wget -q -O- http://localhost || exit 1", "--health-interval", "5s", "--health-timeout", "1500ms", "--health-retries", "2", "--health-start-period", "1m", "busybox"},
	{"--no-healthcheck", "busybox"},
	{"image-with-settings"},
	{"-e", "FROM_IMAGE=changed", "-l", "l=2", "image-with-settings", "other", "args"},
	{"--entrypoint", "/bin/ls", "image-with-settings"},
	{"--no-healthcheck", "-p", "80:80", "image-with-settings"},
}

// TestAsRunMakesTheSameContainer: what inspect --as run prints is typed into a real shell, and makes a container that differs in nothing but its name.
func TestAsRunMakesTheSameContainer(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash")
	}
	e := testengine.Start(t)
	e.Busybox(t)
	e.Run(t, "import", "-c", "ENV FROM_IMAGE=1", "-c", `ENTRYPOINT ["/bin/echo","first"]`, "-c", `CMD ["second"]`, "-c", "EXPOSE 80", "-c", "VOLUME /vol", "-c", "LABEL l=1",
		"-c", "USER user", "-c", "WORKDIR /tmp", "-c", "STOPSIGNAL SIGQUIT", "-c", "HEALTHCHECK --interval=7s CMD true", testengine.BusyboxTar(t), "image-with-settings")
	for _, words := range asked {
		first := strings.TrimSpace(e.Run(t, append([]string{"create", "--name", "one"}, words...)...))
		printed := e.Run(t, "inspect", "--as", "run", "one")
		// Not started, and under another name.
		script := `berth() { shift; a=(); for w; do case $w in --detach) ;; *) a+=("$w");; esac; done; command berth create "${a[@]}"; }` + "\n" +
			strings.Replace(printed, "--name one", "--name two", 1)
		cmd := e.Command(bash, "-c", script)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v\n%s\n%s", words, err, printed, out)
		} else if diff := cmp.Diff(settings(t, e, "one"), settings(t, e, "two")); diff != "" {
			t.Errorf("%q: printed as\n%s\nwhich makes another one:\n%s", words, printed, diff)
		}
		if strings.ContainsAny(printed, "\x1b\a") {
			t.Errorf("%q: control characters are printed: %q", words, printed)
		}
		e.Run(t, "rm", "-v", first)
		e.Try("rm", "-v", "two")
	}
}

// settings is what inspect says of a container, but for what no two have in common.
func settings(t *testing.T, e *testengine.Engine, name string) string {
	t.Helper()
	var all []map[string]any
	if err := json.Unmarshal([]byte(e.Run(t, "inspect", name)), &all); err != nil {
		t.Fatal(err)
	}
	c := all[0]
	id := c["Id"].(string)
	for _, key := range []string{"Id", "Created", "Name", "LogPath", "GraphDriver", "State"} {
		delete(c, key)
	}
	if config := c["Config"].(map[string]any); config["Hostname"] == id[:12] {
		delete(config, "Hostname")
	}
	for _, m := range c["Mounts"].([]any) {
		if m := m.(map[string]any); len(fmt.Sprint(m["Name"])) == 64 { // anonymous
			delete(m, "Name")
			delete(m, "Source")
		}
	}
	host := c["HostConfig"].(map[string]any)
	delete(host, "ConsoleSize")
	if env, ok := c["Config"].(map[string]any)["Env"].([]any); ok { // in which order says nothing
		slices.SortFunc(env, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
	}
	data, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestUnitsAreValid lets systemd judge the services, and runs what they execute.
func TestUnitsAreValid(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze: it comes with the package systemd")
	}
	e := testengine.Start(t)
	e.Busybox(t)
	dir := t.TempDir()
	for i, words := range asked {
		if slices.Contains(words, "image-with-settings") {
			continue
		}
		name := "unit" + strconv.Itoa(i)
		e.Run(t, append([]string{"create", "--name", name}, words...)...)
		file := filepath.Join(dir, name+".service")
		if err := os.WriteFile(file, []byte(e.Run(t, "inspect", "--as", "unit", name)), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(analyze, "verify", file).CombinedOutput(); err != nil || strings.Contains(string(out), name) {
			text, _ := os.ReadFile(file)
			t.Errorf("%q: %v\n%s\n%s", words, err, out, text)
		}
		e.Run(t, "rm", "-v", name)
	}
}

// TestExplainTellsTheTruth compares what explain says with what is seen inside the container, and by other tools.
func TestExplainTellsTheTruth(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	e.Run(t, "run", "-d", "--name", "web", "-p", "127.0.0.1:8080:80", "-p", "9000:90/udp", "-v", "data:/data", "-v", "/etc:/mnt/a b:ro", "-m", "64m", "--pids-limit", "77",
		"--cap-drop", "ALL", "--cap-add", "NET_RAW", "--security-opt", "no-new-privileges", "--ulimit", "nofile=100:200", "--oom-score-adj", "321", "-u", "1000:1000", "busybox", "sleep", "1000")
	inside := func(args ...string) string { return e.Run(t, append([]string{"exec", "web"}, args...)...) }
	raw := e.Run(t, "explain", "--format", "json", "web")
	var x client.Explanation
	d := json.NewDecoder(strings.NewReader(raw))
	d.DisallowUnknownFields() // the client knows all that the daemon says
	if err := d.Decode(&x); err != nil {
		t.Fatal(err)
	}
	p := x.Process
	inspected := strings.Fields(e.Run(t, "inspect", "--format", "{{.State.Pid}} {{.Id}} {{.LogPath}}", "web"))
	if strconv.Itoa(p.Pid) != inspected[0] || p.Inside != 1 || x.ID != inspected[1] || x.Files[0].Path != inspected[2] {
		t.Errorf("%+v, inspect says %v", p, inspected)
	}
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.Supervisor)); err != nil || !strings.HasPrefix(string(comm), "berth-shim") {
		t.Errorf("supervisor %d is %q, %v", p.Supervisor, comm, err)
	}
	for _, n := range x.Namespaces {
		got := strings.TrimSpace(inside("readlink", "/proc/1/ns/"+n.Kind))
		host, err := os.Readlink("/proc/self/ns/" + n.Kind)
		if want := fmt.Sprintf("%s:[%d]", n.Kind, n.Inode); got != want || err != nil || host != fmt.Sprintf("%s:[%d]", n.Kind, n.Host) || n.Own != (got != host) {
			t.Errorf("%+v: %s inside, %s here", n, got, host)
		}
	}
	if len(x.Namespaces) < 7 {
		t.Errorf("%+v", x.Namespaces)
	}
	if !slices.Equal(p.Capabilities.Bounding, []string{"CAP_NET_RAW"}) || len(p.Capabilities.Effective) != 0 || !p.NoNewPrivs || p.Seccomp != "filter" || p.UID[1] != 1000 || p.OOMScoreAdj != 321 {
		t.Errorf("%+v", p)
	}
	limit := slices.IndexFunc(p.Limits, func(l struct{ Name, Soft, Hard, Unit string }) bool {
		return l.Name == "open files" && l.Soft == "100" && l.Hard == "200"
	})
	if limit < 0 {
		t.Errorf("%+v", p.Limits)
	}
	values := map[string]string{}
	for _, g := range x.Groups {
		for _, f := range g.Files {
			values[filepath.Base(f.File)] = f.Value
			if !strings.Contains(f.File, x.ID) {
				t.Errorf("%s is not the container's own", f.File)
			}
		}
	}
	memory, version2 := values["memory.max"]
	if !version2 {
		memory = values["memory.limit_in_bytes"]
	}
	if memory != strconv.Itoa(64<<20) || values["pids.max"] != "77" {
		t.Errorf("%v", values)
	}
	checkMounts(t, e, &x, inside("cat", "/proc/1/mountinfo"))
	checkNetwork(t, &x, inside)
	// The tool prints the same, and nothing of another program's making.
	text := e.Run(t, "explain", "web")
	for _, want := range []string{"NET_RAW", "pids.max", "8080", "/mnt/a b", "no_new_privs  true", x.Layers[0].Dir, "wired to"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	e.Run(t, "stop", "-t", "0", "web")
	if text = e.Run(t, "explain", "web"); !strings.Contains(text, "does not run") || !strings.Contains(text, x.Layers[0].Dir) || strings.Contains(text, "Namespaces") {
		t.Errorf("stopped: %s", text)
	}
}

func checkMounts(t *testing.T, e *testengine.Engine, x *client.Explanation, table string) {
	t.Helper()
	if lines := strings.Count(table, "\n"); len(x.Mounts) != lines {
		t.Errorf("%d mounts, %d inside", len(x.Mounts), lines)
	}
	hosts := map[string]string{}
	for _, m := range x.Mounts {
		hosts[m.Target] = m.Host
	}
	volume := strings.TrimSpace(e.Run(t, "inspect", "--format", `{{range .Mounts}}{{if eq .Name "data"}}{{.Source}}{{end}}{{end}}`, "web"))
	for target, want := range map[string]string{"/data": volume, "/mnt/a b": "/etc"} {
		a, errA := os.Stat(hosts[target])
		b, errB := os.Stat(want)
		if errA != nil || errB != nil || !os.SameFile(a, b) {
			t.Errorf("%s is %s on the host, want %s", target, hosts[target], want)
		}
	}
	if x.Layers[0].Role != "written" || len(x.Layers) < 4 {
		t.Errorf("%+v", x.Layers)
	}
	for _, l := range x.Layers {
		if _, err := os.Stat(l.Dir); err != nil {
			t.Error(err)
		}
	}
}

func checkNetwork(t *testing.T, x *client.Explanation, inside func(...string) string) {
	t.Helper()
	link := x.Network.Links[slices.IndexFunc(x.Network.Links, func(l struct {
		Name, Kind, MAC string
		MTU             int
		Up              bool
		Addresses       []string
		Peer, Bridge    string
	}) bool {
		return l.Name == "eth0"
	})]
	if got := inside("ip", "-o", "address", "show", "eth0"); len(link.Addresses) == 0 || !strings.Contains(got, "inet "+link.Addresses[0]+" ") {
		t.Errorf("%+v, inside: %s", link, got)
	}
	if got := inside("cat", "/sys/class/net/eth0/address"); strings.TrimSpace(got) != link.MAC {
		t.Errorf("%+v, inside: %s", link, got)
	}
	// Each end of the wire names the other's number.
	there, err := os.ReadFile("/sys/class/net/" + link.Peer + "/ifindex")
	if here := inside("cat", "/sys/class/net/eth0/iflink"); err != nil || string(there) != here {
		t.Errorf("%+v: eth0 is wired to number %s, %s is %s, %v", link, here, link.Peer, there, err)
	}
	if _, err := os.Stat("/sys/class/net/" + link.Bridge + "/brif/" + link.Peer); err != nil {
		t.Error(err)
	}
	if got := inside("ip", "route"); !slices.ContainsFunc(x.Network.Routes, func(r struct {
		To, Gateway, Link string
		Metric            int
	}) bool {
		return r.To == "default" && r.Link == "eth0" && strings.Contains(got, "default via "+r.Gateway+" dev eth0")
	}) {
		t.Errorf("%+v, inside: %s", x.Network.Routes, got)
	}
	if len(x.Network.Firewall) != 2 {
		t.Errorf("%+v", x.Network.Firewall)
	}
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Log("no nft here to compare with")
		return
	}
	for _, f := range x.Network.Firewall {
		out, err := exec.Command(nft, "list", "map", "ip", f.Table, f.Map).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(f.Element)) {
			t.Errorf("%+v, nft: %s, %v", f, out, err)
		}
	}
}

// TestComposeFilesAreValid lets the compose-spec's own library read what inspect --as compose prints.
func TestComposeFilesAreValid(t *testing.T) {
	judge := filepath.Join(t.TempDir(), "compose")
	build := exec.Command("go", "build", "-o", judge, ".")
	build.Dir = "testdata/compose" // a module of its own, so that ours needs none of this
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("the library of the compose-spec can't be built here: %v\n%s", err, out)
	}
	e := testengine.Start(t)
	e.Busybox(t)
	var names []string
	for i, words := range asked {
		if slices.Contains(words, "image-with-settings") {
			continue
		}
		names = append(names, "c"+strconv.Itoa(i))
		e.Run(t, append([]string{"create", "--name", names[len(names)-1]}, words...)...)
	}
	file := filepath.Join(t.TempDir(), "compose.yaml")
	text := e.Run(t, append([]string{"inspect", "--as", "compose"}, names...)...)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(judge, file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, stderr.String(), text)
	}
	var services map[string]struct {
		Command     []string           `json:"command"`
		Environment map[string]*string `json:"environment"`
		MemLimit    string             `json:"mem_limit"`
	}
	if err := json.Unmarshal(out, &services); err != nil || len(services) != len(names) {
		t.Fatalf("%d services, want %d: %v", len(services), len(names), err)
	}
	// It understood what was meant.
	if got := services["c1"].Command; !slices.Equal(got, asked[1][1:]) {
		t.Errorf("got %q, want %q", got, asked[1][1:])
	}
	i := slices.IndexFunc(asked, func(words []string) bool { return slices.Contains(words, "MULTI=a\nb") })
	for _, w := range asked[i] {
		if key, value, ok := strings.Cut(w, "="); ok && (services["c"+strconv.Itoa(i)].Environment[key] == nil || *services["c"+strconv.Itoa(i)].Environment[key] != value) {
			t.Errorf("%q was read as %q", w, text)
		}
	}
}
