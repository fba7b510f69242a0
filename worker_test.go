package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gopassivedns/testdata/bench/wire"
)

// workerHarness drives one worker without goroutines: messages and ticks go in, lines come out.
type workerHarness struct {
	t     testing.TB
	w     *worker
	seq   uint64
	clock uint64
	last  int64
}

func newWorkerHarness(t testing.TB, maxLookups, waitBytes int) *workerHarness {
	w := &worker{
		enc:   newEncoder("test", "", wantAnswer, true, false),
		tab:   newConnTable(maxLookups, waitBytes),
		done:  newAnsweredSet(answeredMin),
		gcAge: int64(time.Minute), gcInterval: int64(time.Second), incomplete: true, cur: &part{},
	}
	w.tcp = newTCPTable(tcpLimits{streams: 16, streamBytes: tcpStreamBytes, totalBytes: 1 << 20, idleNs: tcpIdleNs}, w)
	return &workerHarness{t: t, w: w}
}

// take returns what was written since the last call, as short text, and checks that it is in order.
func (h *workerHarness) take() []string {
	h.t.Helper()
	var out []string
	for line := range strings.Lines(string(h.w.cur.json)) {
		r := checkRecord(h.t, []byte(line))
		s := fmt.Sprintf("%s %s %s>%s %d", r.Status, r.Q, r.Src+":"+r.Sport, r.Dst+":"+r.Dport, r.QueryID)
		if r.Elapsed != nil {
			s += fmt.Sprintf(" in %v", time.Duration(*r.Elapsed))
		}
		if r.Attempts != nil {
			s += fmt.Sprintf(" attempts %d", *r.Attempts)
		}
		if r.A != nil && *r.A != "" {
			s += " " + *r.A
		}
		out = append(out, s)
	}
	tags := h.w.cur.tags
	if !slices.IsSortedFunc(tags, func(a, b tag) int { return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.sub, b.sub)) }) {
		h.t.Fatalf("tags are out of order: %v", tags)
	}
	h.w.cur.reset()
	return out
}

// send gives the worker a message at ts and returns what it writes.
func (h *workerHarness) send(ts int64, from, to string, tcp bool, msg []byte) []string {
	h.t.Helper()
	src, dst := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	f := flow{src: src.Addr().As16(), dst: dst.Addr().As16(), sport: src.Port(), dport: dst.Port(), v6: src.Addr().Is6()}
	hash := uint64(0)
	for i := range f.src {
		hash += uint64(f.src[i])<<uint(i) + uint64(f.dst[i])<<uint(i)
	}
	h.w.seq, h.w.sub = h.seq, 0
	h.w.dns(&f, mix(hash+uint64(f.sport)+uint64(f.dport), 0x9e3779b97f4a7c15), tcp, msg, len(msg), ts, h.seq, 0)
	h.seq++
	return h.take()
}

// tick tells the worker that it is ts.
func (h *workerHarness) tick(ts int64) []string {
	h.t.Helper()
	if ts > h.last {
		h.clock += uint64(ts - h.last)
	}
	h.last = ts
	h.w.tick(&view{ts: ts, seq: h.seq, hash: h.clock, kind: viewTick})
	h.seq++
	return h.take()
}

func (h *workerHarness) end() []string {
	h.t.Helper()
	h.w.end(&view{seq: h.seq, kind: viewEnd})
	h.seq++
	return h.take()
}

// balanced checks the equations of the worker's counters.
func (h *workerHarness) balanced() {
	h.t.Helper()
	var c workerCounters
	h.w.snapshot(&c)
	s := snapshot{work: c}
	for _, e := range s.equations() {
		if strings.Contains(e.name, "lookups") || strings.HasPrefix(e.name, "queries") || strings.HasPrefix(e.name, "responses") {
			if e.left != e.right {
				h.t.Errorf("%s: %d != %d", e.name, e.left, e.right)
			}
		}
	}
}

// dnsQuery and dnsAnswer are a query and its response with the addresses given, "" for none.
func dnsQuery(id uint16, name string, qtype uint16) []byte {
	var m wire.Msg
	m.Begin(id, 0x0100, wire.AppendName(nil, name), qtype)
	return m.B
}

func dnsAnswer(id uint16, name string, qtype uint16, addrs ...string) []byte {
	var m wire.Msg
	m.Begin(id, 0x8180, wire.AppendName(nil, name), qtype)
	for _, a := range addrs {
		m.Pointer(wire.QnameAt)
		m.RR(wire.Answer, wire.TypeA, 60)
		m.B = append(m.B, netip.MustParseAddr(a).AsSlice()...)
		m.End()
	}
	return m.B
}

const (
	clientA = "192.0.2.1:4660"
	clientB = "192.0.2.2:4660"
	serverA = "198.51.100.1:53"
	serverB = "198.51.100.2:53"
)

// legs of a scenario: each step is what is sent or a tick, and what the worker must write.
type workerStep struct {
	ts       time.Duration
	from, to string // "" = a tick
	tcp      bool
	msg      []byte
	want     []string
}

func query(ts time.Duration, from, to string, msg []byte, want ...string) workerStep {
	return workerStep{ts: ts, from: from, to: to, msg: msg, want: want}
}

func tick(ts time.Duration, want ...string) workerStep { return workerStep{ts: ts, want: want} }

func overTCP(s workerStep) workerStep {
	s.tcp = true
	return s
}

func TestMatching(t *testing.T) {
	const s = time.Second
	const ms = time.Millisecond
	q, r := dnsQuery(7, "a.test", 1), dnsAnswer(7, "a.test", 1, "192.0.2.99")
	forged := dnsAnswer(7, "a.test", 1, "203.0.113.66")
	noQuestion := []byte{0, 7, 0x81, 0x82, 0, 0, 0, 0, 0, 0, 0, 0}
	answer := func(elapsed string) string {
		return "answer a.test 192.0.2.1:4660>198.51.100.1:53 7 in " + elapsed + " 192.0.2.99"
	}
	const unanswered = "unanswered a.test 192.0.2.1:4660>198.51.100.1:53 7"
	const unsolicited = "unsolicited a.test 192.0.2.1:4660>198.51.100.1:53 7 192.0.2.99"
	axfr := dnsQuery(7, "a.test", typeAXFR)
	axfrFirst := dnsAnswer(7, "a.test", typeAXFR, "192.0.2.10")
	axfrMore := []byte("\x00\x07\x84\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01b\x04test\x00\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x0b")

	tests := []struct {
		name  string
		steps []workerStep
		end   []string
	}{
		{"answered", []workerStep{
			query(0, clientA, serverA, q),
			query(5*ms, serverA, clientA, r, answer("5ms"))}, nil},
		{"asked three times", []workerStep{
			query(0, clientA, serverA, q), query(1*s, clientA, serverA, q), query(2*s, clientA, serverA, q),
			query(2*s+ms, serverA, clientA, r, "answer a.test 192.0.2.1:4660>198.51.100.1:53 7 in 2.001s attempts 3 192.0.2.99")}, nil},
		{"response seen first", []workerStep{
			query(5*ms, serverA, clientA, r),
			query(4*ms, clientA, serverA, q, answer("1ms"))}, nil},
		{"response seen first, with its own time before the query's", []workerStep{
			query(5*ms, serverA, clientA, r),
			query(7*ms, clientA, serverA, q, answer("-2ms"))}, nil},
		{"response that waited too long for its query", []workerStep{
			query(0, serverA, clientA, r),
			query(2*s+1, clientA, serverA, q, unsolicited)}, []string{unanswered}},
		{"unsolicited", []workerStep{query(0, serverA, clientA, r), tick(2 * s), tick(3 * s), tick(3*s+ms, unsolicited)}, nil},
		{"unsolicited, at the end", []workerStep{query(0, serverA, clientA, r)}, []string{unsolicited}},
		{"unanswered", []workerStep{query(0, clientA, serverA, q), tick(60 * s), tick(61 * s), tick(62*s, unanswered)}, nil},
		{"unanswered, at the end", []workerStep{query(0, clientA, serverA, q), query(1*s, clientA, serverA, q)}, []string{unanswered + " attempts 2"}},
		{"response at gc_age", []workerStep{query(0, clientA, serverA, q), query(60*s, serverA, clientA, r, answer("1m0s"))}, nil},
		{"response after gc_age", []workerStep{query(0, clientA, serverA, q), query(60*s+1, serverA, clientA, r, unanswered)}, []string{unsolicited}},
		{"asked again after gc_age", []workerStep{
			query(0, clientA, serverA, q), query(60*s+1, clientA, serverA, q, unanswered),
			query(61*s, serverA, clientA, r, answer("999.999999ms"))}, nil},
		{"answered twice", []workerStep{
			query(0, clientA, serverA, q), query(1*ms, serverA, clientA, r, answer("1ms")),
			query(2*ms, serverA, clientA, r), query(2*s, serverA, clientA, r)}, nil},
		{"a second answer is not attached, whatever it says", []workerStep{
			query(0, clientA, serverA, q), query(1*ms, serverA, clientA, r, answer("1ms")),
			query(2*ms, serverA, clientA, forged)}, nil},
		{"a second answer long after", []workerStep{
			query(0, clientA, serverA, q), query(1*ms, serverA, clientA, r, answer("1ms")),
			query(4*s, serverA, clientA, forged)}, []string{"unsolicited a.test 192.0.2.1:4660>198.51.100.1:53 7 203.0.113.66"}},
		{"asked again after the answer", []workerStep{
			query(0, clientA, serverA, q), query(1*ms, serverA, clientA, r, answer("1ms")),
			query(1*s, clientA, serverA, q), query(1*s+ms, serverA, clientA, r, answer("1ms"))}, nil},

		{"clock goes back", []workerStep{
			query(3600*s, clientA, serverA, q), query(3599*s, serverA, clientA, r, answer("-1s"))}, nil},
		{"clock goes back an hour", []workerStep{
			query(3600*s, clientA, serverA, q), query(0, serverA, clientA, r, unanswered)}, []string{unsolicited}},
		{"clock jumps to 2262", []workerStep{
			query(0, clientA, serverA, q), tick(0), tick(math.MaxInt64, unanswered),
			query(math.MaxInt64, clientA, serverA, q), query(math.MaxInt64, serverA, clientA, r, answer("0s"))}, nil},
		{"clock jumps to zero", []workerStep{
			tick(1000 * s), query(1000*s, clientA, serverA, q), tick(0), tick(59 * s),
			query(1000*s+ms, serverA, clientA, r, answer("1ms"))}, nil},

		{"wrong address", []workerStep{
			query(0, clientA, serverA, q), query(1*ms, serverB, clientA, forged),
			query(2*ms, serverA, clientA, r, answer("2ms"))}, []string{"unsolicited a.test 192.0.2.1:4660>198.51.100.2:53 7 203.0.113.66"}},
		{"wrong server port", []workerStep{
			query(0, clientA, serverA, q), query(1*ms, "198.51.100.1:5353", clientA, forged),
			query(2*ms, serverA, clientA, r, answer("2ms"))}, []string{"unsolicited a.test 192.0.2.1:4660>198.51.100.1:5353 7 203.0.113.66"}},
		{"wrong client port", []workerStep{
			query(0, clientA, serverA, q), query(1*ms, serverA, "192.0.2.1:4661", forged),
			query(2*ms, serverA, clientA, r, answer("2ms"))}, []string{"unsolicited a.test 192.0.2.1:4661>198.51.100.1:53 7 203.0.113.66"}},
		{"wrong id", []workerStep{
			query(0, clientA, serverA, q), query(1*ms, serverA, clientA, dnsAnswer(8, "a.test", 1, "203.0.113.66")),
			query(2*ms, serverA, clientA, r, answer("2ms"))}, []string{"unsolicited a.test 192.0.2.1:4660>198.51.100.1:53 8 203.0.113.66"}},
		{"wrong name", []workerStep{
			query(0, clientA, serverA, q), query(1*ms, serverA, clientA, dnsAnswer(7, "b.test", 1, "203.0.113.66")),
			query(2*ms, serverA, clientA, r, answer("2ms"))}, []string{"unsolicited b.test 192.0.2.1:4660>198.51.100.1:53 7 203.0.113.66"}},
		{"wrong type", []workerStep{
			query(0, clientA, serverA, q), query(1*ms, serverA, clientA, dnsAnswer(7, "a.test", 28)),
			query(2*ms, serverA, clientA, r, answer("2ms"))}, []string{"unsolicited a.test 192.0.2.1:4660>198.51.100.1:53 7"}},
		{"wrong protocol", []workerStep{
			query(0, clientA, serverA, q), overTCP(query(1*ms, serverA, clientA, forged)),
			query(2*ms, serverA, clientA, r, answer("2ms"))}, []string{"unsolicited a.test 192.0.2.1:4660>198.51.100.1:53 7 203.0.113.66"}},
		{"a query in the other direction is no answer", []workerStep{
			query(0, clientA, serverA, q), query(1*ms, serverA, clientA, q),
			query(2*ms, serverA, clientA, r, answer("2ms"))}, []string{"unanswered a.test 198.51.100.1:53>192.0.2.1:4660 7"}},
		{"IPv4-mapped is not IPv4", []workerStep{
			query(0, clientA, serverA, q), query(1*ms, "[::ffff:198.51.100.1]:53", "[::ffff:192.0.2.1]:4660", forged),
			query(2*ms, serverA, clientA, r, answer("2ms"))}, []string{"unsolicited a.test ::ffff:192.0.2.1:4660>::ffff:198.51.100.1:53 7 203.0.113.66"}},
		{"two clients with equal id and port", []workerStep{
			query(0, clientA, serverA, q), query(1*ms, clientB, serverA, q),
			query(2*ms, serverA, clientB, r, "answer a.test 192.0.2.2:4660>198.51.100.1:53 7 in 1ms 192.0.2.99"),
			query(3*ms, serverA, clientA, r, answer("3ms"))}, nil},
		{"mixed case", []workerStep{
			query(0, clientA, serverA, dnsQuery(7, "A.tEsT", 1)),
			query(1*ms, serverA, clientA, dnsAnswer(7, "a.TeSt", 1, "192.0.2.99"), "answer A.tEsT 192.0.2.1:4660>198.51.100.1:53 7 in 1ms 192.0.2.99")}, nil},
		{"case folds letters only", []workerStep{
			query(0, clientA, serverA, dnsQuery(7, "a@b", 1)), query(1*ms, serverA, clientA, dnsAnswer(7, "a`b", 1)),
		}, []string{"unanswered a@b 192.0.2.1:4660>198.51.100.1:53 7", "unsolicited a`b 192.0.2.1:4660>198.51.100.1:53 7"}},
		{"id reused at once for another question", []workerStep{
			query(0, clientA, serverA, q), query(0, clientA, serverA, dnsQuery(7, "b.test", 1)), query(0, clientA, serverA, dnsQuery(7, "a.test", 28)),
			query(1*ms, serverA, clientA, dnsAnswer(7, "a.test", 28), "nodata a.test 192.0.2.1:4660>198.51.100.1:53 7 in 1ms"),
			query(2*ms, serverA, clientA, r, answer("2ms")),
			query(3*ms, serverA, clientA, dnsAnswer(7, "b.test", 1), "nodata b.test 192.0.2.1:4660>198.51.100.1:53 7 in 3ms")}, nil},
		{"error without a question", []workerStep{
			query(0, clientA, serverA, q),
			query(1*ms, serverA, clientA, noQuestion, "error a.test 192.0.2.1:4660>198.51.100.1:53 7 in 1ms SERVFAIL")}, nil},
		{"error without a question, to nobody", []workerStep{
			query(1*ms, serverA, clientA, noQuestion),
			query(2*ms, clientA, serverA, q)}, []string{unanswered, "unsolicited  192.0.2.1:4660>198.51.100.1:53 7 SERVFAIL"}},
		{"error without a question is about the newest", []workerStep{
			query(0, clientA, serverA, q), query(0, clientA, serverA, dnsQuery(7, "b.test", 1)),
			query(1*ms, serverA, clientA, noQuestion, "error b.test 192.0.2.1:4660>198.51.100.1:53 7 in 1ms SERVFAIL"),
			query(2*ms, serverA, clientA, r, answer("2ms"))}, nil},
		{"from port 53 to port 53", []workerStep{
			query(0, "192.0.2.1:53", serverA, q),
			query(1*ms, serverA, "192.0.2.1:53", r, "answer a.test 192.0.2.1:53>198.51.100.1:53 7 in 1ms 192.0.2.99")}, nil},

		{"zone transfer", []workerStep{
			overTCP(query(0, clientA, serverA, axfr)),
			overTCP(query(1*ms, serverA, clientA, axfrFirst, "answer a.test 192.0.2.1:4660>198.51.100.1:53 7 in 1ms 192.0.2.10")),
			overTCP(query(2*ms, serverA, clientA, axfrMore, "answer a.test 192.0.2.1:4660>198.51.100.1:53 7 in 2ms 192.0.2.11")),
			overTCP(query(50*s, serverA, clientA, axfrMore, "answer a.test 192.0.2.1:4660>198.51.100.1:53 7 in 50s 192.0.2.11")),
			overTCP(query(100*s, serverA, clientA, axfrMore, "answer a.test 192.0.2.1:4660>198.51.100.1:53 7 in 1m40s 192.0.2.11")),
			tick(100 * s), tick(300 * s),
			overTCP(query(300*s, serverA, clientA, axfrMore))},
			[]string{"unsolicited  192.0.2.1:4660>198.51.100.1:53 7 192.0.2.11"}},
		{"a zone transfer's answer over UDP is one message", []workerStep{
			query(0, clientA, serverA, axfr),
			query(1*ms, serverA, clientA, axfrFirst, "answer a.test 192.0.2.1:4660>198.51.100.1:53 7 in 1ms 192.0.2.10"),
			query(2*ms, serverA, clientA, axfrFirst)}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newWorkerHarness(t, 1000, 1<<20)
			for i, s := range tt.steps {
				var got []string
				if s.from == "" {
					got = h.tick(int64(s.ts))
				} else {
					got = h.send(int64(s.ts), s.from, s.to, s.tcp, s.msg)
				}
				if !slices.Equal(got, s.want) {
					t.Errorf("step %d:\ngot  %q\nwant %q", i+1, got, s.want)
				}
			}
			if got := h.end(); !slices.Equal(got, tt.end) {
				t.Errorf("at the end:\ngot  %q\nwant %q", got, tt.end)
			}
			h.balanced()
		})
	}
}

// TestIncompleteFalse: what is left alone is counted and not written.
func TestIncompleteFalse(t *testing.T) {
	h := newWorkerHarness(t, 1000, 1<<20)
	h.w.incomplete = false
	h.send(0, clientA, serverA, false, dnsQuery(1, "a.test", 1))
	h.send(0, serverB, clientB, false, dnsAnswer(2, "a.test", 1))
	if got := h.end(); len(got) != 0 || h.w.count.unanswered != 1 || h.w.count.unsolicited != 1 {
		t.Errorf("got %q, %d unanswered, %d unsolicited", got, h.w.count.unanswered, h.w.count.unsolicited)
	}
}

// TestTableBound: when the table is full the oldest waiting response goes first, then the oldest transfer, then the oldest
// query, and each is counted.
func TestTableBound(t *testing.T) {
	h := newWorkerHarness(t, 4, 1<<20)
	h.send(0, clientA, serverA, false, dnsQuery(1, "old.test", 1))
	h.send(1, clientA, serverA, true, dnsQuery(2, "zone.test", typeAXFR))
	h.send(2, serverA, clientA, true, dnsAnswer(2, "zone.test", typeAXFR, "192.0.2.10"))
	h.send(3, serverA, clientA, false, dnsAnswer(3, "early.test", 1))
	h.send(4, serverA, clientA, false, dnsAnswer(4, "early.test", 1))
	unsolicited := func(id int) []string {
		return []string{fmt.Sprintf("unsolicited early.test 192.0.2.1:4660>198.51.100.1:53 %d", id)}
	}
	steps := []struct {
		id       uint16
		want     []string
		transfer int
		evicted  uint64
		short    uint64
	}{
		{5, unsolicited(3), 1, 0, 1},
		{6, unsolicited(4), 1, 0, 2},
		{7, nil, 0, 0, 2},
		{8, nil, 0, 1, 2}, // old.test
		{9, nil, 0, 2, 2}, // 5
	}
	for _, s := range steps {
		got := h.send(int64(s.id), clientA, serverA, false, dnsQuery(s.id, "new.test", 1))
		c := &h.w.count
		if !slices.Equal(got, s.want) || h.w.tab.nTransfer != s.transfer || c.evicted != s.evicted || c.waitedShort != s.short {
			t.Errorf("query %d: got %q, %d transfers, %d evicted, %d early; want %+v", s.id, got, h.w.tab.nTransfer, c.evicted, c.waitedShort, s)
		}
		if h.w.tab.live > 4 {
			t.Errorf("%d lookups in a table for 4", h.w.tab.live)
		}
	}
	if got := h.end(); len(got) != 4 {
		t.Errorf("at the end: %q", got)
	}
	h.balanced()
}

// TestSameKeyBound: a client can't make a chain of lookups long by asking ever new questions from one port with one ID.
func TestSameKeyBound(t *testing.T) {
	h := newWorkerHarness(t, 10000, 1<<20)
	for i := range 3 * sameKeyMax {
		h.send(int64(i), clientA, serverA, false, dnsQuery(7, fmt.Sprintf("q%d.test", i), 1))
		h.send(int64(i), serverB, clientA, false, dnsAnswer(7, fmt.Sprintf("r%d.test", i), 1))
	}
	if got := h.w.tab.live; got != 2*sameKeyMax {
		t.Errorf("%d lookups of two keys, want %d", got, 2*sameKeyMax)
	}
	if c := &h.w.count; c.evicted != 2*sameKeyMax || c.waitedShort != 2*sameKeyMax {
		t.Errorf("%d evicted, %d early, want %d each", c.evicted, c.waitedShort, 2*sameKeyMax)
	}
	// The newest are there.
	got := h.send(1000, serverA, clientA, false, dnsAnswer(7, fmt.Sprintf("q%d.test", 2*sameKeyMax), 1))
	if len(got) != 1 || !strings.HasPrefix(got[0], "nodata ") {
		t.Errorf("the oldest that is left: got %q", got)
	}
	h.balanced()
}

// TestWaitBytesBound: responses that wait hold no more bytes than they may.
func TestWaitBytesBound(t *testing.T) {
	const bound = 64 << 10
	h := newWorkerHarness(t, 10000, bound)
	big := append(dnsAnswer(0, "a.test", 1), make([]byte, 3000)...)
	for i := range 200 {
		big[0], big[1] = byte(i>>8), byte(i)
		h.send(int64(i), serverA, clientA, false, big)
		if got := h.w.tab.waitBytes; got > bound+4096 {
			t.Fatalf("%d bytes wait, the bound is %d", got, bound)
		}
	}
	if c := &h.w.count; c.waitedShort != c.unsolicited || c.unsolicited+uint64(h.w.tab.nWait) != 200 || h.w.tab.nWait < 10 {
		t.Errorf("%d written, %d of them early, %d wait", c.unsolicited, c.waitedShort, h.w.tab.nWait)
	}
	// One larger than the bound is held alone.
	huge := append(dnsAnswer(999, "a.test", 1), make([]byte, 65000)...)
	h.send(1000, serverA, clientA, false, huge)
	if h.w.tab.nWait != 1 {
		t.Errorf("%d wait beside one that is larger than the bound", h.w.tab.nWait)
	}
	h.end()
	if h.w.tab.waitBytes != 0 || h.w.tab.live != 0 {
		t.Errorf("%d bytes and %d lookups left at the end", h.w.tab.waitBytes, h.w.tab.live)
	}
	h.balanced()
}

// TestCounters: malformed, broken and cut messages are told apart.
func TestCounters(t *testing.T) {
	h := newWorkerHarness(t, 1000, 1<<20)
	r := dnsAnswer(1, "a.test", 1, "192.0.2.1", "192.0.2.2")
	h.send(0, clientA, serverA, false, []byte("short"))
	h.send(0, clientA, serverA, false, append(dnsQuery(1, "a.test", 1)[:12], 0x80))
	h.send(0, clientA, serverA, false, dnsQuery(1, "a.test", 1))
	got := h.send(1, serverA, clientA, false, r[:len(r)-2])
	if want := []string{"answer a.test 192.0.2.1:4660>198.51.100.1:53 1 in 1ns 192.0.2.1"}; !slices.Equal(got, want) {
		t.Errorf("a message that breaks off: got %q, want %q", got, want)
	}
	c := &h.w.count
	if c.malformed[malformedHeader] != 1 || c.malformed[malformedQuestionName] != 1 || c.broken[brokenAnswer] != 1 || c.cutMessages != 0 {
		t.Errorf("malformed %v, broken %v, cut %d", c.malformed, c.broken, c.cutMessages)
	}
	var f flow
	h.w.dns(&f, 0, false, r[:len(r)-2], len(r), 0, 9, 0)
	h.end()
	if c.broken[brokenAnswer] != 1 || c.cutMessages != 1 {
		t.Errorf("cut by the snaplen: broken %v, cut %d", c.broken, c.cutMessages)
	}
}

// TestLookupDoesNotAllocate: parse, match, encode of a lookup cost no allocation once the tables have grown.
func TestLookupDoesNotAllocate(t *testing.T) {
	q := packedQuery(t)
	r := packedResponse(t)
	copy(r[:2], q[:2])
	for _, perRR := range []bool{true, false} {
		w := newWorkerHarness(t, 100000, 1<<20).w
		w.enc = newEncoder("test", "", wantAnswer|wantAuthority|wantAdditional, perRR, false)
		w.out, w.free = make(chan *part, partCount), make(chan *part, partCount)
		for range partCount - 1 {
			w.free <- &part{}
		}
		f := flow{src: [16]byte{10: 0xff, 11: 0xff, 12: 10, 15: 1}, dst: [16]byte{10: 0xff, 11: 0xff, 12: 10, 15: 2}, sport: 4660, dport: 53}
		back := flow{src: f.dst, dst: f.src, sport: 53, dport: 4660}
		ts, seq := int64(0), uint64(0)
		lookup := func() {
			f.sport, back.dport = uint16(1024+seq%200), uint16(1024+seq%200)
			hash := (seq / 2 % 200) * 0x9e3779b97f4a7c15
			w.dns(&f, hash, false, q, len(q), ts, seq, 7)
			w.dns(&back, hash, false, r, len(r), ts+1e6, seq+1, 7)
			ts, seq = ts+1e7, seq+2
			if seq%100 == 0 {
				w.tick(&view{ts: ts, hash: uint64(ts), seq: seq})
			}
			for len(w.out) > 0 {
				p := <-w.out
				p.reset()
				w.free <- p
			}
		}
		for range 5000 {
			lookup()
		}
		if n := testing.AllocsPerRun(2000, lookup); n != 0 {
			t.Errorf("one line an RR %v: %v allocations a lookup, want 0", perRR, n)
		}
		if w.count.matched < 7000 || w.count.status[statusAnswer] != w.count.matched {
			t.Errorf("%d matched: %v", w.count.matched, w.count.status)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	q, r := packedQuery(b), packedResponse(b)
	copy(r[:2], q[:2])
	h := newWorkerHarness(b, 100000, 1<<20)
	w := h.w
	f := flow{src: [16]byte{10: 0xff, 11: 0xff, 12: 10, 15: 1}, dst: [16]byte{10: 0xff, 11: 0xff, 12: 10, 15: 2}, sport: 4660, dport: 53}
	back := flow{src: f.dst, dst: f.src, sport: 53, dport: 4660}
	b.ReportAllocs()
	seq := uint64(0)
	for b.Loop() {
		w.cur.reset()
		w.dns(&f, seq, false, q, len(q), int64(seq)*1e6, seq, 0)
		w.dns(&back, seq, false, r, len(r), int64(seq)*1e6+1, seq+1, 0)
		seq += 2
	}
	if !json.Valid(bytes.Split(w.cur.json, []byte("\n"))[0]) {
		b.Fatal("no JSON")
	}
}
