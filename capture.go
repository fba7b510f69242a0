package main

// capture.go turns frames into chunks of views for the workers.
//
// In: frames, one at a time, from capture_file.go, capture_live.go or capture_pfring.go.
// Out: chunks, each handed to every worker at once.
//
// Rules: one goroutine owns a feeder and everything in it. A chunk belongs to the capture goroutine until handOver,
// then to the workers, who only read its bytes, then to the output goroutine, which gives it back to the free list.
// The free list is bounded: when it is empty the capture goroutine waits, and that is the backpressure. All time is
// packet time. Every frame gets a sequence number and exactly one verdict; ticks (below) are cut into the sequence by
// packet time alone, so what workers do at a tick does not depend on how frames fell into chunks.

import (
	"sync/atomic"
	"time"
)

// Link types (https://www.tcpdump.org/linktypes.html; DLT where the two differ and files hold either).
const (
	linkNull     = 0
	linkEthernet = 1
	linkPPP      = 9
	linkRawDLT12 = 12
	linkRawDLT14 = 14
	linkPPPHDLC  = 50
	linkRaw      = 101
	linkLoop     = 108
	linkSLL      = 113
	linkPPPDir   = 204
	linkIPv4     = 228
	linkIPv6     = 229
	linkSLL2     = 276
)

const (
	// slabSize is the bytes of a chunk. Larger ones leave the cache before the workers read them, smaller ones spend more
	// on handing over: 256 KiB and 1 MiB both cost 5 % more CPU on the bench capture.
	slabSize = 512 << 10
	// maxFrame is the longest captured frame that is believed, as in libpcap (MAXIMUM_SNAPLEN).
	maxFrame = 262144
	// chunkCount bounds the chunks in existence: one being filled, one in the workers, one in the output. A fourth costs
	// 4 % more CPU, since memory comes back colder.
	chunkCount = 3
	// viewsPerChunk bounds the views of one chunk, for frames that are tiny.
	viewsPerChunk = 1 << 15
	// tickNs is the packet time between ticks.
	tickNs = int64(time.Second)
	// chunkMaxAge is how long a live chunk or one from a pipe may wait to be full.
	chunkMaxAge = 100 * time.Millisecond
)

// view kinds.
const (
	viewUDP  = iota // l3, l4, end, wire describe a UDP segment
	viewTCP         // the same of TCP
	viewTick        // packet time has passed ts: expire what is old
	viewEnd         // the input has ended: expire everything
)

// view flags.
const (
	viewV6    = 1 << iota // the IP header is IPv6
	viewExtra             // the offsets are into chunk.extra (a reassembled datagram), not chunk.slab
)

// view describes one packet, or a tick, to the worker that its flow hashes to. It is a plain value; offsets are bytes
// into the slab (or extra) of its chunk.
type view struct {
	ts    int64  // capture time, ns since 1970 UTC
	seq   uint64 // place in the input: frames and ticks are numbered together, from 0
	hash  uint64 // symmetric flow hash; of a tick: the running clock
	l3    uint32 // IP header
	l4    uint32 // UDP or TCP header
	end   uint32 // end of the segment as captured, link padding excluded
	wire  uint32 // length of the segment (header and payload) by its headers; more than end-l4 where the snaplen cut it
	vlan  uint16 // outermost VLAN id, 0 = untagged
	kind  uint8
	flags uint8
}

// chunk is the unit of work: packet bytes, and for each worker the list of its views.
type chunk struct {
	slab  []byte
	extra []byte   // reassembled datagrams, and payloads that a slow path had to move
	views [][]view // by worker
	total int      // views in all
	bytes int      // live only: bytes of slab in use
	stats captureCounters
	busy  atomic.Int32 // workers that still read it

	statusDue bool  // a status record follows the chunk's lines …
	statusTs  int64 // … with this packet time
}

// reset empties a chunk that came back from the free list.
func (c *chunk) reset() {
	for i := range c.views {
		c.views[i] = c.views[i][:0]
	}
	c.total, c.bytes, c.statusDue = 0, 0, false
	if cap(c.extra) > slabSize {
		c.extra = nil
	}
	c.extra = c.extra[:0]
}

// captureCounters is the capture goroutine's part of the account. Each frame is in exactly one of verdicts.
type captureCounters struct {
	frames      uint64
	frameBytes  uint64 // as captured
	verdicts    [verdictCount]uint64
	cut         uint64 // frames that the snaplen cut
	tunnelled   uint64 // segments found inside an encapsulation
	reassembled uint64 // segments out of IP fragments
	firstTs     int64  // capture time of the first frame or tick, ns
	lastTs      int64  // capture time of the last frame or tick, ns
	kernel      kernelCounters
	// deviceErrors counts the failures of live devices: each that ended a capture, and each attempt to open one again.
	deviceErrors uint64
	frag         fragCounters
}

// kernelCounters is what a live handle reports of itself, summed over handles and reopenings. All zero for a file.
type kernelCounters struct {
	received, dropped, ifDropped uint64
}

// feeder is the capture goroutine's state: the chunk being filled and everything that decides where a frame goes.
type feeder struct {
	loc      locator
	inner    locator // for what an encapsulation held: port 53, whatever the filter on the outside
	defrag   *defragmenter
	slow     *slowDecoder
	workers  []*worker
	free     chan *chunk
	order    chan *chunk // to the output goroutine, in capture order
	stop     <-chan struct{}
	cur      *chunk
	seq      uint64
	count    captureCounters
	nextTick int64 // packet time of the next tick
	prevTick int64
	tickTs   int64  // time of the last tick
	clock    uint64 // running clock, see tick
	started  bool
	filter   frameFilter // the user's -bpf, nil for the default
	workersN uint64

	statusNs   int64 // packet time between status records, 0 = none
	nextStatus int64 // packet time of the next one
}

// frameFilter is the user's own filter expression, applied to whole frames.
type frameFilter interface {
	matches(frame []byte, wire int, linkType uint32) bool
}

// take returns an empty chunk, waiting for one when all are in use; nil when the program is stopping at once.
func (f *feeder) take() *chunk {
	c := <-f.free
	c.reset()
	return c
}

// frame accounts for one frame and files it. pkt lies at off in the current chunk's slab.
func (f *feeder) frame(pkt []byte, off int, wire int, ts int64, lt uint32) {
	if ts >= f.nextTick || ts < f.prevTick {
		f.tick(ts)
	}
	seq := f.seq
	f.seq++
	f.count.frames++
	f.count.frameBytes += uint64(len(pkt))
	f.count.lastTs = ts
	if wire > len(pkt) {
		f.count.cut++
	}
	if f.filter != nil && !f.filter.matches(pkt, wire, lt) {
		f.count.verdicts[verdictFiltered]++
		return
	}
	var v view
	r := f.loc.locate(pkt, lt, &v)
	if r <= verdictTCP {
		f.count.verdicts[r]++
		v.ts, v.seq = ts, seq
		v.l3 += uint32(off)
		v.l4 += uint32(off)
		v.end += uint32(off)
		f.file(&v)
		return
	}
	if r == verdictFragment || r == verdictSlow {
		r = f.slowFrame(pkt, r, lt, ts, seq, &v)
	}
	f.count.verdicts[r]++
}

// file appends v to the list of the worker that its flow hashes to. The high half of a product spreads any number of
// workers evenly (Lemire's reduction), where a mask would not.
func (f *feeder) file(v *view) {
	w := (v.hash >> 32 * f.workersN) >> 32
	c := f.cur
	c.views[w] = append(c.views[w], *v)
	c.total++
}

// slowFrame handles what locate could not: fragments and encapsulations, in any nesting up to maxNesting. The segment
// that comes out is copied to the chunk's side buffer.
func (f *feeder) slowFrame(pkt []byte, r verdict, lt uint32, ts int64, seq uint64, v *view) verdict {
	seg := pkt
	vlan := v.vlan
	tunnelled, reassembled := false, false
	for depth := 0; ; depth++ {
		if depth == maxNesting {
			return verdictNested
		}
		switch r {
		case verdictFragment:
			cut := v.end-v.l4 < v.wire
			if cut {
				// It can't become whole. The message's beginning is in the first fragment; the others are counted.
				loc := &f.loc
				if tunnelled {
					loc = &f.inner
				}
				if r = loc.locateCutFragment(seg, v); r != verdictFragment {
					break
				}
			}
			if v.flags&viewV6 != 0 {
				seg = f.defrag.add6(seg[v.l3:v.end], int(v.l4-v.l3), cut, vlan, ts)
			} else {
				seg = f.defrag.add4(seg[v.l3:v.end], cut, vlan, ts)
			}
			if seg == nil {
				return verdictFragment
			}
			reassembled = true
			lt, r = linkRaw, verdictSlow
		case verdictSlow:
			var rest []byte
			if rest, lt, r = f.slow.decapsulate(seg, lt); r != verdictSlow {
				return r
			}
			seg = rest
			tunnelled = true
		}
		if r != verdictFragment && r != verdictSlow {
			break // a cut fragment, located already
		}
		*v = view{}
		loc := &f.loc
		if tunnelled {
			loc = &f.inner
		}
		r = loc.locate(seg, lt, v)
		if vlan == 0 {
			vlan = v.vlan
		}
		if r != verdictFragment && r != verdictSlow {
			break
		}
	}
	if r > verdictTCP {
		return r
	}
	c := f.cur
	base := uint32(len(c.extra))
	c.extra = append(c.extra, seg[v.l3:v.end]...)
	v.l4 += base - v.l3
	v.end += base - v.l3
	v.l3 = base
	v.ts, v.seq, v.vlan = ts, seq, vlan
	v.flags |= viewExtra
	if tunnelled {
		f.count.tunnelled++
	}
	if reassembled {
		f.count.reassembled++
	}
	f.file(v)
	return r
}

// tick files a tick for every worker. It is called before the frame whose time ts brought it. With it goes the running
// clock: the sum of all steps forward from tick to tick. Packet time may jump to and fro; ages by the running clock grow
// in the order of arrival, so a queue's front is always the oldest, on however many queues the lookups are spread.
func (f *feeder) tick(ts int64) {
	if f.started {
		if ts > f.tickTs {
			f.clock += uint64(ts - f.tickTs)
		}
		f.broadcast(view{ts: ts, seq: f.seq, hash: f.clock, kind: viewTick})
		f.seq++
		f.defrag.tick(ts)
	} else {
		f.count.firstTs = ts
	}
	if f.statusNs > 0 {
		f.statusTick(ts)
	}
	f.started = true
	f.count.lastTs = ts // of an idle device, which has no frames
	f.tickTs = ts
	f.prevTick = ts
	f.nextTick = ts + tickNs
	if f.nextTick < ts {
		f.nextTick = ts // the end of int64: every frame ticks
	}
	// Captures from several queues are a little out of order: only a real step backwards is one.
	f.prevTick -= tickNs
	if f.prevTick > ts {
		f.prevTick = ts
	}
}

// broadcast files v for every worker.
func (f *feeder) broadcast(v view) {
	c := f.cur
	for i := range c.views {
		c.views[i] = append(c.views[i], v)
	}
	c.total++
}

// full says whether the current chunk must be handed over before another frame is filed.
func (f *feeder) full() bool {
	return f.cur.total >= viewsPerChunk || len(f.cur.extra) >= slabSize
}

// handOver gives the current chunk to all workers and to the output goroutine, and takes an empty one.
func (f *feeder) handOver() {
	c := f.cur
	f.snapshot(&c.stats)
	c.busy.Store(int32(len(f.workers)))
	f.order <- c
	for _, w := range f.workers {
		w.in <- c
	}
	f.cur = f.take()
}

// snapshot copies the counters as they stand.
func (f *feeder) snapshot(to *captureCounters) {
	*to = f.count
	to.frag = *f.defrag.counters()
}

// finish files the end of input, hands the last chunk over and closes the workers' channels.
func (f *feeder) finish() {
	f.defrag.flush()
	f.broadcast(view{ts: f.count.lastTs, seq: f.seq, kind: viewEnd})
	c := f.cur
	f.snapshot(&c.stats)
	c.busy.Store(int32(len(f.workers)))
	f.order <- c
	for _, w := range f.workers {
		w.in <- c
		close(w.in)
	}
	close(f.order)
}
