package shim

// Main is the supervisor's own program. A main function calls it with what follows its "shim" argument,
// after oci.InitMain, and ends with the code that it returns.
func Main(args []string) int { return 1 }
