// Package protocol has what a build's client and the daemon say to each other when the client can be asked back.
//
// It is words only: who sends and who reads them is elsewhere. Invariant: a field that one side does not know is a field that it can do without.
package protocol

import "encoding/json"

// Request is the body of POST /build?asks=1. What the classic builder's query can say is said there.
type Request struct {
	Context    Kind              `json:",omitempty"`
	Dockerfile []byte            `json:",omitempty"` // its text; none: it lies in the context, under the name in the query
	Ignore     []byte            `json:",omitempty"` // the ignore file's text, beside Dockerfile
	Secrets    []string          `json:",omitempty"` // ids of those that the client has
	Agents     []string          `json:",omitempty"` // ids of the ssh agents that the client reaches
	Named      map[string]string `json:",omitempty"` // further contexts, what each is by its name; "local": it is asked for

	// Directories are those of the client's that are contexts, by the context's name; "" is the build context.
	Directories map[string]Directory `json:",omitempty"`
	Outputs     []Output             `json:",omitempty"`
	Attest      map[string]string    `json:",omitempty"` // attestations by kind, such as "provenance": "mode=min"
	Platforms   []string             `json:",omitempty"` // as "linux/arm64"; none: the daemon's own
	Allow       []string             `json:",omitempty"` // entitlements
}

// Directory tells a directory of a client's from others. What the daemon has of it from builds before is not sent again.
type Directory struct {
	Key  string `json:",omitempty"` // 64 hex digits; "": nothing is kept
	Path string `json:",omitempty"` // for people
}

// Kind says what a build's context is.
type Kind string

// The kinds of contexts.
const (
	None    Kind = ""        // there is none, or the query's "remote" has an address
	Local   Kind = "local"   // a directory of the client's: what is needed of it is asked for
	Archive Kind = "archive" // a tar of any compression, which is asked for whole
)

// Output is one thing that shall come of a build: a type such as "image", "local" or "tar", and what the type wants to know. Its Ask calls it by its
// number, from 0.
type Output struct {
	Type       string
	Attributes map[string]string `json:",omitempty"`
}

// Message is one line of the answer. One of the fields is set.
type Message struct {
	Stream string            `json:"stream,omitempty"` // text for people
	Status json.RawMessage   `json:"status,omitempty"` // progress, as BuildKit's client.SolveStatus
	Ask    *Ask              `json:"ask,omitempty"`
	Result map[string]string `json:"result,omitzero"` // the last line of a build that succeeded
	Error  string            `json:"error,omitempty"` // the last line of one that failed
	Detail *Detail           `json:"errorDetail,omitempty"`
}

// Detail is more about an error.
type Detail struct {
	Code    int    `json:"code,omitempty"` // the exit code of the program that failed; 0: it was none
	Message string `json:"message"`
}

// Ask is something that the daemon wants of the client. The client answers by POST /build/answers/ID with "Upgrade: tcp", after which the
// connection is raw; or without an upgrade and with the query's "error" why it can't, and "missing" set when it has no such thing.
type Ask struct {
	ID       string   `json:"id"`
	What     What     `json:"what"`
	Name     string   `json:"name,omitempty"` // of the context, secret, agent or output; "" is the build context
	Patterns []string `json:"patterns,omitempty"`
}

// What is the kind of an Ask, and with it what goes over the connection.
type What string

// The kinds of asks.
const (
	// Files: the client sends the list of what its context has, the daemon the numbers of what it needs, and the client those (package transfer).
	Files What = "files"
	// Content: the client sends an archive, in pieces (package transfer).
	Content What = "content"
	// Secret: the client sends a secret's bytes, in pieces.
	Secret What = "secret"
	// Agent: both sides are an ssh agent's connection.
	Agent What = "agent"
	// Destination: the daemon sends a tar, in pieces; the client says Received when all is where it belongs, or else why not.
	Destination What = "output"
)

// Received is what a client says when it has an output.
const Received = "received\n"
