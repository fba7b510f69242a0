package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// rdataCases is zone text for every type that can be written so, and what is to come out of its wire form. An empty want is
// the text that miekg/dns prints, with only the names normalised; a want that differs from that has the reason beside it.
var rdataCases = []struct{ rr, want, why string }{
	{rr: `x. A 192.0.2.1`},
	{rr: `x. A 0.10.100.255`},
	{rr: `x. NS ns1.Example.COM.`},
	{rr: `x. NS .`},
	{rr: `x. MD md.example.`},
	{rr: `x. MF mf.example.`},
	{rr: `x. CNAME a.b-c._d.example.`},
	{rr: `x. CNAME we\ ird\.dot.\"q\\.\000\255@\;\(\)$.example.`, want: `we\032ird\.dot.\"q\\.\000\255@;()$.example`},
	{rr: `x. SOA ns.example. host\.master.example. 4294967295 7200 3600 1209600 300`},
	{rr: `x. MB mb.example.`},
	{rr: `x. MG mg.example.`},
	{rr: `x. MR mr.example.`},
	{rr: `x. PTR 1.2.0.192.in-addr.arpa.`},
	{rr: `x. HINFO "Intel Pentium" "Linux \"2\""`},
	{rr: `x. MINFO rmail.example. email.example.`},
	{rr: `x. MX 10 mx.example.`},
	{rr: `x. MX 0 .`},
	{rr: `x. TXT "v=spf1 -all" "" "a\"b\\c;d\009\127\200 e"`},
	{rr: `x. TXT "` + strings.Repeat("0123456789 ", 23) + `"`},
	{rr: `x. RP mbox.example. txt.example.`},
	{rr: `x. AFSDB 1 afs.example.`},
	{rr: `x. X25 311061700956`},
	{rr: `x. ISDN "150862028003217" "004"`},
	{rr: `x. RT 10 relay.example.`},
	{rr: `x. NSAP-PTR foo.example.`},
	{rr: `x. SIG MX 5 2 3600 20300101000000 20200101000000 12345 example. AwEAAcY=`},
	{rr: `x. KEY 256 3 8 AwEAAcY=`},
	{rr: `x. PX 10 map822.example. mapx400.example.`},
	{rr: `x. GPOS -32.6882 116.8652 10.0`},
	{rr: `x. AAAA 2001:db8::1`},
	{rr: `x. AAAA ::`},
	{rr: `x. AAAA ::ffff:192.0.2.1`},
	{rr: `x. LOC 42 21 54.123 N 71 06 18 W -24.5m 30m 10000m 0.05m`},
	{rr: `x. LOC 0 0 0 N 0 0 0 E 0m 0.5m 1m 90000000m`},
	{rr: `x. LOC 90 0 0 S 180 0 0 E 42849672.95m 0m 0m 0m`},
	{rr: `x. NXT next.example. A MX SIG NXT`},
	{rr: `x. EID E32C6F78163A9348`},
	{rr: `x. NIMLOC 75234159EAC457800920`},
	{rr: `x. SRV 10 60 5060 sip.example.`},
	{rr: `x. NAPTR 100 50 "s" "z3950+I2L+I2C" "!^.*\\.(x)$!\\1!" _z3950._tcp.example.`},
	{rr: `x. KX 10 kx.example.`},
	{rr: `x. CERT PKIX 12345 RSASHA256 AwEAAcY=`},
	{rr: `x. CERT 9 12345 4 AwEAAcY=`},
	{rr: `x. CERT URI 0 PRIVATEOID AwEA`},
	{rr: `x. CERT 4 1 ECC-GOST AwEA`, want: `IPKIX 1 ECC-GOST AwEA`, why: "RFC 4398 §2.1 calls type 4 IPKIX, miekg/dns IPIX"},
	{rr: `x. DNAME target.example.`},
	{rr: `x. APL 1:192.168.32.0/21 !1:192.168.38.0/28 2:ff00::/8 2:::/0 1:0.0.0.0/0`},
	{rr: `x. DS 12345 8 2 49FD46E6C4B45C55D4AC`},
	{rr: `x. SSHFP 4 2 123456789ABCDEF67890`},
	{rr: `x. IPSECKEY 10 1 2 192.0.2.38 AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==`},
	{rr: `x. IPSECKEY 10 0 2 . AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==`},
	{rr: `x. IPSECKEY 10 2 2 2001:db8::8002 AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==`},
	{rr: `x. IPSECKEY 10 3 2 mygateway.example. AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==`},
	{rr: `x. RRSIG A 13 2 3600 20300101000000 20200229235959 12345 example. oJB1W6WNGv+ldvQ3WDG0MQkg5IEhjRip8WTr`},
	{rr: `x. RRSIG TYPE65534 255 0 0 21060207062815 19700101000000 65535 . AA==`},
	{rr: `x. NSEC host.example. A MX RRSIG NSEC CAA TYPE1234 DLV`},
	{rr: `x. DNSKEY 257 3 13 mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ==`},
	{rr: `x. DHCID AAIBY2/AuCccgoJbsaxcQc9TUapptP69lOjxfNuVAA2kjEA=`},
	{rr: `x. NSEC3 1 1 12 AABBCCDD 2T7B4G4VSA5SMI47K61MV5BV1A22BOJR A RRSIG`},
	{rr: `x. NSEC3 1 0 0 - 2T7B4G4VSA5SMI47K61MV5BV1A22BOJR`},
	{rr: `x. NSEC3PARAM 1 0 12 AABBCCDD`},
	{rr: `x. NSEC3PARAM 1 0 0 -`},
	{rr: `x. TLSA 3 1 1 d2abde240d7cd3ee6b4b28c54df034b97983a1d16e8a410e4561cb106618e971`},
	{rr: `x. SMIMEA 3 0 0 d2abde240d7cd3ee`},
	{
		rr: `x. SMIMEA 3 0 0 ` + strings.Repeat("ab", 600), want: `3 0 0 ` + strings.Repeat("ab", 600),
		why: "miekg/dns breaks long data with a blank for its own scanner",
	},
	{rr: `x. HIP 2 200100107B1A74DF365639CC39F1D578 AwEAAbdxyhNuSutc5EMzxTs9LBPCIkOFH8cI rvs1.example. rvs2.example.`},
	{rr: `x. HIP 2 200100107B1A74DF365639CC39F1D578 AwEAAbdxyhNuSutc5EMzxTs9LBPCIkOFH8cI`},
	{rr: `x. NINFO "zone status" "b"`},
	{rr: `x. RKEY 0 3 8 AwEAAcY=`},
	{rr: `x. TALINK prev.example. next.example.`},
	{rr: `x. CDS 0 0 0 00`},
	{rr: `x. CDNSKEY 0 3 0 AA==`},
	{rr: `x. OPENPGPKEY mQINBFit2jsBEADrbl5vjVxYeAE0g0IDYCBpHirv`},
	{rr: `x. CSYNC 66 3 A NS AAAA`},
	{rr: `x. ZONEMD 2018031500 1 1 febe3d4ce2ec2ffa4ba99d46cd69d6d29711e55217057beec7eb1a7b641a47ba7fed2dd5b97ae499fafa4f22c6bd647de0`},
	{rr: `x. SVCB 0 pool.example.`},
	{rr: `x. SVCB 1 . alpn=h2,h3 no-default-alpn port=8443 ipv4hint=192.0.2.1,192.0.2.2 ech=AEP+DQA= ipv6hint=2001:db8::1 dohpath=/dns-query{?dns} ohttp`},
	{rr: `x. HTTPS 1 svc.example. mandatory=alpn,key667 alpn="f\\\\oo\\,bar,h2" key667="hello\"\210qoo; x"`},
	{rr: `x. SPF "v=spf1 -all"`},
	{rr: `x. UINFO "user \"x\""`},
	{rr: `x. UID 4294967295`},
	{rr: `x. GID 0`},
	{rr: `x. NID 10 0014:4fff:ff20:ee64`},
	{rr: `x. L32 10 10.1.2.0`},
	{rr: `x. L64 10 2001:0DB8:1140:1000`},
	{rr: `x. LP 10 l64.example.`},
	{rr: `x. EUI48 00-00-5e-00-53-2a`},
	{rr: `x. EUI64 00-00-5e-ef-10-00-00-2a`},
	{rr: `x. URI 10 1 "ftp://ftp1.example/p ublic\"x"`},
	{rr: `x. CAA 0 issue "ca.example; account=\"230123\""`},
	{rr: `x. CAA 128 tbs ""`},
	{rr: `x. AVC "app-name:WOLFGANG|app-class:OAM|business=yes"`},
	{rr: `x. AMTRELAY 10 0 0 .`},
	{rr: `x. AMTRELAY 10 0 1 192.0.2.1`},
	{rr: `x. AMTRELAY 10 0 2 2001:db8::15`},
	{rr: `x. AMTRELAY 10 0 3 relay.example.`},
	{rr: `x. RESINFO qnamemin exterr=15-17 infourl=https://resolver.example/guide`},
	{rr: `x. TA 12345 8 2 49FD46E6C4B45C55D4AC`},
	{rr: `x. DLV 12345 8 2 49FD46E6C4B45C55D4AC`},
	{rr: `x. TYPE65534 \# 4 0A0bFf00`, want: `\# 4 0a0bff00`},
}

// rdataWire is RDATA that no zone text of miekg/dns gives.
var rdataWire = []struct {
	typ             uint16
	hex, want, name string
}{
	{rrTypeISDN, "0131", `"1"`, "without subaddress, which miekg/dns prints as an empty one"},
	{rrTypeX25, "03612062", `"a b"`, "not digits: quoted, where miekg/dns leaves a bare blank"},
	{rrTypeGPOS, "00" + "0131" + "0132", `"" 1 2`, "an empty string, where miekg/dns leaves nothing"},
	{rrTypeNXT, "016e00" + "4000008" + "2", `n A SIG NXT`, "the bitmap of RFC 2535, which miekg/dns reads as windows"},
	{rrTypeNXT, "016e00" + "0002" + "4001", `n A MX`, "windows"},
	{rrTypeAMTRELAY, "0a80", `10 1 0 .`, "discovery bit"},
	{rrTypeAMTRELAY, "0a81c0000201", `10 1 1 192.0.2.1`, "discovery bit, which miekg/dns takes for a part of the type"},
	{rrTypeAMTRELAY, "0a04", `\# 2 0a04`, "unknown relay type"},
	{rrTypeIPSECKEY, "0a0000", `10 0 0 .`, "no gateway, no key"},
	{rrTypeIPSECKEY, "0a0402c0000201", `\# 7 0a0402c0000201`, "unknown gateway type"},
	{rrTypeIPSECKEY, "0a020200000000000000000000ffffc0000201", `10 2 2 ::ffff:192.0.2.1`, "mapped address"},
	{rrTypeKEY, "c00003ff", `49152 3 255`, "no key"},
	{rrTypeDS, "30390802", `\# 4 30390802`, "no digest"},
	{rrTypeLOC, "01121613890000007000000000989680", `\# 16 01121613890000007000000000989680`, "version 1"},
	{rrTypeLOC, "00a21613890000007000000000989680", `\# 16 00a21613890000007000000000989680`, "mantissa of 10"},
	{rrTypeLOC, "00121613f00000007000000000989680", `\# 16 00121613f00000007000000000989680`, "beyond the pole"},
	{rrTypeLOC, "001216138000000080000000009896" + "81", `00 00 0.000 S 00 00 0.000 W 0.01m 1m 10000m 10m`, "zero"},
	{rrTypeTXT, "0361620", `\# 3 036162`, "string past end"},
	{rrTypeTXT, "", `\# 0`, "no string"},
	{rrTypeA, "c00002", `\# 3 c00002`, "short"},
	{rrTypeA, "c000020101", `\# 5 c000020101`, "long"},
	{rrTypeAAAA, "c0000201", `\# 4 c0000201`, "short"},
	{rrTypeA, "", `\# 0`, "none"},
	{rrTypeAPL, "", `\# 0`, "none"},
	{rrTypeAPL, "0003080120", `\# 5 0003080120`, "unknown family"},
	{rrTypeNS, "0161", `\# 2 0161`, "name past the message"},
	{rrTypeNS, "016100ff", `\# 4 016100ff`, "octet behind the name"},
	{rrTypeNS, "c000", `\# 2 c000`, "pointer to itself"},
	{rrTypeNULL, "41", `\# 1 41`, "no presentation form; miekg/dns prints raw bytes"},
	{10, "410a", `\# 2 410a`, "no presentation form"},
	{255, "41", `\# 1 41`, "ANY has no RDATA"},
	{128, "", `\# 0`, "NXNAME has no RDATA"},
	{rrTypeOPT, "000a0002abcd", `\# 6 000a0002abcd`, "read by message.parse"},
	{11, "c00002010650", `\# 6 c00002010650`, "WKS has no layout"},
	{65280, "00ff", `\# 2 00ff`, "unknown"},
	{rrTypeCAA, "00056973207565" + "61", `\# 8 0005697320756561`, "blank in the tag"},
	{rrTypeURI, "000a00016" + "15c62", `10 1 "a\\b"`, "backslash, which miekg/dns takes for an escape"},
	{rrTypeSVCB, "000100" + "00010003026832", `1 . alpn="h2"`, "alpn"},
	{rrTypeSVCB, "000100" + "00010000", `\# 7 00010000010000`, "empty alpn"},
	{rrTypeSVCB, "000100" + "0001000100", `\# 8 0001000001000100`, "empty protocol"},
	{rrTypeSVCB, "000100" + "00030002002" + "3" + "00010003026832", `\# 16 0001000003000200230001000302` + `6832`, "falling keys"},
	{rrTypeSVCB, "000100" + "ffff0000", `\# 7 000100ffff0000`, "reserved key"},
	{rrTypeSVCB, "000100" + "00060010" + "00000000000000000000ffffc0000201", `1 . ipv6hint="::ffff:192.0.2.1"`, "mapped address, which miekg/dns refuses"},
	{rrTypeSIG, "0000" + "0502" + "00000e10" + "ffffffff" + "00000000" + "3039" + "00" + "aa", `TYPE0 5 2 3600 21060207062815 19700101000000 12345 . qg==`, "SIG(0), whose type miekg/dns calls None"},
	{rrTypeTKEY, "0361" + "6c67" + "00" + "5e0be100" + "70dbd880" + "0003" + "0000" + "0002abcd" + "0000", `alg 20200101000000 20300101000000 3 0 2 abcd 0`, "TKEY"},
	{rrTypeTSIG, "0361" + "6c67" + "00" + "00005e0be100" + "012c" + "0002abcd" + "3039" + "0012" + "0006000000000001", `alg 20200101000000 300 2 ABCD 12345 18 6 000000000001`, "TSIG"},
	{rrTypeTSIG, "00" + "ffffffffffff" + "012c" + "0000" + "3039" + "0000" + "0000", `. 89215561207104415 300 0 12345 0 0`, "TSIG in the far future"},
}

const rrTypeNULL = 10

// packed is rr in a message of its own behind a header, uncompressed: the message, and where the RDATA is.
func packed(t testing.TB, rr dns.RR) (msg []byte, off, n int) {
	t.Helper()
	buf := make([]byte, 70000)
	end, err := dns.PackRR(rr, buf, dnsHeaderLen, nil, false)
	if err != nil {
		t.Fatalf("pack %v: %v", rr, err)
	}
	_, off, err = dns.UnpackDomainName(buf, dnsHeaderLen)
	if err != nil {
		t.Fatal(err)
	}
	off += 10
	return buf[:end], off, end - off
}

// miekgRDATA is the text of rr's RDATA as miekg/dns prints it.
func miekgRDATA(rr dns.RR) string {
	s := rr.String()
	if generic, ok := rr.(*dns.RFC3597); ok {
		return `\# ` + strings.TrimSuffix(strconv.Itoa(len(generic.Rdata)/2)+" "+generic.Rdata, " ")
	}
	s = strings.TrimPrefix(s, ";")
	s = strings.TrimPrefix(s, "\n;; TSIG PSEUDOSECTION:\n; ")
	return strings.TrimPrefix(strings.TrimPrefix(s, rr.Header().String()), " ")
}

// normalNames turns the names in miekg's text of a type into ours: no trailing dot, and only '"', '\' and '.' escaped by a '\'.
func normalNames(typ uint16, s string) string {
	layout := rdataLayout(typ)
	switch {
	case strings.ContainsAny(layout, "dD"): // two blanks where data is empty
		s = strings.Join(strings.Fields(s), " ")
	case strings.HasSuffix(layout, "B"): // a blank at the end where the key is empty
		s = strings.TrimSuffix(s, " ")
	}
	if !strings.ContainsAny(layout, "nGRH") {
		return s
	}
	var out []byte
	for quoted, i := false, 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && !quoted && strings.IndexByte(`'@;()`, s[i+1]) >= 0:
		case c == '\\' && !quoted && s[i+1] == ' ':
			out = append(out, `\032`...)
			i++
		case c == '\\':
			out = append(out, c, s[i+1])
			i++
		case c == '"':
			quoted = !quoted
			out = append(out, c)
		case c == '.' && !quoted && len(out) > 0 && out[len(out)-1] != ' ' && (i+1 == len(s) || s[i+1] == ' '):
		default:
			out = append(out, c)
		}
	}
	return string(out)
}

// textNeedsEscape is the plain version of esc.
func textNeedsEscape(b []byte) bool { return bytes.ContainsAny(b, `"\`) }

func TestRDATAOfZoneText(t *testing.T) {
	seen := map[uint16]bool{}
	for _, c := range rdataCases {
		rr, err := dns.NewRR(c.rr)
		if err != nil {
			t.Errorf("%s: %v", c.rr, err)
			continue
		}
		typ := rr.Header().Rrtype
		seen[typ] = true
		msg, off, n := packed(t, rr)
		back, _, err := dns.UnpackRR(msg, dnsHeaderLen)
		if err != nil {
			t.Errorf("%s: %v", c.rr, err)
			continue
		}
		want := c.want
		oracle := normalNames(typ, miekgRDATA(back))
		if want == "" {
			want = oracle
		} else if (want != oracle) != (c.why != "") {
			t.Errorf("%s: miekg/dns says %s: reason %q is wrong", c.rr, oracle, c.why)
		}
		got, esc := appendRDATA([]byte("<"), msg, off, n, typ)
		if string(got) != "<"+want {
			t.Errorf("%s:\n got %s\nwant <%s", c.rr, got, want)
		}
		if esc != textNeedsEscape(got) {
			t.Errorf("%s: esc is %v", c.rr, esc)
		}
	}
	// What has no zone text in miekg/dns is in rdataWire.
	for _, c := range rdataWire {
		seen[c.typ] = true
	}
	for typ := range dns.TypeToRR {
		if !seen[typ] {
			t.Errorf("no case for type %s", dns.TypeToString[typ])
		}
	}
}

func TestRDATAOfWire(t *testing.T) {
	for _, c := range rdataWire {
		data, err := hex.DecodeString(c.hex[:len(c.hex)&^1])
		if err != nil {
			t.Fatal(err)
		}
		got, esc := appendRDATA(nil, data, 0, len(data), c.typ)
		if string(got) != c.want {
			t.Errorf("%s, %s:\n got %s\nwant %s", appendType(nil, c.typ), c.name, got, c.want)
		}
		if esc != textNeedsEscape(got) {
			t.Errorf("%s, %s: esc is %v", appendType(nil, c.typ), c.name, esc)
		}
	}
}

// TestRDATACompressed: pointers lead out of the RDATA, but the RDATA must end where it says.
func TestRDATACompressed(t *testing.T) {
	msg := []byte("\x03www\x07example\x03com\x00\x00\x0a\x02mx\xc0\x04\xc0\x13")
	for _, c := range []struct {
		off, n int
		typ    uint16
		want   string
	}{
		{17, 7, rrTypeMX, "10 mx.example.com"},
		{19, 5, rrTypeNS, "mx.example.com"},
		{24, 2, rrTypeNS, "mx.example.com"},
		{19, 7, rrTypeRP, "mx.example.com mx.example.com"},
		{17, 6, rrTypeMX, `\# 6 000a026d78c0`},
		{0, 10, rrTypeNS, `\# 10 03777777076578616d70`},
	} {
		got, _ := appendRDATA(nil, msg, c.off, c.n, c.typ)
		if string(got) != c.want {
			t.Errorf("%d+%d: got %s, want %s", c.off, c.n, got, c.want)
		}
	}
}

func TestAppendTime(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 20000 {
		sec := uint64(r.Uint32())
		switch {
		case i == 0:
			sec = 0
		case i == 1:
			sec = 1<<32 - 1
		case i > 10000:
			sec = r.Uint64() >> 16
		}
		want := time.Unix(int64(sec), 0).UTC().Format("20060102150405")
		if got := string(appendTime(nil, sec)); got != want {
			t.Fatalf("%d: got %s, want %s", sec, got, want)
		}
	}
}

// randomRDATA makes RDATA that fits a layout.
func randomRDATA(r *rand.Rand, layout string) (out []byte) {
	octets := func(least, most int) []byte {
		b := make([]byte, least+r.IntN(most-least+1))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	text := func(most int) []byte {
		b := octets(0, most)
		for i := range b {
			if r.IntN(20) > 0 {
				b[i] = ' ' + b[i]%95
			}
		}
		return b
	}
	counted := func(b []byte) { out = append(append(out, byte(len(b))), b...) }
	name := func() {
		for range r.IntN(5) {
			b := text(11)
			counted(append(b, 'a'+byte(r.IntN(26))))
		}
		out = append(out, 0)
	}
	digits := func() []byte { return strconv.AppendUint(nil, uint64(r.Uint32()), 10) }
	bitmap := func() {
		for window := r.IntN(3); window < 256; window += 1 + r.IntN(200) {
			out = append(out, byte(window))
			counted(octets(1, 32))
		}
	}
	gateway := func(kind byte) {
		switch kind {
		case 1:
			out = append(out, octets(4, 4)...)
		case 2:
			out = append(out, octets(16, 16)...)
		case 3:
			name()
		}
	}
	sized := func() {
		b := octets(0, 40)
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(b))), b...)
	}
	for i := range len(layout) {
		switch layout[i] {
		case '1', 'g':
			out = append(out, octets(1, 1)...)
		case '2', 'y', 'c':
			out = append(out, octets(2, 2)...)
		case '4', 'A', 'z':
			out = append(out, octets(4, 4)...)
		case '6':
			b := octets(16, 16)
			for j := range b {
				if r.IntN(2) == 0 {
					b[j] = 0
				}
			}
			out = append(out, b...)
		case 'e', 'Z':
			out = append(out, octets(6, 6)...)
		case 'E', 'i', 'I':
			out = append(out, octets(8, 8)...)
		case 'n':
			name()
		case 's', 'S':
			counted(text(255))
		case 't':
			for range 1 + r.IntN(4) {
				counted(text(255))
			}
		case 'w', 'a':
			counted(digits())
		case 'u':
			out = append(out, bytes.ReplaceAll(text(300), []byte{'\\'}, []byte{'/'})...)
		case 'x', 'X', 'b', 'B':
			out = append(out, octets(1, 400)...)
		case 'h':
			counted(octets(0, 255))
		case 'k':
			counted(octets(1, 255))
		case 'm', 'M':
			bitmap()
		case 'L':
			b := octets(16, 16)
			b[0] = 0
			for j := 1; j < 4; j++ {
				b[j] = byte(r.IntN(10)<<4 | r.IntN(10))
			}
			binary.BigEndian.PutUint32(b[4:], uint32(1<<31-324e6+r.Int64N(648e6+1)))
			binary.BigEndian.PutUint32(b[8:], uint32(1<<31-648e6+r.Int64N(1296e6+1)))
			out = append(out, b...)
		case 'P':
			for range 1 + r.IntN(4) {
				family, most := byte(1), 4
				if r.IntN(2) == 0 {
					family, most = 2, 16
				}
				b := octets(0, most)
				if len(b) > 0 {
					b[len(b)-1] |= 1
				}
				out = append(out, 0, family, byte(r.IntN(8*most+1)), byte(len(b)|r.IntN(2)<<7))
				out = append(out, b...)
			}
		case 'V':
			for key := r.IntN(3); key < 12; key += 1 + r.IntN(4) {
				var v []byte
				switch key {
				case 0:
					v = octets(2, 2)
					v[0] &= 0x7f
				case 1:
					for range 1 + r.IntN(3) {
						b := append(text(20), 'x')
						v = append(append(v, byte(len(b))), b...)
					}
				case 2, 8:
				case 3:
					v = octets(2, 2)
				case 4:
					v = octets(4, 4)
				case 6:
					v = octets(32, 32)
				default:
					v = text(100)
				}
				out = binary.BigEndian.AppendUint16(out, uint16(key))
				out = append(binary.BigEndian.AppendUint16(out, uint16(len(v))), v...)
			}
		case 'G':
			kind := byte(r.IntN(4))
			out = append(out, byte(r.Uint32()), kind, byte(r.Uint32()))
			gateway(kind)
		case 'R':
			kind := byte(r.IntN(4))
			out = append(out, byte(r.Uint32()), kind)
			gateway(kind)
		case 'H':
			tag, key := octets(1, 40), octets(1, 300)
			out = append(out, byte(len(tag)), byte(r.Uint32()))
			out = binary.BigEndian.AppendUint16(out, uint16(len(key)))
			out = append(append(out, tag...), key...)
			for range r.IntN(3) {
				name()
			}
		case 'd', 'D':
			sized()
		}
	}
	return out
}

// withRDATA is a message of one RR of the type at the root, with this RDATA, and the offset of the RDATA.
func withRDATA(typ uint16, data []byte) (msg []byte, off int) {
	msg = append(make([]byte, dnsHeaderLen), 0)
	msg = binary.BigEndian.AppendUint16(msg, typ)
	msg = append(msg, 0, 1, 0, 0, 0, 0)
	msg = binary.BigEndian.AppendUint16(msg, uint16(len(data)))
	return append(msg, data...), len(msg)
}

// knownDifference reports whether miekg's text, of RDATA that both read, is known to be another one for a good reason. Each
// reason has its case in rdataCases or rdataWire.
func knownDifference(typ uint16, data []byte, rr dns.RR, got string) bool {
	switch rr := rr.(type) {
	case *dns.ISDN:
		return !strings.Contains(got, `" "`) || rr.SubAddress == "" // absent or empty
	case *dns.X25, *dns.GPOS:
		return strings.Contains(got, `"`)
	case *dns.SIG:
		return rr.TypeCovered == 0 || rr.TypeCovered == 65535
	case *dns.RRSIG:
		return rr.TypeCovered == 0 || rr.TypeCovered == 65535
	case *dns.CERT:
		return rr.Type == 4
	case *dns.SMIMEA:
		return len(rr.Certificate) >= 1024
	case *dns.URI, *dns.CAA:
		return bytes.IndexByte(data, '\\') >= 0
	case *dns.IPSECKEY:
		return rr.GatewayType == 2 && rr.GatewayAddr.To4() != nil
	case *dns.AMTRELAY:
		return rr.GatewayType == 2 && rr.GatewayAddr.To4() != nil
	case *dns.NSEC:
		return slices.ContainsFunc(rr.TypeBitMap, unlikeMiekg)
	case *dns.NSEC3:
		return slices.ContainsFunc(rr.TypeBitMap, unlikeMiekg)
	case *dns.NXT:
		return slices.ContainsFunc(rr.TypeBitMap, unlikeMiekg)
	case *dns.CSYNC:
		return slices.ContainsFunc(rr.TypeBitMap, unlikeMiekg)
	case *dns.SVCB:
		return strings.Contains(got, "mandatory") && strings.Contains(got, "key65535")
	case *dns.HTTPS:
		return strings.Contains(got, "mandatory") && strings.Contains(got, "key65535")
	}
	return false
}

// unlikeMiekg reports whether we have a mnemonic for t and miekg/dns has none, or the other way about: it knows types 0 and
// 65535, which are reserved, as None and Reserved, and the newest and some of the oldest not at all.
func unlikeMiekg(t uint16) bool {
	return string(appendType(nil, t)) != dns.Type(t).String()
}

// compareRDATA fails if miekg/dns prints something else for RDATA that both read. both is false where one does not read it.
func compareRDATA(t *testing.T, typ uint16, data []byte) (both bool) {
	t.Helper()
	msg, off := withRDATA(typ, data)
	out, esc := appendRDATA([]byte("<"), msg, off, len(data), typ)
	slow, slowEsc := appendRDATAByLayout([]byte("<"), msg, off, len(data), typ)
	if !bytes.Equal(out, slow) || esc != slowEsc {
		t.Fatalf("%s %x: fast %s %v, table %s %v", appendType(nil, typ), data, out, esc, slow, slowEsc)
	}
	if out[0] != '<' || esc != textNeedsEscape(out) {
		t.Fatalf("%s %x: esc is %v for %s", appendType(nil, typ), data, esc, out)
	}
	for _, b := range out {
		if b < ' ' || b > '~' {
			t.Fatalf("%s %x: raw byte %#x", appendType(nil, typ), data, b)
		}
	}
	got := string(out[1:])
	if strings.HasPrefix(got, `\# `) {
		if want := strings.TrimSuffix(`\# `+strconv.Itoa(len(data))+" "+hex.EncodeToString(data), " "); got != want {
			t.Fatalf("%s: got %s, want %s", appendType(nil, typ), got, want)
		}
		if rr, _, err := dns.UnpackRR(msg, dnsHeaderLen); err == nil && len(data) > 0 && typ != rrTypeCAA && typ != rrTypeSVCB && typ != rrTypeHTTPS {
			// miekg/dns reads what is cut off between two fields, and more; but there must be no text that leads back to
			// this RDATA. (CAA tags and the values of alpn and mandatory are stricter in their RFCs.)
			if _, generic := rr.(*dns.RFC3597); !generic && leadsBack(rr, data) {
				t.Fatalf("%s %x: got %s, miekg/dns %s", appendType(nil, typ), data, got, rr)
			}
		}
		return false
	}
	rr, _, err := dns.UnpackRR(msg, dnsHeaderLen)
	if err != nil || len(data) == 0 {
		return false
	}
	if want := normalNames(typ, miekgRDATA(rr)); got != want && !knownDifference(typ, data, rr, got) {
		t.Fatalf("%s %x:\n got %s\nwant %s", appendType(nil, typ), data, got, want)
	}
	return true
}

// leadsBack reports whether the text that miekg/dns prints for rr is one it reads as data again. A text that ends in a blank has no last
// field, which no other reader takes.
func leadsBack(rr dns.RR, data []byte) bool {
	if strings.HasSuffix(rr.String(), " ") {
		return false
	}
	switch rr := rr.(type) { // gateways of an unknown type, which miekg/dns takes for none
	case *dns.IPSECKEY:
		if rr.GatewayType > 3 {
			return false
		}
	case *dns.AMTRELAY:
		if rr.GatewayType&0x7f > 3 {
			return false
		}
	}
	again, err := dns.NewRR(rr.String())
	if err != nil || again == nil {
		return false
	}
	buf := make([]byte, 70000)
	end, err := dns.PackRR(again, buf, 0, nil, false)
	return err == nil && end >= 11+len(data) && bytes.Equal(buf[11:end], data) // behind a root owner
}

func TestRDATAGenerated(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for typ := range uint16(32770) {
		layout := rdataLayout(typ)
		if layout == "" {
			continue
		}
		for range 300 {
			data := randomRDATA(r, layout)
			if !compareRDATA(t, typ, data) {
				msg, off := withRDATA(typ, data)
				got, _ := appendRDATA(nil, msg, off, len(data), typ)
				if _, _, err := dns.UnpackRR(msg, dnsHeaderLen); err == nil {
					t.Fatalf("%s %x: not read: %s", appendType(nil, typ), data, got)
				} else if strings.HasPrefix(string(got), `\# `) {
					t.Fatalf("%s %x: neither reads it: %v", appendType(nil, typ), data, err)
				}
			}
			// Cut short or with an octet more it may become generic, or fit by chance, but has to be safe.
			compareRDATA(t, typ, data[:r.IntN(len(data)+1)])
			compareRDATA(t, typ, append(data, byte(r.Uint32())))
			if len(data) > 0 {
				data[r.IntN(len(data))] ^= 1 << r.IntN(8)
				compareRDATA(t, typ, data)
			}
		}
	}
}

// TestLayoutForEveryType: every type that miekg/dns has RDATA for has a layout, and no other type.
func TestLayoutForEveryType(t *testing.T) {
	without := []uint16{rrTypeNULL, rrTypeOPT, dns.TypeANY, dns.TypeNXNAME}
	for typ := range 65536 {
		_, known := dns.TypeToRR[uint16(typ)]
		want := known && !slices.Contains(without, uint16(typ))
		if got := rdataLayout(uint16(typ)) != ""; got != want {
			t.Errorf("type %s: layout is %v, want %v", appendType(nil, uint16(typ)), got, want)
		}
	}
}

func FuzzRDATA(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for typ := range uint16(32770) {
		if layout := rdataLayout(typ); layout != "" {
			f.Add(typ, randomRDATA(r, layout))
		}
	}
	f.Fuzz(func(t *testing.T, typ uint16, data []byte) {
		if len(data) > 65535 {
			return
		}
		compareRDATA(t, typ, data)
	})
}

func TestRDATADoesNotAllocate(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	buf := make([]byte, 0, 1<<18)
	for typ := range uint16(32770) {
		layout := rdataLayout(typ)
		if layout == "" {
			continue
		}
		msg, off := withRDATA(typ, randomRDATA(r, layout))
		if n := testing.AllocsPerRun(50, func() {
			buf, _ = appendRDATA(buf[:0], msg, off, len(msg)-off, typ)
			buf, _ = appendRDATA(buf[:0], msg, off, len(msg)-off-1, typ)
		}); n != 0 {
			t.Errorf("%s: %v allocations", appendType(nil, typ), n)
		}
	}
}

func BenchmarkAppendRDATA(b *testing.B) {
	for _, zone := range []string{
		`x. A 93.184.216.34`,
		`x. AAAA 2606:2800:220:1:248:1893:25c8:1946`,
		`x. CNAME www.example.com.edgekey.net.`,
		`x. MX 10 mx1.example.com.`,
		`x. SRV 10 60 5060 sip.example.com.`,
		`x. SOA ns1.example.com. hostmaster.example.com. 2024010101 7200 3600 1209600 300`,
		`x. TXT "v=spf1 include:_spf.example.com include:mail.example.net ip4:192.0.2.0/24 -all"`,
		`x. DS 12345 8 2 49FD46E6C4B45C55D4AC49FD46E6C4B45C55D4AC49FD46E6C4B45C55D4AC`,
		`x. RRSIG A 13 2 3600 20300101000000 20200229235959 12345 example.com. ` +
			base64.StdEncoding.EncodeToString(net.IP(strings.Repeat("0123456789abcdef", 4))),
		`x. NSEC3 1 1 12 AABBCCDD 2T7B4G4VSA5SMI47K61MV5BV1A22BOJR A NS SOA MX TXT AAAA RRSIG DNSKEY NSEC3PARAM`,
		`x. HTTPS 1 . alpn="h3,h2" ipv4hint=104.16.132.229,104.16.133.229 ipv6hint=2606:4700::6810:84e5,2606:4700::6810:85e5`,
	} {
		rr, err := dns.NewRR(zone)
		if err != nil {
			b.Fatal(err)
		}
		typ := rr.Header().Rrtype
		msg, off, n := packed(b, rr)
		buf := make([]byte, 0, 4096)
		b.Run(dns.TypeToString[typ], func(b *testing.B) {
			for b.Loop() {
				buf, _ = appendRDATA(buf[:0], msg, off, n, typ)
			}
		})
		b.Run(dns.TypeToString[typ]+"/table", func(b *testing.B) {
			for b.Loop() {
				buf, _ = appendRDATAByLayout(buf[:0], msg, off, n, typ)
			}
		})
	}
}
