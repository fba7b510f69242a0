package main

// pipeline.go connects the rooms: it makes the channels, starts the workers and the output goroutine, and gives the
// capture goroutine its feeder. Who owns what is drawn in main.go.

import (
	"math/rand/v2"
	"sync"
	"time"
)

// pipeline is everything between a source and the sinks.
type pipeline struct {
	feeder *feeder
	acct   *account
	wg     sync.WaitGroup
}

// Bounds of memory that are shared out among the workers.
const (
	waitBytesTotal = 32 << 20 // responses that wait for their query
	tcpStreamsMax  = 65536
	tcpBytesTotal  = 64 << 20
	tcpStreamBytes = 256 << 10
	tcpIdleNs      = int64(2 * time.Minute)
)

// What memoryBound adds up, in bytes: README's section on sizing says the same.
const (
	memoryFixed     = 200 << 20 // program, chunks, fragments, TCP, waiting responses, idle batches
	memoryPerWorker = 16 << 20  // partCount parts in both forms, each up to partKeep, and one record of 64 KB in -layout lookup
	memoryPerSink   = 8 << 20   // what it has in hand, beside twice its queue
	memoryPerLookup = 600       // a lookup whose name needs an overflow slot, its queue entries and bucket, its share of answered sets
)

// memoryBound is the most memory that cfg and the bounds of all tables and queues allow, with all of them full at once.
func memoryBound(cfg *config, sinks int) int64 {
	perSink := int64(memoryPerSink + 2*cfg.queueBytes())
	return memoryFixed + int64(cfg.numProcs)*memoryPerWorker + int64(sinks)*perSink + int64(cfg.maxPending)*memoryPerLookup
}

// newPipeline starts the workers and the output goroutine, which gives the lines to queues.
func newPipeline(cfg *config, queues []*sinkQueue, wantMsgpack bool, stop <-chan struct{}) *pipeline {
	n := cfg.numProcs
	p := &pipeline{acct: newAccount(n, queues)}
	key0, key1 := rand.Uint64()|1, rand.Uint64()|1
	f := &feeder{
		loc:      locator{anyPort: cfg.bpfSet, key0: key0, key1: key1},
		inner:    locator{key0: key0, key1: key1},
		defrag:   newDefragmenter(fragLimits{trains: 16384, bytes: 32 << 20, ageNs: int64(30 * time.Second)}),
		slow:     newSlowDecoder(),
		free:     make(chan *chunk, chunkCount),
		order:    make(chan *chunk, chunkCount),
		stop:     stop,
		workersN: uint64(n),
		statusNs: int64(cfg.statusInterval),
	}
	for i := range n {
		w := &worker{
			id: i, in: make(chan *chunk, chunkCount), out: make(chan *part, partCount), free: make(chan *part, partCount),
			enc:   newEncoder(cfg.name, cfg.syslog.priority, cfg.sections, cfg.layout == layoutRR, wantMsgpack),
			tab:   newConnTable(max(1, (cfg.maxPending+n-1)/n), waitBytesTotal/n),
			done:  newAnsweredSet(max(answeredMin, cfg.maxPending/n)),
			gcAge: int64(cfg.gcAge), gcInterval: int64(cfg.gcInterval), incomplete: cfg.incomplete,
			cur: &part{},
		}
		w.tcp = newTCPTable(tcpLimits{streams: max(16, tcpStreamsMax/n), streamBytes: tcpStreamBytes, totalBytes: max(2*tcpStreamBytes, tcpBytesTotal/n), idleNs: tcpIdleNs}, w)
		for range partCount - 1 {
			w.free <- &part{}
		}
		f.workers = append(f.workers, w)
	}
	for range chunkCount {
		f.free <- &chunk{slab: make([]byte, slabSize), views: make([][]view, n)}
	}
	f.cur = f.take()
	out := &output{order: f.order, workers: f.workers, free: f.free, queues: queues, pool: newBatchPool(blockQueueMB<<20/batchTarget + 2), msgpack: wantMsgpack, acct: p.acct}
	if cfg.statusInterval > 0 {
		out.status = newStatusWriter(cfg.name, version)
	}
	p.wg.Add(n + 1)
	for _, w := range f.workers {
		go func() {
			defer p.wg.Done()
			w.run()
		}()
	}
	go func() {
		defer p.wg.Done()
		out.run()
	}()
	p.feeder = f
	return p
}

// finish ends the input: all that is under way is written, and submitted to the sinks when it returns.
func (p *pipeline) finish() {
	p.feeder.finish()
	p.wg.Wait()
}
