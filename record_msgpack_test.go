package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/tinylib/msgp/msgp"
)

const everySection = wantAnswer | wantAuthority | wantAdditional

// bothForms is one record as a worker wrote it.
type bothForms struct{ json, msgpack []byte }

// recordRig is a worker without a pipeline; its parts are collected by a goroutine, as the output goroutine would.
type recordRig struct {
	w    *worker
	seq  uint64
	got  []bothForms
	ends chan struct{}
}

func newRecordRig(sections sectionSet, perRR, wantMsgpack bool) *recordRig {
	w := &worker{
		out: make(chan *part, partCount), free: make(chan *part, partCount), cur: &part{},
		enc:   newEncoder(`sen"sor`+"\x01\xff é", `warn\ing`, sections, perRR, wantMsgpack),
		tab:   newConnTable(1000, 1<<20),
		done:  newAnsweredSet(1000),
		gcAge: int64(time.Minute), gcInterval: int64(time.Second), incomplete: true,
	}
	w.tcp = newTCPTable(tcpLimits{streams: 16, streamBytes: 1 << 17, totalBytes: 1 << 18, idleNs: int64(time.Minute)}, w)
	for range partCount - 1 {
		w.free <- &part{}
	}
	g := &recordRig{w: w, ends: make(chan struct{})}
	go g.collect()
	return g
}

func (g *recordRig) collect() {
	defer close(g.ends)
	for p := range g.w.out {
		from, mfrom := int32(0), int32(0)
		for i, end := range p.ends {
			r := bothForms{json: bytes.Clone(p.json[from:end])}
			if i < len(p.mends) {
				r.msgpack = bytes.Clone(p.msgp[mfrom:p.mends[i]])
				mfrom = p.mends[i]
			}
			g.got = append(g.got, r)
			from = end
		}
		g.w.free <- p
	}
}

// recordLeg is one message on its way: from the client if it is a query, to it if it is a response.
type recordLeg struct {
	raw  []byte
	at   time.Duration
	wire int // 0: as long as raw
	vlan uint16
	v6   bool
	tcp  bool
}

func (g *recordRig) send(l recordLeg) {
	f := flow{v6: l.v6, sport: 40000, dport: 53}
	copy(f.src[10:], "\xff\xff\xc0\x00\x02\x01")
	copy(f.dst[10:], "\xff\xff\xcb\x00\x71\xff")
	if l.v6 {
		copy(f.src[:], "\x20\x01\x0d\xb8\x12\x34\x56\x78\x9a\xbc\xde\xf0\x12\x34\x56\x78")
		f.dst = [16]byte{15: 1}
	}
	if len(l.raw) > 2 && l.raw[2]&0x80 != 0 {
		f.src, f.dst, f.sport, f.dport = f.dst, f.src, f.dport, f.sport
	}
	wire := l.wire
	if wire == 0 {
		wire = len(l.raw)
	}
	g.seq++
	g.w.seq, g.w.sub = g.seq, 0
	g.w.dns(&f, 1, l.tcp, l.raw, wire, 1_700_000_000_000_000_000+int64(l.at), g.seq, l.vlan)
}

// records ends the input and returns all records written.
func (g *recordRig) records() []bothForms {
	g.w.end(&view{ts: math.MaxInt64, seq: g.seq + 1})
	g.w.send()
	close(g.w.out)
	<-g.ends
	return g.got
}

// transcoder turns JSON into msgpack in the order of its fields: the reference for the encoder.
type transcoder struct {
	*json.Decoder
	err error
}

func (d *transcoder) token() json.Token {
	tok, err := d.Token()
	if err != nil && d.err == nil {
		d.err = err
	}
	return tok
}

func (d *transcoder) value(b []byte) []byte {
	switch tok := d.token().(type) {
	case json.Delim:
		n, inside := uint32(0), []byte(nil)
		for d.err == nil && d.More() {
			if tok == '{' {
				inside = d.value(inside)
			}
			inside = d.value(inside)
			n++
		}
		d.token()
		if tok == '{' {
			b = msgp.AppendMapHeader(b, n)
		} else {
			b = msgp.AppendArrayHeader(b, n)
		}
		return append(b, inside...)
	case string:
		return msgp.AppendString(b, tok)
	case bool:
		return msgp.AppendBool(b, tok)
	case json.Number:
		if u, err := strconv.ParseUint(tok.String(), 10, 64); err == nil {
			return msgp.AppendUint64(b, u)
		}
		i, err := strconv.ParseInt(tok.String(), 10, 64)
		if err != nil {
			d.err = err
		}
		if i < -1 { // a negative elapsed is always written as int 64
			return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(i))
		}
		return msgp.AppendInt64(b, i)
	default:
		d.err = fmt.Errorf("a %T in a record", tok)
		return b
	}
}

// asJSONValue makes of a decoded value what encoding/json with UseNumber would have made of it.
func asJSONValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = asJSONValue(v[k])
		}
	case []any:
		for i := range v {
			v[i] = asJSONValue(v[i])
		}
	case int64:
		return json.Number(strconv.FormatInt(v, 10))
	case uint64:
		return json.Number(strconv.FormatUint(v, 10))
	}
	return v
}

// checkForms fails the test unless the map says exactly what the line says, and returns the names of the fields.
func checkForms(t *testing.T, r bothForms) (fields map[string]any) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(r.json))
	dec.UseNumber()
	var want any
	if err := dec.Decode(&want); err != nil {
		t.Fatalf("%v: %q", err, r.json)
	}
	got, rest, err := msgp.ReadMapStrIntfBytes(r.msgpack, nil)
	if err != nil || len(rest) != 0 {
		t.Fatalf("%v, %d bytes left: %x\n%s", err, len(rest), r.msgpack, r.json)
	}
	if !reflect.DeepEqual(asJSONValue(got), want) {
		t.Fatalf("msgpack and JSON differ\ngot  %v\nwant %v", got, want)
	}
	d := transcoder{Decoder: json.NewDecoder(bytes.NewReader(r.json))}
	d.UseNumber()
	if exact := d.value(nil); d.err != nil || !bytes.Equal(r.msgpack, exact) {
		t.Fatalf("not the shortest form, or another order (%v)\ngot  %q\nwant %q", d.err, r.msgpack, exact)
	}
	return got
}

// packedWith edits a message and packs it.
func packedWith(t testing.TB, m *dns.Msg, edit func(m *dns.Msg)) []byte {
	t.Helper()
	if edit != nil {
		edit(m)
	}
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// withEDNS adds an OPT RR with options to m.
func withEDNS(m *dns.Msg, options ...dns.EDNS0) {
	m.SetEdns0(65535, true)
	m.IsEdns0().Option = options
}

// recordLegs is traffic that has every status and every field, and texts of every length class.
func recordLegs(t testing.TB) (legs []recordLeg) {
	id := uint16(0)
	ask := func(name string, typ uint16) *dns.Msg {
		m := new(dns.Msg).SetQuestion(name, typ)
		id++
		m.Id = id
		return m
	}
	at := time.Duration(0)
	pair := func(q *dns.Msg, rtt time.Duration, edit func(r *dns.Msg)) {
		at += 3 * time.Second
		r := new(dns.Msg).SetReply(q)
		r.Compress = true
		v6 := id%2 == 1
		legs = append(legs, recordLeg{raw: packedWith(t, q, nil), at: at, v6: v6}, recordLeg{raw: packedWith(t, r, edit), at: at + rtt, v6: v6})
	}
	answer := func(text ...string) func(*dns.Msg) {
		return func(r *dns.Msg) { r.Answer = zoneRRs(t, text...) }
	}

	// Every type of RDATA, and every length class of TTL and elapsed.
	for i, c := range rdataCases {
		pair(ask("x.", dns.TypeANY), time.Millisecond<<(i%15), func(r *dns.Msg) {
			r.Answer = zoneRRs(t, c.rr)
			r.Answer[0].Header().Ttl = 1<<(i%33) - 1
		})
	}
	for _, rtt := range []time.Duration{0, 1, 127, 128, 255, 256, 65535, 65536} {
		pair(ask("rtt.example.", dns.TypeA), rtt, answer("rtt.example. 300 IN A 192.0.2.1"))
	}
	pair(ask("slow.example.", dns.TypeA), 10*time.Second, answer("slow.example. 300 IN A 192.0.2.1"))

	// Names: the root, escapes, one longer than 31 and one longer than 255 characters.
	for _, name := range []string{".", `q\"uo\\te\.d.example.`, strings.Repeat("long-label.", 6), strings.Repeat(`\000\255\"\\`, 15) + ".example."} {
		pair(ask(name, dns.TypeCNAME), time.Millisecond, func(r *dns.Msg) {
			for range 2 {
				r.Answer = append(r.Answer, &dns.CNAME{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: name},
					&dns.NS{Hdr: dns.RR_Header{Name: "other.", Rrtype: dns.TypeNS, Class: dns.ClassANY}, Ns: name})
			}
		})
	}
	// RDATA with a text of more than 64 KiB.
	big := ask("big.example.", dns.TypeNULL)
	pair(big, time.Millisecond, func(r *dns.Msg) {
		r.Answer = []dns.RR{&dns.RFC3597{Hdr: dns.RR_Header{Name: "big.example.", Rrtype: 65280, Class: dns.ClassINET}, Rdata: strings.Repeat("5c22", 16500)}}
	})
	for _, n := range []int{26, 27, 28, 29, 30, 31, 32, 125, 126, 127, 128, 129, 255} { // around the borders of fixstr, str 8 and str 16
		pair(ask("txt.example.", dns.TypeTXT), time.Millisecond, func(r *dns.Msg) {
			h := dns.RR_Header{Name: "txt.example.", Rrtype: dns.TypeTXT, Class: dns.ClassINET}
			r.Answer = []dns.RR{&dns.TXT{Hdr: h, Txt: []string{strings.Repeat("t", n)}}, &dns.TXT{Hdr: h, Txt: []string{strings.Repeat("t", n), strings.Repeat("u", n-4)}}}
		})
	}
	// More RRs than a fixarray holds, and a TSIG and an OPT that get no record.
	pair(ask("many.example.", dns.TypeA), time.Millisecond, func(r *dns.Msg) {
		for i := range 40 {
			r.Answer = append(r.Answer, zoneRRs(t, fmt.Sprintf("many.example. 1 IN A 192.0.2.%d", i))...)
		}
		r.Ns = zoneRRs(t, "example. 60 IN NS ns1.example.", "example. 60 CH NS ns2.example.")
		r.Extra = zoneRRs(t, "ns1.example. 60 IN A 192.0.2.1", "ns1.example. 60 IN AAAA 2001:db8::1")
		withEDNS(r)
		r.SetTsig("key.", dns.HmacSHA256, 300, 1)
		r.Extra[len(r.Extra)-1].(*dns.TSIG).MAC = ""
	})

	// Statuses.
	pair(ask("nodata.example.", dns.TypeMX), time.Millisecond, func(r *dns.Msg) {
		r.Ns = zoneRRs(t, "example. 3600 IN SOA ns.example. host.example. 1 2 3 4 5")
		r.Authoritative, r.RecursionAvailable, r.AuthenticatedData = true, true, true
	})
	pair(ask("referral.example.", dns.TypeA), time.Millisecond, func(r *dns.Msg) {
		r.Ns = zoneRRs(t, "referral.example. 3600 IN NS ns.example.")
	})
	for _, rcode := range []int{dns.RcodeNameError, dns.RcodeServerFailure, dns.RcodeBadVers, 4000} {
		pair(ask("rcode.example.", dns.TypeA), time.Millisecond, func(r *dns.Msg) {
			withEDNS(r)
			r.Rcode = rcode
			r.Truncated = true
		})
	}
	legs = append(legs, recordLeg{raw: packedWith(t, ask("unanswered.example.", dns.TypeA), nil), at: at})
	unsolicited := new(dns.Msg).SetReply(ask("unsolicited.example.", dns.TypeA))
	legs = append(legs, recordLeg{raw: packedWith(t, unsolicited, answer("unsolicited.example. 5 IN A 192.0.2.1")), at: at, v6: true})
	unsolicited.Question = nil
	legs = append(legs, recordLeg{raw: packedWith(t, unsolicited, nil), at: at, vlan: 4095})

	// Opcodes and classes.
	update := new(dns.Msg).SetUpdate("example.")
	update.Insert(zoneRRs(t, "a.example. 60 IN A 192.0.2.1"))
	update.RemoveRRset(zoneRRs(t, "b.example. 60 IN A 192.0.2.1"))
	pair(update, time.Millisecond, func(r *dns.Msg) { r.Ns = update.Ns })
	pair(new(dns.Msg).SetNotify("example."), time.Millisecond, nil)
	for _, class := range []uint16{dns.ClassCHAOS, 0, 4660} {
		q := ask("version.bind.", dns.TypeTXT)
		q.Question[0].Qclass = class
		pair(q, time.Millisecond, func(r *dns.Msg) {
			r.Opcode = 15
			r.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: "version.bind.", Rrtype: dns.TypeTXT, Class: class}, Txt: []string{"1"}}}
		})
	}
	odd := ask("odd.example.", 65534)
	odd.Opcode, odd.CheckingDisabled, odd.RecursionDesired = 7, true, false
	pair(odd, time.Millisecond, nil)

	// EDNS: client subnets on both sides, extended errors with all kinds of text, and many.
	v4 := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, SourceScope: 0, Address: []byte{192, 0, 2, 0}}
	v6 := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 2, SourceNetmask: 128, SourceScope: 0, Address: []byte("\x20\x01\x0d\xb8\x12\x34\x56\x78\x9a\xbc\xde\xf0\x12\x34\x56\x78")}
	for _, subnet := range []*dns.EDNS0_SUBNET{v4, v6} {
		q := ask("ecs.example.", dns.TypeA)
		withEDNS(q, subnet)
		pair(q, time.Millisecond, nil)
		pair(q, time.Millisecond, func(r *dns.Msg) { scoped := *subnet; scoped.SourceScope = 16; withEDNS(r, &scoped) })
		pair(ask("ecs.example.", dns.TypeA), time.Millisecond, func(r *dns.Msg) { withEDNS(r, subnet) })
	}
	plainEDNS := ask("edns.example.", dns.TypeA)
	plainEDNS.SetEdns0(512, false)
	texts := []string{"", "prohibited", "\"\\\x00\x1f\x7f\u0080\u009f é 漢 😀", "\xff\xfe\xc3(\xed\xa0\x80\xf4\x90\x80\x80\xe2\x82", strings.Repeat("\xff", 30), strings.Repeat("e", 300)}
	pair(plainEDNS, time.Millisecond, func(r *dns.Msg) {
		withEDNS(r)
		for i := range 20 {
			r.IsEdns0().Option = append(r.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: uint16(1)<<(i%16) - 1, ExtraText: texts[i%len(texts)]})
		}
	})

	// Repeated, out of order, cut, tagged, and over TCP: a transfer in two messages.
	at += 3 * time.Second
	q := ask("again.example.", dns.TypeA)
	r := new(dns.Msg).SetReply(q)
	query, response := packedWith(t, q, nil), packedWith(t, r, answer("again.example. 1 IN A 192.0.2.1"))
	legs = append(legs, recordLeg{raw: query, at: at}, recordLeg{raw: query, at: at + 1}, recordLeg{raw: query, at: at + 2}, recordLeg{raw: response, at: at + 3})
	legs = append(legs, recordLeg{raw: response, at: at + 2*time.Minute}, recordLeg{raw: query, at: at + 2*time.Minute + 1000, wire: len(query) + 100, vlan: 7})
	legs = append(legs, recordLeg{raw: query, at: at + 4*time.Minute}, recordLeg{raw: response[:len(response)-8], wire: len(response), at: at + 4*time.Minute + 1, vlan: 200})
	axfr := ask("example.", dns.TypeAXFR)
	r = new(dns.Msg).SetReply(axfr)
	response = packedWith(t, r, answer("example. 1 IN SOA ns.example. host.example. 1 2 3 4 5", "a.example. 1 IN A 192.0.2.1"))
	legs = append(legs, recordLeg{raw: packedWith(t, axfr, nil), at: at, tcp: true}, recordLeg{raw: response, at: at + 1, tcp: true}, recordLeg{raw: response, at: at + 2, tcp: true})
	return legs
}

// TestMsgpackEqualsJSON compares the two forms of each record, by decoding both and byte by byte with the line in msgpack,
// and that the traffic has every status and every field.
func TestMsgpackEqualsJSON(t *testing.T) {
	legs := recordLegs(t)
	for _, raw := range messageSeeds(t) {
		legs = append(legs, recordLeg{raw: raw, at: time.Hour})
	}
	common := []string{
		"aa", "ad", "attempts", "bytes", "cd", "cut", "do", "dport", "dst", "ecs", "ede", "edns_udp", "elapsed", "level", "opcode", "protocol", "q", "qbytes",
		"qclass", "qtype", "query_id", "ra", "rcode", "rd", "sensor", "sport", "src", "status", "truncated", "tstamp", "vlan",
	}
	for _, tc := range []struct {
		name     string
		sections sectionSet
		perRR    bool
		fields   []string
	}{
		{"a record an RR", wantAnswer, true, []string{"a", "aname", "atype", "ttl"}},
		{"a record an RR of all sections", everySection, true, []string{"a", "aname", "atype", "section", "ttl"}},
		{"a record a lookup", everySection, false, []string{"additionals", "answers", "authorities"}},
		{"a record a lookup, two sections", wantAnswer | wantAdditional, false, []string{"additionals", "answers"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newRecordRig(tc.sections, tc.perRR, true)
			for _, l := range legs {
				g.send(l)
			}
			fields, statuses := make(map[string]bool), make(map[string]bool)
			longest := 0
			for _, r := range g.records() {
				m := checkForms(t, r)
				for name := range m {
					fields[name] = true
				}
				statuses[m["status"].(string)] = true
				longest = max(longest, len(r.msgpack))
			}
			if got, want := slices.Sorted(maps.Keys(fields)), slices.Sorted(slices.Values(append(tc.fields, common...))); !slices.Equal(got, want) {
				t.Errorf("fields\ngot  %v\nwant %v", got, want)
			}
			if got, want := slices.Sorted(maps.Keys(statuses)), slices.Sorted(slices.Values(statusNames[1:])); !slices.Equal(got, want) {
				t.Errorf("statuses\ngot  %v\nwant %v", got, want)
			}
			if longest <= 1<<16 {
				t.Errorf("the longest record has %d bytes: no str 32 was tried", longest)
			}
		})
	}
}

// TestMsgpackUnwanted says that the JSON does not depend on msgpack, and that no msgpack is written unless it is wanted.
func TestMsgpackUnwanted(t *testing.T) {
	for _, perRR := range []bool{true, false} {
		with, without := newRecordRig(everySection, perRR, true), newRecordRig(everySection, perRR, false)
		for _, l := range recordLegs(t) {
			with.send(l)
			without.send(l)
		}
		got, want := without.records(), with.records()
		if len(got) != len(want) {
			t.Fatalf("%d records without msgpack, %d with it", len(got), len(want))
		}
		for i := range got {
			if got[i].msgpack != nil || !bytes.Equal(got[i].json, want[i].json) {
				t.Fatalf("record %d\ngot  %s %x\nwant %s", i, got[i].json, got[i].msgpack, want[i].json)
			}
		}
	}
}

// FuzzMsgpackEqualsJSON sends a message as it is, and as query and response of one lookup; what is written must be the
// same in both forms.
func FuzzMsgpackEqualsJSON(f *testing.F) {
	for i, l := range recordLegs(f) {
		f.Add(l.raw, uint8(i))
	}
	f.Fuzz(func(t *testing.T, raw []byte, mode uint8) {
		if len(raw) > 2048 { // compression makes a large message some megabytes of text
			return
		}
		g := newRecordRig(everySection, mode&1 == 0, true)
		l := recordLeg{raw: raw, v6: mode&2 != 0, tcp: mode&4 != 0, vlan: uint16(mode >> 4)}
		if mode&8 != 0 {
			l.wire = len(raw) + 1
		}
		g.send(l)
		if len(raw) > 2 {
			l.raw, l.at = bytes.Clone(raw), time.Second
			l.raw[2] ^= 0x80
			g.send(l)
		}
		for _, r := range g.records() {
			checkForms(t, r)
		}
	})
}

// pairedRig returns a worker that holds a lookup and has parsed its response.
func pairedRig(tb testing.TB, wantMsgpack bool) (w *worker, l *lookup) {
	g := newRecordRig(wantAnswer, true, wantMsgpack)
	tb.Cleanup(func() { g.records() })
	g.send(recordLeg{raw: packedQuery(tb)})
	l = g.w.tab.at(g.w.tab.oldest(&g.w.tab.pending, statePending))
	g.w.msg.parse(packedResponse(tb))
	return g.w, l
}

func TestEncodeDoesNotAllocate(t *testing.T) {
	legs := recordLegs(t)
	for _, perRR := range []bool{true, false} {
		w, l := pairedRig(t, true)
		w.enc.perRR, w.enc.sections = perRR, everySection
		w.cur.json, w.cur.msgp = make([]byte, 0, 1<<20), make([]byte, 0, 1<<20)
		for _, x := range legs {
			if len(x.raw) > 4096 || w.msg.parse(x.raw) != malformedNone {
				continue
			}
			encode := func() {
				w.cur.reset()
				w.enc.lookup(w, l, &w.msg, int64(x.at), int64(x.at), len(x.raw), false, 1, 0)
			}
			if n := testing.AllocsPerRun(10, encode); n != 0 {
				t.Errorf("%v allocations for %x", n, x.raw)
			}
		}
	}
}

// BenchmarkEncode is the records of an answer of four RRs, in JSON alone and in both forms.
func BenchmarkEncode(b *testing.B) {
	for _, wantMsgpack := range []bool{false, true} {
		name := "json"
		if wantMsgpack {
			name = "json+msgpack"
		}
		b.Run(name, func(b *testing.B) {
			w, l := pairedRig(b, wantMsgpack)
			b.ReportAllocs()
			for b.Loop() {
				w.cur.reset()
				w.enc.lookup(w, l, &w.msg, 1_700_000_000_123_456_789, 1_234_567, 120, false, 0, 0)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(w.cur.ends)), "ns/record")
			b.ReportMetric(float64(len(w.cur.json)/len(w.cur.ends)), "json-B/record")
			b.ReportMetric(float64(len(w.cur.msgp)/len(w.cur.ends)), "msgpack-B/record")
		})
	}
}

// bothFormsSink keeps copies of the batches that it is given.
type bothFormsSink struct{ batches []*batch }

func (s *bothFormsSink) name() string                { return "both forms" }
func (s *bothFormsSink) close(context.Context) error { return nil }
func (s *bothFormsSink) write(b *batch) error {
	s.batches = append(s.batches, &batch{
		json: bytes.Clone(b.json), ends: slices.Clone(b.ends), msgpack: bytes.Clone(b.msgpack), msgEnds: slices.Clone(b.msgEnds),
	})
	return nil
}

// TestMsgpackPipeline runs a capture through two workers: in every batch that a sink gets, record i of one form is record
// i of the other, and without a sink that wants msgpack the batches hold none.
func TestMsgpackPipeline(t *testing.T) {
	const flows = 3000
	capture := binary.LittleEndian.AppendUint32(nil, magicNano)
	capture = append(capture, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, linkRaw, 0, 0, 0)
	query, response := packedQuery(t), packedResponse(t)
	for i := range 2 * flows {
		payload, src, dst := query, []byte{10, 0, byte(i / 2 >> 8), byte(i / 2)}, []byte{192, 0, 2, 53}
		sport, dport := uint16(40000), uint16(53)
		if i%2 == 1 {
			payload, src, dst, sport, dport = response, dst, src, dport, sport
		}
		n := 28 + len(payload)
		for _, v := range []int{1_700_000_000, i * 1000, n, n} {
			capture = binary.LittleEndian.AppendUint32(capture, uint32(v))
		}
		capture = append(capture, 0x45, 0, byte(n>>8), byte(n), 0, 0, 0, 0, 64, 17, 0, 0)
		capture = append(append(capture, src...), dst...)
		for _, v := range []uint16{sport, dport, uint16(n - 20), 0} {
			capture = binary.BigEndian.AppendUint16(capture, v)
		}
		capture = append(capture, payload...)
	}
	for _, wantMsgpack := range []bool{true, false} {
		t.Run(fmt.Sprintf("wanted %v", wantMsgpack), func(t *testing.T) {
			defer noLeaks(t)()
			s := &bothFormsSink{}
			log := &sinkLog{}
			q := newSinkQueue(s, sinkOptions{queueBytes: 64 << 20, block: true, log: log})
			cfg := &config{
				name: "s", numProcs: 2, sections: wantAnswer, layout: layoutRR, maxPending: 10000, gcAge: time.Minute, gcInterval: time.Second, incomplete: true,
			}
			p := newPipeline(cfg, []*sinkQueue{q}, wantMsgpack, make(chan struct{}))
			if err := readCaptures(p.feeder, []string{"-"}, bytes.NewReader(capture), log); err != nil {
				t.Fatal(err)
			}
			p.finish()
			if err := q.drain(context.Background()); err != nil {
				t.Fatal(err)
			}
			records := 0
			for _, b := range s.batches {
				if !wantMsgpack {
					if len(b.msgpack) != 0 || len(b.msgEnds) != 0 {
						t.Fatalf("%d bytes of msgpack that nobody wanted", len(b.msgpack))
					}
					continue
				}
				if len(b.ends) != len(b.msgEnds) || int(b.msgEnds[len(b.msgEnds)-1]) != len(b.msgpack) {
					t.Fatalf("a batch of %d lines has %d maps, the last up to %d of %d", len(b.ends), len(b.msgEnds), b.msgEnds[len(b.msgEnds)-1], len(b.msgpack))
				}
				from := int32(0)
				for i, end := range b.msgEnds {
					checkForms(t, bothForms{b.line(i), b.msgpack[from:end]})
					from = end
				}
				records += b.records()
			}
			if want := 4 * flows; wantMsgpack && (records != want || len(s.batches) < 2) {
				t.Errorf("%d records in %d batches, want %d in several", records, len(s.batches), want)
			}
			for i, w := range p.feeder.workers {
				if w.count.records == 0 {
					t.Errorf("worker %d had nothing to do", i)
				}
			}
		})
	}
}
