// Package stream has what an engine decides about a container's streams: how its log is kept and who may read it, and what a
// client's connection gets before its supervisor takes it over.
//
// It copies no running container's output, which is the supervisor's work. Invariant: it holds no state.
package stream

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"slices"
	"strings"

	"berth/container"
	"berth/container/forward"
	"berth/engine/request"
	"berth/fault"
	"berth/oci/shim"
)

// Log is how a container's supervisor keeps its log; packer is the program that compresses it, "" for none.
func Log(r *container.Record, packer string) (shim.Log, error) {
	l, err := request.ParseLog(r.HostConfig.LogConfig)
	if err != nil {
		return shim.Log{}, err
	}
	if !l.Keep {
		return shim.Log{Driver: shim.LogNone}, nil
	}
	log := shim.Log{Driver: shim.LogJSONFile, Path: r.LogPath, MaxSize: l.Size, MaxFiles: l.Files}
	if l.Compress {
		log.Packer = packer
	}
	if r.HostConfig.LogConfig.Type == request.LogJSONFile {
		info := forward.NewInfo(r)
		log.Attrs, err = info.Fields()
	}
	return log, err
}

// ShownPath is the path that other tools may read, which is json-file's only.
func ShownPath(r *container.Record) string {
	if r.HostConfig.LogConfig.Type != request.LogJSONFile {
		return ""
	}
	return r.LogPath
}

// Readable is an error when users can't have the log.
func Readable(r *container.Record) error {
	if l, err := request.ParseLog(r.HostConfig.LogConfig); err == nil && !l.Readable || r.LogPath == "" {
		return fault.New(fault.Unsupported, "configured logging driver does not support reading")
	}
	return nil
}

// WithoutGone closes and drops the clients that left before there was a start to wait for.
func WithoutGone(pending []shim.Attachment) []shim.Attachment {
	return slices.DeleteFunc(pending, func(a shim.Attachment) bool {
		gone := a.Gone()
		if gone {
			a.Conn.Close()
		}
		return gone
	})
}

// Replay writes a log to a client, as the choice of streams says, in frames or raw.
func Replay(ctx context.Context, path string, to *os.File, stdout, stderr, frames bool) (err error) {
	l, err := container.OpenLog(path, container.LogOptions{Stdout: stdout, Stderr: stderr, Tail: -1})
	if err != nil {
		return err
	}
	defer fault.Close(l, &err)
	for {
		line, err := l.Next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := writeOutput(to, line.Stream == "stderr", frames, line.Text); err != nil {
			return err
		}
	}
}

// writeOutput writes text to a client, in a frame or raw.
func writeOutput(to *os.File, stderr, frames bool, text []byte) error {
	if frames {
		header := [8]byte{0: 1}
		if stderr {
			header[0] = 2
		}
		binary.BigEndian.PutUint32(header[4:], uint32(len(text)))
		text = append(header[:], text...)
	}
	_, err := to.Write(text)
	return err
}

// defaultDetachKeys are ctrl-p ctrl-q.
func defaultDetachKeys() []byte { return []byte{16, 17} }

// ParseKeys reads detach keys: "ctrl-p,ctrl-q" or "a,ctrl-\\".
func ParseKeys(s string) ([]byte, error) {
	if s == "" {
		return defaultDetachKeys(), nil
	}
	var keys []byte
	for _, k := range strings.Split(s, ",") {
		c, isControl := strings.CutPrefix(k, "ctrl-")
		switch {
		case len(c) != 1:
			return nil, fault.New(fault.Invalid, "Unknown character: '%s'", k)
		case !isControl:
			keys = append(keys, c[0])
		case c[0] >= 'a' && c[0] <= 'z':
			keys = append(keys, c[0]-'a'+1)
		case c[0] == '@' || c[0] >= '[' && c[0] <= '_':
			keys = append(keys, c[0]-'@')
		default:
			return nil, fault.New(fault.Invalid, "Unknown character: '%s'", k)
		}
	}
	return keys, nil
}
