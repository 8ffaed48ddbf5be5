// Command berthd is the daemon: it opens an engine and serves the Docker
// Engine API on sockets. It may die at any time; containers don't notice.
package main

import (
	"context"
	"fmt"
	"os"

	"berth/container"
)

// Set by the linker.
var (
	version   = "dev"
	commit    = "unknown"
	buildTime = "unknown"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "log-helper" { // a container's supervisor asks
		os.Exit(container.LogHelper(os.Args[2], os.Stdin, os.Stdout))
	}
	o, err := parse(os.Args[1:])
	if err == nil && !o.done {
		err = run(context.Background(), o)
	}
	if err != nil {
		tell(err.Error())
		fmt.Fprintln(os.Stderr, "berthd:", err)
		os.Exit(1)
	}
}
