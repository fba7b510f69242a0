// This file: the generator against other people's decoders. gopacket takes the frames apart and checks their
// checksums, miekg/dns unpacks the messages, and a matcher of a few lines counts again what the truth says.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/miekg/dns"

	"gopassivedns/testdata/bench/truth"
	"gopassivedns/testdata/bench/wire"
)

// capture generates in memory.
func capture(t *testing.T, o options) ([]byte, *truth.Counts) {
	t.Helper()
	var b bytes.Buffer
	w, err := wire.NewPcap(&b, o.nano)
	if err != nil {
		t.Fatal(err)
	}
	want, err := generate(o, w)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), want
}

type leg struct {
	client, server netip.AddrPort
	tcp            bool
	id             uint16
}

type seenLookup struct {
	question dns.Question
	askedNs  int64
	lastNs   int64
	attempts int
	answered bool
}

type flow struct{ from, to netip.AddrPort }

type stream struct {
	next    uint32
	pending []byte
}

// matcher recounts the truth.
type matcher struct {
	t       *testing.T
	got     *truth.Counts
	lookups map[leg]*seenLookup
	streams map[flow]*stream
	names   int
	nameLen int
}

func (m *matcher) message(ns int64, from, to netip.AddrPort, tcp bool, b []byte) {
	t := m.t
	var msg dns.Msg
	if err := msg.Unpack(b); err != nil {
		t.Fatalf("%s to %s at %d: %v", from, to, ns, err)
	}
	if len(msg.Question) != 1 {
		t.Fatalf("%d questions, want 1", len(msg.Question))
	}
	m.got.Messages++
	k := leg{from, to, tcp, msg.Id}
	if !msg.Response {
		m.names++
		m.nameLen += len(msg.Question[0].Name)
		l := m.lookups[k]
		if l == nil {
			m.got.QueryBytes += int64(len(b))
			m.lookups[k] = &seenLookup{question: msg.Question[0], askedNs: ns, lastNs: ns, attempts: 1}
			return
		}
		if l.answered || l.question != msg.Question[0] || ns-l.lastNs > 2e9 {
			t.Fatalf("%+v is used twice", k)
		}
		l.attempts++
		l.lastNs = ns
		return
	}
	k = leg{to, from, tcp, msg.Id}
	l := m.lookups[k]
	if l != nil && l.answered {
		m.got.Repeated++
		if ns-l.lastNs > 2e9 {
			t.Fatalf("%+v is answered again after %d ns", k, ns-l.lastNs)
		}
		return
	}
	status := ""
	switch {
	case l == nil:
		status = "unsolicited"
		m.lookups[k] = &seenLookup{question: msg.Question[0], answered: true, lastNs: ns}
	case msg.Rcode == dns.RcodeNameError:
		status = "nxdomain"
	case msg.Rcode != dns.RcodeSuccess:
		status = "error"
	case len(msg.Answer) > 0:
		status = "answer"
	case len(msg.Ns) > 0 && msg.Ns[0].Header().Rrtype == dns.TypeNS:
		status = "referral"
	default:
		status = "nodata"
	}
	m.got.ResponseBytes += int64(len(b))
	if l != nil {
		if l.question != msg.Question[0] {
			t.Fatalf("%v answers %v", msg.Question[0], l.question)
		}
		if ns <= l.lastNs {
			t.Fatalf("response at %d is not after its query at %d", ns, l.lastNs)
		}
		m.got.ElapsedNs += ns - l.askedNs
		if l.attempts > 1 {
			m.got.Retried++
		}
		l.answered = true
		l.lastNs = ns
	}
	var types []string
	for _, rr := range msg.Answer {
		types = append(types, dns.TypeToString[rr.Header().Rrtype])
	}
	m.got.Add(status, tcp, types)
}

func (m *matcher) segment(ns int64, from, to netip.AddrPort, s *layers.TCP) {
	k := flow{from, to}
	st := m.streams[k]
	if s.SYN {
		if st != nil {
			m.t.Fatalf("%v: the connection is opened twice", k)
		}
		m.streams[k] = &stream{next: s.Seq + 1}
		return
	}
	if st == nil || s.Seq != st.next {
		m.t.Fatalf("%v: segment out of place: %d, %+v", k, s.Seq, st)
	}
	if back := m.streams[flow{to, from}]; back == nil || s.Ack != back.next {
		m.t.Fatalf("%v: acknowledges %d, %+v", k, s.Ack, back)
	}
	st.next += uint32(len(s.Payload))
	if s.FIN {
		st.next++
	}
	st.pending = append(st.pending, s.Payload...)
	for len(st.pending) >= 2 {
		n := 2 + int(binary.BigEndian.Uint16(st.pending))
		if len(st.pending) < n {
			return
		}
		m.message(ns, from, to, true, st.pending[2:n])
		st.pending = st.pending[n:]
	}
}

func addrPort(t *testing.T, ip []byte, port uint16) netip.AddrPort {
	t.Helper()
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		t.Fatalf("address of %d bytes", len(ip))
	}
	return netip.AddrPortFrom(a, port)
}

// packet walks down to the layer whose port is 53; what gopacket takes the payload for is of no interest, since it
// goes by the client's port too.
func (m *matcher) packet(ns int64, data []byte) {
	t := m.t
	p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
	var src, dst []byte
	var network gopacket.NetworkLayer
	for _, l := range p.Layers() { // the innermost addresses win
		switch l := l.(type) {
		case *layers.IPv4:
			src, dst, network = l.SrcIP, l.DstIP, l
			checkSum(t, l)
		case *layers.IPv6:
			src, dst, network = l.SrcIP, l.DstIP, l
		case *layers.UDP:
			if err := l.SetNetworkLayerForChecksum(network); err != nil {
				t.Fatal(err)
			}
			checkSum(t, l)
			if l.SrcPort == 53 || l.DstPort == 53 {
				m.message(ns, addrPort(t, src, uint16(l.SrcPort)), addrPort(t, dst, uint16(l.DstPort)), false, l.Payload)
				return
			}
		case *layers.TCP:
			if err := l.SetNetworkLayerForChecksum(network); err != nil {
				t.Fatal(err)
			}
			checkSum(t, l)
			m.segment(ns, addrPort(t, src, uint16(l.SrcPort)), addrPort(t, dst, uint16(l.DstPort)), l)
			return
		}
	}
	t.Fatalf("no port 53 in %v", p)
}

func checkSum(t *testing.T, l gopacket.LayerWithChecksum) {
	t.Helper()
	err, got := l.VerifyChecksum()
	if err != nil || !got.Valid {
		t.Fatalf("%T: checksum %+v, %v", l, got, err)
	}
}

// recount reads a capture with gopacket.
func recount(t *testing.T, file []byte) *matcher {
	t.Helper()
	m := &matcher{t: t, got: truth.New(), lookups: map[leg]*seenLookup{}, streams: map[flow]*stream{}}
	r, err := pcapgo.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	for {
		data, ci, err := r.ReadPacketData()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		ns := ci.Timestamp.UnixNano()
		if ns < last {
			t.Fatalf("packet at %d after one at %d", ns, last)
		}
		last = ns
		m.got.Packets++
		m.got.Bytes += int64(len(data))
		m.packet(ns, data)
	}
	for k, l := range m.lookups {
		if l.answered {
			continue
		}
		m.got.Add("unanswered", k.tcp, nil)
		if l.attempts > 1 {
			m.got.Retried++
		}
	}
	for k, st := range m.streams {
		if len(st.pending) > 0 {
			t.Errorf("%v ends within a message", k)
		}
	}
	return m
}

func TestTruth(t *testing.T) {
	for _, c := range []struct {
		name string
		o    options
	}{
		{"udp", options{packets: 20_000, seed: 1, rate: 60_000}},
		{"tcp", options{packets: 20_000, seed: 2, rate: 60_000, tcp: 0.1}},
		{"vxlan", options{packets: 5_001, seed: 3, rate: 60_000, vxlan: true}},
		{"nano", options{packets: 5_000, seed: 4, rate: 5_000, tcp: 0.5, nano: true}},
		{"one", options{packets: 1, seed: 5, rate: 60_000, tcp: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			file, want := capture(t, c.o)
			if want.Packets != c.o.packets {
				t.Errorf("%d packets, want %d", want.Packets, c.o.packets)
			}
			if got := recount(t, file).got; !reflect.DeepEqual(got, want) {
				t.Errorf("the packets say\n%+v\nthe truth says\n%+v\n%s", got, want, want.Diff(&got.Seen))
			}
			path := filepath.Join(t.TempDir(), "truth.json")
			if err := want.Write(path); err != nil {
				t.Fatal(err)
			}
			if got, err := truth.Read(path); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("written and read again: %+v, %v, want %+v", got, err, want)
			}
			if c.o.tcp > 0 && c.o.packets > 1 && want.TCPLookups == 0 {
				t.Error("no lookup over TCP")
			}
		})
	}
}

// TestTraffic checks that the traffic has the shape that the benchmark is said to have.
func TestTraffic(t *testing.T) {
	file, want := capture(t, options{packets: 40_000, seed: 1, rate: 60_000})
	m := recount(t, file)
	n := float64(want.LookupsTotal)
	for _, c := range []struct {
		what           string
		got, low, high float64
	}{
		{"nxdomain", float64(want.Lookups["nxdomain"]) / n, 0.14, 0.16},
		{"nodata", float64(want.Lookups["nodata"]) / n, 0.07, 0.09},
		{"unanswered", float64(want.Lookups["unanswered"]) / n, 0.005, 0.015},
		{"error", float64(want.Lookups["error"]) / n, 0.01, 0.017},
		{"retried", float64(want.Retried) / n, 0.003, 0.008},
		{"mean name", float64(m.nameLen) / float64(m.names), 20, 30},
		{"RRs an answer", float64(want.Records["answer"]) / float64(want.Lookups["answer"]), 2, 3},
	} {
		if c.got < c.low || c.got > c.high {
			t.Errorf("%s: %.4f, want %.4f to %.4f", c.what, c.got, c.low, c.high)
		}
	}
	if len(want.Types) < 12 {
		t.Errorf("%d types of RR, want 12", len(want.Types))
	}
}

func TestSameSeedSameBytes(t *testing.T) {
	o := options{packets: 3_000, seed: 7, rate: 60_000, tcp: 0.1}
	a, _ := capture(t, o)
	b, _ := capture(t, o)
	if sha256.Sum256(a) != sha256.Sum256(b) {
		t.Error("two runs of one seed differ")
	}
	o.seed = 8
	c, _ := capture(t, o)
	if sha256.Sum256(a) == sha256.Sum256(c) {
		t.Error("two seeds give the same capture")
	}
}

// TestPorts walks further than any capture does: no client uses a pair of port and ID twice.
func TestPorts(t *testing.T) {
	c := client{}
	c.MAC[5] = 77
	seen := map[[2]uint16]bool{}
	for range 300_000 {
		p, id := c.portAndID()
		if p < 1024 || seen[[2]uint16{p, id}] {
			t.Fatalf("port %d, id %d: used or reserved", p, id)
		}
		seen[[2]uint16{p, id}] = true
	}
	ports := map[uint16]bool{}
	for range 64_512 {
		ports[c.tcpPort()] = true
	}
	if len(ports) != 64_512 {
		t.Errorf("%d ports, want 64512", len(ports))
	}
}

// TestPopularity compares the alias table with Zipf's law, and counts equal names.
func TestPopularity(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	n := buildNames(r)
	seen := map[string]bool{}
	for i := range n.hosts {
		seen[strings.ToLower(string(n.wire(i)))] = true
	}
	if len(seen) != nameCount {
		t.Errorf("%d different names, want %d", len(seen), nameCount)
	}
	const draws = 1_000_000
	counts := make([]int, nameCount)
	for range draws {
		counts[n.draw(r)]++
	}
	// Twice as far down the list a name is asked for 2^0.95 = 1.93 times less.
	for _, i := range []int{0, 1, 3} {
		ratio := float64(counts[i]) / float64(counts[2*i+1])
		if ratio < 1.83 || ratio > 2.03 {
			t.Errorf("name %d is %.3f times as popular as name %d, want 1.93", i, ratio, 2*i+1)
		}
	}
}
