// Command berth-dns answers the questions of all containers of an engine for names. The daemon starts it, and it outlives
// the daemon; nobody else has a use for it.
package main

import (
	"os"

	"berth/network/dns"
)

func main() { os.Exit(dns.Main()) }
