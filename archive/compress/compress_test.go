package compress_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"hash/crc32"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"berth/archive/compress"
	"berth/fault"
)

// bzip2 of "hello hello hello\n", since Go has no bzip2 writer.
const bzipped = "QlpoOTFBWSZTWeW18wkAAARRAAAQQAACRKAAIbUYDAKQacKjC7kinChIctr5hIA="

func gz(t testing.TB, data string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zst(t testing.TB, data string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func xzOf(t testing.TB, data string, c xz.WriterConfig) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := c.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func decompress(data []byte) (string, compress.Kind, error) {
	r, kind, err := compress.Open(bytes.NewReader(data))
	if err != nil {
		return "", kind, err
	}
	defer r.Close()
	plain, err := io.ReadAll(r)
	return string(plain), kind, err
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestOpen(t *testing.T) {
	hello, text := "hello hello hello\n", strings.Repeat("some text that compresses, ", 20_000)
	bz, err := base64.StdEncoding.DecodeString(bzipped)
	if err != nil {
		t.Fatal(err)
	}
	skippable := []byte{0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'a', 'b', 'c'}
	for name, c := range map[string]struct {
		data  []byte
		kind  compress.Kind
		plain string
	}{
		"nothing":                  {nil, compress.None, ""},
		"one byte":                 {[]byte{0x1f}, compress.None, "\x1f"},
		"plain":                    {[]byte(text), compress.None, text},
		"gzip":                     {gz(t, text), compress.Gzip, text},
		"gzip of nothing":          {gz(t, ""), compress.Gzip, ""},
		"gzip members":             {join(gz(t, text), gz(t, ""), gz(t, hello)), compress.Gzip, text + hello},
		"gzip and zeros":           {join(gz(t, text), make([]byte, 5000)), compress.Gzip, text},
		"bzip2":                    {bz, compress.Bzip2, hello},
		"bzip2 streams":            {join(bz, bz), compress.Bzip2, hello + hello},
		"xz":                       {xzOf(t, text, xz.WriterConfig{}), compress.XZ, text},
		"xz of nothing":            {xzOf(t, "", xz.WriterConfig{}), compress.XZ, ""},
		"xz blocks and no check":   {xzOf(t, text, xz.WriterConfig{BlockSize: 50_000, NoCheckSum: true}), compress.XZ, text},
		"xz blocks with checks":    {xzOf(t, text, xz.WriterConfig{BlockSize: 50_001, CheckSum: xz.SHA256}), compress.XZ, text},
		"xz streams and padding":   {join(xzOf(t, text, xz.WriterConfig{}), make([]byte, 8), xzOf(t, hello, xz.WriterConfig{CheckSum: xz.CRC32})), compress.XZ, text + hello},
		"xz of incompressible":     {xzOf(t, string(gz(t, text)), xz.WriterConfig{}), compress.XZ, string(gz(t, text))},
		"zstd":                     {zst(t, text), compress.Zstd, text},
		"zstd frames":              {join(zst(t, text), zst(t, hello)), compress.Zstd, text + hello},
		"zstd with skipped frames": {join(skippable, zst(t, hello), skippable), compress.Zstd, hello},
		"almost bzip2":             {[]byte("BZh9 is no block"), compress.None, "BZh9 is no block"},
	} {
		t.Run(name, func(t *testing.T) {
			plain, kind, err := decompress(c.data)
			if err != nil || kind != c.kind || plain != c.plain {
				t.Errorf("%s, %d bytes, want %s and %d; %v", kind, len(plain), c.kind, len(c.plain), err)
			}
		})
	}
}

// Every cut and every kind of tail must be noticed: a layer that ends early looks like a smaller layer.
func TestOpenDamage(t *testing.T) {
	text := strings.Repeat("some text that compresses, ", 2000)
	bz, err := base64.StdEncoding.DecodeString(bzipped)
	if err != nil {
		t.Fatal(err)
	}
	for kind, data := range map[compress.Kind][]byte{
		compress.Gzip: gz(t, text), compress.Bzip2: bz, compress.XZ: xzOf(t, text, xz.WriterConfig{BlockSize: 20_000}), compress.Zstd: zst(t, text),
	} {
		corrupt := func(what string, data []byte) {
			t.Helper()
			_, got, err := decompress(data)
			if !errors.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), string(kind)) || got != kind {
				t.Errorf("%s, %s: %v", kind, what, err)
			}
		}
		for n := 10; n < len(data); n++ {
			corrupt("cut", data[:n])
		}
		_, _, err := decompress(data[:len(data)-1])
		if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "truncated") {
			t.Errorf("%s: the cut is not called so: %v", kind, err)
		}
		corrupt("garbage behind", join(data, []byte("garbage, sixteen")))
		flipped := bytes.Clone(data)
		flipped[len(data)/2] ^= 0x10
		corrupt("a flipped bit", flipped)
	}
}

func TestOpenPassesTheSourcesError(t *testing.T) {
	mine := errors.New("connection lost")
	data := gz(t, strings.Repeat("text ", 10_000))
	for _, n := range []int{0, 3, 15, len(data) - 3} {
		r, _, err := compress.Open(io.MultiReader(bytes.NewReader(data[:n]), &failing{mine}))
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			r.Close()
		}
		if !errors.Is(err, mine) || fault.Of(err) != "" {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestOpenIsOverAfterClose(t *testing.T) {
	r, _, err := compress.Open(bytes.NewReader(zst(t, "x")))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("read after close works")
	}
}

// A stream may claim a window of gigabytes; it gets an error, not the memory.
func TestOpenBoundsMemory(t *testing.T) {
	// A frame header alone: no single segment, window 2^(10+21) = 2 GiB (RFC 8878, 3.1.1.1.2), one raw block of a byte.
	hugeZstd := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x09, 0x00, 0x00, 'x'}
	// The dictionary byte of the first block's header, and its checksum anew.
	hugeXZ := xzOf(t, "text", xz.WriterConfig{})
	head := hugeXZ[12 : 12+(int(hugeXZ[12])+1)*4]
	at := bytes.IndexByte(head, 0x21) + 2
	head[at] = 39 // 3 GiB
	sum := crc32.ChecksumIEEE(head[:len(head)-4])
	copy(head[len(head)-4:], []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)})
	// The same claim hidden in a second stream behind an honest one.
	second := join(xzOf(t, "honest", xz.WriterConfig{BlockSize: 2}), make([]byte, 4), hugeXZ)
	for name, data := range map[string][]byte{"zstd": hugeZstd, "xz": hugeXZ, "xz, second stream": second} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := decompress(data)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, fault.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 256<<20 {
			t.Errorf("%s took %d MiB", name, got>>20)
		}
	}
}

func FuzzOpen(f *testing.F) {
	bz, err := base64.StdEncoding.DecodeString(bzipped)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{nil, []byte("plain"), gz(f, "gzip"), bz, xzOf(f, "xz xz xz", xz.WriterConfig{BlockSize: 3}), zst(f, "zstd")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, kind, err := compress.Open(bytes.NewReader(data))
		if err == nil {
			defer r.Close()
			var n int64
			n, err = io.Copy(io.Discard, io.LimitReader(r, 16<<20))
			if kind == compress.None && (n != int64(len(data)) || err != nil) {
				t.Errorf("plain data: %d of %d bytes, %v", n, len(data), err)
			}
		}
		if err != nil && !errors.Is(err, fault.Corrupt) {
			t.Errorf("error without the kind: %v", err)
		}
	})
}

// failing is a stream that breaks with an error of its own.
type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }
