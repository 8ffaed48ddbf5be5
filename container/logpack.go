package container

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/klauspost/compress/gzip"
)

// packedComment stands in the header of a compressed part before the number of bytes logged up to its end. The supervisor reads it.
const packedComment = "berth log up to "

// LogHelper is the work of the program that a container's supervisor has its older log files compressed by ("compress"), and
// decompressed to replay them ("decompress"): from in to out. It returns the program's exit code.
func LogHelper(what string, in, out *os.File) int {
	var err error
	switch what {
	case "compress":
		err = packLog(in, out)
	case "decompress":
		err = unpackLog(in, out)
	default:
		err = fmt.Errorf("no such work: %q", what)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "log helper:", err)
		return 1
	}
	return 0
}

// packLog compresses a part. It is on the disk when this returns, as the plain one is deleted next.
func packLog(in, out *os.File) error {
	info, err := in.Stat()
	if err != nil {
		return err
	}
	lines := bufio.NewReaderSize(in, 256<<10)
	first, err := lines.Peek(int(min(info.Size(), maxLine)))
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		return err
	}
	record, _, _ := bytes.Cut(first, []byte{'\n'})
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	z.Comment = packedComment + strconv.FormatInt(max(0, offsetOf(record))+info.Size(), 10)
	if _, err := io.Copy(z, lines); err != nil {
		return err
	}
	return errors.Join(z.Close(), out.Sync())
}

func unpackLog(in, out *os.File) error {
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, z)
	return err
}
