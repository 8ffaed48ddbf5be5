// Command berth-oci is an OCI runtime on its own, and the supervisor of berth's containers.
package main

import (
	"fmt"
	"os"

	"berth/oci"
)

func main() {
	oci.InitMain()
	fmt.Fprintln(os.Stderr, "berth-oci: usage: berth-oci COMMAND")
	os.Exit(1)
}
