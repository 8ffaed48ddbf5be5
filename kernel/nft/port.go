package nft

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The numbers of the protocols that have ports, and where their checksums stand in the header, in bytes (RFC 768, RFC 9293).
var transports = map[string]struct {
	number   byte
	checksum uint32
}{"tcp": {unix.IPPROTO_TCP, 16}, "udp": {unix.IPPROTO_UDP, 6}}

// ToPort and FromPort match packets of proto, "tcp" or "udp", by one of their ports.
func ToPort(proto string, port uint16) Part   { return portIs(proto, "dport", 2, port) }
func FromPort(proto string, port uint16) Part { return portIs(proto, "sport", 0, port) }

func portIs(proto, word string, offset uint32, port uint16) Part {
	return Part{fmt.Sprintf("%s %s %d", proto, word, port), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		equal([]byte{transports[proto].number}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		equal(binary.BigEndian.AppendUint16(nil, port)),
	}}
}

// SetToPort and SetFromPort write a port of a packet that ToPort or FromPort has matched. Nothing is tracked: what comes back
// needs a rule of its own.
func SetToPort(proto string, port uint16) Part   { return setPort(proto, "dport", 2, port) }
func SetFromPort(proto string, port uint16) Part { return setPort(proto, "sport", 0, port) }

func setPort(proto, word string, offset uint32, port uint16) Part {
	return Part{fmt.Sprintf("%s %s set %d", proto, word, port), []expr.Any{
		&expr.Immediate{Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)},
		&expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2,
			CsumType: expr.CsumTypeInet, CsumOffset: transports[proto].checksum,
		},
	}}
}
