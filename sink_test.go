package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// sinkLog is a logger that keeps what it is told.
type sinkLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *sinkLog) add(level, format string, args []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, level+" "+fmt.Sprintf(format, args...))
}
func (l *sinkLog) warnf(format string, args ...any)  { l.add("warn", format, args) }
func (l *sinkLog) errorf(format string, args ...any) { l.add("error", format, args) }
func (l *sinkLog) debugf(format string, args ...any) { l.add("debug", format, args) }

// said returns what was logged, without debug lines.
func (l *sinkLog) said() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, s := range l.lines {
		if !strings.HasPrefix(s, "debug") {
			out = append(out, s)
		}
	}
	return out
}

// everything returns all that was logged, as one string.
func (l *sinkLog) everything() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// noLeaks returns a function that fails the test if goroutines are left that were not there
// before, apart from the one that lumberjack never ends, and from a timer of sarama's circuit
// breaker that ends by itself after 10 s.
func noLeaks(t *testing.T) func() {
	current := goleak.IgnoreCurrent()
	return func() {
		t.Helper()
		goleak.VerifyNone(t, current, goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"),
			goleak.IgnoreAnyFunction("github.com/eapache/go-resiliency/breaker.(*Breaker).timer"))
	}
}

// testLine returns record i in the layout of a real one.
func testLine(i int) string {
	return fmt.Sprintf(`{"tstamp":"2026-03-04T05:06:%02d.%09dZ","sensor":"s","query_id":%d,"src":"192.0.2.%d","sport":"%d","dst":"198.51.100.53","dport":"53",`+
		`"protocol":"udp","q":"host%d.example.com","qtype":"A","rcode":0,"status":"answer","aname":"host%d.example.com","atype":"A","a":"203.0.113.%d","ttl":300,`+
		`"elapsed":1234567,"bytes":89,"qbytes":45,"aa":false,"rd":true,"ra":true,"truncated":false,"ad":false,"cd":false,"edns_udp":1232,"do":false}`+"\n",
		i%60, i%1e9, i%65536, i%254+1, 1024+i%60000, i, i, i%254+1)
}

// testBatch returns a batch of the given lines with one reference.
func testBatch(lines ...string) *batch {
	b := &batch{}
	b.refs.Store(1)
	for _, l := range lines {
		b.json = append(b.json, l...)
		b.ends = append(b.ends, int32(len(b.json)))
	}
	return b
}

// testBatches returns records from … to-1 in batches of per records, and all lines in one.
func testBatches(from, to, per int) (bs []*batch, all []byte) {
	for i := from; i < to; i += per {
		var lines []string
		for j := i; j < min(i+per, to); j++ {
			lines = append(lines, testLine(j))
		}
		b := testBatch(lines...)
		all = append(all, b.json...)
		bs = append(bs, b)
	}
	return bs, all
}

// balanced fails the test unless every record is accounted for.
func balanced(t *testing.T, q *sinkQueue) sinkStats {
	t.Helper()
	st := q.stats()
	if st.submitted != st.written+st.dropped+st.failed+st.queuedRecords {
		t.Errorf("not balanced: %+v", st)
	}
	return st
}

// fakeSink collects lines; its behaviour is set by the test.
type fakeSink struct {
	mu       sync.Mutex
	got      bytes.Buffer
	fail     func(call int) error // nil: no failure
	gate     chan struct{}        // not nil: each write waits for a token, or for the interrupt
	stop     chan struct{}
	stuck    bool // the interrupt does not help
	calls    int
	reopened []int // bytes of got when reopen was called
	closed   int
}

func newFakeSink() *fakeSink { return &fakeSink{stop: make(chan struct{})} }

func (s *fakeSink) name() string { return "fake" }
func (s *fakeSink) write(b *batch) error {
	if s.gate != nil {
		if s.stuck {
			<-s.gate
		} else {
			select {
			case <-s.gate:
			case <-s.stop:
				return errors.New("interrupted")
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.fail != nil {
		if err := s.fail(s.calls); err != nil {
			return err
		}
	}
	s.got.Write(b.json)
	return nil
}
func (s *fakeSink) interrupt()                  { close(s.stop) }
func (s *fakeSink) close(context.Context) error { s.closed++; return nil }
func (s *fakeSink) reopen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reopened = append(s.reopened, s.got.Len())
	return nil
}

func TestBatchLines(t *testing.T) {
	b := testBatch("a\n", "bcd\n", "\n")
	for i, want := range []string{"a\n", "bcd\n", "\n"} {
		if got := string(b.line(i)); got != want {
			t.Errorf("line %d: got %q, want %q", i, got, want)
		}
	}
	for off, want := range []int{0, 0, 1, 1, 1, 1, 2, 3, 3} {
		if got := b.lineAt(off); got != want {
			t.Errorf("lineAt(%d): got %d, want %d", off, got, want)
		}
	}
	c := testBatch("x\n")
	c.msgpack, c.msgEnds = []byte{0x80}, []int32{1}
	b.msgpack, b.msgEnds = []byte{0x80, 0x80, 0x80}, []int32{1, 2, 3}
	b.appendBatch(c)
	if got, want := fmt.Sprint(string(b.json), b.ends, b.msgEnds), fmt.Sprint("a\nbcd\n\nx\n", []int32{2, 6, 7, 9}, []int32{1, 2, 3, 4}); got != want {
		t.Errorf("appendBatch: got %q, want %q", got, want)
	}
}

func TestLineTime(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{testLine(7), "2026-03-04T05:06:07.000000007Z"},
		{`{"tstamp":"1970-01-01T00:00:00.000000000Z"`, "1970-01-01T00:00:00Z"},
		{`{"tstamp":"2000-02-29T23:59:59.999999999Z"`, "2000-02-29T23:59:59.999999999Z"},
		{`{"tstamp":"2262-04-11T23:47:16.854775807Z"`, "2262-04-11T23:47:16.854775807Z"},
		{`{"tstamp":"2026-13-01T00:00:00.000000000Z"`, "0001-01-01T00:00:00Z"},
		{`{"tstamp":"2026-01-01T00:00:00.00000000xZ"`, "0001-01-01T00:00:00Z"},
		{`{"tstamp":"2026-01-01T00:00:00Z"`, "0001-01-01T00:00:00Z"},
		{`{"type":"status"}`, "0001-01-01T00:00:00Z"},
		{"", "0001-01-01T00:00:00Z"},
	} {
		if got := lineTime([]byte(c.line)).Format(time.RFC3339Nano); got != c.want {
			t.Errorf("%s: got %s", c.line, got)
		}
	}
}

func BenchmarkLineTime(b *testing.B) {
	line := []byte(testLine(7))
	b.ReportAllocs()
	for b.Loop() {
		lineTime(line)
	}
}

func TestBatchPoolAllocatesNothing(t *testing.T) {
	p := newBatchPool(4)
	line := []byte(testLine(1))
	n := testing.AllocsPerRun(100, func() {
		b := p.get()
		for range 100 {
			b.json = append(b.json, line...)
			b.ends = append(b.ends, int32(len(b.json)))
		}
		b.release()
	})
	if n != 0 {
		t.Errorf("%v allocations for a batch", n)
	}
	b := p.get()
	b.json = make([]byte, 8*batchTarget)
	b.release()
	if got := p.get(); cap(got.json) > 4*batchTarget {
		t.Errorf("a batch of %d bytes was kept", cap(got.json))
	}
}

func TestBatchReleasedTwicePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	b := newBatchPool(1).get()
	b.release()
	b.release()
}

func TestSinkQueueDeliversInOrder(t *testing.T) {
	for _, per := range []int{1, 7, 1000} {
		t.Run(fmt.Sprint(per), func(t *testing.T) {
			defer noLeaks(t)()
			s, log := newFakeSink(), &sinkLog{}
			q := newSinkQueue(s, sinkOptions{queueBytes: 1 << 20, block: true, log: log})
			bs, want := testBatches(0, 5000, per)
			for _, b := range bs {
				q.submit(b)
				b.release()
				balanced(t, q)
			}
			if err := q.drain(context.Background()); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(s.got.Bytes(), want) {
				t.Errorf("got %d bytes, want %d", s.got.Len(), len(want))
			}
			if got, want := q.stats(), (sinkStats{name: "fake", submitted: 5000, written: 5000}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if said := log.said(); said != nil || s.closed != 1 {
				t.Errorf("said %q, closed %d times", said, s.closed)
			}
			for _, b := range bs {
				if n := b.refs.Load(); n != 0 {
					t.Fatalf("a batch is left with %d references", n)
				}
			}
		})
	}
}

func TestSinkQueueDropsWhenLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newFakeSink(), &sinkLog{}
		s.gate = make(chan struct{}, 1000)
		q := newSinkQueue(s, sinkOptions{queueBytes: 10000, log: log})
		bs, _ := testBatches(0, 100, 5)
		for range 3 { // three overflows within 10 s of each other: one pair of warnings
			for _, b := range bs {
				q.submit(b)
				synctest.Wait()
				st := balanced(t, q)
				if st.queuedBytes > 10000 {
					t.Errorf("%d bytes queued", st.queuedBytes)
				}
			}
			for range 20 {
				s.gate <- struct{}{}
			}
			synctest.Wait()
			for len(s.gate) > 0 {
				<-s.gate
			}
		}
		st := balanced(t, q)
		if st.dropped == 0 || st.queuedRecords != 0 {
			t.Fatalf("got %+v", st)
		}
		first := st.dropped / 3
		if got, want := fmt.Sprint(log.said()), fmt.Sprintf("[warn sink fake: queue is full (10000 bytes), new records are dropped "+
			"warn sink fake: queue has room again, %d records were dropped]", first); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
		if err := q.drain(t.Context()); err != nil {
			t.Error(err)
		}
		if got, want := log.said()[2], fmt.Sprintf("warn sink fake: %d records were dropped because the queue was full", 2*first); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
		if got := uint64(bytes.Count(s.got.Bytes(), []byte("\n"))); got != st.written {
			t.Errorf("%d lines arrived, %d counted", got, st.written)
		}
	})
}

func TestSinkQueueBlocksForAFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newFakeSink(), &sinkLog{}
		s.gate = make(chan struct{})
		q := newSinkQueue(s, sinkOptions{queueBytes: 10000, block: true, log: log})
		bs, want := testBatches(0, 300, 5)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for _, b := range bs {
				q.submit(b)
			}
		}()
		synctest.Wait()
		select {
		case <-sent:
			t.Fatal("submit did not wait")
		default:
		}
		balanced(t, q)
		close(s.gate)
		<-sent
		if err := q.drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(s.got.Bytes(), want) || balanced(t, q).written != 300 {
			t.Errorf("got %d bytes of %d, %+v", s.got.Len(), len(want), q.stats())
		}
	})
}

// Small batches that wait are copied together, so that the buffers of many nearly empty
// ones are not held.
func TestSinkQueueCopiesSmallBatchesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeSink()
		s.gate = make(chan struct{})
		q := newSinkQueue(s, sinkOptions{queueBytes: 8 << 20, log: &sinkLog{}})
		p := newBatchPool(4)
		var want []byte
		for i := range 10000 {
			b := p.get()
			b.json = append(b.json, testLine(i)...)
			b.ends = append(b.ends, int32(len(b.json)))
			want = append(want, b.json...)
			q.submit(b)
			b.release()
			if i == 0 || i == 5000 {
				synctest.Wait()
				q.reopen() // must stay between these records
			}
		}
		q.mu.Lock()
		waiting, held := len(q.ring)-q.head, 0
		for _, b := range q.ring[q.head:] {
			held += cap(b.json)
		}
		q.mu.Unlock()
		if waiting > 25 || held > 2*len(want) {
			t.Errorf("%d batches of %d bytes wait for %d bytes of records", waiting, held, len(want))
		}
		close(s.gate)
		if err := q.drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(s.got.Bytes(), want) {
			t.Error("lines differ")
		}
		if len(s.reopened) == 0 || s.reopened[len(s.reopened)-1] != strings.Index(string(want), testLine(5001)) {
			t.Errorf("reopened at %v", s.reopened)
		}
	})
}

func TestSinkQueueRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newFakeSink(), &sinkLog{}
		s.fail = func(call int) error {
			if call >= 3 && call < 14 {
				return errors.New("no route to host")
			}
			return nil
		}
		q := newSinkQueue(s, sinkOptions{queueBytes: 1 << 20, block: true, log: log})
		bs, want := testBatches(0, 50, 10)
		start := time.Now()
		for _, b := range bs {
			q.submit(b)
			synctest.Wait()
			balanced(t, q)
		}
		for balanced(t, q).queuedRecords > 0 {
			time.Sleep(time.Second)
		}
		took := time.Since(start)
		if err := q.drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(s.got.Bytes(), want) {
			t.Error("lines differ")
		}
		// 0.1 + 0.2 + … + 6.4 + 4 × 10 s, each half to whole.
		if took < 26*time.Second || took > 54*time.Second {
			t.Errorf("took %v", took)
		}
		said := log.said()
		if len(said) != 2 || said[0] != "error sink fake: no route to host; trying again until it works" ||
			!strings.HasPrefix(said[1], "warn sink fake: works again after ") {
			t.Errorf("said %q", said)
		}
		if got, want := q.stats(), (sinkStats{name: "fake", submitted: 50, written: 50, errors: 11}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestSinkQueueDrainIsBounded(t *testing.T) {
	for _, how := range []string{"failing", "blocked", "stuck"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, log := newFakeSink(), &sinkLog{}
				s.gate = make(chan struct{}, 1)
				s.gate <- struct{}{}
				s.stuck = how == "stuck"
				if how == "failing" {
					close(s.gate)
					s.fail = func(call int) error {
						if call == 1 {
							return nil
						}
						return errors.New("disk full")
					}
				}
				q := newSinkQueue(s, sinkOptions{queueBytes: 20000, block: true, log: log})
				bs, _ := testBatches(0, 200, 10)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				q.limit(ctx)
				for _, b := range bs { // waits until the limit lets it go
					q.submit(b)
				}
				start := time.Now()
				err := q.drain(ctx)
				if took := time.Since(start); took > sinkGrace {
					t.Errorf("drain took %v after its limit", took)
				}
				st := balanced(t, q)
				if st.written != 10 || st.failed != 190 || st.queuedRecords != 0 || err == nil {
					t.Errorf("got %+v, %v", st, err)
				}
				said := log.said()
				if got, want := said[len(said)-1], "error sink fake: 190 of 200 records could not be delivered"; got != want {
					t.Errorf("said %q", said)
				}
				if s.stuck {
					close(s.gate) // the goroutine that was given up
					<-q.finished
					if st := balanced(t, q); st.failed != 190 {
						t.Errorf("after all: %+v", st)
					}
				}
				for _, b := range bs {
					if b.refs.Load() != 1 {
						t.Fatal("a batch is still referenced")
					}
				}
			})
		})
	}
}

func TestSinkQueueQuietEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newFakeSink(), &sinkLog{}
		s.fail = func(call int) error {
			if call == 2 {
				return errSinkClosed
			}
			return nil
		}
		q := newSinkQueue(s, sinkOptions{queueBytes: 1 << 20, block: true, log: log})
		bs, _ := testBatches(0, 50, 10)
		for _, b := range bs {
			q.submit(b)
		}
		<-q.done()
		if !errors.Is(q.err(), errSinkClosed) {
			t.Errorf("got %v", q.err())
		}
		if err := q.drain(t.Context()); err != nil {
			t.Error(err)
		}
		st := balanced(t, q)
		if st.written != 10 || st.dropped != 40 || s.closed != 1 {
			t.Errorf("got %+v, closed %d times", st, s.closed)
		}
		if said := log.said(); said != nil {
			t.Errorf("said %q", said)
		}
	})
}

func TestSinkQueueFatalEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newFakeSink(), &sinkLog{}
		s.fail = func(int) error { return sinkFatal{errors.New("bad file descriptor")} }
		q := newSinkQueue(s, sinkOptions{queueBytes: 1 << 20, block: true, log: log})
		bs, _ := testBatches(0, 50, 10)
		for _, b := range bs {
			q.submit(b)
		}
		<-q.done()
		if err := q.drain(t.Context()); err == nil || err.Error() != "bad file descriptor" {
			t.Errorf("got %v", err)
		}
		if st := balanced(t, q); st.failed != 50 {
			t.Errorf("got %+v", st)
		}
	})
}

// SIGHUP while the sink fails must not wait for the next attempt.
func TestSinkQueueReopenEndsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeSink()
		s.fail = func(int) error {
			if len(s.reopened) == 0 {
				return errors.New("no space left on device")
			}
			return nil
		}
		q := newSinkQueue(s, sinkOptions{queueBytes: 1 << 20, block: true, log: &sinkLog{}})
		b := testBatch(testLine(1))
		q.submit(b)
		time.Sleep(time.Minute)
		start := time.Now()
		q.reopen()
		synctest.Wait()
		if st := balanced(t, q); st.written != 1 || time.Since(start) != 0 {
			t.Errorf("got %+v after %v", st, time.Since(start))
		}
		if err := q.drain(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// What the hand-over of a batch costs, beside the 256 KiB of lines in it.
func BenchmarkSinkQueue(b *testing.B) {
	s := newStdoutSink(discardWriter{})
	q := newSinkQueue(s, sinkOptions{queueBytes: 64 << 20, block: true, log: &sinkLog{}})
	p := newBatchPool(64)
	bs, _ := testBatches(0, 700, 700)
	b.ReportAllocs()
	b.SetBytes(int64(len(bs[0].json)))
	for b.Loop() {
		x := p.get()
		x.json, x.ends = append(x.json, bs[0].json...), append(x.ends, bs[0].ends...)
		q.submit(x)
		x.release()
	}
	q.drain(context.Background())
}

type discardWriter struct{}

func (discardWriter) Write(p []byte) (int, error) { return len(p), nil }
