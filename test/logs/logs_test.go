// Package logs_test floods logs: a container that writes as fast as it can, and readers that keep up and that don't.
package logs_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/kerneltest"
	"berth/test/testengine"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// payload makes lines of about a kilobyte, as many as are asked for, each beginning with its number.
const payload = `BEGIN { p = sprintf("%%01000d", 7); for (i = %d; i < %d; i++) print i, p }`

// recordSize is what a line of payload takes in the log, but for the first one of a file.
const recordSize = len(`{"log":" \n","stream":"stdout","time":"2026-01-02T03:04:05.123456789Z"}`) + 1 + 1000

// frame is one piece of a stream.
type frame struct {
	stderr bool
	text   string
}

// logsOf streams a container's logs as the API has them.
func logsOf(t *testing.T, e *testengine.Engine, query string) *bufio.Reader {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", e.Socket)
		},
	}}
	r, err := client.Get("http://berth/containers/" + query)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Body.Close(); client.CloseIdleConnections() })
	if r.StatusCode != http.StatusOK {
		t.Fatal(r.Status)
	}
	return bufio.NewReaderSize(r.Body, 256<<10)
}

func nextFrame(r *bufio.Reader) (frame, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	text := make([]byte, binary.BigEndian.Uint32(head[4:]))
	_, err := io.ReadFull(r, text)
	return frame{head[0] == 2, string(text)}, err
}

var notice = regexp.MustCompile(`^berth: (\d+) bytes of this log \(.*\) were dropped before they could be read here`)

// follower checks a stream of numbered lines: there is no gap without a notice, which tells its size to the byte but for
// the digits of the times in it.
type follower struct {
	t       *testing.T
	next    int // line
	skipped int64
	told    bool
	notices int
}

func (f *follower) take(x frame) {
	if m := notice.FindStringSubmatch(x.text); m != nil && x.stderr {
		n, _ := strconv.ParseInt(m[1], 10, 64)
		f.skipped, f.told = n, true
		f.notices++
		return
	}
	digits, _, _ := strings.Cut(x.text, " ")
	n, err := strconv.Atoi(digits)
	if err != nil {
		f.t.Fatalf("no line of the container: %.200q", x.text)
	}
	gap := int64(n - f.next)
	switch {
	case gap < 0 || gap > 0 && !f.told:
		f.t.Fatalf("line %d came where %d was due, without a word", n, f.next)
	case f.told:
		if size := f.skipped / gap; size < int64(recordSize-9) || size > int64(recordSize+30) {
			f.t.Errorf("told of %d bytes where %d lines are missing, %d each", f.skipped, gap, size)
		}
	}
	f.next, f.told = n+1, false
}

// watchDisk samples the size of a directory until stop is called, which returns the largest.
func watchDisk(dir string) (stop func() int64) {
	done, result := make(chan struct{}), make(chan int64)
	go func() {
		var most int64
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			var now int64
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				if info, err := e.Info(); err == nil && strings.Contains(e.Name(), "json.log") {
					now += info.Size()
				}
			}
			most = max(most, now)
			select {
			case <-done:
				result <- most
				return
			case <-tick.C:
			}
		}
	}()
	return func() int64 { close(done); return <-result }
}

func memoryOf(t *testing.T, pid int, key string) (kb int) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), key+":")
	kb, err = strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb
}

// TestFlood has a container write as fast as it can: 1 GB with BERTH_SOAK set, at the default limits, and otherwise a part of that at a
// part of the limits. The disk's cap holds, the daemon's memory is flat, followers miss nothing without a word,
// and one that is too slow is told.
func TestFlood(t *testing.T) {
	lines, size, args := 40_000, int64(1<<20), []string{"--log-opt", "max-size=1048576"}
	if os.Getenv("BERTH_SOAK") != "" {
		lines, size, args = 1_000_000, 20<<20, nil
	}
	e := testengine.Start(t)
	e.Busybox(t)
	e.Run(t, append(append([]string{"create", "--name", "flood"}, args...), "busybox", "awk", fmt.Sprintf(payload, 0, lines))...)
	path := strings.TrimSpace(e.Run(t, "inspect", "-f", "{{.LogPath}}", "flood"))
	before := memoryOf(t, e.Pid(), "VmRSS")
	stop := watchDisk(filepath.Dir(path))

	var readers sync.WaitGroup
	e.Run(t, "start", "flood")
	fast, slow := &follower{t: t}, &follower{t: t}
	in := logsOf(t, e, "flood/logs?follow=1&stdout=1&stderr=1")
	slowly := logsOf(t, e, "flood/logs?follow=1&stdout=1&stderr=1")
	readers.Go(func() {
		for {
			x, err := nextFrame(in)
			if err != nil {
				return
			}
			fast.take(x)
		}
	})
	first, err := nextFrame(slowly)
	if err != nil {
		t.Fatal(err)
	}
	slow.take(first)
	e.Run(t, "wait", "flood") // meanwhile this one takes nothing
	for {
		x, err := nextFrame(slowly)
		if err != nil {
			break
		}
		slow.take(x)
	}
	readers.Wait()
	most := stop()
	if bound := 6 * size; most > bound {
		t.Errorf("the log took %d bytes, at most %d may be: five files, and one while it is compressed", most, bound)
	}
	if now := memoryOf(t, e.Pid(), "VmHWM"); now > before+40<<10 {
		t.Errorf("the daemon had %d KB before and up to %d KB at the flood", before, now)
	}
	if fast.next != lines || slow.next != lines {
		t.Errorf("the followers ended at lines %d and %d of %d", fast.next, slow.next, lines)
	}
	if slow.notices == 0 {
		t.Error("a follower that was too slow was not told")
	}
	t.Logf("%d notices to the one that read, %d to the one that didn't; %d KB of the daemon's, %d before; at most %d KB on disk",
		fast.notices, slow.notices, memoryOf(t, e.Pid(), "VmHWM"), before, most>>10)
	// The last rotated file may still be at its compression.
	testengine.Eventually(t, 10*time.Second, func() error {
		entries, err := os.ReadDir(filepath.Dir(path))
		for _, f := range entries {
			if strings.HasSuffix(f.Name(), ".tmp") || strings.HasSuffix(f.Name(), ".new") {
				return fmt.Errorf("%s is left", f.Name())
			}
		}
		return err
	})
}

// TestFollowerThatKeepsUp sees every line though the log is rotated and compressed many times: the container writes the next lot
// when the last one was read.
func TestFollowerThatKeepsUp(t *testing.T) {
	const lots, lot = 40, 100
	e := testengine.Start(t)
	e.Busybox(t)
	script := fmt.Sprintf(`i=0; while [ $i -lt %d ]; do awk "BEGIN { p = sprintf(\"%%01000d\", 7); for (i = $i; i < $i + %d; i++) print i, p }"; i=$((i + %d)); read x; done`, lots*lot, lot, lot)
	cmd := e.Command("berth", "run", "-i", "--name", "lots", "--log-opt", "max-size=60k", "--log-opt", "max-file=3", "busybox", "sh", "-c", script)
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testengine.Eventually(t, time.Minute, func() error {
		out, err := e.Try("logs", "--tail", "1", "lots")
		if err == nil && out == "" {
			err = fmt.Errorf("nothing yet")
		}
		return err
	})
	in := logsOf(t, e, "lots/logs?follow=1&stdout=1&stderr=1")
	f := &follower{t: t}
	for f.next < lots*lot {
		x, err := nextFrame(in)
		if err != nil {
			t.Fatalf("after line %d: %v", f.next, err)
		}
		f.take(x)
		if f.next%lot == 0 {
			io.WriteString(keys, "\n")
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := nextFrame(in); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if f.notices > 0 {
		t.Errorf("%d notices", f.notices)
	}
}

// TestAttachReplaysPackedLogs: what was written before comes first, out of compressed files too, whether the container runs or not.
func TestAttachReplaysPackedLogs(t *testing.T) {
	const lines = 300
	e := testengine.Start(t)
	e.Busybox(t)
	script := fmt.Sprintf(`awk '%s'; read x`, fmt.Sprintf(payload, 0, lines))
	e.Run(t, "run", "-d", "-i", "--name", "old", "--log-opt", "max-size=100k", "busybox", "sh", "-c", script)
	path := strings.TrimSpace(e.Run(t, "inspect", "-f", "{{.LogPath}}", "old"))
	testengine.Eventually(t, time.Minute, func() error { _, err := os.Stat(path + ".2.gz"); return err })
	testengine.Eventually(t, time.Minute, func() error {
		if out, err := e.Try("logs", "--tail", "1", "old"); err != nil || !strings.HasPrefix(out, strconv.Itoa(lines-1)+" ") {
			return fmt.Errorf("%.20s, %w", out, err)
		}
		return nil
	})
	check := func(when string) {
		t.Helper()
		c, err := net.Dial("unix", e.Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprint(c, "POST /v1.51/containers/old/attach?logs=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		r := bufio.NewReader(c)
		answer, err := http.ReadResponse(r, nil)
		if err != nil || answer.StatusCode != http.StatusSwitchingProtocols || answer.Header.Get("Content-Type") != "application/vnd.docker.multiplexed-stream" {
			t.Fatalf("%s: %v, %v", when, answer, err)
		}
		f := &follower{t: t}
		for {
			x, err := nextFrame(r)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: after line %d: %v", when, f.next, err)
			}
			f.take(x)
		}
		if f.next != lines {
			t.Errorf("%s: the last line was %d", when, f.next-1)
		}
	}
	check("running")
	e.Run(t, "stop", "-t", "0", "old")
	check("stopped")
}
