package shim

import "time"

// hangUpPatience is how long a process whose client is gone may take to end.
const hangUpPatience = 2 * time.Second

// hangUpProcess ends the process as the loss of its terminal would: SIGHUP, and SIGKILL where that is not enough, as
// for the first process of a container, which is spared signals that it has no handler for (pid_namespaces(7)). It returns
// when that is done: its caller still counts as a client, without which the supervisor might begin anew meanwhile.
func (s *stdio) hangUpProcess() {
	p := s.process.Load()
	if p == nil {
		return
	}
	const hup, kill = 1, 9
	_ = (*p).Signal(hup) // one that has ended takes none
	tick := time.NewTicker(hangUpPatience / 100)
	defer tick.Stop()
	for end := time.Now().Add(hangUpPatience); !s.ended.Load(); <-tick.C {
		if time.Now().After(end) {
			_ = (*p).Signal(kill)
			return
		}
	}
}
