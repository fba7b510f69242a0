// This file: the query and the response of a lookup, as common resolvers write them.
package main

import (
	"encoding/binary"

	"gopassivedns/testdata/bench/wire"
)

// dice are drawn from the name and type alone (SplitMix64), so that the same question gets the same answer.
type dice uint64

func (d *dice) next() uint64 {
	*d += 0x9e3779b97f4a7c15
	x := uint64(*d)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (d *dice) n(n int) int { return int(d.next() % uint64(n)) }

// spread tells whether the name of this rank has a property that the share in percent of all lookups has. The golden
// ratio spreads the property evenly over the popular names, of which each weighs percents by itself.
func spread(rank, share int) bool {
	return uint32(rank)*0x9e3779b9 < uint32(share)*(1<<32/100)
}

// nameFor sets g.qname and where the zone begins in the message.
func (g *generator) nameFor(q *question, f fate) {
	full := g.names.wire(q.rank)
	zone := full[g.names.hosts[q.rank].zone:]
	b := g.qname[:0]
	switch {
	case q.qtype == wire.TypePTR:
		x := mix(uint32(q.rank))
		if q.rank%10 == 0 { // ip6.arpa, RFC 3596 §2.5
			for range 2 {
				for i := 28; i >= 0; i -= 4 {
					b = append(b, 1, hexDigits[x>>i&15])
				}
				x = mix(x)
			}
			b = wire.AppendName(b, "0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa")
			q.zone = wire.QnameAt + len(b) - len(".8.b.d.0.1.0.0.2.ip6.arpa.")
			break
		}
		for range 3 {
			b = appendDecimal(b, byte(x))
			x >>= 8
		}
		q.zone = wire.QnameAt + int(b[0]) + 1
		b = appendDecimal(b, byte(100+q.rank%100))
		b = wire.AppendName(b, "in-addr.arpa")
	case q.qtype == wire.TypeSRV:
		b = wire.AppendName(b, "_sip._tls")
		b = b[:len(b)-1]
		q.zone = wire.QnameAt + len(b)
		b = append(b, zone...)
	case q.qtype == wire.TypeA || q.qtype == wire.TypeAAAA || q.qtype == wire.TypeHTTPS || q.qtype == wire.TypeCNAME:
		if f.rcode == nxDomain && g.r.IntN(3) > 0 { // most names that do not exist are asked for once
			n := 7 + g.r.IntN(8)
			b = append(b, byte(n))
			x := g.r.Uint64()
			for range n {
				b = append(b, 'a'+byte(x%26))
				x /= 26
			}
			q.zone = wire.QnameAt + len(b)
			b = append(b, zone...)
			break
		}
		q.zone = wire.QnameAt + int(g.names.hosts[q.rank].zone)
		b = append(b, full...)
	default:
		q.zone = wire.QnameAt
		b = append(b, zone...)
	}
	if g.r.IntN(50) == 0 { // mixed case against forgery
		x := g.r.Uint64()
		for i := range b {
			if b[i] >= 'a' && b[i] <= 'z' {
				b[i] -= byte(x&1) << 5
				x = x>>1 | x<<63
			}
		}
	}
	g.qname = b
}

// appendDecimal adds a label with v in decimal.
func appendDecimal(b []byte, v byte) []byte {
	switch {
	case v >= 100:
		return append(b, 3, '0'+v/100, '0'+v/10%10, '0'+v%10)
	case v >= 10:
		return append(b, 2, '0'+v/10, '0'+v%10)
	}
	return append(b, 1, '0'+v)
}

var ednsSizes = []uint16{1232, 1232, 1232, 4096, 4096, 512, 1452, 1410}

func (g *generator) buildQuery(q *question, c *client) {
	k := g.r.Uint32()
	q.edns = k%100 < 70
	q.do = q.edns && k>>8%3 == 0
	q.cd = q.do && k>>16&15 == 0
	q.cookie = q.edns && k>>20&7 == 0
	q.ecs = q.edns && k>>23&63 == 0
	flags := uint16(flagRD)
	if q.cd {
		flags |= flagCD
	}
	if k>>29 == 0 {
		flags |= flagAD
	}
	m := &g.query
	m.Begin(q.id, flags, g.qname, q.qtype)
	if !q.edns {
		return
	}
	q.size = ednsSizes[k>>10&7]
	m.OPT(q.size, doBit(q.do))
	if q.ecs {
		g.ecs(m, c, 0)
	}
	if q.cookie {
		m.Option(10, c.Addr[:8])
	}
	m.End()
}

func doBit(do bool) uint16 {
	if do {
		return 0x8000
	}
	return 0
}

// ecs adds the client's /24 or /56, RFC 7871 §6.
func (g *generator) ecs(m *wire.Msg, c *client, scope byte) {
	var b [11]byte
	if c.V6 {
		copy(b[:], []byte{0, 2, 56, scope})
		m.Option(8, b[:4+copy(b[4:], c.Addr[:7])])
		return
	}
	copy(b[:], []byte{0, 1, 24, scope})
	m.Option(8, b[:4+copy(b[4:], c.Addr[:3])])
}

// buildResponse sets g.resp, and g.answers to the types of the answer RRs.
func (g *generator) buildResponse(q *question, f fate, c *client) {
	d := dice(uint64(q.rank)<<16 | uint64(q.qtype))
	g.answers = g.answers[:0]
	signed := spread(q.rank+7, 12) && f.rcode != servFail && f.rcode != refused
	flags := flagQR | flagRD | flagRA | f.rcode
	if q.cd {
		flags |= flagCD
	}
	if q.do && signed {
		flags |= flagAD
	}
	m := &g.resp
	m.Begin(q.id, flags, g.qname, q.qtype)
	sign := q.do && signed
	switch f.status {
	case "answer", "unsolicited", "unanswered":
		g.answer(q, &d, sign)
	case "nxdomain":
		if q.qtype == wire.TypeA && g.r.IntN(20) == 0 { // an alias whose target does not exist
			m.Pointer(wire.QnameAt)
			g.rr(wire.TypeCNAME, 300)
			m.LabelPointer("gone", q.zone)
			m.End()
		}
		g.soa(q, sign)
	case "nodata":
		g.soa(q, sign)
	case "referral":
		for i := range 2 + d.n(3) {
			m.Pointer(q.zone)
			m.RR(wire.Authority, wire.TypeNS, 172800)
			m.LabelPointer(nsLabels[i], q.zone)
			m.End()
		}
	}
	if !q.edns {
		return
	}
	m.OPT(1232, doBit(q.do))
	if q.ecs {
		g.ecs(m, c, 24)
	}
	if q.cookie { // client cookie and server cookie, RFC 7873 §4
		var b [24]byte
		copy(b[:], c.Addr[:8])
		binary.BigEndian.PutUint64(b[8:], d.next())
		binary.BigEndian.PutUint64(b[16:], d.next())
		m.Option(10, b[:])
	}
	if f.rcode == servFail { // RFC 8914: no reachable authority
		m.Option(15, []byte("\x00\x16no reachable authority"))
	}
	m.End()
}

var (
	nsLabels = []string{"ns1", "ns2", "ns3", "ns4"}
	mxLabels = []string{"mx1", "mx2", "mail", "smtp"}
	ttls     = []int{60, 300, 300, 3600, 3600, 86400}
)

// rr begins an answer RR and counts it for the truth.
func (g *generator) rr(typ uint16, ttl uint32) {
	g.resp.RR(wire.Answer, typ, ttl)
	g.answers = append(g.answers, wire.TypeNames[typ])
}

// answer adds the RRs that the name has.
func (g *generator) answer(q *question, d *dice, sign bool) {
	m := &g.resp
	owner := wire.QnameAt
	ttl := uint32(1 + g.r.IntN(ttls[d.n(len(ttls))]))
	if q.qtype == wire.TypeA || q.qtype == wire.TypeAAAA {
		if spread(q.rank+3, 20) {
			owner = g.chain(q, d, ttl, sign)
		}
	}
	count := 1
	switch q.qtype {
	case wire.TypeA, wire.TypeAAAA, wire.TypeMX, wire.TypeTXT, wire.TypeSRV:
		count = [...]int{1, 1, 1, 2, 2, 3, 4, 4}[d.n(8)]
	case wire.TypeNS:
		count = 2 + d.n(3)
	case wire.TypeDNSKEY, wire.TypeCAA:
		count = 2
	}
	for i := range count {
		m.Pointer(owner)
		g.rr(q.qtype, ttl)
		g.rdata(q, d, i)
		m.End()
	}
	if sign {
		m.Pointer(owner)
		g.rr(wire.TypeRRSIG, ttl)
		g.rrsig(q, q.qtype, ttl)
		m.End()
	}
}

// chain adds 1 to 3 CNAMEs and returns where the last target stands.
func (g *generator) chain(q *question, d *dice, ttl uint32, sign bool) (owner int) {
	m := &g.resp
	owner = wire.QnameAt
	zone := q.zone
	for i := range [...]int{1, 1, 1, 2, 2, 3}[d.n(6)] {
		m.Pointer(owner)
		g.rr(wire.TypeCNAME, ttl)
		target := len(m.B)
		if i == 0 && d.n(3) == 0 {
			m.LabelPointer("origin-edge", zone)
		} else { // a content network's name, in full
			k := d.n(nameCount)
			m.B = append(m.B, g.names.wire(k)...)
			zone = target + int(g.names.hosts[k].zone)
		}
		m.End()
		if sign && i == 0 {
			m.Pointer(owner)
			g.rr(wire.TypeRRSIG, ttl)
			g.rrsig(q, wire.TypeCNAME, ttl)
			m.End()
		}
		owner = target
	}
	return owner
}

// rdata adds the RDATA of the i-th RR of the set. Names in it are compressed where RFC 3597 §4 lets them be.
func (g *generator) rdata(q *question, d *dice, i int) {
	m := &g.resp
	zone := g.names.wire(q.rank)[g.names.hosts[q.rank].zone:]
	switch q.qtype {
	case wire.TypeA:
		m.U32(0xcb007100 | uint32(d.n(256)) | uint32(d.n(16))<<16)
	case wire.TypeAAAA:
		m.U32(0x20010db8)
		m.U32(uint32(d.n(1 << 16)))
		m.U32(0)
		m.U32(uint32(d.next()) >> (d.n(3) * 8))
	case wire.TypeHTTPS: // RFC 9460 §2.2: alpn, ipv4hint, ipv6hint
		m.U16(1)
		m.B = append(m.B, 0)
		m.B = append(m.B, 0, 1, 0, 6, 2, 'h', '3', 2, 'h', '2')
		m.B = append(m.B, 0, 4, 0, 8)
		m.U32(0xcb007100 | uint32(d.n(256)))
		m.U32(0xcb007100 | uint32(d.n(256)))
		m.B = append(m.B, 0, 6, 0, 16)
		m.U32(0x20010db8)
		m.U32(0)
		m.U32(0)
		m.U32(uint32(d.n(1 << 16)))
	case wire.TypePTR:
		m.Text("host-" + decimals[d.n(256)] + "-" + decimals[d.n(256)])
		m.Text("pool")
		m.B = append(m.B, zone...)
	case wire.TypeMX:
		m.U16(uint16(10 * (i + 1)))
		if d.n(3) == 0 {
			m.B = wire.AppendName(m.B, "aspmx"+decimals[i]+".mailhost.example")
		} else {
			m.LabelPointer(mxLabels[i], q.zone)
		}
	case wire.TypeTXT:
		switch d.n(4) {
		case 0:
			m.Text("v=spf1 include:_spf.mailhost.example ip4:203.0.113." + decimals[d.n(256)] + " ~all")
		case 1:
			m.Text("site-verification=" + decimals[d.n(256)] + "Xk3_q9-LmZ0pVd" + decimals[d.n(256)])
		case 2:
			m.Text("v=DKIM1; k=rsa; t=s; p=" + longText[:200+d.n(30)])
			m.Text(longText[:100+d.n(80)])
		default:
			m.Text("owner=\"ops team\"; contact=noc\\" + decimals[d.n(256)])
		}
	case wire.TypeNS:
		m.LabelPointer(nsLabels[i], q.zone)
	case wire.TypeSOA:
		g.soaData(q)
	case wire.TypeSRV:
		m.U16(uint16(10 * i))
		m.U16(uint16(d.n(100)))
		m.U16(5061)
		m.Text("sip" + decimals[i])
		m.B = append(m.B, zone...)
	case wire.TypeCNAME:
		m.LabelPointer("origin-edge", q.zone)
	case wire.TypeDS: // RFC 4034 §5.1, algorithm 13, SHA-256
		m.U16(uint16(d.next()))
		m.B = append(m.B, 13, 2)
		g.opaque(d, 32)
	case wire.TypeDNSKEY: // RFC 4034 §2.1, a KSK and a ZSK
		m.U16(uint16(257 - i))
		m.B = append(m.B, 3, 13)
		g.opaque(d, 64)
	case wire.TypeCAA: // RFC 8659 §4.1
		m.B = append(m.B, 0)
		m.Text([...]string{"issue", "iodef"}[i&1])
		m.B = append(m.B, [...]string{"letsencrypt.example", "mailto:security@ca.example"}[i&1]...)
	default:
		panic("BUG: no RDATA for this type")
	}
}

// opaque adds n bytes (a multiple of 8) of hash or key.
func (g *generator) opaque(d *dice, n int) {
	for range n / 8 {
		g.resp.B = binary.BigEndian.AppendUint64(g.resp.B, d.next())
	}
}

// rrsig adds RDATA, RFC 4034 §3.1.
func (g *generator) rrsig(q *question, covered uint16, ttl uint32) {
	m := &g.resp
	m.U16(covered)
	m.B = append(m.B, 13, 3)
	m.U32(ttl)
	m.U32(uint32(startNs/1e9) + 7*86400)
	m.U32(uint32(startNs/1e9) - 7*86400)
	m.U16(uint16(q.rank))
	m.B = append(m.B, g.names.wire(q.rank)[g.names.hosts[q.rank].zone:]...)
	d := dice(uint64(q.rank)<<32 | uint64(covered))
	g.opaque(&d, 64)
}

func (g *generator) soaData(q *question) {
	m := &g.resp
	m.LabelPointer("ns1", q.zone)
	m.LabelPointer("hostmaster", q.zone)
	m.U32(2025060200 + uint32(q.rank%90))
	m.U32(7200)
	m.U32(3600)
	m.U32(1209600)
	m.U32(300)
}

// soa adds what a negative answer has in its authority section (RFC 2308 §2), signed with the proof of RFC 5155.
func (g *generator) soa(q *question, sign bool) {
	m := &g.resp
	m.Pointer(q.zone)
	m.RR(wire.Authority, wire.TypeSOA, 300)
	g.soaData(q)
	m.End()
	if !sign {
		return
	}
	m.Pointer(q.zone)
	m.RR(wire.Authority, wire.TypeRRSIG, 300)
	g.rrsig(q, wire.TypeSOA, 300)
	m.End()
	d := dice(q.rank)
	m.LabelPointer("0p9mhaveqvm6t7vbl5lop2u3t2rp3tom", q.zone)
	m.RR(wire.Authority, wire.TypeNSEC3, 300)
	m.B = append(m.B, 1, 1, 0, 0, 0, 20)
	g.opaque(&d, 16)
	m.U32(uint32(q.rank))
	m.B = append(m.B, 0, 6, 0x62, 0x01, 0x80, 0x08, 0x00, 0x02) // NS SOA MX AAAA RRSIG DNSKEY and so on
	m.End()
	m.LabelPointer("0p9mhaveqvm6t7vbl5lop2u3t2rp3tom", q.zone)
	m.RR(wire.Authority, wire.TypeRRSIG, 300)
	g.rrsig(q, wire.TypeNSEC3, 300)
	m.End()
}

// decimals are the numbers 0 to 255; longText stands for a key in base 64.
var (
	decimals = func() (d [256]string) {
		for i := range d {
			d[i] = string(appendDecimal(nil, byte(i))[1:])
		}
		return d
	}()
	longText = func() string {
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
		b := make([]byte, 240)
		d := dice(1)
		for i := range b {
			b[i] = alphabet[d.n(64)]
		}
		return string(b)
	}()
)
