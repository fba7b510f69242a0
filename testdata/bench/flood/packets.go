// This file: floods below UDP and TCP, in fragments, tags and tunnels.
package main

import (
	"gopassivedns/testdata/bench/wire"
)

// train returns a datagram to be cut: a response with size bytes of TXT, valid until the next call.
func (f *flood) train(client *wire.Host, size int) []byte {
	m := &f.msg
	m.Begin(uint16(f.r.Uint32()), flagQR|flagRD|flagRA, f.randomName(), wire.TypeTXT)
	m.Pointer(wire.QnameAt)
	m.RR(wire.Answer, wire.TypeTXT, 1)
	for len(m.B) < size {
		m.Text("a piece of a train that nobody waits for")
	}
	m.End()
	f.truth.Units["trains"]++
	f.payload = wire.AppendUDP(f.payload[:0], serverFor(client), client, 53, f.port(), m.B, true)
	return f.payload
}

// fragment pushes the bytes from lo to hi of a datagram as the at-th packet of this step.
func (f *flood) fragment(at int, client *wire.Host, id uint32, datagram []byte, lo, hi int) {
	hi = min(hi, len(datagram))
	f.frame = appendFragment(f.frame[:0], serverFor(client), client, id, lo, hi < len(datagram), datagram[lo:hi])
	f.push(at, f.frame)
}

// overlapping sends trains whose parts overlap by some bytes, contain each other, or come twice with other contents.
func overlapping(f *flood) {
	client, id := f.stranger(), f.r.Uint32()
	d := f.train(client, 1200)
	switch f.r.IntN(3) {
	case 0:
		f.fragment(0, client, id, d, 0, 640)
		f.fragment(1, client, id, d, 320, 960)
		f.fragment(2, client, id, d, 800, len(d))
	case 1:
		f.fragment(0, client, id, d, 640, len(d))
		f.fragment(1, client, id, d, 0, 960)
		f.fragment(2, client, id, d, 320, 480)
	default:
		f.fragment(0, client, id, d, 0, 640)
		d[100] ^= 0xff
		f.fragment(1, client, id, d, 0, 640)
		f.fragment(2, client, id, d, 640, len(d))
	}
}

// tiny cuts 1,000 bytes into fragments of 8; every other train lacks the last.
func tiny(f *flood) {
	f.step++
	client, id := f.stranger(), f.r.Uint32()
	d := f.train(client, 1000)
	end := len(d)
	if f.step%2 == 0 {
		end -= 8
	}
	for lo, at := 0, 0; lo < end; lo, at = lo+8, at+1 {
		f.fragment(at, client, id, d, lo, lo+8)
	}
}

// incomplete leaves out the first, the middle or the last of three fragments.
func incomplete(f *flood) {
	client, id := f.stranger(), f.r.Uint32()
	d := f.train(client, 1200)
	missing := f.r.IntN(3)
	at := 0
	for k := range 3 {
		if k == missing {
			continue
		}
		f.fragment(at, client, id, d, k*416, k*416+416+k/2*1000)
		at++
	}
}

// mixedPackets is the number of packets of a half-open connection and an incomplete train together.
const mixedPackets = 3

// mixed takes turns: one connection of which only a SYN is seen, one train that lacks a fragment.
func mixed(f *flood) {
	c := f.connect()
	f.segment(0, &c, wire.Client, wire.SYN, nil)
	incomplete(f)
}

// query sets f.frame to a frame with a query of a stranger over IPv4.
func (f *flood) query() {
	client := f.stranger()
	for client.V6 {
		client = f.stranger()
	}
	f.msg.Begin(uint16(f.r.Uint32()), flagRD, f.randomName(), wire.TypeA)
	f.frame = wire.AppendUDPFrame(f.frame[:0], client, &server4, f.port(), 53, f.msg.B, f.id(), true)
}

// nestedVLAN sends a query under 3 to 300 tags; every fourth frame ends within the tags.
func nestedVLAN(f *flood) {
	f.step++
	f.query()
	f.payload = appendVLANs(f.payload[:0], f.frame, 3+f.r.IntN(298))
	if f.step%4 == 0 {
		f.payload = f.payload[:14+f.r.IntN(len(f.payload)/2)]
	}
	f.truth.Units["frames"]++
	f.push(0, f.payload)
}

// nestedTunnel sends a query in 3 to 25 tunnels of mixed kinds.
func nestedTunnel(f *flood) {
	f.query()
	inner := append([]byte(nil), f.frame...)
	for range 3 + f.r.IntN(23) {
		var b []byte
		from, to := &tunnels[0], &tunnels[1]
		ip := inner[14:]
		switch f.r.IntN(3) {
		case 0:
			b = wire.AppendEthernet(b, from, to)
			b = wire.AppendIPv4(b, from, to, wire.ProtoIPIP, f.id(), 0, len(ip))
			b = append(b, ip...)
		case 1:
			b = wire.AppendEthernet(b, from, to)
			b = wire.AppendIPv4(b, from, to, wire.ProtoGRE, f.id(), 0, 4+len(ip))
			b = append(b, 0, 0, 8, 0)
			b = append(b, ip...)
		default:
			b = wire.AppendVXLAN(b, from, to, 50000, 9, f.id(), inner)
		}
		inner = b
	}
	f.truth.Units["frames"]++
	f.push(0, inner)
}
