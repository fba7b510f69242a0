//go:build !pfring

package main

// capture_nopfring.go stands in for capture_pfring.go in a binary that was built without PF_RING.

// openPFRing says what the binary lacks. run asks pfringMissing first, so that it is a usage error.
func openPFRing(string, *liveOptions) (packetSource, error) { return nil, pfringMissing() }

// pfringMissing is the usage error for -pfring.
func pfringMissing() error {
	return &usageError{
		msg:  "this binary was built without PF_RING (-pfring)",
		hint: "install ntop's PF_RING with its libpfring, then build with: go build -tags pfring",
	}
}
