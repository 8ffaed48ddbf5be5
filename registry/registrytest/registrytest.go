// Package registrytest is a small registry for tests: it takes pushes and gives
// pulls by the distribution protocol, with faults on demand.
//
// It is not a product: content lives in memory. Invariant: without faults it answers as the
// distribution specification (v1.1) says, so that other people's clients work against it.
package registrytest
