package main

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// recordCase is a lookup to be written: the messages as they were captured.
type recordCase struct {
	query, response []byte
	tcp, v6         bool
	vlan, respVLAN  uint16
	cutQuery        int // bytes that the snaplen cut off
	cutResponse     int
	ts              time.Time // of the query
	elapsed         time.Duration
	sections        sectionSet
	perLookup       bool
	level           string
	sensor          string
}

// lines returns the records of the case.
func (c *recordCase) lines(t testing.TB) string {
	t.Helper()
	h := newWorkerHarness(t, 100, 1<<20)
	w := h.w
	if c.sections == 0 {
		c.sections = wantAnswer
	}
	if c.sensor == "" {
		c.sensor = "s"
	}
	w.enc = newEncoder(c.sensor, c.level, c.sections, !c.perLookup, false)
	f := flow{src: [16]byte{10: 0xff, 11: 0xff, 12: 192, 14: 2, 15: 1}, dst: [16]byte{10: 0xff, 11: 0xff, 12: 198, 13: 51, 14: 100, 15: 53}, sport: 4660, dport: 53}
	if c.v6 {
		f = flow{src: [16]byte{0x20, 1, 0x0d, 0xb8, 15: 1}, dst: [16]byte{0xfe, 0x80, 15: 0x53}, sport: 4660, dport: 53, v6: true}
	}
	back := flow{src: f.dst, dst: f.src, sport: f.dport, dport: f.sport, v6: f.v6}
	if c.ts.IsZero() {
		c.ts = time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)
	}
	ts := c.ts.UnixNano()
	if c.query != nil {
		w.dns(&f, 1, c.tcp, c.query[:len(c.query)-c.cutQuery], len(c.query), ts, 0, c.vlan)
	}
	if c.response != nil {
		w.dns(&back, 1, c.tcp, c.response[:len(c.response)-c.cutResponse], len(c.response), ts+int64(c.elapsed), 1, c.respVLAN)
	}
	w.end(&view{seq: 2, kind: viewEnd})
	return string(w.cur.json)
}

// askFor packs a query of miekg/dns's making, with id 7, after change has been at it.
func askFor(t testing.TB, name string, qtype uint16, change func(m *dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	m.Id = 7
	if change != nil {
		change(m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatalf("pack: %v", err)
	}
	return b
}

// reply is a change that makes a response of a query, with the RRs given for each section.
func reply(t testing.TB, answer, authority, additional []dns.RR) func(m *dns.Msg) {
	return func(m *dns.Msg) {
		m.Response, m.RecursionAvailable, m.Compress = true, true, true
		m.Answer, m.Ns, m.Extra = answer, authority, additional
	}
}

func TestRecords(t *testing.T) {
	a := zoneRRs(t, "a.test. 60 IN A 192.0.2.99")
	both := func(fs ...func(m *dns.Msg)) func(m *dns.Msg) {
		return func(m *dns.Msg) {
			for _, f := range fs {
				f(m)
			}
		}
	}
	edns := func(size uint16, do bool, options ...dns.EDNS0) func(m *dns.Msg) {
		return func(m *dns.Msg) {
			m.SetEdns0(size, do)
			m.IsEdns0().Option = options
		}
	}
	const (
		head  = `{"tstamp":"2026-02-03T04:05:06.001000007Z","sensor":"s","query_id":7,"src":"192.0.2.1","sport":"4660","dst":"198.51.100.53","dport":"53","protocol":"udp"`
		qhead = `{"tstamp":"2026-02-03T04:05:06.000000007Z","sensor":"s","query_id":7,"src":"192.0.2.1","sport":"4660","dst":"198.51.100.53","dport":"53","protocol":"udp"`
		flags = `,"aa":false,"rd":true,"ra":true,"truncated":false,"ad":false,"cd":false`
	)
	aQuery, aReply := askFor(t, "a.test.", dns.TypeA, nil), askFor(t, "a.test.", dns.TypeA, reply(t, a, nil, nil))
	rr := `,"aname":"a.test","atype":"A","a":"192.0.2.99","ttl":60`
	q := `,"q":"a.test","qtype":"A"`
	sizes := `,"elapsed":1000000,"bytes":40,"qbytes":24`
	tests := []struct {
		name string
		c    recordCase
		want string
	}{
		{"plain", recordCase{query: aQuery, response: aReply}, head + q + `,"rcode":0,"status":"answer"` + rr + sizes + flags + "}\n"},
		{"IPv6, TCP", recordCase{query: aQuery, response: aReply, tcp: true, v6: true},
			`{"tstamp":"2026-02-03T04:05:06.001000007Z","sensor":"s","query_id":7,"src":"2001:db8::1","sport":"4660","dst":"fe80::53","dport":"53","protocol":"tcp"` + q + `,"rcode":0,"status":"answer"` + rr + sizes + flags + "}\n"},
		{"VLAN of the response", recordCase{query: aQuery, response: aReply, vlan: 9, respVLAN: 4094}, head + `,"vlan":4094` + q + `,"rcode":0,"status":"answer"` + rr + sizes + flags + "}\n"},
		{"VLAN of the query, unanswered", recordCase{query: aQuery, vlan: 9},
			qhead + `,"vlan":9` + q + `,"rcode":-1,"status":"unanswered","atype":"","a":"","ttl":0,"bytes":0,"qbytes":24,"aa":false,"rd":true,"ra":false,"truncated":false,"ad":false,"cd":false}` + "\n"},
		{"unsolicited", recordCase{response: aReply}, head + q + `,"rcode":0,"status":"unsolicited"` + rr + `,"bytes":40` + flags + "}\n"},
		{"level and sensor that need escapes", recordCase{query: aQuery, response: aReply, level: "warning", sensor: "a\"b\\c\n\xff"},
			strings.Replace(head, `"sensor":"s"`, `"sensor":"a\"b\\c\u000a\ufffd"`, 1) + q + `,"rcode":0,"status":"answer"` + rr + sizes + flags + `,"level":"warning"}` + "\n"},
		{"all header flags", recordCase{
			query: askFor(t, "a.test.", dns.TypeA, func(m *dns.Msg) { m.CheckingDisabled, m.RecursionDesired = true, false }),
			response: askFor(t, "a.test.", dns.TypeA, both(reply(t, nil, nil, nil), func(m *dns.Msg) {
				m.Authoritative, m.Truncated, m.AuthenticatedData, m.CheckingDisabled, m.RecursionDesired, m.RecursionAvailable = true, true, true, false, true, false
			}))},
			head + q + `,"rcode":0,"status":"nodata","atype":"","a":"","ttl":0,"elapsed":1000000,"bytes":24,"qbytes":24,"aa":true,"rd":false,"ra":false,"truncated":true,"ad":true,"cd":true}` + "\n"},
		{"nxdomain", recordCase{query: aQuery, response: askFor(t, "a.test.", dns.TypeA, both(reply(t, nil, nil, nil), func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }))},
			head + q + `,"rcode":3,"status":"nxdomain","atype":"","a":"NXDOMAIN","ttl":0,"elapsed":1000000,"bytes":24,"qbytes":24` + flags + "}\n"},
		{"nxdomain with a CNAME is nxdomain", recordCase{
			query:    aQuery,
			response: askFor(t, "a.test.", dns.TypeA, both(reply(t, zoneRRs(t, "a.test. 60 IN CNAME b.test."), nil, nil), func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }))},
			head + q + `,"rcode":3,"status":"nxdomain","aname":"a.test","atype":"CNAME","a":"b.test","ttl":60,"elapsed":1000000,"bytes":40,"qbytes":24` + flags + "}\n"},
		{"extended rcode and EDE", recordCase{
			query: askFor(t, "a.test.", dns.TypeA, edns(1232, true)),
			response: askFor(t, "a.test.", dns.TypeA, both(reply(t, nil, nil, nil), edns(4096, true,
				&dns.EDNS0_EDE{InfoCode: 18, ExtraText: "say \"no\"\n\xff\u009b"}, &dns.EDNS0_EDE{InfoCode: 0}), func(m *dns.Msg) { m.Rcode = dns.RcodeBadVers }))},
			head + q + `,"rcode":16,"status":"error","atype":"","a":"BADVERS","ttl":0,"elapsed":1000000,"bytes":59,"qbytes":35` + flags +
				`,"edns_udp":1232,"do":true,"ede":[{"code":18,"text":"say \"no\"\u000a\ufffd\u009b"},{"code":0,"text":""}]}` + "\n"},
		{"client subnet with scope", recordCase{
			query: askFor(t, "a.test.", dns.TypeA, edns(512, false, &dns.EDNS0_SUBNET{Code: 8, Family: 1, SourceNetmask: 20, Address: net.IP{203, 0, 112, 0}})),
			response: askFor(t, "a.test.", dns.TypeA, both(reply(t, a, nil, nil), edns(512, false, &dns.EDNS0_SUBNET{
				Code: 8, Family: 1, SourceNetmask: 20, SourceScope: 24, Address: net.IP{203, 0, 112, 0}})))},
			head + q + `,"rcode":0,"status":"answer"` + rr + `,"elapsed":1000000,"bytes":62,"qbytes":46` + flags + `,"edns_udp":512,"do":false,"ecs":"203.0.112.0/20/24"}` + "\n"},
		{"client subnet without scope, IPv6", recordCase{
			query:    askFor(t, "a.test.", dns.TypeA, edns(512, false, &dns.EDNS0_SUBNET{Code: 8, Family: 2, SourceNetmask: 48, Address: net.ParseIP("2001:db8:1::")})),
			response: aReply},
			head + q + `,"rcode":0,"status":"answer"` + rr + `,"elapsed":1000000,"bytes":40,"qbytes":49` + flags + `,"edns_udp":512,"do":false,"ecs":"2001:db8:1::/48"}` + "\n"},
		{"opcode and class", recordCase{
			query: askFor(t, "version.bind.", dns.TypeTXT, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS; m.Opcode = dns.OpcodeNotify }),
			response: askFor(t, "version.bind.", dns.TypeTXT, both(reply(t, zoneRRs(t, `version.bind. 0 CH TXT "9.\"x\" \\ \000\255"`), nil, nil), func(m *dns.Msg) {
				m.Question[0].Qclass = dns.ClassCHAOS
				m.Opcode = dns.OpcodeNotify
			}))},
			head + `,"opcode":"NOTIFY","q":"version.bind","qtype":"TXT","qclass":"CH","rcode":0,"status":"answer","aname":"version.bind","atype":"TXT","a":"\"9.\\\"x\\\" \\\\ \\000\\255\"","ttl":0,"elapsed":1000000,"bytes":53,"qbytes":30` + flags + "}\n"},
		{"unknown type and class", recordCase{query: askFor(t, "a.test.", 65534, func(m *dns.Msg) { m.Question[0].Qclass = 4660 })},
			qhead + `,"q":"a.test","qtype":"TYPE65534","qclass":"CLASS4660","rcode":-1,"status":"unanswered","atype":"","a":"","ttl":0,"bytes":0,"qbytes":24,"aa":false,"rd":true,"ra":false,"truncated":false,"ad":false,"cd":false}` + "\n"},
		{"root", recordCase{query: askFor(t, ".", dns.TypeNS, nil), response: askFor(t, ".", dns.TypeNS, reply(t, zoneRRs(t, ". 9 IN NS a.root-servers.net."), nil, nil))},
			head + `,"q":".","qtype":"NS","rcode":0,"status":"answer","aname":".","atype":"NS","a":"a.root-servers.net","ttl":9,"elapsed":1000000,"bytes":48,"qbytes":17` + flags + "}\n"},
		{"name that needs escapes", recordCase{
			query:    askFor(t, `A\.b.\"\\.\000\255\032.test.`, dns.TypeA, nil),
			response: askFor(t, `a\.B.\"\\.\000\255\032.test.`, dns.TypeA, reply(t, zoneRRs(t, `a\.B.\"\\.\000\255\032.test. 60 IN CNAME \"x.a\.B.\"\\.\000\255\032.test.`), nil, nil))},
			head + `,"q":"A\\.b.\\\"\\\\.\\000\\255\\032.test","qtype":"A","rcode":0,"status":"answer","aname":"a\\.B.\\\"\\\\.\\000\\255\\032.test","atype":"CNAME","a":"\\\"x.a\\.B.\\\"\\\\.\\000\\255\\032.test","ttl":60,"elapsed":1000000,"bytes":50,"qbytes":33` + flags + "}\n"},
		{"no question in the query", recordCase{query: []byte{0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
			qhead + `,"q":"","qtype":"","rcode":-1,"status":"unanswered","atype":"","a":"","ttl":0,"bytes":0,"qbytes":12,"aa":false,"rd":false,"ra":false,"truncated":false,"ad":false,"cd":false}` + "\n"},
		{"response cut", recordCase{query: aQuery, response: askFor(t, "a.test.", dns.TypeA, reply(t, append(zoneRRs(t, "a.test. 60 IN A 192.0.2.99"), a...), nil, nil)), cutResponse: 3},
			head + q + `,"rcode":0,"status":"answer"` + rr + `,"elapsed":1000000,"bytes":56,"qbytes":24` + flags + `,"cut":true}` + "\n"},
		{"query cut", recordCase{query: askFor(t, "a.test.", dns.TypeA, edns(512, false)), cutQuery: 3, response: aReply},
			head + q + `,"rcode":0,"status":"answer"` + rr + `,"elapsed":1000000,"bytes":40,"qbytes":35` + flags + `,"cut":true}` + "\n"},
		{"negative elapsed", recordCase{query: aQuery, response: aReply, elapsed: -1500 * time.Nanosecond},
			strings.Replace(head, "06.001000007", "05.999998507", 1) + q + `,"rcode":0,"status":"answer"` + rr + `,"elapsed":-1500,"bytes":40,"qbytes":24` + flags + "}\n"},
		{"the year 2262", recordCase{query: aQuery, response: aReply, ts: time.Unix(0, 1<<63-1-1e6)},
			strings.Replace(head, "2026-02-03T04:05:06.001000007", "2262-04-11T23:47:16.854775807", 1) + q + `,"rcode":0,"status":"answer"` + rr + sizes + flags + "}\n"},
		{"1970", recordCase{query: aQuery, response: aReply, ts: time.Unix(0, 0)},
			strings.Replace(head, "2026-02-03T04:05:06.001000007", "1970-01-01T00:00:00.001000000", 1) + q + `,"rcode":0,"status":"answer"` + rr + sizes + flags + "}\n"},
		{"generic RDATA", recordCase{query: aQuery, response: append(aReply[:len(aReply)-6:len(aReply)-6], 0, 3, 1, 2, 3)},
			head + q + `,"rcode":0,"status":"answer","aname":"a.test","atype":"A","a":"\\# 3 010203","ttl":60,"elapsed":1000000,"bytes":39,"qbytes":24` + flags + "}\n"},
	}
	sectioned := askFor(t, "a.test.", dns.TypeA, both(reply(t, zoneRRs(t, "a.test. 60 IN CNAME b.test.", "b.test. 61 IN A 192.0.2.99"),
		zoneRRs(t, "test. 62 IN NS ns.test."), zoneRRs(t, "ns.test. 63 CH A 192.0.2.53")), edns(512, false)))
	line := func(aname, atype, a string, ttl int, section string) string {
		s := head + q + fmt.Sprintf(`,"rcode":0,"status":"answer","aname":"%s","atype":"%s","a":"%s","ttl":%d`, aname, atype, a, ttl)
		if section != "" {
			s += `,"section":"` + section + `"`
		}
		return s + `,"elapsed":1000000,"bytes":100,"qbytes":24` + flags + "}\n"
	}
	cname, addr := line("a.test", "CNAME", "b.test", 60, ""), line("b.test", "A", "192.0.2.99", 61, "")
	ns, glue := line("test", "NS", "ns.test", 62, "authority"), line("ns.test", "A", "192.0.2.53", 63, "additional")
	lookupHead, lookupTail := head+q+`,"rcode":0,"status":"answer"`, `,"elapsed":1000000,"bytes":100,"qbytes":24`+flags+"}\n"
	answers := `,"answers":[{"name":"a.test","type":"CNAME","ttl":60,"data":"b.test"},{"name":"b.test","type":"A","ttl":61,"data":"192.0.2.99"}]`
	tests = append(tests, []struct {
		name string
		c    recordCase
		want string
	}{
		{"answers", recordCase{query: aQuery, response: sectioned}, cname + addr},
		{"all sections, without OPT", recordCase{query: aQuery, response: sectioned, sections: 7}, cname + addr + ns + glue},
		{"authority only", recordCase{query: aQuery, response: sectioned, sections: wantAuthority}, ns},
		{"a section without RRs", recordCase{query: aQuery, response: aReply, sections: wantAuthority},
			head + q + `,"rcode":0,"status":"answer","atype":"","a":"","ttl":0` + sizes + flags + "}\n"},
		{"lookup layout", recordCase{query: aQuery, response: sectioned, perLookup: true}, lookupHead + answers + lookupTail},
		{"lookup layout, all sections", recordCase{query: aQuery, response: sectioned, perLookup: true, sections: 7},
			lookupHead + answers + `,"authorities":[{"name":"test","type":"NS","ttl":62,"data":"ns.test"}],"additionals":[{"name":"ns.test","type":"A","class":"CH","ttl":63,"data":"192.0.2.53"}]` + lookupTail},
		{"lookup layout, unanswered", recordCase{query: aQuery, perLookup: true, sections: wantAnswer | wantAdditional},
			qhead + q + `,"rcode":-1,"status":"unanswered","answers":[],"additionals":[],"bytes":0,"qbytes":24,"aa":false,"rd":true,"ra":false,"truncated":false,"ad":false,"cd":false}` + "\n"},
	}...)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.c.elapsed == 0 {
				tt.c.elapsed = time.Millisecond
			}
			got := tt.c.lines(t)
			if got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
			for line := range strings.Lines(got) {
				checkRecord(t, []byte(line))
				if !tt.c.perLookup {
					inReadmeOrder(t, line)
				}
			}
		})
	}
}

// readmeOrder is the order of fields in README's record table.
func readmeOrder(t testing.TB) map[string]int {
	order := map[string]int{}
	_, section, _ := readmeSection(t.(*testing.T), "records")
	for row := range strings.Lines(section) {
		if name, ok := strings.CutPrefix(row, "| `"); ok {
			name, _, _ = strings.Cut(name, "`")
			order[name] = len(order)
		}
	}
	return order
}

func inReadmeOrder(t *testing.T, line string) {
	t.Helper()
	order, last := readmeOrder(t), -1
	names, _ := fieldsOf(t, []byte(line))
	for _, n := range names {
		at, ok := order[n]
		if !ok || at <= last {
			t.Fatalf("field %q is not in the README's order: %s", n, line)
		}
		last = at
	}
}

// TestStatusOfResponses: how a response without an answer is told to be nodata or a referral (RFC 2308 §2).
func TestStatusOfResponses(t *testing.T) {
	soa, ns := "test. 60 IN SOA ns.test. h.test. 1 2 3 4 5", "sub.test. 60 IN NS ns.sub.test."
	tests := []struct {
		name      string
		authority []dns.RR
		aa        bool
		rcode     int
		want      uint8
	}{
		{"empty", nil, false, 0, statusNodata},
		{"SOA", zoneRRs(t, soa), false, 0, statusNodata},
		{"NS", zoneRRs(t, ns), false, 0, statusReferral},
		{"NS, authoritative", zoneRRs(t, ns), true, 0, statusNodata},
		{"SOA and NS", zoneRRs(t, ns, soa), false, 0, statusNodata},
		{"refused", nil, false, dns.RcodeRefused, statusError},
		{"nxdomain with NS", zoneRRs(t, ns), false, dns.RcodeNameError, statusNXDomain},
	}
	for _, tt := range tests {
		var m message
		if bad := m.parse(askFor(t, "a.sub.test.", dns.TypeA, func(r *dns.Msg) {
			reply(t, nil, tt.authority, nil)(r)
			r.Authoritative, r.Rcode = tt.aa, tt.rcode
		})); bad != malformedNone {
			t.Fatalf("%s: malformed", tt.name)
		}
		if got := m.status(); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, statusNames[got], statusNames[tt.want])
		}
	}
}

// TestLongestLines: names of 127 labels and of bytes that all need escapes, and TXT of 64 KiB, are valid JSON on one line.
func TestLongestLines(t *testing.T) {
	many := strings.Repeat("a.", 127)
	escapes := strings.Repeat(strings.Repeat(`\000`, 63)+".", 3) + strings.Repeat(`\"`, 61) + "."
	for _, name := range []string{many, escapes} {
		c := recordCase{query: askFor(t, name, dns.TypeTXT, nil), response: askFor(t, name, dns.TypeTXT, reply(t, []dns.RR{
			&dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: 1, Ttl: 5}, Txt: []string{strings.Repeat(`\027\"\\\010\255`, 51)}}}, nil, nil)), elapsed: 1}
		for _, c.perLookup = range []bool{false, true} {
			lines := c.lines(t)
			if strings.Count(lines, "\n") != 1 || !json.Valid([]byte(lines)) {
				t.Errorf("not a line of JSON: %q", lines)
			}
			r := checkRecord(t, []byte(lines))
			if got, want := dns.Fqdn(r.Q), name; !c.perLookup && got != want {
				t.Errorf("got name %q, want %q", got, want)
			}
		}
	}
}

// FuzzRecord: whatever a response holds, its lines are JSON of the contract's fields and types.
func FuzzRecord(f *testing.F) {
	for _, raw := range messageSeeds(f) {
		f.Add(raw, raw, false)
	}
	f.Fuzz(func(t *testing.T, q, r []byte, perLookup bool) {
		if len(q) < 12 || len(r) < 12 || len(q) > 65535 || len(r) > 65535 {
			return
		}
		q, r = append([]byte{0, 7, q[2] & 0x7f}, q[3:]...), append([]byte{0, 7, r[2] | 0x80}, r[3:]...)
		c := recordCase{query: q, response: r, perLookup: perLookup, sections: 7, elapsed: 5}
		for line := range strings.Lines(c.lines(t)) {
			checkRecord(t, []byte(line))
			for _, b := range []byte(line[:len(line)-1]) {
				if b < ' ' || b == 0x7f {
					t.Fatalf("a control byte in %q", line)
				}
			}
		}
	})
}
