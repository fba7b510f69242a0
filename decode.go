package main

// decode.go finds the transport segment inside a captured frame.
//
// In: one frame as captured, its link type, its length on the wire.
// Out: a verdict and, for UDP and TCP, the offsets that a worker needs (view): where the IP header, the transport
// header and the end of the segment are, the outermost VLAN, and the symmetric flow hash.
//
// Rules: the capture goroutine calls locate once a frame, so nothing here allocates or looks past the transport
// header; a worker trusts the offsets and never decodes these headers again. The capture goroutine does it
// and not the worker, since it must find the ports for the flow hash anyway, and doing it twice would
// cost the 25 ns that locate takes for IPv4 again. What the straight-line code below does not know goes through decode_slow.go.
// Every length is checked once, before the first access that needs it. A frame that lies about its lengths is a
// counter, never an error.

import (
	"encoding/binary"
	"math/bits"
)

// flow is one direction of a transport flow as on the wire: sender first. IPv4 addresses are in IPv4-mapped form
// (::ffff:a.b.c.d, RFC 4291 §2.5.5.2) and v6 is false. It is a value without pointers.
type flow struct {
	src, dst     [16]byte
	sport, dport uint16
	v6           bool
}

// verdict says what became of a frame. The values index captureCounters.verdicts, so every frame has exactly one.
type verdict uint8

const (
	verdictUDP       verdict = iota // a UDP segment for a worker
	verdictTCP                      // a TCP segment for a worker
	verdictFragment                 // an IP fragment for the defragmenter
	verdictSlow                     // an encapsulation for decode_slow.go
	verdictFiltered                 // the filter does not want it (not port 53, or the user's -bpf)
	verdictNotIP                    // ARP, STP, LLDP, …
	verdictOtherIP                  // IP, but neither UDP nor TCP
	verdictLinkShort                // frame shorter than its link header
	verdictBadIP                    // an IP header that contradicts itself or is cut
	verdictBadL4                    // a UDP or TCP header that contradicts itself or is cut
	verdictNested                   // encapsulated deeper than maxNesting
	verdictCount
)

// verdictNames are the account's names of the verdicts that are losses or not DNS.
var verdictNames = [verdictCount]string{"udp", "tcp", "fragment", "slow", "filtered", "not_ip", "other_protocol",
	"short_link_header", "bad_ip_header", "bad_transport_header", "nested_too_deep"}

// Ethertypes and IP protocol numbers (IANA registries).
const (
	etherIPv4   = 0x0800
	etherIPv6   = 0x86dd
	etherVLAN   = 0x8100
	etherQinQ   = 0x88a8
	etherQinQ91 = 0x9100
	etherMPLS   = 0x8847
	etherMPLSmc = 0x8848
	etherPPPoE  = 0x8864
	etherTEB    = 0x6558

	protoHopByHop = 0
	protoIPIP     = 4
	protoTCP      = 6
	protoUDP      = 17
	protoIPv6     = 41
	protoRouting  = 43
	protoFragment = 44
	protoGRE      = 47
	protoAH       = 51
	protoDestOpts = 60
	protoMobility = 135
	protoHIP      = 139
	protoShim6    = 140
)

const dnsPort = 53

// locator decodes link and IP headers for one capture goroutine. anyPort is set where the user's own filter has
// already chosen the packets; otherwise port 53 on either end is required.
type locator struct {
	anyPort bool
	key0    uint64 // keys of the flow hash, drawn per process so that nobody can aim at one worker or bucket
	key1    uint64
}

// mix is one folded 64×64→128 bit multiplication, the core of the keyed flow hash.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// locate decodes the frame pkt of link type lt (a DLT or LINKTYPE number) and fills v's offsets, which are relative to
// pkt. The caller sets v.ts and v.seq and moves the offsets to where pkt lies in its slab. wire is the frame's length
// before the snaplen cut it.
func (l *locator) locate(pkt []byte, lt uint32, v *view) verdict {
	var ethertype uint16
	off := 0
	v.vlan = 0
	switch lt {
	case linkEthernet:
		if len(pkt) < 14 {
			return verdictLinkShort
		}
		ethertype = binary.BigEndian.Uint16(pkt[12:])
		off = 14
	case linkRawDLT12, linkRawDLT14, linkRaw, linkIPv4, linkIPv6:
		return l.locateIP(pkt, 0, v)
	case linkNull, linkLoop:
		if len(pkt) < 5 {
			return verdictLinkShort
		}
		// The address family is in the byte order of the machine that captured (NULL) or in network order (LOOP) and
		// its number for IPv6 differs between systems; the version nibble behind it does not.
		if n := pkt[4] >> 4; n != 4 && n != 6 {
			return verdictNotIP
		}
		return l.locateIP(pkt, 4, v)
	case linkSLL:
		if len(pkt) < 16 {
			return verdictLinkShort
		}
		ethertype = binary.BigEndian.Uint16(pkt[14:])
		off = 16
	case linkSLL2:
		if len(pkt) < 20 {
			return verdictLinkShort
		}
		ethertype = binary.BigEndian.Uint16(pkt[0:])
		off = 20
	case linkPPP, linkPPPHDLC, linkPPPDir:
		return l.locatePPP(pkt, lt, v)
	default:
		return verdictSlow
	}
	for tags := 0; ethertype == etherVLAN || ethertype == etherQinQ || ethertype == etherQinQ91; tags++ {
		if tags == 2 {
			return verdictSlow
		}
		if len(pkt) < off+4 {
			return verdictLinkShort
		}
		if tags == 0 {
			v.vlan = binary.BigEndian.Uint16(pkt[off:]) & 0x0fff
		}
		ethertype = binary.BigEndian.Uint16(pkt[off+2:])
		off += 4
	}
	switch {
	case ethertype == etherIPv4:
		return l.locateIPv4(pkt, off, v)
	case ethertype == etherIPv6:
		return l.locateIPv6(pkt, off, v)
	case ethertype == etherMPLS, ethertype == etherMPLSmc, ethertype == etherPPPoE, ethertype == etherTEB:
		return verdictSlow
	case ethertype < 0x0600:
		return verdictSlow // an IEEE 802.3 length: LLC/SNAP may carry IP
	}
	return verdictNotIP
}

// locatePPP skips a PPP header: RFC 1661 (protocol field, possibly compressed to one byte), RFC 1662 (ff 03 in front),
// and LINKTYPE_PPP_WITH_DIR's direction byte.
func (l *locator) locatePPP(pkt []byte, lt uint32, v *view) verdict {
	off := 0
	if lt == linkPPPDir {
		off = 1
	}
	if len(pkt) >= off+2 && (pkt[off] == 0xff || pkt[off] == 0x0f || pkt[off] == 0x8f) && pkt[off+1] <= 0x03 {
		// ff 03 is PPP in HDLC framing; 0f 00 and 8f 00 are Cisco HDLC, whose protocol field is an Ethertype.
		if pkt[off] != 0xff {
			if len(pkt) < off+4 {
				return verdictLinkShort
			}
			switch binary.BigEndian.Uint16(pkt[off+2:]) {
			case etherIPv4:
				return l.locateIPv4(pkt, off+4, v)
			case etherIPv6:
				return l.locateIPv6(pkt, off+4, v)
			}
			return verdictNotIP
		}
		off += 2
	}
	if len(pkt) < off+2 {
		return verdictLinkShort
	}
	proto := uint16(pkt[off])
	if pkt[off]&1 == 1 { // protocol field compression, RFC 1661 §6.5
		off++
	} else {
		proto = proto<<8 | uint16(pkt[off+1])
		off += 2
	}
	switch proto {
	case 0x21:
		return l.locateIPv4(pkt, off, v)
	case 0x57:
		return l.locateIPv6(pkt, off, v)
	}
	return verdictNotIP
}

// locateIP decodes an IP packet of either version at off.
func (l *locator) locateIP(pkt []byte, off int, v *view) verdict {
	if len(pkt) <= off {
		return verdictBadIP
	}
	switch pkt[off] >> 4 {
	case 4:
		return l.locateIPv4(pkt, off, v)
	case 6:
		return l.locateIPv6(pkt, off, v)
	}
	return verdictNotIP
}

// locateIPv4 decodes an IPv4 header (RFC 791 §3.1) at off.
func (l *locator) locateIPv4(pkt []byte, off int, v *view) verdict {
	if len(pkt) < off+20 {
		return verdictBadIP
	}
	ip := pkt[off:]
	hl := int(ip[0]&0x0f) * 4
	if ip[0]>>4 != 4 || hl < 20 {
		return verdictBadIP
	}
	total := int(binary.BigEndian.Uint16(ip[2:]))
	if total == 0 {
		total = len(ip) // segmentation offload leaves the field zero
	}
	if total < hl || len(ip) < hl {
		return verdictBadIP
	}
	end := total
	if end > len(ip) {
		end = len(ip) // the snaplen cut it
	}
	v.flags = 0
	v.l3 = uint32(off)
	v.l4 = uint32(off + hl)
	v.end = uint32(off + end)
	v.wire = uint32(total - hl)
	if binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 { // more fragments, or a fragment offset
		return verdictFragment
	}
	src := uint64(binary.BigEndian.Uint32(ip[12:]))
	dst := uint64(binary.BigEndian.Uint32(ip[16:]))
	return l.locateL4(pkt, ip[9], src, dst, 0, 0, v)
}

// locateIPv6 decodes an IPv6 header and its extension headers (RFC 8200 §3 and §4) at off.
func (l *locator) locateIPv6(pkt []byte, off int, v *view) verdict {
	if len(pkt) < off+40 {
		return verdictBadIP
	}
	ip := pkt[off:]
	if ip[0]>>4 != 6 {
		return verdictBadIP
	}
	total := 40 + int(binary.BigEndian.Uint16(ip[4:]))
	if total == 40 {
		total = len(ip) // a jumbogram, or segmentation offload
	}
	end := total
	if end > len(ip) {
		end = len(ip)
	}
	ip = ip[:end]
	next := ip[6]
	p := 40
	// An extension header is at least 8 bytes, so the loop ends within the packet; 16 headers are more than any
	// sender has reason to use.
	for range 16 {
		switch next {
		case protoHopByHop, protoRouting, protoDestOpts, protoMobility, protoHIP, protoShim6:
			if len(ip) < p+8 {
				return verdictBadIP
			}
			next = ip[p]
			p += int(ip[p+1])*8 + 8
		case protoAH: // RFC 4302 §2.2: length in 32-bit words less 2
			if len(ip) < p+8 {
				return verdictBadIP
			}
			next = ip[p]
			p += int(ip[p+1])*4 + 8
		case protoFragment:
			if len(ip) < p+8 {
				return verdictBadIP
			}
			v.flags = viewV6
			v.l3 = uint32(off)
			v.l4 = uint32(off + p)
			v.end = uint32(off + end)
			v.wire = uint32(total - p)
			return verdictFragment
		default:
			if p > len(ip) {
				return verdictBadIP
			}
			v.flags = viewV6
			v.l3 = uint32(off)
			v.l4 = uint32(off + p)
			v.end = uint32(off + end)
			v.wire = uint32(total - p)
			return l.locateL4(pkt, next, binary.BigEndian.Uint64(ip[8:]), binary.BigEndian.Uint64(ip[24:]),
				binary.BigEndian.Uint64(ip[16:]), binary.BigEndian.Uint64(ip[32:]), v)
		}
		if p > len(ip) {
			return verdictBadIP
		}
	}
	return verdictBadIP
}

// locateL4 checks the transport header and computes the flow hash: the sum of one keyed hash for each end (address
// words and port), so that both directions of a flow get the same value.
func (l *locator) locateL4(pkt []byte, proto uint8, src, dst, src2, dst2 uint64, v *view) verdict {
	if proto != protoUDP && proto != protoTCP {
		switch proto {
		case protoIPIP, protoIPv6, protoGRE, protoAH:
			return verdictSlow
		}
		return verdictOtherIP
	}
	seg := pkt[v.l4:v.end]
	if len(seg) < 8 || v.wire < 8 {
		return verdictBadL4
	}
	sport, dport := binary.BigEndian.Uint16(seg), binary.BigEndian.Uint16(seg[2:])
	if sport != dnsPort && dport != dnsPort {
		if proto == protoUDP && isTunnelPort(sport, dport) {
			return verdictSlow
		}
		if !l.anyPort {
			return verdictFiltered
		}
	}
	a := mix(src^l.key0, uint64(sport)^l.key1) + src2
	b := mix(dst^l.key0, uint64(dport)^l.key1) + dst2
	if v.flags&viewV6 != 0 {
		a = mix(a^l.key1, l.key0)
		b = mix(b^l.key1, l.key0)
	}
	v.hash = mix((a+b)^l.key0, l.key1)
	if proto == protoUDP {
		ulen := uint32(binary.BigEndian.Uint16(seg[4:]))
		if ulen < 8 {
			if ulen != 0 { // zero is a jumbogram (RFC 2675 §4) or offload: the IP length counts
				return verdictBadL4
			}
			ulen = v.wire
		}
		if ulen < v.wire {
			v.wire = ulen // what lies between the UDP length and the IP length is padding
			if v.l4+ulen < v.end {
				v.end = v.l4 + ulen
			}
		}
		v.kind = viewUDP
		return verdictUDP
	}
	if len(seg) < 20 {
		return verdictBadL4
	}
	v.kind = viewTCP
	return verdictTCP
}

// locateCutFragment goes on with a fragment that the snaplen cut, which v describes, as if it were the whole packet: UDP says
// itself how long the datagram is. verdictFragment means that it is not the first fragment of a UDP datagram.
func (l *locator) locateCutFragment(pkt []byte, v *view) verdict {
	ip := pkt[v.l3:]
	if v.flags&viewV6 == 0 {
		if ip[9] != protoUDP || binary.BigEndian.Uint16(ip[6:])&0x1fff != 0 {
			return verdictFragment
		}
		v.wire = 65535
		return l.locateL4(pkt, protoUDP, uint64(binary.BigEndian.Uint32(ip[12:])), uint64(binary.BigEndian.Uint32(ip[16:])), 0, 0, v)
	}
	h := pkt[v.l4:v.end] // RFC 8200 §4.5, 8 bytes at least
	if h[0] != protoUDP || binary.BigEndian.Uint16(h[2:])>>3 != 0 {
		return verdictFragment
	}
	v.l4 += 8
	v.wire = 65535
	return l.locateL4(pkt, protoUDP, binary.BigEndian.Uint64(ip[8:]), binary.BigEndian.Uint64(ip[24:]),
		binary.BigEndian.Uint64(ip[16:]), binary.BigEndian.Uint64(ip[32:]), v)
}

// fillFlow reads the addresses and ports of the segment that v describes out of buf (the slab or the side buffer of
// its chunk).
func (v *view) fillFlow(buf []byte, f *flow) {
	ip := buf[v.l3:v.l4]
	if v.flags&viewV6 != 0 {
		copy(f.src[:], ip[8:24])
		copy(f.dst[:], ip[24:40])
		f.v6 = true
	} else {
		f.src = [16]byte{10: 0xff, 11: 0xff, 12: ip[12], 13: ip[13], 14: ip[14], 15: ip[15]}
		f.dst = [16]byte{10: 0xff, 11: 0xff, 12: ip[16], 13: ip[17], 14: ip[18], 15: ip[19]}
		f.v6 = false
	}
	l4 := buf[v.l4:]
	f.sport = binary.BigEndian.Uint16(l4)
	f.dport = binary.BigEndian.Uint16(l4[2:])
}
