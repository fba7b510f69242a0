package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/miekg/dns"
)

// zoneRRs parses zone text.
func zoneRRs(t testing.TB, text ...string) (rrs []dns.RR) {
	t.Helper()
	for _, s := range text {
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}
	return rrs
}

// packedQuery is a query with EDNS, packedResponse its answer: a CNAME and three addresses.
func packedQuery(t testing.TB) []byte {
	t.Helper()
	q := new(dns.Msg).SetQuestion("www.Example.com.", dns.TypeA)
	q.Id = 0x1234
	q.SetEdns0(1232, true)
	raw, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func packedResponse(t testing.TB) []byte {
	t.Helper()
	q := new(dns.Msg).SetQuestion("www.Example.com.", dns.TypeA)
	q.Id = 0x1234
	r := new(dns.Msg).SetReply(q)
	r.Compress = true
	r.RecursionAvailable = true
	r.Answer = zoneRRs(t,
		"www.Example.com. 300 IN CNAME web.example.net.",
		"web.example.net. 60 IN A 192.0.2.1", "web.example.net. 60 IN A 192.0.2.2", "web.example.net. 60 IN A 192.0.2.3")
	r.SetEdns0(4096, false)
	raw, err := r.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestParseResponse(t *testing.T) {
	raw := packedResponse(t)
	var m message
	if got := m.parse(raw); got != malformedNone {
		t.Fatal(malformedNames[got])
	}
	want := message{
		raw: raw, id: 0x1234, flags: 0x8180, qd: 1, an: 4, ar: 1,
		hasQuestion: true, qplain: true, qname: 12, qend: 29, qtype: 1, qclass: 1,
		rrs: []rr{
			{name: 33, rdata: 45, ttl: 300, rdlen: 17, typ: rrTypeCNAME, class: 1},
			{name: 62, rdata: 74, ttl: 60, rdlen: 4, typ: rrTypeA, class: 1},
			{name: 78, rdata: 90, ttl: 60, rdlen: 4, typ: rrTypeA, class: 1},
			{name: 94, rdata: 106, ttl: 60, rdlen: 4, typ: rrTypeA, class: 1},
			{name: 110, rdata: 121, typ: rrTypeOPT, class: 4096, section: sectionAdditional},
		},
		nAnswer: 4, opt: true, udpSize: 4096,
	}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("\n got %+v\nwant %+v", m, want)
	}
	// The same message object reads another message as a fresh one would.
	query := packedQuery(t)
	var fresh message
	if m.parse(query) != malformedNone || fresh.parse(query) != malformedNone {
		t.Fatal("query not read")
	}
	m.rrs, m.ede = append([]rr(nil), m.rrs...), nil
	if !reflect.DeepEqual(m, fresh) {
		t.Errorf("\n got %+v\nwant %+v", m, fresh)
	}
}

func TestHeaderFields(t *testing.T) {
	type fields struct {
		response                   bool
		opcode, rcode              int
		aa, tc, rd, ra, ad, cd, do bool
	}
	for _, c := range []struct {
		flags uint16
		want  fields
	}{
		{0, fields{}},
		{0x8000, fields{response: true}},
		{0x2800, fields{opcode: 5}},
		{0x7800, fields{opcode: 15}},
		{0x0400, fields{aa: true}},
		{0x0200, fields{tc: true}},
		{0x0100, fields{rd: true}},
		{0x0080, fields{ra: true}},
		{0x0020, fields{ad: true}},
		{0x0010, fields{cd: true}},
		{0x000f, fields{rcode: 15}},
	} {
		var m message
		if m.parse(binary.BigEndian.AppendUint16([]byte{0, 0}, c.flags)) == malformedNone {
			t.Fatal("short header accepted")
		}
		raw := append(binary.BigEndian.AppendUint16([]byte{0, 0}, c.flags), make([]byte, 8)...)
		if got := m.parse(raw); got != malformedNone {
			t.Fatal(malformedNames[got])
		}
		got := fields{m.response(), m.opcode(), m.rcode(), m.aa(), m.tc(), m.rd(), m.ra(), m.ad(), m.cd(), m.do}
		if got != c.want {
			t.Errorf("%#x: got %+v, want %+v", c.flags, got, c.want)
		}
	}
}

// header is a message header of these counts.
func header(qd, an, ns, ar uint16) string {
	b := []byte{0, 1, 0x80, 0}
	for _, n := range []uint16{qd, an, ns, ar} {
		b = binary.BigEndian.AppendUint16(b, n)
	}
	return string(b)
}

func TestParseDamaged(t *testing.T) {
	const (
		q  = "\x01q\x00\x00\x01\x00\x01"
		a  = "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\xc0\x00\x02\x01"
		rt = "\x00\x00\x01\x00\x01\x00\x00\x00\x05\x00\x00"
	)
	type result struct {
		malformed, broken uint8
		question          bool
		answers, others   int
		trailing          int
	}
	for name, c := range map[string]struct {
		raw  string
		want result
	}{
		"empty":                    {"", result{malformed: malformedHeader}},
		"11 octets":                {header(0, 0, 0, 0)[:11], result{malformed: malformedHeader}},
		"header only":              {header(0, 0, 0, 0), result{}},
		"question missing":         {header(1, 0, 0, 0), result{malformed: malformedQuestionName}},
		"question name cut":        {header(1, 0, 0, 0) + "\x03ab", result{malformed: malformedQuestionName}},
		"question cut":             {header(1, 0, 0, 0) + q[:6], result{malformed: malformedQuestion}},
		"question loops":           {header(1, 0, 0, 0) + "\xc0\x0c\x00\x01\x00\x01", result{malformed: malformedQuestionName}},
		"question label type":      {header(1, 0, 0, 0) + "\x41a\x00\x00\x01\x00\x01", result{malformed: malformedQuestionName}},
		"question of 256 octets":   {header(1, 0, 0, 0) + strings.Repeat("\x01a", 127) + "\x00\x00\x01\x00\x01", result{question: true}},
		"question too long":        {header(1, 0, 0, 0) + strings.Repeat("\x01a", 128) + "\x00\x00\x01\x00\x01", result{malformed: malformedQuestionName}},
		"question compressed":      {header(1, 0, 0, 0) + "\xc0\x12\x00\x01\x00\x01\x01a\x00", result{question: true, trailing: 3}},
		"two questions":            {header(2, 1, 0, 0) + q + q + a, result{question: true, answers: 1}},
		"second question bad":      {header(2, 0, 0, 0) + q + "\xc0", result{malformed: malformedQuestionName}},
		"second question cut":      {header(2, 0, 0, 0) + q + q[:5], result{malformed: malformedQuestion}},
		"no question":              {header(0, 1, 0, 0) + rt, result{answers: 1}},
		"no question, c000":        {header(0, 1, 0, 0) + "\xc0\x00" + rt[1:], result{answers: 1}},
		"65535 questions claimed":  {header(65535, 0, 0, 0) + q, result{malformed: malformedQuestionName}},
		"answer missing":           {header(1, 2, 0, 0) + q + a, result{question: true, broken: brokenAnswer, answers: 1}},
		"answer name cut":          {header(1, 1, 0, 0) + q + "\xc0", result{question: true, broken: brokenAnswer}},
		"answer name bad":          {header(1, 1, 0, 0) + q + "\x80" + a, result{question: true, broken: brokenAnswer}},
		"answer name loops":        {header(1, 1, 0, 0) + q + "\xc0\x13" + a, result{question: true, broken: brokenAnswer}},
		"answer header cut":        {header(1, 1, 0, 0) + q + a[:11], result{question: true, broken: brokenAnswer}},
		"answer RDATA cut":         {header(1, 1, 0, 0) + q + a[:15], result{question: true, broken: brokenAnswer}},
		"authority cut":            {header(1, 1, 1, 1) + q + a + a[:15], result{question: true, broken: brokenAuthority, answers: 1}},
		"additional cut":           {header(1, 1, 1, 1) + q + a + a + a[:15], result{question: true, broken: brokenAdditional, answers: 1, others: 1}},
		"trailing octets":          {header(1, 1, 0, 0) + q + a + "junk", result{question: true, answers: 1, trailing: 4}},
		"option header cut":        {header(0, 0, 0, 1) + "\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x03\x00\x08\x00", result{broken: brokenOPT, others: 1}},
		"option cut":               {header(0, 0, 0, 1) + "\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x05\x00\x0a\x00\x02a", result{broken: brokenOPT, others: 1}},
		"65535 additional claimed": {header(0, 0, 0, 65535) + rt + rt, result{broken: brokenAdditional, others: 2}},
	} {
		var m message
		malformed := m.parse([]byte(c.raw))
		got := result{malformed, m.broken, m.hasQuestion, m.nAnswer, len(m.rrs) - m.nAnswer, m.trailing}
		if got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

// TestOwnerPointerHops: the owner that points to a good question may need a hop more than allowed.
func TestOwnerPointerHops(t *testing.T) {
	const rest = "\x00\x01\x00\x01\x00\x00\x00\x05\x00\x00"
	chain := func(n int) string { // a question of n pointers, the last to the zero at 2 in the header, and an owner pointing to it
		raw := []byte(header(1, 1, 0, 0))
		raw[2] = 0
		at := 12 + 2 + 4 + 2 + len(rest)
		raw = binary.BigEndian.AppendUint16(raw, 0xc000|uint16(at))
		raw = append(raw, 0, 1, 0, 1)
		raw = append(raw, 0xc0, 0x0c)
		raw = append(raw, rest...)
		for i := 1; i < n-1; i++ {
			raw = binary.BigEndian.AppendUint16(raw, 0xc000|uint16(at+2*i))
		}
		return string(binary.BigEndian.AppendUint16(raw, 0xc000|2))
	}
	for n, want := range map[int]uint8{2: brokenNone, 125: brokenNone, 126: brokenAnswer} {
		var m message
		if got := m.parse([]byte(chain(n))); got != malformedNone || m.broken != want {
			t.Errorf("%d hops: %s, broken in %s", n, malformedNames[got], brokenNames[m.broken])
		}
	}
}

// optMessage is a message whose only RR is an OPT RR with these options.
func optMessage(options string) []byte {
	raw := []byte(header(0, 0, 0, 1) + "\x00\x00\x29\x04\xd0\x02\x01\x80\x00")
	return append(binary.BigEndian.AppendUint16(raw, uint16(len(options))), options...)
}

func TestEDNS(t *testing.T) {
	var m message
	if m.parse(optMessage("")) != malformedNone {
		t.Fatal("not read")
	}
	if !m.opt || m.udpSize != 1232 || m.extRcode != 2 || m.version != 1 || !m.do || m.rcode() != 32 {
		t.Errorf("got %+v", m)
	}
	// Only the first OPT RR counts, and only one of the additional section.
	two := []byte(header(0, 1, 0, 2) + "\x00\x00\x29\x03\xe8\x00\x00\x00\x00\x00\x00" +
		"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00" + "\x00\x00\x29\x07\xd0\x00\x00\x00\x00\x00\x00")
	if m.parse(two) != malformedNone || m.udpSize != 1232 || !m.do || len(m.rrs) != 3 {
		t.Errorf("got %+v", m)
	}
	for _, c := range []struct{ option, want, wantScope string }{
		{"\x00\x08\x00\x07\x00\x01\x18\x10\xc0\x00\x02", "192.0.2.0/24", "192.0.2.0/24/16"},
		{"\x00\x0a\x00\x02ab\x00\x08\x00\x08\x00\x01\x20\x00\xc0\x00\x02\x01", "192.0.2.1/32", "192.0.2.1/32/0"},
		{"\x00\x08\x00\x0b\x00\x02\x38\x00\x20\x01\x0d\xb8\x00\x00\x01", "2001:db8:0:100::/56", "2001:db8:0:100::/56/0"},
		{"\x00\x08\x00\x04\x00\x01\x00\x00", "0.0.0.0/0", "0.0.0.0/0/0"},
		{"\x00\x08\x00\x04\x00\x02\x00\x80", "::/0", "::/0/128"},
		{"\x00\x08\x00\x04\x00\x00\x00\x00", "0.0.0.0/0", "0.0.0.0/0/0"},
		{"\x00\x08\x00\x03\x00\x01\x00", "", ""},                         // short
		{"\x00\x08\x00\x04\x00\x00\x08\x00", "", ""},                     // family 0 with a prefix
		{"\x00\x08\x00\x05\x00\x03\x08\x00\x01", "", ""},                 // family 3
		{"\x00\x08\x00\x06\x00\x01\x18\x00\xc0\x00", "", ""},             // too few octets
		{"\x00\x08\x00\x08\x00\x01\x18\x00\xc0\x00\x02\x00", "", ""},     // too many
		{"\x00\x08\x00\x09\x00\x01\x21\x00\xc0\x00\x02\x00\x00", "", ""}, // 33 bits
		{"\x00\x08\x00\x07\x00\x01\x18\x21\xc0\x00\x02", "", ""},         // scope of 33 bits
	} {
		if m.parse(optMessage(c.option)) != malformedNone || m.broken != brokenNone {
			t.Errorf("%x: not read", c.option)
		}
		got, gotScope := "", ""
		if m.ecsLen > 0 {
			got, gotScope = string(m.appendECS(nil, false)), string(m.appendECS(nil, true))
		}
		if got != c.want || gotScope != c.wantScope {
			t.Errorf("%x: got %s and %s, want %s and %s", c.option, got, gotScope, c.want, c.wantScope)
		}
	}
	raw := optMessage("\x00\x0f\x00\x02\x00\x12" + "\x00\x0f\x00\x01\x00" + "\x00\x0c\x00\x03\x00\x00\x00" +
		"\x00\x0f\x00\x06\x00\x16lame" + "\x00\x0f\x00\x05\xff\xffab\x00")
	if m.parse(raw) != malformedNone || m.broken != brokenNone {
		t.Error("not read")
	}
	var got []string
	for _, e := range m.ede {
		got = append(got, fmt.Sprintf("%d %s", e.code, raw[e.off:e.off+e.n]))
	}
	if want := []string{"18 ", "22 lame", "65535 ab"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestEDEBounds: of errors and their texts as many are kept as the bounds allow, and the rest is noted.
func TestEDEBounds(t *testing.T) {
	option := func(text int) string {
		return fmt.Sprintf("\x00\x0f%c%c\x00\x16%s", rune(0), rune(text+2), strings.Repeat("x", text))
	}
	for _, c := range []struct {
		options string
		want    []int // lengths of the texts
		cut     bool
	}{
		{strings.Repeat(option(0), edeMax), make([]int, edeMax), false},
		{strings.Repeat(option(0), edeMax+1), make([]int, edeMax), true},
		{strings.Repeat(option(100), 10) + option(24), []int{100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 24}, false},
		{strings.Repeat(option(100), 10) + option(25), []int{100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 24}, true},
	} {
		var m message
		if m.parse(optMessage(c.options)) != malformedNone || m.broken != brokenNone {
			t.Errorf("%x: not read", c.options)
		}
		got := []int{}
		for _, e := range m.ede {
			got = append(got, e.n)
		}
		if !reflect.DeepEqual(got, c.want) || m.edeCut != c.cut {
			t.Errorf("got texts of %v, cut %v; want %v, %v", got, m.edeCut, c.want, c.cut)
		}
	}
}

func TestAppendEDEText(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"no SEP matching the DS", "no SEP matching the DS"},
		{"a\"b\\c/d", `a\"b\\c/d`},
		{"a\x00\n\x1f\x7f", `a\u0000\u000a\u001f\u007f`},
		{"häß €𝄞", "häß €𝄞"},
		{"\u0085\u009f\u00a0", `\u0085\u009f` + "\u00a0"},
		{"a\xffb\xc3", `a\ufffdb\ufffd`},
		{"\xed\xa0\x80", `\ufffd\ufffd\ufffd`},
		{"\ufffd", "\ufffd"},
	} {
		if got := string(appendEDEText(nil, []byte(c.text))); got != c.want {
			t.Errorf("%q: got %s, want %s", c.text, got, c.want)
		}
	}
}

func FuzzEDEText(f *testing.F) {
	f.Add([]byte("a\"\\\x00\xff\xc2\x85 é"))
	f.Fuzz(func(t *testing.T, text []byte) {
		out := appendEDEText([]byte{'"'}, text)
		out = append(out, '"')
		var s string
		if err := json.Unmarshal(out, &s); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		if want := string(bytes.ToValidUTF8(text, []byte("\ufffd"))); !utf8.Valid(out) ||
			strings.ReplaceAll(s, "\ufffd", "") != strings.ReplaceAll(want, "\ufffd", "") {
			t.Fatalf("%q: got %q, want %q", text, s, want)
		}
		if i := bytes.IndexFunc(out, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }); i >= 0 {
			t.Fatalf("%q: raw control character", out)
		}
	})
}

// checkMessage checks what must hold for any input, and that miekg/dns reads the same.
func checkMessage(t *testing.T, raw []byte) {
	t.Helper()
	var m message
	malformed := m.parse(raw)
	if int(malformed) >= len(malformedNames) || int(m.broken) >= len(brokenNames) {
		t.Fatal("reason without a name")
	}
	if m.hasQuestion {
		if malformed != malformedNone || m.qname != dnsHeaderLen || m.qend <= m.qname || m.qend+4 > len(raw) {
			t.Fatalf("question: %+v", m)
		}
		if next, ok := checkName(raw, m.qname); !ok || next != m.qend {
			t.Fatalf("question name: %d %v", next, ok)
		}
	}
	if m.nAnswer > int(m.an) || m.nAuthority > int(m.ns) || m.nAnswer+m.nAuthority > len(m.rrs) ||
		len(m.rrs)-m.nAnswer-m.nAuthority > int(m.ar) {
		t.Fatalf("counts: %+v", m)
	}
	if malformed != malformedNone && len(m.rrs)+len(m.ede)+m.ecsLen > 0 {
		t.Fatalf("malformed, and yet: %+v", m)
	}
	off, buf := dnsHeaderLen, []byte(nil)
	if m.hasQuestion {
		off = m.qend + 4
	}
	for i, r := range m.rrs {
		section := sectionAdditional
		switch {
		case i < m.nAnswer:
			section = sectionAnswer
		case i < m.nAnswer+m.nAuthority:
			section = sectionAuthority
		}
		next, ok := checkName(raw, int(r.name))
		if r.section != section || !ok || int(r.name) < off || next+10 != int(r.rdata) || int(r.rdata)+int(r.rdlen) > len(raw) {
			t.Fatalf("RR %d: %+v, name %d %v", i, r, next, ok)
		}
		if i > 0 && int(r.name) != off || i == 0 && m.qd < 2 && int(r.name) != off {
			t.Fatalf("RR %d begins at %d, not %d", i, r.name, off)
		}
		off = int(r.rdata) + int(r.rdlen)
		var esc bool
		if buf, esc = appendRDATA(buf[:0], raw, int(r.rdata), int(r.rdlen), r.typ); esc != textNeedsEscape(buf) {
			t.Fatalf("esc is %v: %s", esc, buf)
		}
		if !esc && !json.Valid(append(append([]byte{'"'}, buf...), '"')) {
			t.Fatalf("can't stand in JSON: %s", buf)
		}
	}
	if malformed == malformedNone && m.broken == brokenNone && len(m.rrs) > 0 && off+m.trailing != len(raw) {
		t.Fatalf("%d octets behind the last RR at %d of %d", m.trailing, off, len(raw))
	}
	if m.ecsLen > 0 {
		source, scope := string(m.appendECS(nil, false)), string(m.appendECS(nil, true))
		addr, bits, _ := strings.Cut(source, "/")
		if a, err := netip.ParseAddr(addr); err != nil || a.String() != addr || !strings.HasPrefix(scope, source+"/") || bits == "" {
			t.Fatalf("client subnet %s, %s", source, scope)
		}
	}
	for _, e := range m.ede {
		if e.n < 0 || e.off+e.n > len(raw) {
			t.Fatalf("extended error %+v", e)
		}
	}

	var oracle dns.Msg
	if oracle.Unpack(raw) != nil || malformed != malformedNone || m.broken != brokenNone && m.broken != brokenOPT {
		return
	}
	if len(oracle.Question) != int(m.qd) && len(raw) > dnsHeaderLen || oracle.Id != m.id || oracle.Response != m.response() ||
		oracle.Opcode != m.opcode() || oracle.Authoritative != m.aa() || oracle.Truncated != m.tc() ||
		oracle.RecursionDesired != m.rd() || oracle.RecursionAvailable != m.ra() || oracle.AuthenticatedData != m.ad() ||
		oracle.CheckingDisabled != m.cd() {
		t.Fatalf("header: %+v, miekg/dns %+v", m, oracle)
	}
	if m.hasQuestion {
		q := oracle.Question[0]
		if sameNameAs(t, raw, m.qname, q.Name); q.Qtype != m.qtype || q.Qclass != m.qclass {
			t.Fatalf("question: %+v, miekg/dns %+v", m, q)
		}
	}
	if len(raw) == dnsHeaderLen {
		return // miekg/dns does not look at the counts
	}
	if len(oracle.Answer) != m.nAnswer || len(oracle.Ns) != m.nAuthority || len(oracle.Answer)+len(oracle.Ns)+len(oracle.Extra) != len(m.rrs) {
		t.Fatalf("RRs: %+v, miekg/dns %v", m, oracle)
	}
	for i, want := range append(append(oracle.Answer, oracle.Ns...), oracle.Extra...) {
		got, h := m.rrs[i], want.Header()
		if sameNameAs(t, raw, int(got.name), h.Name); h.Rrtype != got.typ || h.Class != got.class || h.Ttl != got.ttl || h.Rdlength != got.rdlen {
			// miekg/dns puts the extended rcode into the message's and leaves the rest.
			t.Fatalf("RR %d: %+v, miekg/dns %+v", i, got, h)
		}
	}
	if opt := oracle.IsEdns0(); opt != nil && m.opt {
		// miekg/dns takes the last OPT RR, we the first.
		if n := len(oracle.Extra); n > 0 && oracle.Extra[n-1] == dns.RR(opt) && onlyOPT(oracle.Extra) {
			if opt.UDPSize() != m.udpSize || opt.Do() != m.do || opt.Version() != m.version || oracle.Rcode != m.rcode() {
				t.Fatalf("EDNS: %+v, miekg/dns %v", m, opt)
			}
		}
	}
}

func onlyOPT(extra []dns.RR) bool {
	n := 0
	for _, rr := range extra {
		if rr.Header().Rrtype == dns.TypeOPT {
			n++
		}
	}
	return n == 1
}

// sameName fails unless the name at raw[off:] is the one miekg/dns prints as want.
func sameNameAs(t *testing.T, raw []byte, off int, want string) {
	t.Helper()
	got, _, _, err := appendName(nil, raw, off)
	if string(got) != "." {
		got = append(got, '.')
	}
	var a, b [256]byte
	n, err1 := dns.PackDomainName(string(got), a[:], 0, nil, false)
	m, err2 := dns.PackDomainName(want, b[:], 0, nil, false)
	if err != nil || err1 != nil || err2 != nil || !bytes.Equal(a[:n], b[:m]) {
		t.Fatalf("name %s, miekg/dns %s", got, want)
	}
}

// messageSeeds are messages of many kinds.
func messageSeeds(t testing.TB) (seeds [][]byte) {
	t.Helper()
	seeds = append(seeds, packedQuery(t), packedResponse(t))
	m := new(dns.Msg).SetUpdate("example.")
	m.Insert(zoneRRs(t, "a.example. 60 IN A 192.0.2.1"))
	m.RemoveRRset(zoneRRs(t, "b.example. 60 IN A 192.0.2.1"))
	m.RemoveName(zoneRRs(t, "c.example. 60 IN A 192.0.2.1"))
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	seeds = append(seeds, raw)
	m = new(dns.Msg).SetNotify("example.")
	m.Answer = zoneRRs(t, "example. 3600 IN SOA ns.example. host.example. 1 2 3 4 5")
	if raw, err = m.Pack(); err != nil {
		t.Fatal(err)
	}
	seeds = append(seeds, raw)
	m = new(dns.Msg).SetQuestion(".", dns.TypeNS)
	m.Response, m.Compress = true, true
	m.Question = append(m.Question, dns.Question{Name: "b.example.", Qtype: 255, Qclass: 3})
	for _, c := range rdataCases[:40] {
		m.Answer = append(m.Answer, zoneRRs(t, c.rr)...)
	}
	m.Ns = zoneRRs(t, "example. 60 IN NS ns1.example.", "example. 60 IN NS ns2.example.")
	m.Extra = zoneRRs(t, "ns1.example. 60 IN A 192.0.2.1", "ns1.example. 60 IN AAAA 2001:db8::1", "ns2.example. 60 IN A 192.0.2.2")
	m.SetEdns0(1232, true)
	opt := m.IsEdns0()
	opt.Option = append(opt.Option,
		&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "24a5ac1223344556"},
		&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, SourceScope: 16, Address: []byte{192, 0, 2, 0}},
		&dns.EDNS0_EDE{InfoCode: 18, ExtraText: "prohibited"})
	if raw, err = m.Pack(); err != nil {
		t.Fatal(err)
	}
	return append(seeds, raw)
}

func TestMessageSeeds(t *testing.T) {
	for _, raw := range messageSeeds(t) {
		var m message
		if malformed := m.parse(raw); malformed != malformedNone || m.broken != brokenNone || m.trailing != 0 {
			t.Fatalf("%x: %s, %s, %d", raw, malformedNames[malformed], brokenNames[m.broken], m.trailing)
		}
		checkMessage(t, raw)
		for i := range raw { // cut anywhere: never more than the whole had
			checkMessage(t, raw[:i])
			old := raw[i]
			for _, b := range []byte{0, 1, 0x3f, 0xc0, 0xff, old ^ 1} {
				raw[i] = b
				checkMessage(t, raw)
			}
			raw[i] = old
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, raw := range messageSeeds(f) {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) <= 65535 {
			checkMessage(t, raw)
		}
	})
}

func TestParseDoesNotAllocate(t *testing.T) {
	var m message
	buf := make([]byte, 0, 4096)
	for _, raw := range messageSeeds(t) {
		if n := testing.AllocsPerRun(100, func() {
			m.parse(raw)
			for _, r := range m.rrs {
				buf, _, _, _ = appendName(buf[:0], raw, int(r.name))
				buf, _ = appendRDATA(buf[:0], raw, int(r.rdata), int(r.rdlen), r.typ)
			}
			if m.ecsLen > 0 {
				buf = m.appendECS(buf[:0], true)
			}
			for _, e := range m.ede {
				buf = appendEDEText(buf[:0], raw[e.off:e.off+e.n])
			}
		}); n != 0 {
			t.Errorf("%x: %v allocations", raw, n)
		}
	}
}

func BenchmarkParseQuery(b *testing.B) {
	raw := packedQuery(b)
	var m message
	for b.Loop() {
		m.parse(raw)
	}
}

func BenchmarkParseResponse(b *testing.B) {
	raw := packedResponse(b)
	var m message
	for b.Loop() {
		m.parse(raw)
	}
}
