// IP defragmentation: fragments of IPv4 and IPv6 datagrams go in, in any
// order, and whole datagrams come out, to be decoded and hashed like any other
// packet. One goroutine, the one that captures, calls it; nothing is shared.
//
// Rules: all time is packet time; everything held is bounded, in trains (the
// fragments of one datagram), in bytes, in pieces of one train and in age, and
// each bound has its counters; every fragment ends up used, dropped by one
// named reason, or held, so the account always adds up; nothing is allocated
// once the arena has grown to what the traffic needs.
//
// Why not gopacket's: ip4defrag keeps the caller's layer and payload, which
// the next read overwrites, and neither its flow map nor its bytes have a
// bound; ip6defrag stamps its trains with the wall clock, so a file replayed
// faster than it was captured never ages and a slow one ages wrongly.

package main

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
)

// fragLimits bounds what a defragmenter holds. The defaults are 16384 trains,
// 32 MiB and 30 s: RFC 8200 §4.5 gives a receiver 60 s and RFC 791 15 s, but
// the fragments of a DNS answer arrive within milliseconds of each other, and
// an IPv4 identification of 16 bits is used again within a minute on a busy
// path, so that a longer memory joins what does not belong together.
type fragLimits struct {
	trains int   // datagrams under reassembly, marks of discarded ones included
	bytes  int   // fragment data in memory, in whole cells of fragCellSize bytes
	ageNs  int64 // a train is given up this long after its first fragment
}

// fragCounters is the account of a defragmenter. Every fragment handed in is
// in exactly one place:
//
//	fragments == used + duplicates + ignored + malformed + cut
//	           + overlapFragments + expiredFragments + incompleteFragments
//	           + trainBoundFragments + byteBoundFragments + pieceBoundFragments
//	           + heldFragments
type fragCounters struct {
	fragments uint64 // handed in

	reassembled uint64 // datagrams delivered
	used        uint64 // fragments that went into them
	atomic      uint64 // of reassembled: IPv6 fragments that were whole datagrams (RFC 6946)

	duplicates uint64 // fragments whose bytes were all there already, of this train or of a datagram just delivered
	ignored    uint64 // later fragments of a train that was discarded
	malformed  uint64 // fragments: empty, not a multiple of 8, beyond 65535 bytes, or with a header that does not parse
	cut        uint64 // not captured whole (snaplen)

	malformedTrains  uint64 // discarded into malformed: beyond 65535 bytes with the first fragment's header
	overlapTrains    uint64 // discarded: fragments overlap, or disagree about where the datagram ends
	overlapFragments uint64
	expiredTrains    uint64 // given up at ageNs
	expiredFragments uint64
	incompleteTrains uint64 // still incomplete when the input ended

	incompleteFragments uint64
	trainBoundTrains    uint64 // the oldest train, evicted to make room for another
	trainBoundFragments uint64
	byteBoundTrains     uint64 // the oldest train, evicted to make room for bytes
	byteBoundFragments  uint64
	pieceBoundTrains    uint64 // discarded: more pieces than fragMaxPieces
	pieceBoundFragments uint64

	sameOverlaps uint64 // IPv4 fragments kept although part of their bytes was there already, and the same

	// Gauges.
	heldTrains    uint64 // incomplete datagrams
	heldFragments uint64 // their fragments
	heldBytes     uint64 // arena cells in use, marks of delivered datagrams included
}

const (
	fragCellSize  = 512 // bytes of arena per cell, its header included
	fragCellData  = fragCellSize - 16
	fragBlock     = 128 // cells allocated at a time: 64 KiB
	fragMaxTotal  = 65535
	fragIPv6Head  = 40 // RFC 8200 §3
	fragHeaderLen = 8  // IPv6 Fragment header, RFC 8200 §4.5

	// fragMaxPieces bounds the fragments of one datagram. The largest
	// datagram in frames of the smallest IPv6 MTU, 1280 bytes, has 54; a
	// DNS answer of 4096 bytes in IPv4's smallest MTU, 68 bytes, has 86.
	fragMaxPieces = 128

	// fragDoneNs is how long the mark of a delivered datagram lives.
	// Captures on a loopback device or at a mirror port see each packet
	// twice: the copy of the last fragment, which comes after the datagram
	// was delivered, would begin a train of its own, and be joined with
	// the next datagram of the same identification.
	fragDoneNs = 100e6
)

// fragCell is a piece of fragment data. Cells of one piece are chained by
// more; the first cell of a piece also holds where the piece lies in the
// datagram and the next piece. It holds no pointers, so the garbage collector
// never looks into the arena. Index 0 is no cell.
type fragCell struct {
	more      int32 // next cell of this piece, or of the free list
	nextPiece int32 // the piece with the next higher start
	start     uint16
	end       uint16
	_         uint32
	data      [fragCellData]byte
}

// fragKey says which fragments belong together. IPv4 (RFC 791 §3.2): source,
// destination, protocol, identification. IPv6 (RFC 8200 §4.5): source,
// destination, identification. Both: the VLAN, since VLANs reuse addresses.
type fragKey [40]byte

// States of a train.
const (
	fragLive = iota // collects pieces
	fragDead        // discarded: a mark that makes later fragments ignored
	fragDone        // delivered: first cells are kept to recognise copies
)

// fragTrain is a datagram under reassembly, or the mark of one. It lives in
// defragmenter.trains and links are indexes into it; 0 is none.
type fragTrain struct {
	key        fragKey
	first      int64 // packet time of its first fragment; of delivery when fragDone
	prev, next int32 // by age: d.live or d.done; next is also the free list
	hashNext   int32
	head, tail int32 // pieces, by start
	pieces     int32
	fragments  int32
	have       int   // bytes of the payload present
	total      int   // payload length, known from the last fragment; or -1
	header     int32 // cells of the first fragment's header
	headerLen  int
	linkAt     int // of the first fragment, as in fragment
	link       uint8
	state      uint8
}

// fragment is one fragment on its way in, taken apart. Its slices are the
// caller's and are not kept.
type fragment struct {
	key    fragKey
	header []byte // all before the part that was fragmented, without a Fragment header
	data   []byte
	start  int  // of data in the datagram's payload
	more   bool // not the last
	linkAt int  // where in header link belongs: the next-header field that led to the Fragment header; IPv6, start 0
	link   uint8
}

// fragList is a queue of trains, oldest first.
type fragList struct{ head, tail int32 }

// defragmenter reassembles IP datagrams. Make it with newDefragmenter; it
// belongs to one goroutine.
type defragmenter struct {
	lim  fragLimits
	n    fragCounters
	seed maphash.Seed // of this process: nobody can aim at one bucket; no result depends on it

	buckets   []int32
	trains    []fragTrain // [0] unused
	freeTrain int32
	newTrain  int32 // trains[newTrain:] were never used
	live      fragList
	done      fragList

	blocks   [][]fragCell
	freeCell int32
	newCell  int32 // cells from here on were never used
	used     int32
	maxCells int32

	out []byte // the datagram delivered last
}

// newDefragmenter returns an empty defragmenter with the given bounds. A bound
// too small to hold anything is raised to one train or one cell.
func newDefragmenter(lim fragLimits) *defragmenter {
	lim.trains = min(max(lim.trains, 1), 1<<30)
	lim.bytes = max(lim.bytes, fragCellSize)
	lim.ageNs = max(lim.ageNs, 0)
	return &defragmenter{
		lim:      lim,
		seed:     maphash.MakeSeed(),
		buckets:  make([]int32, lim.trains),
		trains:   make([]fragTrain, lim.trains+1),
		newTrain: 1,
		newCell:  1,
		maxCells: int32(min(lim.bytes/fragCellSize, 1<<30)),
		out:      make([]byte, fragIPv6Head+fragMaxTotal),
	}
}

// counters returns the account; it belongs to the defragmenter and changes
// with every call.
func (d *defragmenter) counters() *fragCounters { return &d.n }

// add4 takes one IPv4 packet that has MF set or a fragment offset: header and
// payload as captured, trimmed to the header's total length; cut says that the
// capture holds less than that. ts is its packet time in ns. When it completes
// a datagram, that is returned: the first fragment's header with its options,
// MF and offset cleared and total length set (the checksum is left as it was),
// then the whole payload. It is valid until the next call. Nil otherwise. pkt
// is not kept.
func (d *defragmenter) add4(pkt []byte, cut bool, vlan uint16, ts int64) (datagram []byte) {
	d.n.fragments++
	d.expire(ts)
	if cut {
		d.n.cut++
		return nil
	}
	if len(pkt) < 20 {
		d.n.malformed++
		return nil
	}
	ihl := int(pkt[0]&15) * 4
	if ihl < 20 || ihl > len(pkt) {
		d.n.malformed++
		return nil
	}
	field := binary.BigEndian.Uint16(pkt[6:])
	f := fragment{
		header: pkt[:ihl],
		data:   pkt[ihl:],
		start:  int(field&0x1fff) * 8,
		more:   field&0x2000 != 0,
	}
	f.key[0], f.key[1] = 4, pkt[9]
	binary.BigEndian.PutUint16(f.key[2:], vlan)
	copy(f.key[4:6], pkt[4:])
	copy(f.key[8:16], pkt[12:])
	if !f.wellFormed(0) {
		d.n.malformed++
		return nil
	}
	t := d.collect(&f, ts)
	if t == 0 {
		return nil
	}
	out := d.deliver(t, ts, 0)
	if out == nil {
		return nil
	}
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	out[6] &= 0xc0 // the reserved bit and DF stay
	out[7] = 0
	return out
}

// add6 takes one IPv6 packet that has a Fragment header: IPv6 header,
// extension headers and payload as captured, trimmed to the payload length;
// fragOff is the offset of the Fragment header in it. cut, ts and what is
// returned are as for add4: the first fragment's IPv6 header and the extension
// headers before its Fragment header, linked as if that had not been there,
// payload length set, then the whole payload. A fragment that is a whole
// datagram is delivered at once, without regard to any train (RFC 6946 §4),
// and even when it is cut: its payload length then says how long it was.
func (d *defragmenter) add6(pkt []byte, fragOff int, cut bool, vlan uint16, ts int64) (datagram []byte) {
	d.n.fragments++
	d.expire(ts)
	if fragOff < fragIPv6Head || fragOff > len(pkt)-fragHeaderLen {
		if cut {
			d.n.cut++
		} else {
			d.n.malformed++
		}
		return nil
	}
	field := binary.BigEndian.Uint16(pkt[fragOff+2:])
	f := fragment{
		header: pkt[:fragOff],
		data:   pkt[fragOff+fragHeaderLen:],
		start:  int(field &^ 7),
		more:   field&1 != 0,
		link:   pkt[fragOff],
	}
	if f.start == 0 {
		var ok bool
		if f.linkAt, ok = fragLinkAt(pkt, fragOff); !ok {
			d.n.malformed++
			return nil
		}
		if !f.more {
			return d.deliverAtomic(&f, cut)
		}
	}
	if cut {
		d.n.cut++
		return nil
	}
	f.key[0] = 6
	binary.BigEndian.PutUint16(f.key[2:], vlan)
	copy(f.key[4:8], pkt[fragOff+4:])
	copy(f.key[8:], pkt[8:fragIPv6Head])
	if !f.wellFormed(fragIPv6Head) {
		d.n.malformed++
		return nil
	}
	t := d.collect(&f, ts)
	if t == 0 {
		return nil
	}
	at, link := d.trains[t].linkAt, d.trains[t].link
	out := d.deliver(t, ts, fragIPv6Head)
	if out == nil {
		return nil
	}
	binary.BigEndian.PutUint16(out[4:], uint16(len(out)-fragIPv6Head))
	out[at] = link
	return out
}

// tick expires what is older than ageNs at now, a packet time in ns. Every
// fragment does so too; tick is for when none come.
func (d *defragmenter) tick(now int64) { d.expire(now) }

// flush ends the input: what is held is counted as incomplete and forgotten.
func (d *defragmenter) flush() {
	for d.done.head != 0 {
		d.release(d.done.head)
	}
	for t := d.live.head; t != 0; t = d.live.head {
		d.drop(t, &d.n.incompleteTrains, &d.n.incompleteFragments)
		d.release(t)
	}
}

// wellFormed reports whether f can be part of a datagram. uncounted is what of
// the header a length field of 16 bits does not count: a fragment that ends
// beyond 65535 (the ping of death) is of no datagram. RFC 8200 §4.5: all but
// the last hold a multiple of 8 bytes.
func (f *fragment) wellFormed(uncounted int) bool {
	return len(f.data) > 0 &&
		len(f.header)-uncounted+f.start+len(f.data) <= fragMaxTotal &&
		(!f.more || len(f.data)%8 == 0)
}

// fragLinkAt returns the offset of the next-header field that names the
// Fragment header at fragOff, and whether the chain of pkt leads there.
func fragLinkAt(pkt []byte, fragOff int) (at int, ok bool) {
	at = 6
	for off := fragIPv6Head; off < fragOff; {
		length := (int(pkt[off+1]) + 1) * 8 // RFC 8200 §4.2
		if pkt[at] == 51 {
			length = (int(pkt[off+1]) + 2) * 4 // AH, RFC 4302 §2.2
		}
		at = off
		off += length
		if off > fragOff {
			return 0, false
		}
	}
	return at, pkt[at] == 44
}

// deliverAtomic returns the datagram of an IPv6 fragment that is a whole one.
func (d *defragmenter) deliverAtomic(f *fragment, cut bool) []byte {
	length := len(f.header) - fragIPv6Head + len(f.data)
	if cut {
		length = max(length, int(binary.BigEndian.Uint16(f.header[4:]))-fragHeaderLen)
	}
	if length > fragMaxTotal {
		d.n.malformed++
		return nil
	}
	d.n.used++
	d.n.reassembled++
	d.n.atomic++
	n := copy(d.out, f.header)
	n += copy(d.out[n:], f.data)
	binary.BigEndian.PutUint16(d.out[4:], uint16(length))
	d.out[f.linkAt] = f.link
	return d.out[:n]
}

// collect puts f into its train, or drops and counts it. It returns the train
// when it is complete, else 0.
//
// Overlaps. IPv6: a fragment that overlaps another and is not its exact copy
// discards the train (RFC 5722 §4, RFC 8200 §4.5). IPv4: RFC 791 lets later
// bytes win, hosts differ, and whoever sends two versions of the same bytes
// wants the observer and the receiver to read different datagrams. So bytes
// that are the same twice are tolerated (a path that changes may cut the same
// datagram in two ways), and bytes that differ discard the train: no record is
// better than the one that a forger chose. Either way later fragments of the
// train are ignored until it would have aged.
func (d *defragmenter) collect(f *fragment, ts int64) int32 {
	headerCells := int32(0)
	if f.start == 0 {
		headerCells = cellsFor(len(f.header))
	}
	if headerCells+cellsFor(len(f.data)) > d.maxCells {
		d.n.byteBoundFragments++
		return 0
	}
	t, drop := d.train(f, ts)
	if drop {
		return 0
	}
	tr := &d.trains[t]
	start, end := f.start, f.start+len(f.data)

	// The last fragment says where the datagram ends, and all others, which
	// say that more comes, must end before.
	if tr.total < 0 {
		if !f.more && tr.tail != 0 && end <= int(d.cell(tr.tail).end) {
			d.discard(t, &d.n.overlapTrains, &d.n.overlapFragments)
			return 0
		}
	} else if f.more && end >= tr.total || !f.more && end != tr.total {
		d.discard(t, &d.n.overlapTrains, &d.n.overlapFragments)
		return 0
	}

	// Find where f lies: after the piece prev, before or upon next.
	// Fragments mostly come in order, and then prev is the tail.
	prev, next := tr.tail, int32(0)
	if prev != 0 && int(d.cell(prev).end) > start {
		prev, next = 0, tr.head
		for int(d.cell(next).end) <= start {
			prev, next = next, d.cell(next).nextPiece
		}
	}

	// Count what of f is new, and refuse what contradicts.
	gaps, cells, fresh, at := 0, int32(0), 0, start
	for i := next; i != 0; {
		c := d.cell(i)
		from, to := int(c.start), int(c.end)
		if from >= end {
			break
		}
		if f.key[0] == 6 && (from != start || to != end) || !d.same(i, f) {
			d.discard(t, &d.n.overlapTrains, &d.n.overlapFragments)
			return 0
		}
		if from > at {
			gaps, cells, fresh = gaps+1, cells+cellsFor(from-at), fresh+from-at
		}
		at, i = to, c.nextPiece
	}
	if at < end {
		gaps, cells, fresh = gaps+1, cells+cellsFor(end-at), fresh+end-at
	}
	if gaps == 0 {
		d.n.duplicates++
		return 0
	}
	if int(tr.pieces)+gaps > fragMaxPieces {
		d.discard(t, &d.n.pieceBoundTrains, &d.n.pieceBoundFragments)
		return 0
	}
	if tr.header != 0 {
		headerCells = 0
	}
	d.hold(t)
	if !d.reserve(cells+headerCells, t) {
		return 0
	}
	if fresh < len(f.data) {
		d.n.sameOverlaps++
	}

	if headerCells != 0 {
		tr.header = d.store(f.header)
		tr.headerLen, tr.linkAt, tr.link = len(f.header), f.linkAt, f.link
	}
	if !f.more {
		tr.total = end
	}
	tr.have += fresh
	tr.pieces += int32(gaps)
	for at := start; at < end; {
		to := end
		if next != 0 && int(d.cell(next).start) < end {
			to = int(d.cell(next).start)
		}
		if at < to {
			p := d.store(f.data[at-start : to-start])
			c := d.cell(p)
			c.start, c.end, c.nextPiece = uint16(at), uint16(to), next
			if prev == 0 {
				tr.head = p
			} else {
				d.cell(prev).nextPiece = p
			}
			if next == 0 {
				tr.tail = p
			}
		}
		if to == end {
			break
		}
		prev, at = next, int(d.cell(next).end)
		next = d.cell(next).nextPiece
	}
	if tr.have != tr.total {
		return 0
	}
	return t
}

// train returns the train that f belongs to, a new one if need be. drop says
// that f was dropped and counted instead.
func (d *defragmenter) train(f *fragment, ts int64) (t int32, drop bool) {
	t = d.lookup(&f.key)
	if t == 0 {
		return d.begin(&f.key, ts), false
	}
	tr := &d.trains[t]
	if tr.state == fragDone {
		if !farApart(ts, tr.first, fragDoneNs) && d.isCopy(t, f) {
			d.n.duplicates++
			return 0, true
		}
		d.release(t) // the identification is used again
		return d.begin(&f.key, ts), false
	}
	if farApart(ts, tr.first, d.lim.ageNs) {
		d.drop(t, &d.n.expiredTrains, &d.n.expiredFragments)
		d.release(t)
		return d.begin(&f.key, ts), false
	}
	if tr.state == fragDead {
		d.n.ignored++
		return 0, true
	}
	return t, false
}

// deliver writes the datagram of the complete train t to d.out and returns it,
// or nil if it is too long. The train becomes the mark of a delivered one: of
// each piece the first cell stays. uncounted is as for wellFormed.
func (d *defragmenter) deliver(t int32, ts int64, uncounted int) []byte {
	tr := &d.trains[t]
	n := tr.headerLen
	if n-uncounted+tr.total > fragMaxTotal {
		// The fragments fit with their own headers, which were shorter.
		d.drop(t, &d.n.malformedTrains, &d.n.malformed)
		tr.state = fragDead
		return nil
	}
	d.load(d.out[:n], tr.header)
	for i := tr.head; i != 0; i = d.cell(i).nextPiece {
		c := d.cell(i)
		d.load(d.out[n+int(c.start):n+int(c.end)], i)
		d.freeCells(c.more)
		c.more = 0
	}
	d.freeCells(tr.header)
	tr.header = 0
	d.n.reassembled++
	d.n.used += uint64(tr.fragments)
	d.n.heldFragments -= uint64(tr.fragments)
	d.n.heldTrains--
	tr.fragments = 0
	d.unlink(&d.live, t)
	tr.state, tr.first = fragDone, ts
	d.link(&d.done, t)
	return d.out[:n+tr.total]
}

// isCopy reports whether f is a copy of a fragment of the delivered train t,
// as far as that is still there: same place, same first bytes.
func (d *defragmenter) isCopy(t int32, f *fragment) bool {
	tr := &d.trains[t]
	end := f.start + len(f.data)
	if f.more == (end == tr.total) {
		return false
	}
	for i := tr.head; i != 0; i = d.cell(i).nextPiece {
		c := d.cell(i)
		if int(c.start) == f.start {
			n := min(len(f.data), fragCellData)
			return int(c.end) == end && bytes.Equal(c.data[:n], f.data[:n])
		}
	}
	return false
}

// expire gives up what is too old at now. Trains are queued in the order in
// which they came, which is that of their times as long as the clock of the
// capture does not jump. Where it does, an old one may stand behind a young
// one; then it's given up when its turn or a fragment of its own comes, and
// until then it's only memory, which is bounded.
func (d *defragmenter) expire(now int64) {
	for t := d.done.head; t != 0 && farApart(now, d.trains[t].first, fragDoneNs); t = d.done.head {
		d.release(t)
	}
	for t := d.live.head; t != 0 && farApart(now, d.trains[t].first, d.lim.ageNs); t = d.live.head {
		d.drop(t, &d.n.expiredTrains, &d.n.expiredFragments)
		d.release(t)
	}
}

// farApart reports whether two times differ by more than limit, whichever is
// the earlier: a capture's clock may be set back. The difference is taken
// unsigned, so that hostile times can't overflow it.
func farApart(a, b, limit int64) bool {
	if a < b {
		a, b = b, a
	}
	return uint64(a)-uint64(b) > uint64(limit)
}

// hold counts one more fragment as held by t.
func (d *defragmenter) hold(t int32) {
	tr := &d.trains[t]
	if tr.fragments == 0 {
		d.n.heldTrains++
	}
	tr.fragments++
	d.n.heldFragments++
}

// drop moves the fragments of t from held to the given counters and frees its
// cells. The train itself stays.
func (d *defragmenter) drop(t int32, trains, fragments *uint64) {
	tr := &d.trains[t]
	if tr.fragments > 0 {
		*trains++
		*fragments += uint64(tr.fragments)
		d.n.heldTrains--
		d.n.heldFragments -= uint64(tr.fragments)
		tr.fragments = 0
	}
	d.freePieces(t)
}

// discard drops t, the fragment at hand included, and leaves a mark in its
// place.
func (d *defragmenter) discard(t int32, trains, fragments *uint64) {
	d.hold(t)
	d.drop(t, trains, fragments)
	d.trains[t].state = fragDead
}

// begin makes a train for key. If there are too many, the mark of a delivered
// datagram goes first, then the oldest train.
func (d *defragmenter) begin(key *fragKey, ts int64) int32 {
	if d.freeTrain == 0 && int(d.newTrain) == len(d.trains) {
		t := d.done.head
		if t == 0 {
			t = d.live.head
			d.drop(t, &d.n.trainBoundTrains, &d.n.trainBoundFragments)
		}
		d.release(t)
	}
	t := d.freeTrain
	if t != 0 {
		d.freeTrain = d.trains[t].next
	} else {
		t = d.newTrain
		d.newTrain++
	}
	b := d.bucket(key)
	d.trains[t] = fragTrain{key: *key, first: ts, total: -1, hashNext: d.buckets[b]}
	d.buckets[b] = t
	d.link(&d.live, t)
	return t
}

// release forgets the train t, whose fragments were counted, and its cells.
func (d *defragmenter) release(t int32) {
	d.freePieces(t)
	tr := &d.trains[t]
	if tr.state == fragDone {
		d.unlink(&d.done, t)
	} else {
		d.unlink(&d.live, t)
	}
	at := &d.buckets[d.bucket(&tr.key)]
	for *at != t {
		at = &d.trains[*at].hashNext
	}
	*at = tr.hashNext
	tr.next = d.freeTrain
	d.freeTrain = t
}

// lookup returns the train or mark of key, or 0.
func (d *defragmenter) lookup(key *fragKey) int32 {
	t := d.buckets[d.bucket(key)]
	for t != 0 && d.trains[t].key != *key {
		t = d.trains[t].hashNext
	}
	return t
}

func (d *defragmenter) bucket(key *fragKey) int {
	b, _ := bits.Mul64(maphash.Bytes(d.seed, key[:]), uint64(len(d.buckets)))
	return int(b)
}

func (d *defragmenter) link(l *fragList, t int32) {
	tr := &d.trains[t]
	tr.prev, tr.next = l.tail, 0
	if l.tail == 0 {
		l.head = t
	} else {
		d.trains[l.tail].next = t
	}
	l.tail = t
}

func (d *defragmenter) unlink(l *fragList, t int32) {
	tr := &d.trains[t]
	if tr.prev == 0 {
		l.head = tr.next
	} else {
		d.trains[tr.prev].next = tr.next
	}
	if tr.next == 0 {
		l.tail = tr.prev
	} else {
		d.trains[tr.next].prev = tr.prev
	}
}

// reserve makes room for n cells: marks of delivered datagrams go first, then
// the oldest trains. It reports whether t, which gets the cells, survived.
func (d *defragmenter) reserve(n, t int32) bool {
	for d.maxCells-d.used < n {
		if v := d.done.head; v != 0 {
			d.release(v)
			continue
		}
		v := d.live.head
		d.drop(v, &d.n.byteBoundTrains, &d.n.byteBoundFragments)
		d.release(v)
		if v == t {
			return false
		}
	}
	return true
}

// cellsFor returns how many cells hold n bytes.
func cellsFor(n int) int32 { return int32((n + fragCellData - 1) / fragCellData) }

func (d *defragmenter) cell(i int32) *fragCell { return &d.blocks[i/fragBlock][i%fragBlock] }

// store copies data into reserved cells and returns the first.
func (d *defragmenter) store(data []byte) int32 {
	first, last := int32(0), (*fragCell)(nil)
	for len(data) > 0 {
		i := d.freeCell
		if i != 0 {
			d.freeCell = d.cell(i).more
		} else {
			i = d.newCell
			d.newCell++
			if int(i/fragBlock) == len(d.blocks) {
				d.blocks = append(d.blocks, make([]fragCell, fragBlock))
			}
		}
		d.used++
		c := d.cell(i)
		c.more, c.nextPiece = 0, 0
		data = data[copy(c.data[:], data):]
		if last == nil {
			first = i
		} else {
			last.more = i
		}
		last = c
	}
	d.n.heldBytes = uint64(d.used) * fragCellSize
	return first
}

// load fills dst from the cells at i.
func (d *defragmenter) load(dst []byte, i int32) {
	for len(dst) > 0 {
		c := d.cell(i)
		dst = dst[copy(dst, c.data[:]):]
		i = c.more
	}
}

// same reports whether the piece at i and f have the same bytes where they
// overlap.
func (d *defragmenter) same(i int32, f *fragment) bool {
	c := d.cell(i)
	at := int(c.start) // of the cell's first byte
	from, to := max(at, f.start), min(int(c.end), f.start+len(f.data))
	for ; from < to; c = d.cell(c.more) {
		if next := min(at+fragCellData, to); from < next {
			if !bytes.Equal(c.data[from-at:next-at], f.data[from-f.start:next-f.start]) {
				return false
			}
			from = next
		}
		at += fragCellData
	}
	return true
}

// freePieces frees all cells of t.
func (d *defragmenter) freePieces(t int32) {
	tr := &d.trains[t]
	for i := tr.head; i != 0; {
		next := d.cell(i).nextPiece
		d.freeCells(i)
		i = next
	}
	d.freeCells(tr.header)
	tr.head, tr.tail, tr.header, tr.pieces = 0, 0, 0, 0
	d.n.heldBytes = uint64(d.used) * fragCellSize
}

// freeCells frees the cells chained at i.
func (d *defragmenter) freeCells(i int32) {
	for i != 0 {
		c := d.cell(i)
		next := c.more
		c.more = d.freeCell
		d.freeCell = i
		d.used--
		i = next
	}
	d.n.heldBytes = uint64(d.used) * fragCellSize
}
