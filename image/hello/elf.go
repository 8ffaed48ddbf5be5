package hello

import (
	"bytes"
	"encoding/binary"
)

// assemble makes a static Linux program for arch (amd64 or arm64) that writes message to standard output
// and exits with 0, or with 1 when not all of it could be written. The message must be shorter than a pipe's 4096
// atomic bytes. Layout: ELF header, one program header, code, message; all mapped once, readable and executable (elf(5)).
func assemble(arch, message string) []byte {
	const (
		base       = 0x400000
		headers    = 64 + 56
		machineX86 = 62
		machineArm = 183
	)
	code, machine := codeAMD64(len(message)), uint16(machineX86)
	if arch == "arm64" {
		code, machine = codeARM64(len(message)), machineArm
	}
	size := uint64(headers + len(code) + len(message))
	var b bytes.Buffer
	b.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}) // 64 bits, little endian, version 1
	for _, field := range []any{
		uint16(2), machine, uint32(1), // an executable, version 1
		uint64(base + headers), uint64(64), uint64(0), // entry, program headers' offset, no sections
		uint32(0), uint16(64), uint16(56), uint16(1), uint16(64), uint16(0), uint16(0),
		uint32(1), uint32(5), // PT_LOAD, read and execute
		uint64(0), uint64(base), uint64(base), size, size, uint64(0x10000),
	} {
		binary.Write(&b, binary.LittleEndian, field) // a bytes.Buffer takes all
	}
	b.Write(code)
	b.WriteString(message)
	return b.Bytes()
}

// codeAMD64 is write(1, message, n) and exit; the message follows the code.
func codeAMD64(n int) []byte {
	le := binary.LittleEndian.AppendUint32
	var c []byte
	c = append(c, 0xb8, 1, 0, 0, 0) // mov eax, 1 (write)
	c = append(c, 0xbf, 1, 0, 0, 0) // mov edi, 1
	c = append(c, 0x48, 0x8d, 0x35) // lea rsi, [rip+rest]
	at := len(c)
	c = le(c, 0)
	c = le(append(c, 0xba), uint32(n)) // mov edx, n
	c = append(c, 0x0f, 0x05)          // syscall
	c = le(append(c, 0x3d), uint32(n)) // cmp eax, n
	c = append(c, 0x0f, 0x95, 0xc0)    // setne al
	c = append(c, 0x0f, 0xb6, 0xf8)    // movzx edi, al
	c = append(c, 0xb8, 60, 0, 0, 0)   // mov eax, 60 (exit)
	c = append(c, 0x0f, 0x05)          // syscall
	binary.LittleEndian.PutUint32(c[at:], uint32(len(c)-at-4))
	return c
}

// codeARM64 is the same in words of four bytes.
func codeARM64(n int) []byte {
	const movz = 0xd2800000 // movz xd, #imm
	words := []uint32{
		movz | 1<<5,              // x0 = 1
		0,                        // adr x1, message
		movz | uint32(n)<<5 | 2,  // x2 = n
		movz | 64<<5 | 8,         // x8 = 64 (write)
		0xd4000001,               // svc 0
		0xeb02001f,               // cmp x0, x2
		0x9a9f07e0,               // cset x0, ne
		movz | uint32(93)<<5 | 8, // x8 = 93 (exit)
		0xd4000001,               // svc 0
	}
	words[1] = 0x10000000 | uint32(len(words)-1)<<5 | 1 // the distance is a multiple of 4
	var c []byte
	for _, w := range words {
		c = binary.LittleEndian.AppendUint32(c, w)
	}
	return c
}
