package hostile

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/test/testengine"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// attack is an image that means harm. It is brought in every way there is, and has to be refused, or to be harmless.
type attack struct {
	name   string
	layers []layer      // above busybox, in its own image
	spoil  func(*parts) // what is wrong with its documents
	words  string       // how it is refused; "": it is taken
	script string       // what a container of an image that is taken runs
	out    string       // and says
	bare   bool         // for import, too: the one layer alone
}

// dockerArchive is the parts as `docker save` wrote them before it wrote layouts.
func dockerArchive(t testing.TB, p parts, name string) []byte {
	t.Helper()
	config := marshal(p.config)
	entry := map[string]any{"Config": "config.json", "RepoTags": []string{name}}
	members := []member{file("config.json", string(config))}
	layers := []string{}
	for i, l := range p.layers {
		path := fmt.Sprintf("%d/layer.tar", i)
		layers = append(layers, path)
		members = append(members, file(path, string(l.data)))
	}
	entry["Layers"] = layers
	return tarOf(t, append(members, file("manifest.json", string(marshal([]any{entry}))))...)
}

// assault brings one attack in each way, and looks whether anything of it stays.
func assault(t *testing.T, e *testengine.Engine, a attack, base layer, before state) {
	began := time.Now()
	p := imageOf(append([]layer{base}, a.layers...), nil)
	if a.spoil != nil {
		a.spoil(&p)
	}
	s, address, stop := serve(t)
	p.put(s, "bad", "1")
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ways := [][]string{{"pull", "-q", address + "/bad:1"}, {"load", "-q", "-i", write("layout.tar", layout(t, p, "bad:1"))}}
	if a.spoil == nil {
		ways = append(ways, []string{"load", "-q", "-i", write("docker.tar", dockerArchive(t, p, "bad:1"))})
	}
	if a.bare {
		ways = append(ways, []string{"import", write("import.tar", a.layers[0].data), "bad:1"})
	}
	for _, way := range ways {
		if a.words != "" {
			refused(t, e, 1, a.words, way...)
			continue
		}
		name := "bad:1"
		if way[0] == "pull" {
			name = way[len(way)-1]
		}
		if _, err := e.Try(way...); err != nil {
			t.Errorf("berth %v: %v", way, err)
			continue
		}
		if a.script != "" && way[0] != "import" {
			if out, err := e.Try("run", "--rm", name, "sh", "-c", a.script); out != a.out {
				t.Errorf("after %s a container says %q, want %q; %v", way[0], out, a.out, err)
			}
		}
		e.Run(t, "rmi", "-f", name)
	}
	stop()
	same(t, e, before)
	t.Logf("took %v", time.Since(began).Round(time.Millisecond))
}

// assaults runs a list of attacks on one engine, whose memory stays within bounds.
func assaults(t *testing.T, e *testengine.Engine, list func(canary string) []attack) {
	e.Busybox(t)
	base := busyboxLayer(t)
	c := plant(t)
	before := settled(t, e)
	for _, a := range list(c.dir) {
		t.Run(a.name, func(t *testing.T) {
			assault(t, e, a, base, before)
			c.alive(t)
		})
	}
	if peak := memory(t, e); peak > 160<<10 {
		t.Errorf("the daemon took %d KiB for it", peak)
	} else {
		t.Logf("the daemon took %d KiB at most", peak)
	}
	if log := e.Log(); strings.Contains(log, "panic") {
		t.Errorf("a panic:\n%s", log)
	}
}

// plainLayer is a layer that travels as it is.
func plainLayer(data []byte) layer { return layer{data, digest.FromBytes(data)} }

// zippedLayer is a layer of bytes that may be no archive.
func zippedLayer(t testing.TB, data []byte) layer {
	return layer{zipped(t, data), digest.FromBytes(data)}
}

// withXattrs gives a member extended attributes, in pairs.
func withXattrs(m member, pairs ...string) member {
	m.PAXRecords = map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m.PAXRecords["SCHILY.xattr."+pairs[i]] = pairs[i+1]
	}
	return m
}

// rawHeader is one 512-byte block as no library writes it; size may be anything that fits into twelve bytes.
func rawHeader(name string, kind byte, size string) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:136], size)
	copy(h[136:], "00000000000\x00")
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	copy(h[148:], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

func octal(n int) string { return fmt.Sprintf("%011o", n) }

func padded(data []byte) []byte {
	return append(bytes.Clone(data), make([]byte, (512-len(data)%512)%512)...)
}

// paxMember is a file under PAX records that are written as they are given, however wrong.
func paxMember(records, name string, size int, body []byte) []byte {
	return bytes.Join([][]byte{
		rawHeader("pax", 'x', octal(len(records))), padded([]byte(records)), rawHeader(name, '0', octal(size)), padded(body), make([]byte, 1024),
	}, nil)
}

// record writes a PAX record, its own length first.
func record(key, value string) string {
	n := len(key) + len(value) + 3
	for len(fmt.Sprintf("%d %s=%s\n", n, key, value)) != n {
		n++
	}
	return fmt.Sprintf("%d %s=%s\n", n, key, value)
}

// sparseFile is a PAX 1.0 sparse file: a map and the data behind it.
func sparseFile(realsize int64, sparseMap, data string) []byte {
	body := append(padded([]byte(sparseMap)), data...)
	return paxMember(record("GNU.sparse.major", "1")+record("GNU.sparse.minor", "0")+record("GNU.sparse.name", "hole")+
		record("GNU.sparse.realsize", fmt.Sprint(realsize)), "hole", len(body), body)
}

// bomb is a tar of one file of zeros, compressed as it is made.
func bomb(t testing.TB, size int64, compress func(io.Writer) io.WriteCloser) layer {
	t.Helper()
	var b bytes.Buffer
	z := compress(&b)
	sum := digest.SHA256.Digester()
	w := io.MultiWriter(z, sum.Hash())
	w.Write(rawHeader("bomb", '0', octal(int(size))))
	zeros := make([]byte, 1<<20)
	for left := size + 1024; left > 0; left -= int64(len(zeros)) {
		w.Write(zeros[:min(left, int64(len(zeros)))])
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return layer{b.Bytes(), sum.Digest()}
}

func zstdWriter(w io.Writer) io.WriteCloser {
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	return z
}
