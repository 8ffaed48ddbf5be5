package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
)

// firstBytes reads as much as tells an archive from a text.
func firstBytes(from io.Reader) (text []byte, rest io.Reader, err error) {
	text = make([]byte, 512)
	n, err := io.ReadFull(from, text)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return text[:n], from, err
}

// magics are how compressed archives begin: gzip, bzip2, xz, zstd.
var magics = [][]byte{{0x1f, 0x8b, 8}, {'B', 'Z', 'h'}, {0xfd, '7', 'z', 'X', 'Z', 0}, {0x28, 0xb5, 0x2f, 0xfd}}

// checkStdin tells whether stdin can be what it is asked to be.
func checkStdin(file string) error {
	if file == "-" {
		return errors.New("invalid argument: can't use stdin for both build context and dockerfile")
	}
	return nil
}

// errAmbiguous is what a Dockerfile on stdin is beside one of another name.
var errAmbiguous = errors.New("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles: leave -f out, or send an archive")

func isArchive(text []byte) bool {
	for _, m := range magics {
		if bytes.HasPrefix(text, m) {
			return true
		}
	}
	_, err := tar.NewReader(bytes.NewReader(append(bytes.Clone(text), make([]byte, 1024)...))).Next()
	return len(text) == 512 && err == nil
}

// archiveOf is an archive of one file.
func archiveOf(name string, text []byte) io.ReadCloser {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	// Writing to memory can't fail, and the header is one that a tar can hold.
	_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))})
	_, _ = w.Write(text)
	_ = w.Close()
	return io.NopCloser(&b)
}
