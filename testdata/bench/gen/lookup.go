// This file: one lookup. What enters: its start time and how many packets are left. What leaves: its packets in the
// queue and its share of the truth. Random numbers choose the client, the name, the fate and the times; what a name
// resolves to follows from the name alone, so that the same question gets the same RRs.
package main

import (
	"encoding/binary"
	"math"
	"math/rand/v2"

	"gopassivedns/testdata/bench/truth"
	"gopassivedns/testdata/bench/wire"
)

const (
	clientCount   = 20_000
	resolverCount = 3 // of each address family
	msNs          = int64(1e6)
)

// client is an end with its port and ID sequence.
type client struct {
	wire.Host
	used    uint32 // lookups over UDP so far
	usedTCP uint16
	rttNs   int64
}

// response codes and header flags, RFC 1035 §4.1.1 and RFC 4035 §3.2.
const (
	noError  = 0
	servFail = 2
	nxDomain = 3
	refused  = 5

	flagQR = 0x8000
	flagRD = 0x0100
	flagRA = 0x0080
	flagAD = 0x0020
	flagCD = 0x0010
)

// question is what is asked, and how.
type question struct {
	id     uint16
	qtype  uint16
	rank   int // of the name
	zone   int // offset of the zone's name within the message
	edns   bool
	do     bool
	cd     bool
	cookie bool
	ecs    bool
	size   uint16
}

type generator struct {
	options
	r         *rand.Rand
	tick      func(int64) int64
	names     *names
	clients   []client
	resolvers []wire.Host // v4 first, then v6
	tunnel    [2]wire.Host
	queue     wire.Queue
	scheduled int // packets written or in the queue
	truth     *truth.Counts

	// Used again by every lookup.
	qname   []byte
	query   wire.Msg
	resp    wire.Msg
	answers []string // types
	framed  []byte   // a message with TCP's length in front
	inner   []byte
	ipID    uint16
}

func newGenerator(o options, r *rand.Rand, tick func(int64) int64) *generator {
	g := &generator{options: o, r: r, tick: tick, names: buildNames(r), truth: truth.New()}
	for i := range clientCount {
		c := client{rttNs: 200_000 + r.Int64N(5*msNs), usedTCP: uint16(i) * 3}
		c.MAC = [6]byte{0x02, 0x10, 0, byte(i >> 16), byte(i >> 8), byte(i)}
		if i%20 < 3 { // 15 %
			c.V6 = true
			copy(c.Addr[:], []byte{0x20, 0x01, 0x0d, 0xb8, 0x00, 0x10})
			binary.BigEndian.PutUint16(c.Addr[6:], uint16(i))
			binary.BigEndian.PutUint64(c.Addr[8:], r.Uint64())
		} else {
			binary.BigEndian.PutUint32(c.Addr[:], 0x0a000000|uint32(i/200)<<8|uint32(i%200+20))
		}
		g.clients = append(g.clients, c)
	}
	for i := range 2 * resolverCount {
		h := wire.Host{MAC: [6]byte{0x02, 0x53, 0, 0, 0, byte(i)}}
		if i < resolverCount {
			copy(h.Addr[:], []byte{192, 0, 2, byte(53 + i)})
		} else {
			h.V6 = true
			copy(h.Addr[:], []byte{0x20, 0x01, 0x0d, 0xb8, 0, 0x53})
			h.Addr[15] = byte(0x53 + i)
		}
		g.resolvers = append(g.resolvers, h)
	}
	for i := range g.tunnel {
		g.tunnel[i].MAC = [6]byte{0x02, 0xee, 0, 0, 0, byte(i)}
		copy(g.tunnel[i].Addr[:], []byte{172, 16, 0, byte(1 + i)})
	}
	return g
}

// drain writes what is due.
func (g *generator) drain(until int64, w *wire.Pcap) error {
	for {
		ns, frame, ok := g.queue.Next(until)
		if !ok {
			return nil
		}
		g.truth.Packets++
		g.truth.Bytes += int64(len(frame))
		if err := w.Packet(ns, frame); err != nil {
			return err
		}
	}
}

// mix is a bijection of the 32-bit numbers: odd multipliers and xor-shifts, each of which can be undone.
func mix(x uint32) uint32 {
	x ^= x >> 16
	x *= 0x7feb352d
	x ^= x >> 15
	x *= 0x846ca68b
	return x ^ x>>16
}

// portAndID gives a client's next port and ID: a walk through all pairs in a mixed order, so that none comes twice.
func (c *client) portAndID() (port, id uint16) {
	for {
		x := mix(c.used + uint32(c.MAC[4])<<24 + uint32(c.MAC[5])<<16)
		c.used++
		if x>>16 >= 1024 {
			return uint16(x >> 16), uint16(x)
		}
	}
}

// tcpPort walks through all ports from 1024 on; 25,439 and 64,512 have no common divisor.
func (c *client) tcpPort() uint16 {
	c.usedTCP++
	return uint16(1024 + uint32(c.usedTCP)*25439%64512)
}

// fate is what becomes of a lookup.
type fate struct {
	status string
	rcode  uint16
}

func (g *generator) fate() fate {
	switch k := g.r.IntN(10_000); {
	case k < 1500:
		return fate{"nxdomain", nxDomain}
	case k < 2300:
		return fate{"nodata", noError}
	case k < 2400:
		return fate{"unanswered", noError}
	case k < 2500:
		return fate{"error", servFail}
	case k < 2530:
		return fate{"error", refused}
	case k < 2550:
		return fate{"referral", noError}
	case k < 2555:
		return fate{"unsolicited", noError}
	}
	return fate{"answer", noError}
}

// qtypes in percent times ten, about what a resolver of clients sees.
var qtypes = []struct{ share, qtype int }{
	{550, wire.TypeA}, {220, wire.TypeAAAA}, {80, wire.TypeHTTPS}, {45, wire.TypePTR}, {25, wire.TypeTXT},
	{15, wire.TypeMX}, {15, wire.TypeSRV}, {12, wire.TypeDS}, {10, wire.TypeNS}, {9, wire.TypeSOA},
	{7, wire.TypeDNSKEY}, {6, wire.TypeCAA}, {6, wire.TypeCNAME},
}

func (g *generator) qtype() uint16 {
	k := g.r.IntN(1000)
	for _, q := range qtypes {
		if k -= q.share; k < 0 {
			return uint16(q.qtype)
		}
	}
	panic("BUG: shares do not add up to 1000")
}

// delay is the time from query to response: the cache, or the world.
func (g *generator) delay() int64 {
	if g.r.IntN(10) < 7 {
		return 50_000 + g.r.Int64N(250_000)
	}
	ns := 20e6 * math.Exp(1.1*g.r.NormFloat64())
	return int64(min(max(ns, 1e6), 2e9))
}

// lookup makes one lookup that starts at now and takes at most left packets.
func (g *generator) lookup(now int64, left int) {
	u := g.r.Float64()
	c := &g.clients[int(clientCount*u*u)] // a few clients ask much, most ask little
	s := &g.resolvers[g.r.IntN(resolverCount)]
	if c.V6 {
		s = &g.resolvers[resolverCount+g.r.IntN(resolverCount)]
	}
	f := g.fate()
	tcp := g.r.Float64() < g.tcp && f.status != "unsolicited" && left >= 12
	var port uint16
	q := question{qtype: g.qtype(), rank: g.names.draw(g.r)}
	if tcp {
		port, q.id = c.tcpPort(), uint16(g.r.Uint32())
	} else {
		port, q.id = c.portAndID()
	}
	if left < 2 {
		f = fate{"unanswered", noError}
	}
	g.nameFor(&q, f)
	g.buildQuery(&q, c)
	g.buildResponse(&q, f, c)
	if f.status == "unanswered" {
		g.answers = g.answers[:0]
	}
	g.truth.Add(f.status, tcp, g.answers)
	if f.status != "unanswered" {
		g.truth.Messages++
		g.truth.ResponseBytes += int64(len(g.resp.B))
	}
	if f.status != "unsolicited" {
		g.truth.Messages++
		g.truth.QueryBytes += int64(len(g.query.B))
	}
	if tcp {
		g.sendTCP(now, c, s, port, f.status != "unanswered")
	} else {
		g.sendUDP(now, c, s, port, f.status, left)
	}
}

// sendUDP sends query and response; one query in 200 once more before its response.
func (g *generator) sendUDP(now int64, c *client, s *wire.Host, port uint16, status string, left int) {
	again := g.r.IntN(1000)
	sum := g.r.IntN(20) > 0
	delay := g.delay()
	if status == "unsolicited" {
		g.udp(now+delay, s, &c.Host, 53, port, g.resp.B, sum)
		return
	}
	g.udp(now, &c.Host, s, port, 53, g.query.B, sum)
	if (again < 4 || status == "unanswered" && again < 150) && left >= 4 {
		g.truth.Retried++
		g.truth.Messages++
		wait := 400*msNs + g.r.Int64N(400*msNs)
		g.udp(now+wait, &c.Host, s, port, 53, g.query.B, sum)
		delay = wait + 50_000 + g.r.Int64N(900*msNs)
	}
	if status == "unanswered" {
		return
	}
	g.udp(now+delay, s, &c.Host, 53, port, g.resp.B, sum)
	g.truth.ElapsedNs += g.tick(now+delay) - g.tick(now)
	if again == 0 && left >= 4 { // both attempts are answered
		g.truth.Repeated++
		g.truth.Messages++
		g.udp(now+delay+20_000+g.r.Int64N(50*msNs), s, &c.Host, 53, port, g.resp.B, sum)
	}
}

func (g *generator) udp(ns int64, from, to *wire.Host, sport, dport uint16, msg []byte, sum bool) {
	g.ipID++
	g.inner = wire.AppendUDPFrame(g.inner[:0], from, to, sport, dport, msg, g.ipID, sum)
	g.push(ns, sport^dport)
}

// push queues the frame in g.inner, wrapped if asked for. hash is the outer source port's entropy (RFC 7348 §5).
func (g *generator) push(ns int64, hash uint16) {
	g.scheduled++
	b := g.queue.Buffer()
	if g.vxlan {
		b = wire.AppendVXLAN(b, &g.tunnel[0], &g.tunnel[1], hash|0xc000, 100, g.ipID, g.inner)
	} else {
		b = append(b, g.inner...)
	}
	g.queue.Push(ns, b)
}

// segment sends from one side of a connection.
func (g *generator) segment(ns int64, c *wire.Conn, side int, flags byte, payload []byte) {
	g.ipID++
	g.inner = c.AppendFrame(g.inner[:0], side, flags, payload, g.ipID)
	g.push(ns, c.Ports[0]^c.Ports[1])
}

func (g *generator) frameTCP(msg []byte) []byte {
	g.framed = append(g.framed[:0], byte(len(msg)>>8), byte(len(msg)))
	g.framed = append(g.framed, msg...)
	return g.framed
}

// sendTCP sends a connection of its own for the lookup: handshake, query in one segment, response in one or two,
// FIN both ways; 10 or 12 packets, or 9 without a response.
func (g *generator) sendTCP(now int64, cl *client, s *wire.Host, port uint16, answered bool) {
	const client, server = wire.Client, wire.Server
	c := wire.Conn{Ends: [2]*wire.Host{&cl.Host, s}, Ports: [2]uint16{port, 53}, Seq: [2]uint32{g.r.Uint32(), g.r.Uint32()}}
	const turn = 20_000 // from a segment's arrival to the reply's departure, ns; the tap is at the server
	t := now
	g.segment(t, &c, client, wire.SYN, nil)
	g.segment(t+turn, &c, server, wire.SYN|wire.ACK, nil)
	t += turn + cl.rttNs
	g.segment(t, &c, client, wire.ACK, nil)
	t += turn
	asked := t
	g.segment(t, &c, client, wire.PSH|wire.ACK, g.frameTCP(g.query.B))
	g.segment(t+turn/2, &c, server, wire.ACK, nil)
	if answered {
		msg := g.frameTCP(g.resp.B)
		t += g.delay()
		if g.r.IntN(5) < 2 { // the cut may fall into the length too
			cut := 1 + g.r.IntN(len(msg)-1)
			if g.r.IntN(4) == 0 {
				cut = 1 + g.r.IntN(2)
			}
			g.segment(t, &c, server, wire.ACK, msg[:cut])
			t += 5_000 + g.r.Int64N(msNs)
			msg = msg[cut:]
		}
		g.segment(t, &c, server, wire.PSH|wire.ACK, msg)
		g.truth.ElapsedNs += g.tick(t) - g.tick(asked)
	} else {
		t += 500 * msNs
	}
	t += cl.rttNs
	g.segment(t, &c, client, wire.ACK, nil)
	g.segment(t+turn, &c, client, wire.FIN|wire.ACK, nil)
	g.segment(t+2*turn, &c, server, wire.FIN|wire.ACK, nil)
	g.segment(t+2*turn+cl.rttNs, &c, client, wire.ACK, nil)
}
