// This file: frames. Each append function adds to dst, which the caller owns, and returns it. Lengths and checksums
// are right unless a parameter asks for something else.
package wire

import "encoding/binary"

// TCP flags, RFC 9293 §3.1.
const (
	FIN = 0x01
	SYN = 0x02
	PSH = 0x08
	ACK = 0x10
)

// Protocol numbers of IP.
const (
	ProtoIPIP     = 4
	ProtoTCP      = 6
	ProtoUDP      = 17
	ProtoFragment = 44
	ProtoGRE      = 47
)

// Host is one end: an IPv4 address in the first four bytes, or an IPv6 address.
type Host struct {
	Addr [16]byte
	V6   bool
	MAC  [6]byte
}

// IP returns the address's bytes, which belong to h.
func (h *Host) IP() []byte {
	if h.V6 {
		return h.Addr[:]
	}
	return h.Addr[:4]
}

// sum adds b to a ones' complement sum, RFC 1071.
func sum(s uint64, b []byte) uint64 {
	for len(b) >= 4 {
		s += uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		s += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

func fold(s uint64) uint16 {
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// AppendEthernet adds the header of a frame from one host to another, with the EtherType of the address family.
func AppendEthernet(dst []byte, from, to *Host) []byte {
	dst = append(dst, to.MAC[:]...)
	dst = append(dst, from.MAC[:]...)
	if from.V6 {
		return append(dst, 0x86, 0xdd)
	}
	return append(dst, 0x08, 0x00)
}

// AppendIP adds an IPv4 or IPv6 header for size bytes of payload. id goes to IPv4 only; DF is set.
func AppendIP(dst []byte, from, to *Host, proto byte, id uint16, size int) []byte {
	if from.V6 {
		dst = append(dst, 0x60, 0, 0, 0, byte(size>>8), byte(size), proto, 64)
		dst = append(dst, from.Addr[:]...)
		return append(dst, to.Addr[:]...)
	}
	return AppendIPv4(dst, from, to, proto, id, 0x4000, size)
}

// AppendIPv4 adds an IPv4 header with the given flags and fragment offset (RFC 791 §3.1: bit 14 is DF, bit 13 is MF,
// the offset counts units of 8 bytes).
func AppendIPv4(dst []byte, from, to *Host, proto byte, id, frag uint16, size int) []byte {
	at := len(dst)
	total := 20 + size
	dst = append(dst, 0x45, 0, byte(total>>8), byte(total), byte(id>>8), byte(id), byte(frag>>8), byte(frag), 64, proto, 0, 0)
	dst = append(dst, from.Addr[:4]...)
	dst = append(dst, to.Addr[:4]...)
	binary.BigEndian.PutUint16(dst[at+10:], fold(sum(0, dst[at:])))
	return dst
}

// pseudo is the sum of the pseudo-header, RFC 768 and RFC 8200 §8.1.
func pseudo(from, to *Host, proto byte, size int) uint64 {
	return sum(sum(uint64(proto)+uint64(size), from.IP()), to.IP())
}

// AppendUDP adds a UDP header and the payload. Without sum the checksum is 0, which only IPv4 allows.
func AppendUDP(dst []byte, from, to *Host, sport, dport uint16, payload []byte, withSum bool) []byte {
	at := len(dst)
	size := 8 + len(payload)
	dst = append(dst, byte(sport>>8), byte(sport), byte(dport>>8), byte(dport), byte(size>>8), byte(size), 0, 0)
	dst = append(dst, payload...)
	if withSum {
		c := fold(sum(pseudo(from, to, ProtoUDP, size), dst[at:]))
		if c == 0 { // RFC 768: a sum of zero is sent as all ones
			c = 0xffff
		}
		binary.BigEndian.PutUint16(dst[at+6:], c)
	}
	return dst
}

// TCP options (RFC 9293 §3.1, RFC 7323): what Linux sends with SYN, and then with every segment.
var (
	synOptions  = []byte{2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7}
	dataOptions = []byte{1, 1, 8, 10, 0, 0, 0, 2, 0, 0, 0, 2}
)

// Client and Server are the sides of a Conn.
const (
	Client = 0
	Server = 1
)

// Conn is one TCP connection that is being made up.
type Conn struct {
	Ends  [2]*Host
	Ports [2]uint16
	Seq   [2]uint32 // of the next byte of each side
}

// AppendFrame adds a whole frame with the next segment of one side, and moves that side's sequence number on (SYN
// and FIN count one, RFC 9293 §3.4). id goes to IPv4 only.
func (c *Conn) AppendFrame(dst []byte, side int, flags byte, payload []byte, id uint16) []byte {
	from, to := c.Ends[side], c.Ends[1-side]
	ack, options := c.Seq[1-side], dataOptions
	if flags&SYN != 0 {
		options = synOptions
	}
	if flags&ACK == 0 {
		ack = 0
	}
	head := 20 + len(options)
	dst = AppendEthernet(dst, from, to)
	dst = AppendIP(dst, from, to, ProtoTCP, id, head+len(payload))
	at := len(dst)
	dst = binary.BigEndian.AppendUint16(dst, c.Ports[side])
	dst = binary.BigEndian.AppendUint16(dst, c.Ports[1-side])
	dst = binary.BigEndian.AppendUint32(dst, c.Seq[side])
	dst = binary.BigEndian.AppendUint32(dst, ack)
	dst = append(dst, byte(head<<2), flags, 0xfa, 0xf0, 0, 0, 0, 0)
	dst = append(dst, options...)
	dst = append(dst, payload...)
	binary.BigEndian.PutUint16(dst[at+16:], fold(sum(pseudo(from, to, ProtoTCP, head+len(payload)), dst[at:])))
	c.Seq[side] += uint32(len(payload))
	if flags&(SYN|FIN) != 0 {
		c.Seq[side]++
	}
	return dst
}

// AppendUDPFrame adds a whole frame. An IPv4 frame has no UDP checksum when withSum is false.
func AppendUDPFrame(dst []byte, from, to *Host, sport, dport uint16, payload []byte, id uint16, withSum bool) []byte {
	dst = AppendEthernet(dst, from, to)
	dst = AppendIP(dst, from, to, ProtoUDP, id, 8+len(payload))
	return AppendUDP(dst, from, to, sport, dport, payload, withSum || from.V6)
}

// AppendVXLAN adds inner, a frame, in its outer Ethernet, IPv4, UDP and VXLAN headers (RFC 7348 §5; the outer UDP
// checksum is 0, as there).
func AppendVXLAN(dst []byte, from, to *Host, sport uint16, vni uint32, id uint16, inner []byte) []byte {
	dst = AppendEthernet(dst, from, to)
	size := 8 + 8 + len(inner)
	dst = AppendIP(dst, from, to, ProtoUDP, id, size)
	dst = append(dst, byte(sport>>8), byte(sport), 4789>>8, 4789&0xff, byte(size>>8), byte(size), 0, 0)
	dst = append(dst, 0x08, 0, 0, 0, byte(vni>>16), byte(vni>>8), byte(vni), 0)
	return append(dst, inner...)
}
