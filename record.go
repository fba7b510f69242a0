package main

// record.go writes a lookup as JSON lines, in the order of fields that README's record table gives.
//
// In: a lookup of the connection table, and its response in parsed form where there is one.
// Out: lines appended to the worker's part.
//
// Rules: append style, no reflection, no allocation. A line is prefix + RR + suffix; prefix and suffix are the same for
// all RRs of a lookup, so they are encoded once and copied. Presentation form is printable ASCII, so only '"' and '\'
// need escapes; decoders report when they wrote one, and the text is escaped in place then. The msgpack form of the same
// fields is in record_msgpack.go.

import (
	"encoding/binary"
	"slices"
	"time"
)

// Lookup statuses; the values index statusNames and workerCounters.status.
const (
	statusAnswer = iota + 1
	statusNodata
	statusReferral
	statusNXDomain
	statusError
	statusUnanswered
	statusUnsolicited
	statusCount
)

var statusNames = [statusCount]string{"", "answer", "nodata", "referral", "nxdomain", "error", "unanswered", "unsolicited"}

// Numbers that the rest of the program has to know by meaning (IANA DNS parameters).
const (
	typeNS   = 2
	typeSOA  = 6
	typeOPT  = 41
	typeTSIG = 250
	typeIXFR = 251
	typeAXFR = 252
	classIN  = 1

	rcodeNoError  = 0
	rcodeNXDomain = 3
)

// encoder is one worker's record writer: what is constant over a run, and scratch space.
type encoder struct {
	head     []byte // JSON up to query_id, of the current second
	level    []byte // JSON: ,"level":"NAME" or empty
	sections sectionSet
	perRR    bool // one line an RR; otherwise one a lookup
	msgpack  bool // records are wanted in this form too

	second   int64  // the second whose text head holds
	prefix   []byte // of the current lookup; where the part holds its first line, or in scratch
	first    bool   // the prefix was just encoded in place: the next line need not copy it
	scratch  []byte
	suffix   []byte
	qesc     bool   // the question's text holds escapes
	q        [2]int // where prefix holds the question's text, for owner names that point to it
	owner    []byte // text of the last owner name that was a pointer
	ownerPtr uint16
	ownerSet bool
	ownerEsc bool
	servers  [cacheLen]serverText
	outcomes [cacheLen]outcomeText
	mp       msgpackParts
}

// newEncoder makes an encoder for records of the sensor named.
func newEncoder(sensor, level string, sections sectionSet, perRR, wantMsgpack bool) encoder {
	e := encoder{sections: sections, perRR: perRR, msgpack: wantMsgpack, second: -1 << 62}
	e.head = append(e.head, `{"tstamp":"2006-01-02T15:04:05.000000000Z","sensor":"`...)
	e.head = appendJSONText(e.head, sensor)
	e.head = append(e.head, `","query_id":`...)
	if level != "" {
		e.level = append(e.level, `,"level":"`...)
		e.level = appendJSONText(e.level, level)
		e.level = append(e.level, '"')
	}
	e.mp = newMsgpackParts(sensor, level)
	return e
}

// appendJSONText appends s as the inside of a JSON string (RFC 8259 §7), always valid UTF-8.
func appendJSONText(dst []byte, s string) []byte {
	return appendEDEText(dst, []byte(s))
}

// escapeTail escapes '"' and '\' in b[from:], which holds printable ASCII, in place.
func escapeTail(b []byte, from int) []byte {
	n := 0
	for _, c := range b[from:] {
		if c == '"' || c == '\\' {
			n++
		}
	}
	if n == 0 {
		return b
	}
	b = slices.Grow(b, n)
	r := len(b) - 1
	b = b[:len(b)+n]
	for w := len(b) - 1; w > r; {
		c := b[r]
		b[w] = c
		r--
		w--
		if c == '"' || c == '\\' {
			b[w] = '\\'
			w--
		}
	}
	return b
}

// Where a time's text begins in head, and its fraction digits.
const (
	headTime = len(`{"tstamp":"`)
	headFrac = headTime + len("2006-01-02T15:04:05.")
	timeLen  = len("2006-01-02T15:04:05.000000000Z")
)

// setTime puts ns since 1970 UTC into head as RFC 3339 with nine fraction digits.
func (e *encoder) setTime(ns int64) {
	sec := ns / 1e9
	frac := ns % 1e9
	if frac < 0 {
		frac += 1e9
		sec--
	}
	if sec != e.second {
		e.second = sec
		time.Unix(sec, 0).UTC().AppendFormat(e.head[headTime:headTime], "2006-01-02T15:04:05")
	}
	d := e.head[headFrac : headFrac+9 : headFrac+9]
	for i := 8; i > 0; i -= 2 {
		j := frac % 100 * 2
		frac /= 100
		d[i], d[i-1] = digitPairs[j+1], digitPairs[j]
	}
	d[0] = byte('0' + frac)
}

// flagNames are the fields of the six header flags, from bit 0 of flagIndex on.
var flagNames = [...]string{"aa", "rd", "ra", "truncated", "ad", "cd"}

// headerFlags holds the JSON of the six header flags by aa|rd<<1|ra<<2|tc<<3|ad<<4|cd<<5, since one copy is
// cheaper than six choices.
var headerFlags = func() (t [64]string) {
	for i := range t {
		for k, name := range flagNames {
			t[i] += `,"` + name + `":`
			if i>>k&1 == 1 {
				t[i] += "true"
			} else {
				t[i] += "false"
			}
		}
	}
	return t
}()

// flagIndex is the index of a lookup's flags in headerFlags. The header's bits are those of RFC 1035 §4.1.1 and RFC 4035 §3.
func flagIndex(l *lookup, m *message, solicited bool) int {
	i := 0
	if m != nil {
		f := int(m.flags)
		i = f>>10&1 | f>>7&1<<2 | f>>9&1<<3 | f>>5&1<<4
		if !solicited {
			return i | f>>8&1<<1 | f>>4&1<<5
		}
	}
	if l.flags&lookupRD != 0 {
		i |= 1 << 1
	}
	if l.flags&lookupCD != 0 {
		i |= 1 << 5
	}
	return i
}

// status classifies a response (RFC 2308 §2.1 and §2.2 for nodata and referral).
func (m *message) status() uint8 {
	switch m.rcode() {
	case rcodeNoError:
	case rcodeNXDomain:
		return statusNXDomain
	default:
		return statusError
	}
	if m.an > 0 { // by the header: the RRs themselves may be cut off
		return statusAnswer
	}
	if !m.aa() {
		ns := false
		for i := range m.rrs[m.nAnswer : m.nAnswer+m.nAuthority] {
			switch m.rrs[m.nAnswer+i].typ {
			case typeSOA:
				return statusNodata
			case typeNS:
				ns = true
			}
		}
		if ns {
			return statusReferral
		}
	}
	return statusNodata
}

// lookup writes the lines of one lookup: l as the table holds it, m its response (nil where there is none). tstamp and
// elapsed are ns, bytes the response's length on the wire, vlan the tag of the packet that tstamp is of. status is 0
// for a matched lookup, whose status is then found in m.
func (e *encoder) lookup(w *worker, l *lookup, m *message, tstamp, elapsed int64, bytes int, cut bool, vlan uint16, status uint8) {
	paired := status == 0
	if paired {
		status = m.status()
	}
	w.count.status[status]++
	e.encodePrefix(w, l, m, tstamp, vlan, status)
	e.encodeSuffix(w, l, m, elapsed, bytes, cut, status, paired)
	if e.msgpack {
		e.msgpackPrefix(w, l, m, vlan, status)
		e.msgpackSuffix(w, l, m, elapsed, bytes, cut, status, paired)
	}
	if !e.perRR {
		e.oneLine(w, m)
		return
	}
	e.presetOwner(w, l, m)
	lines := 0
	if m != nil {
		for i := range m.rrs {
			r := &m.rrs[i]
			if e.sections>>r.section&1 == 0 || r.pseudo() {
				continue
			}
			w.cur.json = e.rrLine(w.cur.json, m, r)
			if e.msgpack {
				w.cur.msgp = e.msgpackRR(w.cur.msgp, m, r)
			}
			w.lineDone()
			lines++
		}
	}
	if lines == 0 {
		b := append(e.line(w.cur.json), `,"atype":"","a":"`...)
		if m != nil && m.rcode() != rcodeNoError {
			b = appendRcode(b, m.rcode())
		}
		b = append(b, `","ttl":0`...)
		w.cur.json = append(b, e.suffix...)
		if e.msgpack {
			w.cur.msgp = e.msgpackNoRR(w.cur.msgp, m)
		}
		w.lineDone()
	}
}

// encodePrefix encodes the fields up to status.
func (e *encoder) encodePrefix(w *worker, l *lookup, m *message, tstamp int64, vlan uint16, status uint8) {
	at := len(w.cur.json)
	e.setTime(tstamp)
	b := append(slices.Grow(w.cur.json, lineRoom), e.head...)
	b = appendUint(b, uint64(binary.BigEndian.Uint16(l.key[36:])))
	b = append(b, `,"src":"`...)
	b = appendAddr(b, l.key[0:16], l.key[38]&viewV6 != 0)
	b = append(b, `","sport":"`...)
	b = appendUint(b, uint64(binary.BigEndian.Uint16(l.key[32:])))
	c := e.server(&l.key)
	if op := lookupOpcode(l, m); op == 0 && vlan == 0 {
		b = append(b, c.txt[:c.n]...)
	} else {
		b = append(b, c.txt[:int(c.n)-len(serverTail)]...)
		if vlan != 0 {
			b = append(b, `,"vlan":`...)
			b = appendUint(b, uint64(vlan))
		}
		if op != 0 {
			b = append(b, `,"opcode":"`...)
			b = appendOpcode(b, op)
			b = append(b, '"')
		}
		b = append(b, serverTail...)
	}
	e.q[0] = len(b)
	e.qesc = false
	if l.nameLen != 0 {
		b, e.qesc = appendStoredName(b, w.tab.nameOf(l))
		if e.qesc {
			b = escapeTail(b, e.q[0])
		}
	}
	e.q[1] = len(b)
	rcode := -1
	if m != nil {
		rcode = m.rcode()
	}
	if l.nameLen == 0 || l.qclass != classIN {
		w.cur.json = appendOutcome(b, l.nameLen != 0, l.qtype, l.qclass, rcode, status)
	} else {
		w.cur.json = append(b, e.outcome(l.qtype, rcode, status)...)
	}
	e.prefix = w.cur.json[at:]
	e.q[0] -= at
	e.q[1] -= at
	e.first = true
}

// lineRoom is the room that is made for a line's fixed parts, so that most lines need no further growth.
const lineRoom = 1024

// cacheLen is how many servers' and outcomes' texts an encoder keeps. A sensor sees few servers, question types and
// response codes, so nearly every line finds them there; one copy replaces putting them together.
const cacheLen = 32

// serverText is the JSON from the server's address to the question, for one server.
type serverText struct {
	key lookupKey // of the server: the rest is zero
	n   uint8
	txt [104]byte
}

const serverTail = `,"q":"`

// server returns the text of a lookup's server.
func (e *encoder) server(key *lookupKey) *serverText {
	var k lookupKey
	copy(k[16:32], key[16:32])
	k[34], k[35], k[38] = key[34], key[35], key[38]
	c := &e.servers[(k[31]^k[27]*7^k[35]^k[38]>>3)%cacheLen]
	if c.n == 0 || c.key != k {
		t := append(c.txt[:0], `","dst":"`...)
		t = appendAddr(t, k[16:32], k[38]&viewV6 != 0)
		t = append(t, `","dport":"`...)
		t = appendUint(t, uint64(binary.BigEndian.Uint16(k[34:])))
		if k[38]&keyTCP != 0 {
			t = append(t, `","protocol":"tcp"`...)
		} else {
			t = append(t, `","protocol":"udp"`...)
		}
		t = append(t, serverTail...)
		c.key, c.n = k, uint8(len(t))
	}
	return c
}

// outcomeText is the JSON from the question's end to the status, for one type of question of class IN and one result.
type outcomeText struct {
	qtype  uint16
	status uint8
	n      uint8
	rcode  int16
	txt    [72]byte
}

// outcome returns the text of a question's type, the response code and the status.
func (e *encoder) outcome(qtype uint16, rcode int, status uint8) []byte {
	c := &e.outcomes[(qtype^uint16(rcode)<<3^uint16(status)<<1)%cacheLen]
	if c.n == 0 || c.qtype != qtype || c.rcode != int16(rcode) || c.status != status {
		t := appendOutcome(c.txt[:0], true, qtype, classIN, rcode, status)
		c.qtype, c.rcode, c.status, c.n = qtype, int16(rcode), status, uint8(len(t))
	}
	return c.txt[:c.n]
}

// appendOutcome appends the fields from the end of the question to status.
func appendOutcome(b []byte, asked bool, qtype, qclass uint16, rcode int, status uint8) []byte {
	b = append(b, `","qtype":"`...)
	if asked {
		b = appendType(b, qtype)
		if qclass != classIN {
			b = append(b, `","qclass":"`...)
			b = appendClass(b, qclass)
		}
	}
	b = append(b, `","rcode":`...)
	if rcode >= 0 {
		b = appendUint(b, uint64(rcode))
	} else {
		b = append(b, `-1`...)
	}
	b = append(b, `,"status":"`...)
	b = append(b, statusNames[status]...)
	return append(b, '"')
}

// typeTexts is the JSON between an RR's owner and its data, for the types that have a mnemonic.
var typeTexts = func() (t [len(typeNames)]string) {
	for i := range t {
		t[i] = string(appendTypeText(nil, uint16(i)))
	}
	return t
}()

func appendTypeText(b []byte, typ uint16) []byte {
	b = append(b, `","atype":"`...)
	b = appendType(b, typ)
	return append(b, `","a":"`...)
}

// keep moves the prefix out of a part that is about to be sent, for the lines that may follow.
func (e *encoder) keep() {
	e.scratch = append(e.scratch[:0], e.prefix...)
	e.prefix = e.scratch
}

// line begins a line with the prefix, which is already there for the first one.
func (e *encoder) line(b []byte) []byte {
	if e.first {
		e.first = false
		return b
	}
	return append(b, e.prefix...)
}

// pseudo says whether r belongs to the message and not to its contents: such RRs are in no record.
func (r *rr) pseudo() bool { return r.typ == typeOPT || r.typ == typeTSIG }

// lookupOpcode is the opcode of the query, or of the response where no query was seen.
func lookupOpcode(l *lookup, m *message) int {
	if l.state == stateWaiting && m != nil {
		return m.opcode()
	}
	return int(l.opcode)
}

// encodeSuffix encodes the fields from elapsed on, with the line's end.
func (e *encoder) encodeSuffix(w *worker, l *lookup, m *message, elapsed int64, bytes int, cut bool, status uint8, paired bool) {
	solicited := status != statusUnsolicited
	b := e.suffix[:0]
	if paired {
		b = append(b, `,"elapsed":`...)
		if elapsed < 0 {
			b = append(b, '-')
			elapsed = -elapsed
		}
		b = appendUint(b, uint64(elapsed))
	}
	if solicited && l.attempts > 1 {
		b = append(b, `,"attempts":`...)
		b = appendUint(b, uint64(l.attempts))
	}
	b = append(b, `,"bytes":`...)
	b = appendUint(b, uint64(bytes))
	if solicited {
		b = append(b, `,"qbytes":`...)
		b = appendUint(b, uint64(l.qbytes))
	}
	b = append(b, headerFlags[flagIndex(l, m, solicited)]...)
	if solicited && l.flags&lookupEDNS != 0 {
		b = append(b, `,"edns_udp":`...)
		b = appendUint(b, uint64(l.udpSize))
		if l.flags&lookupDO != 0 {
			b = append(b, `,"do":true`...)
		} else {
			b = append(b, `,"do":false`...)
		}
	}
	if solicited && l.ecsLen != 0 || m != nil && m.ecsLen != 0 {
		b = append(b, `,"ecs":"`...)
		b = e.appendECS(b, w, l, m, solicited)
		b = append(b, '"')
	}
	if m != nil && len(m.ede) > 0 {
		b = append(b, `,"ede":[`...)
		for i, o := range m.ede {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"code":`...)
			b = appendUint(b, uint64(o.code))
			b = append(b, `,"text":"`...)
			b = appendEDEText(b, m.raw[o.off:o.off+o.n])
			b = append(b, `"}`...)
		}
		b = append(b, ']')
	}
	if cut || solicited && l.flags&lookupCut != 0 {
		b = append(b, `,"cut":true`...)
	}
	b = append(b, e.level...)
	e.suffix = append(b, "}\n"...)
}

// appendECS appends the client subnet: the query's address and source prefix length, and the scope where the response
// has the option (RFC 7871 §6).
func (e *encoder) appendECS(b []byte, w *worker, l *lookup, m *message, solicited bool) []byte {
	var opt []byte
	scope := -1
	if m != nil && m.ecsLen != 0 {
		opt = m.raw[m.ecsOff : m.ecsOff+m.ecsLen]
		scope = int(opt[3])
	}
	if solicited && l.ecsLen != 0 {
		opt = w.tab.ecsOf(l)
	}
	var a [16]byte
	copy(a[:], opt[4:])
	if opt[1] == 2 {
		b = appendIPv6(b, a[:])
	} else {
		b = appendIPv4(b, a[:4])
	}
	b = append(b, '/')
	b = appendUint(b, uint64(opt[2]))
	if scope >= 0 {
		b = append(b, '/')
		b = appendUint(b, uint64(scope))
	}
	return b
}

// appendAddr appends a key's address (IPv4-mapped unless v6).
func appendAddr(dst, a []byte, v6 bool) []byte {
	if v6 {
		return appendIPv6(dst, a)
	}
	return appendIPv4(dst, a[12:16])
}

// presetOwner makes the question's text, which the prefix holds, the text of owner names that point to the question,
// where the response repeats it to the letter.
func (e *encoder) presetOwner(w *worker, l *lookup, m *message) {
	e.ownerSet = false
	if m != nil && m.hasQuestion && !e.qesc && string(m.raw[m.qname:m.qend]) == string(w.tab.nameOf(l)) {
		e.owner = append(e.owner[:0], e.prefix[e.q[0]:e.q[1]]...)
		e.ownerPtr, e.ownerSet, e.ownerEsc = 0xc000|dnsHeaderLen, true, false
	}
}

// rrLine appends the line of one RR.
func (e *encoder) rrLine(b []byte, m *message, r *rr) []byte {
	b = append(e.line(b), `,"aname":"`...)
	b = e.appendEscapedOwner(b, m, r)
	if int(r.typ) < len(typeTexts) {
		b = append(b, typeTexts[r.typ]...)
	} else {
		b = appendTypeText(b, r.typ)
	}
	b = appendEscapedRDATA(b, m, r)
	b = append(b, `","ttl":`...)
	b = appendUint(b, uint64(r.ttl))
	switch r.section {
	case sectionAuthority:
		b = append(b, `,"section":"authority"`...)
	case sectionAdditional:
		b = append(b, `,"section":"additional"`...)
	}
	return append(b, e.suffix...)
}

func appendEscapedRDATA(b []byte, m *message, r *rr) []byte {
	at := len(b)
	b, esc := appendRDATA(b, m.raw, int(r.rdata), int(r.rdlen), r.typ)
	if esc {
		b = escapeTail(b, at)
	}
	return b
}

func (e *encoder) appendEscapedOwner(b []byte, m *message, r *rr) []byte {
	at := len(b)
	b, esc := e.appendOwner(b, m, r)
	if esc {
		b = escapeTail(b, at)
	}
	return b
}

// appendOwner appends r's owner name; esc is true if the text contains a '"' or a '\'. Most owners are a pointer to the
// question or the same pointer as the RR before, so that text is copied instead of decoded again.
func (e *encoder) appendOwner(b []byte, m *message, r *rr) (out []byte, esc bool) {
	p := binary.BigEndian.Uint16(m.raw[r.name:])
	isPtr := p >= 0xc000
	if isPtr && e.ownerSet && p == e.ownerPtr {
		return append(b, e.owner...), e.ownerEsc
	}
	at := len(b)
	b, _, esc, _ = appendName(b, m.raw, int(r.name)) // was accepted before
	if isPtr {
		e.owner = append(e.owner[:0], b[at:]...)
		e.ownerPtr, e.ownerSet, e.ownerEsc = p, true, esc
	}
	return b, esc
}

// oneLine writes a lookup as one record (-layout lookup).
func (e *encoder) oneLine(w *worker, m *message) {
	b := e.line(w.cur.json)
	e.ownerSet = false
	for s, name := range sectionArrays {
		if e.sections>>s&1 == 0 {
			continue
		}
		b = append(b, name...)
		if m != nil {
			b = e.appendSection(b, m, uint8(s))
		}
		b = append(b, ']')
	}
	w.cur.json = append(b, e.suffix...)
	if e.msgpack {
		w.cur.msgp = e.msgpackLookup(w.cur.msgp, m)
	}
	w.lineDone()
}

// sectionArrays are the array fields of -layout lookup by section.
var sectionArrays = [3]string{`,"answers":[`, `,"authorities":[`, `,"additionals":[`}

func (e *encoder) appendSection(b []byte, m *message, section uint8) []byte {
	first := true
	for i := range m.rrs {
		r := &m.rrs[i]
		if r.section != section || r.pseudo() {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		if len(b) > partKeep && cap(b)-len(b) < partKeep/16 {
			b = slices.Grow(b, cap(b)) // a huge line: append's own steps would copy it five times
		}
		b = append(b, `{"name":"`...)
		b = e.appendEscapedOwner(b, m, r)
		b = append(b, `","type":"`...)
		b = appendType(b, r.typ)
		if r.class != classIN {
			b = append(b, `","class":"`...)
			b = appendClass(b, r.class)
		}
		b = append(b, `","ttl":`...)
		b = appendUint(b, uint64(r.ttl))
		b = append(b, `,"data":"`...)
		b = appendEscapedRDATA(b, m, r)
		b = append(b, `"}`...)
	}
	return b
}
