package oci

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel"
)

// fileType is our own type of a mount: a file that comes with the bundle.
const fileType = "berth-file"

// FileMount shows content as a file at destination, which is on no disk, and gone with the last process that sees it. mode is as in chmod(2);
// options are attributes of the mount. The bundle that it belongs to has the content, and is handed over in memory only.
func FileMount(destination string, content []byte, mode, uid, gid uint32, options ...string) specs.Mount {
	data := []string{"mode=" + strconv.FormatUint(uint64(mode), 8), "uid=" + strconv.FormatUint(uint64(uid), 10), "gid=" + strconv.FormatUint(uint64(gid), 10)}
	return specs.Mount{Destination: destination, Type: fileType, Source: base64.StdEncoding.EncodeToString(content), Options: append(data, options...)}
}

// newFile makes the mount of such a file: one in a file system of its own.
func newFile(m specs.Mount, o mountOptions) (_ *os.File, err error) {
	content, err := base64.StdEncoding.DecodeString(m.Source)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the content of a file in memory is not in base64") // nothing of it is shown
	}
	numbers := map[string]uint32{}
	for _, option := range o.data {
		key, text, _ := strings.Cut(option, "=")
		base := 10
		if key == "mode" {
			base = 8
		}
		n, err := strconv.ParseUint(text, base, 32)
		if err != nil {
			return nil, fault.New(fault.Invalid, "option %q of a file in memory", option)
		}
		numbers[key] = uint32(n)
	}
	fs, err := kernel.NewMount("tmpfs", "file", []string{"mode=0755"}, 0)
	if err != nil {
		return nil, err
	}
	defer fault.Close(fs, &err)
	const name = "content"
	f, err := kernel.OpenIn(fs, name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600, 0)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, kernel.Chown(f, numbers["uid"], numbers["gid"]), kernel.Chmod(f, numbers["mode"]), f.Close()); err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	return part(fs, name)
}
