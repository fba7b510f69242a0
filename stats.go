package main

// stats.go keeps the account: what became of every frame, message and lookup.
//
// In: the counters of the capture goroutine, of each worker and of the output goroutine, copied as of the end of a chunk.
// Out: snapshots for the summary, SIGUSR1, status records, statsd and Prometheus; the table of all counters, by which
// all of these name and read them; and the equations that every snapshot must satisfy.
//
// Rules: counters are plain fields of the goroutine that counts; they travel with the chunk, so nobody reads a counter
// that another goroutine writes, and a reader of the account sees all of them as of the same chunk. Only the sinks are
// read as they stand, since a sink that hangs must be seen to. A counter that is in no row of counterTable fails a test.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"os"
	"os/signal"
	"reflect"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
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
	edeCut                   uint64                   // messages with more Extended DNS Errors than a record holds
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
	tcpStreams, tcpBytes uint64 // connections and bytes of buffers held
	tcpPayload           uint64 // captured payload bytes that are neither delivered nor given up yet
}

// outputCounters is the output goroutine's part of the account, in records.
type outputCounters struct {
	merged    uint64 // lines taken out of the workers' parts
	status    uint64 // status records added
	submitted uint64 // given to every sink
	batched   uint64 // gauge: in the batch that is being filled
}

// snapshot is the account at one moment: everything but the sinks as of the same chunk.
type snapshot struct {
	capture captureCounters
	work    workerCounters // the sum over all workers
	out     outputCounters
	sinks   []sinkStats
	chunks  uint64    // chunks accounted for
	at      time.Time // when the last of them was; zero before the first
	// settled says that the sinks, too, are as of that chunk: the output goroutine took the snapshot, or it has ended.
	settled bool
	ended   bool // the output goroutine has ended: nothing changes any more but the sinks' queues
}

// account is the sum of all counters as of the last chunk that was written. Safe for several goroutines.
type account struct {
	queues []*sinkQueue

	mu      sync.Mutex
	capture captureCounters
	workers []workerCounters
	out     outputCounters
	chunks  uint64
	at      time.Time
	ended   bool
	staged  []workerCounters // of the output goroutine

	// audit is called by the output goroutine with the snapshot of every chunk; nil but in tests.
	audit func(*snapshot)
}

func newAccount(workers int, queues []*sinkQueue) *account {
	return &account{queues: queues, workers: make([]workerCounters, workers), staged: make([]workerCounters, workers)}
}

// stage takes a worker's counters as of the end of a chunk. Called by the output goroutine.
func (a *account) stage(id int, c *workerCounters) { a.staged[id] = *c }

// update publishes the staged counters, the chunk's own and those of the output goroutine, which calls it.
func (a *account) update(c *chunk, out outputCounters) {
	now := time.Now()
	a.mu.Lock()
	a.capture = c.stats
	copy(a.workers, a.staged)
	a.out = out
	a.chunks++
	a.at = now
	a.mu.Unlock()
	if a.audit != nil {
		s := a.snapshot()
		s.settled = true
		a.audit(s)
	}
}

// end publishes the last counters of the output goroutine, which calls it when it has submitted everything.
func (a *account) end(out outputCounters) {
	a.mu.Lock()
	a.out, a.ended = out, true
	a.mu.Unlock()
}

// progress returns a number that changes with every chunk that has gone through the pipeline.
func (a *account) progress() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.chunks
}

// snapshot returns the account as it stands. It belongs to the caller.
func (a *account) snapshot() *snapshot {
	s := new(snapshot)
	a.mu.Lock()
	s.capture, s.out, s.chunks, s.at, s.settled, s.ended = a.capture, a.out, a.chunks, a.at, a.ended, a.ended
	for i := range a.workers {
		s.work.add(&a.workers[i])
	}
	a.mu.Unlock()
	for _, q := range a.queues {
		s.sinks = append(s.sinks, q.stats())
	}
	return s
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

// equation is one balance of the account: left and right must be equal.
type equation struct {
	name        string
	left, right uint64
}

// equations returns every balance that holds in each snapshot.
func (s *snapshot) equations() []equation {
	c, w, f, t := &s.capture, &s.work, &s.capture.frag, &s.work.tcp
	eqs := []equation{
		{"packets = sum over what became of them", c.frames, sum(c.verdicts[:])},
		{"fragments taken = packets held or dropped as fragments + datagrams made whole",
			f.fragments, c.verdicts[verdictFragment] + f.reassembled},
		{"fragments taken = used + lost by reason + held", f.fragments,
			f.used + f.duplicates + f.ignored + f.malformed + f.cut + f.overlapFragments + f.expiredFragments + f.incompleteFragments +
				f.trainBoundFragments + f.byteBoundFragments + f.pieceBoundFragments + f.heldFragments},
		{"UDP segments found = UDP segments worked on", c.verdicts[verdictUDP], w.udpSegments},
		{"TCP segments found = TCP segments worked on", c.verdicts[verdictTCP], w.tcpSegments},
		{"UDP segments = UDP messages", w.udpSegments, w.udpMessages},
		{"TCP segments = segments taken by streams", w.tcpSegments, t.segments},
		{"TCP payload bytes = of messages + passed over or lost by reason + held", t.payloadBytes,
			t.messageBytes + t.retransBytes + t.skippedBytes + t.searchBytes + t.partialBytes + t.junkBytes + t.afterEndBytes + t.boundBytes + w.tcpPayload},
		{"TCP messages framed = TCP messages", t.messages, w.tcpMessages},
		{"messages = queries + responses + malformed by reason", w.udpMessages + w.tcpMessages, w.queries + w.responses + sum(w.malformed[:])},
		{"queries = matched + repeated + unanswered + evicted + pending", w.queries,
			w.matched + w.repeats + w.unanswered + w.evicted + w.pending},
		{"responses = matched + continued + duplicate + unsolicited + waiting", w.responses,
			w.matched + w.continued + w.duplicates + w.unsolicited + w.waiting},
		{"lookups and continued transfers = sum over their statuses", w.matched + w.continued + w.unanswered + w.unsolicited, sum(w.status[:])},
		{"matched lookups = sum over latencies", w.matched, sum(w.latency[:])},
		{"records made = records merged", w.records, s.out.merged},
		{"records merged + status records = submitted + in the batch", s.out.merged + s.out.status, s.out.submitted + s.out.batched},
	}
	// The kernel's counters are read every few seconds, and for the last time when the devices are closed. A device that
	// vanished has taken its last ones with it. What the kernel has beyond is packets captured after the end was called.
	if k := &c.kernel; s.ended && k.received > 0 && c.deviceErrors == 0 {
		seen := c.frames + k.dropped
		eqs = append(eqs, equation{"packets + packets dropped by the kernel = at most those it received", seen, min(seen, k.received)})
	}
	for _, q := range s.sinks {
		if s.settled {
			eqs = append(eqs, equation{"records submitted = taken by " + q.name, s.out.submitted, q.submitted})
		}
		eqs = append(eqs, equation{"records of " + q.name + " = written + dropped + failed + queued",
			q.submitted, q.written + q.dropped + q.failed + q.queuedRecords})
	}
	return eqs
}

// check returns an error that names every equation which does not hold; nil where all do.
func (s *snapshot) check() error {
	var errs []error
	for _, e := range s.equations() {
		if e.left != e.right {
			errs = append(errs, fmt.Errorf("the account does not add up: %s: %d != %d", e.name, e.left, e.right))
		}
	}
	return errors.Join(errs...)
}

func sum(counts []uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// counter is one number of the account, under the name that status records, statsd and SIGUSR1's table give it, and
// its place in Prometheus.
type counter struct {
	name         string // snake_case, unique
	prom         string // metric without the prefix gopassivedns_; "" where it is the sum of another metric's values
	label, value string // of the metric; "" for none
	gauge        bool
	odd          bool // a loss, or something odd: the summary names it
	chance       bool // depends on the random keys of the hashes: no part of status records, which are the same in every run
	help         string
	get          func(s *snapshot) uint64
}

// counterTable lists the account but for latencies and sinks, in the order in which a packet meets the counters.
var counterTable = makeCounterTable()

func makeCounterTable() []counter {
	var table []counter
	// family adds a counter for each name that is not "", labelled with it.
	family := func(prefix, prom, label, help string, odd bool, names []string, at func(s *snapshot, i int) uint64) {
		for i, name := range names {
			if name != "" {
				table = append(table, counter{name: prefix + name, prom: prom, label: label, value: name, help: help, odd: odd,
					get: func(s *snapshot) uint64 { return at(s, i) }})
			}
		}
	}
	count := func(name, prom, help string, get func(s *snapshot) uint64) {
		table = append(table, counter{name: name, prom: prom, help: help, get: get})
	}
	odd := func(name, prom, help string, get func(s *snapshot) uint64) {
		table = append(table, counter{name: name, prom: prom, help: help, odd: true, get: get})
	}
	gauge := func(name, help string, get func(s *snapshot) uint64) {
		table = append(table, counter{name: name, prom: name, help: help, gauge: true, get: get})
	}

	count("packets", "", "Packets captured or read.", func(s *snapshot) uint64 { return s.capture.frames })
	count("packet_bytes", "packet_bytes_total", "Bytes of packets, as captured.", func(s *snapshot) uint64 { return s.capture.frameBytes })
	verdicts := verdictNames
	verdicts[verdictSlow] = "" // nothing ends as it
	family("packets_", "packets_total", "result", "Packets by what became of them: udp and tcp are segments for the workers, fragment is one that waits for others or was dropped.", false,
		verdicts[:], func(s *snapshot, i int) uint64 { return s.capture.verdicts[i] })
	odd("packets_cut", "cut_packets_total", "Packets that the snaplen cut.", func(s *snapshot) uint64 { return s.capture.cut })
	count("segments_tunnelled", "tunnelled_segments_total", "Segments found inside an encapsulation.", func(s *snapshot) uint64 { return s.capture.tunnelled })
	count("segments_reassembled", "reassembled_segments_total", "Segments made whole out of IP fragments.", func(s *snapshot) uint64 { return s.capture.reassembled })
	count("kernel_received", "kernel_received_packets_total", "Packets that the kernel counted for a live capture, those it dropped included.", func(s *snapshot) uint64 { return s.capture.kernel.received })
	odd("kernel_dropped", "kernel_dropped_packets_total", "Packets that the kernel dropped because its buffer was full.", func(s *snapshot) uint64 { return s.capture.kernel.dropped })
	odd("interface_dropped", "interface_dropped_packets_total", "Packets that the network interface or its driver dropped.", func(s *snapshot) uint64 { return s.capture.kernel.ifDropped })

	odd("device_errors", "device_errors_total", "Failures of network devices: each that ended a capture, and each attempt to open the device again.", func(s *snapshot) uint64 { return s.capture.deviceErrors })

	count("fragments", "", "IP fragments taken.", func(s *snapshot) uint64 { return s.capture.frag.fragments })
	count("fragments_used", "used_fragments_total", "IP fragments that went into a whole datagram.", func(s *snapshot) uint64 { return s.capture.frag.used })
	family("fragments_", "lost_fragments_total", "reason", "IP fragments dropped, by reason.", true,
		[]string{"duplicate", "ignored", "malformed", "cut", "overlapping", "expired", "incomplete", "over_train_bound", "over_byte_bound", "over_piece_bound"},
		func(s *snapshot, i int) uint64 {
			f := &s.capture.frag
			return [...]uint64{f.duplicates, f.ignored, f.malformed, f.cut, f.overlapFragments, f.expiredFragments, f.incompleteFragments,
				f.trainBoundFragments, f.byteBoundFragments, f.pieceBoundFragments}[i]
		})
	count("fragments_same_overlap", "same_overlap_fragments_total", "IPv4 fragments that overlap others with the same bytes, and were used.", func(s *snapshot) uint64 { return s.capture.frag.sameOverlaps })
	count("datagrams_reassembled", "reassembled_datagrams_total", "IP datagrams made whole out of fragments.", func(s *snapshot) uint64 { return s.capture.frag.reassembled })
	count("datagrams_atomic", "atomic_fragments_total", "IPv6 fragments that were whole datagrams.", func(s *snapshot) uint64 { return s.capture.frag.atomic })
	family("datagrams_", "lost_datagrams_total", "reason", "IP datagrams in fragments that were given up, by reason.", false,
		[]string{"malformed", "overlapping", "expired", "incomplete", "over_train_bound", "over_byte_bound", "over_piece_bound"},
		func(s *snapshot, i int) uint64 {
			f := &s.capture.frag
			return [...]uint64{f.malformedTrains, f.overlapTrains, f.expiredTrains, f.incompleteTrains, f.trainBoundTrains, f.byteBoundTrains, f.pieceBoundTrains}[i]
		})
	gauge("fragments_held", "IP fragments that wait for others.", func(s *snapshot) uint64 { return s.capture.frag.heldFragments })
	gauge("fragment_trains", "IP datagrams that are incomplete.", func(s *snapshot) uint64 { return s.capture.frag.heldTrains })
	gauge("fragment_buffer_bytes", "Bytes of memory that hold IP fragments.", func(s *snapshot) uint64 { return s.capture.frag.heldBytes })

	transports := []string{"udp", "tcp"}
	family("segments_", "segments_total", "transport", "Segments that the workers took.", false, transports,
		func(s *snapshot, i int) uint64 { return [...]uint64{s.work.udpSegments, s.work.tcpSegments}[i] })
	family("messages_", "messages_total", "transport", "DNS messages, malformed ones included.", false, transports,
		func(s *snapshot, i int) uint64 { return [...]uint64{s.work.udpMessages, s.work.tcpMessages}[i] })
	reasons, places := malformedNames, brokenNames
	reasons[malformedNone], places[brokenNone] = "", ""
	family("malformed_", "malformed_total", "reason", "DNS messages that could not be read, by reason.", true, reasons[:],
		func(s *snapshot, i int) uint64 { return s.work.malformed[i] })
	family("broken_", "broken_messages_total", "section", "DNS messages whose RRs break off, by the section where they do; they count as good.", true, places[:],
		func(s *snapshot, i int) uint64 { return s.work.broken[i] })
	odd("messages_cut", "cut_messages_total", "DNS messages that the snaplen cut.", func(s *snapshot) uint64 { return s.work.cutMessages })
	odd("messages_ede_cut", "ede_cut_messages_total", "DNS messages with more Extended DNS Errors, or more text in them, than a record holds.", func(s *snapshot) uint64 { return s.work.edeCut })
	count("queries", "queries_total", "DNS queries.", func(s *snapshot) uint64 { return s.work.queries })
	count("responses", "responses_total", "DNS responses.", func(s *snapshot) uint64 { return s.work.responses })

	count("matched_lookups", "matched_lookups_total", "Lookups whose query and response were seen.", func(s *snapshot) uint64 { return s.work.matched })
	count("reordered_lookups", "reordered_lookups_total", "Of these, lookups whose response was captured first.", func(s *snapshot) uint64 { return s.work.reordered })
	count("continued_responses", "continued_responses_total", "Further responses of a zone transfer.", func(s *snapshot) uint64 { return s.work.continued })
	odd("repeated_queries", "repeated_queries_total", "Queries that were another attempt of a lookup without response yet.", func(s *snapshot) uint64 { return s.work.repeats })
	odd("duplicate_responses", "duplicate_responses_total", "Responses to a lookup that was answered already.", func(s *snapshot) uint64 { return s.work.duplicates })
	count("unanswered_lookups", "unanswered_lookups_total", "Lookups without response.", func(s *snapshot) uint64 { return s.work.unanswered })
	count("unanswered_queries", "unanswered_queries_total", "Queries of lookups without response.", func(s *snapshot) uint64 { return s.work.unansweredQueries })
	count("unsolicited_responses", "unsolicited_responses_total", "Responses without a query.", func(s *snapshot) uint64 { return s.work.unsolicited })
	odd("early_unsolicited", "early_unsolicited_responses_total", "Of these, responses that did not wait their time for a query, because a bound was reached.", func(s *snapshot) uint64 { return s.work.waitedShort })
	odd("evicted_lookups", "evicted_lookups_total", "Lookups given up because the table was full; they have no record.", func(s *snapshot) uint64 { return s.work.evicted })
	count("evicted_queries", "evicted_queries_total", "Queries of lookups given up.", func(s *snapshot) uint64 { return s.work.evictedQueries })
	table = append(table, counter{name: "forgotten_lookups", prom: "forgotten_lookups_total", odd: true, chance: true,
		help: "Answered lookups forgotten early, because a bound was reached: a second response counts as unsolicited.",
		get:  func(s *snapshot) uint64 { return s.work.forgotten }})
	family("lookups_", "lookups_total", "status", "Lookups by status; each further response of a zone transfer counts, too.", false, statusNames[:],
		func(s *snapshot, i int) uint64 { return s.work.status[i] })
	count("records", "records_total", "Records made.", func(s *snapshot) uint64 { return s.work.records })
	count("status_records", "status_records_total", "Status records made.", func(s *snapshot) uint64 { return s.out.status })
	gauge("pending_lookups", "Lookups that wait for their response.", func(s *snapshot) uint64 { return s.work.pending })
	gauge("waiting_responses", "Responses that wait for their query.", func(s *snapshot) uint64 { return s.work.waiting })

	count("tcp_payload_bytes", "", "Captured bytes of TCP payload.", func(s *snapshot) uint64 { return s.work.tcp.payloadBytes })
	family("tcp_bytes_", "tcp_payload_bytes_total", "result", "Captured bytes of TCP payload by what became of them.", false,
		[]string{"message", "repeated", "skipped", "searched", "partial", "not_dns", "after_end", "over_bound"},
		func(s *snapshot, i int) uint64 {
			t := &s.work.tcp
			return [...]uint64{t.messageBytes, t.retransBytes, t.skippedBytes, t.searchBytes, t.partialBytes, t.junkBytes, t.afterEndBytes, t.boundBytes}[i]
		})
	odd("tcp_malformed_segments", "tcp_malformed_segments_total", "TCP segments whose header is cut or contradicts itself.", func(s *snapshot) uint64 { return s.work.tcp.malformed })
	family("tcp_messages_", "tcp_lost_messages_total", "reason", "Messages in TCP that were begun and not delivered, by reason.", true,
		[]string{"broken", "incomplete", "short", "unreadable"},
		func(s *snapshot, i int) uint64 {
			t := &s.work.tcp
			return [...]uint64{t.messagesBroken, t.partialsDropped, t.messagesShort, t.messagesUnreadable}[i]
		})
	count("tcp_messages_cut", "tcp_cut_messages_total", "Messages in TCP that the snaplen cut.", func(s *snapshot) uint64 { return s.work.tcp.messagesCut })
	count("tcp_messages_empty", "tcp_empty_messages_total", "Length prefixes of 0 in TCP.", func(s *snapshot) uint64 { return s.work.tcp.messagesEmpty })
	count("tcp_out_of_order", "tcp_out_of_order_segments_total", "TCP segments that came before their turn.", func(s *snapshot) uint64 { return s.work.tcp.outOfOrder })
	odd("tcp_holes", "tcp_holes_total", "Holes in TCP streams: bytes that were not captured.", func(s *snapshot) uint64 { return s.work.tcp.holes })
	odd("tcp_hole_bytes", "tcp_hole_bytes_total", "Bytes of TCP streams that were not captured.", func(s *snapshot) uint64 { return s.work.tcp.holeBytes })
	count("tcp_resyncs", "tcp_resyncs_total", "Message boundaries found again in TCP streams.", func(s *snapshot) uint64 { return s.work.tcp.resyncs })
	count("tcp_jumps", "tcp_jumps_total", "Directions of TCP streams whose sequence numbers jumped.", func(s *snapshot) uint64 { return s.work.tcp.jumps })
	count("tcp_rst_ignored", "tcp_ignored_resets_total", "TCP resets far outside of the window.", func(s *snapshot) uint64 { return s.work.tcp.rstIgnored })
	count("tcp_streams_opened", "tcp_opened_streams_total", "TCP connections opened.", func(s *snapshot) uint64 { return s.work.tcp.streams })
	odd("tcp_joined_midstream", "tcp_joined_midstream_total", "Directions of TCP streams whose beginning was not seen.", func(s *snapshot) uint64 { return s.work.tcp.midstream })
	family("tcp_closed_", "tcp_closed_streams_total", "reason", "TCP connections closed, by reason; evicted are those given up because the table was full.", false,
		[]string{"fin", "rst", "idle", "reuse", "end_of_input", "evicted", "evicted_bare"},
		func(s *snapshot, i int) uint64 {
			t := &s.work.tcp
			return [...]uint64{t.closedFIN, t.closedRST, t.closedIdle, t.closedReuse, t.closedEnd, t.evicted, t.evictedBare}[i]
		})
	odd("tcp_not_dns_streams", "tcp_not_dns_streams_total", "Directions of TCP streams that carry no DNS.", func(s *snapshot) uint64 { return s.work.tcp.givenUp })
	family("tcp_bound_", "tcp_bound_reached_total", "bound", "How often TCP streams gave up what they held because a bound was reached: of one stream, or of all.", true,
		[]string{"stream", "total"},
		func(s *snapshot, i int) uint64 { return [...]uint64{s.work.tcp.boundStream, s.work.tcp.boundTotal}[i] })
	gauge("tcp_streams", "TCP connections held, closed ones that are remembered included.", func(s *snapshot) uint64 { return s.work.tcpStreams })
	gauge("tcp_buffer_bytes", "Bytes of memory that hold parts of TCP streams.", func(s *snapshot) uint64 { return s.work.tcpBytes })
	gauge("tcp_held_bytes", "Captured bytes of TCP payload that are neither delivered nor given up yet.", func(s *snapshot) uint64 { return s.work.tcpPayload })
	return table
}

// summary writes what a run did, in a few lines, as tcpdump does at its end.
func (s *snapshot) summary(w io.Writer) {
	c, t := &s.capture, &s.work
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
		for i := range counterTable {
			if m := &counterTable[i]; m.odd {
				item(m.name, m.get(s))
			}
		}
	})
	for _, q := range s.sinks {
		if q.dropped+q.failed+q.resent > 0 {
			fmt.Fprintf(w, "sink %s: %d written, %d dropped, %d failed, %d sent again\n", q.name, q.written, q.dropped, q.failed, q.resent)
		}
	}
	if err := s.check(); err != nil {
		fmt.Fprintln(w, err)
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

// report writes the account as SIGUSR1 asks for it: every number that is not zero, then whether it adds up.
func (s *snapshot) report(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, n uint64) {
		if n != 0 {
			fmt.Fprintf(tw, "%d\t  %s\n", n, name)
		}
	}
	for i := range counterTable {
		row(counterTable[i].name, counterTable[i].get(s))
	}
	for _, q := range s.sinks {
		q.each(func(name string, n uint64, _ bool) { row("sink_"+statsdName(q.name)+"_"+name, n) })
	}
	tw.Flush()
	eqs := s.equations()
	wrong := 0
	for _, e := range eqs {
		if e.left != e.right {
			fmt.Fprintf(w, "does not add up: %s: %d != %d\n", e.name, e.left, e.right)
			wrong++
		}
	}
	if wrong == 0 {
		fmt.Fprintf(w, "all %d equations of the account hold\n", len(eqs))
	}
}

// each calls f for every number of a sink's account.
func (s *sinkStats) each(f func(name string, n uint64, gauge bool)) {
	f("submitted", s.submitted, false)
	f("written", s.written, false)
	f("dropped", s.dropped, false)
	f("failed", s.failed, false)
	f("resent", s.resent, false)
	f("errors", s.errors, false)
	f("queued_records", s.queuedRecords, true)
	f("queued_bytes", s.queuedBytes, true)
}

// monitors is what reads the account while the program runs: SIGUSR1, statsd and Prometheus.
type monitors struct {
	usr1     chan os.Signal
	statsd   *statsdReporter // nil without -statsd_host
	interval time.Duration
	listener net.Listener // nil without -metrics_addr
	server   *metricsServer
	end      chan struct{}
	wg       sync.WaitGroup
}

// openMonitors opens what cfg asks for, and takes SIGUSR1 from now on.
func openMonitors(cfg *config) (*monitors, error) {
	m := &monitors{usr1: make(chan os.Signal, 1), interval: cfg.statsdInterval, end: make(chan struct{})}
	var err error
	if cfg.metricsAddr != "" {
		if m.listener, err = listenMetrics(cfg.metricsAddr); err != nil {
			return nil, err
		}
	}
	if cfg.statsdHost != "" {
		if m.statsd, err = dialStatsd(cfg.statsdHost, cfg.statsdPrefix, cfg.name); err != nil {
			if m.listener != nil {
				m.listener.Close()
			}
			return nil, err
		}
	}
	signal.Notify(m.usr1, syscall.SIGUSR1)
	return m, nil
}

// watch begins to read a. say gets the text that SIGUSR1 asks for. silence is as for metricsHandler.
func (m *monitors) watch(a *account, say func(text []byte), silence time.Duration) {
	m.wg.Go(func() {
		for {
			select {
			case <-m.usr1:
				var b bytes.Buffer
				a.snapshot().report(&b)
				say(b.Bytes())
			case <-m.end:
				return
			}
		}
	})
	if r := m.statsd; r != nil {
		m.wg.Go(func() { r.run(a, m.interval, m.end) })
		m.statsd = nil // the goroutine closes it
	}
	if m.listener != nil {
		m.server = serveMetrics(m.listener, a, silence)
		m.listener = nil // the server closes it
	}
}

// close sends statsd the last numbers, ends the server, and waits for both.
func (m *monitors) close() {
	signal.Stop(m.usr1)
	close(m.end)
	if m.server != nil {
		m.server.close()
	}
	if m.listener != nil {
		m.listener.Close()
	}
	if m.statsd != nil {
		m.statsd.client.Close()
	}
	m.wg.Wait()
}
