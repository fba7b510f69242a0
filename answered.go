package main

// answered.go remembers which lookups were answered a moment ago, so that a second response is known as a duplicate.
//
// In: the fingerprint of a lookup (its key and question under a keyed hash) and the time of its response.
// Out: whether that lookup was answered within rememberNs, give or take a millisecond.
//
// Rules: one set for each worker. Keeping the lookups themselves in the connection table for that long would make it hold two
// seconds of traffic at 144 bytes each; here one is a single word. The set is two generations of a plain hash
// table: new fingerprints go into one, and when it has collected for rememberNs (at a tick, so for all workers at the
// same packet) it becomes the old one and the old one is emptied; nothing is deleted singly. Beyond its bound it remembers
// no more until the next turn, and counts that. Two lookups with the same 40 bits of fingerprint would be mistaken for each
// other if they also met in the table and in time: for a response that nobody asked for, once in about 10^12.

import "time"

const (
	rememberNs  = int64(2 * time.Second)
	answeredMin = 1024 // slots of an empty generation; a power of two

	// A slot is 40 bits of fingerprint above 24 bits of time in units of 2^20 ns, which wrap around after 17 s: a
	// generation lasts 2 or 3 s of packet time. 0 is a free slot.
	answeredTimeBits = 24
	answeredUnit     = 20
	answeredTimeMask = 1<<answeredTimeBits - 1
	answeredAge      = uint64(rememberNs >> answeredUnit)
)

// answeredTable is one generation: open addressing with linear probing, at most two thirds full.
type answeredTable struct {
	slots []uint64
	n     int
}

// find returns the slot of the fingerprint of x, or the free slot where it belongs.
func (t *answeredTable) find(x uint64) *uint64 {
	mask := uint64(len(t.slots) - 1)
	for i := x >> answeredTimeBits & mask; ; i = (i + 1) & mask {
		if s := &t.slots[i]; (*s^x)>>answeredTimeBits == 0 || *s == 0 {
			return s
		}
	}
}

// answeredSet is the set of both generations.
type answeredSet struct {
	young, old answeredTable
	began      int64 // packet time at which young became young
	started    bool
	max        int // fingerprints in a generation
	forgotten  uint64

	// fresh collects slots that are entered together: a table may be larger than the cache, and misses that wait for
	// nothing overlap where single ones each cost their full time.
	fresh  [32]uint64
	nFresh int
}

// newAnsweredSet makes a set of at most 2·max fingerprints.
func newAnsweredSet(max int) *answeredSet {
	s := &answeredSet{max: max}
	s.young.slots = make([]uint64, answeredMin)
	s.old.slots = make([]uint64, answeredMin)
	return s
}

// answeredSlot packs a fingerprint and a time. The bit that is set keeps it apart from a free slot.
func answeredSlot(print uint64, ts int64) uint64 {
	return (print|1)<<answeredTimeBits | uint64(ts)>>answeredUnit&answeredTimeMask
}

// add remembers that print was answered at ts.
func (s *answeredSet) add(print uint64, ts int64) {
	s.fresh[s.nFresh] = answeredSlot(print, ts)
	if s.nFresh++; s.nFresh == len(s.fresh) {
		s.enter()
	}
}

// enter puts what is fresh into the young generation.
func (s *answeredSet) enter() {
	t := &s.young
	for _, x := range s.fresh[:s.nFresh] {
		slot := t.find(x)
		if *slot == 0 {
			if t.n >= s.max {
				s.forgotten++
				continue
			}
			t.n++
		}
		*slot = x
	}
	s.nFresh = 0
	if 3*(t.n+len(s.fresh)) > 2*len(t.slots) {
		old := t.slots
		t.slots = make([]uint64, 2*len(old))
		for _, x := range old {
			if x != 0 {
				*t.find(x) = x
			}
		}
	}
}

// has says whether print was answered within rememberNs before or after ts.
func (s *answeredSet) has(print uint64, ts int64) bool {
	s.enter()
	x := answeredSlot(print, ts)
	for _, t := range [2]*answeredTable{&s.young, &s.old} {
		if y := *t.find(x); y != 0 {
			age := (x - y) & answeredTimeMask
			if age <= answeredAge || answeredTimeMask+1-age <= answeredAge {
				return true
			}
		}
	}
	return false
}

// tick turns the generations over when the young one has collected for rememberNs.
func (s *answeredSet) tick(now int64) {
	if s.started && distance(now, s.began) < rememberNs {
		return
	}
	s.enter()
	s.began, s.started = now, true
	s.young, s.old = s.old, s.young
	if n := len(s.young.slots); n > answeredMin && s.old.n < n/8 {
		s.young.slots = make([]uint64, max(answeredMin, n/2)) // the rush is over
	} else {
		clear(s.young.slots)
	}
	s.young.n = 0
}
