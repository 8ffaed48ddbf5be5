package build

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"berth/build/protocol"
	"berth/cli/session"
)

// TestKeyFiles: an agent has the keys as long as the build lasts, and no longer.
func TestKeyFiles(t *testing.T) {
	for _, program := range []string{"ssh-keygen", "ssh-agent"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed (Debian's package openssh-client)", program)
		}
	}
	dir := t.TempDir()
	for name, phrase := range map[string]string{"one": "", "two": "", "locked": "phrase"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", phrase, "-f", dir+"/"+name).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for text, wrong := range map[string]string{
		"default=" + dir + "/missing": "no such file",
		"default=" + dir + "/one.pub": "add the key to an agent",
	} {
		o := &secrets{ssh: []string{text}}
		if _, err := o.open(context.Background(), &session.Session{}, &protocol.Request{}); err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: %v", text, err)
		}
	}
	var r protocol.Request
	g, err := (&secrets{ssh: []string{"default=" + dir + "/one," + dir + "/two"}}).open(context.Background(), &session.Session{}, &r)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", g.agents["default"])
	if err != nil {
		t.Fatal(err)
	}
	const requestIdentities, identitiesAnswer = 11, 12 // draft-ietf-sshm-ssh-agent, section 6.1
	if _, err := conn.Write([]byte{0, 0, 0, 1, requestIdentities}); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 9) // its length, its type, the number of keys
	if _, err := io.ReadFull(conn, answer); err != nil {
		t.Fatal(err)
	}
	if n := binary.BigEndian.Uint32(answer[5:]); answer[4] != identitiesAnswer || n != 2 {
		t.Errorf("the agent answers %d with %d keys", answer[4], n)
	}
	if err := g.close(); err != nil {
		t.Error(err)
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the agent lives on")
	}
	conn.Close()
	if _, err := os.Stat(g.agents["default"]); !os.IsNotExist(err) {
		t.Errorf("the agent's socket stays: %v", err)
	}
}
