// Package names says what containers are called on their networks, and hands it to the one process that answers for all of
// them (package dns), which it starts and finds again.
//
// It resolves nothing. Invariant: the process that answers owes nothing to the one that told it: it goes on when
// that dies, and when it dies itself, it is started again and told everything.
package names

import (
	"net/netip"
	"time"
)

// Address is where a container asks, on the usual port; what listens there has another one.
const Address = "127.0.0.11"

// Member is a container as it is known, and as it sees others.
type Member struct {
	ID        string
	Endpoints []Endpoint   // in the order in which they are asked
	Servers   []Server     // asked for what nobody here is called, in this order
	Outside   bool         // a network of it leads out of this host; without one, servers that only the host reaches aren't asked
	Dotted    bool         // names without a dot are not asked for outside, as the user set ndots
	Gateways  []netip.Addr // of host.docker.internal, of either family
	Also      []netip.Addr `json:",omitempty"` // IPv4 addresses of others that the container's questions are answered at too, on the usual port
}

// Endpoint is a container's place in a network that has names.
type Endpoint struct {
	NetworkID, Network string
	Names              []string // the first is the container's own, which its address is called by
	Addresses          []netip.Addr
	Links              map[string]string `json:",omitempty"` // by aliases that only this container has: names or IDs of containers of the network
}

// Server is a name server outside.
type Server struct {
	Address netip.Addr
	Port    uint16 `json:",omitempty"` // 0: 53
	Host    bool   `json:",omitempty"` // only the host reaches it
}

// String is the server as resolv.conf's remarks have it.
func (s Server) String() string {
	if s.Host {
		return "host(" + s.Address.String() + ")"
	}
	return s.Address.String()
}

// Trace is how a name was looked up for a container.
type Trace struct {
	Name, Type string
	Container  string        // its ID
	Steps      []Step        // in their order
	Answer     []string      // records as a zone file has them
	Status     string        // "NOERROR", "NXDOMAIN", …
	Took       time.Duration // ns
}

// Step is a place that was asked.
type Step struct {
	Network string        `json:",omitempty"` // its name
	Server  string        `json:",omitempty"` // a server outside, as Server.String has it
	Over    string        `json:",omitempty"` // "udp" or "tcp", to a server
	Asked   string        // the name that was looked for there
	Found   []string      `json:",omitempty"` // IDs of containers
	Result  string        // what came of it
	Took    time.Duration // ns
}

// The talk: JSON lines over a stream socket; the files of a request come with its first byte, and each gets one answer. At first,
// the one who answers greets.

// Version is that of the talk.
const Version = 2

// MessageLimit bounds a message, in bytes.
const MessageLimit = 4 << 20

// Hello is the greeting.
type Hello struct {
	Version int
	Served  []string // IDs of containers
}

// What a Request can be.
const (
	OpPut    = "put"    // Member is as it says. Namespace: serve it there, until Settle comes or this connection ends
	OpSettle = "settle" // ID is served as long as the process lives whose descriptor comes with it
	OpDrop   = "drop"   // ID is gone
	OpKeep   = "keep"   // all but IDs are gone
	OpTrace  = "trace"  // look Name up for ID
	OpQuit   = "quit"   // end
)

// Request is a message to the one who answers.
type Request struct {
	Op        string
	Member    *Member  `json:",omitempty"`
	Namespace bool     `json:",omitempty"` // the first file is the network namespace of Member
	Process   bool     `json:",omitempty"` // the last file is a descriptor of the container's process, as for OpSettle
	ID        string   `json:",omitempty"`
	IDs       []string `json:",omitempty"`
	Name      string   `json:",omitempty"`
	Type      string   `json:",omitempty"` // "A", "AAAA", …
}

// Answer is what comes back.
type Answer struct {
	Error string `json:",omitempty"`
	Kind  string `json:",omitempty"` // of the error; see package fault
	Trace *Trace `json:",omitempty"`
}
