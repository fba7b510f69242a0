// DNS messages: where things are in one.
//
// In: the bytes of one DNS message as a UDP datagram or a TCP length prefix delimits it. Out: the header, the first question,
// the place of every readable RR, and what EDNS says, all as offsets into those bytes (RFC 1035 §4.1, RFC 6891).
//
// Rules: one pass; every name of a question or an owner is checked, so that appendName can't fail on it; RDATA is
// only delimited here (rdata.go reads it). A message whose header and questions are sound is good for matching even if a
// later section breaks off: what was readable before the break is kept and the reason noted. Memory is bounded by the
// message: an RR takes 11 octets at least, an option four. Nothing is allocated once a message has seen its largest RR count.
package main

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

// Sections of an RR.
const (
	sectionAnswer uint8 = iota
	sectionAuthority
	sectionAdditional
)

// rr says where one RR is. The name at msg[name:] has been checked; msg[rdata:rdata+rdlen] lies in the message.
type rr struct {
	name, rdata       uint32 // offsets
	ttl               uint32 // seconds
	rdlen, typ, class uint16
	section           uint8
}

// edeOption is one Extended DNS Error (RFC 8914): its info code and the place of its text, which may be empty.
type edeOption struct {
	code   uint16
	off, n int
}

// edeMax and edeTextMax (octets of all texts of a message together) bound what is kept of Extended DNS Errors. They stand
// in every line of a lookup, so without a bound an answer of 64 KB, half of it errors and half small RRs, becomes
// hundreds of MB.
const (
	edeMax     = 16
	edeTextMax = 1024
)

// Why a message can't be used at all: what parse returns.
const (
	malformedNone uint8 = iota
	malformedHeader
	malformedQuestionName
	malformedQuestion
)

// malformedNames names the reasons for counters.
var malformedNames = [...]string{
	malformedNone:         "none",
	malformedHeader:       "short_header",
	malformedQuestionName: "bad_question_name",
	malformedQuestion:     "question_past_end",
}

// Where reading broke off behind the questions: message.broken.
const (
	brokenNone uint8 = iota
	brokenAnswer
	brokenAuthority
	brokenAdditional
	brokenOPT // all RRs are there, but the options of the OPT RR are not well-formed
)

// brokenNames names the places for counters.
var brokenNames = [...]string{
	brokenNone:       "none",
	brokenAnswer:     "answer",
	brokenAuthority:  "authority",
	brokenAdditional: "additional",
	brokenOPT:        "edns_options",
}

// message is one parsed DNS message. The zero value is ready for parse, which may be called again and again; one goroutine
// owns it. It holds raw, which it does not own, until the next parse.
type message struct {
	raw            []byte
	id, flags      uint16
	qd, an, ns, ar uint16 // as the header claims

	// The first question: its name is at raw[qname:], its QTYPE at raw[qend:].
	hasQuestion   bool
	qplain        bool // its name is not compressed, so raw[qname:qend] is the whole of it
	qtype, qclass uint16
	qname, qend   int

	// All readable RRs in order: rrs[:nAnswer], then nAuthority of the authority section, the rest additional. OPT is among them.
	rrs                 []rr
	nAnswer, nAuthority int

	// EDNS, from the first OPT RR of the additional section (RFC 6891 §6.1).
	opt            bool
	do             bool
	extRcode       uint8 // upper eight bits of the response code
	version        uint8
	udpSize        uint16
	ecsOff, ecsLen int // body of the client subnet option (RFC 7871 §6) if its shape is valid, else ecsLen is 0
	ede            []edeOption
	edeCut         bool // there were more options, or more text, than edeMax and edeTextMax

	broken   uint8 // where reading stopped, brokenNone if it did not
	trailing int   // octets behind the last RR
}

const dnsHeaderLen = 12

// parse reads raw, which must stay unchanged as long as m is used. It returns malformedNone if header and questions are sound, in
// which case the message can be matched even if broken is set.
func (m *message) parse(raw []byte) (malformed uint8) {
	m.raw = raw
	m.hasQuestion, m.qplain, m.opt, m.do, m.edeCut = false, false, false, false, false
	m.qtype, m.qclass, m.udpSize = 0, 0, 0
	m.extRcode, m.version, m.broken = 0, 0, brokenNone
	m.qname, m.qend, m.ecsOff, m.ecsLen, m.trailing = 0, 0, 0, 0, 0
	m.nAnswer, m.nAuthority = 0, 0
	m.rrs, m.ede = m.rrs[:0], m.ede[:0]
	if len(raw) < dnsHeaderLen {
		m.id, m.flags, m.qd, m.an, m.ns, m.ar = 0, 0, 0, 0, 0, 0
		return malformedHeader
	}
	h := binary.BigEndian.Uint64(raw)
	m.id, m.flags, m.qd, m.an = uint16(h>>48), uint16(h>>32), uint16(h>>16), uint16(h)
	m.ns, m.ar = binary.BigEndian.Uint16(raw[8:]), binary.BigEndian.Uint16(raw[10:])

	off := dnsHeaderLen
	// qptr is a pointer to the question's name, the most frequent owner name by far, and ptr the last other pointer that was an
	// owner name. Both are known to be good and need no second walk. A question that is itself compressed is left out: one
	// hop more might be one too many.
	var qptr, ptr uint16
	if m.qd != 0 {
		for {
			if off >= len(raw) || off >= dnsHeaderLen+nameMaxLabelOctets+1 {
				return malformedQuestionName
			}
			c := raw[off]
			off++
			if c == 0 {
				qptr, m.qplain = 0xc000|dnsHeaderLen, true
				break
			}
			if c > 63 {
				next, ok := checkName(raw, dnsHeaderLen)
				if !ok {
					return malformedQuestionName
				}
				off = next
				break
			}
			off += int(c)
		}
		if len(raw)-off < 4 {
			return malformedQuestion
		}
		m.hasQuestion, m.qname, m.qend = true, dnsHeaderLen, off
		q := binary.BigEndian.Uint32(raw[off:])
		m.qtype, m.qclass = uint16(q>>16), uint16(q)
		off += 4
		for n := m.qd - 1; n > 0; n-- {
			next, ok := checkName(raw, off)
			if !ok {
				m.hasQuestion = false
				return malformedQuestionName
			}
			if len(raw)-next < 4 {
				m.hasQuestion = false
				return malformedQuestion
			}
			off = next + 4
		}
	}

	count := int(m.an)
	for section := sectionAnswer; ; {
		if count == 0 {
			switch section {
			case sectionAnswer:
				m.nAnswer = len(m.rrs)
				count = int(m.ns)
			case sectionAuthority:
				m.nAuthority = len(m.rrs) - m.nAnswer
				count = int(m.ar)
			default:
				m.trailing = len(raw) - off
				return malformedNone
			}
			section++
			continue
		}
		name := off
		if len(raw)-off < 11 {
			m.breakOff(section)
			return malformedNone
		}
		if p := binary.BigEndian.Uint16(raw[off:]); p >= 0xc000 && (p == qptr || p == ptr) {
			off += 2
		} else if p < 0x100 { // the root, owner of every OPT RR
			off++
		} else {
			next, ok := checkName(raw, off)
			if !ok {
				m.breakOff(section)
				return malformedNone
			}
			if p >= 0xc000 {
				ptr = p
			}
			off = next
		}
		if len(raw)-off < 10 {
			m.breakOff(section)
			return malformedNone
		}
		f := binary.BigEndian.Uint64(raw[off:])
		rdlen := int(binary.BigEndian.Uint16(raw[off+8:]))
		off += 10
		if len(raw)-off < rdlen {
			m.breakOff(section)
			return malformedNone
		}
		typ, class, ttl := uint16(f>>48), uint16(f>>32), uint32(f)
		m.rrs = append(m.rrs, rr{
			name: uint32(name), rdata: uint32(off), ttl: ttl,
			rdlen: uint16(rdlen), typ: typ, class: class, section: section,
		})
		if typ == rrTypeOPT && section == sectionAdditional && !m.opt {
			m.opt, m.udpSize = true, class
			m.extRcode, m.version, m.do = uint8(ttl>>24), uint8(ttl>>16), ttl&0x8000 != 0
			if rdlen != 0 {
				m.parseOptions(off, off+rdlen)
			}
		}
		off += rdlen
		count--
	}
}

// breakOff notes that the message ends within an RR of this section.
func (m *message) breakOff(section uint8) {
	switch section {
	case sectionAnswer:
		m.nAnswer = len(m.rrs)
		m.broken = brokenAnswer
	case sectionAuthority:
		m.nAuthority = len(m.rrs) - m.nAnswer
		m.broken = brokenAuthority
	default:
		m.broken = brokenAdditional
	}
}

// parseOptions reads the options in raw[off:end], the RDATA of an OPT RR (RFC 6891 §6.1.2).
func (m *message) parseOptions(off, end int) {
	const (
		optionECS = 8
		optionEDE = 15
	)
	room := edeTextMax
	for off < end {
		if end-off < 4 {
			m.broken = brokenOPT
			return
		}
		code, n := binary.BigEndian.Uint16(m.raw[off:]), int(binary.BigEndian.Uint16(m.raw[off+2:]))
		off += 4
		if end-off < n {
			m.broken = brokenOPT
			return
		}
		switch code {
		case optionECS:
			if m.ecsLen == 0 && validECS(m.raw[off:off+n]) {
				m.ecsOff, m.ecsLen = off, n
			}
		case optionEDE:
			if n >= 2 {
				text := n - 2
				// The text may end in a NUL, which is not part of it (RFC 8914 §2).
				if text > 0 && m.raw[off+n-1] == 0 {
					text--
				}
				if text > room || len(m.ede) == edeMax {
					m.edeCut = true
				}
				if len(m.ede) == edeMax {
					break
				}
				text = min(text, room)
				room -= text
				m.ede = append(m.ede, edeOption{code: binary.BigEndian.Uint16(m.raw[off:]), off: off + 2, n: text})
			}
		}
		off += n
	}
}

// validECS reports whether b is a well-formed client subnet option: prefix lengths that fit the family, and as many octets
// of the address as the source prefix needs (RFC 7871 §6). Family 0 is sent with an empty source, meaning "none of mine".
func validECS(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	longest := 0
	switch binary.BigEndian.Uint16(b) {
	case 0:
	case 1:
		longest = 32
	case 2:
		longest = 128
	default:
		return false
	}
	source, scope := int(b[2]), int(b[3])
	return source <= longest && scope <= longest && len(b) == 4+(source+7)/8
}

// appendECS appends m's client subnet as address/source, and with scope as address/source/scope. m must have one (ecsLen > 0).
func (m *message) appendECS(dst []byte, scope bool) []byte {
	b := m.raw[m.ecsOff : m.ecsOff+m.ecsLen]
	var a [16]byte
	copy(a[:], b[4:])
	if b[1] == 2 {
		dst = appendIPv6(dst, a[:])
	} else {
		dst = appendIPv4(dst, a[:4])
	}
	dst = appendUint(append(dst, '/'), uint64(b[2]))
	if scope {
		dst = appendUint(append(dst, '/'), uint64(b[3]))
	}
	return dst
}

// appendEDEText appends text, claimed to be UTF-8, as the inside of a JSON string (RFC 8259 §7): always valid UTF-8, an invalid byte
// becomes U+FFFD, control characters (DEL and the C1 set with them) are escaped.
func appendEDEText(dst []byte, text []byte) []byte {
	const hex = "0123456789abcdef"
	dst = slices.Grow(dst, len(text))
	for i := 0; i < len(text); {
		b := text[i]
		switch {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
			i++
		case b < ' ' || b == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
			i++
		case b < utf8.RuneSelf:
			dst = append(dst, b)
			i++
		default:
			r, n := utf8.DecodeRune(text[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				dst = append(dst, `\ufffd`...)
			case r < 0xa0:
				dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
			default:
				dst = append(dst, text[i:i+n]...)
			}
			i += n
		}
	}
	return dst
}

// The fields of the header's second word (RFC 1035 §4.1.1, RFC 4035 §3). rcode has the extended bits of EDNS in it.
func (m *message) response() bool { return m.flags&0x8000 != 0 }
func (m *message) opcode() int    { return int(m.flags >> 11 & 15) }
func (m *message) aa() bool       { return m.flags&0x0400 != 0 }
func (m *message) tc() bool       { return m.flags&0x0200 != 0 }
func (m *message) rd() bool       { return m.flags&0x0100 != 0 }
func (m *message) ra() bool       { return m.flags&0x0080 != 0 }
func (m *message) ad() bool       { return m.flags&0x0020 != 0 }
func (m *message) cd() bool       { return m.flags&0x0010 != 0 }
func (m *message) rcode() int     { return int(m.extRcode)<<4 | int(m.flags&15) }
