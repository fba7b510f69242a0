package main

// decode_slow.go unwraps encapsulations: one call takes one layer of tunnel or odd link header off.
//
// In: a frame or packet that locate answered verdictSlow for, and its link type.
// Out: what is inside, and the link type to go on with (Ethernet, or raw IP).
//
// Rules: the encapsulations that clouds and switches mirror traffic with (VXLAN, GRE, ERSPAN, Geneve, IP-in-IP, MPLS,
// PPPoE) are read by hand, since a mirror port carries nothing else; what is rarer goes to gopacket's decoders, which
// recover from their own panics. The nesting is bounded by the caller (maxNesting). The inside is a slice of the outside,
// but where a decoder of gopacket's had to make a copy.

import (
	"encoding/binary"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// maxNesting bounds the encapsulations and fragmentations of one frame.
const maxNesting = 8

// UDP ports of tunnels (IANA; 8472 is the port of Linux's VXLAN before it had a number).
const (
	portVXLAN    = 4789
	portVXLANold = 8472
	portGeneve   = 6081
	portGTPU     = 2152
	portTeredo   = 3544
)

func isTunnelPort(sport, dport uint16) bool {
	return dport == portVXLAN || dport == portVXLANold || dport == portGeneve || dport == portGTPU ||
		dport == portTeredo || sport == portTeredo
}

// slowDecoder unwraps encapsulations for one capture goroutine.
type slowDecoder struct{}

func newSlowDecoder() *slowDecoder { return &slowDecoder{} }

// decapsulate takes one layer off pkt. The verdict is verdictSlow where there is something inside to go on with.
func (d *slowDecoder) decapsulate(pkt []byte, lt uint32) (inside []byte, link uint32, r verdict) {
	var ethertype uint16
	off := 0
	switch lt {
	case linkEthernet:
		if len(pkt) < 14 {
			return nil, 0, verdictLinkShort
		}
		ethertype, off = binary.BigEndian.Uint16(pkt[12:]), 14
	case linkSLL:
		if len(pkt) < 16 {
			return nil, 0, verdictLinkShort
		}
		ethertype, off = binary.BigEndian.Uint16(pkt[14:]), 16
	case linkSLL2:
		if len(pkt) < 20 {
			return nil, 0, verdictLinkShort
		}
		ethertype, off = binary.BigEndian.Uint16(pkt), 20
	case linkRaw, linkRawDLT12, linkRawDLT14, linkIPv4, linkIPv6:
		return d.insideIP(pkt, 0)
	case linkNull, linkLoop:
		return d.insideIP(pkt, 4)
	case linkNFLOG:
		return insideNFLOG(pkt)
	default:
		return d.byGopacket(pkt, lt)
	}
	// More VLAN tags than locate reads.
	for range maxNesting {
		if ethertype != etherVLAN && ethertype != etherQinQ && ethertype != etherQinQ91 {
			break
		}
		if len(pkt) < off+4 {
			return nil, 0, verdictLinkShort
		}
		ethertype = binary.BigEndian.Uint16(pkt[off+2:])
		off += 4
	}
	return d.insideEther(pkt, off, ethertype)
}

// insideEther goes on behind an Ethertype.
func (d *slowDecoder) insideEther(pkt []byte, off int, ethertype uint16) ([]byte, uint32, verdict) {
	if off > len(pkt) {
		return nil, 0, verdictLinkShort
	}
	rest := pkt[off:]
	switch ethertype {
	case etherVLAN, etherQinQ, etherQinQ91:
		return nil, 0, verdictNested
	case etherIPv4, etherIPv6:
		if off > 14 && len(rest) > 0 && isPlainIP(rest) {
			return rest, linkRaw, verdictSlow // locate stopped at the tags
		}
		return d.insideIP(pkt, off)
	case etherTEB:
		return rest, linkEthernet, verdictSlow
	case etherMPLS, etherMPLSmc:
		return insideMPLS(rest)
	case etherPPPoE: // RFC 2516 §4: version and type, code, session, length
		if len(rest) < 8 || rest[0] != 0x11 || rest[1] != 0 {
			return nil, 0, verdictNotIP
		}
		return rest[6:], linkPPP, verdictSlow
	}
	if ethertype < 0x0600 {
		// IEEE 802.3 with LLC; SNAP (RFC 1042) carries an Ethertype, and DSAP 06 is IP itself (RFC 948).
		if len(rest) >= 8 && rest[0] == 0xaa && rest[1] == 0xaa && rest[2] == 3 {
			switch et := binary.BigEndian.Uint16(rest[6:]); et {
			case etherIPv4, etherIPv6:
				return rest[8:], linkRaw, verdictSlow
			}
		} else if len(rest) >= 3 && rest[0] == 0x06 && rest[1] == 0x06 && rest[2] == 3 {
			return rest[3:], linkRaw, verdictSlow
		}
	}
	return nil, 0, verdictNotIP
}

// isPlainIP says whether an IP packet holds UDP or TCP or a fragment directly, so that locate can read it.
func isPlainIP(ip []byte) bool { return ip[0]>>4 == 4 || ip[0]>>4 == 6 }

// insideMPLS skips a label stack (RFC 3032 §2.1); what follows has no type: IP is known by its version, a pseudowire's
// control word begins with a zero nibble (RFC 4385) and Ethernet follows it. A MAC address may begin with such a nibble,
// too: then the Ethertype tells.
func insideMPLS(b []byte) ([]byte, uint32, verdict) {
	for range 16 {
		if len(b) < 5 {
			return nil, 0, verdictLinkShort
		}
		bottom := b[2]&1 == 1
		b = b[4:]
		if !bottom {
			continue
		}
		switch b[0] >> 4 {
		case 4, 6:
			return b, linkRaw, verdictSlow
		case 0:
			if len(b) < 4+14 {
				return nil, 0, verdictLinkShort
			}
			if leadsToIP(binary.BigEndian.Uint16(b[12:])) && !leadsToIP(binary.BigEndian.Uint16(b[16:])) {
				return b, linkEthernet, verdictSlow
			}
			return b[4:], linkEthernet, verdictSlow
		}
		return b, linkEthernet, verdictSlow
	}
	return nil, 0, verdictNested
}

// leadsToIP says whether an Ethertype is that of IP or of a tag in front of it.
func leadsToIP(ethertype uint16) bool {
	switch ethertype {
	case etherIPv4, etherIPv6, etherVLAN, etherQinQ, etherQinQ91:
		return true
	}
	return false
}

// insideIP unwraps the IP packet at off: IP-in-IP, GRE, AH, or a tunnel over UDP.
func (d *slowDecoder) insideIP(pkt []byte, off int) ([]byte, uint32, verdict) {
	if len(pkt) < off+20 {
		return nil, 0, verdictBadIP
	}
	ip := pkt[off:]
	var proto uint8
	var body []byte
	switch ip[0] >> 4 {
	case 4:
		hl, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
		if total == 0 || total > len(ip) {
			total = len(ip)
		}
		if hl < 20 || total < hl {
			return nil, 0, verdictBadIP
		}
		proto, body = ip[9], ip[hl:total]
	case 6:
		if len(ip) < 40 {
			return nil, 0, verdictBadIP
		}
		total := 40 + int(binary.BigEndian.Uint16(ip[4:]))
		if total == 40 || total > len(ip) {
			total = len(ip)
		}
		proto, body = ip[6], ip[40:total]
		for range 16 { // extension headers, as in locateIPv6
			var n int
			switch proto {
			case protoHopByHop, protoRouting, protoDestOpts, protoMobility, protoHIP, protoShim6:
				n = 8
			case protoAH:
				n = 4
			}
			if n == 0 {
				break
			}
			if len(body) < 8 || len(body) < int(body[1])*n+8 {
				return nil, 0, verdictBadIP
			}
			proto, body = body[0], body[int(body[1])*n+8:]
		}
	default:
		return nil, 0, verdictNotIP
	}
	if proto == protoAH && ip[0]>>4 == 4 {
		// RFC 4302: the packet inside is rebuilt by leaving the header out, which needs no copy for a tunnel only.
		if len(body) < 12 || len(body) < int(body[1])*4+8 {
			return nil, 0, verdictBadIP
		}
		proto, body = body[0], body[int(body[1])*4+8:]
		if proto == protoUDP || proto == protoTCP {
			return nil, 0, verdictOtherIP
		}
	}
	switch proto {
	case protoIPIP, protoIPv6:
		return body, linkRaw, verdictSlow
	case protoGRE:
		return insideGRE(body)
	case protoUDP:
		if len(body) < 8 {
			return nil, 0, verdictBadL4
		}
		return insideUDP(binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:]), body[8:])
	}
	return nil, 0, verdictOtherIP
}

// insideGRE unwraps GRE (RFC 2784, RFC 2890; version 1 is PPTP's, RFC 2637) and ERSPAN, which rides on it.
func insideGRE(b []byte) ([]byte, uint32, verdict) {
	if len(b) < 4 {
		return nil, 0, verdictLinkShort
	}
	flags, proto := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	off := 4
	if flags&0xc000 != 0 { // checksum or routing present: both fields are there
		off += 4
	}
	if flags&0x2000 != 0 { // key
		off += 4
	}
	if flags&0x1000 != 0 { // sequence number
		off += 4
	}
	if flags&7 == 1 && flags&0x0080 != 0 { // version 1: acknowledgement number
		off += 4
	}
	if flags&0x4000 != 0 { // source routes until one of length 0 (RFC 1701)
		for range 16 {
			if len(b) < off+4 {
				return nil, 0, verdictLinkShort
			}
			n := int(b[off+3])
			off += 4 + n
			if n == 0 {
				break
			}
		}
	}
	if len(b) < off {
		return nil, 0, verdictLinkShort
	}
	rest := b[off:]
	switch proto {
	case etherIPv4, etherIPv6:
		return rest, linkRaw, verdictSlow
	case etherTEB:
		return rest, linkEthernet, verdictSlow
	case 0x880b: // PPP, RFC 2637
		return rest, linkPPP, verdictSlow
	case etherMPLS, etherMPLSmc:
		return insideMPLS(rest)
	case 0x88be: // ERSPAN type I (no GRE sequence number: no header of its own) and II (8 bytes)
		if flags&0x1000 == 0 {
			return rest, linkEthernet, verdictSlow
		}
		if len(rest) < 8 {
			return nil, 0, verdictLinkShort
		}
		return rest[8:], linkEthernet, verdictSlow
	case 0x22eb: // ERSPAN type III: 12 bytes, and 8 more where the O bit is set
		n := 12
		if len(rest) >= 12 && rest[11]&1 == 1 {
			n = 20
		}
		if len(rest) < n {
			return nil, 0, verdictLinkShort
		}
		return rest[n:], linkEthernet, verdictSlow
	case 0x883e, 0x6559: // others that nobody carries DNS in
	}
	return nil, 0, verdictOtherIP
}

// insideUDP unwraps a tunnel over UDP.
func insideUDP(sport, dport uint16, b []byte) ([]byte, uint32, verdict) {
	switch {
	case dport == portVXLAN || dport == portVXLANold: // RFC 7348 §5; the generic protocol extension has a type in byte 3
		if len(b) < 8 || b[0]&0x08 == 0 {
			return nil, 0, verdictFiltered
		}
		if b[0]&0x04 != 0 {
			switch b[3] {
			case 1, 2:
				return b[8:], linkRaw, verdictSlow
			case 3:
			default:
				return nil, 0, verdictFiltered
			}
		}
		return b[8:], linkEthernet, verdictSlow
	case dport == portGeneve: // RFC 8926 §3.4
		if len(b) < 8 || b[0]>>6 != 0 {
			return nil, 0, verdictFiltered
		}
		n := 8 + int(b[0]&0x3f)*4
		if len(b) < n {
			return nil, 0, verdictFiltered
		}
		switch binary.BigEndian.Uint16(b[2:]) {
		case etherTEB:
			return b[n:], linkEthernet, verdictSlow
		case etherIPv4, etherIPv6:
			return b[n:], linkRaw, verdictSlow
		}
	case dport == portGTPU: // 3GPP TS 29.281 §5.1: version 1, G-PDU
		if len(b) < 8 || b[0]>>5 != 1 || b[0]&0x10 == 0 || b[1] != 0xff {
			return nil, 0, verdictFiltered
		}
		n := 8
		if b[0]&0x07 != 0 {
			n = 12
			if len(b) < n {
				return nil, 0, verdictFiltered
			}
			for next := b[11]; b[0]&0x04 != 0 && next != 0; {
				if len(b) < n+4 || b[n] == 0 || len(b) < n+int(b[n])*4 {
					return nil, 0, verdictFiltered
				}
				n += int(b[n]) * 4
				next = b[n-1]
			}
		}
		return b[n:], linkRaw, verdictSlow
	case dport == portTeredo || sport == portTeredo: // RFC 4380 §5.1.1: authentication and origin indications in front
		for range 2 {
			if len(b) >= 4 && b[0] == 0 && b[1] == 1 {
				n := 13 + int(b[2]) + int(b[3])
				if len(b) < n {
					return nil, 0, verdictFiltered
				}
				b = b[n:]
			} else if len(b) >= 8 && b[0] == 0 && b[1] == 0 {
				b = b[8:]
			}
		}
		if len(b) >= 40 && b[0]>>4 == 6 {
			return b, linkRaw, verdictSlow
		}
	}
	return nil, 0, verdictFiltered
}

// insideNFLOG finds the packet of LINKTYPE_NFLOG: a family, then netlink attributes in host order; number 9 is the
// payload.
func insideNFLOG(b []byte) ([]byte, uint32, verdict) {
	if len(b) < 4 {
		return nil, 0, verdictLinkShort
	}
	for b = b[4:]; len(b) >= 4; {
		n, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if n < 4 || n > len(b) {
			break
		}
		if typ&0x7fff == 9 {
			return b[4:n], linkRaw, verdictSlow
		}
		if n = (n + 3) &^ 3; n > len(b) {
			break
		}
		b = b[n:]
	}
	return nil, 0, verdictNotIP
}

// Link types that gopacket decodes for us.
const (
	linkIEEE80211    = 105
	linkPrism        = 119
	linkRadiotap     = 127
	linkNFLOG        = 239
	linkFDDI         = 10
	linkIEEE80211AVS = 163
	linkPPI          = 192
)

// byGopacket lets gopacket decode the frame up to its first IP header. NewPacket recovers from its decoders' panics.
func (d *slowDecoder) byGopacket(pkt []byte, lt uint32) ([]byte, uint32, verdict) {
	p := gopacket.NewPacket(pkt, layers.LinkType(lt), gopacket.DecodeOptions{NoCopy: true})
	for _, l := range p.Layers() {
		if t := l.LayerType(); t != layers.LayerTypeIPv4 && t != layers.LayerTypeIPv6 {
			continue
		}
		h, body := l.LayerContents(), l.LayerPayload()
		// The header is a slice of the frame, up to its end, unless a decoder made a copy.
		if off := len(pkt) - cap(h); len(h) > 0 && off >= 0 && off+len(h) <= len(pkt) && &pkt[off] == &h[0] {
			return pkt[off:], linkRaw, verdictSlow
		}
		return append(slices.Clip(h), body...), linkRaw, verdictSlow
	}
	return nil, 0, verdictNotIP
}

// linkNames names the link types that can be read.
var linkNames = map[uint32]string{
	linkNull: "NULL", linkEthernet: "EN10MB", linkPPP: "PPP", linkFDDI: "FDDI", linkRawDLT12: "RAW", linkRawDLT14: "RAW", linkPPPHDLC: "PPP_SERIAL",
	linkRaw: "RAW", linkIEEE80211: "IEEE802_11", linkLoop: "LOOP", linkSLL: "LINUX_SLL", linkPrism: "PRISM_HEADER",
	linkRadiotap: "IEEE802_11_RADIO", linkPPPDir: "PPP_WITH_DIR", linkIPv4: "IPV4", linkIPv6: "IPV6", linkNFLOG: "NFLOG", linkSLL2: "LINUX_SLL2",
}

// linkKnown says whether frames of link type lt can be decoded.
func linkKnown(lt uint32) bool {
	_, ok := linkNames[lt]
	return ok
}
