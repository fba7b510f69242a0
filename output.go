package main

// output.go merges the workers' parts into capture order and gives the lines to the sinks.
//
// In: chunks in capture order, and for each worker the stream of its parts.
// Out: batches of whole records, submitted to every sink; then the chunk goes back to the free list.
//
// Rules: one goroutine. For each chunk it merges the runs of lines of all workers by sequence number, so the output does
// not depend on how many workers there are. It takes a worker's next part only when it needs it. At the end of a chunk
// it knows all counters as of that chunk: the account that the rest of the program reads is always consistent.
// A batch is submitted when it is full, and at the end of a chunk when no further chunk is ready, so that a record is
// never held back for want of others.

// output is the output goroutine's state.
type output struct {
	order   <-chan *chunk
	workers []*worker
	free    chan<- *chunk
	queues  []*sinkQueue
	pool    *batchPool
	cur     *batch
	msgpack bool
	acct    *account
	lanes   []lane
	seqs    []uint64 // of each lane's next run, or laneDone
	count   outputCounters
	status  *statusWriter // nil without -status_interval
}

// lane is one worker's position in the merge.
type lane struct {
	w    *worker
	p    *part
	tag  int // the run that is next
	from int // where it begins in p.ends
	sub  uint64
	done bool // the worker has no more lines of this chunk
}

// laneDone is above every sequence number.
const laneDone = 1<<64 - 1

// run merges chunks until the order channel closes.
func (o *output) run() {
	o.lanes = make([]lane, len(o.workers))
	o.seqs = make([]uint64, len(o.workers))
	for i, w := range o.workers {
		o.lanes[i].w = w
	}
	o.cur = o.pool.get()
	for {
		c, ok := <-o.order
		if !ok {
			break
		}
		for ok {
			o.merge(c)
			select {
			case c, ok = <-o.order:
			default:
				ok = false
				c = nil
			}
		}
		o.flush()
	}
	if o.status != nil {
		o.writeStatus(o.acct.capture.lastTs)
	}
	o.flush()
	o.cur.release()
	o.count.batched = 0
	o.acct.end(o.count)
}

// merge writes the lines of one chunk, takes the counters over and gives the chunk back.
func (o *output) merge(c *chunk) {
	for i := range o.lanes {
		o.lanes[i].done = false
		o.advance(i)
	}
	for {
		best := o.lowest()
		if o.seqs[best] == laneDone {
			break
		}
		l := &o.lanes[best]
		o.take(l)
		l.from = l.p.tags[l.tag].end
		l.tag++
		o.advance(best)
	}
	o.count.batched = uint64(len(o.cur.ends))
	o.acct.update(c, o.count)
	if c.statusDue {
		o.writeStatus(c.statusTs)
	}
	o.free <- c
}

// writeStatus adds a status record, stamped ts, to the batch. It comes right behind the lines of the chunk that was
// merged last, and so never between two lines of a lookup.
func (o *output) writeStatus(ts int64) {
	b := o.cur
	s := o.acct.snapshot()
	b.json = o.status.appendJSON(b.json, s, ts)
	b.ends = append(b.ends, int32(len(b.json)))
	if o.msgpack {
		b.msgpack = o.status.appendMsgpack(b.msgpack)
		b.msgEnds = append(b.msgEnds, int32(len(b.msgpack)))
	}
	o.count.status++
}

// lowest returns the lane whose next run comes first. Sequence numbers differ but for ticks, so they are compared alone, in an
// array of their own, which the compiler does without branches (a branch that guesses among eight lanes is mostly wrong).
func (o *output) lowest() int {
	best, low := 0, o.seqs[0]
	for i, seq := range o.seqs {
		if seq < low {
			best, low = i, seq
		}
	}
	if l := &o.lanes[best]; l.sub != 0 && low != laneDone {
		for i := best + 1; i < len(o.seqs); i++ {
			if o.seqs[i] == low && o.lanes[i].sub < l.sub {
				best, l = i, &o.lanes[i]
			}
		}
	}
	return best
}

// advance moves lane i to its next run of lines, fetching parts as needed, or to the end of the worker's chunk.
func (o *output) advance(i int) {
	l := &o.lanes[i]
	for !l.done {
		if l.p == nil {
			l.p = <-l.w.out
			l.tag, l.from = 0, 0
		}
		if l.tag < len(l.p.tags) {
			o.seqs[i], l.sub = l.p.tags[l.tag].seq, l.p.tags[l.tag].sub
			return
		}
		if l.p.last {
			l.done = true
			o.acct.stage(l.w.id, &l.p.stat)
		}
		l.p.reset()
		l.w.free <- l.p
		l.p = nil
	}
	o.seqs[i] = laneDone
}

// take copies the lane's current run into the batch, which is submitted when it is full.
func (o *output) take(l *lane) {
	p, b := l.p, o.cur
	ends := p.ends[l.from:p.tags[l.tag].end]
	start := int32(0)
	if l.from > 0 {
		start = p.ends[l.from-1]
	}
	shift := int32(len(b.json)) - start
	for _, e := range ends {
		b.ends = append(b.ends, e+shift)
	}
	b.json = append(b.json, p.json[start:ends[len(ends)-1]]...)
	o.count.merged += uint64(len(ends))
	if o.msgpack {
		mends := p.mends[l.from:p.tags[l.tag].end]
		start := int32(0)
		if l.from > 0 {
			start = p.mends[l.from-1]
		}
		shift := int32(len(b.msgpack)) - start
		for _, e := range mends {
			b.msgEnds = append(b.msgEnds, e+shift)
		}
		b.msgpack = append(b.msgpack, p.msgp[start:mends[len(mends)-1]]...)
	}
	if len(b.json) >= batchTarget {
		o.flush()
	}
}

// flush submits the current batch to every sink and begins another.
func (o *output) flush() {
	if len(o.cur.ends) == 0 {
		return
	}
	for _, q := range o.queues {
		q.submit(o.cur)
	}
	o.count.submitted += uint64(len(o.cur.ends))
	o.cur.release()
	o.cur = o.pool.get()
}
