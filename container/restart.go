package container

import (
	"time"

	"github.com/moby/moby/api/types/container"
)

// The delay before a restart, as the field's engines have it: it doubles from the first to the longest, and begins
// anew after a run that was steady.
const (
	FirstDelay   = 100 * time.Millisecond
	LongestDelay = time.Minute
	SteadyAfter  = 10 * time.Second
)

// AfterExit tells whether a policy wants a container again that has just ended with a code after it ran that long, and
// after which delay. s is the state before the end. A user's stop is final until a user, or the engine's next
// start, starts the container.
func AfterExit(p container.RestartPolicy, s State, code int, ran time.Duration) (again bool, delay time.Duration) {
	switch {
	case s.ManualStop:
		return false, 0
	case p.IsAlways(), p.IsUnlessStopped():
	case p.IsOnFailure() && code != 0 && (p.MaximumRetryCount == 0 || s.RestartCount < p.MaximumRetryCount):
	default:
		return false, 0
	}
	if ran >= SteadyAfter || s.RestartDelay <= 0 {
		return true, FirstDelay
	}
	return true, min(2*s.RestartDelay, LongestDelay)
}

// AtStart tells whether a policy wants an ended container again when the engine starts. A container that was never
// started does not come by itself. With on-failure that is one whose failure nobody could answer, because the
// machine or the engine went down with it.
func AtStart(p container.RestartPolicy, s State) bool {
	switch {
	case s.StartedAt.IsZero():
		return false
	case p.IsAlways():
		return true
	case p.IsUnlessStopped():
		return !s.ManualStop
	case p.IsOnFailure():
		return !s.ManualStop && s.ExitCode != 0 && (p.MaximumRetryCount == 0 || s.RestartCount < p.MaximumRetryCount)
	}
	return false
}

// Again puts s into the wait for a restart at a moment; s must be in a state that Next lets be restarted.
func (s *State) Again(now time.Time, delay time.Duration) error {
	next, err := Next(s.Status, Restart)
	if err != nil {
		return err
	}
	s.Status, s.Pid = next, 0
	s.RestartAt, s.RestartDelay = now.Add(delay).UTC(), delay
	return nil
}

// Wait is how long a restart that was decided is still to be waited for. The clock may have been set, so it is never longer than
// what was decided.
func (s State) Wait(now time.Time) time.Duration {
	return max(0, min(s.RestartAt.Sub(now), s.RestartDelay))
}
