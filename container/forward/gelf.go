package forward

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Sizes of a message in datagrams (GELF, "Chunking").
const (
	gelfDatagram  = 1420
	gelfHeader    = 12
	gelfMaxChunks = 128
)

func gelfAddress(opts map[string]string) (network, address string, err error) {
	if opts["gelf-address"] == "" {
		return "", "", invalid("gelf-address is a required parameter")
	}
	return parseAddress("gelf-address", opts["gelf-address"], "", "udp", "tcp")
}

func checkGELF(opts map[string]string) error {
	network, _, err := gelfAddress(opts)
	if err != nil {
		return err
	}
	for k, v := range opts {
		bad := false
		switch k {
		case "gelf-compression-level":
			n, err := strconv.Atoi(v)
			bad = err != nil || n < -1 || n > 9
		case "gelf-compression-type":
			bad = v != "gzip" && v != "zlib" && v != "none"
		case "gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay":
			n, err := strconv.Atoi(v)
			bad = err != nil || n < 0
		default:
			continue
		}
		if bad {
			return invalid("unknown value %q for log opt %q for gelf log driver", v, k)
		}
		if over := map[bool]string{true: "tcp", false: "udp"}[k[:8] == "gelf-tcp"]; over != network {
			return invalid("compression is for a gelf-address udp://, and reconnecting for tcp://: %q goes with %s, not with %s", k, over, network)
		}
	}
	return nil
}

// gelf sends JSON messages of Graylog's Extended Log Format 1.1, in datagrams, compressed and cut in chunks, or over TCP with a
// zero byte after each.
type gelf struct {
	net.Conn
	info   *Info
	gone   <-chan struct{} // of TCP; nil for datagrams
	fields map[string]any  // the same for all messages
	packer func(w io.Writer) (io.WriteCloser, error)
}

func dialGELF(ctx context.Context, info *Info) (destination, error) {
	network, address, err := gelfAddress(info.Opts)
	if err != nil {
		return nil, err
	}
	host, err := info.Hostname()
	if err != nil {
		return nil, err
	}
	g := &gelf{info: info, packer: gelfPacker(info.Opts), fields: map[string]any{
		"version": "1.1", "host": host, "_container_id": info.ContainerID, "_container_name": info.Name(),
		"_image_id": info.ContainerImageID, "_image_name": info.ContainerImageName, "_command": info.Command(), "_tag": info.tag,
		"_created": info.ContainerCreated,
	}}
	for k, v := range info.attrs {
		g.fields["_"+k] = v
	}
	if g.Conn, err = dial(ctx, network, address); err != nil {
		return nil, err
	}
	if network == "tcp" {
		g.gone = watch(g.Conn)
	}
	return g, nil
}

// gelfPacker is the compression of datagrams; nil: none.
func gelfPacker(opts map[string]string) func(io.Writer) (io.WriteCloser, error) {
	level := gzip.BestSpeed
	if n, err := strconv.Atoi(opts["gelf-compression-level"]); err == nil {
		level = n
	}
	switch opts["gelf-compression-type"] {
	case "none":
		return nil
	case "zlib":
		return func(w io.Writer) (io.WriteCloser, error) { return zlib.NewWriterLevel(w, level) }
	default:
		return func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, level) }
	}
}

func (g *gelf) send(m *message) error {
	if len(m.text) == 0 {
		return nil // short_message must not be empty
	}
	level := severityInfo
	if m.stderr {
		level = severityError
	}
	g.fields["short_message"], g.fields["level"] = string(m.text), level
	g.fields["timestamp"] = json.Number(fmt.Sprintf("%d.%03d", m.time.Unix(), m.time.Nanosecond()/1e6))
	data, err := json.Marshal(g.fields)
	if err != nil {
		return err
	}
	g.Conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	if g.gone != nil {
		_, err = g.Conn.Write(append(data, 0))
		return err
	}
	if g.packer != nil {
		var b bytes.Buffer
		w, err := g.packer(&b)
		if err != nil {
			return err
		}
		w.Write(data) // into memory
		if err := w.Close(); err != nil {
			return err
		}
		data = b.Bytes()
	}
	for _, d := range chunks(data) {
		if _, err := g.Conn.Write(d); err != nil {
			return err
		}
	}
	return nil
}

// chunks cuts a message into datagrams; of one that is too large the beginning is sent, as much as the format allows.
func chunks(data []byte) [][]byte {
	if len(data) <= gelfDatagram {
		return [][]byte{data}
	}
	const room = gelfDatagram - gelfHeader
	data = data[:min(len(data), gelfMaxChunks*room)]
	count := (len(data) + room - 1) / room
	var id [8]byte
	rand.Read(id[:]) // never fails
	var all [][]byte
	for n := range count {
		d := append([]byte{0x1e, 0x0f}, id[:]...)
		d = append(d, byte(n), byte(count))
		all = append(all, append(d, data[n*room:min(len(data), (n+1)*room)]...))
	}
	return all
}

func (g *gelf) flush() error {
	if g.gone == nil {
		return nil
	}
	return stillThere(g.Conn, g.gone)
}
