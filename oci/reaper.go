package oci

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"berth/kernel"
)

// reaperName is what a container's --init is called in its own process list.
const reaperName = "/sbin/berth-init"

// reaperMain is process 1 of a container with Bundle.Init: it starts args as its child, passes signals on,
// reaps orphans, and ends as its child does. It runs with the container's rights and inside its filter.
func reaperMain(args []string) int {
	if len(args) < 2 {
		return 127
	}
	// Else ps shows the sealed file that this program was executed from. Without /proc it does.
	_ = os.WriteFile("/proc/self/comm", []byte("berth-init"), 0)
	path := args[0]
	if !strings.Contains(path, "/") { // another runtime's container, where nobody looked it up
		found, err := findProgram(args[:1], os.Environ())
		if err != nil {
			fmt.Fprintf(os.Stderr, "[FATAL berth-init] %v\n", err)
			return startCode(err)
		}
		path = found
	}
	code, err := kernel.Supervise(path, args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "[FATAL berth-init] exec %s failed: %v\n", args[0], bare(err))
		if errors.Is(err, os.ErrNotExist) {
			return 127
		}
		return 126
	}
	return code
}

// startCode is a StartError's code, else 126.
func startCode(err error) int {
	if s := (*StartError)(nil); errors.As(err, &s) {
		return s.Code
	}
	return 126
}
