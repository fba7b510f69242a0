// This file: floods of messages over UDP.
package main

import (
	"encoding/binary"

	"gopassivedns/testdata/bench/wire"
)

// udp pushes the message as the next hostile packet. fromServer says who sends.
func (f *flood) udp(client *wire.Host, port uint16, fromServer bool, msg []byte) {
	server := serverFor(client)
	if fromServer {
		f.frame = wire.AppendUDPFrame(f.frame[:0], server, client, 53, port, msg, f.id(), true)
	} else {
		f.frame = wire.AppendUDPFrame(f.frame[:0], client, server, port, 53, msg, f.id(), true)
	}
	f.truth.Units["messages"]++
	f.push(0, f.frame)
}

func spoofedQuery(f *flood) {
	f.msg.Begin(uint16(f.r.Uint32()), flagRD, f.randomName(), wire.TypeA)
	f.udp(f.stranger(), f.port(), false, f.msg.B)
}

// longQuery asks for a name of 255 bytes, which is as long as names are (RFC 1035 §2.3.4), so that what is kept of each
// query is as much as it can be.
func longQuery(f *flood) {
	b := f.name[:0]
	for _, n := range []int{63, 63, 63, 61} {
		b = append(b, byte(n))
		for range n {
			b = append(b, 'a'+byte(f.r.IntN(26)))
		}
	}
	f.name = append(b, 0)
	f.msg.Begin(uint16(f.r.Uint32()), flagRD, f.name, wire.TypeA)
	f.udp(f.stranger(), f.port(), false, f.msg.B)
}

// sameKey sends queries that differ in nothing but the name, so that they meet in one place of a table.
func sameKey(f *flood) {
	client := &wire.Host{Addr: [16]byte{11, 1, 2, 3}, MAC: [6]byte{2, 0x66, 0, 0, 0, 1}}
	f.msg.Begin(4711, flagRD, f.randomName(), wire.TypeA)
	f.udp(client, 5353, false, f.msg.B)
}

// everything takes turns, so that all tables are full at once.
func everything(f *flood) {
	f.turns++
	switch f.turns % 10 {
	case 0:
		halfOpen(f)
	case 1:
		neverEnding(f)
	case 2:
		incomplete(f)
	case 3, 4:
		unsolicited(f)
	case 5:
		longNames(f)
	case 6, 7:
		longQuery(f)
	default:
		spoofedQuery(f)
	}
}

func unsolicited(f *flood) {
	m := &f.msg
	m.Begin(uint16(f.r.Uint32()), flagQR|flagRD|flagRA, f.randomName(), wire.TypeA)
	m.Pointer(wire.QnameAt)
	m.RR(wire.Answer, wire.TypeA, 300)
	m.U32(f.r.Uint32())
	m.End()
	f.udp(f.stranger(), f.port(), true, m.B)
}

// asked pushes the query that the response in f.msg is to answer, for every other one: an answered bomb goes further
// than an unsolicited one.
func (f *flood) asked(client *wire.Host, port uint16, qtype uint16) {
	if f.step++; f.step%2 == 0 {
		return
	}
	var q wire.Msg
	q.Begin(binary.BigEndian.Uint16(f.msg.B), flagRD, f.name, qtype)
	f.udp(client, port, false, q.B)
}

// datagram is how far a message may be filled without fragments.
const datagram = 1400

func pointerBomb(f *flood) {
	m := &f.msg
	m.Begin(uint16(f.r.Uint32()), flagQR|flagRD|flagRA, f.randomName(), wire.TypeNS)
	client, port := f.stranger(), f.port()
	f.asked(client, port, wire.TypeNS)
	switch f.r.IntN(5) {
	case 0: // to itself, and two that point to each other
		m.Pointer(len(m.B))
		m.RR(wire.Answer, wire.TypeNS, 1)
		m.Pointer(len(m.B) + 2)
		m.Pointer(len(m.B) - 2)
		m.End()
	case 1: // forward, to the end, behind the end
		for _, at := range []int{len(m.B) + 200, datagram, 0x3fff} {
			m.Pointer(wire.QnameAt)
			m.RR(wire.Answer, wire.TypeNS, 1)
			m.Pointer(at)
			m.End()
		}
	case 2: // a chain of 500 pointers, each to the one before, and RRs whose names start at its end
		at := f.pointerChain(wire.QnameAt, 500)
		for len(m.B) < datagram {
			m.Pointer(at)
			m.RR(wire.Answer, wire.TypeNS, 1)
			m.Pointer(at)
			m.End()
		}
	case 3: // a label and a pointer to the label before it: 120 labels over 120 hops, many times
		at := wire.QnameAt
		m.Pointer(wire.QnameAt)
		m.RR(wire.Answer, wire.TypeTXT, 1)
		for range 120 {
			at = m.LabelPointer("x", at)
		}
		m.End()
		for len(m.B) < datagram {
			m.Pointer(at)
			m.RR(wire.Answer, wire.TypeNS, 1)
			m.Pointer(at)
			m.End()
		}
	default: // a loop with a label in it, which grows without a bound
		at := len(m.B)
		m.LabelPointer("loop", at)
		m.RR(wire.Answer, wire.TypeNS, 1)
		m.LabelPointer("loop", at)
		m.End()
	}
	f.udp(client, port, true, m.B)
}

// pointerChain adds a TXT RR that holds n pointers, each to the one before, the first to at; it returns the last's
// offset.
func (f *flood) pointerChain(at, n int) int {
	m := &f.msg
	m.Pointer(wire.QnameAt)
	m.RR(wire.Answer, wire.TypeTXT, 1)
	for range n {
		next := len(m.B)
		m.Pointer(at)
		at = next
	}
	m.End()
	return at
}

func rrCounts(f *flood) {
	m := &f.msg
	m.Begin(uint16(f.r.Uint32()), flagQR|flagRD|flagRA, f.randomName(), wire.TypeA)
	client, port := f.stranger(), f.port()
	f.asked(client, port, wire.TypeA)
	variant := f.r.IntN(4)
	switch variant {
	case 1, 2: // full of RRs of 11 bytes, the root's, without RDATA
		for len(m.B) < datagram {
			m.B = append(m.B, 0)
			m.RR(wire.Answer, uint16(wire.TypeA), 1)
			m.End()
		}
	case 3: // full of questions of 5 bytes
		for len(m.B) < datagram {
			m.B = append(m.B, 0, 0, 1, 0, 1)
		}
		binary.BigEndian.PutUint16(m.B[4:], 65535)
	}
	if variant != 2 {
		for _, s := range []wire.Section{wire.Answer, wire.Authority, wire.Additional} {
			binary.BigEndian.PutUint16(m.B[s:], 65535)
		}
	}
	f.udp(client, port, true, m.B)
}

func longNames(f *flood) {
	b := f.name[:0]
	for range 127 { // 127 labels of one byte and the root are 255 bytes, RFC 1035 §2.3.4
		b = append(b, 1, byte(f.r.IntN(256)))
	}
	f.name = append(b, 0)
	m := &f.msg
	m.Begin(uint16(f.r.Uint32()), flagQR|flagRD|flagRA, f.name, wire.TypeNS)
	client, port := f.stranger(), f.port()
	f.asked(client, port, wire.TypeNS)
	switch f.r.IntN(3) {
	case 0: // one RR
		m.Pointer(wire.QnameAt)
		m.RR(wire.Answer, wire.TypeNS, 1)
		m.Pointer(wire.QnameAt)
		m.End()
	case 1: // 80 RRs of 14 bytes, each of which becomes two names of 255 bytes
		for len(m.B) < datagram {
			m.Pointer(wire.QnameAt)
			m.RR(wire.Answer, wire.TypeNS, 1)
			m.Pointer(wire.QnameAt)
			m.End()
		}
	default: // one label too many
		m.LabelPointer("x", wire.QnameAt)
		m.RR(wire.Answer, wire.TypeNS, 1)
		m.LabelPointer("x", wire.QnameAt)
		m.End()
	}
	f.udp(client, port, true, m.B)
}

// noise sends random bytes, as a frame or in a datagram of port 53.
func noise(f *flood) {
	b := f.payload[:0]
	for range 1 + f.r.IntN(40) {
		b = binary.BigEndian.AppendUint64(b, f.r.Uint64())
	}
	f.payload = b
	if f.r.IntN(2) == 0 {
		f.udp(f.stranger(), f.port(), f.r.IntN(2) == 0, b)
		return
	}
	if len(b) >= 14 && f.r.IntN(2) == 0 {
		b[12], b[13] = 8, 0
	}
	f.truth.Units["frames"]++
	f.push(0, b)
}
