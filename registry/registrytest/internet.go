package registrytest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"time"
)

// Authority signs certificates for hosts of a test.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority returns a new authority, which nobody trusts yet.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registrytest"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &Authority{cert, key}, err
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Issue returns a certificate for a host, good for servers and clients.
func (a *Authority) Issue(host string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// IssuePEM is Issue with certificate and key as files have them.
func (a *Authority) IssuePEM(host string) (cert, key []byte, err error) {
	c, err := a.Issue(host)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Internet is an HTTP proxy behind which hosts of any name answer: what a client does with registries elsewhere is seen
// without leaving the machine. A client that has its address as its proxy reaches the hosts that were given to it and no others.
type Internet struct {
	*Authority
	server *httptest.Server

	mu    sync.Mutex
	hosts map[string]http.Handler
	tries []string
}

// NewInternet returns one without hosts. Close it.
func NewInternet() (*Internet, error) {
	a, err := NewAuthority()
	if err != nil {
		return nil, err
	}
	n := &Internet{Authority: a, hosts: map[string]http.Handler{}}
	n.server = httptest.NewServer(n)
	return n, nil
}

// Close ends it, with all connections.
func (n *Internet) Close() {
	n.server.CloseClientConnections()
	n.server.Close()
}

// URL is the proxy's address.
func (n *Internet) URL() string { return n.server.URL }

// Host lets h answer at an origin, such as https://registry.example or http://registry.example:5000; nil takes it away.
func (n *Internet) Host(origin string, h http.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[origin] = h
}

// Tries returns what was asked for, as origins: also those that nobody answers at.
func (n *Internet) Tries() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.tries...)
}

func (n *Internet) find(origin string) http.Handler {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tries = append(n.tries, origin)
	return n.hosts[origin]
}

// ServeHTTP is the proxy.
func (n *Internet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		n.connect(w, r)
		return
	}
	h := n.find("http://" + r.Host)
	if h == nil {
		http.Error(w, "no such host", http.StatusBadGateway)
		return
	}
	r.URL.Scheme, r.URL.Host = "", ""
	h.ServeHTTP(w, r)
}

// connect ends TLS in the place of the host.
func (n *Internet) connect(w http.ResponseWriter, r *http.Request) {
	name, port, _ := net.SplitHostPort(r.Host)
	origin := "https://" + r.Host
	if port == "443" {
		origin = "https://" + name
	}
	h := n.find(origin)
	if h == nil {
		http.Error(w, "no such host", http.StatusBadGateway)
		return
	}
	cert, err := n.Issue(name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	conn, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
	done := make(chan struct{})
	secured := tls.Server(&early{Conn: conn, r: buffered.Reader, done: done}, &tls.Config{Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequestClientCert})
	server := &http.Server{Handler: h}
	server.Serve(&single{conn: secured, done: done}) // until the client leaves
}

// early is a connection of which a part was read already, and whose end is told.
type early struct {
	net.Conn
	r    *bufio.Reader
	once sync.Once
	done chan struct{}
}

// Read reads.
func (e *early) Read(p []byte) (int, error) { return e.r.Read(p) }

// Close closes, and lets the listener end.
func (e *early) Close() error {
	e.once.Do(func() { close(e.done) })
	return e.Conn.Close()
}

// single is a listener for one connection; it ends with it.
type single struct {
	conn net.Conn
	once sync.Once
	done chan struct{}
}

// Accept returns the connection, and after its end io.EOF.
func (s *single) Accept() (net.Conn, error) {
	var c net.Conn
	s.once.Do(func() { c = s.conn })
	if c != nil {
		return c, nil
	}
	<-s.done
	return nil, io.EOF
}

// Close does nothing: the connection ends by itself.
func (s *single) Close() error { return nil }

// Addr is the connection's.
func (s *single) Addr() net.Addr { return s.conn.LocalAddr() }

// Cutter is a proxy for TCP that ends each connection after so many bytes.
type Cutter struct {
	listener net.Listener
	target   string
	down, up int64
	left     atomic.Int64 // uploads that are still to be cut
}

// NewCutter listens on a loopback address and passes connections on to target, until so many bytes went down to the client or, as
// often as uploads says, up from it; 0 = any number. Close it.
func NewCutter(target string, down, up, uploads int64) (*Cutter, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &Cutter{listener: l, target: target, down: down, up: up}
	c.left.Store(uploads)
	go c.serve()
	return c, nil
}

// Addr is where it listens, as host:port.
func (c *Cutter) Addr() string { return c.listener.Addr().String() }

// Close ends the listening; connections end by themselves.
func (c *Cutter) Close() error { return c.listener.Close() }

func (c *Cutter) serve() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		go c.pass(client)
	}
}

func (c *Cutter) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	defer server.Close()
	ended := make(chan struct{}, 2)
	go func() {
		if c.up > 0 && c.left.Load() > 0 {
			if n, _ := io.CopyN(server, client, c.up); n == c.up && c.left.Add(-1) >= 0 {
				ended <- struct{}{}
				return
			}
		}
		pour(server, client, 0)
		ended <- struct{}{}
	}()
	go func() { pour(client, server, c.down); ended <- struct{}{} }()
	<-ended
}

// pour copies at most n bytes, or all if n is 0.
func pour(to io.Writer, from io.Reader, n int64) {
	if n > 0 {
		from = io.LimitReader(from, n)
	}
	io.Copy(to, from)
}
