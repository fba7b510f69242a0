package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// unhex reads hex digits; blanks mean nothing.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatalf("bad hex %q: %v", s, err)
	}
	return b
}

// Packets of the tables below: 192.0.2.1:4660 asks 198.51.100.2:53 "hello", in UDP and over both versions of IP.
const (
	udpHello  = "1234 0035 000d 0000 68656c6c6f"
	ip4Hello  = "4500 0021 0001 0000 4011 0000 c0000201 c6336402"
	ip6Hello  = "60000000 000d 11 40 20010db8000000000000000000000001 20010db8000000000000000000000002"
	ip6Source = "20010db8000000000000000000000001 20010db8000000000000000000000002"
	macs      = "020000000002 020000000001"
)

// located is what locate says of a frame, in comparable form.
type located struct {
	r           verdict
	kind        uint8
	v6          bool
	l3, l4, end uint32
	wire        uint32
	vlan        uint16
	flow        string // "source > destination", of segments
	payload     string
}

func locateFrame(l *locator, pkt []byte, lt uint32) located {
	var v view
	r := l.locate(pkt, lt, &v)
	if r > verdictFragment {
		return located{r: r}
	}
	got := located{r: r, kind: v.kind, v6: v.flags&viewV6 != 0, l3: v.l3, l4: v.l4, end: v.end, wire: v.wire, vlan: v.vlan}
	if r == verdictFragment {
		return got
	}
	got.flow = flowOf(&v, pkt)
	if r == verdictUDP {
		got.payload = string(pkt[v.l4+8 : v.end])
	}
	return got
}

// flowOf is the flow of the segment that v describes, as text.
func flowOf(v *view, buf []byte) string {
	var f flow
	v.fillFlow(buf, &f)
	return fmt.Sprintf("%v > %v", endOf(f.src, f.sport, f.v6), endOf(f.dst, f.dport, f.v6))
}

func endOf(a [16]byte, port uint16, v6 bool) netip.AddrPort {
	addr := netip.AddrFrom16(a)
	if !v6 {
		addr = addr.Unmap()
	}
	return netip.AddrPortFrom(addr, port)
}

func TestLocateLinkTypes(t *testing.T) {
	const flow4 = "192.0.2.1:4660 > 198.51.100.2:53"
	const flow6 = "[2001:db8::1]:4660 > [2001:db8::2]:53"
	sll := "0000 0001 0006 020000000001 0000 "
	sll2 := " 0000 00000001 0001 00 06 020000000001 0000 "
	tests := []struct {
		name string
		lt   uint32
		link string // in front of the IP packet
		v6   bool
		vlan uint16
	}{
		{name: "Ethernet", lt: linkEthernet, link: macs + "0800"},
		{name: "Ethernet IPv6", lt: linkEthernet, link: macs + "86dd", v6: true},
		{name: "802.1Q", lt: linkEthernet, link: macs + "8100 0064 0800", vlan: 100},
		{name: "802.1Q with priority", lt: linkEthernet, link: macs + "8100 e064 86dd", v6: true, vlan: 100},
		{name: "802.1ad", lt: linkEthernet, link: macs + "88a8 0064 8100 0007 0800", vlan: 100},
		{name: "QinQ 9100", lt: linkEthernet, link: macs + "9100 0064 8100 0007 86dd", v6: true, vlan: 100},
		{name: "802.1Q twice", lt: linkEthernet, link: macs + "8100 0fff 8100 0007 0800", vlan: 4095},
		{name: "priority tag", lt: linkEthernet, link: macs + "8100 e000 0800"},
		{name: "SLL", lt: linkSLL, link: sll + "0800"},
		{name: "SLL IPv6", lt: linkSLL, link: sll + "86dd", v6: true},
		{name: "SLL 802.1Q", lt: linkSLL, link: sll + "8100 0064 0800", vlan: 100},
		{name: "SLL2", lt: linkSLL2, link: "0800" + sll2},
		{name: "SLL2 IPv6", lt: linkSLL2, link: "86dd" + sll2, v6: true},
		{name: "SLL2 802.1Q", lt: linkSLL2, link: "8100" + sll2 + "0064 86dd", v6: true, vlan: 100},
		{name: "raw DLT 12", lt: 12},
		{name: "raw DLT 14", lt: 14, v6: true},
		{name: "raw", lt: 101},
		{name: "raw IPv6", lt: 101, v6: true},
		{name: "IPV4", lt: 228},
		{name: "IPV6", lt: 229, v6: true},
		{name: "NULL little-endian", lt: linkNull, link: "02000000"},
		{name: "NULL big-endian", lt: linkNull, link: "00000002"},
		{name: "NULL IPv6 of FreeBSD", lt: linkNull, link: "1c000000", v6: true},
		{name: "NULL IPv6 of macOS", lt: linkNull, link: "0000001e", v6: true},
		{name: "LOOP", lt: linkLoop, link: "00000002"},
		{name: "LOOP IPv6", lt: linkLoop, link: "00000018", v6: true},
		{name: "PPP", lt: linkPPP, link: "ff03 0021"},
		{name: "PPP without address", lt: linkPPP, link: "0021"},
		{name: "PPP compressed protocol", lt: linkPPP, link: "21"},
		{name: "PPP IPv6", lt: linkPPP, link: "ff03 0057", v6: true},
		{name: "PPP IPv6 compressed", lt: linkPPP, link: "ff03 57", v6: true},
		{name: "PPP in HDLC", lt: linkPPPHDLC, link: "ff03 0021"},
		{name: "Cisco HDLC", lt: linkPPPHDLC, link: "0f00 0800"},
		{name: "Cisco HDLC multicast IPv6", lt: linkPPPHDLC, link: "8f00 86dd", v6: true},
		{name: "PPP with direction", lt: linkPPPDir, link: "00 ff03 0021"},
		{name: "PPP with direction, out", lt: linkPPPDir, link: "01 0057", v6: true},
	}
	l := &locator{key0: 1, key1: 2}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			link := unhex(t, tt.link)
			ip, flow := unhex(t, ip4Hello), flow4
			if tt.v6 {
				ip, flow = unhex(t, ip6Hello), flow6
			}
			pkt := slices.Concat(link, ip, unhex(t, udpHello))
			at := uint32(len(link))
			want := located{r: verdictUDP, kind: viewUDP, v6: tt.v6, l3: at, l4: at + uint32(len(ip)), end: uint32(len(pkt)), wire: 13, vlan: tt.vlan, flow: flow, payload: "hello"}
			if got := locateFrame(l, pkt, tt.lt); got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			// Padding behind the IP length is left out.
			if got := locateFrame(l, append(slices.Clip(pkt), make([]byte, 9)...), tt.lt); got != want {
				t.Errorf("with padding: got  %+v\nwant %+v", got, want)
			}
			// However short the frame is, locate has a verdict, and it is one of a loss.
			for n := range len(link) + len(ip) + 8 {
				switch got := locateFrame(l, pkt[:n:n], tt.lt); got.r {
				case verdictLinkShort, verdictBadIP, verdictBadL4, verdictNotIP:
				default:
					t.Errorf("cut to %d bytes: verdict %s", n, verdictNames[got.r])
				}
			}
		})
	}
}

func TestLocateIP(t *testing.T) {
	hello4 := "192.0.2.1:4660 > 198.51.100.2:53"
	hello6 := "[2001:db8::1]:4660 > [2001:db8::2]:53"
	v6 := func(payload int, next string) string {
		return fmt.Sprintf("60000000 %04x %s 40", payload, next) + ip6Source
	}
	v4 := func(total int, frag, proto string) string {
		return fmt.Sprintf("4500 %04x 0001 %s 40 %s 0000 c0000201 c6336402", total, frag, proto)
	}
	tcp := "1234 0035 00000001 00000000 5002 ffff 0000 0000"
	tests := []struct {
		name string
		pkt  string
		want located
	}{
		{"IPv4 options", "4700 0029 0001 0000 4011 0000 c0000201 c6336402 94040000 01010100" + udpHello,
			located{kind: viewUDP, l4: 28, end: 41, wire: 13, flow: hello4, payload: "hello"}},
		{"IPv4 all options", "4f00 0049 0001 0000 4011 0000 c0000201 c6336402" + strings.Repeat("01", 40) + udpHello,
			located{kind: viewUDP, l4: 60, end: 73, wire: 13, flow: hello4, payload: "hello"}},
		{"IPv4 length zero", v4(0, "0000", "11") + udpHello,
			located{kind: viewUDP, l4: 20, end: 33, wire: 13, flow: hello4, payload: "hello"}},
		{"IPv4 don't fragment", v4(33, "4000", "11") + udpHello,
			located{kind: viewUDP, l4: 20, end: 33, wire: 13, flow: hello4, payload: "hello"}},
		{"IPv4 first fragment", v4(33, "2000", "11") + udpHello, located{r: verdictFragment, l4: 20, end: 33, wire: 13}},
		{"IPv4 last fragment", v4(33, "0005", "11") + udpHello, located{r: verdictFragment, l4: 20, end: 33, wire: 13}},
		{"IPv4 cut in the payload", v4(33, "0000", "11") + "1234 0035 000d 0000 6865",
			located{kind: viewUDP, l4: 20, end: 30, wire: 13, flow: hello4, payload: "he"}},
		{"IPv4 cut behind the UDP header", v4(33, "0000", "11") + "1234 0035 000d 0000",
			located{kind: viewUDP, l4: 20, end: 28, wire: 13, flow: hello4}},
		{"IPv4 cut in the UDP header", v4(33, "0000", "11") + "1234 0035 000d 00", located{r: verdictBadL4}},
		{"IPv4 shorter than its header", v4(19, "0000", "11") + udpHello, located{r: verdictBadIP}},
		{"IPv4 header of 16 bytes", "4400 0021 0001 0000 4011 0000 c0000201 c6336402" + udpHello, located{r: verdictBadIP}},
		{"IPv4 options cut", "4f00 0049 0001 0000 4011 0000 c0000201 c6336402 0101", located{r: verdictBadIP}},
		{"IPv4 options beyond its length", "4600 0016 0001 0000 4011 0000 c0000201 c6336402 01010101" + udpHello, located{r: verdictBadIP}},
		{"IPv4 ICMP", v4(28, "0000", "01") + "0800 0000 0000 0000", located{r: verdictOtherIP}},
		{"IPv4 in IPv4", v4(53, "0000", "04") + ip4Hello + udpHello, located{r: verdictSlow}},
		{"IPv4 GRE", v4(57, "0000", "2f") + "00000800" + ip4Hello + udpHello, located{r: verdictSlow}},
		{"version 5", "5500 0021 0001 0000 4011 0000 c0000201 c6336402" + udpHello, located{r: verdictNotIP}},

		{"UDP length shorter than IP's", v4(33, "0000", "11") + "1234 0035 000a 0000 68656c6c6f",
			located{kind: viewUDP, l4: 20, end: 30, wire: 10, flow: hello4, payload: "he"}},
		{"UDP length longer than IP's", v4(33, "0000", "11") + "1234 0035 00ff 0000 68656c6c6f",
			located{kind: viewUDP, l4: 20, end: 33, wire: 13, flow: hello4, payload: "hello"}},
		{"UDP length zero", v4(33, "0000", "11") + "1234 0035 0000 0000 68656c6c6f",
			located{kind: viewUDP, l4: 20, end: 33, wire: 13, flow: hello4, payload: "hello"}},
		{"UDP length below its header", v4(33, "0000", "11") + "1234 0035 0007 0000 68656c6c6f", located{r: verdictBadL4}},
		{"UDP without payload", v4(28, "0000", "11") + "1234 0035 0008 0000", located{kind: viewUDP, l4: 20, end: 28, wire: 8, flow: hello4}},
		{"UDP header beyond the IP length", v4(27, "0000", "11") + "1234 0035 0008 0000", located{r: verdictBadL4}},
		{"UDP cut, length shorter than the cut", v4(1000, "0000", "11") + "1234 0035 000a 0000 68656c6c6f",
			located{kind: viewUDP, l4: 20, end: 30, wire: 10, flow: hello4, payload: "he"}},
		{"other ports", v4(33, "0000", "11") + "1234 0036 000d 0000 68656c6c6f", located{r: verdictFiltered}},
		{"from port 53", v4(33, "0000", "11") + "0035 1234 000d 0000 68656c6c6f",
			located{kind: viewUDP, l4: 20, end: 33, wire: 13, flow: "192.0.2.1:53 > 198.51.100.2:4660", payload: "hello"}},
		{"VXLAN", v4(33, "0000", "11") + "1234 12b5 000d 0000 68656c6c6f", located{r: verdictSlow}},
		{"a client on VXLAN's port", v4(33, "0000", "11") + "0035 12b5 000d 0000 68656c6c6f",
			located{kind: viewUDP, l4: 20, end: 33, wire: 13, flow: "192.0.2.1:53 > 198.51.100.2:4789", payload: "hello"}},

		{"TCP", v4(40, "0000", "06") + tcp, located{r: verdictTCP, kind: viewTCP, l4: 20, end: 40, wire: 20, flow: hello4}},
		{"TCP cut", v4(60, "0000", "06") + tcp, located{r: verdictTCP, kind: viewTCP, l4: 20, end: 40, wire: 40, flow: hello4}},
		{"TCP header cut", v4(40, "0000", "06") + tcp[:len(tcp)-2], located{r: verdictBadL4}},

		{"IPv6 length zero", v6(0, "11") + udpHello,
			located{kind: viewUDP, v6: true, l4: 40, end: 53, wire: 13, flow: hello6, payload: "hello"}},
		{"IPv6 hop-by-hop", v6(21, "00") + "1100 0104 0000 0000" + udpHello,
			located{kind: viewUDP, v6: true, l4: 48, end: 61, wire: 13, flow: hello6, payload: "hello"}},
		{"IPv6 chain", v6(77, "00") + "2b00 0104 0000 0000" + "3c00 0000 0000 0000" + "3301 0104 0000 0000 0000000000000000" +
			"8704 0000 00000001 00000002 000000000000000000000000" + "1100 0000 0000 0000" + udpHello,
			located{kind: viewUDP, v6: true, l4: 40 + 8 + 8 + 16 + 24 + 8, end: 40 + 8 + 8 + 16 + 24 + 8 + 13, wire: 13, flow: hello6, payload: "hello"}},
		{"IPv6 TCP behind destination options", v6(28, "3c") + "0600 0104 0000 0000" + tcp,
			located{r: verdictTCP, kind: viewTCP, v6: true, l4: 48, end: 68, wire: 20, flow: hello6}},
		{"IPv6 fragment", v6(21, "2c") + "1100 0001 00000001" + udpHello, located{r: verdictFragment, v6: true, l4: 40, end: 61, wire: 21}},
		{"IPv6 header cut short", v6(21, "00") + "1100 01", located{r: verdictBadIP}},
		{"IPv6 header longer than the packet", v6(8, "00") + "11ff 0104 0000 0000", located{r: verdictBadIP}},
		{"IPv6 too many headers", v6(17*8+13, "00") + strings.Repeat("0000 0000 0000 0000", 17) + udpHello, located{r: verdictBadIP}},
		{"IPv6 no next header", v6(0, "3b"), located{r: verdictOtherIP}},
		{"IPv6 in IPv6", v6(53, "29") + ip6Hello + udpHello, located{r: verdictSlow}},
		{"IPv6 cut", v6(100, "11") + udpHello, located{kind: viewUDP, v6: true, l4: 40, end: 53, wire: 13, flow: hello6, payload: "hello"}},
	}
	l := &locator{key0: 1, key1: 2}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := locateFrame(l, unhex(t, tt.pkt), linkRaw); got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestLocateNotIP(t *testing.T) {
	tests := []struct {
		name string
		lt   uint32
		pkt  string
		want verdict
	}{
		{"ARP", linkEthernet, macs + "0806 0001 0800 0604 0001", verdictNotIP},
		{"LLDP", linkEthernet, macs + "88cc 0207", verdictNotIP},
		{"802.3", linkEthernet, macs + "0026 424203", verdictSlow},
		{"MPLS", linkEthernet, macs + "8847 00000140", verdictSlow},
		{"PPPoE session", linkEthernet, macs + "8864 1100 0001 0004 0021", verdictSlow},
		{"PPPoE discovery", linkEthernet, macs + "8863 1109 0000 0004", verdictNotIP},
		{"three tags", linkEthernet, macs + "8100 0001 8100 0002 8100 0003 0800", verdictSlow},
		{"tag cut", linkEthernet, macs + "8100 00", verdictLinkShort},
		{"NULL of no IP", linkNull, "1a000000 e0", verdictNotIP},
		{"raw of no IP", linkRaw, "00", verdictNotIP},
		{"PPP LCP", linkPPP, "ff03 c021 01", verdictNotIP},
		{"Cisco SLARP", linkPPPHDLC, "8f00 8035 00", verdictNotIP},
		{"radiotap", linkRadiotap, "00", verdictSlow},
	}
	l := &locator{key0: 1, key1: 2}
	for _, tt := range tests {
		if got := locateFrame(l, unhex(t, tt.pkt), tt.lt); got.r != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, verdictNames[got.r], verdictNames[tt.want])
		}
	}
	if got := locateFrame(&locator{anyPort: true}, unhex(t, ip4Hello+"1234 0036 000d 0000 68656c6c6f"), linkRaw); got.r != verdictUDP || got.payload != "hello" {
		t.Errorf("with a filter of the user's: got %+v, want a UDP segment", got)
	}
}

// TestFlowHash: both directions of a flow have one hash, and flows spread evenly over any number of workers.
func TestFlowHash(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	l := &locator{key0: r.Uint64(), key1: r.Uint64()}
	const flows = 20000
	hash := func(pkt []byte) uint64 {
		var v view
		if got := l.locate(pkt, linkRaw, &v); got != verdictUDP {
			t.Fatalf("got %s, want a UDP segment", verdictNames[got])
		}
		return v.hash
	}
	var hashes []uint64
	for i := range flows {
		pkt, addr := unhex(t, ip4Hello+udpHello), 4
		if i%2 == 1 {
			pkt, addr = unhex(t, ip6Hello+udpHello), 16
		}
		l4 := len(pkt) - 13
		// Clients count up in address or port, as pools and NATs do.
		binary.BigEndian.PutUint16(pkt[l4-addr-2:], uint16(i/64))
		binary.BigEndian.PutUint16(pkt[l4:], uint16(1024+i%64))
		back := slices.Clone(pkt)
		copy(back[l4-2*addr:], pkt[l4-addr:l4])
		copy(back[l4-addr:], pkt[l4-2*addr:l4-addr])
		copy(back[l4:], pkt[l4+2:l4+4])
		copy(back[l4+2:], pkt[l4:l4+2])
		h := hash(pkt)
		if b := hash(back); b != h {
			t.Fatalf("flow %d: hash %x one way and %x the other", i, h, b)
		}
		hashes = append(hashes, h)
	}
	for n := 1; n <= 16; n++ {
		f := &feeder{workersN: uint64(n), cur: &chunk{views: make([][]view, n)}}
		for _, h := range hashes {
			f.file(&view{hash: h})
		}
		for i, views := range f.cur.views {
			if got, want := len(views), flows/n; got < want*8/10 || got > want*12/10 {
				t.Errorf("%d workers: worker %d has %d flows, want about %d", n, i, got, want)
			}
		}
	}
	slices.Sort(hashes)
	if n := len(slices.Compact(hashes)); n != flows {
		t.Errorf("%d of %d flows have a hash of their own", n, flows)
	}
}

func TestLocateDoesNotAllocate(t *testing.T) {
	l := &locator{key0: 1, key1: 2}
	frames := [][]byte{
		unhex(t, macs+"0800"+ip4Hello+udpHello),
		unhex(t, macs+"88a8 0064 8100 0007 86dd"+ip6Hello+udpHello),
		unhex(t, macs+"0806 0001"),
	}
	var v view
	var f flow
	if n := testing.AllocsPerRun(100, func() {
		for _, b := range frames {
			if l.locate(b, linkEthernet, &v) == verdictUDP {
				v.fillFlow(b, &f)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkLocate(b *testing.B) {
	l := &locator{key0: 1, key1: 2}
	for _, bm := range []struct{ name, pkt string }{
		{"IPv4", macs + "0800" + ip4Hello + udpHello},
		{"IPv6", macs + "86dd" + ip6Hello + udpHello},
		{"VLAN", macs + "8100 0064 0800" + ip4Hello + udpHello},
	} {
		pkt := unhex(b, bm.pkt)
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			var v view
			for b.Loop() {
				l.locate(pkt, linkEthernet, &v)
			}
		})
	}
}

// fuzzLinks are the link types that the fuzz targets choose from.
var fuzzLinks = []uint32{linkEthernet, linkNull, linkLoop, linkRaw, linkRawDLT12, linkRawDLT14, linkIPv4, linkIPv6, linkSLL, linkSLL2,
	linkPPP, linkPPPHDLC, linkPPPDir, linkNFLOG, linkRadiotap, linkIEEE80211, linkPrism, linkFDDI}

func fuzzLink(n uint8) uint32 { return fuzzLinks[int(n)%len(fuzzLinks)] }

// frameSeeds are frames of every kind that the decoders tell apart, with the index of their link type.
func frameSeeds(t testing.TB) (frames [][]byte, links []uint8) {
	for _, s := range []string{
		macs + "0800" + ip4Hello + udpHello, macs + "86dd" + ip6Hello + udpHello,
		macs + "8100 0064 0800" + ip4Hello + udpHello, macs + "88a8 0064 8100 0007 86dd" + ip6Hello + udpHello,
		macs + "8847 00064140" + ip4Hello + udpHello, macs + "8864 1100 0001 0023 0021" + ip4Hello + udpHello,
		macs + "0029 aaaa03 000000 0800" + ip4Hello + udpHello,
		macs + "0800" + "4500 0035 0001 0000 4004 0000 c0000201 c6336402" + ip4Hello + udpHello,
		macs + "0800" + "4500 0041 0001 0000 402f 0000 c0000201 c6336402 2000 0800 00000001" + ip4Hello + udpHello,
		macs + "0800" + "4500 0053 0001 0000 4011 0000 c0000201 c6336402 1234 12b5 0000 0000 0800000000000100" + macs + "0800" + ip4Hello + udpHello,
		macs + "86dd" + "60000000 001d 00 40" + ip6Source + "2b00 0104 0000 0000 1100 0000 0000 0000" + udpHello,
	} {
		frames, links = append(frames, unhex(t, s)), append(links, 0)
	}
	for i := range fuzzLinks {
		frames, links = append(frames, unhex(t, "00000002"+ip4Hello+udpHello), unhex(t, ip4Hello+udpHello)), append(links, uint8(i), uint8(i))
	}
	return frames, links
}

// FuzzLocate: offsets are in order and inside the frame; and where gopacket finds UDP or TCP directly in IP, both agree.
func FuzzLocate(f *testing.F) {
	frames, links := frameSeeds(f)
	for i := range frames {
		f.Add(frames[i], links[i], i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, pkt []byte, link uint8, anyPort bool) {
		pkt = slices.Clip(pkt)
		lt := fuzzLink(link)
		l := &locator{anyPort: anyPort, key0: 0x1234567890abcdef, key1: 0xfedcba0987654321}
		var v view
		r := l.locate(pkt, lt, &v)
		if r <= verdictFragment {
			if v.l3 > v.l4 || v.l4 > v.end || int(v.end) > len(pkt) {
				t.Fatalf("%s: offsets %d %d %d of %d bytes", verdictNames[r], v.l3, v.l4, v.end, len(pkt))
			}
			if v.wire < v.end-v.l4 {
				t.Fatalf("%s: %d bytes captured of %d", verdictNames[r], v.end-v.l4, v.wire)
			}
		}
		if r == verdictUDP && v.end-v.l4 < 8 || r == verdictTCP && v.end-v.l4 < 20 {
			t.Fatalf("%s: a header of %d bytes", verdictNames[r], v.end-v.l4)
		}
		if lt == linkEthernet || lt == linkRaw {
			compareWithGopacket(t, pkt, lt, r, &v, anyPort)
		}
	})
}

// compareWithGopacket fails the test if gopacket reads the segment differently.
func compareWithGopacket(t *testing.T, pkt []byte, lt uint32, r verdict, v *view, anyPort bool) {
	first := gopacket.Decoder(layers.LayerTypeEthernet)
	if lt == linkRaw {
		if len(pkt) == 0 {
			return
		}
		first = layers.LayerTypeIPv4
		if pkt[0]>>4 == 6 {
			first = layers.LayerTypeIPv6
		}
	}
	var src, dst netip.Addr
	tags := 0
	for _, l := range gopacket.NewPacket(pkt, first, gopacket.DecodeOptions{NoCopy: true}).Layers() {
		switch x := l.(type) {
		case *layers.Ethernet:
			if x.Length != 0 {
				return // 802.3
			}
		case *layers.Dot1Q:
			if tags++; tags > 2 {
				return
			}
		case *layers.IPv4:
			if src.IsValid() || x.Flags&layers.IPv4MoreFragments != 0 || x.FragOffset != 0 || x.Version != 4 || x.Length != 0 && int(x.Length) < int(x.IHL)*4 {
				return
			}
			src, _ = netip.AddrFromSlice(x.SrcIP)
			dst, _ = netip.AddrFromSlice(x.DstIP)
		case *layers.IPv6:
			if src.IsValid() || x.Version != 6 || x.Length == 0 {
				return
			}
			src, _ = netip.AddrFromSlice(x.SrcIP)
			dst, _ = netip.AddrFromSlice(x.DstIP)
		case *layers.IPv6HopByHop, *layers.IPv6Routing, *layers.IPv6Destination:
		case *layers.UDP:
			if len(x.Contents) < 8 || x.Length != 0 && x.Length < 8 {
				return
			}
			agree(t, pkt, r, v, verdictUDP, anyPort, src, dst, uint16(x.SrcPort), uint16(x.DstPort), x.Payload)
			return
		case *layers.TCP:
			if len(x.Contents) < 20 {
				return
			}
			agree(t, pkt, r, v, verdictTCP, anyPort, src, dst, uint16(x.SrcPort), uint16(x.DstPort), nil)
			return
		default:
			return
		}
	}
}

func agree(t *testing.T, pkt []byte, r verdict, v *view, want verdict, anyPort bool, src, dst netip.Addr, sport, dport uint16, payload []byte) {
	t.Helper()
	switch {
	case sport == dnsPort || dport == dnsPort:
	case want == verdictUDP && isTunnelPort(sport, dport):
		want = verdictSlow
	case !anyPort:
		want = verdictFiltered
	}
	if r != want {
		if r == verdictBadIP { // more extension headers than we read
			return
		}
		t.Fatalf("got %s, gopacket finds %s: %x", verdictNames[r], verdictNames[want], pkt)
	}
	if r > verdictTCP {
		return
	}
	flow := fmt.Sprintf("%v > %v", netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport))
	if got := flowOf(v, pkt); got != flow {
		t.Fatalf("got %s, gopacket reads %s: %x", got, flow, pkt)
	}
	if got := pkt[v.l4+8 : v.end]; r == verdictUDP && !bytes.Equal(got, payload) {
		t.Fatalf("got payload %x, gopacket reads %x: %x", got, payload, pkt)
	}
}
