package engine

// Signals that the engine itself sends.
const (
	sigKill = 9
	sigTerm = 15
)
