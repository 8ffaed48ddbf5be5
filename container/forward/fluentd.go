package forward

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// fluentdAddress reads host, host:port, tcp://, tls:// and unix:// addresses.
func fluentdAddress(opts map[string]string) (network, address string, err error) {
	text := opts["fluentd-address"]
	if text == "" {
		text = "127.0.0.1"
	}
	if !strings.Contains(text, "://") {
		text = "tcp://" + text
	}
	return parseAddress("fluentd-address", text, "24224", "tcp", "tls", "unix")
}

func checkFluentd(opts map[string]string) error {
	if _, _, err := fluentdAddress(opts); err != nil {
		return err
	}
	for k, v := range opts {
		var err error
		switch k {
		case "fluentd-async", "fluentd-request-ack", "fluentd-sub-second-precision":
			_, err = strconv.ParseBool(v)
		case "fluentd-async-reconnect-interval", "fluentd-retry-wait", "fluentd-write-timeout", "fluentd-read-timeout":
			var d time.Duration
			if d, err = time.ParseDuration(v); err == nil && d < 0 {
				err = errors.New("it can't be negative")
			}
		case "fluentd-max-retries":
			_, err = strconv.ParseUint(v, 10, 31)
		case "fluentd-buffer-limit":
			_, err = units.RAMInBytes(v)
		}
		if err != nil {
			return invalid("invalid value for %s: %q: %w", k, v, err)
		}
	}
	return nil
}

// fluentd speaks Fluentd's forward protocol, version 1, in its message mode: an array of tag, time, record and options in
// MessagePack. With fluentd-request-ack each flush waits until the other side has all.
type fluentd struct {
	net.Conn
	in       *bufio.Reader
	gone     <-chan struct{} // without acknowledgements
	info     *Info
	fine     bool // times with nanoseconds
	ack      bool
	expected map[string]bool // acknowledgements to come
	timeout  time.Duration
	buf      []byte
}

func dialFluentd(ctx context.Context, info *Info) (destination, error) {
	network, address, err := fluentdAddress(info.Opts)
	if err != nil {
		return nil, err
	}
	f := &fluentd{info: info, expected: map[string]bool{}, timeout: sendTimeout}
	f.fine, _ = strconv.ParseBool(info.Opts["fluentd-sub-second-precision"])
	f.ack, _ = strconv.ParseBool(info.Opts["fluentd-request-ack"])
	if d, err := time.ParseDuration(info.Opts["fluentd-write-timeout"]); err == nil && d > 0 {
		f.timeout = d
	}
	if network == "tls" {
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}}
		f.Conn, err = d.DialContext(ctx, "tcp", address)
	} else {
		f.Conn, err = dial(ctx, network, address)
	}
	if err != nil {
		return nil, err
	}
	if f.ack {
		f.in = bufio.NewReader(f.Conn)
	} else {
		f.gone = watch(f.Conn)
	}
	return f, nil
}

func (f *fluentd) send(m *message) error {
	source := "stdout"
	if m.stderr {
		source = "stderr"
	}
	pairs := []string{"container_id", f.info.ContainerID, "container_name", f.info.ContainerName, "source", source, "log", string(m.text)}
	if m.part > 0 {
		pairs = append(pairs, "partial_id", m.partID, "partial_ordinal", strconv.Itoa(m.part), "partial_last", strconv.FormatBool(m.last), "partial_message", "true")
	}
	for k, v := range f.info.attrs {
		pairs = append(pairs, k, v)
	}
	length := 3
	if f.ack {
		length = 4
	}
	b := append(f.buf[:0], 0x90|byte(length))
	b = packString(b, f.info.tag)
	b = packTime(b, m.time, f.fine)
	b = packMap(b, pairs...)
	if f.ack {
		var id [16]byte
		rand.Read(id[:]) // never fails
		chunk := base64.StdEncoding.EncodeToString(id[:])
		f.expected[chunk] = true
		b = packMap(b, "chunk", chunk)
	}
	f.buf = b
	f.Conn.SetWriteDeadline(time.Now().Add(f.timeout))
	_, err := f.Conn.Write(b)
	return err
}

func (f *fluentd) flush() error {
	if !f.ack {
		return stillThere(f.Conn, f.gone)
	}
	f.Conn.SetReadDeadline(time.Now().Add(f.timeout))
	for len(f.expected) > 0 {
		answer, err := unpackMap(f.in)
		if err != nil {
			return fmt.Errorf("wait for an acknowledgement: %w", err)
		}
		delete(f.expected, answer["ack"])
	}
	return nil
}
