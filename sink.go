package main

// A finished batch of lines goes in, every sink gets it: one sinkQueue for each sink, with
// its own goroutine, so that a slow or dead receiver stalls neither the others nor capture.
//
//	output.go ──*batch──► sinkQueue.submit ──ring, bounded in bytes──► sinkQueue.run ──► sink.write
//	                          │ full: wait (file input) or drop and count (live)    │ error: back off, same batch again
//
// Rules: a batch is immutable once submitted and shared by all queues, which count
// references; the sink's methods write, connect, reopen and close are called by the queue's
// goroutine only; a sink never exits the process; every record submitted is at any moment
// exactly one of written, dropped, failed or queued.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	batchTarget  = 256 << 10 // bytes of JSON at which the writer of a batch hands it over
	sinkMinRetry = 100 * time.Millisecond
	sinkMaxRetry = 10 * time.Second
	sinkSayEvery = 10 * time.Second // shortest time between two overflow warnings of one sink
	sinkGrace    = 2 * time.Second  // for a sink's goroutine to return once it was interrupted
	sinkGroup    = 4 << 20          // most bytes handed to a groupSink at once (or one batch)
)

// errSinkClosed is returned by a sink whose receiver has gone for good in a way that ends
// the program quietly: the reader of stdout closed its end.
var errSinkClosed = errors.New("receiver closed")

// sinkFatal wraps an error after which trying again is pointless; the queue ends with it.
type sinkFatal struct{ err error }

func (e sinkFatal) Error() string { return e.err.Error() }
func (e sinkFatal) Unwrap() error { return e.err }

// logger is where sinks and queues say what the user must know. Implementations may be
// called by several goroutines.
type logger interface {
	warnf(format string, args ...any)
	errorf(format string, args ...any)
	debugf(format string, args ...any)
}

// batch is a group of whole records in output order, encoded once for each format. Its
// filler owns it until it is submitted; after that nobody writes it. The one who gets a
// batch from a pool holds a reference and gives it back with release.
type batch struct {
	json    []byte  // JSON lines, each ends in '\n'
	ends    []int32 // offset behind each line in json, ascending, one for each record
	msgpack []byte  // one msgpack map for each record back to back; empty when no sink wants it
	msgEnds []int32 // offset behind each map in msgpack

	refs    atomic.Int32
	pool    *batchPool // nil: left to the garbage collector
	private bool       // a copy that a queue made for itself and may append to while it waits
}

// records returns how many records the batch holds.
func (b *batch) records() int { return len(b.ends) }

// size returns the bytes that the batch's records take.
func (b *batch) size() int { return len(b.json) + len(b.msgpack) }

// line returns record i as a JSON line with its newline. The caller must not change it.
func (b *batch) line(i int) []byte {
	start := int32(0)
	if i > 0 {
		start = b.ends[i-1]
	}
	return b.json[start:b.ends[i]]
}

// lineAt returns the record in which byte off of json lies, or records() at its end.
func (b *batch) lineAt(off int) int {
	lo, hi := 0, len(b.ends)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if int(b.ends[mid]) <= off {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// lineTime returns the record's tstamp, or the zero time where there is none. It is the first field,
// {"tstamp":"2026-03-04T05:06:07.123456789Z",… but for status records, which begin with their type.
func lineTime(line []byte) time.Time {
	const head, length = `{"tstamp":"`, len("2006-01-02T15:04:05.000000000Z")
	const status = `{"type":"status",`
	var t time.Time
	if bytes.HasPrefix(line, []byte(status)) {
		line = line[len(status)-1:] // a comma stands for the brace
	}
	if len(line) < len(head)+length || string(line[1:len(head)]) != head[1:] || t.UnmarshalText(line[len(head):][:length]) != nil {
		return time.Time{}
	}
	return t
}

// appendBatch copies the records of src behind those of b.
func (b *batch) appendBatch(src *batch) {
	base := int32(len(b.json))
	b.json = append(b.json, src.json...)
	for _, e := range src.ends {
		b.ends = append(b.ends, base+e)
	}
	base = int32(len(b.msgpack))
	b.msgpack = append(b.msgpack, src.msgpack...)
	for _, e := range src.msgEnds {
		b.msgEnds = append(b.msgEnds, base+e)
	}
}

// release gives one reference back; with the last one the batch returns to its pool.
func (b *batch) release() {
	switch n := b.refs.Add(-1); {
	case n > 0:
	case n < 0:
		panic("BUG: batch released twice")
	case b.pool != nil:
		b.pool.put(b)
	}
}

// batchPool keeps batches for reuse, the one that came back last on top: its memory is still in the cache, which
// that of all the others that a slow moment has made is not. get never waits, so the pool bounds only what is
// kept idle; what is in flight is bounded by the queues. Safe for several goroutines.
type batchPool struct {
	mu   sync.Mutex
	free []*batch
	idle int
}

// newBatchPool returns a pool that keeps at most idle unused batches.
func newBatchPool(idle int) *batchPool {
	return &batchPool{free: make([]*batch, 0, idle), idle: idle}
}

// get returns an empty batch with one reference, the caller's.
func (p *batchPool) get() *batch {
	var b *batch
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		b = p.free[n-1]
		p.free = p.free[:n-1]
	}
	p.mu.Unlock()
	if b != nil {
		b.json, b.ends = b.json[:0], b.ends[:0]
		b.msgpack, b.msgEnds = b.msgpack[:0], b.msgEnds[:0]
	} else {
		b = &batch{pool: p, json: make([]byte, 0, batchTarget+batchTarget/8), ends: make([]int32, 0, 1024)}
	}
	b.refs.Store(1)
	return b
}

// put keeps b unless the pool is full or one huge record has made it a waste of memory.
func (p *batchPool) put(b *batch) {
	if cap(b.json) > 2*batchTarget || cap(b.msgpack) > 2*batchTarget {
		return
	}
	p.mu.Lock()
	if len(p.free) < p.idle {
		p.free = append(p.free, b)
	}
	p.mu.Unlock()
}

// sink is one receiver of records. All methods but name are called by one goroutine.
type sink interface {
	// write delivers b and may block. After an error it is called again with the same b
	// until it succeeds or the program gives up: it goes on where it stopped, tears no
	// line and, where it can know, repeats none.
	write(b *batch) error
	// close flushes, closes and frees everything within ctx.
	close(ctx context.Context) error
	// name is "stdout", "file", "syslog", "fluentd" or "kafka".
	name() string
}

// sinkTally is what a sink counted since it was made, in records.
type sinkTally struct {
	delivered uint64 // accepted by the receiver as far as the protocol tells
	lost      uint64 // refused by the receiver for good; write counts them as done
	resent    uint64 // sent again though the first sending may have arrived
}

// What a sink may also be.
type (
	// connectSink is connected by its queue before the first write, as often as it takes.
	connectSink interface{ connect() error }
	// groupSink takes several batches at once; its write is not called.
	groupSink interface{ writeGroup(bs []*batch) error }
	// reopenSink starts a new file on SIGHUP.
	reopenSink interface{ reopen() error }
	// tallySink counts single records, so that a batch given up half-way is accounted
	// exactly. tally is called by the queue's goroutine between writes.
	tallySink interface{ tally() sinkTally }
	// interruptSink ends a blocked write, connect or close from another goroutine. It is
	// called once; after it, these fail at once.
	interruptSink interface{ interrupt() }
)

// sinkOptions are the settings of a queue.
type sinkOptions struct {
	queueBytes int  // bound of what waits for the sink, in bytes of records
	block      bool // queue full: true waits for room, false drops the new batch and counts it
	log        logger
}

// sinkStats is a snapshot, in records:
// submitted == written + dropped + failed + queuedRecords.
type sinkStats struct {
	name          string
	submitted     uint64
	written       uint64 // delivered
	dropped       uint64 // not taken: queue full, or the receiver closed quietly
	failed        uint64 // taken, but refused by the receiver or not delivered by the end
	resent        uint64 // sent more than once, perhaps received more than once
	errors        uint64 // failed attempts to connect, write, reopen or close
	queuedRecords uint64
	queuedBytes   uint64
	failing       bool // the last attempt failed
}

// sinkQueue stands between the output goroutine and one sink. submit, reopen, limit, drain,
// stats, done and err may be called by any goroutine.
//
// Small batches that must wait are copied together, so the memory held is at most about
// twice queueBytes, however few records a batch has.
type sinkQueue struct {
	sink  sink
	group groupSink // nil unless the sink is one
	opt   sinkOptions

	finished chan struct{} // closed when run has returned
	ended    chan struct{} // closed when the sink ended by itself
	stop     chan struct{} // closed by abort
	nudge    chan struct{} // wakes a back-off: drain or reopen

	mu       sync.Mutex
	work     sync.Cond // the goroutine waits for work
	space    sync.Cond // submit waits for room
	ring     []*batch  // what waits, from head
	head     int
	current  []*batch // what is being written
	st       sinkStats
	closing  bool // drain was called
	aborted  bool // the time to deliver is over
	over     bool // run has ended or was abandoned: nothing is taken any more
	reopens  bool // a reopen is due …
	reopenAt uint64
	taken    uint64 // batches taken out of the ring
	closeCtx context.Context
	endErr   error

	overflow bool      // batches are being dropped and it was said
	overSaid time.Time // when it was last said
	overLost uint64    // records dropped since an end was last said
}

// newSinkQueue starts the goroutine that feeds s. drain ends it.
func newSinkQueue(s sink, opt sinkOptions) *sinkQueue {
	q := &sinkQueue{
		sink: s, opt: opt,
		finished: make(chan struct{}), ended: make(chan struct{}), stop: make(chan struct{}), nudge: make(chan struct{}, 1),
		closeCtx: context.Background(),
	}
	q.group, _ = s.(groupSink)
	q.work.L, q.space.L = &q.mu, &q.mu
	q.st.name = s.name()
	go q.run()
	return q
}

// submit hands b over, taking a reference of its own. If the queue is full it waits or
// drops the batch, as the options say.
func (q *sinkQueue) submit(b *batch) {
	n := uint64(b.records())
	if n == 0 {
		return
	}
	cost := uint64(b.size())
	room := uint64(q.opt.queueBytes)
	say := false
	q.mu.Lock()
	for q.opt.block && !q.over && !q.aborted && q.st.queuedBytes > 0 && q.st.queuedBytes+cost > room {
		q.space.Wait()
	}
	q.st.submitted += n
	switch {
	case q.over && errors.Is(q.endErr, errSinkClosed):
		q.st.dropped += n
	case q.over || q.aborted || q.closing:
		q.st.failed += n
	case q.st.queuedBytes > 0 && q.st.queuedBytes+cost > room:
		q.st.dropped += n
		q.overLost += n
		if now := time.Now(); !q.overflow && now.Sub(q.overSaid) >= sinkSayEvery {
			q.overflow, q.overSaid, say = true, now, true
		}
	default:
		q.pushLocked(b)
		q.st.queuedRecords += n
		q.st.queuedBytes += cost
		q.work.Signal()
	}
	q.mu.Unlock()
	if say {
		q.opt.log.warnf("sink %s: queue is full (%d bytes), new records are dropped", q.sink.name(), q.opt.queueBytes)
	}
}

// pushLocked appends b, sharing it unless it is small and has to wait behind another: then
// it is copied into a batch of the queue's own, because a shared batch holds its whole
// buffer however little is in it.
func (q *sinkQueue) pushLocked(b *batch) {
	if waiting := len(q.ring) - q.head; waiting > 0 && len(b.json) < batchTarget/2 {
		last := q.ring[len(q.ring)-1]
		atMark := q.reopens && q.reopenAt == q.taken+uint64(waiting)
		if !last.private || atMark || len(last.json)+len(b.json) > batchTarget {
			last = &batch{private: true}
			last.refs.Store(1)
			q.ring = append(q.ring, last)
		}
		last.appendBatch(b)
		return
	}
	b.refs.Add(1)
	if q.head > len(q.ring)/2 && len(q.ring) == cap(q.ring) {
		n := copy(q.ring, q.ring[q.head:])
		clear(q.ring[n:])
		q.ring, q.head = q.ring[:n], 0
	}
	q.ring = append(q.ring, b)
}

// reopen asks for the sink's reopen behind all that was submitted before; a sink that is
// failing is reopened at once.
func (q *sinkQueue) reopen() {
	if _, ok := q.sink.(reopenSink); !ok {
		return
	}
	q.mu.Lock()
	q.reopens = true
	q.reopenAt = q.taken + uint64(len(q.ring)-q.head)
	q.work.Signal()
	q.mu.Unlock()
	q.wake()
}

func (q *sinkQueue) wake() {
	select {
	case q.nudge <- struct{}{}:
	default:
	}
}

// limit bounds the life of the queue: when ctx is done a submit that waits returns, and
// what is not delivered is counted as failed. It is called when shutdown begins, before the
// last batches are submitted; the function returned takes the limit back.
func (q *sinkQueue) limit(ctx context.Context) (cancel func() bool) {
	return context.AfterFunc(ctx, q.abort)
}

// abort ends delivery now.
func (q *sinkQueue) abort() {
	q.mu.Lock()
	if q.aborted {
		q.mu.Unlock()
		return
	}
	q.aborted = true
	close(q.stop)
	q.work.Broadcast()
	q.space.Broadcast()
	q.mu.Unlock()
	if s, ok := q.sink.(interruptSink); ok {
		s.interrupt()
	}
}

// drain delivers what is queued within ctx, then closes the sink. Nothing may be submitted
// any more. The rest is counted as failed, said, and returned as an error. A sink that
// hangs even when interrupted (a blocked write to a pipe) is abandoned with its goroutine.
func (q *sinkQueue) drain(ctx context.Context) error {
	q.mu.Lock()
	q.closing = true
	q.closeCtx = ctx
	q.work.Broadcast()
	q.mu.Unlock()
	q.wake()
	select {
	case <-q.finished:
	case <-ctx.Done():
		q.abort()
		grace := time.NewTimer(sinkGrace)
		select {
		case <-q.finished:
		case <-grace.C:
			q.mu.Lock()
			if !q.over {
				q.endLocked(fmt.Errorf("sink %s: does not return from a write", q.sink.name()))
			}
			q.mu.Unlock()
		}
		grace.Stop()
	}
	q.mu.Lock()
	st, lost, err := q.st, q.overLost, q.endErr
	q.overLost = 0
	q.mu.Unlock()
	if lost > 0 {
		q.opt.log.warnf("sink %s: %d records were dropped because the queue was full", q.sink.name(), lost)
	}
	if st.failed > 0 {
		q.opt.log.errorf("sink %s: %d of %d records could not be delivered", q.sink.name(), st.failed, st.submitted)
		if err == nil || errors.Is(err, errSinkClosed) {
			err = fmt.Errorf("sink %s: %d records could not be delivered", q.sink.name(), st.failed)
		}
	}
	if errors.Is(err, errSinkClosed) {
		return nil
	}
	return err
}

// done is closed when the sink ended by itself; err then says how: errSinkClosed is the
// quiet end, anything else a failure.
func (q *sinkQueue) done() <-chan struct{} { return q.ended }

// err returns why the sink ended, nil while it works or when it was drained in order.
func (q *sinkQueue) err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.endErr
}

// stats returns a consistent snapshot.
func (q *sinkQueue) stats() sinkStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.st
}

// run is the sink's goroutine.
func (q *sinkQueue) run() {
	defer close(q.finished)
	err := q.connect()
	for err == nil {
		group, reopen, ok := q.next()
		if !ok {
			break
		}
		if reopen {
			q.reopenSink()
			continue
		}
		err = q.deliver(group)
	}
	q.mu.Lock()
	if !q.over {
		q.endLocked(err)
	}
	ctx := q.closeCtx
	byItself := !q.closing && !q.aborted
	q.mu.Unlock()
	if byItself {
		close(q.ended)
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, sinkGrace)
		defer cancel()
	}
	if err := q.sink.close(ctx); err != nil && !errors.Is(err, errSinkClosed) {
		q.opt.log.errorf("sink %s: close: %v", q.sink.name(), err)
		q.mu.Lock()
		q.st.errors++
		if q.endErr == nil {
			q.endErr = fmt.Errorf("sink %s: close: %w", q.sink.name(), err)
		}
		q.mu.Unlock()
	}
}

// endLocked ends the queue's life: what it holds is counted as failed (as dropped where the
// receiver closed quietly) and let go.
func (q *sinkQueue) endLocked(err error) {
	q.over = true
	if q.endErr == nil {
		q.endErr = err
	}
	if errors.Is(err, errSinkClosed) {
		q.st.dropped += q.st.queuedRecords
	} else {
		q.st.failed += q.st.queuedRecords
	}
	q.st.queuedRecords, q.st.queuedBytes = 0, 0
	for _, b := range q.ring[q.head:] {
		b.release()
	}
	clear(q.ring)
	q.ring, q.head = q.ring[:0], 0
	q.space.Broadcast()
}

// connect makes the first connection of sinks that have one. The error is not nil when the
// queue's time is over or there is no point in trying again.
func (q *sinkQueue) connect() error {
	c, ok := q.sink.(connectSink)
	if !ok {
		return nil
	}
	return q.insist(c.connect)
}

// next waits for something to do: a group of batches, or a reopen. ok is false when the
// queue's life is over. The group is valid until the next call.
func (q *sinkQueue) next() (group []*batch, reopen, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		waiting := len(q.ring) - q.head
		switch {
		case q.aborted:
			return nil, false, false
		case q.reopens && q.taken >= q.reopenAt:
			q.reopens = false
			return nil, true, true
		case waiting > 0:
			q.current = q.current[:0]
			for size := 0; q.head < len(q.ring); {
				b := q.ring[q.head]
				size += b.size()
				if len(q.current) > 0 && (q.group == nil || size > sinkGroup || q.reopens && q.taken >= q.reopenAt) {
					break
				}
				q.current = append(q.current, b)
				q.ring[q.head] = nil
				q.head++
				q.taken++
			}
			if q.head == len(q.ring) {
				q.ring, q.head = q.ring[:0], 0
			}
			return q.current, false, true
		case q.closing:
			return nil, false, false
		}
		q.work.Wait()
	}
}

// deliver writes group, as often as it takes, and accounts for it.
func (q *sinkQueue) deliver(group []*batch) error {
	var before sinkTally
	tally, tallies := q.sink.(tallySink)
	if tallies {
		before = tally.tally()
	}
	var err error
	if q.group != nil {
		err = q.insist(func() error { return q.group.writeGroup(group) })
	} else {
		// The first attempt by hand: the way of every batch when all is well.
		if err = q.sink.write(group[0]); err != nil {
			err = q.insistAfter(err, func() error { return q.sink.write(group[0]) })
		}
	}
	var records, bytes uint64
	for _, b := range group {
		records += uint64(b.records())
		bytes += uint64(b.size())
	}
	written := records
	if err != nil {
		written = 0
	}
	if tallies {
		after := tally.tally()
		if err == nil {
			written -= after.lost - before.lost
		} else {
			written = after.delivered - before.delivered
		}
		before.resent = after.resent
	}
	lost, end := uint64(0), false
	q.mu.Lock()
	if !q.over {
		q.st.written += written
		if errors.Is(err, errSinkClosed) {
			q.st.dropped += records - written
		} else {
			q.st.failed += records - written
		}
		q.st.queuedRecords -= records
		q.st.queuedBytes -= bytes
		if q.overflow && q.st.queuedBytes <= uint64(q.opt.queueBytes/2) {
			lost, end = q.overLost, true
			q.overflow, q.overLost = false, 0
		}
	}
	q.st.resent = before.resent
	q.space.Broadcast()
	q.mu.Unlock()
	for i, b := range group {
		b.release()
		group[i] = nil
	}
	if end {
		q.opt.log.warnf("sink %s: queue has room again, %d records were dropped", q.sink.name(), lost)
	}
	return err
}

// insist calls try until it succeeds. It returns the error when trying again is pointless
// or the queue's time is over.
func (q *sinkQueue) insist(try func() error) error {
	if err := try(); err != nil {
		return q.insistAfter(err, try)
	}
	return nil
}

// insistAfter is insist after a first attempt that failed with err: it says so, tries again
// with exponential back-off and jitter, and says when it works again. drain and reopen
// cut the wait short.
func (q *sinkQueue) insistAfter(err error, try func() error) error {
	since, cause := time.Now(), err
	for attempt := 0; ; attempt++ {
		q.mu.Lock()
		q.st.errors++
		first := !q.st.failing
		q.st.failing = true
		over := q.aborted
		q.mu.Unlock()
		if !over {
			cause = err // not what only says that it was interrupted
		}
		var fatal sinkFatal
		switch {
		case errors.Is(err, errSinkClosed):
			return err
		case errors.As(err, &fatal):
			q.opt.log.errorf("sink %s: %v", q.sink.name(), err)
			return err
		case over:
			return fmt.Errorf("sink %s: %w", q.sink.name(), cause)
		case first:
			q.opt.log.errorf("sink %s: %v; trying again until it works", q.sink.name(), err)
		default:
			q.opt.log.debugf("sink %s: attempt %d: %v", q.sink.name(), attempt+1, err)
		}
		wait := time.NewTimer(sinkRetryWait(attempt))
		select {
		case <-wait.C:
		case <-q.stop:
			wait.Stop()
			return fmt.Errorf("sink %s: %w", q.sink.name(), cause)
		case <-q.nudge:
			wait.Stop()
			attempt = -1
			q.mu.Lock()
			reopen := q.reopens
			q.reopens = false
			q.mu.Unlock()
			if reopen {
				q.reopenSink()
			}
		}
		if err = try(); err == nil {
			q.mu.Lock()
			q.st.failing = false
			q.mu.Unlock()
			q.opt.log.warnf("sink %s: works again after %v", q.sink.name(), time.Since(since).Round(time.Millisecond))
			return nil
		}
	}
}

// sinkRetryWait returns how long to wait after the given failed attempt, counted from 0:
// half of it certain, half random, so that many sensors do not return in step.
func sinkRetryWait(attempt int) time.Duration {
	d := sinkMaxRetry
	if attempt < 10 {
		d = min(sinkMinRetry<<attempt, sinkMaxRetry)
	}
	return d/2 + rand.N(d/2+1)
}

// reopenSink does what SIGHUP asked for. A failure is not retried here: the sink's next
// write opens what is missing.
func (q *sinkQueue) reopenSink() {
	if err := q.sink.(reopenSink).reopen(); err != nil {
		q.opt.log.errorf("sink %s: reopen: %v", q.sink.name(), err)
		q.mu.Lock()
		q.st.errors++
		q.mu.Unlock()
	}
}
