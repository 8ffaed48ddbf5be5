package forward

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2024, 2, 3, 12, 0, 0, 120_000_000, time.UTC)

// limit is more than anything here may take, on a busy machine too.
const limit = 30 * time.Second

// testLog writes a log; each text is a record. It returns what messages tell of the container.
func testLog(t *testing.T, driver string, opts map[string]string, texts ...string) Info {
	t.Helper()
	info := Info{
		Driver: driver, Opts: opts, LogPath: filepath.Join(t.TempDir(), "container.log"), ContainerID: "0123456789abcdef", ContainerName: "/web",
		ContainerEntrypoint: "sh", ContainerArgs: []string{"-c", "x"}, ContainerImageID: "sha256:fedcba9876543210", ContainerImageName: "busybox",
		ContainerCreated: noon, ContainerLabels: map[string]string{"team": "blue", "_x": "y"}, ContainerEnv: []string{"A=1", "B=2"}, DaemonName: "berth",
	}
	addTo(t, info.LogPath, texts...)
	return info
}

func addTo(t *testing.T, path string, texts ...string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, text := range texts {
		stream := "stdout"
		if rest, ok := strings.CutPrefix(text, "2>"); ok {
			stream, text = "stderr", rest
		}
		record, _ := json.Marshal(map[string]string{"log": text, "stream": stream, "time": noon.Format(time.RFC3339Nano)})
		// The field's order is the one in which the files have them.
		var e struct{ Log, Stream, Time json.RawMessage }
		json.Unmarshal(record, &e)
		fmt.Fprintf(f, `{"log":%s,"stream":%s,"time":%s}`+"\n", e.Log, e.Stream, e.Time)
	}
}

// send forwards all of a log that has ended.
func send(t *testing.T, info Info) {
	t.Helper()
	await(t, begin(t, info, nil))
}

func begin(t *testing.T, info Info, ended <-chan struct{}) *Forwarder {
	t.Helper()
	f, err := Start(context.Background(), info, ended, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	return f
}

func await(t *testing.T, f *Forwarder) {
	t.Helper()
	select {
	case <-f.Done():
	case <-time.After(limit):
		t.Fatal("not all is sent")
	}
}

// packets receives datagrams.
func packets(t *testing.T, network string) (c net.PacketConn, address string) {
	t.Helper()
	address = "127.0.0.1:0"
	if network == "unixgram" {
		address = filepath.Join(t.TempDir(), "log")
	}
	c, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(limit))
	return c, c.LocalAddr().String()
}

func packet(t *testing.T, c net.PacketConn) string {
	t.Helper()
	b := make([]byte, 256<<10)
	n, _, err := c.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(limit))
	return c
}

func TestSyslogMessages(t *testing.T) {
	m := &message{time: noon, text: []byte("hello")}
	pid := os.Getpid()
	local := noon.Local()
	for format, want := range map[string]string{
		"":             fmt.Sprintf("<30>%s tag[%d]: hello", local.Format(time.Stamp), pid),
		"rfc3164":      fmt.Sprintf("<30>%s host tag[%d]: hello", local.Format(time.Stamp), pid),
		"rfc5424":      fmt.Sprintf("<30>1 %s host tag %d tag - hello", local.Format(time.RFC3339), pid),
		"rfc5424micro": fmt.Sprintf("<30>1 %s host tag %d tag - hello", local.Format("2006-01-02T15:04:05.000000Z07:00"), pid),
	} {
		if got := string(appendSyslog(nil, format, 30, "host", "tag", m)); got != want {
			t.Errorf("%q: got %q, want %q", format, got, want)
		}
	}
}

func TestSyslogDatagrams(t *testing.T) {
	for _, network := range []string{"udp", "unixgram"} {
		c, address := packets(t, network)
		info := testLog(t, "syslog", map[string]string{"syslog-address": network + "://" + address, "syslog-facility": "local3", "tag": "{{.Name}}/{{.ImageName}}"}, "one\n", "2>two\n", "\n")
		send(t, info)
		for _, want := range []string{"<158>|]: one", "<155>|]: two", "<158>|]: "} {
			begin, end, _ := strings.Cut(want, "|")
			if got := packet(t, c); !strings.HasPrefix(got, begin) || !strings.HasSuffix(got, end) || !strings.Contains(got, " web/busybox[") {
				t.Errorf("%s: got %q, want %s…%s", network, got, begin, end)
			}
		}
	}
}

func TestSyslogStreams(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	info := testLog(t, "syslog", map[string]string{"syslog-address": "tcp://" + l.Addr().String(), "syslog-format": "rfc5424"}, "one\n", "two\n")
	f := begin(t, info, nil)
	in := bufio.NewReader(accept(t, l))
	for _, want := range []string{"- one\n", "- two\n"} {
		if got, err := in.ReadString('\n'); err != nil || !strings.HasSuffix(got, want) || !strings.HasPrefix(got, "<30>1 ") {
			t.Errorf("got %q, %v, want …%s", got, err, want)
		}
	}
	await(t, f)
}

// TestSyslogTLS: messages of RFC 5424 come after their length there.
func TestSyslogTLS(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600)
	l := tls.NewListener(listen(t, "tcp", "127.0.0.1:0"), &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}})
	info := testLog(t, "syslog", map[string]string{"syslog-address": "tcp+tls://" + l.Addr().String(), "syslog-format": "rfc5424", "syslog-tls-ca-cert": ca}, "one\n")
	f := begin(t, info, nil)
	in := bufio.NewReader(accept(t, l))
	var size int
	if _, err := fmt.Fscanf(in, "%d ", &size); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(in, text); err != nil || !strings.HasSuffix(string(text), "- one") {
		t.Errorf("got %q, %v", text, err)
	}
	await(t, f)
}

func TestGELF(t *testing.T) {
	large := make([]byte, 8<<10)
	rand.Read(large)
	big := fmt.Sprintf("%x", large)
	want := []map[string]any{
		{"short_message": "one", "level": 6.0}, {"short_message": "two", "level": 3.0}, {"short_message": big[:16<<10], "level": 6.0},
	}
	for _, m := range want {
		for k, v := range map[string]any{
			"version": "1.1", "timestamp": 1706961600.12, "_container_id": "0123456789abcdef", "_container_name": "web", "_image_id": "sha256:fedcba9876543210",
			"_image_name": "busybox", "_command": "sh -c x", "_tag": "0123456789ab", "_created": "2024-02-03T12:00:00.12Z", "_team": "blue",
		} {
			m[k] = v
		}
	}
	check := func(name string, data []byte, n int) {
		t.Helper()
		var got map[string]any
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatalf("%s: %.100q: %v", name, data, err)
		}
		delete(got, "host")
		if diff := cmp.Diff(want[n], got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	texts := []string{"one\n", "2>two\n", "\n", big[:16<<10]}
	for _, kind := range []string{"gzip", "zlib", "none"} {
		c, address := packets(t, "udp")
		send(t, testLog(t, "gelf", map[string]string{"gelf-address": "udp://" + address, "gelf-compression-type": kind, "labels": "team"}, texts...))
		for n := range want {
			data := []byte(packet(t, c))
			if bytes.HasPrefix(data, []byte{0x1e, 0x0f}) {
				id, count := string(data[2:10]), int(data[11])
				data = data[12:]
				for k := 1; k < count; k++ {
					more := packet(t, c)
					if len(more) > gelfDatagram || more[2:10] != id || int(more[10]) != k {
						t.Errorf("%s: chunk %d is %q", kind, k, more[:12])
					}
					data = append(data, more[12:]...)
				}
			}
			var r io.Reader = bytes.NewReader(data)
			var err error
			switch kind {
			case "gzip":
				r, err = gzip.NewReader(r)
			case "zlib":
				r, err = zlib.NewReader(r)
			}
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			check(kind, plain, n)
		}
	}
	l := listen(t, "tcp", "127.0.0.1:0")
	f := begin(t, testLog(t, "gelf", map[string]string{"gelf-address": "tcp://" + l.Addr().String(), "labels": "team"}, texts...), nil)
	in := bufio.NewReader(accept(t, l))
	for n := range want {
		data, err := in.ReadBytes(0)
		if err != nil {
			t.Fatal(err)
		}
		check("tcp", data[:len(data)-1], n)
	}
	await(t, f)
}

func TestJournald(t *testing.T) {
	c, address := packets(t, "unixgram")
	out, err := net.Dial("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	info := testLog(t, "journald", map[string]string{"labels": "team,_x", "env": "B"})
	info.tag = "tag"
	info.attrs, _ = info.Attributes()
	info.ContainerImageName = "two\nlines"
	j := newJournald(out, &info)
	defer j.Close()
	if err := j.send(&message{time: noon, stderr: true, text: []byte("hello"), partID: "p", part: 2}); err != nil {
		t.Fatal(err)
	}
	got := packet(t, c)
	for _, field := range []string{
		"CONTAINER_ID=0123456789ab\n", "CONTAINER_ID_FULL=0123456789abcdef\n", "CONTAINER_NAME=web\n", "CONTAINER_TAG=tag\n", "SYSLOG_IDENTIFIER=tag\n",
		"IMAGE_NAME\n\x09\x00\x00\x00\x00\x00\x00\x00two\nlines\n", "PRIORITY=3\n", "MESSAGE=hello\n", "TEAM=blue\n", "X=y\n", "B=2\n",
		"CONTAINER_PARTIAL_MESSAGE=true\n", "CONTAINER_PARTIAL_ORDINAL=2\n", "SYSLOG_TIMESTAMP=2024-02-03T12:00:00.12Z\n",
	} {
		if !strings.Contains(got, field) {
			t.Errorf("%q is missing in %q", field, got)
		}
	}
}

// unpack reads any value of the kinds that come here.
func unpack(t *testing.T, r *bufio.Reader) any {
	t.Helper()
	head, err := r.Peek(1)
	if err != nil {
		t.Fatal(err)
	}
	switch h := head[0]; {
	case h&0xf0 == 0x90:
		r.ReadByte()
		list := []any{}
		for range h & 0x0f {
			list = append(list, unpack(t, r))
		}
		return list
	case h&0xf0 == 0x80:
		m, err := unpackMap(r)
		if err != nil {
			t.Fatal(err)
		}
		return m
	case h == 0xd3:
		var b [9]byte
		io.ReadFull(r, b[:])
		return binary.BigEndian.Uint64(b[1:])
	case h == 0xd7:
		var b [10]byte
		io.ReadFull(r, b[:])
		return fmt.Sprintf("%d.%d", binary.BigEndian.Uint32(b[2:]), binary.BigEndian.Uint32(b[6:]))
	default:
		s, err := unpackString(r)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestFluentd(t *testing.T) {
	part := strings.Repeat("x", 4000) // a log's parts are longer, but the reader of answers takes no such strings
	for _, ack := range []bool{false, true} {
		l := listen(t, "unix", filepath.Join(t.TempDir(), "sock"))
		opts := map[string]string{"fluentd-address": "unix://" + l.Addr().String(), "labels": "team", "tag": "berth.{{.Name}}"}
		if ack {
			opts["fluentd-request-ack"], opts["fluentd-sub-second-precision"] = "true", "true"
		}
		f := begin(t, testLog(t, "fluentd", opts, "one\n", "2>"+part+"\n"), nil)
		c := accept(t, l)
		in := bufio.NewReader(c)
		for n, want := range []map[string]string{{"source": "stdout", "log": "one"}, {"source": "stderr", "log": part}} {
			want["container_id"], want["container_name"], want["team"] = "0123456789abcdef", "/web", "blue"
			got := unpack(t, in).([]any)
			var at any = uint64(noon.Unix())
			if ack {
				at = fmt.Sprintf("%d.120000000", noon.Unix())
				chunk := got[3].(map[string]string)["chunk"]
				c.Write(packMap(nil, "ack", chunk))
				got = got[:3]
			}
			if diff := cmp.Diff([]any{"berth.web", at, want}, got); diff != "" {
				t.Errorf("ack %v, message %d: %s", ack, n, diff)
			}
		}
		await(t, f)
	}
}

func TestParts(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	full := strings.Repeat("x", partSize)
	f := begin(t, testLog(t, "fluentd", map[string]string{"fluentd-address": l.Addr().String()}, full, "2>between\n", full, "end\n", "short"), nil)
	in := bufio.NewReader(accept(t, l))
	longString := func() string {
		head, _ := in.Peek(3)
		if head[0] != 0xda || binary.BigEndian.Uint16(head[1:]) != partSize {
			s, err := unpackString(in)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		in.Discard(3 + partSize)
		return "full"
	}
	message := func() map[string]string {
		in.Discard(1)
		unpack(t, in)
		unpack(t, in)
		n, _ := in.ReadByte()
		m := map[string]string{}
		for range n & 0x0f {
			k := longString()
			m[k] = longString()
		}
		return m
	}
	var id string
	for n, want := range []string{"full 1 false", "between  ", "full 2 false", "end 3 true", "short  "} {
		m := message()
		if got := m["log"] + " " + m["partial_ordinal"] + " " + m["partial_last"]; got != want {
			t.Errorf("message %d: %q, want %q", n, got, want)
		}
		if m["partial_ordinal"] == "1" {
			id = m["partial_id"]
		} else if m["partial_ordinal"] != "" && (m["partial_id"] != id || id == "") {
			t.Errorf("message %d has the ID %q, the first part %q", n, m["partial_id"], id)
		}
	}
	await(t, f)
}

// TestDestinationComesAndGoes: nothing is lost while it is down, and the next forwarder goes on where the last one was.
func TestDestinationComesAndGoes(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	address := l.Addr().String()
	l.Close()
	info := testLog(t, "syslog", map[string]string{"syslog-address": "tcp://" + address}, "line 0\n", "line 1\n")
	ended := make(chan struct{})
	f := begin(t, info, ended)
	next := func(in *bufio.Reader, want string) {
		t.Helper()
		if got, err := in.ReadString('\n'); err != nil || !strings.HasSuffix(got, ": "+want+"\n") {
			t.Fatalf("got %q, %v, want %s", got, err, want)
		}
	}
	l = listen(t, "tcp", address)
	c := accept(t, l)
	in := bufio.NewReader(c)
	next(in, "line 0")
	next(in, "line 1")
	c.Close()
	addTo(t, info.LogPath, "line 2\n")
	in = bufio.NewReader(accept(t, l))
	for { // what the broken connection had taken may come again
		got, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(got, ": line 2\n") {
			break
		}
	}
	close(ended)
	await(t, f)
	if Behind(info.LogPath) {
		t.Error("something is said to be left")
	}
	addTo(t, info.LogPath, "line 3\n")
	if !Behind(info.LogPath) {
		t.Error("nothing is said to be left")
	}
	f = begin(t, info, nil)
	next(bufio.NewReader(accept(t, l)), "line 3")
	await(t, f)
}

// TestDroppedLinesAreTold: the rotation was faster.
func TestDroppedLinesAreTold(t *testing.T) {
	c, address := packets(t, "udp")
	info := testLog(t, "syslog", map[string]string{"syslog-address": "udp://" + address}, "one\n")
	send(t, info)
	packet(t, c)
	os.WriteFile(info.LogPath, fmt.Appendf(nil, `{"log":"late\n","stream":"stdout","time":%q,"offset":5000}`+"\n", noon.Format(time.RFC3339Nano)), 0o600)
	send(t, info)
	if got := packet(t, c); !strings.Contains(got, "bytes of this log") {
		t.Errorf("got %q", got)
	}
	if got := packet(t, c); !strings.HasSuffix(got, ": late") {
		t.Errorf("got %q", got)
	}
}

// TestRemovedWhileSending: a removed container's last lines are still sent.
func TestRemovedWhileSending(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	info := testLog(t, "syslog", map[string]string{"syslog-address": "tcp://" + l.Addr().String()}, "one\n")
	f := begin(t, info, nil)
	f.Leave()
	if err := os.RemoveAll(filepath.Dir(info.LogPath)); err != nil {
		t.Fatal(err)
	}
	if got, err := bufio.NewReader(accept(t, l)).ReadString('\n'); err != nil || !strings.HasSuffix(got, ": one\n") {
		t.Errorf("got %q, %v", got, err)
	}
	await(t, f)
}

func TestTags(t *testing.T) {
	info := testLog(t, "syslog", nil)
	for tag, want := range map[string]string{
		"":                                   "0123456789ab",
		"{{.FullID}}":                        "0123456789abcdef",
		"{{.Name}}|{{.ContainerName}}":       "web|/web",
		"{{.ImageID}} {{.ImageFullID}}":      "fedcba987654 sha256:fedcba9876543210",
		"{{.Command}}@{{.DaemonName}}":       "sh -c x@berth",
		"{{upper .Name}}{{json .ImageName}}": `WEB"busybox"`,
		`{{index .ContainerLabels "team"}}`:  "blue",
		`{{truncate .FullID 3}}`:             "012",
	} {
		info.Opts = map[string]string{"tag": tag}
		if got, err := info.Tag(); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", tag, got, err, want)
		}
	}
}

func TestSelection(t *testing.T) {
	info := testLog(t, "syslog", nil)
	for _, c := range []struct {
		opts map[string]string
		want string
	}{
		{nil, ""},
		{map[string]string{"labels": "team,none"}, `{"team":"blue"}`},
		{map[string]string{"labels-regex": "^t", "env": "B"}, `{"B":"2","team":"blue"}`},
		{map[string]string{"env-regex": "."}, `{"A":"1","B":"2"}`},
		{map[string]string{"tag": "{{.Name}}"}, `{"tag":"web"}`},
	} {
		info.Opts = c.opts
		if got, err := info.Fields(); err != nil || got != c.want {
			t.Errorf("%v: %s, %v, want %s", c.opts, got, err, c.want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(packMap(nil, "ack", "x"))
	f.Add([]byte{0x81, 0xda, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		unpackMap(bufio.NewReader(bytes.NewReader(data)))
	})
}
