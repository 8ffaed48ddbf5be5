package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"berth/kernel"
	"berth/kernel/namespace"
	"berth/network/names"

	"github.com/miekg/dns"
)

// Bounds of what is done at a time.
const (
	allQuestions = 1024             // that wait for servers outside
	questions    = 512              // of one container
	streams      = 64               // TCP connections of one container
	idleStream   = 10 * time.Second // before a connection is closed
	maxQuestion  = 4096             // over UDP, in bytes
)

// station answers one container, at names.Address in its network namespace.
type station struct {
	id        string
	directory *directory
	busy      chan struct{} // shared by all; a place in it for each question that waits
	own       chan struct{} // the same, of this container

	ns      *os.File
	also    []netip.Addr // other addresses that lead here
	udp     *net.UDPConn
	tcp     net.Listener
	streams chan struct{}

	mu     sync.Mutex
	open   map[io.Closer]bool
	closed bool
	done   sync.WaitGroup
}

// newStation opens the sockets in ns, which it takes over, and leads questions there, those to other addresses too. Close it.
func newStation(m *names.Member, d *directory, busy chan struct{}, ns *os.File) (s *station, err error) {
	s = &station{id: m.ID, directory: d, busy: busy, ns: ns, also: m.Also, own: make(chan struct{}, questions), streams: make(chan struct{}, streams), open: map[io.Closer]bool{}}
	err = namespace.Do(ns, func() (err error) {
		if err = s.listen(); err != nil {
			return err
		}
		return writeRedirect(s.port(), s.also)
	})
	if err != nil {
		s.Close()
		return nil, err
	}
	s.done.Go(s.serveUDP)
	s.done.Go(s.serveTCP)
	return s, nil
}

func (s *station) port() uint16 { return uint16(s.udp.LocalAddr().(*net.UDPAddr).Port) }

// lead leads questions to other addresses here, and to those before no more.
func (s *station) lead(also []netip.Addr) error {
	if slices.Equal(also, s.also) {
		return nil
	}
	err := namespace.Do(s.ns, func() error { return writeRedirect(s.port(), also) })
	if err == nil {
		s.also = also
	}
	return err
}

// listen opens both sockets on one port that is free for both.
func (s *station) listen() error {
	c := net.ListenConfig{}
	c.SetMultipathTCP(false)
	ctx := context.Background()
	for try := 0; ; try++ {
		udp, err := c.ListenPacket(ctx, "udp4", names.Address+":0")
		if err != nil {
			return err
		}
		s.udp = udp.(*net.UDPConn)
		if s.tcp, err = c.Listen(ctx, "tcp4", udp.LocalAddr().String()); err == nil {
			return nil
		}
		if s.udp.Close(); try == 16 {
			return err
		}
	}
}

// Close ends it: nothing of us is left in the namespace but the table, which goes with it.
func (s *station) Close() {
	s.mu.Lock()
	s.closed = true
	if s.udp != nil {
		s.udp.Close()
	}
	if s.tcp != nil {
		s.tcp.Close()
	}
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	s.ns.Close()
	s.done.Wait()
}

// hold notes a connection, which would keep the namespace, for Close to close. It fails when that has been.
func (s *station) hold(c io.Closer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.Close()
		return net.ErrClosed
	}
	s.open[c] = true
	return nil
}

// letGo closes a connection.
func (s *station) letGo(c io.Closer) {
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
	c.Close()
}

func (s *station) serveUDP() {
	buf := make([]byte, maxQuestion)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // what the kernel tells of a client that is gone
		}
		s.answerPacket(buf[:n], from)
	}
}

// answerPacket answers at once what is known here, and has the rest asked for in the background.
func (s *station) answerPacket(raw []byte, from netip.AddrPort) {
	q, refuse := read(raw, false)
	if q == nil {
		if refuse != nil {
			s.udp.WriteToUDPAddrPort(refuse, from)
		}
		return
	}
	m := s.directory.member(s.id)
	if m == nil {
		return
	}
	if out := s.directory.local(m, q, nil); out != nil {
		s.udp.WriteToUDPAddrPort(out, from)
		return
	}
	if !s.enter() {
		return // the client asks again
	}
	q.raw = append([]byte(nil), raw...)
	s.done.Go(func() {
		defer s.leave()
		s.udp.WriteToUDPAddrPort(s.forward(m, q, nil), from)
	})
}

// enter takes the places of a question that waits, unless there are too many.
func (s *station) enter() bool {
	select {
	case s.own <- struct{}{}:
	default:
		return false
	}
	select {
	case s.busy <- struct{}{}:
		return true
	default:
		<-s.own
		return false
	}
}

func (s *station) leave() { <-s.busy; <-s.own }

// answer is that to one question, over TCP or for a trace.
func (s *station) answer(raw []byte, tcp bool, note func(names.Step)) []byte {
	q, refuse := read(raw, tcp)
	if q == nil {
		return refuse
	}
	m := s.directory.member(s.id)
	if m == nil {
		return nil
	}
	if out := s.directory.local(m, q, note); out != nil {
		return out
	}
	if !s.enter() {
		return refusal(raw, dns.RcodeRefused)
	}
	defer s.leave()
	return s.forward(m, q, note)
}

func (s *station) serveTCP() {
	for {
		c, err := s.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !s.pause() {
				return
			}
			continue
		}
		select {
		case s.streams <- struct{}{}:
			s.done.Go(func() {
				defer func() { <-s.streams }()
				s.serveStream(c)
			})
		default:
			c.Close()
		}
	}
}

// pause waits a moment, as there are no descriptors left, say; false when it is over.
func (s *station) pause() bool {
	timer := time.NewTimer(idleStream / 100)
	defer timer.Stop()
	<-timer.C
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closed
}

func (s *station) serveStream(c net.Conn) {
	defer s.letGo(c)
	if s.hold(c) != nil {
		return
	}
	var size [2]byte
	for {
		c.SetDeadline(time.Now().Add(idleStream))
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		raw := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, raw); err != nil {
			return
		}
		out := s.answer(raw, true, nil)
		if out == nil {
			return
		}
		c.SetDeadline(time.Now().Add(idleStream))
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}

// trace looks name up as the container would.
func (s *station) trace(name, kind string) (*names.Trace, error) {
	number, ok := dns.StringToType[kind]
	if !ok {
		return nil, invalid("%q is not a type of records: A, AAAA, PTR, MX, TXT, …", kind)
	}
	if a, err := netip.ParseAddr(name); err == nil && (number == dns.TypePTR || number == dns.TypeA) {
		number = dns.TypePTR
		if name, err = dns.ReverseAddr(a.String()); err != nil {
			return nil, invalid("%s has no reverse name: %w", a, err)
		}
	}
	if _, ok := dns.IsDomainName(name); !ok || name == "" {
		return nil, invalid("%q is not a name that can be looked up", name)
	}
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), number)
	q.SetEdns0(ourSize, false)
	raw, err := q.Pack()
	if err != nil {
		return nil, invalid("look up %q: %w", name, err)
	}
	t := &names.Trace{Name: name, Type: dns.TypeToString[number], Container: s.id, Steps: []names.Step{}, Answer: []string{}}
	begin := time.Now()
	out := s.answer(raw, false, func(step names.Step) { t.Steps = append(t.Steps, step) })
	t.Took = time.Since(begin)
	r := new(dns.Msg)
	if err := r.Unpack(out); err != nil {
		t.Status = "unreadable: " + err.Error()
		return t, nil
	}
	t.Status = dns.RcodeToString[r.Rcode]
	for _, rr := range r.Answer {
		t.Answer = append(t.Answer, rr.String())
	}
	return t, nil
}

// watch calls over when the process behind pidfd, which it takes over, has ended, unless it is closed before.
func watch(pidfd *os.File, over func()) {
	defer pidfd.Close()
	if kernel.AwaitEnd(pidfd, 0) == nil {
		over()
	}
}
