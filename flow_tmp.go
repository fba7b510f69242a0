package main

// flow is one direction of a transport flow as on the wire: sender first. IPv4 addresses are in IPv4-mapped form
// (::ffff:a.b.c.d) and v6 is false.
type flow struct {
	src, dst     [16]byte
	sport, dport uint16
	v6           bool
}
