package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// docker runs the field's own command line against the fake.
func (f *fake) docker(args ...string) ran {
	f.t.Helper()
	cmd := exec.Command("docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+f.host, "DOCKER_CLI_HINTS=false", "DOCKER_CONFIG="+f.config)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var e *exec.ExitError
	if err != nil && !errors.As(err, &e) {
		f.t.Fatalf("docker %q: %v", args, err)
	}
	return ran{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

func needDocker(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("the docker command is not installed: nothing to compare with")
	}
}

// plain drops what says nothing: nulls, empty lists, zeros. swappiness -1 is docker's own way to say nothing.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := map[string]any{}
		for k, e := range v {
			if k == "MemorySwappiness" && e == float64(-1) || k == "ConsoleSize" && fmt.Sprint(e) == "[0 0]" {
				continue
			}
			if p := plain(e); p != nil || k == "default" {
				m[k] = p
			}
		}
		if len(m) == 0 {
			return nil
		}
		return m
	case []any:
		var l []any
		for _, e := range v {
			l = append(l, plain(e))
		}
		if len(l) == 0 {
			return nil
		}
		return l
	case bool:
		if !v {
			return nil
		}
	case float64:
		if v == 0 {
			return nil
		}
	case string:
		if v == "" {
			return nil
		}
	}
	return v
}

// unordered compares lists as sets: docker's order of some is that of a map.
var unordered = cmpopts.SortSlices(func(a, b any) bool { return fmt.Sprint(a) < fmt.Sprint(b) })

func createBody(t *testing.T, all []asked) (query string, body any) {
	t.Helper()
	for _, a := range all {
		if a.path == "/containers/create" {
			if err := json.Unmarshal([]byte(a.body), &body); err != nil {
				t.Fatal(err)
			}
			return a.query.Encode(), plain(body)
		}
	}
	return "", nil
}

// TestCreateRequestsAreDockers sends the same options through both programs and compares the requests.
func TestCreateRequestsAreDockers(t *testing.T) {
	needDocker(t)
	dir := t.TempDir()
	envFile := filepath.Join(dir, "env")
	write(t, envFile, "# comment\nA=1\nB= two words \nHOME\nUNSET_VARIABLE\n\n  C=3\n")
	labelFile := filepath.Join(dir, "labels")
	write(t, labelFile, "l1=a\nl2=\nl3\n")
	profile := filepath.Join(dir, "seccomp.json")
	write(t, profile, "{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}\n")

	f := newFake(t)
	f.version = "1.50"
	for _, line := range []string{
		"", "-i", "-t", "-it", "-a stdout", "-a stdin -a stderr", "-i -a stdout", "--rm", "--name x",
		"-h host --domainname dom", "-u 1:2 -w /w", "--entrypoint /bin/sh", "--init", "--init=false",
		"--restart always", "--restart on-failure:3", "--restart unless-stopped", "--restart no --rm", "--restart on-failure",
		"--stop-signal INT --stop-timeout 7", "--stop-timeout 0", "--platform linux/amd64", "--runtime r",
		"-e A=b -e C= -e HOME -e UNSET_VARIABLE", "--env-file " + envFile, "--env-file " + envFile + " -e Z=1", "-l a=b -l c", "--label-file " + labelFile + " -l l1=b",
		"--annotation a=b --annotation c=d", "--log-driver none", "--log-driver json-file --log-opt max-size=1m --log-opt max-file=3",
		"-m 64m", "-m 1g --memory-swap 2g --memory-reservation 100mb", "-m 4096 --memory-swap -1", "--memory-swappiness 0", "--memory-swappiness 60",
		"--oom-kill-disable", "--oom-score-adj -500", "--cpus 1.5", "--cpus .3", "--cpus 0.001", "-c 512", "--cpu-period 100000 --cpu-quota 30000",
		"--cpu-rt-period 5 --cpu-rt-runtime 4 --cpuset-cpus 0-1 --cpuset-mems 0", "--pids-limit 100", "--pids-limit -1",
		"--ulimit nofile=1024:2048 --ulimit core=-1", "--ulimit nproc=5 --ulimit nproc=6", "--cgroup-parent /x", "--blkio-weight 300",
		"--blkio-weight-device /dev/sda:100 --device-read-bps /dev/sda:1mb --device-write-bps /dev/sda:2kb", "--device-read-iops /dev/sda:100 --device-write-iops /dev/sdb:7",
		"--device /dev/null", "--device /dev/null:/dev/x:r", "--device /dev/null:rw", "--device /dev/null:/dev/y", "--device vendor.com/class=name",
		"--device-cgroup-rule", "--gpus all", "--gpus 2", "--gpus device=0", `--gpus "device=0,1",capabilities=utility,driver=nvidia`,
		"--network none", "--network host", "--network container:abc", "--net foo", "--network foo --network bar", "--network name=foo,alias=a,ip=10.0.0.3,mac-address=02:42:ac:11:00:02,driver-opt=k=v",
		"--network foo --ip 10.0.0.2 --ip6 2001:db8::33 --link-local-ip 169.254.1.1 --network-alias a --network-alias b", "--mac-address 92:d0:c6:0a:29:33", "--network foo --link a:b --link c", "--link a:b",
		"-p 80", "-p 8080:80", "-p 127.0.0.1:8080:80", "-p 127.0.0.1::80", "-p 53:53/udp", "-p 8000-8002:80-82", "-p 8000-8010:80", "-p [::1]:8080:80/tcp", "-p 80 -p 81/sctp", "-p 9-11", "-p 1:2 -p 3:2",
		"-P --expose 80 --expose 90-92/udp", "--expose 80/tcp -p 80", "-p target=80,published=8080,protocol=udp", "-p 0.0.0.0:80:80 -p [::]:80:80",
		"--dns 1.1.1.1 --dns ::1 --dns-option ndots:2 --dns-search example.org --dns-search .", "--dns-opt rotate", "--add-host h:1.2.3.4 --add-host g=::1 --add-host i:[::2] --add-host j:host-gateway",
		"-v /data", "-v /h:/c", "-v ./rel:/c:ro", "-v name:/c:nocopy", "-v /a:/b:ro,z -v /c -v dd:/d", "-v /a:/b:rshared",
		"--mount type=bind,src=/a,dst=/b", "--mount type=bind,source=/a,target=/b,readonly,bind-propagation=rslave", "--mount type=bind,src=./x,dst=/b,bind-recursive=disabled",
		"--mount type=bind,src=/a,dst=/b,ro,bind-recursive=writable", "--mount type=bind,src=/a,dst=/b,readonly=true,bind-recursive=readonly,bind-propagation=rprivate", "--mount src=vol,dst=/v", "--mount type=volume,dst=/v,volume-nocopy,volume-driver=d,volume-opt=k=v,volume-label=a=b,volume-subpath=s",
		"--mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777", "--mount type=image,src=i,dst=/i,image-subpath=p", "--mount type=tmpfs,dst=/t", "--mount dst=/v,volume-nocopy=false",
		"--tmpfs /t --tmpfs /u:size=1m,noexec", "--volumes-from a --volumes-from b:ro", "--volume-driver d", "--read-only", "--shm-size 128m", "--storage-opt size=1G",
		"--cap-add NET_ADMIN --cap-add ALL --cap-drop CHOWN", "--privileged", "--security-opt no-new-privileges", "--security-opt seccomp=unconfined --security-opt apparmor=x --security-opt label:disable",
		"--security-opt systempaths=unconfined", "--security-opt seccomp=" + profile, "--security-opt no-new-privileges=true", "--group-add 7 --group-add audio", "--pid host", "--pid container:x", "--ipc host", "--ipc shareable", "--ipc container:y", "--uts host", "--userns host", "--cgroupns private", "--cgroupns host", "--isolation default",
		"--sysctl net.ipv4.ip_forward=1 --sysctl kernel.shmmax=5", "--no-healthcheck", "--health-cmd true --health-interval 5s --health-retries 3 --health-timeout 1m --health-start-period 2s --health-start-interval 3s", "--health-retries 2",
		"--kernel-memory 5m", "--cap-add cap_net_raw --cap-add net_raw --cap-drop net_raw --cap-drop all",
	} {
		var args []string
		if line == "--device-cgroup-rule" {
			args = []string{line, "c 1:3 rwm"}
		} else {
			args = strings.Fields(strings.ReplaceAll(line, `"`, "\""))
		}
		for _, tail := range [][]string{{"busybox"}, {"busybox:1.2", "echo", "-n", "hi"}} {
			all := append(append([]string{"create"}, args...), tail...)
			d := f.docker(all...)
			dq, db := createBody(t, f.take())
			b := f.berth(all...)
			bq, bb := createBody(t, f.take())
			if d.code != b.code || dq != bq {
				t.Errorf("%q:\n docker: %d %s %s\n berth:  %d %s %s", all, d.code, dq, d.err, b.code, bq, b.err)
			}
			if diff := cmp.Diff(db, bb, unordered); diff != "" {
				t.Errorf("%q: docker (-) and berth (+) differ:\n%s", all, diff)
			}
			if len(line) > 40 {
				break // once is enough
			}
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestRefusalsAreDockers gives both programs what can't be right, and compares the words where they are the same, and the exit code always.
func TestRefusalsAreDockers(t *testing.T) {
	needDocker(t)
	f := newFake(t)
	f.version = "1.50"
	for _, line := range []string{
		"run -m 3x busybox", "run -m x busybox", "run -m -1 busybox", "run --cpus x busybox", "run --cpus 1.0000000001 busybox", "run --ulimit x busybox", "run --ulimit bad=1 busybox", "run --ulimit nofile=5:2 busybox", "run --ulimit nofile=1:2:3 busybox",
		"run -p 80:80:80:80 busybox", "run -p x busybox", "run -p 80: busybox", "run -p 70000 busybox", "run -p 80/xyz busybox", "run -p 1-3:5-6 busybox", "run -p 300.0.0.1:80:80 busybox", "run --expose 1:2 busybox", "run --expose x busybox",
		"run --add-host x busybox", "run --add-host x:y busybox", "run --dns x busybox", "run --dns-search -x busybox", "run --link a:b:c busybox", "run --sysctl a=b busybox", "run --device /dev/a:/b:x busybox", "run --device /dev/a:b:r:w busybox",
		"run --device-cgroup-rule x busybox", "run --device-read-bps x busybox", "run --device-read-bps /dev/a:x busybox", "run --blkio-weight-device /dev/a:5 busybox", "run -a x busybox", "run --restart :3 busybox", "run --restart on-failure:x busybox", "run --restart bogus busybox",
		"run --restart always --rm busybox", "run --memory-swappiness 101 busybox", "run --mount x busybox", "run --mount type=bind busybox", "run --mount type=bind,src=/a,dst=/b,volume-nocopy busybox", "run --mount type=bind,dst=/a,bogus=1 busybox",
		"run --mount type=tmpfs,dst=/t,tmpfs-size=x busybox", "run --mount dst=/a,readonly=x busybox", "run --health-interval -1s busybox", "run --no-healthcheck --health-cmd x busybox", "run --pid bogus busybox", "run --uts bogus busybox", "run --userns bogus busybox",
		"run --cgroupns bogus busybox", "run --log-driver none --log-opt a=b busybox", "run --security-opt x busybox", "run --env-file /nonexistent busybox", "run -e =x busybox", "run -it busybox", "run -t -i -d -a stdin busybox", "run --pull bogus busybox", "run --blkio-weight 99999 busybox",
		"run --gpus x=y busybox", "run --gpus count=x busybox", "run", "run --nosuchflag x", "run -Z x", "run --name", "ps x", "exec", "exec x", "logs", "logs a b", "tag a", "stop", "kill", "rm", "rmi", "inspect", "history", "bogus", "container bogus", "port", "rename a", "wait", "top", "pull", "pull a b", "pull UPPER", "pull -a x:y",
		"run UPPER", "ps --filter x", "stop -t x y", "--nosuchflag", "create -p x busybox", "inspect --type bogus x", "inspect --format {{ x", "logs --since bogus x", "events --since bogus", "run --ip x busybox", "run --network foo --network foo busybox", "run --mac-address x busybox", "run -l =x busybox",
		"cp", "cp a", "cp a b", "cp a:/x b:/y", "cp nosuch:/x /tmp", "diff", "diff a b", "diff nosuch", "export", "export a b", "commit", "commit a b c", "commit nosuch UPPER", "update", "update nosuch", "update -m x nosuch", "update --restart bogus:x nosuch", "update --cpus x nosuch",
		"stats --bogus", "stats --format {{ x", "container prune x", "container prune --filter x", "attach", "attach a b", "start", "pause", "unpause", "restart", "rename", "container", "container ls x", "exec -e =x a b", "exec --env-file /nonexistent a b", "wait nosuch", "port nosuch", "top nosuch",
		"logs nosuch", "kill nosuch", "rm nosuch", "rm -f nosuch", "stop nosuch", "restart nosuch", "pause nosuch", "unpause nosuch", "start nosuch", "attach nosuch", "rename nosuch x", "inspect nosuch", "container inspect nosuch", "help bogus", "events --filter x", "events x", "ps --format {{.Bogus}}", "run --storage-opt x busybox", "run --shm-size x busybox", "run --tmpfs", "run -v a:b:c:d busybox", "run -v :x busybox", "start -a x y", "save", "load x", "import", "run --detach-keys ctrl-xx busybox", "attach --detach-keys bogus x",
	} {
		args := strings.Fields(line)
		d, b := f.docker(args...), f.berth(args...)
		f.take()
		if stricter[line] {
			if b.code == 0 || strings.Contains(b.err, "no answer to") {
				t.Errorf("%s: not refused: %d %s", line, b.code, b.err)
			}
			continue
		}
		if d.code != b.code {
			t.Errorf("%s: exit code %d, docker's is %d\n docker: %s\n berth:  %s", line, b.code, d.code, d.err, b.err)
		}
		if os.Getenv("BERTH_WORDS") != "" && said(d.err) != said(b.err) {
			t.Logf("%s:\n docker: %s\n berth:  %s", line, said(d.err), said(b.err))
		}
	}
}

// stricter are mistakes that docker leaves for the daemon to find.
var stricter = map[string]bool{
	"run --restart bogus busybox": true, "run --ip x busybox": true, "run -v a:b:c:d busybox": true, "run -v :x busybox": true,
	"run --detach-keys ctrl-xx busybox": true, "attach --detach-keys bogus x": true, "logs --since bogus x": true,
}

// said is an error's first line without the program's name.
func said(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	return strings.NewReplacer("docker: ", "", "berth: ", "", "'docker ", "'berth ", "docker ", "berth ").Replace(first)
}
