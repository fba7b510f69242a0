// This file: the state of a flood, and the good lookups in it.
package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"gopassivedns/testdata/bench/wire"
)

const (
	// startNs is 2025-06-02 08:00:00 UTC.
	startNs = 1748851200 * int64(1e9)
	msNs    = int64(1e6)
	// toothNs is how long a clock that jumps runs between jumps. A good lookup begins and ends between two jumps.
	toothNs    = 10 * msNs
	goodPrefix = "good-"
)

// carry is what good lookups travel in.
type carry int

const (
	carryUDP       carry = iota
	carryTCP             // every other one over TCP
	carryFragments       // the response of every other one in fragments, in any order
	carryVLAN            // none, one or two tags
	carryTunnel          // plain, in VXLAN, in GRE
	carryMixed           // plain, over TCP, in fragments
)

// flood is what the kinds share.
type flood struct {
	r           *rand.Rand
	queue       wire.Queue
	write       func(ns int64, frame []byte) error
	close       func() error
	now, gap    int64
	truth       *truth
	goodPackets int
	step        int // of kinds that vary from one to the next
	turns       int // of kinds that mix others
	conns       []wire.Conn
	conn        int // the one whose turn it is

	// Used again and again.
	msg     wire.Msg
	name    []byte
	payload []byte
	frame   []byte
	ipID    uint16
}

func (f *flood) drain(until int64) error {
	for {
		ns, frame, ok := f.queue.Next(until)
		if !ok {
			return nil
		}
		f.truth.Packets++
		if err := f.write(ns, frame); err != nil {
			return err
		}
	}
}

// push queues a hostile frame, behind those of the same step.
func (f *flood) push(at int, frame []byte) {
	f.truth.FloodPackets++
	f.queue.Push(f.now+int64(at)*f.gap, append(f.queue.Buffer(), frame...))
}

// id returns the next IP identification.
func (f *flood) id() uint16 {
	f.ipID++
	return f.ipID
}

// stranger returns a random address, IPv6 for one in eight.
func (f *flood) stranger() *wire.Host {
	h := &wire.Host{V6: f.r.IntN(8) == 0, MAC: [6]byte{2, 0x66, 0, 0, 0, 1}}
	binary.BigEndian.PutUint64(h.Addr[8:], f.r.Uint64())
	if h.V6 {
		copy(h.Addr[:], []byte{0x20, 0x01, 0x0d, 0xb8, byte(f.r.Uint32()), byte(f.r.Uint32())})
	} else {
		binary.BigEndian.PutUint32(h.Addr[:], 0x0b000000+f.r.Uint32N(0x70000000))
	}
	return h
}

// server4 and server6 are the resolver's addresses.
var (
	server4 = wire.Host{Addr: [16]byte{192, 0, 2, 53}, MAC: [6]byte{2, 0x53, 0, 0, 0, 1}}
	server6 = wire.Host{Addr: [16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 0x53, 15: 0x53}, V6: true, MAC: [6]byte{2, 0x53, 0, 0, 0, 1}}
	tunnels = [2]wire.Host{
		{Addr: [16]byte{172, 16, 0, 1}, MAC: [6]byte{2, 0xee, 0, 0, 0, 1}},
		{Addr: [16]byte{172, 16, 0, 2}, MAC: [6]byte{2, 0xee, 0, 0, 0, 2}},
	}
)

// serverFor returns the server's address of the client's family.
func serverFor(client *wire.Host) *wire.Host {
	if client.V6 {
		return &server6
	}
	return &server4
}

// port returns a client's port.
func (f *flood) port() uint16 { return uint16(1024 + f.r.IntN(64512)) }

// randomName returns a name of two random labels in wire format, valid until the next call.
func (f *flood) randomName() []byte {
	n := 6 + f.r.IntN(14)
	b := append(f.name[:0], byte(n))
	for range n {
		b = append(b, 'a'+byte(f.r.IntN(26)))
	}
	f.name = wire.AppendName(b, "example")
	return f.name
}

const (
	flagQR = 0x8000
	flagRD = 0x0100
	flagRA = 0x0080
)

// good queues one good lookup. Its client's address, 10.64.0.0/10, and port are never used by the flood, nor twice.
func (f *flood) good(c carry) {
	i := f.truth.GoodLookups
	f.truth.GoodLookups++
	client := &wire.Host{MAC: [6]byte{2, 0x10, 0, 0, 0, 1}}
	if i%8 == 7 {
		client.V6 = true
		copy(client.Addr[:], []byte{0x20, 0x01, 0x0d, 0xb8, 0x0a, 0x40})
		binary.BigEndian.PutUint32(client.Addr[12:], uint32(i)+1)
	} else {
		binary.BigEndian.PutUint32(client.Addr[:], 0x0a400000+uint32(i)%0x3ffffe+1)
	}
	port := uint16(1024 + (i*7919)%64512)
	if c == carryMixed {
		c = [...]carry{carryUDP, carryTCP, carryFragments}[i%3]
	} else if (c == carryTCP || c == carryFragments) && i%2 == 0 {
		c = carryUDP
	}
	id := uint16(f.r.Uint32())
	name := wire.AppendName(nil, fmt.Sprintf("%s%06d.example", goodPrefix, i))
	qtype := uint16(wire.TypeA)
	if c == carryFragments { // large enough for three fragments
		qtype = wire.TypeTXT
	}
	var query, response wire.Msg
	query.Begin(id, flagRD, name, qtype)
	response.Begin(id, flagQR|flagRD|flagRA, name, qtype)
	response.Pointer(wire.QnameAt)
	response.RR(wire.Answer, qtype, 300)
	if qtype == wire.TypeTXT {
		for range 3 {
			response.Text(fmt.Sprintf("%0200d", i))
		}
	} else {
		response.U32(0xcb007100 | uint32(i&0xff))
	}
	response.End()

	// From start on nothing happens for up to half a tooth, and it is over within another 4 ms.
	start := f.now
	if (start-startNs)%toothNs > toothNs/2 {
		start += toothNs/2 + 1
	}
	delay := 50_000 + f.r.Int64N(3*msNs)
	server := serverFor(client)
	if c == carryTCP {
		f.goodTCP(start, delay, client, server, port, query.B, response.B)
		return
	}
	f.frame = wire.AppendUDPFrame(f.frame[:0], client, server, port, 53, query.B, f.id(), true)
	f.pushGood(start, c, i, f.frame)
	if c == carryFragments {
		f.payload = wire.AppendUDP(f.payload[:0], server, client, 53, port, response.B, true)
		order := f.r.Perm(3)
		id := uint32(f.id())
		for at, k := range order {
			lo, hi := k*232, min((k+1)*232, len(f.payload))
			f.frame = appendFragment(f.frame[:0], server, client, id, lo, k < 2, f.payload[lo:hi])
			f.pushGood(start+delay+int64(at)*10_000, carryUDP, i, f.frame)
		}
		return
	}
	f.frame = wire.AppendUDPFrame(f.frame[:0], server, client, 53, port, response.B, f.id(), true)
	f.pushGood(start+delay, c, i, f.frame)
}

// pushGood queues one packet of the i-th good lookup.
func (f *flood) pushGood(ns int64, c carry, i int, frame []byte) {
	f.goodPackets++
	b := f.queue.Buffer()
	switch {
	case c == carryVLAN && i%3 > 0:
		b = appendVLANs(b, frame, i%3)
	case c == carryTunnel && i%3 == 1:
		b = wire.AppendVXLAN(b, &tunnels[0], &tunnels[1], 50000, 7, f.id(), frame)
	case c == carryTunnel && i%3 == 2:
		b = wire.AppendEthernet(b, &tunnels[0], &tunnels[1])
		b = wire.AppendIPv4(b, &tunnels[0], &tunnels[1], wire.ProtoGRE, f.id(), 0, 4+len(frame)-14)
		b = append(b, 0, 0, frame[12], frame[13]) // RFC 2784 §2.1
		b = append(b, frame[14:]...)
	default:
		b = append(b, frame...)
	}
	f.queue.Push(ns, b)
}

// goodTCP queues a connection with one lookup in it.
func (f *flood) goodTCP(start, delay int64, client, server *wire.Host, port uint16, query, response []byte) {
	c := wire.Conn{Ends: [2]*wire.Host{client, server}, Ports: [2]uint16{port, 53}, Seq: [2]uint32{f.r.Uint32(), f.r.Uint32()}}
	send := func(ns int64, side int, flags byte, payload []byte) {
		f.frame = c.AppendFrame(f.frame[:0], side, flags, payload, f.id())
		f.pushGood(ns, carryUDP, 0, f.frame)
	}
	framed := func(msg []byte) []byte {
		f.payload = binary.BigEndian.AppendUint16(f.payload[:0], uint16(len(msg)))
		f.payload = append(f.payload, msg...)
		return f.payload
	}
	send(start, wire.Client, wire.SYN, nil)
	send(start+10_000, wire.Server, wire.SYN|wire.ACK, nil)
	send(start+20_000, wire.Client, wire.ACK, nil)
	send(start+30_000, wire.Client, wire.PSH|wire.ACK, framed(query))
	start += delay
	send(start, wire.Server, wire.PSH|wire.ACK, framed(response))
	send(start+10_000, wire.Client, wire.FIN|wire.ACK, nil)
	send(start+20_000, wire.Server, wire.FIN|wire.ACK, nil)
	send(start+30_000, wire.Client, wire.ACK, nil)
}

// appendFragment adds a frame with one fragment of UDP. offset is in bytes, a multiple of 8 (RFC 791 §3.1, RFC 8200 §4.5).
func appendFragment(dst []byte, from, to *wire.Host, id uint32, offset int, more bool, data []byte) []byte {
	dst = wire.AppendEthernet(dst, from, to)
	if !from.V6 {
		field := uint16(offset / 8)
		if more {
			field |= 0x2000
		}
		return append(wire.AppendIPv4(dst, from, to, wire.ProtoUDP, uint16(id), field, len(data)), data...)
	}
	dst = wire.AppendIP(dst, from, to, wire.ProtoFragment, 0, 8+len(data))
	field := uint16(offset)
	if more {
		field |= 1
	}
	dst = append(dst, wire.ProtoUDP, 0, byte(field>>8), byte(field))
	dst = binary.BigEndian.AppendUint32(dst, id)
	return append(dst, data...)
}

// appendVLANs adds a copy of frame with n tags: 802.1ad outside, 802.1Q inside.
func appendVLANs(dst, frame []byte, n int) []byte {
	dst = append(dst, frame[:12]...)
	for i := range n {
		if i < n-1 {
			dst = append(dst, 0x88, 0xa8)
		} else {
			dst = append(dst, 0x81, 0x00)
		}
		dst = append(dst, byte(i>>8), byte(i))
	}
	return append(dst, frame[12:]...)
}

// clockBack jumps back by an hour at the end of each tooth; every other tooth runs backwards.
func clockBack(ns int64) uint64 {
	tooth, at := (ns-startNs)/toothNs, (ns-startNs)%toothNs
	at /= 1000
	if tooth%2 == 1 {
		at = toothNs/1000 - at
	}
	return uint64(startNs/1000 - tooth%8*3600*1_000_000 + at)
}

// clockJump goes through the years.
func clockJump(ns int64) uint64 {
	tooth, at := (ns-startNs)/toothNs, (ns-startNs)%toothNs
	seconds := [...]int64{
		946684800,     // 2000
		startNs / 1e9, // 2025
		1<<31 - 1,     // 2038: 31 bits end in 1 s
		1<<32 - 2,     // 2106: 32 bits end in 2 s
		0,
	}
	return uint64(seconds[tooth%5]*1_000_000 + at/1000)
}

// clock2262 goes over the limits of 63 bits of ns and of 64 bits of µs.
func clock2262(ns int64) uint64 {
	tooth, at := (ns-startNs)/toothNs, uint64((ns-startNs)%toothNs)/1000
	const end63 = (1<<63 - 1) / 1000
	switch tooth % 6 {
	case 0:
		return uint64(startNs)/1000 + at
	case 1:
		return end63 - 2*uint64(toothNs)/1000 + at
	case 2: // the limit falls into this tooth
		return end63 - uint64(toothNs)/2000 + at
	case 3:
		return end63 + 1 + at
	case 4:
		return 253402300800*1_000_000 - uint64(toothNs)/2000 + at // year 10000
	}
	return 1<<64 - 1 - uint64(toothNs)/1000 + at
}
