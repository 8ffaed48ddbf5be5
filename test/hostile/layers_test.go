package hostile

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"testing"

	"berth/test/testengine"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestHostileTreesInLayers: what leaves its tree as an archive leaves it in no layer either, however the image comes.
func TestHostileTreesInLayers(t *testing.T) {
	e := testengine.Start(t)
	assaults(t, e, func(canary string) (all []attack) {
		for name, members := range hostileTrees(canary) {
			all = append(all, attack{name: name, layers: []layer{layerOf(t, members...)}, words: "unpack|leaves the directory|file name too long|would replace the root|impossible owner"})
		}
		up := strings.Repeat("../", 20)
		return append(all,
			attack{name: "link in one layer, file through it in the next", layers: []layer{layerOf(t, symlink("d", canary)), layerOf(t, file("d/new", "x"))},
				script: "ls -A " + canary + " | wc -l; ls /d/", out: "0\nnew\n"},
			attack{name: "link by dots in one layer, file through it in the next", layers: []layer{layerOf(t, symlink("d", up+canary)), layerOf(t, file("d/canary", "dead"))},
				script: "cat /d/canary", out: "dead"},
			attack{name: "directory, then a link in its place, then a file through it",
				layers: []layer{layerOf(t, file("d/f", "x")), layerOf(t, symlink("d", canary)), layerOf(t, file("d/f", "y"))}, script: "cat /d/f", out: "y"},
			attack{name: "links in a circle below a file", layers: []layer{layerOf(t, symlink("a", "b"), symlink("b", "a")), layerOf(t, file("a/f", "x"))},
				script: "cat /a/f", out: "x"},
			attack{name: "hard link to a file of the layer below", layers: []layer{layerOf(t, file("f", "x")), layerOf(t, hardlink("g", "f"))}, words: "does not come before it in the archive"},
			attack{name: "hard link to a file that its own layer hides", layers: []layer{layerOf(t, file("f", "x")), layerOf(t, file(".wh.f", ""), hardlink("g", "f"))}, words: "does not come before it in the archive"},
			attack{name: "hard link to a link to the outside", layers: []layer{layerOf(t, symlink("l", canary+"/canary"), hardlink("h", "l"), member{tar.Header{Typeflag: tar.TypeReg, Name: "h", Mode: 0o777, Size: 4}, "dead"})},
				script: "cat /h", out: "dead"},
			attack{name: "whiteout of the way out in the next layer", layers: []layer{layerOf(t, symlink("d", canary)), layerOf(t, file("d/.wh.canary", ""), file("d/.wh..wh..opq", ""))}},
			attack{name: "directory over a link, with mode and owner", layers: []layer{layerOf(t, symlink("d", canary)), layerOf(t, member{tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o777, Uid: 1000}, ""})},
				script: "stat -c %a-%u /d", out: "777-1000\n"},
		)
	})
}

// TestHostileNodesAndAttributes: what a layer may have, but must not work by.
func TestHostileNodesAndAttributes(t *testing.T) {
	e := testengine.Start(t)
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // version 2: cap_net_bind_service, effective
	char := member{tar.Header{Typeflag: tar.TypeChar, Name: "mem", Mode: 0o666, Devmajor: 1, Devminor: 1}, ""}
	setuid := file("bin/suid", "x")
	setuid.Mode, setuid.Uid = 0o6755, 0
	lower := layerOf(t, dir("d"), file("d/secret", "below"), file("f", "below"))
	smuggled := func(pairs ...string) []layer {
		return []layer{lower, layerOf(t, withXattrs(dir("d"), pairs...), withXattrs(file("f", "above"), pairs...))}
	}
	many := []string{}
	for i := range 200 {
		many = append(many, fmt.Sprintf("user.n%d", i), strings.Repeat("v", 40))
	}
	assaults(t, e, func(string) []attack {
		return []attack{
			{name: "device nodes", layers: []layer{layerOf(t, device("disk", 8, 0), device("sda", 259, 0), char)}, bare: true,
				script: "head -c 1 /disk; head -c 1 /mem; stat -c %F /disk /mem", out: "block special file\ncharacter special file\n"},
			{name: "fifo", layers: []layer{layerOf(t, member{tar.Header{Typeflag: tar.TypeFifo, Name: "p", Mode: 0o666}, ""})}, bare: true, script: "stat -c %F /p", out: "fifo\n"},
			{name: "setuid", layers: []layer{layerOf(t, setuid)}, bare: true, script: "stat -c %a /bin/suid", out: "6755\n"},
			{name: "capability", layers: []layer{layerOf(t, withXattrs(file("f", "x"), "security.capability", capability))}, bare: true, script: "cat /f", out: "x"},
			{name: "damaged capability", layers: []layer{layerOf(t, withXattrs(file("f", "x"), "security.capability", "xx"))}, bare: true, words: "invalid argument"},
			{name: "labels of a security module", layers: []layer{layerOf(t, withXattrs(file("f", "x"), "security.selinux", "system_u:object_r:x:s0", "security.ima", "x", "security.evm", "x"))}, bare: true, script: "cat /f", out: "x"},
			{name: "overlay's opaque mark", layers: smuggled("trusted.overlay.opaque", "y", "user.overlay.opaque", "y"), script: "cat /d/secret /f", out: "belowabove"},
			{name: "overlay's redirect", layers: smuggled("trusted.overlay.redirect", "/../../../../etc", "user.overlay.redirect", "/bin"), script: "cat /d/secret /f", out: "belowabove"},
			{name: "overlay's metacopy", layers: smuggled("trusted.overlay.metacopy", "", "trusted.overlay.origin", "x", "trusted.overlay.impure", "y", "trusted.overlay.nlink", "U+1"), script: "cat /d/secret /f", out: "belowabove"},
			{name: "overlay's escaped names", layers: smuggled("trusted.overlay.overlay.opaque", "y", "trusted.overlay.overlay.whiteout", "y", "trusted.overlay.overlay.whiteouts", "y"), script: "cat /d/secret /f", out: "belowabove"},
			{name: "overlay's whiteout by attribute", layers: smuggled("trusted.overlay.whiteout", "y", "user.overlay.whiteout", "y", "trusted.overlay.opaque", "x"), script: "cat /d/secret /f", out: "belowabove"},
			{name: "attribute that is too large", layers: []layer{layerOf(t, withXattrs(file("f", "x"), "user.big", strings.Repeat("x", 70_000)))}, bare: true, words: `extended attribute "user.big" of 70000 bytes`},
			{name: "attribute of a megabyte", layers: []layer{layerOf(t, withXattrs(file("f", "x"), "user.big", strings.Repeat("x", 1_000_000)))}, bare: true, words: `extended attribute "user.big" of 1000000 bytes`},
			{name: "two hundred attributes", layers: []layer{layerOf(t, withXattrs(file("f", "x"), many...))}, bare: true, words: `extended attribute "user.n`},
			{name: "attributes of no kind", layers: []layer{layerOf(t, withXattrs(file("f", "x"), "", "x", "nosuch.space", "x", "user.", "x", "system.nosuch", "x"))}, bare: true, words: "invalid argument|extended attribute|operation not supported"},
		}
	})
}

// TestHostileWhiteouts: a whiteout hides what lies below its own layer, by one name, and nothing else.
func TestHostileWhiteouts(t *testing.T) {
	e := testengine.Start(t)
	lower := layerOf(t, dir("d"), file("d/a", "a"), file("d/b", "b"), file("f", "f"))
	above := func(members ...member) []layer { return []layer{lower, layerOf(t, members...)} }
	empty := func(name string) member { return file(name, "") }
	assaults(t, e, func(string) []attack {
		return []attack{
			{name: "of nothing", layers: above(empty(".wh.")), words: "a whiteout of nothing"},
			{name: "of the directory itself", layers: above(empty("d/.wh..")), words: "a whiteout of nothing"},
			{name: "of the parent", layers: above(empty("d/.wh...")), words: "a whiteout of nothing"},
			{name: "as a directory", layers: above(dir(".wh.d")), script: "ls /d", out: ""},
			{name: "with something inside", layers: above(empty(".wh.d/x")), words: "a whiteout can't be a directory"},
			{name: "of another whiteout", layers: above(empty(".wh..wh.f")), script: "cat /f", out: "f"},
			{name: "aufs' bookkeeping", layers: above(dir(".wh..wh.plnk"), empty(".wh..wh.plnk/../../../../x"), empty(".wh..wh.aufs"), empty(".wh..wh.orph/x")), words: "leaves the directory"},
			{name: "aufs' bookkeeping alone", layers: above(dir(".wh..wh.plnk"), empty(".wh..wh.plnk/1.2"), empty(".wh..wh.aufs"), dir(".wh..wh.orph"), empty(".wh..wh.orph/x")), script: "ls -A / | grep -c wh", out: "0\n"},
			{name: "of what comes later", layers: above(empty(".wh.f"), file("f", "new")), script: "cat /f", out: "new"},
			{name: "of what came before", layers: above(file("f", "new"), empty(".wh.f")), script: "cat /f", out: "new"},
			{name: "opaque after its content", layers: above(file("d/c", "c"), empty("d/.wh..wh..opq")), script: "ls /d", out: "c\n"},
			{name: "opaque of a file's name", layers: above(file("d", "file"), empty("d/.wh..wh..opq")), words: "unpack"},
			{name: "of names that are not there", layers: above(empty(".wh.nosuch"), empty("no/such/.wh.dir")), script: "ls /no/such | wc -l", out: "0\n"},
			{name: "as a link", layers: above(symlink(".wh.f", "d")), script: "ls /f", out: ""},
			{name: "as a hard link to a file", layers: above(file("x", "x"), hardlink(".wh.f", "x")), script: "ls /f", out: ""},
			{name: "as overlay's device", layers: above(member{tar.Header{Typeflag: tar.TypeChar, Name: "f", Mode: 0o644}, ""}), script: "ls /f", out: ""},
			{name: "of all that stands at the top", layers: []layer{layerOf(t, empty(".wh..wh..opq"), file("only", "x"))}},
			{name: "of a long name", layers: above(empty(".wh."+strings.Repeat("n", 252)), empty(".wh."+strings.Repeat("m", 256))), words: "file name too long"},
		}
	})
}

// TestHostileNames: names that a terminal, a list or a file system could stumble over.
func TestHostileNames(t *testing.T) {
	e := testengine.Start(t)
	deep := strings.Repeat("d/", 1000)
	assaults(t, e, func(string) []attack {
		return []attack{
			{name: "newlines and escapes", layers: []layer{layerOf(t, file("a\nb\t\x1b[31m", "x"), file("--help", "y"), file("-rf *", "z"), file("\xff\xfe", "w"))}, bare: true, script: "cat -- /--help '/-rf *'", out: "yz"},
			{name: "escapes in an error", layers: []layer{layerOf(t, file("../\x1b]0;owned\x07\x1b[2J", "x"))}, bare: true, words: `leaves the directory`},
			{name: "zero byte", layers: []layer{zippedLayer(t, paxMember(record("path", "a\x00b"), "a", 0, nil))}, bare: true, words: "damaged"},
			{name: "255 bytes", layers: []layer{layerOf(t, file(strings.Repeat("n", 255), "x"))}, bare: true, script: "cat /nnnnn*", out: "x"},
			{name: "256 bytes", layers: []layer{layerOf(t, file(strings.Repeat("n", 256), "x"))}, bare: true, words: "file name too long"},
			{name: "a thousand directories", layers: []layer{layerOf(t, file(deep+"f", "x"))}, bare: true, script: "find /d | wc -l", out: "1001\n"},
			{name: "path of 5,000 bytes", layers: []layer{layerOf(t, file(strings.Repeat("dir/", 1250)+"f", "x"))}, bare: true, words: "file name too long"},
			{name: "no name", layers: []layer{zippedLayer(t, append(rawHeader("", '0', octal(0)), make([]byte, 1024)...))}, bare: true, words: "would replace the root"},
			{name: "the same name with different content", layers: []layer{layerOf(t, file("f", "1"), file("./f", "22"), file("/f", "333"), file("x/../f", "4444"))}, bare: true, words: "", script: "cat /f", out: "4444"},
			{name: "the same name as every kind", layers: []layer{layerOf(t, file("f", "1"), dir("f"), file("f/x", "1"), symlink("f", "/bin"), device("f", 1, 3), hardlink("g", "f"), file("f", "last"))}, bare: true, script: "cat /f", out: "last"},
		}
	})
}

// TestHostileStreams: archives whose sizes are lies, and bombs against a bound.
func TestHostileStreams(t *testing.T) {
	e := testengine.Start(t, "--max-image-size", "64m", "--max-image-files", "5000")
	gzipWriter := func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
	plain := func(data []byte) []layer { return []layer{zippedLayer(t, data)} }
	files := []member{}
	for i := range 6000 {
		files = append(files, member{tar.Header{Typeflag: tar.TypeSymlink, Name: fmt.Sprint("l", i), Linkname: "x"}, ""})
	}
	deep := []member{}
	for i := range 10 {
		deep = append(deep, file(fmt.Sprint(i, "/")+strings.Repeat("d/", 800)+"f", ""))
	}
	half := layerOf(t, file("half", random(40<<20)))
	member1 := bomb(t, 1<<20, gzipWriter).data
	const large, crowded = `more than the 67108864 bytes that one image may take on disk \(max-image-size of the daemon\)`, `more than the 5000 files that one image may have`
	assaults(t, e, func(string) []attack {
		return []attack{
			{name: "a gigabyte of zeros, gzip", layers: []layer{bomb(t, 1<<30, gzipWriter)}, bare: true, words: large},
			{name: "a gigabyte of zeros, zstd", layers: []layer{bomb(t, 1<<30, zstdWriter)}, spoil: zstdType, words: large},
			{name: "two halves too large", layers: []layer{half, layerOf(t, file("other", random(40<<20)))}, words: large},
			{name: "half, twice", layers: []layer{half, half}, words: large},
			{name: "6,000 links", layers: []layer{layerOf(t, files...)}, bare: true, words: crowded},
			{name: "8,000 directories of ten files", layers: []layer{layerOf(t, deep...)}, bare: true, words: crowded},
			{name: "10 GB of holes", layers: plain(sparseFile(10<<30, "2\n0\n512\n10737418240\n0\n", random(512))), bare: true, script: "stat -c %s /hole", out: "10737418240\n"},
			{name: "8 EB of holes", layers: plain(sparseFile(1<<62, "1\n0\n1\n", "x")), bare: true, words: "damaged|larger than|file too large"},
			{name: "sparse map that is longer than the file", layers: plain(sparseFile(1<<20, "2\n0\n1\n2097152\n0\n", "x")), bare: true, words: "damaged"},
			{name: "sparse map of a billion entries", layers: plain(sparseFile(1<<20, "1000000000\n0\n1\n", "x")), bare: true, words: "damaged|truncated"},
			{name: "sparse map that goes back", layers: plain(sparseFile(1<<20, "2\n4096\n512\n0\n512\n", random(1024))), bare: true, words: "damaged"},
			{name: "sparse map of negative numbers", layers: plain(sparseFile(1<<20, "1\n-5\n10\n", "x")), bare: true, words: "damaged"},
			{name: "negative size by PAX", layers: plain(paxMember(record("size", "-1"), "f", 1, []byte("x"))), bare: true, words: "damaged"},
			{name: "negative size in base 256", layers: plain(append(rawHeader("f", '0', strings.Repeat("\xff", 12)), make([]byte, 1024)...)), bare: true, words: "damaged"},
			{name: "9 EB in base 256", layers: plain(append(rawHeader("f", '0', "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"), make([]byte, 1024)...)), bare: true, words: "larger than|truncated"},
			{name: "PAX record of 2 MB", layers: plain(paxMember(record("comment", strings.Repeat("x", 2<<20)), "f", 0, nil)), bare: true, words: "damaged|too long"},
			{name: "PAX record that is longer than it says", layers: plain(paxMember("5 path=abcdefgh\n", "f", 0, nil)), bare: true, words: "damaged"},
			{name: "PAX record of 10^18 bytes", layers: plain(paxMember("1000000000000000000 path=x\n", "f", 0, nil)), bare: true, words: "damaged"},
			{name: "PAX header without a member", layers: plain(append(rawHeader("pax", 'x', octal(12)), append(padded([]byte("12 path=abc\n")), make([]byte, 1024)...)...)), bare: true, script: "true"},
			{name: "long name of a gigabyte", layers: plain(append(rawHeader("././@LongLink", 'L', octal(1<<30)), make([]byte, 4096)...)), bare: true, words: "damaged|truncated|too long"},
			{name: "owner by PAX that is none", layers: plain(paxMember(record("uid", "99999999999"), "f", 0, nil)), bare: true, words: "impossible owner"},
			{name: "time by PAX that is none", layers: plain(paxMember(record("mtime", "1e99"), "f", 0, nil)), bare: true, words: "damaged"},
			{name: "time at the world's end", layers: plain(paxMember(record("mtime", "9223372036854775807"), "f", 0, nil)), bare: true, script: "cat /f", out: ""},
			{name: "many gzip members, then none", layers: []layer{{append(repeated(member1, 100), "this is no member"...), digest.FromString("none")}}, words: "gzip data is damaged"},
			{name: "zstd with a window of 2 GB", layers: []layer{plainLayer([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x09, 0x00, 0x00, 'x'})}, spoil: zstdType, words: "zstd data is damaged"},
			{name: "zstd that is cut", layers: []layer{plainLayer(bomb(t, 1<<20, zstdWriter).data[:50])}, spoil: zstdType, words: "zstd data is (damaged|truncated)"},
		}
	})
}

// zstdType announces the last layer as what it is.
func zstdType(p *parts) {
	p.manifest.Layers[len(p.manifest.Layers)-1].MediaType = ocispec.MediaTypeImageLayerZstd
}

func repeated(data []byte, times int) (all []byte) {
	for range times {
		all = append(all, data...)
	}
	return all
}
