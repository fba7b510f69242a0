package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// newTestFeeder returns a feeder with one worker's list and no goroutines, for tests that file frames by hand.
func newTestFeeder() *feeder {
	l := locator{key0: 1, key1: 2}
	return &feeder{
		loc: l, inner: l, slow: newSlowDecoder(), workersN: 1,
		defrag: newDefragmenter(fragLimits{trains: 64, bytes: 1 << 20, ageNs: int64(30 * time.Second)}),
		cur:    &chunk{views: make([][]view, 1)},
	}
}

// frameThrough files one frame and describes what came of it: "verdict", or flow and payload of a UDP segment.
func frameThrough(pkt []byte, lt uint32) string {
	f := newTestFeeder()
	pkt = slices.Clip(pkt)
	f.cur.slab = pkt
	f.frame(pkt, 0, len(pkt), 1e9, lt)
	if n := len(f.cur.views[0]); n != 1 {
		for v, n := range f.count.verdicts {
			if n != 0 {
				return verdictNames[v]
			}
		}
		return fmt.Sprintf("%d views and no verdict", n)
	}
	v := &f.cur.views[0][0]
	buf := f.cur.slab
	if v.flags&viewExtra != 0 {
		buf = f.cur.extra
	}
	s := flowOf(v, buf)
	if v.vlan != 0 {
		s += fmt.Sprintf(" vlan %d", v.vlan)
	}
	if v.kind == viewUDP {
		s += fmt.Sprintf(" %q", buf[v.l4+8:v.end])
	}
	return s
}

// serialize builds a packet with lengths and checksums in place.
func serialize(t testing.TB, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, ls...); err != nil {
		t.Fatalf("serialize: %v", err)
	}
	return slices.Clone(b.Bytes())
}

// Layers of the packets below. Addresses inside are those of ip4Hello and ip6Hello.
func etherLayer(typ layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: typ}
}
func outer4(p layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: p, SrcIP: net.IP{10, 0, 0, 1}, DstIP: net.IP{10, 0, 0, 2}}
}
func outer6(p layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: p, SrcIP: net.ParseIP("fd00::1"), DstIP: net.ParseIP("fd00::2")}
}
func outerUDP(src, dst layers.UDPPort) *layers.UDP { return &layers.UDP{SrcPort: src, DstPort: dst} }

func TestEncapsulations(t *testing.T) {
	in4 := gopacket.Payload(unhex(t, ip4Hello+udpHello))
	in6 := gopacket.Payload(unhex(t, ip6Hello+udpHello))
	frame := gopacket.Payload(unhex(t, macs+"0800"+ip4Hello+udpHello))
	tagged := gopacket.Payload(unhex(t, macs+"8100 0064 86dd"+ip6Hello+udpHello))
	const want4 = `192.0.2.1:4660 > 198.51.100.2:53 "hello"`
	const want6 = `[2001:db8::1]:4660 > [2001:db8::2]:53 "hello"`
	const wantTagged = `[2001:db8::1]:4660 > [2001:db8::2]:53 vlan 100 "hello"`
	label := func(n uint32, bottom bool) *layers.MPLS { return &layers.MPLS{Label: n, StackBottom: bottom, TTL: 64} }
	gre := func(proto layers.EthernetType, fields string) *layers.GRE {
		return &layers.GRE{Protocol: proto, ChecksumPresent: strings.Contains(fields, "c"), KeyPresent: strings.Contains(fields, "k"), SeqPresent: strings.Contains(fields, "s"), Key: 7, Seq: 9}
	}
	raw := func(s string) gopacket.Payload { return unhex(t, s) }
	type stack []gopacket.SerializableLayer
	eth4 := func(p layers.IPProtocol, more ...gopacket.SerializableLayer) stack {
		return append(stack{etherLayer(layers.EthernetTypeIPv4), outer4(p)}, more...)
	}
	eth6 := func(p layers.IPProtocol, more ...gopacket.SerializableLayer) stack {
		return append(stack{etherLayer(layers.EthernetTypeIPv6), outer6(p)}, more...)
	}
	udp4 := func(dst layers.UDPPort, more ...gopacket.SerializableLayer) stack {
		return append(eth4(layers.IPProtocolUDP, outerUDP(49152, dst)), more...)
	}
	wifi := raw("0800 0000 020000000001 020000000002 020000000003 1000" + "aaaa03 000000 0800" + ip4Hello + udpHello)
	wifiQoS := raw("8800 0000 020000000001 020000000002 020000000003 1000 0000" + "aaaa03 000000 86dd" + ip6Hello + udpHello)
	nfattr := func(s string) string {
		b := unhex(t, s)
		h := binary.NativeEndian.AppendUint16(nil, uint16(4+len(b)))
		h = binary.NativeEndian.AppendUint16(h, 9)
		return fmt.Sprintf("%x%x", h, b)
	}
	nfmark := fmt.Sprintf("%x000000ff", binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, 8), 3))
	nfprefix := fmt.Sprintf("%x61000000", binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, 5), 10))

	tests := []struct {
		name  string
		lt    uint32
		stack stack
		want  string
	}{
		{"MPLS 1 label", 1, stack{etherLayer(layers.EthernetTypeMPLSUnicast), label(16, true), in4}, want4},
		{"MPLS 2 labels", 1, stack{etherLayer(layers.EthernetTypeMPLSUnicast), label(16, false), label(17, true), in6}, want6},
		{"MPLS 3 labels", 1, stack{etherLayer(layers.EthernetTypeMPLSMulticast), label(16, false), label(17, false), label(18, true), in4}, want4},
		{"MPLS pseudowire", 1, stack{etherLayer(layers.EthernetTypeMPLSUnicast), label(16, true), raw("00000001"), frame}, want4},
		{"MPLS pseudowire without control word", 1, stack{etherLayer(layers.EthernetTypeMPLSUnicast), label(16, true), frame}, want4},
		{"MPLS without end", 1, stack{etherLayer(layers.EthernetTypeMPLSUnicast), raw(strings.Repeat("00010040", 20)), in4}, "nested_too_deep"},
		{"MPLS behind a tag", 1, stack{etherLayer(layers.EthernetTypeDot1Q), &layers.Dot1Q{VLANIdentifier: 5, Type: layers.EthernetTypeMPLSUnicast}, label(16, true), in4},
			`192.0.2.1:4660 > 198.51.100.2:53 vlan 5 "hello"`},
		{"PPPoE", 1, stack{etherLayer(layers.EthernetTypePPPoESession), &layers.PPPoE{Version: 1, Type: 1, SessionId: 1}, &layers.PPP{PPPType: layers.PPPTypeIPv4}, in4}, want4},
		{"PPPoE IPv6", 1, stack{etherLayer(layers.EthernetTypePPPoESession), &layers.PPPoE{Version: 1, Type: 1, SessionId: 1}, &layers.PPP{PPPType: layers.PPPTypeIPv6}, in6}, want6},
		{"LLC/SNAP", 1, stack{raw(macs + "0029 aaaa03 000000 0800"), in4}, want4},
		{"LLC/SNAP IPv6", 1, stack{raw(macs + "003d aaaa03 000000 86dd"), in6}, want6},
		{"LLC with IP's own SAP", 1, stack{raw(macs + "0024 060603"), in4}, want4},
		{"LLC of no IP", 1, stack{raw(macs + "0026 424203"), raw("0000")}, "not_ip"},
		{"three tags", 1, stack{raw(macs + "88a8 0064 8100 0007 8100 0008 0800"), in4}, `192.0.2.1:4660 > 198.51.100.2:53 vlan 100 "hello"`},
		{"twenty tags", 1, stack{raw(macs + strings.Repeat("8100 0064", 20) + "0800"), in4}, "nested_too_deep"},

		{"GRE IPv4", 1, eth4(layers.IPProtocolGRE, gre(layers.EthernetTypeIPv4, ""), in4), want4},
		{"GRE IPv6 with checksum", 1, eth4(layers.IPProtocolGRE, gre(layers.EthernetTypeIPv6, "c"), in6), want6},
		{"GRE with key", 1, eth4(layers.IPProtocolGRE, gre(layers.EthernetTypeIPv4, "k"), in4), want4},
		{"GRE with checksum, key and sequence", 1, eth4(layers.IPProtocolGRE, gre(layers.EthernetTypeIPv4, "cks"), in4), want4},
		{"GRE over IPv6", 1, eth6(layers.IPProtocolGRE, gre(layers.EthernetTypeIPv4, "k"), in4), want4},
		{"GRE bridging", 1, eth4(layers.IPProtocolGRE, gre(layers.EthernetTypeTransparentEthernetBridging, "k"), tagged), wantTagged},
		{"GRE PPTP", 1, eth4(layers.IPProtocolGRE, raw("3081 880b 0025 0001 00000002 00000001"), raw("ff03 0021"), in4), want4},
		{"GRE MPLS", 1, eth4(layers.IPProtocolGRE, gre(layers.EthernetTypeMPLSUnicast, ""), label(16, true), in4), want4},
		{"GRE source route", 1, eth4(layers.IPProtocolGRE, raw("4000 0800 0000 0000 0800 0004 0a000003 0000 0000"), in4), want4},
		{"GRE of something else", 1, eth4(layers.IPProtocolGRE, gre(0x1234, ""), in4), "other_protocol"},
		{"ERSPAN I", 1, eth4(layers.IPProtocolGRE, gre(0x88be, ""), frame), want4},
		{"ERSPAN II", 1, eth4(layers.IPProtocolGRE, gre(0x88be, "s"), raw("10010001 00000000"), tagged), wantTagged},
		{"ERSPAN III", 1, eth4(layers.IPProtocolGRE, gre(0x22eb, "s"), raw("20010001 00000000 00000000"), frame), want4},
		{"ERSPAN III with platform header", 1, eth4(layers.IPProtocolGRE, gre(0x22eb, "s"), raw("20010001 00000000 00000001 0000000000000000"), frame), want4},

		{"4in4", 1, eth4(layers.IPProtocolIPv4, in4), want4},
		{"6in4", 1, eth4(layers.IPProtocolIPv6, in6), want6},
		{"4in6", 1, eth6(layers.IPProtocolIPv4, in4), want4},
		{"6in6", 1, eth6(layers.IPProtocolIPv6, in6), want6},
		{"4in6 behind destination options", 1, eth6(layers.IPProtocolIPv6Destination, raw("0400 0104 0000 0000"), in4), want4},
		{"AH tunnel", 1, eth4(layers.IPProtocolAH, raw("0404 0000 00000001 00000002 000000000000000000000000"), in4), want4},
		{"4in4 in a tag", 1, stack{etherLayer(layers.EthernetTypeDot1Q), &layers.Dot1Q{VLANIdentifier: 5, Type: layers.EthernetTypeIPv4}, outer4(layers.IPProtocolIPv4), in4},
			`192.0.2.1:4660 > 198.51.100.2:53 vlan 5 "hello"`},
		{"4in4, raw", 101, stack{outer4(layers.IPProtocolIPv4), in4}, want4},
		{"4in4, SLL", linkSLL, stack{raw("0000 0001 0006 020000000001 0000 0800"), outer4(layers.IPProtocolIPv4), in4}, want4},
		{"4in4, SLL2", linkSLL2, stack{raw("0800 0000 00000001 0001 00 06 020000000001 0000"), outer4(layers.IPProtocolIPv4), in4}, want4},
		{"4in4, NULL", linkNull, stack{raw("02000000"), outer4(layers.IPProtocolIPv4), in4}, want4},

		{"VXLAN", 1, udp4(4789, &layers.VXLAN{ValidIDFlag: true, VNI: 42}, frame), want4},
		{"VXLAN on Linux's old port", 1, udp4(8472, &layers.VXLAN{ValidIDFlag: true, VNI: 42}, tagged), wantTagged},
		{"VXLAN over IPv6", 1, eth6(layers.IPProtocolUDP, outerUDP(49152, 4789), raw("0800000000002a00"), frame), want4},
		{"VXLAN without network", 1, udp4(4789, raw("0000000000002a00"), frame), "filtered"},
		{"VXLAN GPE IPv4", 1, udp4(4789, raw("0c00000100002a00"), in4), want4},
		{"VXLAN in VXLAN", 1, udp4(4789, raw("0800000000002a00"), gopacket.Payload(serialize(t, udp4(8472, raw("0800000000002b00"), frame)...))), want4},
		{"Geneve", 1, udp4(6081, raw("0000 6558 00002a00"), frame), want4},
		{"Geneve with options", 1, udp4(6081, raw("0300 6558 00002a00 0102 8001 00000001 00000000"), tagged), wantTagged},
		{"Geneve IPv6", 1, udp4(6081, raw("0000 86dd 00002a00"), in6), want6},
		{"GTP-U", 1, udp4(2152, raw("30ff 0021 00000001"), in4), want4},
		{"GTP-U with sequence number", 1, udp4(2152, raw("32ff 0025 00000001 0001 00 00"), in4), want4},
		{"GTP-U with extension headers", 1, udp4(2152, raw("34ff 002d 00000001 0000 00 85 01 1000 85 01 1000 00"), in6), want6},
		{"GTP-U echo", 1, udp4(2152, raw("3201 0004 00000000 0001 00 00")), "filtered"},
		{"Teredo", 1, udp4(3544, in6), want6},
		{"Teredo with indications", 1, udp4(3544, raw("0001 0000 0000000000000001 00 0000 ffff ffffffff"), in6), want6},
		{"Teredo from its port", 1, eth4(layers.IPProtocolUDP, outerUDP(3544, 49152), in6), want6},
		{"not Teredo", 1, udp4(3544, raw("abcd")), "filtered"},

		{"NFLOG", linkNFLOG, stack{raw("02 00 0001" + nfmark + nfattr(ip4Hello+udpHello))}, want4},
		{"NFLOG behind a prefix", linkNFLOG, stack{raw("0a 00 0001" + nfprefix + nfattr(ip6Hello+udpHello))}, want6},
		{"NFLOG without packet", linkNFLOG, stack{raw("02 00 0001" + nfmark)}, "not_ip"},
		{"802.11 data", linkIEEE80211, stack{wifi, raw("00000000")}, want4},
		{"802.11 QoS data, radiotap", linkRadiotap, stack{raw("0000 0800 00000000"), wifiQoS, raw("00000000")}, want6},
		{"802.11 data, radiotap with flags", linkRadiotap, stack{raw("0000 0900 02000000 10"), wifi, raw("00000000")}, want4},
		{"802.11 beacon, radiotap", linkRadiotap, stack{raw("0000 0800 00000000 8000 0000 ffffffffffff 020000000002 020000000003 1000 000000000000000064000100"), raw("00000000")}, "not_ip"},
		{"FDDI", linkFDDI, stack{raw("50" + macs + "aaaa03 000000 0800"), in4}, want4},
	}
	// A client may have any port: with port 53 on the other end it is DNS.
	for _, port := range []layers.UDPPort{4789, 8472, 6081, 2152, 3544} {
		tests = append(tests, struct {
			name  string
			lt    uint32
			stack stack
			want  string
		}{fmt.Sprintf("client on port %d", port), 1, eth4(layers.IPProtocolUDP, outerUDP(53, port), gopacket.Payload("hello")), fmt.Sprintf(`10.0.0.1:53 > 10.0.0.2:%d "hello"`, port)})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := frameThrough(serialize(t, tt.stack...), tt.lt); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestNestingBound: maxNesting encapsulations are unwrapped, one more is not.
func TestNestingBound(t *testing.T) {
	pkt := unhex(t, ip4Hello+udpHello)
	for n := 1; n <= maxNesting+2; n++ {
		pkt = serialize(t, outer4(layers.IPProtocolIPv4), gopacket.Payload(pkt))
		want := `192.0.2.1:4660 > 198.51.100.2:53 "hello"`
		if n > maxNesting {
			want = verdictNames[verdictNested]
		}
		if got := frameThrough(pkt, linkRaw); got != want {
			t.Errorf("%d tunnels: got %s, want %s", n, got, want)
		}
	}
}

// TestFragmentsOfTunnel: a tunnelled datagram whose outer packet was fragmented is put together, then unwrapped.
func TestFragmentsOfTunnel(t *testing.T) {
	inner := serialize(t, outerUDP(49152, 4789), gopacket.Payload(unhex(t, "0800000000002a00"+macs+"0800"+ip4Hello+udpHello)))
	f := newTestFeeder()
	first, second := *outer4(layers.IPProtocolUDP), *outer4(layers.IPProtocolUDP)
	first.Id, first.Flags = 7, layers.IPv4MoreFragments
	second.Id, second.FragOffset = 7, 3
	for _, pkt := range [][]byte{serialize(t, &first, gopacket.Payload(inner[:24])), serialize(t, &second, gopacket.Payload(inner[24:]))} {
		pkt = slices.Clip(pkt)
		f.cur.slab = pkt
		f.frame(pkt, 0, len(pkt), 1e9, linkRaw)
	}
	if len(f.cur.views[0]) != 1 || f.count.reassembled != 1 || f.count.tunnelled != 1 {
		t.Fatalf("%d views, %d reassembled, %d tunnelled, want one each", len(f.cur.views[0]), f.count.reassembled, f.count.tunnelled)
	}
	if got, want := flowOf(&f.cur.views[0][0], f.cur.extra), "192.0.2.1:4660 > 198.51.100.2:53"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// FuzzDecapsulate: what is inside is a part of the outside and shorter, so unwrapping ends; every frame gets one verdict.
func FuzzDecapsulate(f *testing.F) {
	frames, links := frameSeeds(f)
	for i := range frames {
		f.Add(frames[i], links[i])
	}
	f.Fuzz(func(t *testing.T, pkt []byte, link uint8) {
		pkt = slices.Clip(pkt)
		lt := fuzzLink(link)
		if inside, next, r := newSlowDecoder().decapsulate(pkt, lt); r == verdictSlow {
			if !linkKnown(next) {
				t.Fatalf("inside is of link type %d", next)
			}
			if len(inside) > len(pkt) || lt == next && len(inside) == len(pkt) {
				t.Fatalf("%d bytes inside %d", len(inside), len(pkt))
			}
			if n := len(inside); n > 0 && !within(inside, pkt) {
				t.Fatalf("what is inside %x is not a part of it: %x", pkt, inside)
			}
		} else if inside != nil {
			t.Fatalf("verdict %s, and something inside", verdictNames[r])
		}
		fd := newTestFeeder()
		fd.cur.slab = pkt
		fd.frame(pkt, 0, len(pkt), 1e9, lt)
		total := uint64(0)
		for _, n := range fd.count.verdicts {
			total += n
		}
		views := uint64(len(fd.cur.views[0]))
		if total != 1 || views != fd.count.verdicts[verdictUDP]+fd.count.verdicts[verdictTCP] {
			t.Fatalf("%d verdicts and %d views of one frame", total, views)
		}
	})
}

// within says whether part lies in whole.
func within(part, whole []byte) bool {
	for i := range whole {
		if &whole[i] == &part[0] {
			return i+len(part) <= len(whole)
		}
	}
	return false
}

func BenchmarkDecapsulate(b *testing.B) {
	frame := gopacket.Payload(unhex(b, macs+"0800"+ip4Hello+udpHello))
	for _, bm := range []struct {
		name string
		pkt  []byte
		lt   uint32
	}{
		{"VXLAN", serialize(b, etherLayer(layers.EthernetTypeIPv4), outer4(layers.IPProtocolUDP), outerUDP(49152, 4789), &layers.VXLAN{ValidIDFlag: true}, frame), linkEthernet},
		{"radiotap", unhex(b, "0000 0800 00000000 0800 0000 020000000001 020000000002 020000000003 1000 aaaa03 000000 0800"+ip4Hello+udpHello+"00000000"), linkRadiotap},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			f := newTestFeeder()
			pkt := slices.Clip(bm.pkt)
			f.cur.slab = pkt
			for b.Loop() {
				f.cur.extra, f.cur.views[0] = f.cur.extra[:0], f.cur.views[0][:0]
				f.frame(pkt, 0, len(pkt), 1e9, bm.lt)
			}
		})
	}
}
