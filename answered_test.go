package main

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestAnsweredSet: what was added is known for two seconds, before and after, and then forgotten.
func TestAnsweredSet(t *testing.T) {
	const s = int64(time.Second)
	set := newAnsweredSet(1 << 20)
	r := rand.New(rand.NewPCG(1, 2))
	const n = 50000
	prints := make([]uint64, n)
	for i := range prints {
		prints[i] = r.Uint64()
		set.add(prints[i], 100*s)
	}
	for _, tt := range []struct {
		ts   int64
		want bool
	}{{100 * s, true}, {101 * s, true}, {102*s - 2e6, true}, {102*s + 2e6, false}, {98*s + 2e6, true}, {98*s - 2e6, false}} {
		for i, p := range prints {
			if got := set.has(p, tt.ts); got != tt.want {
				t.Fatalf("at %d ms, %d: known %v, want %v", (tt.ts-100*s)/1e6, i, got, tt.want)
			}
		}
	}
	for range n {
		if set.has(r.Uint64(), 100*s) {
			t.Fatal("what was never added is known")
		}
	}
	if set.forgotten != 0 {
		t.Errorf("%d forgotten", set.forgotten)
	}
}

// TestAnsweredSetTurns: entries outlive at least two seconds of ticks; memory shrinks after a rush.
func TestAnsweredSetTurns(t *testing.T) {
	const s = int64(time.Second)
	set := newAnsweredSet(1 << 20)
	for sec := range int64(30) {
		set.tick(sec * s)
		for i := range uint64(3000) {
			p := uint64(sec)<<32 | i | 1
			set.add(p*0x9e3779b97f4a7c15, sec*s+int64(i))
		}
		for back := range min(sec, 2) {
			p := uint64(sec-back)<<32 | 1234 | 1
			if !set.has(p*0x9e3779b97f4a7c15, sec*s+1e6) {
				t.Fatalf("second %d: what was answered %d s ago is not known", sec, back)
			}
		}
	}
	if n := len(set.young.slots) + len(set.old.slots); n > 1<<16 {
		t.Errorf("%d slots for 3000 a second", n)
	}
	for sec := int64(30); sec < 60; sec++ {
		set.tick(sec * s)
	}
	if n := len(set.young.slots) + len(set.old.slots); n > 4*answeredMin {
		t.Errorf("%d slots after half a minute of silence", n)
	}
}

// TestAnsweredSetBound: beyond its bound it forgets, and counts what.
func TestAnsweredSetBound(t *testing.T) {
	set := newAnsweredSet(2000)
	r := rand.New(rand.NewPCG(1, 2))
	for range 10000 {
		set.add(r.Uint64(), 0)
	}
	set.enter()
	if set.young.n != 2000 || set.forgotten != 8000 {
		t.Errorf("%d known, %d forgotten, want 2000 and 8000", set.young.n, set.forgotten)
	}
}
