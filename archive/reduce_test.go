package archive_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"berth/archive"
	"berth/fault"
	"berth/kernel"
)

// TestReduce: nothing that an archive has is lost, and nothing else stays.
func TestReduce(t *testing.T) {
	root := sample(t)
	l, err := net.Listen("unix", filepath.Join(root, "b", "socket"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(l.Close(), kernel.SetXattrIn(nil, filepath.Join(root, "b/second"), "trusted.overlay.origin", "x")); err != nil {
		t.Fatal(err)
	}
	o := archive.PackOptions{Whiteouts: true}
	before := pack(t, root, o)
	u, err := archive.Reduce(t.Context(), openDir(t, root), false)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pack(t, root, o), before) {
		t.Error("it packs to something else")
	}
	if _, err := os.Lstat(filepath.Join(root, "b", "socket")); !os.IsNotExist(err) {
		t.Errorf("the socket: %v", err)
	}
	if attrs, err := kernel.XattrsIn(nil, filepath.Join(root, "b/second")); err != nil || attrs["trusted.overlay.origin"] != "" {
		t.Errorf("%v, %v", attrs, err)
	}
	into := t.TempDir()
	unpacked, err := archive.Unpack(t.Context(), bytes.NewReader(before), openDir(t, into), archive.UnpackOptions{Whiteouts: true})
	if err != nil || unpacked.Size != u.Size || len(unpacked.Implied) != len(u.Implied) {
		t.Errorf("%+v, unpacked %+v, %v", u, unpacked, err)
	}
	if err := os.WriteFile(filepath.Join(root, "b", ".wh.second"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Reduce(t.Context(), openDir(t, root), false); !errors.Is(err, fault.Unsupported) {
		t.Errorf("a whiteout's name: %v", err)
	}
}
