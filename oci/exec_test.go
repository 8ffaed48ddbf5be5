package oci

import (
	"context"
	"errors"
	"strings"
	"testing"

	"berth/internal/kerneltest"
)

// sleeper starts a container that does nothing.
func sleeper(t testing.TB, b *Bundle) *Process {
	t.Helper()
	p, err := Create(context.Background(), b, Stdio{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Signal(9)
		if e, err := p.Wait(); err != nil || e.Signal != 9 {
			t.Errorf("end of %s: %+v, %v", b.ID, e, err)
		}
		if err := p.Delete(); err != nil {
			t.Error(err)
		}
	})
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func execIn(t testing.TB, p *Process, b *Bundle, e ExecSpec) (result, error) {
	t.Helper()
	out, outW, wait := pipe(t)
	errs, errW, waitErr := pipe(t)
	x, err := Exec(context.Background(), p.Pid(), b, e, Stdio{Stdout: outW, Stderr: errW})
	outW.Close()
	errW.Close()
	var r result
	if err == nil {
		r.exit, err = x.Wait()
	}
	wait()
	waitErr()
	r.out, r.err = out.String(), errs.String()
	return r, err
}

func execSpec(b *Bundle, args ...string) ExecSpec {
	p := *b.Spec.Process
	p.Args = args
	return ExecSpec{Process: p}
}

func TestExecJoinsTheContainer(t *testing.T) {
	kerneltest.Root(t)
	b := newBundle(t, newRoot(t), "sleep", "1000")
	p := sleeper(t, b)
	r, err := execIn(t, p, b, execSpec(b, "sh", "-c", "hostname; id -u; ls -l /proc/self/ns /proc/1/ns | grep -- '->' | grep -v time | sed 's/.* //' ; exit 7"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(r.out, "box\n0\n") || r.exit.Code != 7 {
		t.Errorf("got %+v", r)
	}
	e := execSpec(b, "sh", "-c", "id; pwd; echo $HOME")
	e.User, e.Process.Cwd = "alice", "/tmp"
	if r, err = execIn(t, p, b, e); err != nil || r.out != "uid=1000(alice) gid=1000(alice) groups=10(wheel),1000(alice)\n/tmp\n/home/alice\n" {
		t.Errorf("as alice: %+v, %v", r, err)
	}
	_, err = execIn(t, p, b, execSpec(b, "nope"))
	var s *StartError
	if !errors.As(err, &s) || s.Code != 127 || err.Error() != `exec: "nope": executable file not found in $PATH` {
		t.Errorf("missing program: %v", err)
	}
}
