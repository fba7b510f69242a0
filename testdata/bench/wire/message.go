// This file: DNS messages (RFC 1035 §4). Compression is not searched for: the caller knows where a name already
// stands and asks for a pointer to it, as the servers do it whose traffic is imitated.
package wire

import "encoding/binary"

// Types (IANA DNS parameters) that the generators send.
const (
	TypeA      = 1
	TypeNS     = 2
	TypeCNAME  = 5
	TypeSOA    = 6
	TypePTR    = 12
	TypeMX     = 15
	TypeTXT    = 16
	TypeAAAA   = 28
	TypeSRV    = 33
	TypeOPT    = 41
	TypeDS     = 43
	TypeRRSIG  = 46
	TypeDNSKEY = 48
	TypeNSEC3  = 50
	TypeHTTPS  = 65
	TypeCAA    = 257
)

// TypeNames are the mnemonics of the types above.
var TypeNames = map[uint16]string{
	TypeA: "A", TypeNS: "NS", TypeCNAME: "CNAME", TypeSOA: "SOA", TypePTR: "PTR", TypeMX: "MX", TypeTXT: "TXT",
	TypeAAAA: "AAAA", TypeSRV: "SRV", TypeOPT: "OPT", TypeDS: "DS", TypeRRSIG: "RRSIG", TypeDNSKEY: "DNSKEY",
	TypeNSEC3: "NSEC3", TypeHTTPS: "HTTPS", TypeCAA: "CAA",
}

// Section is the offset of a section's count in the header.
type Section int

// The sections that hold RRs.
const (
	Answer     Section = 6
	Authority  Section = 8
	Additional Section = 10
)

// QnameAt is the offset of the first question's name: right behind the header.
const QnameAt = 12

// Msg is a message being built; B is valid until the next Begin. The zero value is ready.
type Msg struct {
	B  []byte
	rd int // offset of the current RR's RDLENGTH
}

// Begin starts over with a header and one question; qname is in wire format, uncompressed.
func (m *Msg) Begin(id, flags uint16, qname []byte, qtype uint16) {
	m.B = append(m.B[:0], byte(id>>8), byte(id), byte(flags>>8), byte(flags), 0, 1, 0, 0, 0, 0, 0, 0)
	m.B = append(m.B, qname...)
	m.B = append(m.B, byte(qtype>>8), byte(qtype), 0, 1)
}

// Pointer adds a compression pointer, RFC 1035 §4.1.4.
func (m *Msg) Pointer(at int) { m.B = append(m.B, 0xc0|byte(at>>8), byte(at)) }

// LabelPointer adds one label and a pointer, and returns where the name starts.
func (m *Msg) LabelPointer(label string, at int) int {
	start := len(m.B)
	m.B = append(m.B, byte(len(label)))
	m.B = append(m.B, label...)
	m.Pointer(at)
	return start
}

// RR adds what stands between owner name and RDATA, and counts the RR. Call it after the owner's name is added, then
// add the RDATA, then call End.
func (m *Msg) RR(s Section, typ uint16, ttl uint32) {
	n := binary.BigEndian.Uint16(m.B[s:])
	binary.BigEndian.PutUint16(m.B[s:], n+1)
	m.B = append(m.B, byte(typ>>8), byte(typ), 0, 1)
	m.B = binary.BigEndian.AppendUint32(m.B, ttl)
	m.rd = len(m.B)
	m.B = append(m.B, 0, 0)
}

// End sets the RDLENGTH of the RR that RR began.
func (m *Msg) End() { binary.BigEndian.PutUint16(m.B[m.rd:], uint16(len(m.B)-m.rd-2)) }

// OPT adds an EDNS pseudo-RR (RFC 6891 §6.1.2) up to its options; call End after them. flags holds DO in bit 15.
func (m *Msg) OPT(size, flags uint16) {
	m.B = append(m.B, 0)
	m.RR(Additional, TypeOPT, uint32(flags))
	binary.BigEndian.PutUint16(m.B[m.rd-6:], size)
}

// Option adds one EDNS option.
func (m *Msg) Option(code uint16, data []byte) {
	m.B = append(m.B, byte(code>>8), byte(code), byte(len(data)>>8), byte(len(data)))
	m.B = append(m.B, data...)
}

// U16 and U32 add integers to the RDATA, Text a character string of at most 255 bytes (RFC 1035 §3.3).
func (m *Msg) U16(v uint16) { m.B = append(m.B, byte(v>>8), byte(v)) }

// U32 adds four bytes.
func (m *Msg) U32(v uint32) { m.B = binary.BigEndian.AppendUint32(m.B, v) }

// Text adds a length byte and s.
func (m *Msg) Text(s string) {
	m.B = append(m.B, byte(len(s)))
	m.B = append(m.B, s...)
}

// AppendName adds a name given in dotted form without escapes ("" is the root), uncompressed.
func AppendName(dst []byte, dotted string) []byte {
	for dotted != "" {
		n := 0
		for n < len(dotted) && dotted[n] != '.' {
			n++
		}
		dst = append(dst, byte(n))
		dst = append(dst, dotted[:n]...)
		dotted = dotted[min(n+1, len(dotted)):]
	}
	return append(dst, 0)
}
