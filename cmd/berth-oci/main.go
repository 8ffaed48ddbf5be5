// Command berth-oci is an OCI runtime on its own, and the supervisor of berth's containers.
package main

import (
	"fmt"
	"os"

	"berth/oci"
	"berth/oci/shim"
)

func main() {
	oci.InitMain()
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		os.Exit(shim.Main(os.Args[2:]))
	}
	fmt.Fprintln(os.Stderr, "berth-oci: usage: berth-oci COMMAND")
	os.Exit(1)
}
