package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tinylib/msgp/msgp"
)

// addMsgpack gives b the msgpack of its JSON lines, in the same order of fields.
func addMsgpack(t testing.TB, b *batch) {
	t.Helper()
	for i := range b.records() {
		d := json.NewDecoder(bytes.NewReader(b.line(i)))
		d.UseNumber()
		var values []byte
		fields := uint32(0)
		if _, err := d.Token(); err != nil {
			t.Fatal(err)
		}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				t.Fatal(err)
			}
			value, err := d.Token()
			if err != nil {
				t.Fatal(err)
			}
			values = msgp.AppendString(values, key.(string))
			switch v := value.(type) {
			case json.Number:
				n, err := v.Int64()
				if err != nil {
					t.Fatal(err)
				}
				values = msgp.AppendInt64(values, n)
			case string:
				values = msgp.AppendString(values, v)
			case bool:
				values = msgp.AppendBool(values, v)
			default:
				t.Fatalf("%v", value)
			}
			fields++
		}
		b.msgpack = append(msgp.AppendMapHeader(b.msgpack, fields), values...)
		b.msgEnds = append(b.msgEnds, int32(len(b.msgpack)))
	}
}

// forwardServer is a stand-in for a receiver of the forward protocol: it takes PackedForward
// messages, checks them and acknowledges. What it got is JSON again.
type forwardServer struct {
	t        *testing.T
	l        net.Listener
	mu       sync.Mutex
	got      []byte
	batches  int
	noAcks   int // so many acknowledgements are not given
	resetAt  int // reset the connection in the middle of this batch, counted from 1
	hold     chan struct{}
	conns    []net.Conn
	closed   bool
	handlers sync.WaitGroup
}

func startForward(t *testing.T, network, address string, f *forwardServer) *forwardServer {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	f.t, f.l = t, l
	f.handlers.Add(1)
	go func() {
		defer f.handlers.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			if f.closed {
				c.Close()
			}
			f.conns = append(f.conns, c)
			f.mu.Unlock()
			f.handlers.Add(1)
			go f.serve(c)
		}
	}()
	t.Cleanup(f.stop)
	return f
}

// stop kills the server: connections and all.
func (f *forwardServer) stop() {
	f.mu.Lock()
	f.closed = true
	f.l.Close()
	for _, c := range f.conns {
		c.Close()
	}
	f.mu.Unlock()
	f.handlers.Wait()
}

func (f *forwardServer) lines() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bytes.Clone(f.got)
}

func (f *forwardServer) serve(c net.Conn) {
	defer f.handlers.Done()
	defer c.Close()
	r := msgp.NewReaderSize(c, 1<<16)
	for {
		n, err := r.ReadArrayHeader()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.batches++
		reset := f.batches == f.resetAt
		hold := f.hold
		f.mu.Unlock()
		if hold != nil {
			<-hold
		}
		tag, err := r.ReadString()
		if n != 3 || err != nil || tag != "dns.test" {
			f.t.Errorf("array of %d, tag %q, %v", n, tag, err)
			return
		}
		if reset {
			r.Skip() // entries are read, but never acknowledged
			if tcp, ok := c.(*net.TCPConn); ok {
				tcp.SetLinger(0)
			}
			return
		}
		entries, err := r.ReadBytes(nil)
		if err != nil {
			return
		}
		chunk := ""
		options, err := r.ReadMapHeader()
		for range options {
			key, _ := r.ReadString()
			var value string
			if value, err = r.ReadString(); key == "chunk" {
				chunk = value
			} else {
				f.t.Errorf("option %q", key)
			}
		}
		if err != nil {
			return
		}
		lines, err := forwardEntries(entries)
		if err != nil {
			f.t.Error(err)
			return
		}
		f.mu.Lock()
		f.got = append(f.got, lines...)
		ack := f.noAcks <= 0
		f.noAcks--
		f.mu.Unlock()
		if chunk != "" && ack {
			c.Write(msgp.AppendString(msgp.AppendString(msgp.AppendMapHeader(nil, 1), "ack"), chunk))
		}
	}
}

// forwardEntries turns entries into JSON lines, checking that the time of each is its tstamp.
func forwardEntries(entries []byte) ([]byte, error) {
	var out bytes.Buffer
	for len(entries) > 0 {
		n, rest, err := msgp.ReadArrayHeaderBytes(entries)
		if err != nil || n != 2 {
			return nil, fmt.Errorf("entry: array of %d, %v", n, err)
		}
		var at time.Time
		if rest[0] == 0xd7 && rest[1] == 0 {
			at = time.Unix(int64(binary.BigEndian.Uint32(rest[2:])), int64(binary.BigEndian.Uint32(rest[6:]))).UTC()
			rest = rest[10:]
		} else {
			var sec int64
			if sec, rest, err = msgp.ReadInt64Bytes(rest); err != nil {
				return nil, err
			}
			at = time.Unix(sec, 0).UTC()
		}
		start := out.Len()
		if entries, err = msgp.Skip(rest); err != nil {
			return nil, err
		}
		if _, err = msgp.UnmarshalAsJSON(&out, rest[:len(rest)-len(entries)]); err != nil {
			return nil, err
		}
		want := lineTime(out.Bytes()[start:])
		if at.Nanosecond() == 0 {
			want = want.Truncate(time.Second)
		}
		if !at.Equal(want) {
			return nil, fmt.Errorf("time of entry %v, of record %v", at, want)
		}
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}

// startFluentdQueue starts a queue with a Fluentd sink that waits so long for an
// acknowledgement.
func startFluentdQueue(t testing.TB, address string, ack bool, wait time.Duration, log *sinkLog) *sinkQueue {
	t.Helper()
	s, err := newFluentdSink(fluentdOptions{address: address, tag: "dns.test", ack: ack, log: log})
	if err != nil {
		t.Fatal(err)
	}
	s.wait = wait
	s.config.ReadTimeout = s.wait
	return newSinkQueue(s, sinkOptions{queueBytes: 64 << 20, block: true, log: log})
}

func testMsgpackBatches(t testing.TB, from, to, per int) ([]*batch, []byte) {
	bs, all := testBatches(from, to, per)
	for _, b := range bs {
		addMsgpack(t, b)
	}
	return bs, all
}

func TestFluentdOptions(t *testing.T) {
	for _, address := range []string{"/run/fluent.sock", "fluent.sock", "tcp://h:24224", "tcp://[::1]:1"} {
		o := fluentdOptions{address: address, tag: "t"}
		if err := o.validate(); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, c := range []struct {
		opt  fluentdOptions
		want string
	}{
		{fluentdOptions{address: "/x"}, "fluentd: no tag"},
		{fluentdOptions{address: "/x", tag: "a b"}, `fluentd: tag "a b" has a space or control character`},
		{fluentdOptions{tag: "t"}, "fluentd: no socket"},
		{fluentdOptions{tag: "t", address: "udp://h:1"}, `fluentd: socket "udp://h:1" is neither a path nor tcp://host:port`},
		{fluentdOptions{tag: "t", address: "tcp://h"}, `fluentd: socket "tcp://h" is neither a path nor tcp://host:port`},
		{fluentdOptions{tag: "t", address: "tcp://h:0"}, `fluentd: socket "tcp://h:0" is neither a path nor tcp://host:port`},
	} {
		if err := c.opt.validate(); err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

func TestFluentdRoundTrip(t *testing.T) {
	for _, network := range []string{"unix", "tcp", "tcp6"} {
		for _, ack := range []bool{true, false} {
			t.Run(fmt.Sprint(network, ack), func(t *testing.T) {
				defer noLeaks(t)()
				at := map[string]string{"unix": filepath.Join(t.TempDir(), "fluent.sock"), "tcp": "127.0.0.1:0", "tcp6": "[::1]:0"}[network]
				f := startForward(t, strings.TrimSuffix(network, "6"), at, &forwardServer{})
				address := f.l.Addr().String()
				if network != "unix" {
					address = "tcp://" + address
				}
				log := &sinkLog{}
				q := startFluentdQueue(t, address, ack, time.Minute, log)
				bs, want := testMsgpackBatches(t, 0, 3000, 500)
				for _, b := range bs {
					q.submit(b)
				}
				if err := q.drain(t.Context()); err != nil {
					t.Fatal(err)
				}
				waitFor(t, "records", func() bool { return len(f.lines()) >= len(want) })
				if !bytes.Equal(f.lines(), want) {
					t.Error("records differ")
				}
				if got, want := q.stats(), (sinkStats{name: "fluentd", submitted: 3000, written: 3000}); got != want || log.said() != nil {
					t.Errorf("got %+v, said %q", got, log.said())
				}
				f.stop()
			})
		}
	}
}

// Times outside of what an EventTime can say, and records without a time.
func TestFluentdTimes(t *testing.T) {
	s, err := newFluentdSink(fluentdOptions{address: "/x", tag: "dns.test", log: &sinkLog{}})
	if err != nil {
		t.Fatal(err)
	}
	b := testBatch(
		`{"tstamp":"1970-01-01T00:00:00.000000001Z"}`+"\n", `{"tstamp":"2038-01-19T03:14:08.500000000Z"}`+"\n",
		`{"tstamp":"2106-02-07T06:28:15.999999999Z"}`+"\n", `{"tstamp":"2262-01-01T00:00:00.000000000Z"}`+"\n", `{"tstamp":"1969-12-31T23:59:59.000000000Z"}`+"\n")
	addMsgpack(t, b)
	s.encode(b)
	_, entries, err := msgp.ReadArrayHeaderBytes(s.frame)
	if err == nil {
		_, entries, err = msgp.ReadStringBytes(entries)
	}
	if err == nil {
		entries, _, err = msgp.ReadBytesZC(entries)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := forwardEntries(entries); err != nil || !bytes.Equal(got, b.json) {
		t.Errorf("got %s, %v", got, err)
	}
	b = testBatch(`{"type":"status"}` + "\n")
	addMsgpack(t, b)
	before := time.Now().Unix()
	s.encode(b)
	at := int64(binary.BigEndian.Uint32(s.frame[len(s.head)+5+3:]))
	if at < before || at > time.Now().Unix() || at > math.MaxUint32 {
		t.Errorf("time %d", at)
	}
}

func TestFluentdEncodeAllocatesNothing(t *testing.T) {
	s, err := newFluentdSink(fluentdOptions{address: "/x", tag: "dns.test", log: &sinkLog{}})
	if err != nil {
		t.Fatal(err)
	}
	bs, _ := testMsgpackBatches(t, 0, 500, 500)
	if n := testing.AllocsPerRun(10, func() { s.encode(bs[0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestFluentdFaults(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			defer noLeaks(t)()
			at := filepath.Join(t.TempDir(), "fluent.sock")
			address := at
			if network == "tcp" {
				at = fmt.Sprintf("127.0.0.1:%d", freePort(t))
				address = "tcp://" + at
			}
			log := &sinkLog{}
			q := startFluentdQueue(t, address, true, 300*time.Millisecond, log)
			bs, _ := testMsgpackBatches(t, 0, 4000, 100)

			// Down at start.
			for _, b := range bs[:10] {
				q.submit(b)
			}
			waitFor(t, "failed attempts", func() bool { return balanced(t, q).errors >= 2 })
			if st := q.stats(); st.resent != 0 || st.written != 0 {
				t.Errorf("got %+v", st)
			}
			f := startForward(t, network, at, &forwardServer{resetAt: 2}) // and reset in the middle of a batch
			waitSettled(t, q)
			if st := balanced(t, q); st.resent == 0 || st.resent > 1000 || st.written != 1000 {
				t.Errorf("got %+v", st)
			}

			// Killed and restarted, while idle and while a batch waits for its answer.
			f.stop()
			got := f.lines()
			q.submit(bs[10])
			waitFor(t, "an error", func() bool { return q.stats().failing })
			f = startForward(t, network, at, &forwardServer{})
			waitSettled(t, q)
			f.mu.Lock()
			f.hold = make(chan struct{})
			f.mu.Unlock()
			for _, b := range bs[11:20] {
				q.submit(b)
			}
			waitFor(t, "an error", func() bool { return q.stats().failing })
			close(f.hold)
			f.stop()
			got = append(got, f.lines()...)
			f = startForward(t, network, at, &forwardServer{})
			waitSettled(t, q)

			// Acknowledgements that do not come: all arrives, some twice.
			f.mu.Lock()
			f.noAcks = 2
			f.mu.Unlock()
			for _, b := range bs[20:] {
				q.submit(b)
			}
			waitSettled(t, q)
			if err := q.drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.stop()
			got = append(got, f.lines()...)
			st := balanced(t, q)
			seen, twice := make(map[string]bool), uint64(0)
			for _, line := range strings.SplitAfter(string(got), "\n") {
				if seen[line] {
					twice++
				}
				seen[line] = true
			}
			delete(seen, "")
			if len(seen) != 4000 || twice == 0 || twice > st.resent || st.written != 4000 || st.failed != 0 {
				t.Errorf("%d of 4000 records arrived, %d twice, %+v", len(seen), twice, st)
			}
			said := log.said()
			for i, s := range said {
				if !strings.Contains(s, []string{"trying again until it works", "works again after"}[i%2]) {
					t.Errorf("said %q", said)
					break
				}
			}
		})
	}
}

// A receiver that takes and never answers: the drain's limit holds; the goroutine is gone
// once the library's time-out has ended its wait.
func TestFluentdNeverAnswers(t *testing.T) {
	defer noLeaks(t)()
	f := startForward(t, "tcp", "127.0.0.1:0", &forwardServer{noAcks: math.MaxInt})
	q := startFluentdQueue(t, "tcp://"+f.l.Addr().String(), true, 300*time.Millisecond, &sinkLog{})
	bs, _ := testMsgpackBatches(t, 0, 1000, 100)
	for _, b := range bs {
		q.submit(b)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := q.drain(ctx); err == nil {
		t.Error("no error")
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	<-q.finished
	if st := balanced(t, q); st.failed != 1000 {
		t.Errorf("got %+v", st)
	}
	f.stop()
}

func BenchmarkFluentdSink(b *testing.B) {
	l, err := net.Listen("unix", filepath.Join(b.TempDir(), "fluent.sock"))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r := msgp.NewReaderSize(c, 1<<16)
		for {
			if _, err := r.ReadArrayHeader(); err != nil {
				return
			}
			r.Skip()
			r.Skip()
			r.ReadMapHeader()
			r.Skip()
			chunk, _ := r.ReadString()
			c.Write(msgp.AppendString(msgp.AppendString(msgp.AppendMapHeader(nil, 1), "ack"), chunk))
		}
	}()
	q := startFluentdQueue(b, l.Addr().String(), true, time.Minute, &sinkLog{})
	bs, _ := testMsgpackBatches(b, 0, 700, 700)
	start, n := time.Now(), 0
	for b.Loop() {
		q.submit(bs[0])
		n += 700
	}
	if err := q.drain(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(n)/time.Since(start).Seconds(), "records/s")
}
