package main

// stats.go keeps the account: what became of every frame, message and lookup.
//
// In: the counters of the capture goroutine and of each worker, copied as of the end of a chunk.
// Out: totals for the summary, and the equations that they must satisfy.
//
// Rules: counters are plain fields of the goroutine that counts; they travel with the chunk, so nobody reads a counter
// that another goroutine writes, and a reader of the account sees all of them as of the same chunk.

import (
	"fmt"
	"io"
	"math/bits"
	"reflect"
	"sync"
)

// latencyBuckets are powers of two of µs: bucket i counts lookups that took less than 2^i µs, the last all others.
const latencyBuckets = 28

func latencyBucket(ns int64) int {
	return min(bits.Len64(uint64(ns)/1000), latencyBuckets-1)
}

// workerCounters is one worker's part of the account. Counts are of messages (legs) unless the name says otherwise.
type workerCounters struct {
	udpSegments, tcpSegments uint64
	udpMessages, tcpMessages uint64
	malformed                [len(malformedNames)]uint64
	broken                   [len(brokenNames)]uint64 // messages whose RRs break off, by section; they count as good
	cutMessages              uint64                   // messages that the snaplen cut
	queries, responses       uint64

	matched           uint64 // lookups: a query and its response
	continued         uint64 // further responses of a zone transfer
	repeats           uint64 // queries that were another attempt of a pending lookup
	reordered         uint64 // lookups whose response was seen first (they are matched, too)
	duplicates        uint64 // responses to a lookup that was answered already
	unanswered        uint64 // lookups
	unansweredQueries uint64 // their queries
	unsolicited       uint64
	waitedShort       uint64 // unsolicited responses written before their time, because a bound was reached
	evicted           uint64 // lookups given up because the table was full
	evictedQueries    uint64
	forgotten         uint64 // answered lookups that a bound made forget: a second response would count as unsolicited

	status  [statusCount]uint64 // lookups written or counted, by status
	records uint64

	latency    [latencyBuckets]uint64
	latencySum uint64 // ns

	tcp tcpCounters

	// gauges
	pending, waiting     uint64
	tcpStreams, tcpBytes uint64
}

// account is the sum of all counters as of the last chunk that was written. Safe for several goroutines.
type account struct {
	mu      sync.Mutex
	capture captureCounters
	workers []workerCounters
	staged  []workerCounters // of the output goroutine
	chunks  uint64           // written so far
}

func newAccount(workers int) *account {
	return &account{workers: make([]workerCounters, workers), staged: make([]workerCounters, workers)}
}

// stage takes a worker's counters as of the end of a chunk. Called by the output goroutine.
func (a *account) stage(id int, c *workerCounters) { a.staged[id] = *c }

// update publishes the staged counters and the chunk's own. Called by the output goroutine.
func (a *account) update(c *chunk) {
	a.mu.Lock()
	a.capture = c.stats
	copy(a.workers, a.staged)
	a.chunks++
	a.mu.Unlock()
}

// progress returns a number that changes with every chunk that has gone through the pipeline.
func (a *account) progress() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.chunks
}

// totals returns the capture counters and the sum of the workers'.
func (a *account) totals() (captureCounters, workerCounters) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var t workerCounters
	for i := range a.workers {
		t.add(&a.workers[i])
	}
	return a.capture, t
}

// add sums every counter of o into c. It walks the fields by reflection, since a counter that somebody forgets to sum
// is worse than the microseconds; nobody sums on the hot path.
func (c *workerCounters) add(o *workerCounters) {
	addFields(reflect.ValueOf(c).Elem(), reflect.ValueOf(o).Elem())
}

func addFields(to, from reflect.Value) {
	switch to.Kind() {
	case reflect.Uint64:
		*(*uint64)(to.Addr().UnsafePointer()) += from.Uint()
	case reflect.Struct:
		for i := range to.NumField() {
			addFields(to.Field(i), from.Field(i))
		}
	case reflect.Array:
		for i := range to.Len() {
			addFields(to.Index(i), from.Index(i))
		}
	default:
		panic("BUG: a counter that is no uint64")
	}
}

// summary writes what a run did, in a few lines, as tcpdump does at its end.
func (a *account) summary(w io.Writer, sinks []sinkStats) {
	c, t := a.totals()
	fmt.Fprintf(w, "%d packets read, %d DNS messages (%d UDP, %d TCP), %d lookups, %d records\n",
		c.frames, t.udpMessages+t.tcpMessages, t.udpMessages, t.tcpMessages, t.matched+t.unanswered+t.unsolicited, t.records)
	if k := c.kernel; k.received > 0 {
		fmt.Fprintf(w, "kernel: %d packets passed the filter, %d dropped, %d dropped by the interface\n", k.received, k.dropped, k.ifDropped)
	}
	list(w, "lookups", func(item func(string, uint64)) {
		for s := 1; s < statusCount; s++ {
			item(statusNames[s], t.status[s])
		}
	})
	list(w, "not DNS", func(item func(string, uint64)) {
		for v := verdictFiltered; v < verdictCount; v++ {
			item(verdictNames[v], c.verdicts[v])
		}
	})
	list(w, "lost or odd", func(item func(string, uint64)) {
		item("kernel_dropped", c.kernel.dropped)
		item("interface_dropped", c.kernel.ifDropped)
		item("device_errors", c.deviceErrors)
		item("cut_packets", c.cut)
		fragLosses(&c.frag, item)
		for i, n := range t.malformed {
			if i != int(malformedNone) {
				item("malformed_"+malformedNames[i], n)
			}
		}
		for i, n := range t.broken {
			if i != int(brokenNone) {
				item("broken_"+brokenNames[i], n)
			}
		}
		tcpLosses(&t.tcp, item)
		item("repeated_queries", t.repeats)
		item("duplicate_responses", t.duplicates)
		item("evicted_lookups", t.evicted)
		item("early_unsolicited", t.waitedShort)
		item("forgotten_lookups", t.forgotten)
	})
	for _, s := range sinks {
		if s.dropped+s.failed+s.resent > 0 {
			fmt.Fprintf(w, "sink %s: %d written, %d dropped, %d failed, %d sent again\n", s.name, s.written, s.dropped, s.failed, s.resent)
		}
	}
}

// list writes one line of the items that are not zero, or nothing.
func list(w io.Writer, title string, each func(item func(name string, n uint64))) {
	sep := title + ": "
	any := false
	each(func(name string, n uint64) {
		if n != 0 {
			fmt.Fprintf(w, "%s%d %s", sep, n, name)
			sep, any = ", ", true
		}
	})
	if any {
		fmt.Fprintln(w)
	}
}

// fragLosses names what the defragmenter gave up, in fragments.
func fragLosses(c *fragCounters, item func(string, uint64)) {
	item("fragments_malformed", c.malformed)
	item("fragments_cut", c.cut)
	item("fragments_overlapping", c.overlapFragments)
	item("fragments_expired", c.expiredFragments)
	item("fragments_incomplete", c.incompleteFragments)
	item("fragments_ignored", c.ignored)
	item("fragments_duplicate", c.duplicates)
	item("fragments_over_train_bound", c.trainBoundFragments)
	item("fragments_over_byte_bound", c.byteBoundFragments)
	item("fragments_over_piece_bound", c.pieceBoundFragments)
}

// tcpLosses names what the TCP streams lost, or what was odd about them.
func tcpLosses(c *tcpCounters, item func(string, uint64)) {
	item("tcp_malformed_segments", c.malformed)
	item("tcp_holes", c.holes)
	item("tcp_hole_bytes", c.holeBytes)
	item("tcp_messages_broken", c.messagesBroken)
	item("tcp_messages_incomplete", c.partialsDropped)
	item("tcp_messages_short", c.messagesShort)
	item("tcp_messages_unreadable", c.messagesUnreadable)
	item("tcp_not_dns_streams", c.givenUp)
	item("tcp_not_dns_bytes", c.junkBytes)
	item("tcp_joined_midstream", c.midstream)
	item("tcp_streams_evicted", c.evicted)
	item("tcp_bare_streams_evicted", c.evictedBare)
	item("tcp_stream_bound", c.boundStream)
	item("tcp_total_bound", c.boundTotal)
	item("tcp_bytes_over_bound", c.boundBytes)
}
