package container

import (
	"fmt"
	"strings"

	"berth/fault"
)

// Status is the one enum of a container's states; Docker's booleans are derived from it.
type Status string

// The states.
const (
	Created    Status = "created"
	Running    Status = "running"
	Paused     Status = "paused"
	Restarting Status = "restarting" // ended, and waits for its restart policy's delay
	Removing   Status = "removing"
	Exited     Status = "exited"
	Dead       Status = "dead" // removal failed half-way; it can only be removed again
)

// Event is what happens to a container.
type Event string

// The events.
const (
	Start        Event = "start"
	Fail         Event = "fail" // a start that did not get as far as the user's program
	Exit         Event = "exit"
	Pause        Event = "pause"
	Unpause      Event = "unpause"
	Restart      Event = "restart" // it ended and its policy wants it again
	Remove       Event = "remove"
	RemoveFailed Event = "remove failed"
)

// Statuses lists the states in the order of a container's life.
func Statuses() []Status {
	return []Status{Created, Running, Paused, Restarting, Exited, Removing, Dead}
}

// Events lists the events.
func Events() []Event {
	return []Event{Start, Fail, Exit, Pause, Unpause, Restart, Remove, RemoveFailed}
}

// table gives the next state; what it leaves out is not allowed.
func table(s Status) map[Event]Status {
	switch s {
	case Created:
		return map[Event]Status{Start: Running, Fail: Created, Remove: Removing}
	case Running:
		return map[Event]Status{Exit: Exited, Pause: Paused, Restart: Restarting}
	case Paused:
		return map[Event]Status{Unpause: Running, Exit: Exited, Restart: Restarting}
	case Restarting:
		return map[Event]Status{Start: Running, Fail: Exited, Exit: Exited, Restart: Restarting}
	case Exited:
		return map[Event]Status{Start: Running, Fail: Exited, Restart: Restarting, Remove: Removing}
	case Removing:
		return map[Event]Status{RemoveFailed: Dead}
	case Dead:
		return map[Event]Status{Remove: Removing}
	}
	return nil
}

// Next gives the state that follows s after event e. A pair that is not
// allowed is fault.Conflict and leaves s.
func Next(s Status, e Event) (Status, error) {
	if next, ok := table(s)[e]; ok {
		return next, nil
	}
	return s, fault.New(fault.Conflict, "a container that is %s can't take %q", s, e)
}

// Alive tells whether processes of the container exist.
func (s Status) Alive() bool { return s == Running || s == Paused }

// Page prints the table for people, as doc/states.md.
func Page() string {
	var b strings.Builder
	b.WriteString("# States of a container\n\nPrinted from `container.Next` by `go test ./container -update`. An empty field is a pair that is refused.\n\n| state |")
	for _, e := range Events() {
		fmt.Fprintf(&b, " %s |", e)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(Events())) + "\n")
	for _, s := range Statuses() {
		fmt.Fprintf(&b, "| **%s** |", s)
		for _, e := range Events() {
			if next, err := Next(s, e); err == nil {
				fmt.Fprintf(&b, " %s |", next)
			} else {
				b.WriteString(" |")
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\nDocker's booleans: `Running` is running or paused or restarting, `Paused`, `Restarting` and `Dead` are the state of that name.\n")
	return b.String()
}
