package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"unsafe"
)

const (
	tFIN = 1
	tSYN = 2
	tRST = 4
	tACK = 16
)

var tcpTestLimits = tcpLimits{streams: 1000, streamBytes: 256 << 10, totalBytes: 16 << 20, idleNs: 120e9}

// tcpGot is a delivered message.
type tcpGot struct {
	From string // "c" or "s"
	Msg  string
	Wire int
	Cut  bool
	Ts   int64
	Seq  uint64
	Vlan uint16
}

type tcpRecorder struct{ got []tcpGot }

func (r *tcpRecorder) tcpMessage(fl *flow, hash uint64, msg []byte, wire int, cut bool, ts int64, seq uint64, vlan uint16) {
	from := "c"
	if fl.sport == 53 {
		from = "s"
	}
	r.got = append(r.got, tcpGot{from, string(msg), wire, cut, ts, seq, vlan})
}

// bodies returns direction from's messages.
func (r *tcpRecorder) bodies(from string) []string {
	var all []string
	for _, g := range r.got {
		if g.From == from {
			all = append(all, g.Msg)
		}
	}
	return all
}

func tcpTestFlow(client uint32, port uint16) (c2s, s2c flow) {
	c2s.src[10], c2s.src[11], c2s.dst[10], c2s.dst[11] = 255, 255, 255, 255
	binary.BigEndian.PutUint32(c2s.src[12:], client)
	copy(c2s.dst[12:], []byte{192, 0, 2, 53})
	c2s.sport, c2s.dport = port, 53
	return c2s, flow{src: c2s.dst, dst: c2s.src, sport: 53, dport: port}
}

func tcpTestHash(client uint32, port uint16) uint64 {
	return (uint64(client)<<16 | uint64(port)) * 0xD6E8FEB86659FD93
}

// tcpSegment returns a segment with its header.
func tcpSegment(dst []byte, seq, ack uint32, flags byte, payload []byte) []byte {
	var h [20]byte
	binary.BigEndian.PutUint32(h[4:], seq)
	binary.BigEndian.PutUint32(h[8:], ack)
	h[12], h[13] = 5<<4, flags
	return append(append(dst, h[:]...), payload...)
}

// tcpTestMsg returns a DNS message with its prefix: a question, and where ans > 0 that many TXT answers of size bytes.
func tcpTestMsg(id uint16, resp bool, name string, ans, size int) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0, 0}, id)
	if resp {
		b = append(b, 0x81, 0x80)
	} else {
		b = append(b, 0x01, 0x00)
	}
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint16(b, uint16(ans))
	b = append(b, 0, 0, 0, 0, byte(len(name)))
	b = append(b, name...)
	b = append(b, 0, 0, 16, 0, 1)
	for i := range ans {
		b = append(b, 0xc0, 12, 0, 16, 0, 1, 0, 0, 14, 16)
		b = binary.BigEndian.AppendUint16(b, uint16(size))
		for j := range size {
			b = append(b, byte(i*7+j))
		}
	}
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	return b
}

func tcpBodies(framed ...[]byte) []string {
	var all []string
	for _, f := range framed {
		all = append(all, string(f[2:]))
	}
	return all
}

// tcpConn drives one connection; sequence numbers are relative to the ISNs.
type tcpConn struct {
	t      *tcpTable
	r      *tcpRecorder
	isn    [2]uint32
	client uint32
	port   uint16
	n      uint64
	vlan   uint16
}

func newTCPConn(lim tcpLimits) *tcpConn {
	r := &tcpRecorder{}
	return &tcpConn{t: newTCPTable(lim, r), r: r, isn: [2]uint32{1000, 9000}, client: 0x0a000001, port: 40000}
}

func (c *tcpConn) raw(from string, rel uint32, ack uint32, flags byte, p []byte, captured int) {
	c2s, s2c := tcpTestFlow(c.client, c.port)
	fl, d := &c2s, 0
	if from == "s" {
		fl, d = &s2c, 1
	}
	c.n++
	seg := tcpSegment(nil, c.isn[d]+rel, c.isn[1-d]+ack, flags, p)
	keep := bytes.Clone(seg)
	c.t.segment(fl, tcpTestHash(c.client, c.port), seg[:20+captured], len(seg), int64(c.n)*1e6, c.n, c.vlan)
	if !bytes.Equal(seg, keep) {
		panic("the segment was changed")
	}
}

// data sends p at the offset off of the stream (0 is the first byte) without an acknowledgement.
func (c *tcpConn) data(from string, off int, p []byte) { c.raw(from, 1+uint32(off), 0, 0, p, len(p)) }

func (c *tcpConn) ack(from string, off int) { c.raw(from, 1, 1+uint32(off), tACK, nil, 0) }

func (c *tcpConn) handshake() {
	c.raw("c", 0, 0, tSYN, nil, 0)
	c.raw("s", 0, 1, tSYN|tACK, nil, 0)
	c.raw("c", 1, 1, tACK, nil, 0)
}

// checkTCP checks what is true of every table after flush: each captured byte and each connection counted once, nothing held.
func checkTCP(t *testing.T, tab *tcpTable) {
	t.Helper()
	c := tab.counters()
	if got := c.messageBytes + c.retransBytes + c.skippedBytes + c.searchBytes + c.partialBytes + c.junkBytes + c.afterEndBytes + c.boundBytes; got != c.payloadBytes {
		t.Errorf("bytes accounted for: got %d, want %d: %+v", got, c.payloadBytes, *c)
	}
	if tab.payloadHeld != 0 {
		t.Errorf("payload bytes held: got %d, want 0", tab.payloadHeld)
	}
	if got := c.closedFIN + c.closedRST + c.closedIdle + c.closedReuse + c.closedEnd + c.evicted + c.evictedBare; got != c.streams {
		t.Errorf("connections closed: got %d, want %d: %+v", got, c.streams, *c)
	}
	if tab.streamsHeld() != 0 || tab.bytesHeld() != 0 {
		t.Errorf("held after flush: %d connections, %d bytes", tab.streamsHeld(), tab.bytesHeld())
	}
}

func TestTCPStreamSize(t *testing.T) {
	if n := unsafe.Sizeof(tcpStream{}); n > 152 {
		t.Errorf("a connection takes %d bytes", n)
	}
}

func TestTCPBehaviours(t *testing.T) {
	q1, q2, q3 := tcpTestMsg(1, false, "one", 0, 0), tcpTestMsg(2, false, "two", 0, 0), tcpTestMsg(3, false, "three", 0, 0)
	r1, r2 := tcpTestMsg(1, true, "one", 3, 50), tcpTestMsg(2, true, "two", 2, 600)
	big := tcpTestMsg(4, true, "big", 65, 1000)[:2+65535]
	binary.BigEndian.PutUint16(big, 65535)
	junk := []byte("GET / HTTP/1.1\r\nHost: example.net\r\n\r\n")
	tls := []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0x5a, 0x17, 0x99, 0xf1, 2, 3, 4, 5, 6}
	cat := func(bs ...[]byte) []byte { return bytes.Join(bs, nil) }
	n1 := len(q1)

	tests := []struct {
		name string
		run  func(c *tcpConn)
		c, s []string
		want tcpCounters // fields to be equal where not zero
	}{
		{"whole messages", func(c *tcpConn) {
			c.handshake()
			c.data("c", 0, q1)
			c.data("s", 0, r1)
		}, tcpBodies(q1), tcpBodies(r1), tcpCounters{messages: 2, streams: 1}},
		{"one-byte segments", func(c *tcpConn) {
			c.handshake()
			for i, b := range cat(q1, q2) {
				c.data("c", i, []byte{b})
			}
		}, tcpBodies(q1, q2), nil, tcpCounters{messages: 2}},
		{"prefix in a segment of its own", func(c *tcpConn) {
			c.handshake()
			c.data("c", 0, q1[:2])
			c.data("c", 2, q1[2:])
		}, tcpBodies(q1), nil, tcpCounters{messages: 1}},
		{"several in a segment, pipelined both ways", func(c *tcpConn) {
			c.handshake()
			all := cat(q1, q2, q3)
			c.data("c", 0, all[:n1+5])
			c.data("s", 0, r2[:700])
			c.data("c", n1+5, all[n1+5:])
			c.data("s", 700, cat(r2[700:], r1))
		}, tcpBodies(q1, q2, q3), tcpBodies(r2, r1), tcpCounters{messages: 5}},
		{"65,535 bytes", func(c *tcpConn) {
			c.handshake()
			for i := 0; i < len(big); i += 1460 {
				c.data("s", i, big[i:min(i+1460, len(big))])
			}
			c.data("s", len(big), r1)
		}, nil, tcpBodies(big, r1), tcpCounters{messages: 2}},
		{"retransmission", func(c *tcpConn) {
			c.handshake()
			c.data("c", 0, q1)
			c.data("c", 0, q1)
			c.data("c", n1, q2)
		}, tcpBodies(q1, q2), nil, tcpCounters{retransBytes: uint64(n1)}},
		{"partial overlap: the first bytes win", func(c *tcpConn) {
			c.handshake()
			c.data("c", 0, q1[:20])
			c.data("c", 10, cat(bytes.Repeat([]byte{0xee}, 10), q1[20:]))
		}, tcpBodies(q1), nil, tcpCounters{retransBytes: 10}},
		{"overlap with pieces held: the first bytes win", func(c *tcpConn) {
			c.handshake()
			all := cat(q1, q2)
			c.data("c", 8, all[8:12])
			c.data("c", 20, all[20:30])
			c.data("c", 4, cat(all[4:8], []byte{0xee, 0xee, 0xee, 0xee}, all[12:20], []byte{0xee}))
			c.data("c", 0, cat(all[:4], []byte{0xee, 0xee}))
			c.data("c", 30, all[30:])
		}, tcpBodies(q1, q2), nil, tcpCounters{retransBytes: 7, outOfOrder: 3}},
		{"reordered", func(c *tcpConn) {
			c.handshake()
			all := cat(r1, r2)
			for _, i := range []int{4, 2, 5, 1, 3, 0, 7, 6} {
				c.data("s", i*200, all[i*200:min(len(all), i*200+200)])
			}
		}, nil, tcpBodies(r1, r2), tcpCounters{outOfOrder: 6}},
		{"sequence numbers wrap", func(c *tcpConn) {
			c.isn = [2]uint32{0xfffffff0, 0xffffffff}
			c.handshake()
			c.data("c", n1, q2)
			c.data("c", 0, q1)
			c.data("s", 0, r1)
		}, tcpBodies(q1, q2), tcpBodies(r1), tcpCounters{messages: 3}},
		{"FIN with data", func(c *tcpConn) {
			c.handshake()
			c.raw("c", 1, 0, tFIN|tACK, q1, n1)
			c.raw("s", 1, 0, tFIN|tACK, r1, len(r1))
		}, tcpBodies(q1), tcpBodies(r1), tcpCounters{closedFIN: 1}},
		{"FIN before its data", func(c *tcpConn) {
			c.handshake()
			c.raw("c", 1+uint32(n1), 0, tFIN, q2, len(q2))
			c.raw("s", 1, 0, tFIN, nil, 0)
			c.data("c", 0, q1)
		}, tcpBodies(q1, q2), nil, tcpCounters{closedFIN: 1}},
		{"data after FIN", func(c *tcpConn) {
			c.handshake()
			c.raw("c", 1, 0, tFIN, q1, n1)
			c.data("c", n1+1, q2)
			c.data("c", 0, q1)
		}, tcpBodies(q1), nil, tcpCounters{afterEndBytes: uint64(len(q2)), retransBytes: uint64(n1)}},
		{"data behind a FIN that waits", func(c *tcpConn) {
			c.handshake()
			c.raw("c", 1+uint32(n1), 0, tFIN, nil, 0)
			c.data("c", 0, cat(q1, q2))
		}, tcpBodies(q1), nil, tcpCounters{afterEndBytes: uint64(len(q2))}},
		{"late copies after both FINs", func(c *tcpConn) {
			c.handshake()
			c.raw("c", 1, 0, tFIN, q1, n1)
			c.raw("s", 1, 0, tFIN, r1, len(r1))
			c.raw("c", 1, 0, tFIN, q1, n1)
			c.raw("s", 1, 0, tFIN, r1, len(r1))
		}, tcpBodies(q1), tcpBodies(r1), tcpCounters{messages: 2, streams: 1, closedFIN: 1}},
		{"RST drops what is not complete", func(c *tcpConn) {
			c.handshake()
			c.data("c", 0, q1)
			c.data("s", 0, cat(r1, r2[:100]))
			c.raw("c", 1+uint32(n1), 0, tRST, nil, 0)
		}, tcpBodies(q1), tcpBodies(r1), tcpCounters{closedRST: 1, partialsDropped: 1, partialBytes: 100}},
		{"RST delivers what is complete behind a hole", func(c *tcpConn) {
			c.handshake()
			c.data("s", 100, r1)
			c.raw("s", 1, 0, tRST, nil, 0)
		}, nil, tcpBodies(r1), tcpCounters{closedRST: 1, holes: 1, holeBytes: 100, resyncs: 1}},
		{"an answer crosses the RST", func(c *tcpConn) {
			c.handshake()
			c.data("c", 0, q1)
			c.raw("c", 1+uint32(n1), 0, tRST, nil, 0)
			c.data("s", 0, r1)
		}, tcpBodies(q1), tcpBodies(r1), tcpCounters{closedRST: 1}},
		{"RST out of the window", func(c *tcpConn) {
			c.handshake()
			c.data("c", 0, q1)
			c.raw("c", 1<<30, 0, tRST, nil, 0)
			c.data("c", n1, q2)
		}, tcpBodies(q1, q2), nil, tcpCounters{rstIgnored: 1}},
		{"keepalives and window probes", func(c *tcpConn) {
			c.handshake()
			c.raw("c", 0, 0, tACK, []byte{0}, 1)
			c.data("c", 0, q1)
			c.raw("c", uint32(n1), 0, tACK, []byte{0}, 1)
			c.raw("c", uint32(n1), 0, tACK, nil, 0)
			c.data("c", n1, q2[:1])
			c.data("c", n1, q2[:1])
			c.data("c", n1, q2)
		}, tcpBodies(q1, q2), nil, tcpCounters{retransBytes: 4}},
		{"same ends, new connection", func(c *tcpConn) {
			c.handshake()
			c.data("c", 0, q1)
			c.data("s", 0, r1[:50])
			c.isn = [2]uint32{500000, 77}
			c.handshake()
			c.data("c", 0, q2)
			c.data("s", 0, r2)
		}, tcpBodies(q1, q2), tcpBodies(r2), tcpCounters{streams: 2, closedReuse: 1, partialBytes: 50}},
		{"same ends after FIN, SYN not captured", func(c *tcpConn) {
			c.handshake()
			c.raw("c", 1, 0, tFIN, q1, n1)
			c.raw("s", 1, 0, tFIN, r1, len(r1))
			c.isn = [2]uint32{500000, 77}
			c.data("c", 0, q2)
		}, tcpBodies(q1, q2), tcpBodies(r1), tcpCounters{streams: 2, closedFIN: 1, midstream: 1}},
		{"sequence numbers jump", func(c *tcpConn) {
			c.handshake()
			c.data("c", 0, q1)
			c.data("c", 1<<28, q2)
		}, tcpBodies(q1, q2), nil, tcpCounters{jumps: 1}},
		{"TCP Fast Open", func(c *tcpConn) {
			c.raw("c", 0, 0, tSYN, q1, n1)
			c.raw("s", 0, uint32(n1+1), tSYN|tACK, r1, len(r1))
			c.data("c", n1, q2)
			c.data("s", len(r1), r2)
		}, tcpBodies(q1, q2), tcpBodies(r1, r2), tcpCounters{streams: 1}},
		{"TCP Fast Open refused", func(c *tcpConn) {
			c.raw("c", 0, 0, tSYN, q1, n1)
			c.raw("s", 0, 1, tSYN|tACK, nil, 0)
			c.data("c", 0, q1)
		}, tcpBodies(q1), nil, tcpCounters{messages: 1}},
		{"the SYN comes after its data", func(c *tcpConn) {
			c.data("c", 0, q1)
			c.raw("c", 0, 0, tSYN, nil, 0)
			c.data("c", n1, q2)
		}, tcpBodies(q1, q2), nil, tcpCounters{streams: 1}},
		{"joined in the middle, at a segment", func(c *tcpConn) {
			c.data("c", 700, q1)
			c.data("s", 800, r1[:40])
			c.data("s", 840, r1[40:])
		}, tcpBodies(q1), tcpBodies(r1), tcpCounters{midstream: 2, resyncs: 2}},
		{"joined in the middle, prefix alone", func(c *tcpConn) {
			c.data("c", 700, q1[:2])
			c.data("c", 702, q1[2:])
		}, tcpBodies(q1), nil, tcpCounters{resyncs: 1}},
		{"joined in the middle of a message", func(c *tcpConn) {
			all := cat(r2[300:], r1, r2)
			c.data("s", 700, all[:1000])
			c.data("s", 1700, all[1000:])
		}, nil, tcpBodies(r1, r2), tcpCounters{resyncs: 1, searchBytes: uint64(len(r2) - 300)}},
		{"joined in the middle, one-byte segments", func(c *tcpConn) {
			for i, b := range cat(r2[300:], r1, r2) {
				c.data("s", 700+i, []byte{b})
			}
		}, nil, tcpBodies(r1, r2), tcpCounters{resyncs: 1}},
		{"hole inside a message", func(c *tcpConn) {
			c.handshake()
			all := cat(r2, r1)
			c.data("s", 0, all[:400])
			c.data("s", 800, all[800:])
			c.ack("c", len(all))
		}, nil, tcpBodies(r1), tcpCounters{holes: 1, holeBytes: 400, messagesBroken: 1, partialBytes: 400}},
		{"hole to the end of a message", func(c *tcpConn) {
			c.handshake()
			c.data("s", 0, r2[:400])
			c.data("s", len(r2), r1)
			c.ack("c", len(r2)+len(r1))
		}, nil, tcpBodies(r1), tcpCounters{holes: 1, messagesBroken: 1, partialBytes: 400}},
		{"hole over a boundary", func(c *tcpConn) {
			c.handshake()
			all := cat(r2, r1, r2)
			c.data("s", 0, all[:400])
			c.data("s", len(r2)+20, all[len(r2)+20:])
			c.ack("c", len(all))
		}, nil, tcpBodies(r2), tcpCounters{holes: 1, resyncs: 1, messagesBroken: 1}},
		{"hole closed late is no hole", func(c *tcpConn) {
			c.handshake()
			c.data("s", len(r2), r1)
			c.ack("c", 0)
			c.data("s", 0, r2)
			c.ack("c", len(r1)+len(r2))
		}, nil, tcpBodies(r2, r1), tcpCounters{outOfOrder: 1}},
		{"hole before the FIN", func(c *tcpConn) {
			c.handshake()
			c.data("c", 0, cat(q1, q2[:10]))
			c.raw("c", 1+uint32(n1+len(q2)), 0, tFIN, nil, 0)
			c.raw("s", 1, uint32(n1+len(q2)+2), tFIN|tACK, nil, 0)
		}, tcpBodies(q1), nil, tcpCounters{closedFIN: 1, holes: 1}},
		{"junk", func(c *tcpConn) {
			c.handshake()
			c.data("c", 0, junk)
			c.data("c", len(junk), q1)
			c.data("s", 0, r1)
		}, nil, tcpBodies(r1), tcpCounters{givenUp: 1, junkBytes: uint64(len(junk) + n1)}},
		{"junk a byte at a time", func(c *tcpConn) {
			c.handshake()
			for i, b := range tls {
				c.data("c", i, []byte{b})
			}
		}, nil, nil, tcpCounters{givenUp: 1, junkBytes: uint64(len(tls))}},
		{"junk after a message", func(c *tcpConn) {
			c.handshake()
			c.data("s", 0, cat(r1, junk))
		}, nil, tcpBodies(r1), tcpCounters{partialBytes: uint64(len(junk))}},
		{"empty and short messages", func(c *tcpConn) {
			c.handshake()
			c.data("c", 0, cat([]byte{0, 0, 0, 3, 'a', 'b', 'c'}, q1, []byte{0, 0, 0, 11}, make([]byte, 11), q2))
		}, tcpBodies(q1, q2), nil, tcpCounters{messagesEmpty: 2, messagesShort: 2, skippedBytes: 22}},
		{"nothing but zeros", func(c *tcpConn) {
			c.handshake()
			c.data("c", 0, make([]byte, 3000))
			c.data("c", 3000, make([]byte, 3000))
		}, nil, nil, tcpCounters{givenUp: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newTCPConn(tcpTestLimits)
			tt.run(c)
			early := len(c.r.got)
			c.t.flush()
			if len(c.r.got) != early {
				t.Errorf("%d messages were only delivered by flush", len(c.r.got)-early)
			}
			if got := c.r.bodies("c"); !reflect.DeepEqual(got, tt.c) {
				t.Errorf("client: got %q, want %q", got, tt.c)
			}
			if got := c.r.bodies("s"); !reflect.DeepEqual(got, tt.s) {
				t.Errorf("server: got %q, want %q", got, tt.s)
			}
			got, want := reflect.ValueOf(*c.t.counters()), reflect.ValueOf(tt.want)
			for i := range want.NumField() {
				if w := want.Field(i).Uint(); w != 0 && got.Field(i).Uint() != w {
					t.Errorf("%s: got %d, want %d", want.Type().Field(i).Name, got.Field(i).Uint(), w)
				}
			}
			checkTCP(t, c.t)
		})
	}
}

// TestTCPTimes checks the packet that each message is given to.
func TestTCPTimes(t *testing.T) {
	q, r := tcpTestMsg(1, false, "one", 0, 0), tcpTestMsg(1, true, "one", 3, 50)
	c := newTCPConn(tcpTestLimits)
	c.vlan = 7
	c.handshake()                  // 1 2 3
	c.data("c", 0, q[:9])          // 4
	c.data("c", 9, q[9:])          // 5: completes q
	c.data("s", 20, r[20:])        // 6
	c.data("s", 0, r[:20])         // 7: completes r
	c.data("s", len(r)+100, r)     // 8: behind a hole
	c.ack("c", 2*len(r)+100)       // 9: shows that it is one
	c.data("c", len(q)+100, q)     // 10: behind a hole
	c.raw("s", 1, 0, tACK, nil, 0) // 11: the last packet
	c.t.tick(11e6 + 120e9 + 1)
	want := []tcpGot{
		{"c", string(q[2:]), len(q) - 2, false, 5e6, 5, 7},
		{"s", string(r[2:]), len(r) - 2, false, 7e6, 7, 7},
		{"s", string(r[2:]), len(r) - 2, false, 8e6, 9, 7},
		{"c", string(q[2:]), len(q) - 2, false, 10e6, 11, 7},
	}
	if !reflect.DeepEqual(c.r.got, want) {
		t.Errorf("got  %+v\nwant %+v", c.r.got, want)
	}
	checkTCP(t, c.t)
}

// TestTCPCut checks segments that the snaplen cut.
func TestTCPCut(t *testing.T) {
	q1, q2 := tcpTestMsg(1, false, "a-long-name-for-a-question", 0, 0), tcpTestMsg(2, false, "two", 0, 0)
	r2 := tcpTestMsg(2, true, "two", 2, 600)
	n := len(q1)
	type m struct {
		Msg  string
		Wire int
		Cut  bool
		Ts   int64
	}
	tests := []struct {
		name string
		run  func(c *tcpConn)
		want []m
	}{
		{"known by the next byte", func(c *tcpConn) {
			c.handshake()
			c.raw("c", 1, 0, 0, q1, 30)
			c.data("c", n, q2)
		}, []m{{string(q1[2:30]), n - 2, true, 4e6}, {string(q2[2:]), len(q2) - 2, false, 5e6}}},
		{"known by the acknowledgement", func(c *tcpConn) {
			c.handshake()
			c.raw("c", 1, 0, 0, q1, 30)
			c.ack("s", n)
			c.data("c", n, q2)
		}, []m{{string(q1[2:30]), n - 2, true, 4e6}, {string(q2[2:]), len(q2) - 2, false, 6e6}}},
		{"known by the FIN", func(c *tcpConn) {
			c.handshake()
			c.raw("c", 1, 0, tFIN, q1, 30)
		}, []m{{string(q1[2:30]), n - 2, true, 4e6}}},
		{"known at the end", func(c *tcpConn) {
			c.handshake()
			c.raw("c", 1, 0, 0, q1, 30)
			c.t.flush()
		}, []m{{string(q1[2:30]), n - 2, true, 4e6}}},
		{"two messages in the segment", func(c *tcpConn) {
			c.handshake()
			c.raw("c", 1, 0, 0, slices.Concat(q2, q1), len(q2)+20)
			c.data("c", n+len(q2), q2)
		}, []m{{string(q2[2:]), len(q2) - 2, false, 4e6}, {string(q1[2:20]), n - 2, true, 4e6}, {string(q2[2:]), len(q2) - 2, false, 5e6}}},
		{"every segment of a message", func(c *tcpConn) {
			c.handshake()
			c.raw("s", 1, 0, 0, r2[:500], 40)
			c.raw("s", 501, 0, 0, r2[500:1000], 40)
			c.raw("s", 1001, 0, 0, r2[1000:], 40)
			c.ack("c", len(r2))
		}, []m{{string(r2[2:40]), len(r2) - 2, true, 6e6}}},
		{"sent again whole", func(c *tcpConn) {
			c.handshake()
			c.raw("c", 1, 0, 0, q1, 30)
			c.data("c", 0, q1)
		}, []m{{string(q1[2:]), n - 2, false, 5e6}}},
		{"cut and out of order", func(c *tcpConn) {
			c.handshake()
			c.raw("c", 1+uint32(len(q2)), 0, 0, q1, 30)
			c.data("c", len(q2)+n, q2)
			c.data("c", 0, q2)
		}, []m{{string(q2[2:]), len(q2) - 2, false, 6e6}, {string(q1[2:30]), n - 2, true, 6e6}, {string(q2[2:]), len(q2) - 2, false, 6e6}}},
		{"joined in the middle", func(c *tcpConn) {
			c.raw("c", 1, 0, 0, q1, 20)
			c.data("c", n, q2)
		}, []m{{string(q1[2:20]), n - 2, true, 1e6}, {string(q2[2:]), len(q2) - 2, false, 2e6}}},
		{"inside the header", func(c *tcpConn) {
			c.handshake()
			c.raw("c", 1, 0, 0, q1, 10)
			c.data("c", n, q2)
		}, []m{{string(q2[2:]), len(q2) - 2, false, 5e6}}},
		{"before the payload", func(c *tcpConn) {
			c.handshake()
			c.raw("c", 1, 0, 0, q1, 0)
			c.data("c", n, q2)
		}, []m{{string(q2[2:]), len(q2) - 2, false, 5e6}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newTCPConn(tcpTestLimits)
			tt.run(c)
			var got []m
			for _, g := range c.r.got {
				got = append(got, m{g.Msg, g.Wire, g.Cut, g.Ts})
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
			c.t.flush()
			checkTCP(t, c.t)
		})
	}
}

func TestTCPHeaders(t *testing.T) {
	q := tcpTestMsg(1, false, "one", 0, 0)
	c2s, _ := tcpTestFlow(1, 2)
	for _, tt := range []struct {
		name      string
		seg       []byte
		wire      int
		malformed uint64
		messages  uint64
	}{
		{"options", slices.Concat(tcpSegment(nil, 5, 0, 0, nil)[:12], []byte{8 << 4}, make([]byte, 7), make([]byte, 12), q), 32 + len(q), 0, 1},
		{"empty", nil, 0, 1, 0},
		{"short", tcpSegment(nil, 5, 0, 0, nil)[:19], 19, 1, 0},
		{"offset too small", slices.Concat(tcpSegment(nil, 5, 0, 0, nil)[:12], []byte{4 << 4}, make([]byte, 7), q), 20 + len(q), 1, 0},
		{"offset behind the end", slices.Concat(tcpSegment(nil, 5, 0, 0, nil)[:12], []byte{15 << 4}, make([]byte, 7)), 20, 1, 0},
		{"cut inside the options", slices.Concat(tcpSegment(nil, 5, 0, 0, nil)[:12], []byte{15 << 4}, make([]byte, 7)), 90, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tab := newTCPTable(tcpTestLimits, &tcpRecorder{})
			tab.segment(&c2s, 1, tt.seg, tt.wire, 1, 1, 0)
			tab.flush()
			if c := tab.counters(); c.malformed != tt.malformed || c.messages != tt.messages {
				t.Errorf("got malformed %d, messages %d, want %d, %d", c.malformed, c.messages, tt.malformed, tt.messages)
			}
			checkTCP(t, tab)
		})
	}
}

// TestTCPBounds checks that each bound holds, has its counter, and loses no more than it must.
func TestTCPBounds(t *testing.T) {
	r1 := tcpTestMsg(1, true, "one", 3, 50)
	t.Run("bytes of a direction", func(t *testing.T) {
		c := newTCPConn(tcpTestLimits)
		c.handshake()
		want := 0
		for off := 1000; c.t.counters().boundStream == 0; off += len(r1) {
			c.data("s", off, r1)
			want++
			if got := c.t.bytesHeld(); got > 4*tcpTestLimits.streamBytes {
				t.Fatalf("held: %d", got)
			}
		}
		if got := len(c.r.got); got != want || want*len(r1) < tcpTestLimits.streamBytes {
			t.Errorf("got %d messages, want %d", got, want)
		}
		c.t.flush()
		checkTCP(t, c.t)
	})
	t.Run("pieces of a direction", func(t *testing.T) {
		c := newTCPConn(tcpTestLimits)
		c.handshake()
		for i := 1; i <= 2*tcpMaxNodes; i++ {
			c.data("s", 1000*i, r1)
		}
		c.t.flush()
		if got := len(c.r.got); got != 2*tcpMaxNodes || c.t.counters().boundStream != tcpMaxNodes {
			t.Errorf("got %d messages: %+v", got, *c.t.counters())
		}
		checkTCP(t, c.t)
	})
	t.Run("bytes of a table", func(t *testing.T) {
		lim := tcpTestLimits
		lim.totalBytes = 100 << 10
		c := newTCPConn(lim)
		for i := range 500 {
			c.port = uint16(10000 + i)
			c.data("s", 0, r1[:100])
			if got := c.t.bytesHeld(); got > lim.totalBytes {
				t.Fatalf("held: %d", got)
			}
		}
		c.data("s", 100, r1[100:]) // the last is still there
		if n := c.t.counters(); len(c.r.got) != 1 || n.boundTotal == 0 || n.boundTotal != n.partialsDropped {
			t.Errorf("got %d messages: %+v", len(c.r.got), *n)
		}
		c.t.flush()
		checkTCP(t, c.t)
	})
	t.Run("idle", func(t *testing.T) {
		c := newTCPConn(tcpTestLimits)
		c.data("s", 0, r1)
		c.data("c", 0, r1)
		c.t.tick(2e6 + tcpTestLimits.idleNs)
		if got := c.t.streamsHeld(); got != 1 {
			t.Errorf("held: %d", got)
		}
		c.t.tick(2e6 - tcpTestLimits.idleNs - 1) // time may go backwards
		if got := c.t.streamsHeld(); got != 0 || c.t.counters().closedIdle != 1 {
			t.Errorf("held: %d: %+v", got, *c.t.counters())
		}
		checkTCP(t, c.t)
	})
	t.Run("closed connections remembered", func(t *testing.T) {
		lim := tcpTestLimits
		lim.streams = 1 << 20
		c := newTCPConn(lim)
		for i := range 3 * tcpClosedMax {
			c.port = uint16(i)
			c.raw("c", 0, 0, tSYN, nil, 0)
			c.raw("c", 1, 0, tFIN, nil, 0)
			c.raw("s", 1, 0, tFIN, nil, 0)
		}
		if got := c.t.streamsHeld(); got != tcpClosedMax {
			t.Errorf("held: %d", got)
		}
		c.t.tick(int64(c.n)*1e6 + tcpLingerNs + 1)
		if got := c.t.streamsHeld(); got != 0 {
			t.Errorf("held: %d", got)
		}
		checkTCP(t, c.t)
	})
}

// TestTCPHalfOpen floods the table with SYNs: the connections among them are found, memory stays bounded.
func TestTCPHalfOpen(t *testing.T) {
	lim := tcpTestLimits
	lim.streams = 20000
	c := newTCPConn(lim)
	q, r := tcpTestMsg(1, false, "one", 0, 0), tcpTestMsg(1, true, "one", 3, 50)
	const flood, every = 100000, 100
	for i := range flood {
		c.client, c.port = 0x0b000000+uint32(i), 1000
		c.raw("c", 0, 0, tSYN, nil, 0)
		// Four connections overlap, each a packet every 25 SYNs.
		if k := i / every; k > 0 {
			c.client = 0x0a000000 + uint32(k)
			switch i % every {
			case 0:
				c.handshake()
			case 25:
				c.raw("c", 1, 1, tACK, q, len(q))
			case 50:
				c.raw("s", 1, 1, tACK, r[:90], 90)
			case 75:
				c.raw("s", 91, 1, tACK, r[90:], len(r)-90)
				c.raw("c", 1+uint32(len(q)), 1+uint32(len(r)), tACK|tFIN, nil, 0)
			}
		}
	}
	n := c.t.counters()
	if got, want := n.messages, uint64(2*(flood/every-1)); got != want {
		t.Errorf("messages: got %d, want %d", got, want)
	}
	if got := c.t.streamsHeld(); got != lim.streams {
		t.Errorf("held: %d", got)
	}
	if n.evictedBare == 0 || n.evicted != 0 || n.midstream != 0 {
		t.Errorf("%+v", *n)
	}
	if got := len(c.t.streamPages) * int(unsafe.Sizeof(tcpStreamPage{})); got > 200*lim.streams+1<<16 {
		t.Errorf("bytes of connections: %d", got)
	}
	if len(c.t.holdPages) > 1 {
		t.Errorf("pages of holds: %d", len(c.t.holdPages))
	}
	c.t.flush()
	checkTCP(t, c.t)
}

// TestTCPLoss loses one segment in ten: no message is delivered that was not sent, and of those whose bytes all
// came hardly any is missed.
func TestTCPLoss(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	var whole, got int
	for range 200 {
		c := newTCPConn(tcpTestLimits)
		c.handshake()
		var stream []byte
		type span struct{ a, b int }
		at := map[string]span{}
		var order []string
		for i := range 40 {
			m := tcpTestMsg(uint16(i), true, "name", 1+rng.IntN(4), rng.IntN(1200))
			at[string(m[2:])] = span{len(stream), len(stream) + len(m)}
			order = append(order, string(m[2:]))
			stream = append(stream, m...)
		}
		came := make([]bool, len(stream))
		for off := 0; off < len(stream); {
			n := min(1460, len(stream)-off)
			if rng.IntN(10) != 0 {
				c.data("s", off, stream[off:off+n])
				for i := range n {
					came[off+i] = true
				}
			}
			off += n
			c.ack("c", off)
		}
		c.t.flush()
		last := -1
		for _, m := range c.r.bodies("s") {
			i := slices.Index(order, m)
			if i <= last {
				t.Fatalf("message %d after %d: %q", i, last, m)
			}
			last = i
			got++
		}
		for _, s := range at {
			if !slices.Contains(came[s.a:s.b], false) {
				whole++
			}
		}
		checkTCP(t, c.t)
	}
	if got*1000 < whole*995 || got > whole {
		t.Errorf("got %d messages, %d came whole", got, whole)
	}
}

// tcpCount is a sink that only counts.
type tcpCount struct{ messages, bytes int }

func (c *tcpCount) tcpMessage(_ *flow, _ uint64, msg []byte, _ int, _ bool, _ int64, _ uint64, _ uint16) {
	c.messages++
	c.bytes += len(msg)
}

// tcpLookup is a captured connection with one lookup, its response in two segments: 9 packets.
type tcpLookup struct {
	segs [9][]byte
	from [9]int
}

func newTCPLookup() *tcpLookup {
	q, r := tcpTestMsg(1, false, "one", 0, 0), tcpTestMsg(1, true, "one", 3, 600)
	l := &tcpLookup{}
	nq, nr := uint32(len(q)), uint32(len(r))
	add := func(i, from int, seq, ack uint32, flags byte, p []byte) {
		l.segs[i], l.from[i] = tcpSegment(nil, seq, ack, flags, p), from
	}
	add(0, 0, 100, 0, tSYN, nil)
	add(1, 1, 500, 101, tSYN|tACK, nil)
	add(2, 0, 101, 501, tACK, nil)
	add(3, 0, 101, 501, tACK, q)
	add(4, 1, 501, 101+nq, tACK, r[:1460])
	add(5, 1, 1961, 101+nq, tACK, r[1460:])
	add(6, 0, 101+nq, 501+nr, tACK|tFIN, nil)
	add(7, 1, 501+nr, 102+nq, tACK|tFIN, nil)
	add(8, 0, 102+nq, 502+nr, tACK, nil)
	return l
}

func (l *tcpLookup) run(tab *tcpTable, k uint32) {
	var fl [2]flow
	fl[0], fl[1] = tcpTestFlow(k>>8, uint16(k))
	h := tcpTestHash(k>>8, uint16(k))
	for i, s := range l.segs {
		tab.segment(&fl[l.from[i]], h, s, len(s), int64(k)*1000, uint64(k)*9+uint64(i), 0)
	}
}

func TestTCPAllocs(t *testing.T) {
	sink := &tcpCount{}
	tab := newTCPTable(tcpTestLimits, sink)
	l := newTCPLookup()
	r := tcpTestMsg(1, true, "one", 20, 1000)
	c2s, s2c := tcpTestFlow(0xfe000000, 1)
	segs := [][]byte{tcpSegment(nil, 1000, 0, 0, r[:100]), tcpSegment(nil, 5000, 0, 0, r[4000:9000]), tcpSegment(nil, 4000, 0, 0, r[3000:4000]),
		tcpSegment(nil, 1100, 0, 0, r[100:3000]), tcpSegment(nil, 10000, 0, 0, r[9000:])}
	k := uint32(0)
	run := func() {
		for range 2000 {
			k++
			l.run(tab, k)
		}
		for _, s := range segs { // partial, reordered, grown
			tab.segment(&s2c, 1, s, len(s), int64(k)*1000, uint64(k)*9, 0)
		}
		tab.segment(&c2s, 1, tcpSegment(segs[0][:0:0], 1, 0, tRST, nil), 20, int64(k)*1000, uint64(k)*9, 0)
		tab.tick(int64(k) * 1000)
	}
	run()
	run()
	sink.messages = 0
	before := tab.counters().messages
	// The RST segment made by run itself is one allocation.
	if got := testing.AllocsPerRun(10, run); got > 1 {
		t.Errorf("allocations in 2000 connections: %v", got)
	}
	if sink.messages != 11*4001 || tab.counters().messages-before != 11*4001 {
		t.Errorf("messages: %d", sink.messages)
	}
}

// tcpPlay makes a connection's captured packets out of fuzz bytes: messages both ways, cut, sent twice, reordered.
func tcpPlay(data []byte, r *tcpRecorder) (tab *tcpTable, want [2][]string) {
	next := func() int {
		if len(data) == 0 {
			return 0
		}
		b := data[0]
		data = data[1:]
		return int(b)
	}
	seed := uint64(next()) | uint64(next())<<8
	rng := rand.New(rand.NewPCG(seed, 1))
	isn := [2]uint32{uint32(next()) << 24, uint32(next())<<24 + 0xffff00}
	if next()&1 != 0 {
		isn[0] = -uint32(next()) * 3
	}
	type packet struct {
		from   int
		off, n int
		fin    bool
		key    int
	}
	var stream [2][]byte
	var packets []packet
	for d := range stream {
		for i := range 1 + next()%12 {
			ans, size := next()%4*d, next()*next()
			if size > 20000 {
				size = 20000
			}
			m := tcpTestMsg(uint16(i), d == 1, "name"[:next()%5], ans, size)
			if len(m) == 2+len(m[2:]) && len(m[2:]) > 65535 {
				continue
			}
			stream[d] = append(stream[d], m...)
			want[d] = append(want[d], string(m[2:]))
		}
		// Cut into segments; the reordering moves a packet by at most spread places, and none is sent twice beyond that.
		step, spread := 1+next()*next()%1460, next()%24
		if len(stream[d]) > 3000 {
			step = max(step, len(stream[d])/64)
		}
		for off, i := 0, 0; off <= len(stream[d]); i++ {
			n := min(1+rng.IntN(step), len(stream[d])-off)
			p := packet{d, off, n, off+n == len(stream[d]), 0}
			p.key = i + rng.IntN(spread+1)
			packets = append(packets, p)
			if rng.IntN(4) == 0 { // again, with more or less around it
				a := max(0, off-rng.IntN(1+step))
				b := min(len(stream[d]), off+n+rng.IntN(1+step))
				packets = append(packets, packet{d, a, b - a, false, i + rng.IntN(spread+1)})
			}
			off += n
			if n == 0 || off == len(stream[d]) {
				break
			}
		}
	}
	slices.SortStableFunc(packets, func(a, b packet) int { return a.key - b.key })

	tab = newTCPTable(tcpTestLimits, r)
	c2s, s2c := tcpTestFlow(1, 2)
	fl := [2]*flow{&c2s, &s2c}
	n := uint64(0)
	send := func(from int, off uint32, flags byte, p []byte, ack uint32) {
		n++
		seg := tcpSegment(nil, isn[from]+off, isn[1-from]+ack, flags, p)
		tab.segment(fl[from], 99, seg, len(seg), int64(n), n, 0)
	}
	send(0, 0, tSYN, nil, 0)
	send(1, 0, tSYN|tACK, nil, 1)
	// A receiver acknowledges what has come without holes.
	var has [2][]bool
	var acked [2]uint32
	for d := range has {
		has[d] = make([]bool, len(stream[d])+1)
	}
	for _, p := range packets {
		flags := byte(tACK)
		if p.fin {
			flags |= tFIN
		}
		send(p.from, 1+uint32(p.off), flags, stream[p.from][p.off:p.off+p.n], 1+acked[1-p.from])
		for i := range p.n {
			has[p.from][p.off+i] = true
		}
		for has[p.from][acked[p.from]] {
			acked[p.from]++
		}
	}
	return tab, want
}

// FuzzTCPStream: however a stream is cut, repeated and reordered, its messages are those of the stream.
func FuzzTCPStream(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 0, 5, 3, 1, 1, 4, 2, 200, 20, 4, 9, 9, 9})
	f.Add([]byte("the quick brown fox jumps over the lazy dog, again and again and again and again"))
	f.Add([]byte{9, 1, 255, 255, 1, 1, 11, 3, 255, 255, 4, 3, 100, 100, 4, 3, 9, 9, 4, 3, 1, 1, 4, 1, 1, 20, 11, 3, 200, 90, 4, 3, 250, 90, 4, 2, 200, 90, 4, 3, 200, 90, 3, 20, 20, 23})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &tcpRecorder{}
		tab, want := tcpPlay(data, r)
		for d, from := range []string{"c", "s"} {
			if got := r.bodies(from); !reflect.DeepEqual(got, want[d]) {
				t.Errorf("%s: got %d messages, want %d", from, len(got), len(want[d]))
			}
		}
		c := *tab.counters()
		if c.holes|c.resyncs|c.searchBytes|c.skippedBytes|c.partialBytes|c.givenUp|c.boundStream|c.boundBytes|c.jumps|c.midstream|c.afterEndBytes != 0 || c.closedFIN != 1 || c.streams != 1 {
			t.Errorf("counters of a whole stream: %+v", c)
		}
		tab.flush()
		checkTCP(t, tab)
	})
}

// tcpBounded is a sink that checks what holds for every message.
type tcpBounded struct{ t *testing.T }

func (b tcpBounded) tcpMessage(_ *flow, _ uint64, msg []byte, wire int, cut bool, _ int64, _ uint64, _ uint16) {
	if len(msg) < 12 || wire > 65535 || len(msg) > wire || !cut && len(msg) != wire {
		b.t.Errorf("message of %d bytes, wire %d, cut %v", len(msg), wire, cut)
	}
}

// FuzzTCPJunk: whatever comes, the bounds hold and every byte is accounted for.
func FuzzTCPJunk(f *testing.F) {
	q, r := tcpTestMsg(1, false, "one", 0, 0), tcpTestMsg(2, true, "two", 2, 80)
	one := func(op, flags byte, seq, ack uint16, short byte, p []byte) []byte {
		b := []byte{op, flags, byte(seq >> 8), byte(seq), byte(ack >> 8), byte(ack), short, byte(len(p))}
		return append(b, p...)
	}
	f.Add(slices.Concat(one(0, tSYN, 9, 0, 0, nil), one(0, 0, 10, 0, 0, q), one(1, tACK, 40, 90, 0, r[:100]), one(1, tFIN, 240, 0, 0, r[:50]), one(0, tACK, 40, 300, 0, nil)))
	f.Add(slices.Concat(one(2, 0, 10, 0, 20, q), one(3, tACK, 40, 90, 60, r[:100]), one(3, tRST, 140, 0, 0, nil), one(2, tSYN, 1, 0, 0, q)))
	f.Add(slices.Concat(one(1, 0, 1, 0, 0, r[:120]), one(65, 0, 500, 0, 0, r[:200]), one(1, 0, 300, 0, 9, r[:90]), one(0, tACK, 1, 4000, 0, nil), one(128, 0, 0, 0, 0, nil)))
	f.Fuzz(func(t *testing.T, data []byte) {
		lim := tcpLimits{streams: 5, streamBytes: 1, totalBytes: 3000, idleNs: 1000}
		if len(data)&1 != 0 {
			lim.totalBytes = 1 << 20
		}
		tab := newTCPTable(lim, tcpBounded{t})
		ts := int64(0)
		for n := uint64(1); len(data) >= 8; n++ {
			op, flags := data[0], data[1]
			seq := uint32(binary.BigEndian.Uint16(data[2:]))
			ack := uint32(binary.BigEndian.Uint16(data[4:]))
			short, size := int(data[6]), int(data[7])
			data = data[8:]
			p := data[:min(size, len(data))]
			data = data[len(p):]
			port := uint16(op >> 1 & 7)
			c2s, s2c := tcpTestFlow(1, port)
			fl := &c2s
			if op&1 != 0 {
				fl = &s2c
			}
			if op&16 != 0 {
				seq *= 65537
			}
			if op&32 != 0 {
				ts += 100 * int64(int8(short))
			}
			if op&64 != 0 {
				p = bytes.Repeat(p, 60)
			}
			seg := tcpSegment(nil, seq, ack, flags, p)
			wire := len(seg)
			if op&32 == 0 {
				seg = seg[:len(seg)-min(short, len(seg))]
			}
			tab.segment(fl, uint64(port&1), seg, wire, ts, n, 0)
			if op&128 != 0 {
				tab.tick(ts)
			}
			if tab.bytesHeld() < 0 || tab.bytesHeld()+tab.spare > lim.totalBytes || tab.streamsHeld() > lim.streams {
				t.Fatalf("held: %d + %d bytes, %d connections", tab.bytesHeld(), tab.spare, tab.streamsHeld())
			}
		}
		tab.flush()
		checkTCP(t, tab)
	})
}

// tcpCPU returns the CPU time of the process in ns.
func tcpCPU() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkTCPConnection reports ns per packet of connections with one lookup.
func BenchmarkTCPConnection(b *testing.B) {
	for _, live := range []int{1, 1000} {
		b.Run(fmt.Sprintf("live=%d", live), func(b *testing.B) {
			lim := tcpTestLimits
			lim.streams = 100000
			tab := newTCPTable(lim, &tcpCount{})
			l := newTCPLookup()
			b.ReportAllocs()
			flows := make([][2]flow, live)
			start := tcpCPU()
			// live connections at a time, a packet of each in turn.
			k := uint32(0)
			for n := 0; n < b.N; n += 9 * live {
				for i, s := range l.segs {
					for j := range uint32(live) {
						if i == 0 {
							flows[j][0], flows[j][1] = tcpTestFlow((k+j)>>8, uint16(k+j))
						}
						tab.segment(&flows[j][l.from[i]], tcpTestHash((k+j)>>8, uint16(k+j)), s, len(s), int64(k)*1000, uint64(k), 0)
					}
				}
				k += uint32(live)
			}
			b.ReportMetric(float64(tcpCPU()-start)/float64(b.N), "cpu-ns/op")
		})
	}
}

func BenchmarkTCPTransfer(b *testing.B) {
	tab := newTCPTable(tcpTestLimits, &tcpCount{})
	m := tcpTestMsg(1, true, "one", 20, 1000)
	_, s2c := tcpTestFlow(1, 2)
	all := bytes.Repeat(m, 100)
	seg := make([]byte, 0, 1500)
	b.SetBytes(int64(len(all)))
	b.ReportAllocs()
	seq := uint32(1)
	tab.segment(&s2c, 1, tcpSegment(seg, 0, 0, tSYN, nil), 20, 1, 1, 0)
	for range b.N {
		for off := 0; off < len(all); off += 1460 {
			p := all[off:min(off+1460, len(all))]
			s := tcpSegment(seg, seq, 0, tACK, p)
			tab.segment(&s2c, 1, s, len(s), 1, 1, 0)
			seq += uint32(len(p))
		}
	}
}
