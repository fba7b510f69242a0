package main

// record_msgpack.go writes a lookup as msgpack maps (https://github.com/msgpack/msgpack/blob/master/spec.md).
//
// In: what record.go has just written as JSON, and the texts that it kept.
// Out: one map a record, appended to the worker's part: the same fields in the same order with the same values, strings
// as str (UTF-8, without JSON's escapes), numbers as int, booleans as bool, lists as array.
//
// Rules: append style, no reflection, no allocation; a map is header + prefix + RR + suffix, as a line is. Every header
// has the shortest form there is, so equal records are equal bytes; only a negative elapsed is an int 64 whatever its
// size. The length of a text is known when it is written: one byte is kept free before it (msgpackRoom), and
// closeMsgpackString makes a header of it, moving the text if it is longer than most.

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// First bytes of the msgpack forms in use. The ones of fixmap, fixarray and fixstr hold the length in their low bits.
const (
	msgpackFixMap   = 0x80
	msgpackFixArray = 0x90
	msgpackFixStr   = 0xa0
	msgpackUint8    = 0xcc
	msgpackUint16   = 0xcd
	msgpackUint32   = 0xce
	msgpackUint64   = 0xcf
	msgpackInt64    = 0xd3
	msgpackStr8     = 0xd9
	msgpackStr16    = 0xda
	msgpackStr32    = 0xdb
	msgpackArray16  = 0xdc
	msgpackMap16    = 0xde

	msgpackFalse    = "\xc2"
	msgpackTrue     = "\xc3"
	msgpackMinusOne = "\xff"

	msgpackRoom = "\x00"
)

// msgpackParts is what an encoder keeps for msgpack: the constant fields, and the parts that are the same for all RRs
// of a lookup.
type msgpackParts struct {
	sensor []byte // the field, key and value
	level  []byte // likewise, or empty
	prefix []byte
	suffix []byte
	fields int // in prefix and suffix together
}

func newMsgpackParts(sensor, level string) (p msgpackParts) {
	p.sensor = append(p.sensor, "\xa6sensor"+msgpackRoom...)
	at := len(p.sensor)
	p.sensor = closeMsgpackString(appendUTF8(p.sensor, []byte(sensor)), at)
	if level != "" {
		p.level = append(p.level, "\xa5level"+msgpackRoom...)
		at := len(p.level)
		p.level = closeMsgpackString(appendUTF8(p.level, []byte(level)), at)
	}
	return p
}

// msgpackFlags holds the six header flags as fields, by flagIndex, as headerFlags does in JSON.
var msgpackFlags = func() (t [64]string) {
	for i := range t {
		for k, name := range flagNames {
			t[i] += string(appendMsgpackString(nil, name))
			if i>>k&1 == 1 {
				t[i] += msgpackTrue
			} else {
				t[i] += msgpackFalse
			}
		}
	}
	return t
}()

// appendMsgpackString appends s, which is valid UTF-8, as a str.
func appendMsgpackString[T string | []byte](b []byte, s T) []byte {
	if len(s) < 32 {
		b = append(b, msgpackFixStr|byte(len(s)))
		return append(b, s...)
	}
	b = append(b, msgpackRoom...)
	at := len(b)
	return closeMsgpackString(append(b, s...), at)
}

// closeMsgpackString makes a str of the text b[at:] and the byte that was kept free before it.
func closeMsgpackString(b []byte, at int) []byte {
	if n := len(b) - at; n < 32 {
		b[at-1] = msgpackFixStr | byte(n)
		return b
	}
	return closeLongMsgpackString(b, at)
}

func closeLongMsgpackString(b []byte, at int) []byte {
	n := len(b) - at
	switch {
	case n <= 0xff:
		b = append(b, 0)
		copy(b[at+1:], b[at:])
		b[at-1], b[at] = msgpackStr8, byte(n)
	case n <= 0xffff:
		b = append(b, 0, 0)
		copy(b[at+2:], b[at:])
		b[at-1] = msgpackStr16
		binary.BigEndian.PutUint16(b[at:], uint16(n))
	default:
		b = append(b, 0, 0, 0, 0)
		copy(b[at+4:], b[at:])
		b[at-1] = msgpackStr32
		binary.BigEndian.PutUint32(b[at:], uint32(n))
	}
	return b
}

// appendUTF8 appends text, claimed to be UTF-8, an invalid byte as U+FFFD: what appendEDEText means.
func appendUTF8(dst, text []byte) []byte {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		dst = utf8.AppendRune(dst, r)
		text = text[n:]
	}
	return dst
}

// appendMsgpackUint appends v in its shortest form.
func appendMsgpackUint(b []byte, v uint64) []byte {
	switch {
	case v < 0x80:
		return append(b, byte(v))
	case v <= 0xff:
		return append(b, msgpackUint8, byte(v))
	case v <= 0xffff:
		return append(b, msgpackUint16, byte(v>>8), byte(v))
	case v <= 0xffffffff:
		return binary.BigEndian.AppendUint32(append(b, msgpackUint32), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(b, msgpackUint64), v)
}

// appendMsgpackArray appends the header of an array of n elements. A message of 64 KiB has fewer than 65,536 RRs, and
// fewer EDNS options.
func appendMsgpackArray(b []byte, n int) []byte {
	if n < 16 {
		return append(b, msgpackFixArray|byte(n))
	}
	return append(b, msgpackArray16, byte(n>>8), byte(n))
}

// msgpackPrefix encodes the fields up to status; encodePrefix has been called for the same lookup.
func (e *encoder) msgpackPrefix(w *worker, l *lookup, m *message, vlan uint16, status uint8) {
	n := 12
	b := append(e.mp.prefix[:0], "\xa6tstamp\xbe"...)
	b = append(b, e.head[headTime:headTime+timeLen]...)
	b = append(b, e.mp.sensor...)
	b = append(b, "\xa8query_id"...)
	b = appendMsgpackUint(b, uint64(binary.BigEndian.Uint16(l.key[36:])))
	b = append(b, "\xa3src"+msgpackRoom...)
	at := len(b)
	b = appendAddr(b, l.key[0:16], l.key[38]&viewV6 != 0)
	b = closeMsgpackString(b, at)
	b = append(b, "\xa5sport"+msgpackRoom...)
	at = len(b)
	b = appendUint(b, uint64(binary.BigEndian.Uint16(l.key[32:])))
	b = closeMsgpackString(b, at)
	b = append(b, "\xa3dst"+msgpackRoom...)
	at = len(b)
	b = appendAddr(b, l.key[16:32], l.key[38]&viewV6 != 0)
	b = closeMsgpackString(b, at)
	b = append(b, "\xa5dport"+msgpackRoom...)
	at = len(b)
	b = appendUint(b, uint64(binary.BigEndian.Uint16(l.key[34:])))
	b = closeMsgpackString(b, at)
	if l.key[38]&keyTCP != 0 {
		b = append(b, "\xa8protocol\xa3tcp"...)
	} else {
		b = append(b, "\xa8protocol\xa3udp"...)
	}
	if vlan != 0 {
		n++
		b = append(b, "\xa4vlan"...)
		b = appendMsgpackUint(b, uint64(vlan))
	}
	if op := lookupOpcode(l, m); op != 0 {
		n++
		b = append(b, "\xa6opcode"+msgpackRoom...)
		at = len(b)
		b = appendOpcode(b, op)
		b = closeMsgpackString(b, at)
	}
	b = append(b, "\xa1q"...)
	if e.qesc {
		b = append(b, msgpackRoom...)
		at = len(b)
		b, _, _, _ = appendName(b, w.tab.nameOf(l), 0) // was accepted before
		b = closeMsgpackString(b, at)
	} else {
		b = appendMsgpackString(b, e.prefix[e.q[0]:e.q[1]])
	}
	b = append(b, "\xa5qtype"+msgpackRoom...)
	at = len(b)
	if l.nameLen != 0 {
		b = appendType(b, l.qtype)
	}
	b = closeMsgpackString(b, at)
	if l.nameLen != 0 && l.qclass != classIN {
		n++
		b = append(b, "\xa6qclass"+msgpackRoom...)
		at = len(b)
		b = appendClass(b, l.qclass)
		b = closeMsgpackString(b, at)
	}
	b = append(b, "\xa5rcode"...)
	if m != nil {
		b = appendMsgpackUint(b, uint64(m.rcode()))
	} else {
		b = append(b, msgpackMinusOne...)
	}
	b = append(b, "\xa6status"...)
	e.mp.prefix = appendMsgpackString(b, statusNames[status])
	e.mp.fields = n
}

// msgpackSuffix encodes the fields from elapsed on; msgpackPrefix has been called before.
func (e *encoder) msgpackSuffix(w *worker, l *lookup, m *message, elapsed int64, bytes int, cut bool, status uint8, paired bool) {
	solicited := status != statusUnsolicited
	n := 1 + len(flagNames)
	b := e.mp.suffix[:0]
	if paired {
		n++
		b = append(b, "\xa7elapsed"...)
		if elapsed < 0 {
			b = binary.BigEndian.AppendUint64(append(b, msgpackInt64), uint64(elapsed))
		} else {
			b = appendMsgpackUint(b, uint64(elapsed))
		}
	}
	if solicited && l.attempts > 1 {
		n++
		b = append(b, "\xa8attempts"...)
		b = appendMsgpackUint(b, uint64(l.attempts))
	}
	b = append(b, "\xa5bytes"...)
	b = appendMsgpackUint(b, uint64(bytes))
	if solicited {
		n++
		b = append(b, "\xa6qbytes"...)
		b = appendMsgpackUint(b, uint64(l.qbytes))
	}
	b = append(b, msgpackFlags[flagIndex(l, m, solicited)]...)
	if solicited && l.flags&lookupEDNS != 0 {
		n += 2
		b = append(b, "\xa8edns_udp"...)
		b = appendMsgpackUint(b, uint64(l.udpSize))
		if l.flags&lookupDO != 0 {
			b = append(b, "\xa2do"+msgpackTrue...)
		} else {
			b = append(b, "\xa2do"+msgpackFalse...)
		}
	}
	if solicited && l.ecsLen != 0 || m != nil && m.ecsLen != 0 {
		n++
		b = append(b, "\xa3ecs"+msgpackRoom...)
		at := len(b)
		b = e.appendECS(b, w, l, m, solicited)
		b = closeMsgpackString(b, at)
	}
	if m != nil && len(m.ede) > 0 {
		n++
		b = append(b, "\xa3ede"...)
		b = appendMsgpackArray(b, len(m.ede))
		for _, o := range m.ede {
			b = append(b, msgpackFixMap|2)
			b = append(b, "\xa4code"...)
			b = appendMsgpackUint(b, uint64(o.code))
			b = append(b, "\xa4text"+msgpackRoom...)
			at := len(b)
			b = appendUTF8(b, m.raw[o.off:o.off+o.n])
			b = closeMsgpackString(b, at)
		}
	}
	if cut || solicited && l.flags&lookupCut != 0 {
		n++
		b = append(b, "\xa3cut"+msgpackTrue...)
	}
	if len(e.mp.level) != 0 {
		n++
	}
	e.mp.suffix = append(b, e.mp.level...)
	e.mp.fields += n
}

// beginMap appends the header of a record with n fields besides those of prefix and suffix, and the prefix. A record
// has at least 19 fields, more than a fixmap can hold, and at most 40.
func (p *msgpackParts) beginMap(b []byte, n int) []byte {
	b = append(b, msgpackMap16, 0, byte(p.fields+n))
	return append(b, p.prefix...)
}

// msgpackRR appends the record of one RR.
func (e *encoder) msgpackRR(b []byte, m *message, r *rr) []byte {
	n := 4
	if r.section != sectionAnswer {
		n++
	}
	b = e.mp.beginMap(b, n)
	b = append(b, "\xa5aname"+msgpackRoom...)
	at := len(b)
	b, _ = e.appendOwner(b, m, r)
	b = closeMsgpackString(b, at)
	b = append(b, "\xa5atype"+msgpackRoom...)
	at = len(b)
	b = appendType(b, r.typ)
	b = closeMsgpackString(b, at)
	b = append(b, "\xa1a"+msgpackRoom...)
	at = len(b)
	b, _ = appendRDATA(b, m.raw, int(r.rdata), int(r.rdlen), r.typ)
	b = closeMsgpackString(b, at)
	b = append(b, "\xa3ttl"...)
	b = appendMsgpackUint(b, uint64(r.ttl))
	switch r.section {
	case sectionAuthority:
		b = append(b, "\xa7section\xa9authority"...)
	case sectionAdditional:
		b = append(b, "\xa7section\xaaadditional"...)
	}
	return append(b, e.mp.suffix...)
}

// msgpackNoRR appends the record of a lookup without RRs.
func (e *encoder) msgpackNoRR(b []byte, m *message) []byte {
	b = e.mp.beginMap(b, 3)
	b = append(b, "\xa5atype\xa0\xa1a"+msgpackRoom...)
	at := len(b)
	if m != nil && m.rcode() != rcodeNoError {
		b = appendRcode(b, m.rcode())
	}
	b = closeMsgpackString(b, at)
	b = append(b, "\xa3ttl\x00"...)
	return append(b, e.mp.suffix...)
}

// msgpackSections are the array fields of -layout lookup by section.
var msgpackSections = [3]string{"\xa7answers", "\xabauthorities", "\xabadditionals"}

// msgpackLookup appends the record of a lookup with all its RRs (-layout lookup).
func (e *encoder) msgpackLookup(b []byte, m *message) []byte {
	b = e.mp.beginMap(b, bits.OnesCount8(uint8(e.sections)))
	for s, name := range msgpackSections {
		if e.sections>>s&1 == 0 {
			continue
		}
		b = append(b, name...)
		if m != nil {
			b = e.msgpackSection(b, m, uint8(s))
		} else {
			b = append(b, msgpackFixArray)
		}
	}
	return append(b, e.mp.suffix...)
}

func (e *encoder) msgpackSection(b []byte, m *message, section uint8) []byte {
	n := 0
	for i := range m.rrs {
		if r := &m.rrs[i]; r.section == section && !r.pseudo() {
			n++
		}
	}
	b = appendMsgpackArray(b, n)
	for i := range m.rrs {
		r := &m.rrs[i]
		if r.section != section || r.pseudo() {
			continue
		}
		if r.class == classIN {
			b = append(b, msgpackFixMap|4)
		} else {
			b = append(b, msgpackFixMap|5)
		}
		b = append(b, "\xa4name"+msgpackRoom...)
		at := len(b)
		b, _ = e.appendOwner(b, m, r)
		b = closeMsgpackString(b, at)
		b = append(b, "\xa4type"+msgpackRoom...)
		at = len(b)
		b = appendType(b, r.typ)
		b = closeMsgpackString(b, at)
		if r.class != classIN {
			b = append(b, "\xa5class"+msgpackRoom...)
			at = len(b)
			b = appendClass(b, r.class)
			b = closeMsgpackString(b, at)
		}
		b = append(b, "\xa3ttl"...)
		b = appendMsgpackUint(b, uint64(r.ttl))
		b = append(b, "\xa4data"+msgpackRoom...)
		at = len(b)
		b, _ = appendRDATA(b, m.raw, int(r.rdata), int(r.rdlen), r.typ)
		b = closeMsgpackString(b, at)
	}
	return b
}
