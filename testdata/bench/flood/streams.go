// This file: floods over TCP.
package main

import (
	"encoding/binary"

	"gopassivedns/testdata/bench/wire"
)

// connect returns a new connection of a stranger; nothing is sent yet.
func (f *flood) connect() wire.Conn {
	client := f.stranger()
	f.truth.Units["connections"]++
	return wire.Conn{
		Ends: [2]*wire.Host{client, serverFor(client)}, Ports: [2]uint16{f.port(), 53},
		Seq: [2]uint32{f.r.Uint32(), f.r.Uint32()},
	}
}

// segment pushes the next segment of one side as the at-th packet of this step.
func (f *flood) segment(at int, c *wire.Conn, side int, flags byte, payload []byte) {
	f.frame = c.AppendFrame(f.frame[:0], side, flags, payload, f.id())
	f.push(at, f.frame)
}

// handshake pushes the first three packets.
func (f *flood) handshake(c *wire.Conn) {
	f.segment(0, c, wire.Client, wire.SYN, nil)
	f.segment(1, c, wire.Server, wire.SYN|wire.ACK, nil)
	f.segment(2, c, wire.Client, wire.ACK, nil)
}

// halfOpen sends a SYN; every fourth client also sends the first byte of a length, every eighth half a query.
func halfOpen(f *flood) {
	f.step++
	c := f.connect()
	f.segment(0, &c, wire.Client, wire.SYN, nil)
	if f.step%4 > 0 {
		return
	}
	c.Seq[wire.Server]++ // as if the server had answered where this tap does not see it
	f.msg.Begin(uint16(f.r.Uint32()), flagRD, f.randomName(), wire.TypeA)
	n := uint16(len(f.msg.B))
	f.payload = append(binary.BigEndian.AppendUint16(f.payload[:0], n), f.msg.B...)
	part := f.payload[:1]
	if f.step%8 == 0 {
		part = f.payload[:2+n/2]
	}
	f.segment(1, &c, wire.Client, wire.PSH|wire.ACK, part)
}

// largeTXT asks for TXT over TCP and gets 65,535 bytes of it.
func largeTXT(f *flood) {
	f.step++
	c := f.connect()
	id := uint16(f.r.Uint32())
	f.handshake(&c)
	at := 3
	send := func(side int, msg []byte) {
		f.payload = append(binary.BigEndian.AppendUint16(f.payload[:0], uint16(len(msg))), msg...)
		for rest := f.payload; len(rest) > 0; at++ {
			n := min(1448, len(rest))
			f.segment(at, &c, side, wire.ACK, rest[:n])
			rest = rest[n:]
		}
	}
	m := &f.msg
	m.Begin(id, flagRD, f.randomName(), wire.TypeTXT)
	send(wire.Client, m.B)
	m.Begin(id, flagQR|flagRD|flagRA, f.name, wire.TypeTXT)
	const end = 65535
	fill := func(to, size int, value byte) { // one RR of strings of that size
		m.Pointer(wire.QnameAt)
		m.RR(wire.Answer, wire.TypeTXT, 300)
		for len(m.B)+1+size <= to {
			m.B = append(m.B, byte(size))
			for range size {
				m.B = append(m.B, value)
			}
		}
		m.End()
	}
	switch f.step % 4 {
	case 0: // strings of 255 bytes of text
		fill(end, 255, 'x')
	case 1: // every byte needs an escape, and the escape an escape
		fill(end, 255, 0)
	case 2: // empty strings
		fill(end, 0, 0)
	default: // 2,300 RRs
		for len(m.B)+28 <= end {
			fill(len(m.B)+28, 15, '"')
		}
	}
	send(wire.Server, m.B)
	f.segment(at, &c, wire.Client, wire.FIN|wire.ACK, nil)
	f.segment(at+1, &c, wire.Server, wire.FIN|wire.ACK, nil)
	f.segment(at+2, &c, wire.Client, wire.ACK, nil)
}

// turn gives the connection whose turn it is among count of them that live side by side; new says that it has just
// been opened.
func (f *flood) turn(count int) (c *wire.Conn, opened bool) {
	f.conn++
	if len(f.conns) < count {
		f.conns = append(f.conns, f.connect())
		f.conn = len(f.conns) - 1
		f.handshake(&f.conns[f.conn])
		return &f.conns[f.conn], true
	}
	f.conn %= count
	return &f.conns[f.conn], false
}

// oneByte sends messages one byte a segment, a query of 40 bytes over and over, on 1,000 connections in turn. Every
// fourth claims 65,535 bytes first.
func oneByte(f *flood) {
	c, opened := f.turn(1000)
	if opened {
		f.payload = append(f.payload[:0], 0xff)
		if f.conn%4 > 0 {
			f.payload[0] = 0
		}
		f.segment(3, c, wire.Client, wire.PSH|wire.ACK, f.payload)
		return
	}
	f.msg.Begin(uint16(f.conn), flagRD, wire.AppendName(nil, "one-byte-at-a-time.example"), wire.TypeA)
	query := append([]byte{0, byte(len(f.msg.B))}, f.msg.B...)
	round := f.step/1000 + 1
	f.step++
	f.segment(0, c, wire.Client, wire.PSH|wire.ACK, query[round%len(query):][:1])
}

// neverEnding keeps 64 connections full of lengths that promise 65,535 bytes: a header that looks right with zeros
// behind it, a header that claims everything, or junk.
func neverEnding(f *flood) {
	c, opened := f.turn(64)
	if opened {
		return
	}
	b := f.payload[:0]
	switch f.conn % 3 {
	case 0:
		b = append(b, 0xff, 0xff, byte(f.step>>8), byte(f.step), 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0)
		b = append(b, make([]byte, 1448-len(b))...)
	case 1:
		b = append(b, 0xff, 0xff, byte(f.step>>8), byte(f.step), 0x01, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
		for len(b) < 1448 {
			b = append(b, 1, 'x')
		}
	default:
		for len(b) < 1448 {
			b = binary.BigEndian.AppendUint64(b, f.r.Uint64())
		}
	}
	f.step++
	f.payload = b
	f.segment(0, c, f.conn/3%2, wire.ACK, b)
}
