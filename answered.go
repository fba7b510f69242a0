package main

// answered.go remembers which lookups were answered a moment ago, so that a second response is known as a duplicate.
//
// In: the fingerprint of a lookup (its key and question under a keyed hash) and the time of its response.
// Out: whether that lookup was answered within rememberNs.
//
// Rules: one set for each worker. Keeping the lookups themselves in the connection table for that long made it ten times as
// large and cost three cache misses a lookup; here it is one write. A bucket is a cache line of four slots; a slot
// whose time is over is free, so nothing is ever deleted. When a bucket is full of live ones the set doubles, up to its
// bound; beyond that the oldest of the bucket is forgotten, and counted. Two lookups with the same 64-bit fingerprint within
// two seconds would be mistaken for each other: at a million a second, once in about 150,000 years.

import "time"

const (
	rememberNs     = int64(2 * time.Second)
	answeredBucket = 4
	answeredMin    = 1024 // slots
)

type answeredSlot struct {
	print uint64 // 0 = never used
	done  int64  // time of the response, ns
}

// answeredSet is a hash set of fingerprints. It never shrinks. Zero value: not usable, see newAnsweredSet.
type answeredSet struct {
	slots     []answeredSlot // a power of two
	max       int
	forgotten uint64
}

// newAnsweredSet makes a set of at most max slots, rounded up to a power of two.
func newAnsweredSet(max int) *answeredSet {
	return &answeredSet{slots: make([]answeredSlot, answeredMin), max: max}
}

// bucket returns the slots where print belongs.
func (s *answeredSet) bucket(print uint64) []answeredSlot {
	i := int(print>>32) & (len(s.slots) - 1) &^ (answeredBucket - 1)
	return s.slots[i : i+answeredBucket : i+answeredBucket]
}

// add remembers that print was answered at ts.
func (s *answeredSet) add(print uint64, ts int64) {
	print |= 1
	for {
		b := s.bucket(print)
		oldest := 0
		for i := range b {
			if b[i].print == print || b[i].print == 0 || distance(ts, b[i].done) > rememberNs {
				b[i] = answeredSlot{print, ts}
				return
			}
			if b[i].done < b[oldest].done {
				oldest = i
			}
		}
		if len(s.slots) >= s.max {
			s.forgotten++
			b[oldest] = answeredSlot{print, ts}
			return
		}
		s.grow(ts)
	}
}

// has says whether print was answered within rememberNs before or after ts.
func (s *answeredSet) has(print uint64, ts int64) bool {
	print |= 1
	for _, x := range s.bucket(print) {
		if x.print == print && distance(ts, x.done) <= rememberNs {
			return true
		}
	}
	return false
}

// grow doubles the set, leaving out what is over at packet time now. Each bucket splits into two, so nothing has to give
// way.
func (s *answeredSet) grow(now int64) {
	old := s.slots
	s.slots = make([]answeredSlot, 2*len(old))
	for _, x := range old {
		if x.print == 0 || distance(now, x.done) > rememberNs {
			continue
		}
		b := s.bucket(x.print)
		for i := range b {
			if b[i].print == 0 {
				b[i] = x
				break
			}
		}
	}
}
