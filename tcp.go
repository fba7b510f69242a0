package main

// TCP segments enter, in capture order; whole DNS messages leave, each to the sink, framed by the 2-byte length of RFC 1035
// §4.2.2 (RFC 7766). One table belongs to one worker goroutine: no locks, all time is packet time.
//
// Why not gopacket's reassembly (v1.7.7): it closes idle streams in the order of a Go map, so output order would
// differ from run to run; its streams have no bound in number and its page cache never shrinks; every segment that waits takes a
// page of its own, even for one byte; each stream and each context is allocated; it records ACK numbers but never uses them, so
// a hole waits for the flush; it does not know segments cut by the snaplen; and a stream joined in the middle waits for its start.
//
// Rules: a segment in order is framed where it lies, without a copy. Of bytes seen twice the first win. Every captured payload
// byte ends in exactly one of: messageBytes, retransBytes, skippedBytes, searchBytes, partialBytes, junkBytes, afterEndBytes,
// boundBytes. Stream records, holds, nodes and buffers come from slabs and free lists; records hold no pointers.

import "encoding/binary"

// tcpSink takes the messages.
type tcpSink interface {
	// tcpMessage is called for each DNS message completed in a stream. fl is the sender→receiver flow and msg the message
	// without its length prefix; both are valid only during the call and must not be changed. wire is the message's full
	// length in bytes by its prefix; cut says that the snaplen cut it and msg is the readable beginning (12 bytes at
	// least). ts is the time (ns) of the packet that brought the message's last byte. seq is the number of the
	// packet at which the message became known to be complete: the same packet, or, behind bytes that the capture lost,
	// the later one that showed the loss; where tick or flush showed it, the stream's last packet.
	tcpMessage(fl *flow, hash uint64, msg []byte, wire int, cut bool, ts int64, seq uint64, vlan uint16)
}

// tcpLimits are the bounds of one table.
type tcpLimits struct {
	streams     int   // connections held
	streamBytes int   // bytes buffered per direction, 65,539 at least
	totalBytes  int   // bytes of buffers of all connections, with their bookkeeping
	idleNs      int64 // a connection is closed after this time without a packet
}

// tcpCounters counts what a table did. Plain fields: the table's goroutine owns them.
type tcpCounters struct {
	segments     uint64 // TCP segments taken
	payloadBytes uint64 // captured payload bytes of them
	malformed    uint64 // segments whose header is cut or contradicts itself

	messages           uint64 // messages delivered
	messageBytes       uint64 // captured bytes of them, with prefixes
	messagesCut        uint64 // delivered messages that the snaplen cut
	messagesUnreadable uint64 // messages cut by the snaplen inside their header, not delivered
	messagesEmpty      uint64 // length prefixes of 0
	messagesShort      uint64 // messages shorter than a header, passed over
	messagesBroken     uint64 // messages begun and lost to a hole
	partialsDropped    uint64 // messages begun and never completed
	partialBytes       uint64 // captured bytes of messages broken, dropped or unreadable
	skippedBytes       uint64 // bytes passed over: the rest of such messages, short and empty ones

	retransBytes  uint64 // payload bytes seen before
	outOfOrder    uint64 // segments that came before their turn
	holes         uint64 // holes given up
	holeBytes     uint64 // sequence space of them
	resyncs       uint64 // message boundaries found again
	searchBytes   uint64 // bytes passed over in the search for one
	afterEndBytes uint64 // payload after a FIN or in or after an RST
	jumps         uint64 // directions whose sequence numbers jumped, taken as a new stream
	rstIgnored    uint64 // RSTs far outside of the window

	streams     uint64 // connections opened
	midstream   uint64 // directions first seen without their SYN
	closedFIN   uint64 // connections closed by a FIN each way
	closedRST   uint64 // … by RST
	closedIdle  uint64 // … by idle time
	closedReuse uint64 // … by a new SYN between the same ends
	closedEnd   uint64 // … by the end of input
	evicted     uint64 // … at the bound of connections, having carried payload
	evictedBare uint64 // … at the bound of connections, without payload

	givenUp   uint64 // directions that carry no DNS
	junkBytes uint64 // payload bytes of them

	boundStream uint64 // holes given up because a direction held streamBytes, or its maximum of separate pieces
	boundTotal  uint64 // connections that gave up what they held because the table held totalBytes
	boundBytes  uint64 // payload bytes dropped because there was no room
}

const (
	tcpHeaderLen  = 20 // RFC 9293 §3.1
	tcpMaxPiece   = 65535 + 2
	tcpMaxNodes   = 64                                      // separate out-of-order pieces a direction may hold
	tcpWindow     = 1 << 24                                 // sequence distance beyond which a segment is no part of the same stream
	tcpAfterEnd   = 1 << 12                                 // payload this far behind a FIN is stray; farther, a new stream
	tcpSearchMax  = 4 * tcpMaxPiece                         // bytes searched for a boundary before a direction is given up
	tcpCarry      = 512                                     // bytes joined to a search window: more than a candidate needs to be decided
	tcpShortsMax  = 4                                       // empty and short messages allowed before the first real one
	tcpClosedMax  = 4096                                    // closed connections remembered, so that late copies of their segments are known
	tcpLingerNs   = 10e9                                    // and for how long
	tcpHoldCost   = 128                                     // bytes charged for a hold, beside its buffer
	tcpNodeCost   = 64                                      // and for a node
	tcpOpcodes    = 1<<0 | 1<<1 | 1<<2 | 1<<4 | 1<<5 | 1<<6 // QUERY, IQUERY, STATUS, NOTIFY, UPDATE, DSO
	tcpFirstTrust = 1                                       // messages after which the framing of a stream seen from its SYN is trusted
	tcpJoinTrust  = 2                                       // and of one that was joined or found again
)

// States of a direction.
const (
	tcpNew    = iota // nothing seen
	tcpSynced        // next message boundary known
	tcpLost          // boundary unknown: searching
	tcpJunk          // no DNS: payload is only counted
	tcpDone          // ended by FIN or RST
)

// Flags of a direction.
const (
	tcpFlagSYN    = 1 << iota // isn is known
	tcpFlagFIN                // fin is known
	tcpFlagCut                // the bytes from next to cutEnd were cut by the snaplen
	tcpFlagUnsure             // the boundary was found by plausibility
	tcpFlagQ                  // carried a query
	tcpFlagR                  // carried a response
)

// Lists a connection may be in, in the order in which they are evicted.
const (
	tcpListClosed = iota
	tcpListBare   // no payload yet
	tcpListPlain  // payload seen, nothing held
	tcpListHeld   // holds buffers
	tcpLists
)

// tcpHalf is one direction of a connection. The zero value is one of which nothing was seen.
type tcpHalf struct {
	next    uint32 // sequence number of the next byte wanted
	isn     uint32
	fin     uint32 // sequence number of the FIN
	cutEnd  uint32
	skip    uint32 // bytes to pass over before the next boundary
	scanned uint32 // bytes searched since the boundary was lost
	hold    int32  // what it holds, 0 = nothing
	vlan    uint16
	state   uint8
	flags   uint8
	good    uint8 // messages delivered since the boundary was found, 2 at most
	shorts  uint8
}

// tcpStream is one connection, 152 bytes without pointers. Index 0 is none.
type tcpStream struct {
	hash       uint64
	last       int64  // time of its last packet
	lastSeq    uint64 // and its number
	key        flow   // direction 0
	half       [2]tcpHalf
	chain      int32 // next in the hash chain or the free list
	prev, next int32 // in its list, which is ordered by the arrival of the last packet
	list       uint8
	closed     bool // counted as closed
	reset      bool // by RST
	payload    bool
}

// tcpHold is what one direction holds: the beginning of a message (or, in the state tcpLost, the window searched) and
// the pieces that came out of order.
type tcpHold struct {
	part  []byte // nil or a pooled buffer
	pos   int    // stream bytes that part stands for: more than len(part) where the snaplen cut it
	ts    int64  // time of the packet that brought its last byte
	first int32  // nodes, by sequence number
	nodes int32
	bytes int   // of part and nodes
	free  int32 // next free hold
}

// tcpNode is one out-of-order piece. Nodes of a direction never overlap.
type tcpNode struct {
	data []byte // pooled
	seq  uint32
	wire uint32 // bytes on the wire, more than len(data) where the snaplen cut it
	ts   int64  // time of the packet that brought its last byte
	next int32
}

// tcpClasses are the sizes of pooled buffers. Each is four times the one before, so that a buffer which grows a byte
// at a time is copied at most a third of a byte per byte.
var tcpClasses = [...]int{128, 512, 2048, 8192, 32768, tcpMaxPiece + 255}

type (
	tcpStreamPage [256]tcpStream
	tcpHoldPage   [64]tcpHold
	tcpNodePage   [64]tcpNode
)

// tcpTable reassembles the streams of one worker. Not for sharing; made by newTCPTable.
type tcpTable struct {
	lim  tcpLimits
	sink tcpSink
	c    tcpCounters

	// of the packet being worked on; ts is set back where a message was completed by an earlier one
	ts  int64
	seq uint64
	fl  flow // handed to the sink: the caller's flow need not escape to the heap

	buckets []int32 // heads of hash chains, a power of two of them
	shift   uint

	streamPages []*tcpStreamPage
	streamFree  int32
	streamsMade int32
	held        int
	head, tail  [tcpLists]int32
	closedHeld  int

	holdPages []*tcpHoldPage
	holdFree  int32
	holdsMade int32
	nodePages []*tcpNodePage
	nodeFree  int32
	nodesMade int32

	bufs [len(tcpClasses)][][]byte // free buffers
	used int                       // bytes charged
	// payloadHeld is the captured payload bytes in parts, windows and pieces: what the eight counters lack of
	// payloadBytes at any time between two calls.
	payloadHeld int
	spare       int  // bytes of free buffers; used+spare never exceeds totalBytes
	settling    bool // something is being given up: nothing else may be for its sake
	maxClosed   int  // closed connections remembered
}

// newTCPTable returns an empty table.
func newTCPTable(lim tcpLimits, sink tcpSink) *tcpTable {
	lim.streams = max(lim.streams, 1)
	lim.streamBytes = max(lim.streamBytes, tcpMaxPiece+2)
	const bits = 10
	return &tcpTable{
		lim: lim, sink: sink,
		buckets: make([]int32, 1<<bits), shift: 64 - bits,
		streamsMade: 1, holdsMade: 1, nodesMade: 1,
		maxClosed: min(tcpClosedMax, lim.streams),
	}
}

func (t *tcpTable) counters() *tcpCounters { return &t.c }

// streamsHeld returns the connections held, those closed but remembered included.
func (t *tcpTable) streamsHeld() int { return t.held }

// payloadBytesHeld returns the captured payload bytes that are neither delivered nor given up yet.
func (t *tcpTable) payloadBytesHeld() int { return t.payloadHeld }

// bytesHeld returns the bytes of buffers in use, with their bookkeeping.
func (t *tcpTable) bytesHeld() int { return t.used }

// segment takes one TCP segment: seg is header, options and payload as captured, wireLen their length by the IP header
// (more than len(seg) where the snaplen cut it). hash is the keyed hash of the flow, the same both ways. Neither fl nor seg is
// kept or changed.
func (t *tcpTable) segment(fl *flow, hash uint64, seg []byte, wireLen int, ts int64, seq uint64, vlan uint16) {
	t.c.segments++
	if len(seg) < tcpHeaderLen {
		t.c.malformed++
		return
	}
	off := int(seg[12]>>4) * 4
	if off < tcpHeaderLen || off > wireLen {
		t.c.malformed++
		return
	}
	const fin, syn, rst, ack = 1, 2, 4, 16
	flags := seg[13]
	sn := binary.BigEndian.Uint32(seg[4:])
	wire := wireLen - off
	var p []byte
	if off < len(seg) {
		p = seg[off:min(len(seg), wireLen)]
	}
	t.c.payloadBytes += uint64(len(p))
	t.ts, t.seq = ts, seq

	i, d := t.find(fl, hash)
	if i == 0 {
		if flags&rst != 0 || wire == 0 && flags&syn == 0 {
			t.c.afterEndBytes += uint64(len(p))
			return
		}
		i = t.open(fl, hash)
	}
	s := t.stream(i)
	s.last, s.lastSeq = ts, seq

	if flags&ack != 0 {
		if o := &s.half[1-d]; o.hold != 0 || o.flags&(tcpFlagCut|tcpFlagFIN) != 0 && o.state != tcpDone {
			t.acked(s, 1-d, binary.BigEndian.Uint32(seg[8:]))
			t.ts = ts
		}
	}
	if flags&rst != 0 {
		t.c.afterEndBytes += uint64(len(p))
		t.rst(s, d, sn)
		t.place(i, s)
		return
	}
	if flags&syn != 0 {
		t.syn(s, d, sn)
		sn++
	}
	if wire > 0 {
		s.payload = true
		s.half[d].vlan = vlan
		t.payload(s, d, sn, p, wire)
	}
	if flags&fin != 0 {
		t.fin(s, d, sn+uint32(wire))
	} else if s.half[d].flags&tcpFlagFIN != 0 {
		t.ended(s, d)
	}
	t.place(i, s)
}

// tick closes the connections that had no packet for idleNs of packet time before now. What they hold behind holes is
// delivered, the connection with the oldest last packet first. Time may jump either way: idle is the distance.
func (t *tcpTable) tick(now int64) {
	for list := range t.head {
		limit := t.lim.idleNs
		if list == tcpListClosed {
			limit = min(limit, tcpLingerNs)
		}
		for {
			i := t.head[list]
			if i == 0 {
				break
			}
			s := t.stream(i)
			if age := now - s.last; age <= limit && age >= -limit {
				break
			}
			t.seq = s.lastSeq
			t.settle(s)
			t.count(s, &t.c.closedIdle)
			t.remove(i, s)
		}
	}
}

// flush closes all connections at the end of input, as tick does. The table is empty after it and can be used again.
func (t *tcpTable) flush() {
	for list := range t.head {
		for t.head[list] != 0 {
			i := t.head[list]
			s := t.stream(i)
			t.seq = s.lastSeq
			t.settle(s)
			t.count(s, &t.c.closedEnd)
			t.remove(i, s)
		}
	}
}

// count counts s as closed, once.
func (t *tcpTable) count(s *tcpStream, c *uint64) {
	if !s.closed {
		s.closed = true
		*c++
	}
}

// syn takes the SYN of direction d with the initial sequence number isn.
func (t *tcpTable) syn(s *tcpStream, d int, isn uint32) {
	h := &s.half[d]
	switch {
	case h.state == tcpNew && !s.closed:
	case h.flags&tcpFlagSYN != 0 && h.isn == isn:
		return // sent again
	case h.flags&tcpFlagSYN == 0 && h.state != tcpNew && !s.closed && h.next-(isn+1) < 1<<16:
		// It was overtaken by its data, at which the stream was joined.
		h.isn, h.flags = isn, h.flags|tcpFlagSYN
		return
	default:
		t.restart(s)
	}
	h.isn, h.next, h.state = isn, isn+1, tcpSynced
	h.flags |= tcpFlagSYN
}

// restart makes s a new connection between the same ends.
func (t *tcpTable) restart(s *tcpStream) {
	t.settle(s)
	t.count(s, &t.c.closedReuse)
	s.half = [2]tcpHalf{}
	s.closed, s.reset, s.payload = false, false, false
	t.c.streams++
}

// rst takes an RST with the sequence number sn. What is complete is delivered, what is not is dropped. The other direction's
// segments may have crossed the RST, so they are still framed.
func (t *tcpTable) rst(s *tcpStream, d int, sn uint32) {
	h := &s.half[d]
	if dist := int32(sn - h.next); h.state != tcpNew && (dist > tcpWindow || dist < -tcpWindow) {
		t.c.rstIgnored++
		return
	}
	t.settle(s)
	t.count(s, &t.c.closedRST)
	s.reset = true
	h.state = tcpDone
}

// fin takes a FIN of direction d with the sequence number sn.
func (t *tcpTable) fin(s *tcpStream, d int, sn uint32) {
	h := &s.half[d]
	if h.state == tcpDone {
		return
	}
	if h.state == tcpNew {
		h.next = sn
	}
	if h.flags&tcpFlagFIN == 0 {
		if dist := int32(sn - h.next); h.state != tcpJunk && (dist < 0 || dist > tcpWindow) {
			return
		}
		h.fin = sn
		h.flags |= tcpFlagFIN
	}
	t.ended(s, d)
}

// ended closes direction d, whose FIN was seen, if nothing before the FIN is wanting.
func (t *tcpTable) ended(s *tcpStream, d int) {
	h := &s.half[d]
	if h.state == tcpDone {
		return
	}
	if h.state != tcpJunk && int32(h.fin-h.next) > 0 {
		if h.flags&tcpFlagCut == 0 || int32(h.fin-h.cutEnd) > 0 || h.hold != 0 && t.hold(h.hold).first != 0 {
			return
		}
		t.gap(s, d, h.cutEnd, true)
	}
	t.end(s, d)
}

// end ends direction d: what is left of a message is dropped.
func (t *tcpTable) end(s *tcpStream, d int) {
	t.dropPart(s, d)
	s.half[d].state = tcpDone
	if s.half[1-d].state == tcpDone {
		t.count(s, &t.c.closedFIN)
	}
}

// acked takes an acknowledgement of direction d's bytes up to a: what lies before a and was not captured won't come.
// Only an acknowledgement captured after the bytes behind a hole counts, so that a capture that has the two
// directions slightly out of order loses nothing.
func (t *tcpTable) acked(s *tcpStream, d int, a uint32) {
	h := &s.half[d]
	if dist := int32(a - h.next); dist <= 0 || dist > tcpWindow || h.state == tcpNew {
		return
	}
	for {
		if h.flags&tcpFlagCut != 0 && int32(a-h.cutEnd) >= 0 {
			t.gap(s, d, h.cutEnd, true)
			t.drain(s, d, true)
			continue
		}
		if h.hold == 0 {
			break
		}
		n := t.hold(h.hold).first
		if n == 0 || int32(a-t.node(n).seq) < 0 {
			break
		}
		t.skipHole(s, d)
	}
	if h.flags&tcpFlagFIN != 0 && int32(a-h.fin) > 0 && h.state != tcpDone {
		if n := h.fin - h.next; int32(n) > 0 && h.state != tcpJunk {
			t.gap(s, d, h.fin, false)
		}
		t.end(s, d)
	}
}

// payload takes the bytes p at the sequence number sn in direction d; wire ≥ len(p) of them were on the wire.
func (t *tcpTable) payload(s *tcpStream, d int, sn uint32, p []byte, wire int) {
	h := &s.half[d]
	if h.state == tcpJunk {
		t.c.junkBytes += uint64(len(p))
		return
	}
	dist := int32(sn - h.next)
	if h.state != tcpNew {
		far := dist > tcpWindow || dist < -tcpWindow
		if s.closed && h.state == tcpDone && (far || dist > tcpAfterEnd) {
			t.restart(s)
			s.payload = true
		} else if far && h.state != tcpDone {
			t.settleHalf(s, d)
			t.c.jumps++
			*h = tcpHalf{vlan: h.vlan}
		}
	}
	switch h.state {
	case tcpNew:
		t.c.midstream++
		h.next, h.state = sn, tcpLost
		dist = 0
	case tcpDone:
		if dist < 0 {
			n := min(int(-int64(dist)), len(p))
			t.c.retransBytes += uint64(n)
			p = p[n:]
		}
		t.c.afterEndBytes += uint64(len(p))
		return
	}
	if h.flags&tcpFlagFIN != 0 {
		if over := int32(sn + uint32(wire) - h.fin); over > 0 {
			wire -= min(int(over), wire)
			if len(p) > wire {
				t.c.afterEndBytes += uint64(len(p) - wire)
				p = p[:wire]
			}
		}
	}
	if dist > 0 {
		if dist = t.makeWay(s, d, sn, len(p)); h.state == tcpJunk {
			t.c.junkBytes += uint64(len(p))
			return
		}
	}
	if dist < 0 {
		old := int(-int64(dist))
		n := min(old, len(p))
		t.c.retransBytes += uint64(n)
		p = p[n:]
		if wire -= old; wire <= 0 {
			return
		}
		dist = 0
	}
	if dist == 0 && h.hold == 0 && wire == len(p) {
		h.next += uint32(wire)
		t.feed(s, d, p, true)
		if h.flags&tcpFlagCut != 0 && int32(h.next-h.cutEnd) >= 0 {
			h.flags &^= tcpFlagCut
		}
		return
	}
	if dist > 0 && h.flags&tcpFlagCut != 0 && int32(sn-h.cutEnd) <= 0 {
		t.gap(s, d, sn, true)
		dist = 0
	}
	if dist > 0 {
		t.c.outOfOrder++
		t.insert(s, d, sn, p, wire)
		return
	}
	t.inOrder(s, d, p, wire)
}

// inOrder takes bytes at h.next where pieces may wait behind it.
func (t *tcpTable) inOrder(s *tcpStream, d int, p []byte, wire int) {
	h := &s.half[d]
	end := h.next + uint32(wire)
	start := true
	for h.hold != 0 {
		n := t.hold(h.hold).first
		if n == 0 {
			break
		}
		gap := int(int32(t.node(n).seq - h.next))
		if len(p) < gap {
			break
		}
		h.next += uint32(gap)
		t.feed(s, d, p[:gap], start)
		start = false
		p = p[gap:]
		if h.hold == 0 || t.hold(h.hold).first == 0 {
			break // given up
		}
		// The piece was seen first.
		before := h.next
		t.popNode(s, d)
		n2 := min(int(h.next-before), len(p))
		t.c.retransBytes += uint64(n2)
		p = p[n2:]
		if len(p) == 0 {
			break
		}
	}
	h.next += uint32(len(p))
	t.feed(s, d, p, start)
	if h.flags&tcpFlagCut != 0 && int32(h.next-h.cutEnd) >= 0 {
		h.flags &^= tcpFlagCut
	}
	if int32(end-h.next) > 0 {
		h.setCut(end)
	}
	t.drain(s, d, false)
}

// setCut notes that the bytes from next to end were cut by the snaplen.
func (h *tcpHalf) setCut(end uint32) {
	if h.flags&tcpFlagCut == 0 || int32(end-h.cutEnd) > 0 {
		h.cutEnd = end
		h.flags |= tcpFlagCut
	}
}

// drain takes the pieces that are next in order, and those behind bytes that the snaplen cut. late says that no
// packet just filled a hole, so that the pieces' own times count.
func (t *tcpTable) drain(s *tcpStream, d int, late bool) {
	h := &s.half[d]
	for h.hold != 0 {
		o := t.hold(h.hold)
		if o.first == 0 {
			return
		}
		n := t.node(o.first)
		if dist := int32(n.seq - h.next); dist > 0 {
			if h.flags&tcpFlagCut == 0 || int32(n.seq-h.cutEnd) > 0 {
				return
			}
			t.gap(s, d, n.seq, true)
			continue
		}
		if late {
			t.ts = n.ts
		}
		t.popNode(s, d)
	}
}

// popNode feeds the first piece, which is next in order or overlaps what came, and frees it.
func (t *tcpTable) popNode(s *tcpStream, d int) {
	h := &s.half[d]
	o := t.hold(h.hold)
	i := o.first
	n := *t.node(i)
	o.first = n.next
	o.nodes--
	o.bytes -= len(n.data)
	t.payloadHeld -= len(n.data)
	t.freeNode(i)
	p := n.data
	if old := int(h.next - n.seq); old > 0 {
		old = min(old, len(p))
		t.c.retransBytes += uint64(old)
		p = p[old:]
	}
	h.next += uint32(len(p))
	t.feed(s, d, p, true)
	t.releaseBuf(n.data)
	t.tidy(h)
	if h.flags&tcpFlagCut != 0 && int32(h.next-h.cutEnd) >= 0 {
		h.flags &^= tcpFlagCut
	}
	if end := n.seq + n.wire; int32(end-h.next) > 0 {
		h.setCut(end)
	}
}

// skipHole gives up the hole before the first piece.
func (t *tcpTable) skipHole(s *tcpStream, d int) {
	h := &s.half[d]
	if h.flags&tcpFlagCut != 0 {
		t.gap(s, d, h.cutEnd, true)
	}
	if h.hold == 0 {
		return
	}
	first := t.hold(h.hold).first
	if first == 0 {
		return
	}
	if n := t.node(first).seq; int32(n-h.next) > 0 {
		t.gap(s, d, n, false)
	}
	t.drain(s, d, true)
}

// gap moves direction d over the missing bytes from next to the sequence number to. Bytes cut by the snaplen leave the
// message readable in part; bytes that the capture lost break it. Where the length of the message is known and it
// ends in or behind the gap's end, the next boundary is exact.
func (t *tcpTable) gap(s *tcpStream, d int, to uint32, cut bool) {
	h := &s.half[d]
	g := to - h.next
	h.next = to
	if h.flags&tcpFlagCut != 0 && int32(to-h.cutEnd) >= 0 {
		h.flags &^= tcpFlagCut
	}
	if !cut {
		t.c.holes++
		t.c.holeBytes += uint64(g)
	}
	if h.state == tcpLost && cut {
		t.searchLast(s, d)
	}
	if h.state != tcpSynced {
		if h.state == tcpLost {
			t.dropPart(s, d)
		}
		return
	}
	n := min(h.skip, g)
	h.skip -= n
	g -= n
	if h.hold != 0 && g > 0 {
		if o := t.hold(h.hold); len(o.part) >= 2 {
			total := 2 + int(binary.BigEndian.Uint16(o.part))
			rest := uint32(total - o.pos)
			n := min(rest, g)
			if cut || o.pos > len(o.part) {
				o.pos += int(n)
				if n == rest {
					t.deliverCut(s, d)
				}
			} else {
				t.c.messagesBroken++
				t.c.partialBytes += uint64(len(o.part))
				t.freePart(h)
				h.skip = rest - n
			}
			g -= n
		}
	}
	if g > 0 {
		t.dropPart(s, d)
		t.lose(h)
	}
}

// lose forgets where the message boundaries are.
func (t *tcpTable) lose(h *tcpHalf) {
	h.state, h.skip, h.scanned = tcpLost, 0, 0
}

// settle delivers what is complete in both directions, drops the rest and frees what they hold. The connection can go on.
func (t *tcpTable) settle(s *tcpStream) {
	for d := range s.half {
		t.settleHalf(s, d)
	}
}

func (t *tcpTable) settleHalf(s *tcpStream, d int) {
	h := &s.half[d]
	if h.hold == 0 && h.flags&tcpFlagCut == 0 {
		return
	}
	ts, was := t.ts, t.settling
	t.settling = true
	for h.hold != 0 && t.hold(h.hold).first != 0 {
		t.skipHole(s, d)
	}
	if h.flags&tcpFlagCut != 0 {
		t.gap(s, d, h.cutEnd, true)
	}
	t.dropPart(s, d)
	t.ts, t.settling = ts, was
}

// dropPart drops the beginning of a message, or the window of a search, that won't be completed. A message cut by
// the snaplen is delivered as far as it goes.
func (t *tcpTable) dropPart(s *tcpStream, d int) {
	h := &s.half[d]
	if h.hold == 0 {
		return
	}
	o := t.hold(h.hold)
	if o.part == nil {
		return
	}
	if h.state == tcpLost {
		t.c.searchBytes += uint64(len(o.part))
		t.freePart(h)
		return
	}
	if len(o.part) < 2 {
		t.c.partialBytes += uint64(len(o.part))
		t.c.partialsDropped++
		t.freePart(h)
		t.lose(h)
		return
	}
	rest := 2 + int(binary.BigEndian.Uint16(o.part)) - o.pos
	if o.pos > len(o.part) {
		t.deliverCut(s, d)
	} else {
		t.c.partialBytes += uint64(len(o.part))
		t.c.partialsDropped++
		t.freePart(h)
	}
	h.skip = uint32(rest)
}

// feed frames the bytes p, which are next in direction d. start says that p begins a captured segment.
func (t *tcpTable) feed(s *tcpStream, d int, p []byte, start bool) {
	h := &s.half[d]
	for len(p) > 0 {
		if h.state != tcpSynced {
			if h.state != tcpLost {
				t.c.junkBytes += uint64(len(p))
				return
			}
			rest := t.search(s, d, p, start)
			start = start && len(rest) == len(p)
			p = rest
			continue
		}
		if h.skip > 0 {
			n := min(int(h.skip), len(p))
			h.skip -= uint32(n)
			t.c.skippedBytes += uint64(n)
			p = p[n:]
			continue
		}
		if h.hold != 0 && t.hold(h.hold).part != nil {
			p = t.fill(s, d, p)
			continue
		}
		if len(p) < 2 {
			t.keep(s, d, p)
			return
		}
		n := 2 + int(binary.BigEndian.Uint16(p))
		if n < 2+dnsHeaderLen {
			t.c.skippedBytes += 2
			t.short(s, d, n-2)
			p = p[2:]
			continue
		}
		if len(p) >= 2+dnsHeaderLen && h.doubtful() && !tcpLikeDNS(p) {
			t.reject(s, d)
			continue
		}
		if len(p) < n {
			t.keep(s, d, p)
			return
		}
		t.c.messageBytes += uint64(n)
		t.deliver(s, d, p[2:n], n-2, false)
		p = p[n:]
	}
}

// doubtful says whether the next header must look like DNS for the framing to be believed.
func (h *tcpHalf) doubtful() bool {
	if h.flags&tcpFlagUnsure != 0 {
		return h.good < tcpJoinTrust
	}
	return h.good < tcpFirstTrust
}

// short takes a message of n < 12 bytes, whose prefix was consumed: it is passed over. A stream that has
// nothing else is no DNS.
func (t *tcpTable) short(s *tcpStream, d, n int) {
	h := &s.half[d]
	if n == 0 {
		t.c.messagesEmpty++
	} else {
		t.c.messagesShort++
	}
	h.skip = uint32(n)
	if h.good == 0 {
		if h.shorts++; h.shorts > tcpShortsMax {
			t.reject(s, d)
		}
	}
}

// reject ends the belief in direction d's framing: one seen from its SYN carries no DNS, another is searched again.
func (t *tcpTable) reject(s *tcpStream, d int) {
	h := &s.half[d]
	h.shorts = 0
	if h.flags&tcpFlagUnsure != 0 {
		scanned := h.scanned
		t.lose(h)
		h.scanned = scanned
		return
	}
	t.giveUp(h)
}

// giveUp gives up direction d, which carries no DNS, and frees what it holds.
func (t *tcpTable) giveUp(h *tcpHalf) {
	t.c.givenUp++
	h.state, h.skip = tcpJunk, 0
	h.flags &^= tcpFlagCut
	if h.hold == 0 {
		return
	}
	o := t.hold(h.hold)
	t.c.junkBytes += uint64(o.bytes)
	t.payloadHeld -= o.bytes
	for o.first != 0 {
		i := o.first
		n := t.node(i)
		o.first = n.next
		t.releaseBuf(n.data)
		t.freeNode(i)
	}
	o.nodes, o.bytes = 0, 0
	if o.part != nil {
		t.releaseBuf(o.part)
		o.part = nil
	}
	t.tidy(h)
}

// keep holds p as the beginning of a message.
func (t *tcpTable) keep(s *tcpStream, d int, p []byte) {
	h := &s.half[d]
	o := t.needHold(s, h)
	if o != nil {
		if b := t.takeBuf(s, len(p)); b != nil {
			o.part = append(b, p...)
			o.pos, o.ts = len(p), t.ts
			o.bytes += len(p)
			t.payloadHeld += len(p)
			return
		}
		t.tidy(h)
	}
	t.c.boundBytes += uint64(len(p))
	if h.state == tcpSynced && len(p) >= 2 {
		h.skip = uint32(2 + int(binary.BigEndian.Uint16(p)) - len(p))
	} else if h.state == tcpSynced {
		t.lose(h)
	}
}

// fill adds to the message begun from p, and returns what is left of p.
func (t *tcpTable) fill(s *tcpStream, d int, p []byte) []byte {
	h := &s.half[d]
	o := t.hold(h.hold)
	want := 2
	if len(o.part) >= 2 {
		total := 2 + int(binary.BigEndian.Uint16(o.part))
		if o.pos > len(o.part) { // cut: the rest only passes
			n := min(total-o.pos, len(p))
			t.c.skippedBytes += uint64(n)
			o.pos, o.ts = o.pos+n, t.ts
			if o.pos == total {
				t.deliverCut(s, d)
			}
			return p[n:]
		}
		want = total
		if len(o.part) < 2+dnsHeaderLen {
			want = 2 + dnsHeaderLen
		}
	}
	n := min(want-len(o.part), len(p))
	if !t.grow(s, &o.part, n) {
		t.c.boundBytes += uint64(len(o.part))
		if len(o.part) >= 2 {
			h.skip = uint32(2 + int(binary.BigEndian.Uint16(o.part)) - len(o.part))
		} else {
			t.lose(h)
		}
		t.freePart(h)
		return p
	}
	o.part = append(o.part, p[:n]...)
	o.pos, o.ts = len(o.part), t.ts
	o.bytes += n
	t.payloadHeld += n
	p = p[n:]
	if len(o.part) < want {
		return p
	}
	total := 2 + int(binary.BigEndian.Uint16(o.part))
	switch {
	case total < 2+dnsHeaderLen:
		t.c.skippedBytes += 2
		t.freePart(h)
		t.short(s, d, total-2)
	case len(o.part) == 2+dnsHeaderLen && h.doubtful() && !tcpLikeDNS(o.part):
		t.reject(s, d) // where it is searched again, what is held is the window
	case len(o.part) == total:
		t.c.messageBytes += uint64(total)
		t.deliver(s, d, o.part[2:], total-2, false)
		t.freePart(h)
	}
	return p
}

// deliver hands over one message.
func (t *tcpTable) deliver(s *tcpStream, d int, msg []byte, wire int, cut bool) {
	h := &s.half[d]
	if h.good < tcpJoinTrust {
		h.good++
	}
	if msg[2]&0x80 == 0 {
		h.flags |= tcpFlagQ
	} else {
		h.flags |= tcpFlagR
	}
	t.c.messages++
	if cut {
		t.c.messagesCut++
	}
	t.fl = s.key
	if d != 0 {
		t.fl.src, t.fl.dst = s.key.dst, s.key.src
		t.fl.sport, t.fl.dport = s.key.dport, s.key.sport
	}
	t.sink.tcpMessage(&t.fl, s.hash, msg, wire, cut, t.ts, t.seq, h.vlan)
}

// deliverCut hands over the message that the snaplen cut, at the time of its last packet.
func (t *tcpTable) deliverCut(s *tcpStream, d int) {
	h := &s.half[d]
	o := t.hold(h.hold)
	if len(o.part) < 2+dnsHeaderLen {
		t.c.messagesUnreadable++
		t.c.partialBytes += uint64(len(o.part))
	} else {
		ts := t.ts
		t.ts = o.ts
		t.c.messageBytes += uint64(len(o.part))
		t.deliver(s, d, o.part[2:], int(binary.BigEndian.Uint16(o.part)), true)
		t.ts = ts
	}
	t.freePart(h)
}

// makeWay gives up holes as long as n more bytes ahead of order at the sequence number sn would exceed the bounds of
// direction d, and returns how far ahead they still are.
func (t *tcpTable) makeWay(s *tcpStream, d int, sn uint32, n int) int32 {
	h := &s.half[d]
	ts := t.ts
	for {
		dist := int32(sn - h.next)
		if dist <= 0 || h.hold == 0 || h.state == tcpJunk {
			break
		}
		o := t.hold(h.hold)
		if o.bytes+n <= t.lim.streamBytes && o.nodes < tcpMaxNodes {
			break
		}
		t.c.boundStream++
		if o.first != 0 && int32(t.node(o.first).seq-sn) <= 0 {
			t.skipHole(s, d)
			continue
		}
		if h.flags&tcpFlagCut != 0 && int32(sn-h.cutEnd) > 0 {
			t.gap(s, d, h.cutEnd, true)
		}
		t.gap(s, d, sn, h.flags&tcpFlagCut != 0)
	}
	t.ts = ts
	return int32(sn - h.next)
}

// insert holds bytes that are ahead of order.
func (t *tcpTable) insert(s *tcpStream, d int, sn uint32, p []byte, wire int) {
	h := &s.half[d]
	o := t.needHold(s, h)
	if o == nil {
		t.c.boundBytes += uint64(len(p))
		return
	}
	prev, i := int32(0), o.first
	for wire > 0 {
		k := wire // as far as the next piece
		if i != 0 {
			n := t.node(i)
			if old := int32(n.seq + n.wire - sn); old <= 0 {
				prev, i = i, n.next
				continue
			} else if int32(n.seq-sn) <= 0 { // n's bytes were seen first
				k = min(int(old), wire)
				m := min(k, len(p))
				t.c.retransBytes += uint64(m)
				p, wire, sn = p[m:], wire-k, sn+uint32(k)
				continue
			}
			k = min(wire, int(n.seq-sn))
		}
		m := min(k, len(p))
		prev = t.addPiece(s, o, prev, sn, p[:m], k)
		p, wire, sn = p[m:], wire-k, sn+uint32(k)
	}
	t.tidy(h)
}

// addPiece adds p, of wire bytes, behind the node prev (0 = first) or as a node after it. It returns the node that p is in, or
// prev where there was no room.
func (t *tcpTable) addPiece(s *tcpStream, o *tcpHold, prev int32, sn uint32, p []byte, wire int) int32 {
	if prev != 0 {
		n := t.node(prev)
		if n.seq+n.wire == sn && int(n.wire) == len(n.data) && len(n.data)+len(p) <= tcpMaxPiece {
			if !t.grow(s, &n.data, len(p)) {
				t.c.boundBytes += uint64(len(p))
				return prev
			}
			n.data = append(n.data, p...)
			n.wire += uint32(wire)
			n.ts = t.ts
			o.bytes += len(p)
			t.payloadHeld += len(p)
			return prev
		}
	}
	var b []byte
	if len(p) > 0 {
		if b = t.takeBuf(s, len(p)); b == nil {
			t.c.boundBytes += uint64(len(p))
			return prev
		}
	}
	i := t.newNode(s)
	if i == 0 {
		t.releaseBuf(b)
		t.c.boundBytes += uint64(len(p))
		return prev
	}
	n := t.node(i)
	n.data, n.seq, n.wire, n.ts = append(b, p...), sn, uint32(wire), t.ts
	if prev == 0 {
		n.next, o.first = o.first, i
	} else {
		q := t.node(prev)
		n.next, q.next = q.next, i
	}
	o.nodes++
	o.bytes += len(p)
	t.payloadHeld += len(p)
	return i
}

// search looks for a message boundary in p, which follows the window held. It returns what follows the boundary, or all of
// p where it only decided about the window, or nothing where p was taken.
func (t *tcpTable) search(s *tcpStream, d int, p []byte, start bool) []byte {
	h := &s.half[d]
	qr := t.expectQR(s, d)
	if h.hold == 0 || t.hold(h.hold).part == nil {
		s0 := -1
		if start {
			s0 = 0
		}
		at, maybe := tcpBoundary(p, len(p), s0, -1, qr)
		if at >= 0 {
			t.c.searchBytes += uint64(at)
			t.found(h)
			return p[at:]
		}
		if !t.searched(h, maybe) {
			return p
		}
		t.c.searchBytes += uint64(maybe)
		if maybe < len(p) {
			t.keep(s, d, p[maybe:])
			t.markWindow(h, start && maybe == 0)
		}
		return nil
	}
	o := t.hold(h.hold)
	w := len(o.part)
	n := min(len(p), tcpCarry)
	if !t.grow(s, &o.part, n) {
		t.c.boundBytes += uint64(w)
		t.freePart(h)
		return p
	}
	o.part = append(o.part, p[:n]...)
	o.bytes += n
	t.payloadHeld += n
	o.ts = t.ts
	s0, s1, limit := -1, -1, w
	if o.pos == 0 {
		s0 = 0
	}
	if n == len(p) { // p's own positions are candidates in the window
		limit += n
		if start {
			s1 = w
		}
	}
	at, maybe := tcpBoundary(o.part, limit, s0, s1, qr)
	if at >= 0 {
		t.takeWindow(s, d, at)
		return p[n:]
	}
	if n < len(p) { // nothing begins in the window
		o.part = o.part[:w]
		o.bytes -= n
		t.payloadHeld -= n
		t.c.searchBytes += uint64(w)
		t.freePart(h)
		t.searched(h, w)
		return p
	}
	if t.searched(h, maybe) {
		if t.c.searchBytes += uint64(maybe); maybe == len(o.part) {
			t.freePart(h)
		} else if maybe > 0 {
			copy(o.part, o.part[maybe:])
			o.part = o.part[:len(o.part)-maybe]
			o.bytes -= maybe
			t.payloadHeld -= maybe
			t.markWindow(h, maybe == s1)
		}
	}
	return nil
}

// searchLast decides about the window when no byte that follows it will come: the start of a segment that has a
// plausible header is a boundary.
func (t *tcpTable) searchLast(s *tcpStream, d int) {
	h := &s.half[d]
	if h.hold == 0 {
		return
	}
	if o := t.hold(h.hold); o.part != nil && o.pos == 0 && len(o.part) >= 2+dnsHeaderLen &&
		tcpJudge(o.part, true, t.expectQR(s, d)) != tcpNo {
		ts := t.ts
		t.ts = o.ts
		t.takeWindow(s, d, 0)
		t.ts = ts
	}
}

// takeWindow frames the window from the boundary found in it.
func (t *tcpTable) takeWindow(s *tcpStream, d int, at int) {
	h := &s.half[d]
	o := t.hold(h.hold)
	buf := o.part
	o.part = nil
	o.bytes -= len(buf)
	t.payloadHeld -= len(buf)
	t.c.searchBytes += uint64(at)
	t.found(h)
	t.feed(s, d, buf[at:], false)
	t.releaseBuf(buf)
	t.tidy(h)
}

// markWindow notes in pos, which a window has no other use for, whether the window held begins a segment.
func (t *tcpTable) markWindow(h *tcpHalf, start bool) {
	if h.hold == 0 {
		return
	}
	o := t.hold(h.hold)
	o.pos = 1
	if start {
		o.pos = 0
	}
}

// found notes that the next byte is a message boundary.
func (t *tcpTable) found(h *tcpHalf) {
	t.c.resyncs++
	h.state, h.skip, h.good = tcpSynced, 0, 0
	h.flags |= tcpFlagUnsure
}

// searched notes that n bytes hold no boundary. It says whether the search goes on.
func (t *tcpTable) searched(h *tcpHalf, n int) bool {
	if h.scanned += uint32(n); h.scanned > tcpSearchMax {
		t.giveUp(h)
		return false
	}
	return true
}

// expectQR returns the QR bit that direction d's messages have, or -1 if that isn't known: by port 53, or by what
// was seen before.
func (t *tcpTable) expectQR(s *tcpStream, d int) int {
	from, to := s.key.sport, s.key.dport
	if d != 0 {
		from, to = to, from
	}
	if (from == 53) != (to == 53) {
		if from == 53 {
			return 1
		}
		return 0
	}
	f := s.half[d].flags & (tcpFlagQ | tcpFlagR)
	if f == 0 {
		switch s.half[1-d].flags & (tcpFlagQ | tcpFlagR) {
		case tcpFlagQ:
			return 1
		case tcpFlagR:
			return 0
		}
	}
	switch f {
	case tcpFlagQ:
		return 0
	case tcpFlagR:
		return 1
	}
	return -1
}

// tcpLikeDNS says whether b, a length prefix and a header, may begin a DNS message. It is meant for a stream that is DNS if
// it is anything: one question and one count that lies are let through, so that the decoder counts them.
func tcpLikeDNS(b []byte) bool {
	body := int(binary.BigEndian.Uint16(b)) - dnsHeaderLen - 5*int(binary.BigEndian.Uint16(b[6:]))
	lies := 0
	for i := 8; i < 14; i += 2 {
		if n := 11 * int(binary.BigEndian.Uint16(b[i:])); n <= body {
			body -= n
		} else {
			lies++
		}
	}
	return body >= 0 && (lies == 0 || lies == 1 && b[6] == 0 && b[7] == 1 && tcpOpcodes>>(b[4]>>3&15)&1 != 0 && b[5]&0x40 == 0)
}

// What tcpJudge says of a candidate.
const (
	tcpNo    = iota
	tcpMaybe // more bytes are needed
	tcpYes
)

// tcpJudge says whether b begins with the length prefix of a DNS message: whether the opcode is known, Z is zero, QR is
// as expected (-1 = unknown), the counts fit the length (5 bytes a question, 11 an RR, RFC 1035 §4.1), the first name walks,
// the class exists, and what would be the next message may be one. start says that b begins a segment, which is where
// most messages begin, so that a message without any record is believed.
func tcpJudge(b []byte, start bool, qr int) int {
	if len(b) < 2 {
		return tcpMaybe
	}
	end := 2 + int(binary.BigEndian.Uint16(b))
	if end < 2+dnsHeaderLen {
		return tcpNo
	}
	if len(b) < 2+dnsHeaderLen {
		return tcpMaybe
	}
	qd := int(binary.BigEndian.Uint16(b[6:]))
	if qd > 1 || !tcpHeaderFits(b, qr) {
		return tcpNo
	}
	an := int(binary.BigEndian.Uint16(b[8:]))
	rr := an + int(binary.BigEndian.Uint16(b[10:])) + int(binary.BigEndian.Uint16(b[12:]))
	op := b[4] >> 3 & 15
	if b[4]&0x80 == 0 && op == 0 && an > 0 {
		return tcpNo // a query has no answers
	}
	if qd+rr == 0 {
		if !start || end > 2+dnsHeaderLen && op != 6 { // DSO has no counts (RFC 8490 §5.4)
			return tcpNo
		}
		return tcpNext(b, end, qr)
	}
	i := 2 + dnsHeaderLen
	for {
		if i >= end || i > 2+dnsHeaderLen+254 {
			return tcpNo
		}
		if i >= len(b) {
			return tcpMaybe
		}
		n := int(b[i])
		if n > 63 {
			return tcpNo
		}
		i += 1 + n
		if n == 0 {
			break
		}
	}
	fixed := 4
	if qd == 0 {
		fixed = 10
	}
	if i+fixed > end {
		return tcpNo
	}
	if i+fixed > len(b) {
		return tcpMaybe
	}
	typ, class := binary.BigEndian.Uint16(b[i:]), binary.BigEndian.Uint16(b[i+2:])
	if qd == 0 && i+fixed+int(binary.BigEndian.Uint16(b[i+8:])) > end {
		return tcpNo
	}
	switch class {
	case 1, 3, 4, 254, 255:
	default:
		if typ != 41 { // OPT's class is a size
			return tcpNo
		}
	}
	return tcpNext(b, end, qr)
}

// tcpNext says whether what follows a message that ends at end may be another, as far as b shows it.
func tcpNext(b []byte, end, qr int) int {
	if len(b) >= end+2 {
		if n := binary.BigEndian.Uint16(b[end:]); n < dnsHeaderLen {
			return tcpNo
		}
		if len(b) >= end+2+dnsHeaderLen && !tcpHeaderFits(b[end:], qr) {
			return tcpNo
		}
	}
	return tcpYes
}

// tcpHeaderFits says whether the header behind the length prefix b is plausible by itself.
func tcpHeaderFits(b []byte, qr int) bool {
	if tcpOpcodes>>(b[4]>>3&15)&1 == 0 || b[5]&0x40 != 0 || qr >= 0 && int(b[4]>>7) != qr {
		return false
	}
	qd := int(binary.BigEndian.Uint16(b[6:]))
	rr := int(binary.BigEndian.Uint16(b[8:])) + int(binary.BigEndian.Uint16(b[10:])) + int(binary.BigEndian.Uint16(b[12:]))
	return 5*qd+11*rr <= int(binary.BigEndian.Uint16(b))-dnsHeaderLen
}

// tcpBoundary finds the first message boundary in b at an offset below limit. s0 and s1 are offsets at which segments
// start, or -1. It returns at = -1 where there is none, and in maybe the first offset that more bytes could make one.
func tcpBoundary(b []byte, limit, s0, s1, qr int) (at, maybe int) {
	if s0 < 0 && s1 >= 0 && tcpJudge(b[s1:], true, qr) == tcpYes {
		return s1, 0
	}
	maybe = limit
	for i := range limit {
		switch tcpJudge(b[i:], i == s0 || i == s1, qr) {
		case tcpYes:
			return i, 0
		case tcpMaybe:
			maybe = min(maybe, i)
		}
	}
	return -1, maybe
}

// find returns the connection of fl and the direction that fl is, or 0.
func (t *tcpTable) find(fl *flow, hash uint64) (i int32, d int) {
	for i = t.buckets[t.bucket(hash)]; i != 0; {
		s := t.stream(i)
		if s.hash == hash {
			k := &s.key
			if k.sport == fl.sport && k.dport == fl.dport && k.v6 == fl.v6 && tcpSameAddr(&k.src, &fl.src) && tcpSameAddr(&k.dst, &fl.dst) {
				return i, 0
			}
			if k.sport == fl.dport && k.dport == fl.sport && k.v6 == fl.v6 && tcpSameAddr(&k.src, &fl.dst) && tcpSameAddr(&k.dst, &fl.src) {
				return i, 1
			}
		}
		i = s.chain
	}
	return 0, 0
}

// tcpSameAddr is *a == *b, which the compiler makes a call of.
func tcpSameAddr(a, b *[16]byte) bool {
	return binary.NativeEndian.Uint64(a[:]) == binary.NativeEndian.Uint64(b[:]) && binary.NativeEndian.Uint64(a[8:]) == binary.NativeEndian.Uint64(b[8:])
}

// bucket spreads the hash once more, since the same hash chose the worker: its raw bits may be alike in one table.
func (t *tcpTable) bucket(hash uint64) uint64 {
	return hash * 0x9E3779B97F4A7C15 >> t.shift
}

// open makes a connection with fl as direction 0.
func (t *tcpTable) open(fl *flow, hash uint64) int32 {
	if t.held >= t.lim.streams {
		t.evict()
	}
	if t.held >= len(t.buckets) {
		t.growBuckets()
	}
	i := t.streamFree
	if i != 0 {
		t.streamFree = t.stream(i).chain
	} else {
		i = t.streamsMade
		if int(i>>8) == len(t.streamPages) {
			t.streamPages = append(t.streamPages, new(tcpStreamPage))
		}
		t.streamsMade++
	}
	s := t.stream(i)
	b := t.bucket(hash)
	*s = tcpStream{hash: hash, key: *fl, chain: t.buckets[b], list: tcpListBare}
	t.buckets[b] = i
	t.held++
	t.push(i, s)
	t.c.streams++
	return i
}

// evict removes the connection that is missed least: one closed, else one that never carried payload, else one that holds
// nothing, the longest without a packet first.
func (t *tcpTable) evict() {
	for list := range t.head {
		i := t.head[list]
		if i == 0 {
			continue
		}
		s := t.stream(i)
		t.settle(s)
		if s.payload {
			t.count(s, &t.c.evicted)
		} else {
			t.count(s, &t.c.evictedBare)
		}
		t.remove(i, s)
		return
	}
}

// growBuckets doubles the hash index.
func (t *tcpTable) growBuckets() {
	old := t.buckets
	t.buckets = make([]int32, 2*len(old))
	t.shift--
	for _, i := range old {
		for i != 0 {
			s := t.stream(i)
			next := s.chain
			b := t.bucket(s.hash)
			s.chain, t.buckets[b] = t.buckets[b], i
			i = next
		}
	}
}

// remove takes a connection that holds nothing out of the table.
func (t *tcpTable) remove(i int32, s *tcpStream) {
	t.unlink(i, s)
	p := &t.buckets[t.bucket(s.hash)]
	for *p != i {
		p = &t.stream(*p).chain
	}
	*p = s.chain
	s.chain, t.streamFree = t.streamFree, i
	t.held--
}

// place puts a connection at the end of the list that it belongs to after a packet.
func (t *tcpTable) place(i int32, s *tcpStream) {
	list := uint8(tcpListBare)
	switch {
	case s.half[0].hold|s.half[1].hold != 0:
		list = tcpListHeld
	case s.reset || s.half[0].state == tcpDone && s.half[1].state == tcpDone:
		list = tcpListClosed
	case s.payload:
		list = tcpListPlain
	}
	if list == s.list && s.next == 0 {
		return
	}
	t.unlink(i, s)
	s.list = list
	t.push(i, s)
	if t.closedHeld > t.maxClosed {
		old := t.head[tcpListClosed]
		t.remove(old, t.stream(old))
	}
}

func (t *tcpTable) push(i int32, s *tcpStream) {
	s.prev, s.next = t.tail[s.list], 0
	if s.prev != 0 {
		t.stream(s.prev).next = i
	} else {
		t.head[s.list] = i
	}
	t.tail[s.list] = i
	if s.list == tcpListClosed {
		t.closedHeld++
	}
}

func (t *tcpTable) unlink(i int32, s *tcpStream) {
	if s.prev != 0 {
		t.stream(s.prev).next = s.next
	} else {
		t.head[s.list] = s.next
	}
	if s.next != 0 {
		t.stream(s.next).prev = s.prev
	} else {
		t.tail[s.list] = s.prev
	}
	if s.list == tcpListClosed {
		t.closedHeld--
	}
}

func (t *tcpTable) stream(i int32) *tcpStream { return &t.streamPages[i>>8][i&255] }
func (t *tcpTable) hold(i int32) *tcpHold     { return &t.holdPages[i>>6][i&63] }
func (t *tcpTable) node(i int32) *tcpNode     { return &t.nodePages[i>>6][i&63] }

// needHold returns the hold of h, a new one if it has none, or nil where there is no room.
func (t *tcpTable) needHold(s *tcpStream, h *tcpHalf) *tcpHold {
	if h.hold != 0 {
		return t.hold(h.hold)
	}
	if !t.room(s, tcpHoldCost) {
		return nil
	}
	i := t.holdFree
	if i != 0 {
		t.holdFree = t.hold(i).free
	} else {
		i = t.holdsMade
		if int(i>>6) == len(t.holdPages) {
			t.holdPages = append(t.holdPages, new(tcpHoldPage))
		}
		t.holdsMade++
	}
	o := t.hold(i)
	*o = tcpHold{}
	h.hold = i
	t.used += tcpHoldCost
	return o
}

// tidy frees the hold of h if it is empty.
func (t *tcpTable) tidy(h *tcpHalf) {
	if h.hold == 0 {
		return
	}
	if o := t.hold(h.hold); o.part == nil && o.first == 0 {
		o.free, t.holdFree = t.holdFree, h.hold
		h.hold = 0
		t.used -= tcpHoldCost
	}
}

// freePart frees the buffer of the message begun, whose bytes the caller has counted.
func (t *tcpTable) freePart(h *tcpHalf) {
	o := t.hold(h.hold)
	o.bytes -= len(o.part)
	t.payloadHeld -= len(o.part)
	t.releaseBuf(o.part)
	o.part, o.pos = nil, 0
	t.tidy(h)
}

func (t *tcpTable) newNode(s *tcpStream) int32 {
	if !t.room(s, tcpNodeCost) {
		return 0
	}
	i := t.nodeFree
	if i != 0 {
		t.nodeFree = t.node(i).next
	} else {
		i = t.nodesMade
		if int(i>>6) == len(t.nodePages) {
			t.nodePages = append(t.nodePages, new(tcpNodePage))
		}
		t.nodesMade++
	}
	t.used += tcpNodeCost
	return i
}

func (t *tcpTable) freeNode(i int32) {
	n := t.node(i)
	*n = tcpNode{next: t.nodeFree}
	t.nodeFree = i
	t.used -= tcpNodeCost
}

// room makes room for n bytes: the connections that hold something, the longest without a packet first, give up what
// they hold, but not s. It says whether there is room.
func (t *tcpTable) room(s *tcpStream, n int) bool {
	for t.used+n > t.lim.totalBytes {
		if t.settling {
			return false
		}
		i := t.head[tcpListHeld]
		if i != 0 && t.stream(i) == s {
			i = s.next
		}
		if i == 0 {
			return false
		}
		v := t.stream(i)
		t.c.boundTotal++
		t.settle(v)
		t.place(i, v)
	}
	for c := len(t.bufs) - 1; c >= 0 && t.used+t.spare+n > t.lim.totalBytes; c-- {
		for len(t.bufs[c]) > 0 && t.used+t.spare+n > t.lim.totalBytes {
			t.popBuf(c)
		}
	}
	return true
}

func (t *tcpTable) popBuf(c int) []byte {
	f := t.bufs[c]
	b := f[len(f)-1]
	f[len(f)-1] = nil
	t.bufs[c] = f[:len(f)-1]
	t.spare -= tcpClasses[c]
	return b
}

// takeBuf returns an empty buffer for n ≤ tcpMaxPiece+255 bytes, or nil where there is no room.
func (t *tcpTable) takeBuf(s *tcpStream, n int) []byte {
	c := 0
	for tcpClasses[c] < n {
		c++
	}
	var b []byte
	if len(t.bufs[c]) > 0 && t.used+tcpClasses[c] <= t.lim.totalBytes {
		b = t.popBuf(c)
	} else if t.room(s, tcpClasses[c]) {
		b = make([]byte, 0, tcpClasses[c])
	} else {
		return nil
	}
	t.used += tcpClasses[c]
	return b
}

// releaseBuf takes back a buffer (nil is none). A quarter of totalBytes is kept for reuse.
func (t *tcpTable) releaseBuf(b []byte) {
	size := cap(b)
	if size == 0 {
		return
	}
	t.used -= size
	if t.spare+size > t.lim.totalBytes/4 {
		return
	}
	c := 0
	for tcpClasses[c] != size {
		c++
	}
	t.bufs[c] = append(t.bufs[c], b[:0])
	t.spare += size
}

// grow makes room for n more bytes in *b. It says whether it could.
func (t *tcpTable) grow(s *tcpStream, b *[]byte, n int) bool {
	if len(*b)+n <= cap(*b) {
		return true
	}
	nb := t.takeBuf(s, len(*b)+n)
	if nb == nil {
		return false
	}
	nb = append(nb, *b...)
	t.releaseBuf(*b)
	*b = nb
	return true
}
