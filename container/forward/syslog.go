package forward

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// timeouts of a connection that takes nothing.
const (
	dialTimeout = 10 * time.Second
	sendTimeout = 10 * time.Second
)

// Severities (RFC 5424, 6.2.1).
const (
	severityError = 3
	severityInfo  = 6
)

// facilities in the order of their numbers (RFC 5424, 6.2.1).
func facilities() []string {
	return strings.Fields("kern user mail daemon auth syslog lpr news uucp cron authpriv ftp - - - - local0 local1 local2 local3 local4 local5 local6 local7")
}

func parseFacility(s string) (int, error) {
	if s == "" {
		s = "daemon"
	}
	for n, name := range facilities() {
		if name == s && s != "-" {
			return n, nil
		}
	}
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= 23 {
		return n, nil
	}
	return 0, invalid("invalid syslog facility: %s", s)
}

const tcpTLS = "tcp+tls"

func syslogAddress(opts map[string]string) (network, address string, err error) {
	if opts["syslog-address"] == "" {
		return "", "", nil
	}
	return parseAddress("syslog-address", opts["syslog-address"], "514", "udp", "tcp", tcpTLS, "unix", "unixgram")
}

func checkSyslog(opts map[string]string) error {
	network, address, err := syslogAddress(opts)
	if err != nil {
		return err
	}
	if strings.HasPrefix(network, "unix") {
		if _, err := os.Stat(address); err != nil {
			return invalid("syslog-address: %w", err)
		}
	}
	if _, err := parseFacility(opts["syslog-facility"]); err != nil {
		return err
	}
	switch opts["syslog-format"] {
	case "", "rfc3164", "rfc5424", "rfc5424micro":
	default:
		return invalid("Invalid syslog format: %s; use rfc3164, rfc5424 or rfc5424micro", opts["syslog-format"])
	}
	for _, option := range []string{"syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key"} {
		if err := checkFile(option, opts[option]); err != nil {
			return err
		}
	}
	return nil
}

// syslog speaks to a syslog server: RFC 3164 and 5424, over datagrams, streams, or TLS (RFC 5425).
type syslog struct {
	net.Conn
	info     *Info
	format   string
	facility int
	host     string
	gone     <-chan struct{} // of a stream: see watch; nil for datagrams
	counted  bool            // each message after its length, not before a newline
	buf      []byte
}

func dialSyslog(ctx context.Context, info *Info) (destination, error) {
	network, address, err := syslogAddress(info.Opts)
	if err != nil {
		return nil, err
	}
	s := &syslog{info: info, format: info.Opts["syslog-format"]}
	if s.facility, err = parseFacility(info.Opts["syslog-facility"]); err != nil {
		return nil, err
	}
	if s.host, err = info.Hostname(); err != nil {
		return nil, err
	}
	switch network {
	case "":
		s.Conn, err = dialLocalSyslog(ctx)
	case tcpTLS:
		s.counted = strings.HasPrefix(s.format, "rfc5424")
		s.Conn, err = dialTLS(ctx, address, info.Opts)
	default:
		s.Conn, err = dial(ctx, network, address)
	}
	if err != nil {
		return nil, err
	}
	if n := s.RemoteAddr().Network(); n != "unixgram" && n != "udp" {
		s.gone = watch(s.Conn)
	}
	return s, nil
}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	return d.DialContext(ctx, network, address)
}

// dialLocalSyslog finds this machine's own, at the places where it may listen.
func dialLocalSyslog(ctx context.Context) (net.Conn, error) {
	for _, path := range []string{"/dev/log", "/var/run/syslog", "/var/run/log"} {
		for _, network := range []string{"unixgram", "unix"} {
			if c, err := dial(ctx, network, path); err == nil {
				return c, nil
			}
		}
	}
	return nil, fmt.Errorf("no syslog server listens at /dev/log: start one, or name one with --log-opt syslog-address")
}

func dialTLS(ctx context.Context, address string, opts map[string]string) (net.Conn, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: opts["syslog-tls-skip-verify"] != ""}
	if path := opts["syslog-tls-ca-cert"]; path != "" {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate", path)
		}
	}
	if cert, key := opts["syslog-tls-cert"], opts["syslog-tls-key"]; cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: config}
	return d.DialContext(ctx, "tcp", address)
}

func (s *syslog) send(m *message) error {
	severity := severityInfo
	if m.stderr {
		severity = severityError
	}
	s.buf = appendSyslog(s.buf[:0], s.format, s.facility*8+severity, s.host, s.info.tag, m)
	s.Conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	switch {
	case s.counted:
		s.buf = append(fmt.Appendf(nil, "%d ", len(s.buf)), s.buf...)
	case s.gone != nil:
		s.buf = append(s.buf, '\n')
	}
	_, err := s.Conn.Write(s.buf)
	return err
}

// appendSyslog writes one message: RFC 5424, 6, RFC 3164, 4.1, or, with no format, as local programs write.
func appendSyslog(b []byte, format string, priority int, host, tag string, m *message) []byte {
	pid := os.Getpid()
	switch format {
	case "rfc5424", "rfc5424micro":
		layout := time.RFC3339
		if format == "rfc5424micro" {
			layout = "2006-01-02T15:04:05.000000Z07:00"
		}
		b = fmt.Appendf(b, "<%d>1 %s %s %s %d %s - ", priority, m.time.Local().Format(layout), host, tag, pid, tag)
	case "rfc3164":
		b = fmt.Appendf(b, "<%d>%s %s %s[%d]: ", priority, m.time.Local().Format(time.Stamp), host, tag, pid)
	default:
		b = fmt.Appendf(b, "<%d>%s %s[%d]: ", priority, m.time.Local().Format(time.Stamp), tag, pid)
	}
	return append(b, m.text...)
}

// flush finds out whether the other side of a stream has gone, which a write alone doesn't show.
func (s *syslog) flush() error {
	if s.gone == nil {
		return nil
	}
	return stillThere(s.Conn, s.gone)
}

// watch closes the channel when the other side of a stream, on which it says nothing, has gone. It ends with the connection.
func watch(c net.Conn) <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		io.Copy(io.Discard, c)
	}()
	return gone
}

func stillThere(c net.Conn, gone <-chan struct{}) error {
	select {
	case <-gone:
		return fmt.Errorf("%s has closed the connection", c.RemoteAddr())
	default:
		return nil
	}
}
