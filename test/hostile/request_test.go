package hostile

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/test/testengine"
)

// TestBadRequests: what create and run can't do is refused with a clear error, and nothing stays.
func TestBadRequests(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	e.Run(t, "run", "-d", "--name", "taken", "-p", "127.0.0.1:7001:80", "busybox", "sleep", "1000")
	l, err := net.Listen("tcp", "127.0.0.1:7002")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	here := t.TempDir()
	big := strings.Repeat("x", 200_000) // more than one argument may have (MAX_ARG_STRLEN, 128 KiB)
	for name, text := range map[string]string{"file": "no program", "env": "BIG=" + big + "\n"} {
		if err := os.WriteFile(filepath.Join(here, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	before := settled(t, e)
	for _, c := range []struct {
		code  int
		words string
		args  string
	}{
		{125, `The container name "/taken" is already in use by container`, "--name taken busybox true"},
		{125, `Invalid container name \(x\), only \[a-zA-Z0-9\]\[a-zA-Z0-9_.-\] are allowed`, "--name x busybox true"},
		{125, "Invalid container name", "--name -bad busybox true"},
		{125, "Invalid container name", "--name ../../etc busybox true"},
		{125, "Invalid container name", "--name a/b busybox true"},
		{125, "invalid reference format", "ubuntu:16:04"},
		{125, "invalid reference format", "UPPER true"},
		{125, "port is already allocated|address already in use", "-p 127.0.0.1:7001:80 busybox true"},
		{125, "port is already allocated", "-p 7001:80 busybox true"},
		{125, "address already in use|already allocated", "-p 127.0.0.1:7002:80 busybox true"},
		{125, "address|assign|192.0.2.1", "-p 192.0.2.1:7003:80 busybox true"},
		{125, "[Ii]nvalid|range", "-p 70000:80 busybox true"},
		{125, "[Ii]nvalid", "-p 80:80/sctpx busybox true"},
		{125, "[Mm]inimum memory limit|memory", "-m 1k busybox true"},
		{125, "invalid|memory|size", "-m lots busybox true"},
		{125, "invalid|cpus|CPUs", "--cpus -1 busybox true"},
		{125, "CPUs|cpus", "--cpus 1000 busybox true"},
		{125, "cpuset|CPUs", "--cpuset-cpus 900-1000 busybox true"},
		{125, "cpuset|invalid", "--cpuset-cpus a,b busybox true"},
		{125, "unable to find user nobody77: no matching entries in passwd file", "-u nobody77 busybox true"},
		{125, "unable to find group|group", "-u root:group77 busybox true"},
		{125, "capability|CAP", "--cap-add NOT_A_CAP busybox true"},
		{125, "network nosuch not found", "--network nosuch busybox true"},
		{125, "No such container|nosuch", "--network container:nosuch busybox true"},
		{125, "bind source path does not exist", "--mount type=bind,src=/no/such/source,dst=/x busybox true"},
		{125, "absolute|invalid", "--mount type=bind,src=/tmp,dst=x busybox true"},
		{125, "root|destination|can't be|invalid", "-v /tmp:/ busybox true"},
		{125, "Duplicate mount point", "-v /tmp:/x -v /run:/x busybox true"},
		{127, `exec: "nosuch": executable file not found in \$PATH`, "busybox nosuch"},
		{127, `stat /no/such: no such file or directory`, "busybox /no/such"},
		{126, "permission denied", "busybox /etc/passwd"},
		{126, "is a directory|permission denied", "busybox /etc"},
		{126, "is a directory|permission denied", "-w /tmp busybox ./"},
		{0, "not a directory|mkdir", "-w /etc/passwd busybox true"},
		{0, "not a directory|mkdir", "-w /etc/passwd/x busybox true"},
		{125, "absolute|invalid|working directory", "-w relative busybox true"},
		{0, "exec format error", "-v HERE/file:/f --entrypoint /f busybox"},
		{0, "argument list too long", "--env-file HERE/env busybox true"},
		{0, "not a directory: are you trying to mount a directory onto a file", "-v HERE:/etc/passwd busybox true"},
		{0, "not a directory: are you trying to mount a directory onto a file", "-v HERE/file:/etc busybox true"},
		{125, "sysctl", "--sysctl kernel.sysrq=1 busybox true"},
		{0, "device|no such file", "--device /dev/nosuch busybox true"},
		{125, "runtime", "--runtime nosuch busybox true"},
		{125, "log|driver", "--log-driver nosuch busybox true"},
		{125, "security|option", "--security-opt nosuch=1 busybox true"},
		{125, "seccomp|nosuch|no such file", "--security-opt seccomp=/no/such.json busybox true"},
		{125, "pids|invalid", "--pids-limit x busybox true"},
		{125, "env|no such file", "--env-file /no/such busybox true"},
		{125, "ulimit|invalid", "--ulimit nosuch=1 busybox true"},
		{125, "tmpfs|invalid|option", "--tmpfs /x:nosuchoption busybox true"},
	} {
		args := strings.Fields(strings.ReplaceAll(c.args, "HERE", here))
		show := strings.Join(args, " ")
		t.Run(show[:min(len(show), 60)], func(t *testing.T) {
			refused(t, e, c.code, c.words, append([]string{"run", "--rm"}, args...)...)
			if t.Failed() {
				return
			}
		})
	}
	refused(t, e, 125, "[Nn]o command specified", "run", "--rm", "--entrypoint", "", "busybox", "")
	same(t, e, before)
	// The longest that the kernel takes works: 1 MB in many arguments, 1 MB in many variables.
	args := []string{"run", "--rm"}
	for i := range 60 {
		args = append(args, "-e", fmt.Sprintf("V%d=%s", i, big[:8000]))
	}
	args = append(args, "busybox", "sh", "-c", `n=0; for a; do n=$((n+${#a})); done; echo $n $(env | wc -c)`, "sh")
	for range 60 {
		args = append(args, big[:8000])
	}
	if out := e.Run(t, args...); !strings.HasPrefix(out, "480000 48") {
		t.Errorf("long arguments and variables came as %q", out)
	}
	same(t, e, before)
}
