package conform

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/test/testengine"
)

const composeFile = `
version: "2.4"
services:
  web:
    image: busybox
    command: sh -c "echo served by web >/var/www/index.html; exec httpd -f -h /var/www"
    networks: {front: {aliases: [www]}, back: {ipv4_address: 10.81.0.10}}
    ports: ["127.0.0.1:8790:80"]
    healthcheck: {test: ["CMD", "true"], interval: 1s}
    volumes: ["data:/data", "./etc:/etc/web:ro"]
    environment: {COLOUR: blue}
  ask:
    image: busybox
    command: sleep 1000
    networks: [front]
    depends_on: {web: {condition: service_healthy}}
  far:
    image: busybox
    command: sleep 1000
    networks: [back]
networks:
  front: {}
  back:
    internal: true
    ipam: {config: [{subnet: 10.81.0.0/24}]}
volumes:
  data: {}
`

// TestCompose has Debian's docker-compose bring a project up, ask, change and end it.
func TestCompose(t *testing.T) {
	program, err := exec.LookPath("docker-compose")
	if err != nil {
		t.Skip("Debian's docker-compose is not installed")
	}
	e := testengine.Start(t)
	e.Busybox(t)
	dir := filepath.Join(t.TempDir(), "project")
	if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"docker-compose.yml": composeFile, "etc/conf": "read me\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	compose := func(args ...string) string {
		t.Helper()
		cmd := e.Command(program, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("docker-compose %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	want := func(out, part string) {
		t.Helper()
		if !strings.Contains(out, part) {
			t.Errorf("no %q in\n%s", part, out)
		}
	}
	compose("up", "-d")
	want(compose("ps"), "Up (healthy)")
	for _, name := range []string{"web", "www", "project_web_1", "web.project_front"} {
		want(compose("exec", "-T", "ask", "wget", "-qO-", "http://"+name+"/"), "served by web")
	}
	want(compose("exec", "-T", "far", "wget", "-qO-", "http://10.81.0.10/"), "served by web")
	want(compose("exec", "-T", "web", "cat", "/etc/web/conf"), "read me")
	want(compose("exec", "-T", "web", "env"), "COLOUR=blue")
	want(compose("port", "web", "80"), "127.0.0.1:8790")
	out, err := e.Command("busybox", "wget", "-qO-", "http://127.0.0.1:8790/").CombinedOutput()
	if err != nil {
		t.Errorf("the published port: %v\n%s", err, out)
	}
	compose("up", "-d", "--scale", "ask=3")
	want(compose("exec", "-T", "--index", "2", "ask", "nslookup", "ask"), "Address")
	compose("restart", "-t", "0", "web")
	want(compose("exec", "-T", "ask", "wget", "-qO-", "http://web/"), "served by web")
	want(compose("run", "--rm", "-T", "ask", "wget", "-qO-", "http://web/"), "served by web")
	want(compose("logs", "--tail", "5", "ask"), "Attaching to")
	compose("down", "-v", "-t", "0")
	if left := e.Run(t, "ps", "-aq") + e.Run(t, "network", "ls", "-q", "--filter", "type=custom"); left != "" {
		t.Errorf("left: %s", left)
	}
}
