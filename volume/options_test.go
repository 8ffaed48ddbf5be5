package volume_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"berth/fault"
	"berth/volume"
)

func options(pairs string) map[string]string {
	all := map[string]string{}
	for _, pair := range strings.Fields(pairs) {
		key, value, _ := strings.Cut(pair, "=")
		all[key] = value
	}
	return all
}

// TestMountArguments is what mount(2) is asked for, by the options of a volume.
func TestMountArguments(t *testing.T) {
	lookup := func(_ context.Context, host string) ([]netip.Addr, error) {
		switch host {
		case "files":
			return []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.7")}, nil
		case "six":
			return []netip.Addr{netip.MustParseAddr("2001:db8::6")}, nil
		}
		return nil, errors.New("no such host")
	}
	for _, c := range []struct{ options, want string }{
		{"", "-"},
		{"size=10m", "-"},
		{"type=tmpfs device=tmpfs o=size=100m,uid=1000", "tmpfs tmpfs 0 [size=100m uid=1000]"},
		{"type=none o=bind device=/srv/data", "none /srv/data 0 []"},
		{"type=none o=bind,ro device=/srv/data", "none /srv/data 1 [ro]"},
		{"type=nfs o=addr=192.0.2.1,rw,nfsvers=4 device=:/export", "nfs :/export 0 [addr=192.0.2.1 nfsvers=4]"},
		{"type=nfs o=addr=files,rw,soft device=:/export", "nfs :/export 0 [addr=192.0.2.7 soft]"},
		{"type=nfs4 o=addr=six device=:/export", "nfs4 :/export 0 [addr=2001:db8::6]"},
		{"type=nfs o=addr=[2001:db8::9] device=:/export", "nfs :/export 0 [addr=2001:db8::9]"},
		{"type=nfs o=nolock device=files:/export", "nfs files:/export 0 [nolock addr=192.0.2.7]"},
		{"type=nfs o=addr=nosuch device=:/export", "!error resolving passed in network volume address: nosuch: no such host"},
		{"type=cifs o=username=a,password=b,vers=3.0 device=//files/share", "cifs //files/share 0 [username=a password=b vers=3.0 addr=192.0.2.7]"},
		{"type=cifs o=addr=files,nosuid device=//files/share", "cifs //files/share 2 [addr=192.0.2.7]"},
		{"type=overlay o=lowerdir=/a:/b,upperdir=/u,workdir=/w device=overlay", "overlay overlay 0 [lowerdir=/a:/b upperdir=/u workdir=/w]"},
		{"type=ext4 device=/dev/vdb o=noatime,data=journal", "ext4 /dev/vdb 10 [data=journal]"},
		{"type=btrfs device=/dev/vdb o=subvol=x", "btrfs /dev/vdb 0 [subvol=x]"},
		{"bogus=1", `!invalid option: "bogus"`},
		{"type=tmpfs", `!missing required option: "device"`},
		{"device=/x", `!missing required option: "type"`},
		{"o=bind", `!missing required option: "device"`},
		{"o=bind device=/x", `!missing required option: "type"`},
		{"size=much", "!invalid size: 'much': write it as 512m or 10g"},
		{"type=none device=/x", "!type=none mounts nothing: add o=bind for a directory, or name the device's file system as the type"},
	} {
		m, _, err := volume.ParseOptions(options(c.options))
		if err == nil && m != nil {
			*m, err = volume.Resolve(t.Context(), *m, lookup)
		}
		got := "-"
		if err != nil {
			got = "!" + err.Error()
			if fault.Of(err) == "" {
				t.Errorf("%s: no kind", c.options)
			}
		} else if m != nil {
			flags, data := m.Sorted()
			got = fmt.Sprintf("%s %s %x %v", m.Type, m.Device, flags, data)
		}
		if got != c.want {
			t.Errorf("%s: %s\nwant %s", c.options, got, c.want)
		}
	}
}

func TestPasswordsAreNotShown(t *testing.T) {
	if got := volume.Masked([]string{"username=a", "password=secret", "pass=x", "ro"}); got != "username=a,password=********,pass=********,ro" {
		t.Error(got)
	}
}
