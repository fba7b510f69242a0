package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"gopassivedns/testdata/bench/wire"
)

// sampleHost makes up an end: IPv6 where n is odd.
func sampleHost(n int) *wire.Host {
	h := &wire.Host{V6: n%2 == 1, MAC: [6]byte{2, 0, 0, 0, byte(n >> 8), byte(n)}}
	if h.V6 {
		copy(h.Addr[:], []byte{0x20, 1, 0x0d, 0xb8, 12: byte(n >> 24), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)})
	} else {
		copy(h.Addr[:], []byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	}
	return h
}

// sampleTraffic makes up a capture with n lookups of every fate, over UDP and TCP, with and without tags, the same for
// the same seed. Its first two packets are a query and its response.
func sampleTraffic(seed uint64, n int) []capPacket {
	r := rand.New(rand.NewPCG(seed, 0))
	var pkts []capPacket
	add := func(ts int64, frame []byte) { pkts = append(pkts, capPacket{ts: ts, data: slices.Clone(frame)}) }
	tag := func(frame []byte, vlan int) []byte {
		if vlan == 0 {
			return frame
		}
		return slices.Concat(frame[:12], []byte{0x81, 0, byte(vlan >> 8), byte(vlan)}, frame[12:])
	}
	ts := int64(1700000000_000000000)
	for i := range n {
		ts += r.Int64N(50e6)
		c := r.IntN(200)
		client, server := sampleHost(c), sampleHost(1000+2*r.IntN(5)+c%2)
		port, id := uint16(1024+r.IntN(60000)), uint16(r.Uint32())
		vlan := 0
		if c%7 == 0 {
			vlan = 1 + c
		}
		name := wire.AppendName(nil, fmt.Sprintf("Host-%d.example%d.test", r.IntN(1000), i%5))
		qtype := []uint16{wire.TypeA, wire.TypeTXT, wire.TypeAAAA}[r.IntN(3)]
		var q, a wire.Msg
		q.Begin(id, 0x0100, name, qtype)
		if i%3 == 0 {
			q.OPT(1232, 0x8000)
			q.End()
		}
		a.Begin(id, 0x8180, name, qtype)
		for k := range r.IntN(4) {
			a.Pointer(wire.QnameAt)
			a.RR(wire.Answer, qtype, uint32(60*k))
			switch qtype {
			case wire.TypeA:
				a.U32(r.Uint32())
			case wire.TypeTXT:
				a.Text(fmt.Sprintf(`some "text" \ %c %d`, rune(r.IntN(128)), k))
			default:
				a.B = append(a.B, server.Addr[:]...)
			}
			a.End()
		}
		delay := r.Int64N(20e6)
		fate := r.IntN(12)
		if i == 0 {
			fate = 11
		}
		if fate == 0 { // over TCP
			conn := &wire.Conn{Ends: [2]*wire.Host{client, server}, Ports: [2]uint16{port, 53}, Seq: [2]uint32{r.Uint32(), r.Uint32()}}
			framed := func(b []byte) []byte { return append([]byte{byte(len(b) >> 8), byte(len(b))}, b...) }
			add(ts, tag(conn.AppendFrame(nil, wire.Client, wire.SYN, nil, 1), vlan))
			add(ts+1000, tag(conn.AppendFrame(nil, wire.Server, wire.SYN|wire.ACK, nil, 1), vlan))
			add(ts+2000, tag(conn.AppendFrame(nil, wire.Client, wire.PSH|wire.ACK, framed(q.B), 2), vlan))
			body := framed(a.B)
			half := len(body) / 2
			lost := r.IntN(4) == 0
			first := conn.AppendFrame(nil, wire.Server, wire.ACK, body[:half], 2)
			if !lost {
				add(ts+delay, tag(first, vlan))
			}
			add(ts+delay+1000, tag(conn.AppendFrame(nil, wire.Server, wire.PSH|wire.ACK, body[half:], 3), vlan))
			if r.IntN(2) == 0 {
				add(ts+delay+2000, tag(conn.AppendFrame(nil, wire.Client, wire.FIN|wire.ACK, nil, 3), vlan))
				add(ts+delay+3000, tag(conn.AppendFrame(nil, wire.Server, wire.FIN|wire.ACK, nil, 4), vlan))
			}
			continue
		}
		query := tag(wire.AppendUDPFrame(nil, client, server, port, 53, q.B, 1, true), vlan)
		response := tag(wire.AppendUDPFrame(nil, server, client, 53, port, a.B, 1, true), vlan)
		if fate != 1 { // 1: unsolicited
			add(ts, query)
		}
		if fate == 2 { // asked again
			add(ts+1e6, query)
		}
		if fate != 3 { // 3: unanswered
			add(ts+delay, response)
		}
		if fate == 4 { // answered twice
			add(ts+delay+1000, response)
		}
		if fate == 5 { // no DNS
			add(ts, tag(wire.AppendUDPFrame(nil, client, server, port, 53, []byte("junk"), 1, true), vlan))
		}
	}
	slices.SortStableFunc(pkts[2:], func(a, b capPacket) int { return int(a.ts - b.ts) })
	return pkts
}

// TestTicks: a tick comes with the first packet after a second of packet time, and when time steps back; its clock only
// runs forward.
func TestTicks(t *testing.T) {
	const s = int64(1e9)
	tests := []struct {
		name  string
		times []int64
		want  []string // "seq clock" of each tick
	}{
		{"steady", []int64{0, s / 2, s - 1, s, s + 1, 3 * s}, []string{"3 1000000000", "6 3000000000"}},
		{"out of order by less than a second", []int64{9 * s, 9*s + s/2, 8*s + s/2, 9*s + s - 1}, nil},
		{"back and forth", []int64{9 * s, 7 * s, 9 * s}, []string{"1 0", "3 2000000000"}},
		{"the ends of time", []int64{0, 1<<63 - 1, 1<<63 - 1, 0}, []string{"1 9223372036854775807", "3 9223372036854775807", "5 9223372036854775807"}},
	}
	for _, tt := range tests {
		f := newTestFeeder()
		f.filter = noFrames{}
		for _, ts := range tt.times {
			f.frame([]byte{0}, 0, 1, ts, linkRaw)
		}
		var got []string
		for _, v := range f.cur.views[0] {
			if v.kind != viewTick {
				t.Errorf("%s: a view of kind %d", tt.name, v.kind)
			}
			got = append(got, fmt.Sprintf("%d %d", v.seq, v.hash))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestFrameDoesNotAllocate: filing plain packets costs no allocation once the lists have grown.
func TestFrameDoesNotAllocate(t *testing.T) {
	f := newTestFeeder()
	pkt := unhex(t, macs+"0800"+ip4Hello+udpHello)
	f.cur.slab = pkt
	frame := func() {
		f.cur.reset()
		for i := range 100 {
			f.frame(pkt, 0, len(pkt), int64(i), linkEthernet)
		}
	}
	frame()
	if n := testing.AllocsPerRun(10, frame); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
