// Package progress has the words in which a build's progress is told: what there is to do, how far it is, what it says, and why it is done at all.
//
// It makes no status and shows none: the engine makes them of a build's events, the client shows them. Invariant: a status's JSON is one of BuildKit's
// (client.SolveStatus of moby/buildkit v0.33.0), with fields of ours that its readers pass over.
package progress

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Status is what is new since the status before.
type Status struct {
	Vertexes []*Vertex  `json:"vertexes,omitempty"`
	Statuses []*Part    `json:"statuses,omitempty"`
	Logs     []*Log     `json:"logs,omitempty"`
	Warnings []*Warning `json:"warnings,omitempty"`
	Quotes   []*Quote   `json:"quotes,omitempty"` // ours
}

// Vertex is one thing that is done, as far as it is: a later one of the same digest takes its place.
type Vertex struct {
	Digest    digest.Digest   `json:"digest,omitempty"`
	Inputs    []digest.Digest `json:"inputs,omitempty"` // what it waits for
	Name      string          `json:"name,omitempty"`   // as it is shown: "[stage 2/5] RUN make"
	Started   *time.Time      `json:"started,omitempty"`
	Completed *time.Time      `json:"completed,omitempty"`
	Cached    bool            `json:"cached,omitempty"`
	Error     string          `json:"error,omitempty"`
	Reason    string          `json:"reason,omitempty"` // ours: why its result was not in the cache; "": nothing is known of it
}

// Part is a part of a vertex with a figure of its own: a layer that is fetched, files that are sent.
type Part struct {
	ID        string        `json:"id"` // as it is shown, and one of its vertex
	Vertex    digest.Digest `json:"vertex,omitempty"`
	Name      string        `json:"name,omitempty"`
	Total     int64         `json:"total,omitempty"` // bytes; 0: not known
	Current   int64         `json:"current"`
	Timestamp time.Time     `json:"timestamp"`
	Started   *time.Time    `json:"started,omitempty"`
	Completed *time.Time    `json:"completed,omitempty"`
}

// Log is output of a program.
type Log struct {
	Vertex    digest.Digest `json:"vertex,omitempty"`
	Stream    int           `json:"stream,omitempty"` // 1: stdout, 2: stderr
	Data      []byte        `json:"data"`
	Timestamp time.Time     `json:"timestamp"`
}

// Warning is what a check of the Dockerfile found.
type Warning struct {
	Vertex     digest.Digest `json:"vertex,omitempty"`
	Level      int           `json:"level,omitempty"`
	Short      []byte        `json:"short,omitempty"`  // "RULE: what it is (line N)"
	Detail     [][]byte      `json:"detail,omitempty"` // what the rule is about
	URL        string        `json:"url,omitempty"`
	SourceInfo *SourceInfo   `json:"sourceInfo,omitempty"`
	Range      []*Range      `json:"range,omitempty"`
}

// SourceInfo is the file that a place is in.
type SourceInfo struct {
	Filename string `json:"filename,omitempty"`
	Data     []byte `json:"data,omitempty"`
	Language string `json:"language,omitempty"`
}

// Range is a place in a file.
type Range struct {
	Start Position `json:"start"`
	End   Position `json:"end"`
}

// Position is a line, from 1, and a column, from 0, in bytes.
type Position struct {
	Line      int32 `json:"line,omitempty"`
	Character int32 `json:"character,omitempty"`
}

// Quote is the lines of a Dockerfile around what failed.
type Quote struct {
	Vertex digest.Digest `json:"vertex,omitempty"` // what failed; "": nothing was at work yet
	File   string        `json:"file"`
	Line   int           `json:"line"`
	Text   string        `json:"text"` // numbered lines, ">>>" at those that are meant
	Hint   string        `json:"hint,omitempty"`
}

// Reasons that are none of the step's own: what it begins with was done again, and the cache was not asked.
const (
	Follows = "the step before it was done again"
	NoCache = "--no-cache"
)

// Why is the reason why v was done, where it is v's own; "" else.
func (v *Vertex) Why() string {
	if v.Reason == Follows || v.Reason == NoCache {
		return ""
	}
	return v.Reason
}
