package main

// worker.go is the way of a packet through one worker: views in, lines out.
//
// In: chunks, of which it reads its own list of views and the bytes they point to.
// Out: parts, each holding lines and the sequence numbers that they belong to, in ascending order.
//
// Rules: a worker shares nothing. It owns its connection table, its TCP streams, its counters and a fixed number of
// parts; when all parts are with the output goroutine it waits for one to come back. Since the parts are its own, a
// worker that is ahead can't starve one that is behind, and the output goroutine, which needs the oldest part of each,
// always gets it: no deadlock. A part is sent when it is full, even in the middle of a lookup's lines, so memory does
// not depend on what an answer expands to.

import (
	"cmp"
	"encoding/binary"
	"slices"
)

const (
	// partCount and partSize bound a worker's output in flight; with eight workers together they hold about the lines of
	// one chunk.
	partCount = 3
	partSize  = 64 << 10
	// partKeep is the capacity above which a part's buffer (one huge line) is not kept for reuse.
	partKeep = 1 << 20
)

// part is a piece of a worker's output for one chunk.
type part struct {
	json  []byte
	ends  []int32 // end of each record in json
	msgp  []byte
	mends []int32 // end of each record in msgp; empty where no sink wants msgpack
	tags  []tag
	last  bool // the worker is done with the chunk; stat are its counters at that moment
	stat  workerCounters
}

// huge says whether one line has grown a buffer that is not worth keeping.
func (p *part) huge() bool { return cap(p.json) > partKeep || cap(p.msgp) > partKeep }

// reset empties a part, and lets go of a buffer that one huge line has grown.
func (p *part) reset() {
	if p.huge() {
		p.json, p.msgp = nil, nil
	}
	p.json, p.ends, p.msgp, p.mends = p.json[:0], p.ends[:0], p.msgp[:0], p.mends[:0]
	p.tags, p.last = p.tags[:0], false
}

// tag closes a run of lines that belong to one frame or tick.
type tag struct {
	seq uint64 // sequence number of the frame or tick
	sub uint64 // order within a tick: kind and sequence number of the frame that it is about
	end int    // end of the run in part.ends
}

// Kinds of lines at a tick, in the order in which they are written, in the top bits of tag.sub.
const (
	subStream     = uint64(0) << 62 // messages that the end of a TCP stream freed
	subUnanswered = uint64(1) << 62
	subWaiting    = uint64(2) << 62
)

// worker is one parser goroutine.
type worker struct {
	id    int
	in    chan *chunk
	out   chan *part
	free  chan *part
	enc   encoder
	cur   *part
	tab   *connTable
	done  *answeredSet
	tcp   *tcpTable
	count workerCounters
	msg   message
	late  message // for stored responses
	qname [256]byte
	ends  flow

	gcAge, gcInterval int64
	lastGC            uint64
	gcStarted         bool
	due               []dueItem // scratch: what is being written off
	seq, sub          uint64    // the tag of what is being written
	atTick            bool
	records           uint32 // lines of the current tag
	incomplete        bool
	touched           byte // keeps warm's loads alive
}

// run works through chunks until its channel closes.
func (w *worker) run() {
	for c := range w.in {
		views := c.views[w.id]
		for i := range views {
			if i%warmBatch == 0 {
				w.warm(c, views[i:min(i+warmBatch, len(views))])
			}
			v := &views[i]
			switch v.kind {
			case viewUDP:
				buf := c.slab
				if v.flags&viewExtra != 0 {
					buf = c.extra
				}
				v.fillFlow(buf, &w.ends)
				w.seq, w.sub = v.seq, 0
				w.count.udpSegments++
				n := int(v.wire) - 8
				w.dns(&w.ends, v.hash, false, buf[v.l4+8:v.end], n, v.ts, v.seq, v.vlan)
			case viewTCP:
				buf := c.slab
				if v.flags&viewExtra != 0 {
					buf = c.extra
				}
				v.fillFlow(buf, &w.ends)
				w.seq, w.sub = v.seq, 0
				w.count.tcpSegments++
				w.tcp.segment(&w.ends, v.hash, buf[v.l4:v.end], int(v.wire), v.ts, v.seq, v.vlan)
			case viewTick:
				w.tick(v)
			case viewEnd:
				w.end(v)
			}
		}
		w.snapshot(&w.cur.stat)
		w.cur.last = true
		w.send()
	}
}

// warmBatch is how many packets' memory is fetched ahead.
const warmBatch = 32

// warm touches what the next packets will need: their bytes, and the buckets and lookups that their keys lead to.
// Packets come from another core's cache, and the table is larger than a core's own; done one packet after the other,
// each of these misses is waited for, here they overlap. The plain version is to leave the call out; it cost 7 % more
// CPU on the bench capture (least of five runs each).
func (w *worker) warm(c *chunk, views []view) {
	var heads [warmBatch]int32
	touched := byte(0)
	mask := uint32(len(w.tab.heads) - 1)
	for i := range views {
		v := &views[i]
		if v.kind != viewUDP || v.flags&viewExtra != 0 || v.end < v.l4+dnsHeaderLen {
			continue
		}
		key := uint64(v.flags & viewV6)
		id := uint64(c.slab[v.l4+8])<<8 | uint64(c.slab[v.l4+9])
		heads[i] = w.tab.heads[uint32(keyHash(v.hash, uint16(id), uint8(key))>>32)&mask]
		for o := v.l3; o < v.end; o += 64 {
			touched ^= c.slab[o]
		}
	}
	for _, h := range heads {
		if h != 0 {
			l := w.tab.at(h - 1)
			touched ^= l.key[0] ^ l.key[39] ^ l.state ^ l.inline[inlineVar-1]
		}
	}
	w.touched = touched
}

// keyHash spreads a flow's hash by DNS ID and the last byte but one of the lookup key.
func keyHash(flowHash uint64, id uint16, kind uint8) uint64 {
	return mix(flowHash^uint64(id), 0x9e3779b97f4a7c15^uint64(kind))
}

// send gives the current part to the output goroutine and takes an empty one. After one that a huge line has grown it
// waits until all parts are back, so that each worker has at most one such line in memory.
func (w *worker) send() {
	huge := w.cur.huge()
	w.out <- w.cur
	w.cur = <-w.free
	if huge {
		var parts [partCount - 1]*part
		for i := range parts {
			parts[i] = <-w.free
		}
		for _, p := range parts {
			w.free <- p
		}
	}
}

// closeTag ends the run of lines of the current tag.
func (w *worker) closeTag() {
	if w.records == 0 {
		return
	}
	p := w.cur
	p.tags = append(p.tags, tag{w.seq, w.sub, len(p.ends)})
	w.count.records += uint64(w.records)
	w.records = 0
}

// lineDone is called after each line; it sends the part when it is full.
func (w *worker) lineDone() {
	p := w.cur
	p.ends = append(p.ends, int32(len(p.json)))
	if w.enc.msgpack {
		p.mends = append(p.mends, int32(len(p.msgp)))
	}
	w.records++
	if len(p.json) >= partSize {
		w.closeTag()
		w.enc.keep()
		w.send()
	}
}

// tcpMessage takes a message out of a TCP stream; it implements tcpSink.
func (w *worker) tcpMessage(fl *flow, hash uint64, msg []byte, wire int, _ bool, ts int64, seq uint64, vlan uint16) {
	if w.atTick {
		w.sub = subStream | seq
	}
	w.dns(fl, hash, true, msg, wire, ts, seq, vlan)
}

// dns handles one DNS message. raw is its captured part, wire its length on the wire.
func (w *worker) dns(f *flow, hash uint64, tcp bool, raw []byte, wire int, ts int64, seq uint64, vlan uint16) {
	if tcp {
		w.count.tcpMessages++
	} else {
		w.count.udpMessages++
	}
	m := &w.msg
	cut := wire > len(raw)
	if bad := m.parse(raw); bad != malformedNone {
		w.count.malformed[bad]++
		return
	}
	if m.broken != brokenNone && !cut {
		w.count.broken[m.broken]++
	}
	if cut {
		w.count.cutMessages++
	}
	if m.edeCut {
		w.count.edeCut++
	}
	var key lookupKey
	resp := m.response()
	if resp {
		copy(key[0:], f.dst[:])
		copy(key[16:], f.src[:])
		binary.BigEndian.PutUint16(key[32:], f.dport)
		binary.BigEndian.PutUint16(key[34:], f.sport)
	} else {
		copy(key[0:], f.src[:])
		copy(key[16:], f.dst[:])
		binary.BigEndian.PutUint16(key[32:], f.sport)
		binary.BigEndian.PutUint16(key[34:], f.dport)
	}
	binary.BigEndian.PutUint16(key[36:], m.id)
	if tcp {
		key[38] = keyTCP
	}
	if f.v6 {
		key[38] |= viewV6
	}
	h := keyHash(hash, m.id, key[38])
	q := question{qtype: m.qtype, qclass: m.qclass}
	if m.hasQuestion {
		q.name = w.questionName(m)
	}
	if resp {
		w.count.responses++
		w.response(&key, h, &q, wire, cut, ts, seq, vlan)
	} else {
		w.count.queries++
		w.query(&key, h, &q, wire, cut, ts, seq, vlan)
	}
	w.closeTag()
}

// expandName appends the uncompressed wire form of the name at off, which was accepted before.
func expandName(dst, msg []byte, off int) []byte {
	for {
		n := int(msg[off])
		if n >= 0xc0 {
			off = n&0x3f<<8 | int(msg[off+1])
			continue
		}
		dst = append(dst, msg[off:off+1+n]...)
		if n == 0 {
			return dst
		}
		off += 1 + n
	}
}

// questionName returns the question's name without compression: in place, since no sender compresses the first name
// of a message, or expanded into w.qname.
func (w *worker) questionName(m *message) []byte {
	if m.qplain {
		return m.raw[m.qname:m.qend]
	}
	return expandName(w.qname[:0], m.raw, m.qname)
}

// query files a query: another attempt of a pending lookup, the late other half of a waiting response, or a new
// lookup.
func (w *worker) query(key *lookupKey, h64 uint64, q *question, wire int, cut bool, ts int64, seq uint64, vlan uint16) {
	t, h := w.tab, uint32(h64>>32)
	i, same, oldest := t.find(key, h, q, 1<<statePending|1<<stateWaiting)
	if i >= 0 {
		l := t.at(i)
		switch {
		case l.state == statePending && distance(ts, l.ts) <= w.gcAge:
			if l.attempts < 0xffff {
				l.attempts++
			}
			w.count.repeats++
			return
		case l.state == statePending:
			w.unanswered(i, l)
		case distance(ts, l.ts) <= reorderNs:
			w.early(i, l, h64, q, wire, cut, ts, seq, vlan)
			return
		default:
			w.unsolicited(i, l)
		}
	} else if same >= sameKeyMax {
		w.evict(oldest)
	}
	w.makeRoom()
	i, l := t.insert(key, h, statePending)
	l.seq = seq
	w.fillQuery(l, q, wire, cut, ts, vlan)
	t.enqueue(i, l)
}

// fillQuery stores what a record will need of the query in w.msg.
func (w *worker) fillQuery(l *lookup, q *question, wire int, cut bool, ts int64, vlan uint16) {
	m := &w.msg
	l.ts, l.vlan = ts, vlan
	l.qbytes, l.attempts, l.opcode = uint16(wire), 1, uint8(m.opcode())
	l.flags, l.udpSize = 0, 0
	if q.name != nil {
		l.flags |= lookupQuestion
	}
	if m.rd() {
		l.flags |= lookupRD
	}
	if m.cd() {
		l.flags |= lookupCD
	}
	if cut {
		l.flags |= lookupCut
	}
	var ecs []byte
	if m.opt {
		l.flags |= lookupEDNS
		l.udpSize = m.udpSize
		if m.do {
			l.flags |= lookupDO
		}
		if n := m.ecsLen; n > 0 && n <= 20 {
			ecs = m.raw[m.ecsOff : m.ecsOff+n]
		}
	}
	w.tab.store(l, q, ecs)
}

// response completes a lookup, or is a further message of a zone transfer, a duplicate, or has to wait.
func (w *worker) response(key *lookupKey, h64 uint64, q *question, wire int, cut bool, ts int64, seq uint64, vlan uint16) {
	t, h := w.tab, uint32(h64>>32)
	i, same, oldest := t.find(key, h, q, 1<<statePending|1<<stateTransfer)
	if i >= 0 {
		l := t.at(i)
		switch {
		case l.state == stateTransfer && distance(ts, l.done) <= w.gcAge:
			// RFC 5936 §2.2: the response to AXFR (and IXFR) over TCP may be many messages.
			w.count.continued++
			w.enc.lookup(w, l, &w.msg, ts, ts-l.ts, wire, cut, vlan, 0)
			t.transferring(i, l, ts)
			return
		case l.state == stateTransfer:
			t.remove(i, l)
		case distance(ts, l.ts) <= w.gcAge:
			w.count.matched++
			w.observe(ts - l.ts)
			w.enc.lookup(w, l, &w.msg, ts, ts-l.ts, wire, cut, vlan, 0)
			w.answered(i, l, h64, q, ts)
			return
		default:
			w.unanswered(i, l)
		}
	} else if q.name != nil && w.done.has(fingerprint(h64, q), ts) {
		w.count.duplicates++
		return
	}
	if same >= sameKeyMax {
		w.evict(oldest)
	}
	w.makeRoom()
	for t.waitBytes+len(w.msg.raw) > t.waitMax {
		i := t.oldest(&t.wait, stateWaiting)
		if i < 0 {
			break
		}
		w.evict(i)
	}
	i, l := t.insert(key, h, stateWaiting)
	l.seq, l.ts, l.vlan = seq, ts, vlan
	l.wait = t.keepWait(w.msg.raw, ts, wire, cut)
	t.store(l, q, nil)
	t.enqueue(i, l)
}

// answered takes a lookup whose record was written out of the table, and remembers it.
func (w *worker) answered(i int32, l *lookup, h64 uint64, q *question, ts int64) {
	if isTransfer(l) {
		w.tab.transferring(i, l, ts)
		return
	}
	if q.name != nil {
		w.done.add(fingerprint(h64, q), ts)
	}
	w.tab.remove(i, l)
}

// fingerprint hashes a lookup's key (already hashed to h) and its question. Bit 5 is set in every byte of the name,
// which makes letters equal in both cases; the few other bytes that this makes equal are no matter in a hash.
func fingerprint(h uint64, q *question) uint64 {
	const fold = 0x2020202020202020
	h ^= uint64(q.qtype)<<16 | uint64(q.qclass)
	b := q.name
	for len(b) >= 8 {
		h = mix(h^binary.LittleEndian.Uint64(b)|fold, 0xa0761d6478bd642f)
		b = b[8:]
	}
	var tail uint64
	for i, c := range b {
		tail |= uint64(c|0x20) << (8 * i)
	}
	return mix(h^tail, 0xe7037ed1a0b428db)
}

// isTransfer says whether l is a zone transfer over TCP.
func isTransfer(l *lookup) bool {
	return l.key[38]&keyTCP != 0 && (l.qtype == typeAXFR || l.qtype == typeIXFR)
}

// early completes a lookup whose response was seen before its query (in w.msg).
func (w *worker) early(i int32, l *lookup, h64 uint64, q *question, wire int, cut bool, ts int64, seq uint64, vlan uint16) {
	t := w.tab
	wt := t.waits[l.wait]
	w.late.parse(wt.raw) // it was accepted before
	w.count.matched++
	w.count.reordered++
	w.observe(wt.ts - ts)
	l.seq = seq
	respVLAN := l.vlan
	if l.over != 0 {
		t.overFree = append(t.overFree, l.over)
		l.over = 0
	}
	w.fillQuery(l, q, wire, cut, ts, vlan)
	w.enc.lookup(w, l, &w.late, wt.ts, wt.ts-ts, wt.wire, wt.cut, respVLAN, 0)
	w.answered(i, l, h64, q, ts)
}

// unanswered writes a pending lookup off.
func (w *worker) unanswered(i int32, l *lookup) {
	w.count.unanswered++
	w.count.unansweredQueries += uint64(l.attempts)
	if w.incomplete {
		w.enc.lookup(w, l, nil, l.ts, 0, 0, false, l.vlan, statusUnanswered)
	} else {
		w.count.status[statusUnanswered]++
	}
	w.tab.remove(i, l)
}

// unsolicited writes off a response whose query was never seen.
func (w *worker) unsolicited(i int32, l *lookup) {
	w.count.unsolicited++
	if w.incomplete {
		wt := &w.tab.waits[l.wait]
		w.late.parse(wt.raw) // it was accepted before
		w.enc.lookup(w, l, &w.late, wt.ts, 0, wt.wire, wt.cut, l.vlan, statusUnsolicited)
	} else {
		w.count.status[statusUnsolicited]++
	}
	w.tab.remove(i, l)
}

// evict frees lookup i because a bound was reached.
func (w *worker) evict(i int32) {
	l := w.tab.at(i)
	switch l.state {
	case statePending:
		w.count.evicted++
		w.count.evictedQueries += uint64(l.attempts)
		w.tab.remove(i, l)
	case stateWaiting:
		w.count.waitedShort++
		w.unsolicited(i, l)
	default:
		w.tab.remove(i, l)
	}
}

// makeRoom evicts until one more lookup fits.
func (w *worker) makeRoom() {
	t := w.tab
	for t.live >= t.max {
		i := t.oldest(&t.wait, stateWaiting)
		if i < 0 {
			i = t.oldest(&t.transfer, stateTransfer)
		}
		if i < 0 {
			i = t.oldest(&t.pending, statePending)
		}
		w.evict(i)
	}
}

// tick expires what is old at packet time v.ts.
func (w *worker) tick(v *view) {
	w.seq, w.atTick = v.seq, true
	w.tcp.tick(v.ts)
	w.done.tick(v.ts)
	t := w.tab
	if !w.gcStarted {
		w.gcStarted, w.lastGC = true, t.clock
	}
	t.clock = v.hash
	if t.clock-w.lastGC >= uint64(w.gcInterval) {
		w.lastGC = t.clock
		w.expirePending(false)
	}
	w.expireWaiting(false)
	for i := t.expired(&t.transfer, stateTransfer, w.gcAge); i >= 0; i = t.expired(&t.transfer, stateTransfer, w.gcAge) {
		t.remove(i, t.at(i))
	}
	w.atTick = false
}

// end writes off everything at the end of the input.
func (w *worker) end(v *view) {
	w.seq, w.atTick = v.seq, true
	w.tcp.flush()
	w.expirePending(true)
	w.expireWaiting(true)
	w.atTick = false
}

// expirePending writes off the pending lookups that are older than gc_age, or all of them.
func (w *worker) expirePending(all bool) {
	t := w.tab
	for {
		i := t.expired(&t.pending, statePending, w.gcAge)
		if all {
			i = t.oldest(&t.pending, statePending)
		}
		if i < 0 {
			break
		}
		l := t.at(i)
		w.due = append(w.due, dueItem{l.seq, i})
		t.pending.pop()
	}
	for _, d := range w.inOrder() {
		w.sub = subUnanswered | d.seq
		w.unanswered(d.idx, t.at(d.idx))
		w.closeTag()
	}
	w.due = w.due[:0]
}

// expireWaiting writes off the responses that have waited long enough, or all of them.
func (w *worker) expireWaiting(all bool) {
	t := w.tab
	for {
		i := t.expired(&t.wait, stateWaiting, reorderNs)
		if all {
			i = t.oldest(&t.wait, stateWaiting)
		}
		if i < 0 {
			break
		}
		l := t.at(i)
		w.due = append(w.due, dueItem{l.seq, i})
		t.wait.pop()
	}
	for _, d := range w.inOrder() {
		w.sub = subWaiting | d.seq
		w.unsolicited(d.idx, t.at(d.idx))
		w.closeTag()
	}
	w.due = w.due[:0]
}

// dueItem is a lookup to be written off, and the frame it is about.
type dueItem struct {
	seq uint64
	idx int32
}

// inOrder sorts w.due by frame. A message that a TCP stream held back enters the table behind lookups of later frames;
// the order of the output goroutine's merge is that of the frames.
func (w *worker) inOrder() []dueItem {
	byFrame := func(a, b dueItem) int { return cmp.Compare(a.seq, b.seq) }
	if !slices.IsSortedFunc(w.due, byFrame) {
		slices.SortStableFunc(w.due, byFrame)
	}
	return w.due
}

// snapshot copies the counters and gauges as they stand.
func (w *worker) snapshot(to *workerCounters) {
	*to = w.count
	to.pending = uint64(w.tab.nPending)
	to.forgotten = w.done.forgotten
	to.waiting = uint64(w.tab.nWait)
	to.tcp = *w.tcp.counters()
	to.tcpStreams, to.tcpBytes = uint64(w.tcp.streamsHeld()), uint64(w.tcp.bytesHeld())
	to.tcpPayload = uint64(w.tcp.payloadBytesHeld())
}

// observe counts a lookup's latency.
func (w *worker) observe(ns int64) {
	if ns < 0 {
		ns = 0
	}
	w.count.latency[latencyBucket(ns)]++
	w.count.latencySum += uint64(ns)
}
