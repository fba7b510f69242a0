package main

// answered.go remembers which lookups were answered a moment ago, so that a second response is known as a duplicate.
//
// In: the fingerprint of a lookup (its key and question under a keyed hash) and the time of its response.
// Out: whether that lookup was answered within rememberNs.
//
// Rules: one set for each worker. Keeping the lookups themselves in the connection table for that long made it ten times as
// large and cost three cache misses a lookup. The set is two generations of a plain hash table: new fingerprints go
// into one, and when it has collected for rememberNs (at a tick, so for all workers at the same packet) it becomes the old
// one and the old one is emptied; nothing is deleted singly. Beyond its bound it remembers no more until the next turn,
// and counts that. Two lookups with the same 64-bit fingerprint within two seconds would be mistaken for each other: at a
// million a second, once in about 150,000 years.

import "time"

const (
	rememberNs  = int64(2 * time.Second)
	answeredMin = 1024 // slots of an empty generation; a power of two
)

type answeredSlot struct {
	print uint64 // 0 = free
	done  int64  // time of the response, ns
}

// answeredTable is one generation: open addressing with linear probing, at most half full.
type answeredTable struct {
	slots []answeredSlot
	n     int
}

// find returns the slot of print, or the free slot where it belongs.
func (t *answeredTable) find(print uint64) *answeredSlot {
	mask := uint64(len(t.slots) - 1)
	for i := print >> 32 & mask; ; i = (i + 1) & mask {
		if s := &t.slots[i]; s.print == print || s.print == 0 {
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

	// fresh collects fingerprints that are entered together: a table is larger than the cache, and misses that wait for
	// nothing overlap where single ones each cost their full time (90 to 20 ns an entry).
	fresh  [32]answeredSlot
	nFresh int
}

// newAnsweredSet makes a set of at most 2·max fingerprints.
func newAnsweredSet(max int) *answeredSet {
	s := &answeredSet{max: max}
	s.young.slots = make([]answeredSlot, answeredMin)
	s.old.slots = make([]answeredSlot, answeredMin)
	return s
}

// add remembers that print was answered at ts.
func (s *answeredSet) add(print uint64, ts int64) {
	s.fresh[s.nFresh] = answeredSlot{print | 1, ts}
	if s.nFresh++; s.nFresh == len(s.fresh) {
		s.enter()
	}
}

// enter puts what is fresh into the young generation.
func (s *answeredSet) enter() {
	t := &s.young
	for i := range s.fresh[:s.nFresh] {
		x := &s.fresh[i]
		slot := t.find(x.print)
		if slot.print == 0 {
			if t.n >= s.max {
				s.forgotten++
				continue
			}
			t.n++
		}
		*slot = *x
	}
	s.nFresh = 0
	if 2*(t.n+len(s.fresh)) > len(t.slots) {
		old := t.slots
		t.slots = make([]answeredSlot, 2*len(old))
		for _, x := range old {
			if x.print != 0 {
				*t.find(x.print) = x
			}
		}
	}
}

// has says whether print was answered within rememberNs before or after ts.
func (s *answeredSet) has(print uint64, ts int64) bool {
	s.enter()
	print |= 1
	for _, t := range [2]*answeredTable{&s.young, &s.old} {
		if x := t.find(print); x.print != 0 && distance(ts, x.done) <= rememberNs {
			return true
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
		s.young.slots = make([]answeredSlot, max(answeredMin, n/2)) // the rush is over
	} else {
		clear(s.young.slots)
	}
	s.young.n = 0
}
