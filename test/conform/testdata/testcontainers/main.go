// What testcontainers-go does, on busybox: start, wait in every way, exec, copy, follow, stop, start again, remove.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"
)

func check(what string, err error) {
	if err != nil {
		fmt.Printf("%s: %v\n", what, err)
		os.Exit(1)
	}
}

func want(what string, got, expected any) {
	if got != expected {
		fmt.Printf("%s: %v, want %v\n", what, got, expected)
		os.Exit(1)
	}
}

// lines collects what a container says.
type lines struct{ said chan string }

func (l lines) Accept(log testcontainers.Log) { l.said <- string(log.Content) }

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	l := lines{make(chan string, 100)}
	c, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{
		Started: true,
		ContainerRequest: testcontainers.ContainerRequest{
			Image: "busybox", Name: "web", ExposedPorts: []string{"80/tcp"}, Env: map[string]string{"WORD": "served"}, Labels: map[string]string{"a": "b"},
			Cmd:   []string{"sh", "-c", "echo $WORD >/var/www/index.html; echo ready; exec httpd -f -h /var/www"},
			Files: []testcontainers.ContainerFile{{Reader: strings.NewReader("copied"), ContainerFilePath: "/tmp/copied", FileMode: 0o640}},
			Tmpfs: map[string]string{"/t": "rw"},
			WaitingFor: wait.ForAll(wait.ForLog("ready"), wait.ForListeningPort("80/tcp"), wait.ForHTTP("/").WithPort("80/tcp"),
				wait.ForExec([]string{"test", "-e", "/tmp/copied"}), wait.ForFile("/var/www/index.html")),
			LogConsumerCfg: &testcontainers.LogConsumerConfig{Consumers: []testcontainers.LogConsumer{l}},
		},
	})
	check("start", err)
	want("the log's first line", <-l.said, "ready\n")

	url, err := c.PortEndpoint(ctx, "80/tcp", "http")
	check("port", err)
	answer, err := http.Get(url)
	check("get", err)
	body, err := io.ReadAll(answer.Body)
	check("read", err)
	want("the page", string(body), "served\n")

	code, out, err := c.Exec(ctx, []string{"sh", "-c", "cat /tmp/copied; exit 3"})
	check("exec", err)
	var text bytes.Buffer
	_, err = io.Copy(&text, out)
	check("exec's output", err)
	want("exec", fmt.Sprint(code, strings.Contains(text.String(), "copied")), "3 true")

	check("copy to", c.CopyToContainer(ctx, []byte("more"), "/tmp/more", 0o600))
	file, err := c.CopyFileFromContainer(ctx, "/tmp/more")
	check("copy from", err)
	body, err = io.ReadAll(file)
	check("copy from", err)
	want("what was copied", string(body), "more")

	state, err := c.State(ctx)
	check("state", err)
	want("running", state.Running, true)
	limit := time.Second
	check("stop", c.Stop(ctx, &limit))
	state, err = c.State(ctx)
	check("state", err)
	want("running", state.Running, false)
	check("start again", c.Start(ctx))
	check("remove", c.Terminate(ctx))

	once, err := testcontainers.Run(ctx, "busybox", testcontainers.WithCmd("sh", "-c", "exit 5"), testcontainers.WithWaitStrategy(wait.ForExit()))
	check("run to the end", err)
	state, err = once.State(ctx)
	check("state", err)
	want("exit code", state.ExitCode, 5)
	check("remove", once.Terminate(ctx))
	fmt.Println("done")
}
