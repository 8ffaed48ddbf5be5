package inflate_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	klauspost "github.com/klauspost/compress/gzip"

	"berth/archive/inflate"
)

// samples are contents that make use of all that the format has.
func samples() map[string][]byte {
	r := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 300_000)
	r.Read(noise)
	few := bytes.Clone(noise) // an alphabet of four letters
	for i := range few {
		few[i] = "acgt"[few[i]&3]
	}
	skewed := bytes.Clone(noise) // codes of all lengths
	for i, b := range skewed {
		n := 0
		for b&1 == 1 {
			b >>= 1
			n++
		}
		skewed[i] = byte(n*31) + noise[(i*7)%len(noise)]>>uint(8-n/2)
	}
	var runs, far []byte
	for i := range 2000 {
		runs = append(runs, bytes.Repeat(noise[i*7:i*7+i%9+1], i%40+1)...)
	}
	for i := range 40 {
		far = append(far, noise[:32_768-i]...) // distances about as far as they go
	}
	return map[string][]byte{
		"nothing": nil, "a byte": {'x'}, "zeros": make([]byte, 1_000_000), "noise": noise, "few": few, "skewed": skewed, "runs": runs, "far": far,
		"text": []byte(strings.Repeat("the quick brown fox jumps over the lazy dog. ", 10_000)),
	}
}

func gz(t testing.TB, data []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(data)
	w.Close()
	return b.Bytes()
}

func read(r io.Reader) ([]byte, error) {
	z, err := inflate.NewReader(r)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

func TestReader(t *testing.T) {
	var all, joined []byte
	for name, data := range samples() {
		for _, level := range []int{gzip.HuffmanOnly, gzip.NoCompression, gzip.BestSpeed, gzip.DefaultCompression, gzip.BestCompression} {
			z := gz(t, data, level)
			got, err := read(bytes.NewReader(z))
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s, level %d: %d of %d bytes, %v", name, level, len(got), len(data), err)
			}
			all, joined = append(all, data...), append(joined, z...)
		}
	}
	joined = append(joined, make([]byte, 1000)...)
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(joined), "by halves": iotest.HalfReader(bytes.NewReader(joined)),
		"by bytes": iotest.OneByteReader(bytes.NewReader(joined)), "with the end": iotest.DataErrReader(bytes.NewReader(joined)),
	} {
		if got, err := read(r); err != nil || !bytes.Equal(got, all) {
			t.Errorf("members %s: %d of %d bytes, %v", name, len(got), len(all), err)
		}
	}
}

func TestHeaders(t *testing.T) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Name, w.Comment, w.Extra = "a name", "a comment", []byte("extra")
	io.WriteString(w, "content")
	w.Close()
	plain := b.Bytes()
	// The standard library writes no checksum of the header.
	headed := bytes.Clone(plain)
	headed[3] |= 2
	n := 10 + 2 + 5 + len("a name\x00a comment\x00")
	sum := crc32.ChecksumIEEE(headed[:n])
	headed = append(headed[:n:n], append([]byte{byte(sum), byte(sum >> 8)}, plain[n:]...)...)
	for _, z := range [][]byte{plain, headed} {
		if got, err := read(bytes.NewReader(z)); err != nil || string(got) != "content" {
			t.Errorf("%q, %v", got, err)
		}
	}
	wrong := bytes.Clone(headed)
	wrong[n]++
	for name, c := range map[string]struct {
		data []byte
		err  error
	}{
		"nothing": {nil, io.ErrUnexpectedEOF}, "another format": {[]byte("0123456789abcdef"), inflate.ErrHeader}, "header's checksum": {wrong, inflate.ErrHeader},
		"text behind": {append(bytes.Clone(plain), "text that is no member"...), inflate.ErrTrailing}, "zeros and text": {append(bytes.Clone(plain), "\x00\x00x"...), inflate.ErrTrailing},
	} {
		if _, err := read(bytes.NewReader(c.data)); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
	}
}

// Every cut must be called one, and every turned bit must be noticed, however it looks on the way.
func TestDamage(t *testing.T) {
	skewed := samples()["skewed"][:6000]
	for _, level := range []int{gzip.HuffmanOnly, gzip.NoCompression, gzip.BestSpeed, gzip.BestCompression} {
		z := gz(t, skewed, level)
		for n := range z {
			if _, err := read(bytes.NewReader(z[:n])); err != io.ErrUnexpectedEOF {
				t.Fatalf("level %d, cut after %d of %d bytes: %v", level, n, len(z), err)
			}
		}
		for bit := 80; bit < 8*len(z); bit += 3 {
			bad := bytes.Clone(z)
			bad[bit/8] ^= 1 << (bit % 8)
			if got, err := read(bytes.NewReader(bad)); err == nil && !bytes.Equal(got, skewed) {
				t.Fatalf("level %d: bit %d turned makes other content without an error", level, bit)
			}
		}
	}
}

func TestReaderPassesTheSourcesError(t *testing.T) {
	mine := errors.New("connection lost")
	z := gz(t, samples()["skewed"], 6)
	for _, n := range []int{0, 5, 100, len(z) / 2, len(z) - 3} {
		got, err := read(io.MultiReader(bytes.NewReader(z[:n]), iotest.ErrReader(mine)))
		if err != mine {
			t.Errorf("after %d of %d bytes: %v, and %d bytes", n, len(z), err, len(got))
		}
	}
}

// FuzzReader compares with the standard library: whatever the stream, both find the same.
func FuzzReader(f *testing.F) {
	for _, data := range samples() {
		for _, level := range []int{gzip.HuffmanOnly, gzip.BestSpeed, gzip.BestCompression} {
			var b bytes.Buffer
			w, _ := flate.NewWriter(&b, level)
			w.Write(data[:min(len(data), 3000)])
			w.Close()
			f.Add(b.Bytes())
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		const most = 4 << 20
		want, wantErr := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(raw)), most))
		head := []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}
		z, err := inflate.NewReader(io.MultiReader(bytes.NewReader(head), bytes.NewReader(raw)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.LimitReader(z, most))
		if len(want) == most && len(got) == most {
			return
		}
		// What is behind the deflate stream is hardly ever its checksum.
		decoded := err == nil || errors.Is(err, inflate.ErrChecksum) || errors.Is(err, inflate.ErrTrailing)
		if wantErr == nil && !(decoded || err == io.ErrUnexpectedEOF) || wantErr != nil && decoded {
			t.Fatalf("%v, the standard library: %v", err, wantErr)
		}
		if wantErr == nil && !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, the standard library has %d", len(got), len(want))
		}
	})
}

// BenchmarkReader inflates a Debian root, beside the library's decoder.
func BenchmarkReader(b *testing.B) {
	z := content(b)
	for name, open := range map[string]func(io.Reader) (io.Reader, error){
		"own":       func(r io.Reader) (io.Reader, error) { return inflate.NewReader(r) },
		"klauspost": func(r io.Reader) (io.Reader, error) { return klauspost.NewReader(r) },
	} {
		b.Run(name, func(b *testing.B) {
			buf := make([]byte, 64<<10)
			for b.Loop() {
				r, err := open(bytes.NewReader(z))
				if err != nil {
					b.Fatal(err)
				}
				var n int64
				for err == nil {
					var m int
					m, err = r.Read(buf)
					n += int64(m)
				}
				if err != io.EOF {
					b.Fatal(err)
				}
				b.SetBytes(n)
			}
		})
	}
}

// content is the Debian root of `make fixtures` where there is one, and text otherwise.
func content(b *testing.B) []byte {
	dir := os.Getenv("BERTH_TEST_CACHE")
	if dir == "" {
		dir = "/var/cache/berth-test"
	}
	if f, err := os.Open(filepath.Join(dir, "debian.tar")); err == nil {
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, 60<<20))
		if err != nil {
			b.Fatal(err)
		}
		return gz(b, data, 6)
	}
	var text bytes.Buffer
	for i := range 500_000 {
		fmt.Fprintf(&text, "%d is line %x\n", i, i*i)
	}
	return gz(b, text.Bytes(), 6)
}
