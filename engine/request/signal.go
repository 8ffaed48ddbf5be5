package request

import (
	"strconv"
	"strings"

	"berth/fault"
)

// realTimeMin and realTimeMax bound the real-time signals as libc numbers them (signal(7)).
const (
	realTimeMin = 34
	realTimeMax = 64
)

// signalNames are Linux's on x86, arm and most others, number 1 first (signal(7)).
func signalNames() []string {
	return []string{
		"HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT",
		"CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
	}
}

// Signal reads a signal's name or number, "TERM", "SIGTERM", "15", "RTMIN+3" or "RTMAX-1". fault.Invalid in the words that tools know.
func Signal(s string) (int, error) {
	bad := fault.New(fault.Invalid, "Invalid signal: %s", s)
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > realTimeMax {
			return 0, bad
		}
		return n, nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	for i, known := range signalNames() {
		if name == known {
			return i + 1, nil
		}
	}
	for _, alias := range []struct {
		name string
		n    int
	}{{"POLL", 29}, {"IOT", 6}, {"CLD", 17}, {"RTMIN", realTimeMin}, {"RTMAX", realTimeMax}} {
		if name == alias.name {
			return alias.n, nil
		}
	}
	n := 0
	if after, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		d, err := strconv.Atoi(after)
		if err != nil || d < 0 {
			return 0, bad
		}
		n = realTimeMin + d
	} else if after, ok := strings.CutPrefix(name, "RTMAX-"); ok {
		d, err := strconv.Atoi(after)
		if err != nil || d < 0 {
			return 0, bad
		}
		n = realTimeMax - d
	}
	if n < realTimeMin || n > realTimeMax {
		return 0, bad
	}
	return n, nil
}
