// Tests against hostile input, of the whole pipeline: any bytes as a capture, and any bytes as what a capture holds.
// What must hold of every input is in checkHostile. What the parts of the program owe is tested beside them.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/miekg/dns"

	"gopassivedns/testdata/bench/wire"
)

// hostileRun is what one run of the pipeline gave.
type hostileRun struct {
	json, msgpack []byte
	forms         []bothForms
	account       *snapshot
	err           string
}

// runHostile runs a capture through a pipeline of its own.
func runHostile(t testing.TB, capture []byte, wantMsgpack bool, args ...string) *hostileRun {
	t.Helper()
	cfg := testConfig(t, append(args, "-pcap=fuzz")...)
	s := &bothFormsSink{}
	log := &userLog{stderr: new(bytes.Buffer)}
	q := newSinkQueue(s, sinkOptions{queueBytes: blockQueueMB << 20, block: true, log: log})
	p := newPipeline(cfg, []*sinkQueue{q}, wantMsgpack, make(chan struct{}))
	r := &hostileRun{}
	if err := readCapture(p.feeder, "fuzz", bytes.NewReader(capture), func(uint32) {}); err != nil {
		r.err = err.Error()
	}
	p.finish()
	if err := q.drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.account = p.acct.snapshot()
	for _, b := range s.batches {
		r.json, r.msgpack = append(r.json, b.json...), append(r.msgpack, b.msgpack...)
		from := int32(0)
		for i := range b.ends {
			f := bothForms{json: b.line(i)}
			if wantMsgpack {
				f.msgpack = b.msgpack[from:b.msgEnds[i]]
				from = b.msgEnds[i]
			}
			r.forms = append(r.forms, f)
		}
	}
	return r
}

// hostileGrowth bounds what a byte of input may become in the output. The worst is an RR of 14 octets that becomes a
// line with three names of 255 octets, each octet of which takes five characters, in an answer with 1,024 octets of EDE
// text, of which each takes six.
const hostileGrowth = 1024

// checkHostile runs a capture with one worker and with five. Whatever the capture is, both write the same bytes, every
// line is a record as the README describes it, msgpack says the same, the output is in proportion to the
// input, nothing is held at the end and the account adds up.
func checkHostile(t *testing.T, capture []byte, wantMsgpack bool, args ...string) *hostileRun {
	t.Helper()
	begin := time.Now()
	r := runHostile(t, capture, wantMsgpack, append(args, "-numprocs=1")...)
	r5 := runHostile(t, capture, wantMsgpack, append(args, "-numprocs=5")...)
	if !bytes.Equal(r.json, r5.json) || !bytes.Equal(r.msgpack, r5.msgpack) || r.err != r5.err {
		t.Fatalf("one worker and five differ\none:  %q %s\nfive: %q %s", r.json, r.err, r5.json, r5.err)
	}
	for _, s := range []*snapshot{r.account, r5.account} {
		if err := s.check(); err != nil {
			t.Fatal(err)
		}
		if w := &s.work; w.pending != 0 || w.waiting != 0 || w.tcpPayload != 0 || s.capture.frag.heldFragments != 0 || s.out.batched != 0 {
			t.Fatalf("held at the end: %d lookups, %d responses, %d TCP bytes, %d fragments, %d records",
				w.pending, w.waiting, w.tcpPayload, s.capture.frag.heldFragments, s.out.batched)
		}
		if got, want := uint64(len(r.forms)), s.work.records; got != want || s.sinks[0].written != want {
			t.Fatalf("lines: got %d, %d written, want %d", got, s.sinks[0].written, want)
		}
	}
	if got, limit := len(r.json), hostileGrowth*len(capture); got > limit {
		t.Fatalf("%d bytes of capture gave %d bytes of output, the limit is %d", len(capture), got, limit)
	}
	for _, f := range r.forms {
		checkHostileLine(t, f.json)
		if wantMsgpack {
			checkForms(t, f)
		}
	}
	if took := time.Since(begin); took > time.Minute {
		t.Fatalf("%d bytes of capture took %v", len(capture), took)
	}
	return r
}

// checkHostileLine checks that a line is one line, that it is safe for a terminal, and that its fields are those of the
// contract.
func checkHostileLine(t *testing.T, line []byte) {
	t.Helper()
	if n := len(line); n == 0 || line[n-1] != '\n' {
		t.Fatalf("no line: %q", line)
	}
	line = line[:len(line)-1]
	for i := 0; i < len(line); {
		r, n := utf8.DecodeRune(line[i:])
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError && n == 1 {
			t.Fatalf("byte %d is %#x: %q", i, line[i], line)
		}
		i += n
	}
	names, kinds := fieldsOf(t, line)
	at := -1
	present := make(map[string]bool, len(names))
	for i, name := range names {
		present[name] = true
		k := slices.IndexFunc(hostileFields, func(f hostileField) bool { return f.name == name })
		if k <= at || hostileFields[max(k, 0)].kind != kinds[i] {
			t.Fatalf("field %q is unknown, in the wrong place, twice there or of the wrong type %s: %s", name, kinds[i], line)
		}
		at = k
	}
	perRR := present["aname"] || present["atype"]
	for _, f := range hostileFields {
		if f.always == 'a' && !present[f.name] || f.always == 'r' && present[f.name] != perRR {
			t.Fatalf("field %q: present is %v: %s", f.name, present[f.name], line)
		}
	}
	var v struct {
		Tstamp, Protocol, Status, Atype, A, Section, Sport string
		Rcode                                              int
		Elapsed                                            *int64
	}
	if err := json.Unmarshal(line, &v); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if ts, err := time.Parse("2006-01-02T15:04:05.000000000Z", v.Tstamp); err != nil || ts.Format("2006-01-02T15:04:05.000000000Z") != v.Tstamp {
		t.Fatalf("tstamp: %v: %s", err, line)
	}
	one := func(s string, of ...string) bool { return slices.Contains(of, s) }
	paired := one(v.Status, "answer", "nodata", "referral", "nxdomain", "error")
	if !one(v.Protocol, "udp", "tcp") || !paired && !one(v.Status, "unanswered", "unsolicited") || !one(v.Section, "", "authority", "additional") ||
		(v.Elapsed != nil) != paired || (v.Rcode == -1) != (v.Status == "unanswered") || v.Rcode > 4095 {
		t.Fatalf("values that contradict each other or the contract: %s", line)
	}
	if v.Atype == "" && perRR && strings.ContainsAny(v.A, ` "\`) {
		t.Fatalf("a without an RR is no rcode: %s", line)
	}
}

// hostileField is a field of the contract; always is 'a' for one that is never absent, 'r' for one that exactly the
// lines of -layout rr have.
type hostileField struct {
	name, kind string
	always     byte
}

// hostileFields are the fields in their order, both layouts'.
var hostileFields = []hostileField{
	{"tstamp", "string", 'a'}, {"sensor", "string", 'a'}, {"query_id", "int", 'a'}, {"src", "string", 'a'}, {"sport", "string", 'a'},
	{"dst", "string", 'a'}, {"dport", "string", 'a'}, {"protocol", "string", 'a'}, {"vlan", "int", 0}, {"opcode", "string", 0},
	{"q", "string", 'a'}, {"qtype", "string", 'a'}, {"qclass", "string", 0}, {"rcode", "int", 'a'}, {"status", "string", 'a'},
	{"aname", "string", 0}, {"atype", "string", 'r'}, {"a", "string", 'r'}, {"ttl", "int", 'r'}, {"section", "string", 0},
	{"answers", "array", 0}, {"authorities", "array", 0}, {"additionals", "array", 0},
	{"elapsed", "int", 0}, {"attempts", "int", 0}, {"bytes", "int", 'a'}, {"qbytes", "int", 0}, {"aa", "bool", 'a'}, {"rd", "bool", 'a'},
	{"ra", "bool", 'a'}, {"truncated", "bool", 'a'}, {"ad", "bool", 'a'}, {"cd", "bool", 'a'}, {"edns_udp", "int", 0}, {"do", "bool", 0},
	{"ecs", "string", 0}, {"ede", "array", 0}, {"cut", "bool", 0}, {"level", "string", 0},
}

// The ways to make a capture of fuzzed bytes.
const (
	asFile     = iota // they are the file
	asFrames          // they are packets of any link type
	asMessages        // they are UDP payloads between two hosts
	asStream          // they are the payloads of one TCP connection
	hostileWays
)

// appendPiece encodes one packet for hostileCapture: a byte that says how it travels, its length and its bytes.
func appendPiece(b []byte, how byte, data []byte) []byte {
	b = append(b, how, byte(len(data)), byte(len(data)>>8))
	return append(b, data...)
}

// hostileCapture makes a capture of data in one of the ways. But for asFile, data is a row of packets, each as
// appendPiece writes it, whose lengths are cut to what is there. Of how, bit 0 is the direction (1: from the server),
// bits 1 to 3 the time that has passed, bits 4 to 6 depend on the way, bit 7 cuts a message into two fragments, or the
// frame as a snaplen does.
func hostileCapture(data []byte, way int, link uint8) []byte {
	if way == asFile {
		return data
	}
	lt := uint32(linkEthernet)
	if way == asFrames {
		lt = fuzzLink(link)
	}
	out := binary.LittleEndian.AppendUint32(nil, magicNano)
	out = append(out, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0)
	out = binary.LittleEndian.AppendUint32(out, lt)
	ts := int64(1_700_000_000_000_000_000)
	packet := func(frame []byte, cut int) {
		for _, v := range []uint32{uint32(ts / 1e9), uint32(ts % 1e9), uint32(len(frame) - cut), uint32(len(frame))} {
			out = binary.LittleEndian.AppendUint32(out, v)
		}
		out = append(out, frame[:len(frame)-cut]...)
	}
	ends := [2]*wire.Host{{Addr: [16]byte{10, 0, 0, 1}}, {Addr: [16]byte{192, 0, 2, 53}}}
	if link&1 != 0 {
		ends = [2]*wire.Host{{Addr: [16]byte{0x20, 1, 15: 1}, V6: true}, {Addr: [16]byte{0x20, 1, 15: 53}, V6: true}}
	}
	ports := [2]uint16{4000, dnsPort}
	conn := wire.Conn{Ends: ends, Ports: ports}
	for id := uint16(1); len(data) >= 3; id++ {
		how := data[0]
		n := min(int(data[1])|int(data[2])<<8, len(data)-3)
		b := data[3 : 3+n]
		data = data[3+n:]
		ts += [8]int64{0, 1e6, 5e8, 3e9, 70e9, -1e9, -3600e9, 200e9}[how>>1&7]
		ts = max(ts, 0)
		from := int(how & 1)
		switch way {
		case asFrames:
			cut := 0
			if how&0x80 != 0 {
				cut = len(b) / 2
			}
			packet(b, cut)
		case asMessages:
			if n > 65535-8-40 {
				return out
			}
			ports[0] = 4000 + uint16(how>>4&7)
			segment := wire.AppendUDP(nil, ends[from], ends[1-from], ports[from], ports[1-from], b, true)
			half := len(segment) / 2 &^ 7
			if how&0x80 == 0 || link&1 != 0 || half == 0 {
				frame := wire.AppendEthernet(nil, ends[from], ends[1-from])
				frame = wire.AppendIP(frame, ends[from], ends[1-from], 17, id, len(segment))
				packet(append(frame, segment...), 0)
				continue
			}
			for _, f := range []struct {
				field uint16
				data  []byte
			}{{uint16(half / 8), segment[half:]}, {0x2000, segment[:half]}} {
				frame := wire.AppendEthernet(nil, ends[from], ends[1-from])
				frame = wire.AppendIPv4(frame, ends[from], ends[1-from], 17, id, f.field, len(f.data))
				packet(append(frame, f.data...), 0)
			}
		case asStream:
			if n > 65535-20-40-40 {
				return out
			}
			flags := [8]byte{wire.ACK, wire.PSH | wire.ACK, wire.SYN, wire.FIN | wire.ACK, 4, wire.ACK, wire.ACK, wire.ACK}[how>>4&7]
			again := conn
			packet(conn.AppendFrame(nil, from, flags, b, id), 0)
			if how&0x80 != 0 { // the next segment of this side overlaps this one
				conn.Seq[from] = again.Seq[from] + uint32(n/2)
			}
		}
	}
	return out
}

// hostileSeeds adds the bundled captures and their packets and messages, each in its way; large ones add little but time.
func hostileSeeds(f *testing.F, add func(data []byte, way int, link uint8)) {
	for _, name := range bundledCaptures(f) {
		file, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if len(file) > 1<<14 {
			continue
		}
		add(file, asFile, 0)
		filter := &hostileFrames{loc: locator{anyPort: true}}
		p := newPipeline(testConfig(f, "-numprocs=1", "-pcap=seed"), nil, false, make(chan struct{}))
		p.feeder.filter = filter
		err = readCapture(p.feeder, name, bytes.NewReader(file), func(uint32) {})
		p.finish()
		if err != nil {
			f.Logf("%s: %v", name, err)
			continue
		}
		if k := slices.Index(fuzzLinks, filter.link); k >= 0 {
			add(filter.frames, asFrames, uint8(k))
		}
		if len(filter.messages) > 0 {
			add(filter.messages, asMessages, uint8(len(file)))
		}
		if len(filter.segments) > 0 {
			add(filter.segments, asStream, uint8(len(file)))
		}
	}
}

// hostileFrames is a filter that keeps what it sees, as pieces.
type hostileFrames struct {
	loc                        locator
	link                       uint32
	frames, messages, segments []byte
}

func (h *hostileFrames) matches(frame []byte, _ int, link uint32) bool {
	h.link = link
	h.frames = appendPiece(h.frames, 1<<1, frame)
	var v view
	var fl flow
	switch h.loc.locate(frame, link, &v) {
	case verdictUDP:
		if data := frame[v.l4+8 : v.end]; len(data) > 2 {
			h.messages = appendPiece(h.messages, 1<<1|data[2]>>7, data)
		}
	case verdictTCP:
		v.fillFlow(frame, &fl)
		how := byte(1 << 1)
		if fl.sport == dnsPort {
			how |= 1
		}
		if flags := frame[v.l4+13]; flags&wire.SYN != 0 {
			how |= 2 << 4
		} else if flags&wire.FIN != 0 {
			how |= 3 << 4
		}
		if head := uint32(frame[v.l4+12]>>4) * 4; v.l4+head <= v.end {
			h.segments = appendPiece(h.segments, how, frame[v.l4+head:v.end])
		}
	}
	return false
}

// TestMemoryBound: the README gives the sum for the default flags, one file to read and one output.
func TestMemoryBound(t *testing.T) {
	cfg := testConfig(t, "-pcap=x")
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("which is %d MB with the default flags", memoryBound(cfg, 1)>>20)
	if !bytes.Contains(readme, []byte(text)) {
		t.Errorf("the README does not say %q", text)
	}
}

// FuzzPipeline runs any bytes through the whole program but its sinks; see checkHostile for what must hold. mode
// chooses what a user could: the layout, the sections, msgpack, the bounds.
func FuzzPipeline(f *testing.F) {
	n := uint8(0)
	hostileSeeds(f, func(data []byte, way int, link uint8) {
		f.Add(data, uint8(way), link, n)
		n++
	})
	f.Add(pcapLE(clockTricks(5, sampleTraffic(6, 30))), uint8(asFile), uint8(0), uint8(2))
	f.Add(pcapLE(bigAnswers(1, 3, 9)), uint8(asFile), uint8(0), uint8(16))
	f.Fuzz(func(t *testing.T, data []byte, way, link, mode uint8) {
		if len(data) > 1<<17 {
			return
		}
		args := []string{"-sections=answer"}
		if mode&1 != 0 {
			args[0] = "-sections=answer,authority,additional"
		}
		if mode&2 != 0 {
			args = append(args, "-layout=lookup")
		}
		if mode&4 != 0 {
			args = append(args, "-gc_age=1s", "-gc_interval=1s")
		}
		if mode&8 != 0 {
			args = append(args, "-incomplete=false")
		}
		checkHostile(t, hostileCapture(data, int(way)%hostileWays, link), mode&16 != 0, args...)
	})
}

// TestHostileWays makes sure that each way of FuzzPipeline leads to answered lookups, so that its mutations are of
// something.
func TestHostileWays(t *testing.T) {
	query, response := packedQuery(t), packedResponse(t)
	framed := func(b []byte) []byte { return append([]byte{byte(len(b) >> 8), byte(len(b))}, b...) }
	udp := appendPiece(appendPiece(nil, 2, query), 3, response)
	halves := appendPiece(appendPiece(nil, 2|0x80, query), 3|0x80, response)
	tcp := appendPiece(appendPiece(appendPiece(appendPiece(nil, 2|2<<4, nil), 3|2<<4, nil), 2, framed(query)), 3, framed(response))
	file := hostileCapture(udp, asMessages, 0)
	frame := file[40 : 40+binary.LittleEndian.Uint32(file[32:])]
	for _, c := range []struct {
		name string
		data []byte
		way  int
		link uint8
		want string
	}{
		{"file", file, asFile, 0, "answer"},
		{"frames", appendPiece(nil, 0, frame), asFrames, 0, "unanswered"},
		{"messages", udp, asMessages, 0, "answer"},
		{"messages over IPv6", udp, asMessages, 1, "answer"},
		{"fragments", halves, asMessages, 0, "answer"},
		{"stream", tcp, asStream, 0, "answer"},
		{"stream over IPv6", tcp, asStream, 1, "answer"},
	} {
		r := checkHostile(t, hostileCapture(c.data, c.way, c.link), true)
		if len(r.forms) == 0 || !bytes.Contains(r.forms[0].json, []byte(fmt.Sprintf(`"status":%q`, c.want))) {
			t.Errorf("%s: got %q, want a lookup with status %s", c.name, r.json, c.want)
		}
	}
}

// hostileTexts are what somebody might want to get through to a terminal, a log parser or a database.
var hostileTexts = []string{
	`"`, `\`, `\"`, `","status":"answer`, "\n", "\r\n", "\n{\"q\":\"forged\"}\n", "\x00", "a\x00b", "\x1b[2J\x1b]0;title\x07", "\x1b[31m", "\x7f\x08\x08",
	"\xff\xfe", "\xc3\x28", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc2\x9b31m", "\u2028\u2029", "\ufeff", "<!-- -->", "$(reboot)`reboot`", "%s%n", "'; DROP TABLE",
	"<134>Jan  1 00:00:00 host forged: line", ".", "\\000", "\\.", "\u202egnp.exe", strings.Repeat("\x00", 63), strings.Repeat(`"`, 63), strings.Repeat("\xff", 63),
}

// TestOutputInjection puts every text, and every octet, into names, RDATA and EDE texts. Each line must be one line of
// valid JSON without a raw control byte, msgpack must hold the same, and the texts must lead back to the octets sent:
// read by somebody else's parser, they are the name and RDATA of the packet.
func TestOutputInjection(t *testing.T) {
	texts := slices.Clone(hostileTexts)
	for i := range 256 {
		texts = append(texts, string([]byte{byte(i), 'b', byte(i)}))
	}
	for i, text := range texts {
		name := append([]byte{byte(len(text))}, text...)
		name = append(name, 4, 't', 'e', 's', 't', 0)
		var query, response wire.Msg
		query.Begin(uint16(i), 0x0100, name, wire.TypeTXT)
		response.Begin(uint16(i), 0x8180, name, wire.TypeTXT)
		response.Pointer(wire.QnameAt)
		response.RR(wire.Answer, wire.TypeTXT, 1)
		response.Text(text)
		response.End()
		response.Pointer(wire.QnameAt)
		response.RR(wire.Answer, wire.TypeNS, 1)
		response.Pointer(wire.QnameAt)
		response.End()
		response.Pointer(wire.QnameAt)
		response.RR(wire.Answer, wire.TypeCAA, 1)
		response.B = append(response.B, 0, 5, 'i', 's', 's', 'u', 'e')
		response.B = append(response.B, text...)
		response.End()
		response.OPT(1232, 0)
		response.Option(15, append([]byte{0, 22}, text...))
		response.End()
		pieces := appendPiece(appendPiece(nil, 2, query.B), 3, response.B)
		capture := hostileCapture(pieces, asMessages, 0)
		if i < len(hostileTexts) {
			checkHostile(t, capture, true, "-layout=lookup", "-sections=answer,authority,additional")
		}
		r := checkHostile(t, capture, true)
		if len(r.forms) != 3 || r.account.sinks[0].written != 3 {
			t.Fatalf("%q: got %d records, want 3: %s", text, len(r.forms), r.json)
		}
		for k, rr := range []struct {
			typ   string
			rdata []byte
		}{{"TXT", append([]byte{byte(len(text))}, text...)}, {"NS", name}, {"CAA", append([]byte("\x00\x05issue"), text...)}} {
			var got struct {
				Q, Aname, Atype, A string
				Ede                []struct{ Text string }
			}
			if err := json.Unmarshal(r.forms[k].json, &got); err != nil {
				t.Fatal(err)
			}
			var buf [300]byte
			for what, s := range map[string]string{"q": got.Q, "aname": got.Aname} {
				n, err := dns.PackDomainName(s+".", buf[:], 0, nil, false)
				if err != nil || !bytes.Equal(buf[:n], name) {
					t.Errorf("%q: %s is %q, which reads as %q (%v)", text, what, s, buf[:n], err)
				}
			}
			if got.Atype != rr.typ {
				t.Errorf("%q: atype %s, want %s", text, got.Atype, rr.typ)
			}
			if rr.typ == "NS" { // a zone file would want more escapes in a name: ; ( ) and $
				if n, err := dns.PackDomainName(got.A+".", buf[:], 0, nil, false); err != nil || !bytes.Equal(buf[:n], name) {
					t.Errorf("%q: NS is %q, which reads as %q (%v)", text, got.A, buf[:n], err)
				}
				continue
			}
			parsed, err := dns.NewRR("x. 1 IN " + rr.typ + " " + got.A)
			if err != nil {
				t.Errorf("%q: %s %s: %v", text, rr.typ, got.A, err)
				continue
			}
			n, err := dns.PackRR(parsed, buf[:], 0, nil, false)
			if head := 3 + 10; err != nil || !bytes.Equal(buf[head:n], rr.rdata) {
				t.Errorf("%q: %s %s reads as %q (%v)", text, rr.typ, got.A, buf[min(head, n):n], err)
			}
			if want := strings.TrimSuffix(strings.ToValidUTF8(text, "\ufffd"), "\x00"); len(got.Ede) != 1 ||
				!strings.Contains(text, "\ufffd") && strings.ReplaceAll(got.Ede[0].Text, "\ufffd", "") != strings.ReplaceAll(want, "\ufffd", "") {
				t.Errorf("%q: ede is %q, want %q", text, got.Ede, want)
			}
		}
	}
}

// TestLongestExpansions sends what grows most: 64 KB over TCP that become the longest lines there are.
func TestLongestExpansions(t *testing.T) {
	long := bytes.Repeat([]byte{1, 0xff}, 127) // 127 labels of one octet and the root are 255 octets, RFC 1035 §2.3.4
	long = append(long, 0)
	fill := func(typ uint16, rdata func(m *wire.Msg, room int)) []byte {
		var m wire.Msg
		m.Begin(1, 0x8180, long, typ)
		for len(m.B)+14 <= 65535 {
			m.Pointer(wire.QnameAt)
			m.RR(wire.Answer, typ, 1)
			rdata(&m, 65535-len(m.B))
			m.End()
		}
		return m.B
	}
	for _, c := range []struct {
		name    string
		message []byte
		longest int // bytes of the longest line in -layout rr, at least
	}{
		{"names", fill(wire.TypeNS, func(m *wire.Msg, room int) { m.Pointer(wire.QnameAt) }), 3 * (5*127 + 126)},
		{"strings of NUL", fill(wire.TypeTXT, func(m *wire.Msg, room int) {
			for room >= 2 {
				n := min(255, room-1)
				m.B = append(append(m.B, byte(n)), make([]byte, n)...)
				room -= n + 1
			}
		}), 5 * 64000},
		{"empty strings", fill(wire.TypeTXT, func(m *wire.Msg, room int) { m.B = append(m.B, make([]byte, room)...) }), 5 * 64000},
		{"all types in a bitmap", fill(rrTypeNSEC, func(m *wire.Msg, room int) {
			m.B = append(m.B, 0)
			for w := 0; w < 256 && room > 40; w++ {
				m.B = append(append(m.B, byte(w), 32), bytes.Repeat([]byte{0xff}, 32)...)
				room -= 40
			}
		}), 600_000},
		{"servers of HIP", fill(rrTypeHIP, func(m *wire.Msg, room int) {
			m.B = append(m.B, 1, 2, 0, 1, 'h', 'k')
			for room > 10 {
				m.Pointer(wire.QnameAt)
				room -= 2
			}
		}), 100_000},
		{"errors in every line", func() []byte {
			var m wire.Msg
			m.Begin(1, 0x8180, long, wire.TypeA)
			for range 2000 {
				m.B = append(m.B, 0)
				m.RR(wire.Answer, wire.TypeA, 1)
				m.End()
			}
			m.OPT(1232, 0)
			for len(m.B)+1000 < 65535 {
				m.Option(15, make([]byte, 900))
			}
			m.End()
			return m.B
		}(), 6000},
	} {
		for _, args := range [][]string{{"-layout=rr"}, {"-layout=lookup"}} {
			t.Run(c.name+args[0], func(t *testing.T) {
				stream := append([]byte{byte(len(c.message) >> 8), byte(len(c.message))}, c.message...)
				pieces := appendPiece(nil, 2|1|2<<4, nil)
				for chunk := range slices.Chunk(stream, 32000) {
					pieces = appendPiece(pieces, 1, chunk)
				}
				r := checkHostile(t, hostileCapture(pieces, asStream, 0), false, args...)
				longest := 0
				for _, f := range r.forms {
					longest = max(longest, len(f.json))
				}
				if longest < c.longest {
					t.Errorf("the longest of %d lines has %d bytes, want %d or more", len(r.forms), longest, c.longest)
				}
				t.Logf("%d bytes: %d lines, the longest %d, together %d", len(c.message), len(r.forms), longest, len(r.json))
			})
		}
	}
}
