package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/namespace"
	"berth/network/names"

	"github.com/miekg/dns"
)

const (
	maxServers = 3               // that are asked (resolv.conf(5), MAXNS)
	patience   = 4 * time.Second // for the last server; clients wait five
	others     = 2 * time.Second // for one with another after it
	maxAnswer  = 16 << 10        // over UDP, in bytes; a longer one is asked for over TCP
)

// wire is a socket to a server.
type wire interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// forward asks the servers outside, in their order, and returns what the first says that can say something.
func (s *station) forward(m *names.Member, q *query, note func(names.Step)) []byte {
	name := strings.TrimSuffix(q.question.Name, ".")
	if (q.question.Qtype == dns.TypeA || q.question.Qtype == dns.TypeAAAA) && m.Dotted && !strings.Contains(name, ".") {
		tell(note, names.Step{Asked: name, Result: "not asked for outside, as ndots is set: the search domains come next"})
		return q.answer(nil)
	}
	var last []byte
	servers := m.Servers[:min(len(m.Servers), maxServers)]
	for k, server := range servers {
		if server.Host && !m.Outside {
			tell(note, names.Step{Server: server.String(), Asked: name, Result: "not asked: the container is on internal networks alone"})
			continue
		}
		limit := patience
		if k < len(servers)-1 {
			limit = others
		}
		got, err := s.ask(server, q, limit, note)
		if err != nil {
			continue
		}
		if code := got[3] & 0xf; code != dns.RcodeServerFailure && code != dns.RcodeRefused {
			return q.fit(got)
		}
		last = got // it may not last: the next may know
	}
	if last != nil {
		return q.fit(last)
	}
	return refusal(q.raw, dns.RcodeServerFailure)
}

// ask asks one server, over what the client used; what is too long for that, over TCP, too.
func (s *station) ask(server names.Server, q *query, limit time.Duration, note func(names.Step)) (got []byte, err error) {
	over := "udp"
	if q.tcp {
		over = "tcp"
	}
	got, err = s.exchange(server, over, q, limit, note)
	if err == nil && over == "udp" && cut(got) {
		if whole, err := s.exchange(server, "tcp", q, limit, note); err == nil {
			got = whole
		}
	}
	return got, err
}

// cut tells whether an answer says that it is not complete.
func cut(answer []byte) bool { return answer[2]&(1<<1) != 0 }

// exchange has one packet answered by a server.
func (s *station) exchange(server names.Server, over string, q *query, limit time.Duration, note func(names.Step)) (got []byte, err error) {
	if note != nil {
		begin := time.Now()
		defer func() {
			step := names.Step{Server: server.String(), Over: over, Asked: strings.TrimSuffix(q.question.Name, "."), Took: time.Since(begin)}
			if err != nil {
				step.Result = err.Error()
			} else if step.Result = dns.RcodeToString[int(got[3]&0xf)]; cut(got) {
				step.Result += ", cut short"
			}
			note(step)
		}()
	}
	end := time.Now().Add(limit)
	conn, err := s.reach(server, over, end)
	if err != nil {
		return nil, err
	}
	defer s.letGo(conn)
	if err := conn.SetDeadline(end); err != nil {
		return nil, err
	}
	out := q.raw
	if over == "tcp" {
		out = append(binary.BigEndian.AppendUint16(nil, uint16(len(q.raw))), q.raw...)
	}
	if _, err := conn.Write(out); err != nil {
		return nil, err
	}
	if over == "tcp" {
		return receiveStream(conn, q)
	}
	return receivePacket(conn, q)
}

// reach opens a socket to a server: one that only the host reaches from where we are, others from where the container is. letGo
// closes it.
func (s *station) reach(server names.Server, over string, end time.Time) (wire, error) {
	port := server.Port
	if port == 0 {
		port = 53
	}
	to := netip.AddrPortFrom(server.Address, port)
	if server.Host {
		ctx, cancel := context.WithDeadline(context.Background(), end)
		defer cancel()
		conn, err := (&net.Dialer{}).DialContext(ctx, over, to.String())
		if err != nil {
			return nil, err
		}
		return conn, s.hold(conn)
	}
	var sock *os.File
	err := namespace.Do(s.ns, func() (err error) {
		sock, err = kernel.Socket(over, server.Address)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err = s.hold(sock); err == nil {
		err = sock.SetDeadline(end)
	}
	if err == nil {
		err = kernel.Connect(sock, to)
	}
	if err != nil {
		s.letGo(sock)
		return nil, err
	}
	return sock, nil
}

// receivePacket takes the first packet that answers the question.
func receivePacket(conn io.Reader, q *query) ([]byte, error) {
	buf := make([]byte, min(max(q.room, ourSize), maxAnswer)+1)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if !q.answeredBy(buf[:n]) {
			continue // of somebody who guesses, or late
		}
		if n == len(buf) { // and maybe more
			return q.cutShort(buf[3] & 0xf), nil
		}
		return buf[:n], nil
	}
}

// cutShort is an answer that says that it is not complete: the client asks again, over TCP.
func (q *query) cutShort(code byte) []byte {
	short := refusal(q.raw, int(code))
	short[2] |= 1 << 1
	return short
}

func receiveStream(conn io.Reader, q *query) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	got := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, got); err != nil {
		return nil, err
	}
	if !q.answeredBy(got) {
		return nil, fault.New(fault.Corrupt, "what came is no answer to the question")
	}
	return got, nil
}

// answeredBy tells whether a packet answers q: the same number and the same question. One that only says what is wrong may leave that out.
func (q *query) answeredBy(p []byte) bool {
	if len(p) < 12 || p[0] != q.raw[0] || p[1] != q.raw[1] || p[2]&(1<<7) == 0 {
		return false
	}
	if p[4] == 0 && p[5] == 0 {
		return p[3]&0xf != dns.RcodeSuccess
	}
	return len(p) >= q.end && bytes.EqualFold(p[12:q.end], q.raw[12:q.end])
}

// fit makes a server's answer fit into the client's room: one that doesn't loses all but the question, and the client asks over TCP.
func (q *query) fit(got []byte) []byte {
	if len(got) <= q.room {
		return got
	}
	r := new(dns.Msg)
	if err := r.Unpack(got); err == nil {
		r.Compress = true
		r.Truncate(q.room)
		if out, err := r.Pack(); err == nil && len(out) <= q.room {
			return out
		}
	}
	return q.cutShort(got[3] & 0xf)
}
