package main

// conntable.go is the connection table: it pairs the two legs of a lookup.
//
// In: a leg (query or response), as its key, its question and its time.
// Out: the lookup that the leg belongs to; or, as time passes, the lookups that were left alone.
//
// Rules: one table for each worker, no locks. The key is client and server address and port, protocol and DNS ID; then
// the questions are compared, without regard to case (RFC 1035 §2.3.3, RFC 4343). Time is packet time, and ages are
// absolute differences, since captures step backwards. A lookup is in exactly one state:
//
//	pending   a query that waits for its response, up to gc_age
//	transfer  a zone transfer over TCP whose first response came; further ones belong to it
//	waiting   a response whose query was not seen (yet); after reorderNs it is written as unsolicited
//
// The three queues order lookups by arrival, and note the running clock (feeder.tick) of that moment, by which they are
// written off; an entry whose lookup has left that state is dead and skipped. Lookups
// hold no pointers and live in pages that the garbage collector need not scan. An answered lookup leaves the table at
// once; answered.go remembers it. Bounds: max lookups in all states, and waitBytes of stored responses; what goes when
// they are reached: the oldest waiting (written early, nothing is lost), then the oldest transfer, then the oldest
// pending (counted as evicted).

import "time"

const (
	// reorderNs is how long a response may wait for a query that the capture saw later. Packets of one flow that
	// change places do so within milliseconds; a longer wait would only hold back the records of one-sided captures.
	reorderNs = int64(2 * time.Second)
	// sameKeyMax bounds the lookups that share one key, so that a sender who repeats it with ever new questions
	// can't make the chain long. A client that has 64 questions under way from one port with one ID can't tell the
	// answers apart itself.
	sameKeyMax = 64

	pageBits = 10
	pageLen  = 1 << pageBits
	pageMask = pageLen - 1

	inlineVar   = 46  // bytes of name and ECS option kept inside a lookup; 46 makes a lookup 144 bytes
	overflowLen = 280 // a name (255) and an ECS option (4+16), rounded up
)

// lookupKey identifies a lookup on the wire but for its question. It holds no padding that could differ.
//
//	0 client address  16 server address  32 client port  34 server port  36 DNS ID  38 viewV6|keyTCP  39 zero
type lookupKey [40]byte

const keyTCP = 0x80

// lookup states.
const (
	stateFree = iota
	statePending
	stateTransfer
	stateWaiting
)

// lookup flags, all of the query.
const (
	lookupRD = 1 << iota
	lookupCD
	lookupEDNS
	lookupDO
	lookupQuestion // a question was there
	lookupCut      // the snaplen cut the message
)

// lookup is one lookup of the table. Its zero value is free.
type lookup struct {
	key      lookupKey
	ts       int64  // first query (or the waiting response): packet time
	seq      uint64 // and its sequence number
	done     int64  // transfer: time of the newest response
	hash     uint32
	next     int32 // index+1 of the next lookup in the bucket, or in the free list
	gen      uint32
	over     int32 // index+1 of the overflow slot that holds name and ECS, 0 = inline
	wait     int32 // waiting: index of the stored response
	qtype    uint16
	qclass   uint16
	qbytes   uint16
	vlan     uint16
	udpSize  uint16
	attempts uint16
	state    uint8
	opcode   uint8
	flags    uint8
	nameLen  uint8 // of the uncompressed wire name, 1 to 255; 0 = no question
	ecsLen   uint8
	inline   [inlineVar]byte
}

// ageItem is a queue's reference to a lookup: dead if the lookup's generation has moved on.
type ageItem struct {
	idx   int32
	gen   uint32
	clock uint64 // running clock when it entered its state, ns
}

// ageQueue is a growing ring in order of arrival. The zero value is empty.
type ageQueue struct {
	ring []ageItem
	head int
	n    int
}

func (q *ageQueue) push(it ageItem) {
	if q.n == len(q.ring) {
		bigger := make([]ageItem, max(1024, 2*len(q.ring)))
		for i := range q.n {
			bigger[i] = q.ring[(q.head+i)&(len(q.ring)-1)]
		}
		q.ring, q.head = bigger, 0
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = it
	q.n++
}

func (q *ageQueue) front() ageItem { return q.ring[q.head] }

func (q *ageQueue) pop() {
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
}

// waiting is a response that waits for its query: the message, stored.
type waiting struct {
	raw  []byte
	ts   int64
	wire int
	cut  bool
	next int32 // free list: index+1
}

// connTable is one worker's connection table.
type connTable struct {
	heads    []int32 // bucket → index+1
	pages    []*[pageLen]lookup
	used     int   // lookups ever taken out of pages
	freeList int32 // index+1
	live     int
	max      int

	over     [][]byte // overflow pages of pageLen slots
	overUsed int
	overFree []int32

	pending, transfer, wait    ageQueue
	nPending, nTransfer, nWait int

	clock uint64 // running clock as of the last tick, ns

	waits     []waiting
	waitFree  int32
	waitBytes int
	waitMax   int
}

// newConnTable makes a table for at most max lookups and waitMax bytes of waiting responses.
func newConnTable(max, waitMax int) *connTable {
	return &connTable{heads: make([]int32, 1024), max: max, waitMax: waitMax}
}

func (t *connTable) at(i int32) *lookup { return &t.pages[i>>pageBits][i&pageMask] }

// abs64 is the distance between two packet times, which may be at the ends of the range.
func distance(a, b int64) int64 {
	d := a - b
	if d < 0 {
		d = -d
	}
	if d < 0 {
		return 1<<63 - 1
	}
	return d
}

// nameOf returns the question's uncompressed wire name; valid until the lookup is freed.
func (t *connTable) nameOf(l *lookup) []byte {
	if l.over != 0 {
		return t.slot(l.over - 1)[:l.nameLen]
	}
	return l.inline[:l.nameLen]
}

// ecsOf returns the query's ECS option body (RFC 7871 §6), empty if there was none.
func (t *connTable) ecsOf(l *lookup) []byte {
	n := int(l.nameLen)
	if l.over != 0 {
		return t.slot(l.over - 1)[n : n+int(l.ecsLen)]
	}
	return l.inline[n : n+int(l.ecsLen)]
}

func (t *connTable) slot(i int32) []byte {
	o := int(i&pageMask) * overflowLen
	return t.over[i>>pageBits][o : o+overflowLen]
}

// sameName compares two uncompressed wire names without regard to ASCII case.
func sameName(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	if string(a) == string(b) {
		return true
	}
	for i, x := range a {
		y := b[i]
		if x == y {
			continue
		}
		// Length bytes are below 64 and so are never letters.
		if x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z' {
			return false
		}
	}
	return true
}

// question is the first question of a message, its name uncompressed; name is nil where there was none.
type question struct {
	name   []byte
	qtype  uint16
	qclass uint16
}

// asks says whether l is about q. A response without a question (some servers leave it out of errors) is about
// whatever was asked.
func (t *connTable) asks(l *lookup, q *question) bool {
	if q.name == nil || l.nameLen == 0 {
		return q.name == nil && (l.state != stateWaiting || l.nameLen == 0)
	}
	return l.qtype == q.qtype && l.qclass == q.qclass && sameName(t.nameOf(l), q.name)
}

// find returns the newest lookup with the key that is about q and in one of the states of the set (bits 1<<state), or
// -1. same is how many lookups share the key, oldest the last of them.
func (t *connTable) find(key *lookupKey, hash uint32, q *question, states uint) (idx int32, same int, oldest int32) {
	oldest = -1
	for i := t.heads[hash&uint32(len(t.heads)-1)]; i != 0; {
		l := t.at(i - 1)
		if l.hash == hash && l.key == *key {
			if states>>l.state&1 != 0 && t.asks(l, q) {
				return i - 1, same, oldest
			}
			same++
			oldest = i - 1
		}
		i = l.next
	}
	return -1, same, oldest
}

// insert takes a free lookup and links it under key. The caller has made room (full) and fills the rest.
func (t *connTable) insert(key *lookupKey, hash uint32, state uint8) (int32, *lookup) {
	if t.live >= len(t.heads) {
		t.grow()
	}
	var i int32
	if t.freeList != 0 {
		i = t.freeList - 1
		t.freeList = t.at(i).next
	} else {
		if t.used>>pageBits >= len(t.pages) {
			t.pages = append(t.pages, new([pageLen]lookup))
		}
		i = int32(t.used)
		t.used++
	}
	l := t.at(i)
	l.key, l.hash, l.state = *key, hash, state
	l.over, l.nameLen, l.ecsLen = 0, 0, 0
	h := &t.heads[hash&uint32(len(t.heads)-1)]
	l.next = *h
	*h = i + 1
	t.live++
	return i, l
}

// enqueue files l, which has just entered its state, in that state's queue.
func (t *connTable) enqueue(i int32, l *lookup) {
	it := ageItem{i, l.gen, t.clock}
	switch l.state {
	case statePending:
		t.compact(&t.pending, t.nPending, statePending)
		t.pending.push(it)
		t.nPending++
	case stateTransfer:
		t.compact(&t.transfer, t.nTransfer, stateTransfer)
		t.transfer.push(it)
		t.nTransfer++
	case stateWaiting:
		t.compact(&t.wait, t.nWait, stateWaiting)
		t.wait.push(it)
		t.nWait++
	}
}

// compact drops the dead entries of a queue that would grow although most of it is dead, so that a queue is at most
// four times as long as its live lookups; each entry is moved once for at least as many that were pushed.
func (t *connTable) compact(q *ageQueue, live int, state uint8) {
	if q.n < len(q.ring) || q.n < 1024 || live > q.n/2 {
		return
	}
	kept := 0
	for k := range q.n {
		it := q.ring[(q.head+k)&(len(q.ring)-1)]
		if l := t.at(it.idx); l.gen == it.gen && l.state == state {
			q.ring[(q.head+kept)&(len(q.ring)-1)] = it
			kept++
		}
	}
	q.n = kept
}

// leave takes l out of its state's count; its queue entry dies with the generation.
func (t *connTable) leave(l *lookup) {
	switch l.state {
	case statePending:
		t.nPending--
	case stateTransfer:
		t.nTransfer--
	case stateWaiting:
		t.nWait--
		t.dropWait(l.wait)
	}
	l.gen++
}

// transferring files l, whose next response came at ts, as a zone transfer under way.
func (t *connTable) transferring(i int32, l *lookup, ts int64) {
	t.leave(l)
	l.state, l.done = stateTransfer, ts
	t.enqueue(i, l)
}

// remove unlinks and frees l.
func (t *connTable) remove(i int32, l *lookup) {
	t.leave(l)
	p := &t.heads[l.hash&uint32(len(t.heads)-1)]
	for *p != i+1 {
		p = &t.at(*p - 1).next
	}
	*p = l.next
	if l.over != 0 {
		t.overFree = append(t.overFree, l.over)
		l.over = 0
	}
	l.state = stateFree
	l.next = t.freeList
	t.freeList = i + 1
	t.live--
}

// grow doubles the buckets. Each chain is dealt out to two in its order, so that lookups of one key stay newest first.
func (t *connTable) grow() {
	old := t.heads
	t.heads = make([]int32, 2*len(old))
	for b, i := range old {
		lo, hi := &t.heads[b], &t.heads[b+len(old)]
		for i != 0 {
			l := t.at(i - 1)
			if l.hash&uint32(len(old)) == 0 {
				*lo, lo = i, &l.next
			} else {
				*hi, hi = i, &l.next
			}
			i = l.next
		}
		*lo, *hi = 0, 0
	}
}

// store keeps the question's name and the ECS option with l, inline or in an overflow slot.
func (t *connTable) store(l *lookup, q *question, ecs []byte) {
	l.qtype, l.qclass = q.qtype, q.qclass
	l.nameLen, l.ecsLen = uint8(len(q.name)), uint8(len(ecs))
	n := len(q.name) + len(ecs)
	dst := l.inline[:]
	if n > inlineVar {
		var s int32
		if k := len(t.overFree); k > 0 {
			s = t.overFree[k-1]
			t.overFree = t.overFree[:k-1]
		} else {
			if t.overUsed>>pageBits >= len(t.over) {
				t.over = append(t.over, make([]byte, pageLen*overflowLen))
			}
			t.overUsed++
			s = int32(t.overUsed)
		}
		l.over = s
		dst = t.slot(s - 1)
	}
	copy(dst, q.name)
	copy(dst[len(q.name):], ecs)
}

// keepWait stores a response that has to wait and returns its index.
func (t *connTable) keepWait(raw []byte, ts int64, wire int, cut bool) int32 {
	var i int32
	if t.waitFree != 0 {
		i = t.waitFree - 1
		t.waitFree = t.waits[i].next
	} else {
		t.waits = append(t.waits, waiting{})
		i = int32(len(t.waits) - 1)
	}
	w := &t.waits[i]
	w.raw = append(w.raw[:0], raw...)
	w.ts, w.wire, w.cut = ts, wire, cut
	t.waitBytes += cap(w.raw)
	return i
}

// dropWait gives a stored response's place back. Large buffers are not kept.
func (t *connTable) dropWait(i int32) {
	w := &t.waits[i]
	t.waitBytes -= cap(w.raw)
	if cap(w.raw) > 4096 {
		w.raw = nil
	}
	w.next = t.waitFree
	t.waitFree = i + 1
}

// oldest returns the oldest lookup of a queue that is still in its state, dropping dead entries before it; -1 if
// there is none.
func (t *connTable) oldest(q *ageQueue, state uint8) int32 {
	for q.n > 0 {
		it := q.front()
		if l := t.at(it.idx); l.gen == it.gen && l.state == state {
			return it.idx
		}
		q.pop()
	}
	return -1
}

// expired returns the oldest lookup of a queue if it entered its state more than age ago by the running clock, else -1.
// A tick's length is added, since the clock of an entry is that of the tick before it: nothing is expired early.
func (t *connTable) expired(q *ageQueue, state uint8, age int64) int32 {
	i := t.oldest(q, state)
	if i >= 0 && t.clock-q.front().clock <= uint64(age+tickNs) {
		return -1
	}
	return i
}
