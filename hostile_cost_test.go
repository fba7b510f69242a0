// What hostile messages cost: no byte of input may cost more than twenty times what a byte of ordinary traffic does, unless
// it is written out at length; then it is the bytes written that are compared. Worst cases of the parser, the names, the
// RDATA of every type, the connection table and the encoder, through one worker.
package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gopassivedns/testdata/bench/wire"
)

const (
	costTimes    = 20 // per byte read, times the ordinary cost
	costTimesOut = 20 // per byte written, the same
)

// costRig is a worker whose parts are given back at once.
type costRig struct {
	w       *worker
	written int
	ended   chan struct{}
	seq     uint64
}

func newCostRig() *costRig {
	w := &worker{
		out: make(chan *part, partCount), free: make(chan *part, partCount), cur: &part{},
		enc:   newEncoder("cost", "", everySection, true, false),
		tab:   newConnTable(1000, 1<<20),
		done:  newAnsweredSet(1000),
		gcAge: int64(time.Minute), gcInterval: int64(time.Second), incomplete: true,
	}
	w.tcp = newTCPTable(tcpLimits{streams: 16, streamBytes: 1 << 17, totalBytes: 1 << 18, idleNs: int64(time.Minute)}, w)
	for range partCount - 1 {
		w.free <- &part{}
	}
	g := &costRig{w: w, ended: make(chan struct{})}
	go func() {
		defer close(g.ended)
		for p := range g.w.out {
			g.written += len(p.json)
			p.reset()
			g.w.free <- p
		}
	}()
	return g
}

// run sends the messages, as UDP of one flow, and returns what was written.
func (g *costRig) run(messages [][]byte) (written int) {
	fl := flow{sport: 4000, dport: dnsPort}
	back := flow{sport: dnsPort, dport: 4000}
	copy(fl.src[10:], "\xff\xff\x0a\x00\x00\x01")
	copy(fl.dst[10:], "\xff\xff\xc0\x00\x02\x35")
	back.src, back.dst = fl.dst, fl.src
	for _, raw := range messages {
		f := &fl
		if len(raw) > 2 && raw[2]&0x80 != 0 {
			f = &back
		}
		g.seq++
		g.w.seq, g.w.sub = g.seq, 0
		g.w.dns(f, 1, false, raw, len(raw), int64(g.seq), g.seq, 0)
	}
	g.w.end(&view{ts: int64(g.seq), seq: g.seq})
	g.w.send()
	close(g.w.out)
	<-g.ended
	return g.written
}

// costOf returns the CPU time of the worker, the least of several runs, and the bytes read and written.
func costOf(t *testing.T, messages [][]byte) (ns, read, written float64) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	clock := func() float64 {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
			t.Fatal(err)
		}
		return float64(ts.Nano())
	}
	ns = 1e18
	for range 3 {
		g := newCostRig()
		begin := clock()
		n := g.run(messages)
		ns = min(ns, clock()-begin)
		written = float64(n)
	}
	for _, m := range messages {
		read += float64(len(m))
	}
	return ns, read, written
}

// repeated returns about 128 KB of messages, made one by one.
func repeated(one func(i int) [][]byte) (messages [][]byte) {
	for i, n := 0, 0; n < 1<<17; i++ {
		for _, m := range one(i) {
			messages = append(messages, bytes.Clone(m))
			n += len(m)
		}
	}
	return messages
}

// asked is a lookup of name: the query, and the response that fill completes.
func asked(id int, name []byte, typ uint16, fill func(m *wire.Msg)) [][]byte {
	var q, r wire.Msg
	q.Begin(uint16(id), 0x0100, name, typ)
	r.Begin(uint16(id), 0x8180, name, typ)
	fill(&r)
	return [][]byte{q.B, r.B}
}

// claim sets the counts of all sections to 65,535.
func claim(m *wire.Msg) {
	for _, s := range []wire.Section{wire.Answer, wire.Authority, wire.Additional} {
		m.B[s], m.B[s+1] = 0xff, 0xff
	}
}

const fullMessage = 65000

func TestHostileCost(t *testing.T) {
	example := wire.AppendName(nil, "www.example.com")
	ordinary := repeated(func(i int) [][]byte {
		return asked(i, wire.AppendName(nil, fmt.Sprintf("host-%d.example.com", i)), wire.TypeA, func(m *wire.Msg) {
			for k := range 3 {
				m.Pointer(wire.QnameAt)
				m.RR(wire.Answer, wire.TypeA, 300)
				m.U32(uint32(i + k))
				m.End()
			}
			m.OPT(1232, 0)
			m.End()
		})
	})
	labels := append(bytes.Repeat([]byte{1, 0}, 127), 0)
	r := rand.New(rand.NewPCG(1, 2))
	cases := []struct {
		name     string
		messages [][]byte
	}{
		{"chains of pointers", repeated(func(i int) [][]byte {
			return asked(i, example, wire.TypeNS, func(m *wire.Msg) {
				// Two chains, in turns: the last pointer is remembered.
				var ends [2]int
				for c := range ends {
					m.Pointer(wire.QnameAt)
					m.RR(wire.Answer, wire.TypeTXT, 1)
					at := wire.QnameAt
					for range nameMaxHops - 1 {
						m.Pointer(at)
						at = len(m.B) - 2
					}
					m.End()
					ends[c] = at
				}
				for k := 0; len(m.B) < fullMessage; k++ {
					m.Pointer(ends[k%2])
					m.RR(wire.Answer, wire.TypeNS, 1)
					m.Pointer(ends[k%2])
					m.End()
				}
			})
		})},
		{"chains of labels and pointers", repeated(func(i int) [][]byte {
			return asked(i, example, wire.TypeNS, func(m *wire.Msg) {
				var ends [2]int
				for c := range ends {
					m.Pointer(wire.QnameAt)
					m.RR(wire.Answer, wire.TypeTXT, 1)
					at := wire.QnameAt
					for range min(nameMaxHops-1, 110) {
						at = m.LabelPointer("\x00", at)
					}
					m.End()
					ends[c] = at
				}
				for k := 0; len(m.B) < fullMessage; k++ {
					m.Pointer(ends[k%2])
					m.RR(wire.Answer, wire.TypeNS, 1)
					m.Pointer(ends[1-k%2])
					m.End()
				}
			})
		})},
		{"pointer loops", repeated(func(i int) [][]byte {
			return asked(i, example, wire.TypeNS, func(m *wire.Msg) {
				m.Pointer(len(m.B) + 2)
				m.Pointer(len(m.B) - 2)
				m.B = append(m.B, make([]byte, 20)...)
				claim(m)
			})
		})},
		{"loops in RDATA", repeated(func(i int) [][]byte {
			return asked(i, example, wire.TypeNS, func(m *wire.Msg) {
				for len(m.B) < fullMessage {
					m.Pointer(wire.QnameAt)
					m.RR(wire.Answer, wire.TypeNS, 1)
					m.Pointer(min(len(m.B), 0x3fff))
					m.End()
				}
			})
		})},
		{"the smallest RRs", repeated(func(i int) [][]byte {
			return asked(i, example, wire.TypeA, func(m *wire.Msg) {
				for len(m.B) < fullMessage {
					m.B = append(m.B, 0)
					m.RR(wire.Answer, wire.TypeA, 1)
					m.End()
				}
				claim(m)
			})
		})},
		{"counts of 65,535 and nothing there", repeated(func(i int) [][]byte {
			return asked(i, example, wire.TypeA, claim)
		})},
		{"questions", repeated(func(i int) [][]byte {
			return asked(i, example, wire.TypeA, func(m *wire.Msg) {
				for len(m.B) < fullMessage {
					m.B = append(m.B, 0, 0, 1, 0, 1)
				}
				m.B[4], m.B[5] = 0xff, 0xff
			})
		})},
		{"questions with chains of pointers", repeated(func(i int) [][]byte {
			return asked(i, example, wire.TypeA, func(m *wire.Msg) {
				at := wire.QnameAt
				for k := 0; len(m.B) < fullMessage; k++ {
					start := len(m.B)
					m.Pointer(at)
					m.B = append(m.B, 0, 1, 0, 1)
					if k < nameMaxHops-1 && start < 0x3fff {
						at = start
					}
				}
				m.B[4], m.B[5] = 0xff, 0xff
			})
		})},
		{"strings of one octet", repeated(func(i int) [][]byte {
			return asked(i, example, wire.TypeTXT, func(m *wire.Msg) {
				m.Pointer(wire.QnameAt)
				m.RR(wire.Answer, wire.TypeTXT, 1)
				for len(m.B) < fullMessage {
					m.B = append(m.B, 1, 0)
				}
				m.End()
			})
		})},
		{"options", repeated(func(i int) [][]byte {
			return asked(i, example, wire.TypeA, func(m *wire.Msg) {
				m.OPT(1232, 0)
				for len(m.B) < fullMessage {
					m.Option(8, nil)
				}
				m.End()
			})
		})},
		{"errors, and RRs that repeat them", repeated(func(i int) [][]byte {
			return asked(i, example, wire.TypeA, func(m *wire.Msg) {
				for len(m.B) < fullMessage/2 {
					m.B = append(m.B, 0)
					m.RR(wire.Answer, wire.TypeA, 1)
					m.End()
				}
				m.OPT(1232, 0)
				for len(m.B) < fullMessage {
					m.Option(15, make([]byte, 62))
				}
				m.End()
			})
		})},
		{"names of 127 labels", repeated(func(i int) [][]byte {
			return asked(i, labels, wire.TypeNS, func(m *wire.Msg) {
				for len(m.B) < fullMessage {
					m.Pointer(wire.QnameAt)
					m.RR(wire.Answer, wire.TypeNS, 1)
					m.Pointer(wire.QnameAt)
					m.End()
				}
			})
		})},
		{"one key, ever new questions", repeated(func(i int) [][]byte {
			var m wire.Msg
			m.Begin(7, 0x0100, wire.AppendName(nil, fmt.Sprintf("host-%d.example.com", i)), wire.TypeA)
			return [][]byte{m.B}
		})},
		{"one key, ever new responses", repeated(func(i int) [][]byte {
			var m wire.Msg
			m.Begin(7, 0x8180, wire.AppendName(nil, fmt.Sprintf("host-%d.example.com", i)), wire.TypeA)
			return [][]byte{m.B}
		})},
		{"one key, long names in two cases", repeated(func(i int) [][]byte {
			name := append(bytes.Repeat([]byte{1, 'a'}, 126), 1, byte(i), 0)
			if i%2 == 1 {
				name = bytes.ReplaceAll(name, []byte{'a'}, []byte{'A'})
			}
			var m wire.Msg
			m.Begin(7, 0x0100, name, wire.TypeA)
			return [][]byte{m.B}
		})},
		{"headers", repeated(func(i int) [][]byte { return [][]byte{{0, byte(i), 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0}} })},
	}
	for typ, layout := range rdataLayouts {
		if layout == "" {
			continue
		}
		cases = append(cases, struct {
			name     string
			messages [][]byte
		}{"RDATA of " + string(appendType(nil, uint16(typ))), repeated(func(i int) [][]byte {
			return asked(i, example, uint16(typ), func(m *wire.Msg) {
				for len(m.B) < fullMessage-4096 {
					m.Pointer(wire.QnameAt)
					m.RR(wire.Answer, uint16(typ), 1)
					data := randomRDATA(r, layout)
					m.B = append(m.B, data[:min(len(data), 4000)]...)
					m.End()
				}
			})
		})})
	}

	ns, read, written := costOf(t, ordinary)
	in, out := ns/read, ns/written
	t.Logf("ordinary: %.1f ns a byte read, %.2f ns a byte written", in, out)
	for _, c := range cases {
		ns, read, written := costOf(t, c.messages)
		timesIn, timesOut := ns/read/in, ns/max(written, 1)/out
		t.Logf("%-36s %6.2f times a byte read, %6.2f times a byte written, %5.0f bytes written for one read", c.name, timesIn, timesOut, written/read)
		if timesIn > costTimes && timesOut > costTimesOut {
			t.Errorf("%s: %.1f times the ordinary cost of a byte read and %.1f times that of a byte written, the limits are %d and %d", c.name, timesIn, timesOut, costTimes, costTimesOut)
		}
	}
}
