package main

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestMnemonics(t *testing.T) {
	for typ := range 65536 {
		got := string(appendType([]byte("<"), uint16(typ)))
		want := dns.Type(typ).String()
		switch typ {
		case 0, 65535: // reserved: miekg/dns says None and Reserved, which no resolver takes for a type
			want = "TYPE" + strconv.Itoa(typ)
		case 11, 22, 38, 40, 66, 67, 68, 259, 262, 263, 264: // IANA has them, miekg/dns does not
			want = map[int]string{
				11: "WKS", 22: "NSAP", 38: "A6", 40: "SINK", 66: "DSYNC", 67: "HHIT", 68: "BRID", 259: "DOA",
				262: "WALLET", 263: "CLA", 264: "IPN",
			}[typ]
		}
		if got != "<"+want {
			t.Errorf("type %d: got %s, want %s", typ, got[1:], want)
		}
	}
	for class := range 65536 {
		want := dns.Class(class).String()
		switch class {
		case 2: // CSNET, long unassigned
			want = "CLASS2"
		case 255: // miekg/dns leaves it out, since it is a type as well
			want = "ANY"
		}
		if got := string(appendClass(nil, uint16(class))); got != want {
			t.Errorf("class %d: got %s, want %s", class, got, want)
		}
	}
	for rcode := range 4096 {
		want := dns.RcodeToString[rcode]
		switch {
		case rcode == 16:
			want = "BADVERS"
		case want == "":
			want = "RCODE" + strconv.Itoa(rcode)
		}
		if got := string(appendRcode(nil, rcode)); got != want {
			t.Errorf("rcode %d: got %s, want %s", rcode, got, want)
		}
	}
	for op := range 16 {
		want := dns.OpcodeToString[op]
		switch {
		case op == 6:
			want = "DSO"
		case want == "":
			want = "OPCODE" + strconv.Itoa(op)
		}
		if got := string(appendOpcode(nil, op)); got != want {
			t.Errorf("opcode %d: got %s, want %s", op, got, want)
		}
	}
}

func TestAppendName(t *testing.T) {
	long := strings.Repeat("\x3f"+strings.Repeat("a", 63), 3)
	longText := strings.Repeat(strings.Repeat("a", 63)+".", 3)
	hops := func(n int) string { // a chain of n pointers to the root at 0
		s := "\x00"
		for i := range n {
			to := 0
			if i > 0 {
				to = len(s) - 2
			}
			s += string([]byte{0xc0 | byte(to>>8), byte(to)})
		}
		return s
	}
	for _, c := range []struct {
		msg  string
		off  int
		want string
		next int
		esc  bool
		err  error
	}{
		{"\x00", 0, ".", 1, false, nil},
		{"\x03WwW\x07example\x03com\x00", 0, "WwW.example.com", 17, false, nil},
		{"\x03com\x00\x01a\xc0\x00", 5, "a.com", 9, false, nil},
		{"\xc0\x02\x01a\x00", 0, "a", 2, false, nil}, // forward
		{"\x01a\xc0\x06xx\x01b\x00", 0, "a.b", 4, false, nil},
		{"\x05a.b\\c\x04\"@ ;\x03\x00\x7f\xff\x00", 0, `a\.b\\c.\"@\032;.\000\127\255`, 16, true, nil},
		{"\x06()$'@;\x00", 0, `()$'@;`, 8, false, nil},
		{"\x08abcdefgh\x09abcdefghi\x10abcdefghabcdefgh\x00", 0, "abcdefgh.abcdefghi.abcdefghabcdefgh", 37, false, nil},
		{"\x09abcdefgh.\x00", 0, `abcdefgh\.`, 11, true, nil},
		{"", 0, "", 0, false, errNamePastEnd},
		{"\x03ww", 0, "", 0, false, errNamePastEnd},
		{"\x03www", 0, "", 0, false, errNamePastEnd},
		{"\xc0", 0, "", 0, false, errNamePastEnd},
		{"\xc0\x07", 0, "", 0, false, errNamePastEnd},
		{"\xc0\x00", 0, "", 0, false, errNameLoop},
		{"\x01a\xc0\x00", 0, "", 0, false, errNameLoop},
		{"\x40a\x00", 0, "", 0, false, errNameLabelType},
		{"\x81a\x00", 0, "", 0, false, errNameLabelType},
		{long + "\x3d" + strings.Repeat("b", 61) + "\x00", 0, longText + strings.Repeat("b", 61), 255, false, nil},
		{long + "\x3e" + strings.Repeat("b", 62) + "\x00", 0, "", 0, false, errNameTooLong},
		{strings.Repeat("\x01a", 127) + "\x00", 0, strings.Repeat("a.", 126) + "a", 255, false, nil},
		{strings.Repeat("\x01a", 128) + "\x00", 0, "", 0, false, errNameTooLong},
		{strings.Repeat("\x01 ", 127) + "\x00", 0, strings.Repeat(`\032.`, 126) + `\032`, 255, true, nil},
		{strings.Repeat("\x01 ", 128) + "\x00", 0, "", 0, false, errNameTooLong},
		{hops(126), 251, ".", 253, false, nil},
		{hops(127), 253, "", 0, false, errNameLoop},
	} {
		out, next, esc, err := appendName([]byte("<"), []byte(c.msg), c.off)
		if string(out) != "<"+c.want || next != c.next || esc != c.esc || err != c.err {
			t.Errorf("%q: got %s %d %v %v, want <%s %d %v %v", c.msg, out, next, esc, err, c.want, c.next, c.esc, c.err)
		}
	}
}

// checkNameAgainst checks that the fast, the plain and the checking walk of a name agree, and miekg/dns with them.
func checkNameAgainst(t *testing.T, msg []byte, off int) {
	t.Helper()
	fast, fastNext, fastEsc, fastErr := appendName([]byte("<"), msg, off)
	plain, plainNext, plainEsc, plainErr := appendNameEscaped([]byte("<"), msg, off)
	if fastErr == nil && plainErr == nil && (!bytes.Equal(fast, plain) || fastNext != plainNext || fastEsc != plainEsc) {
		t.Fatalf("%x at %d: fast %s %d %v, plain %s %d %v", msg, off, fast, fastNext, fastEsc, plain, plainNext, plainEsc)
	}
	next, ok := checkName(msg, off)
	if ok != (fastErr == nil) || ok != (plainErr == nil) || next != fastNext {
		t.Fatalf("%x at %d: check %d %v, fast %d %v, plain %v", msg, off, next, ok, fastNext, fastErr, plainErr)
	}
	want, wantNext, err := dns.UnpackDomainName(msg, off)
	if ok != (err == nil) {
		t.Fatalf("%x at %d: check %v, miekg/dns %v", msg, off, ok, err)
	}
	if !ok {
		if string(fast) != "<" {
			t.Fatalf("%x at %d: wrote %s", msg, off, fast)
		}
		return
	}
	if next != wantNext || next <= off || next > len(msg) {
		t.Fatalf("%x at %d: next %d, miekg/dns %d", msg, off, next, wantNext)
	}
	text := string(fast[1:])
	if fastEsc != strings.ContainsAny(text, `"\`) {
		t.Fatalf("%s: esc is %v", text, fastEsc)
	}
	if !fastEsc && !json.Valid([]byte(`"`+text+`"`)) {
		t.Fatalf("%s: can't stand in JSON", text)
	}
	// The text leads back to the same labels.
	var ours, theirs [256]byte
	if text != "." {
		text += "."
	}
	n, err := dns.PackDomainName(text, ours[:], 0, nil, false)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	m, err := dns.PackDomainName(want, theirs[:], 0, nil, false)
	if err != nil || !bytes.Equal(ours[:n], theirs[:m]) || n > 255 {
		t.Fatalf("%s is %x, %s is %x (%v)", text, ours[:n], want, theirs[:m], err)
	}
}

func TestNamesGenerated(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 50000 {
		msg := make([]byte, r.IntN(80))
		for i := range msg {
			switch r.IntN(8) {
			case 0:
				msg[i] = byte(r.Uint32())
			case 1:
				msg[i] = 0xc0
			case 2, 3, 4:
				msg[i] = byte(r.IntN(12))
			default:
				msg[i] = 'a' + byte(r.IntN(26))
			}
		}
		checkNameAgainst(t, msg, r.IntN(len(msg)+2))
	}
}

func FuzzName(f *testing.F) {
	f.Add([]byte("\x03www\x07example\x03com\x00"), 0)
	f.Add([]byte("\x03com\x00\x01a\xc0\x00"), 5)
	f.Add([]byte("\x05a.b\\c\x04\"@ ;\x03\x00\x7f\xff\x00"), 0)
	f.Add([]byte("\x01a\xc0\x00"), 0)
	f.Fuzz(func(t *testing.T, msg []byte, off int) {
		if off >= 0 && len(msg) <= 65535 {
			checkNameAgainst(t, msg, off)
		}
	})
}

func TestAppendUint(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	check := func(v uint64) {
		t.Helper()
		if got, want := string(appendUint([]byte("<"), v)), "<"+strconv.FormatUint(v, 10); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	for v := range uint64(200000) {
		check(v)
	}
	for v := uint64(1); v < math.MaxUint64/10; v *= 10 {
		check(v - 1)
		check(v)
		check(v + 1)
	}
	check(math.MaxUint64)
	for range 50000 {
		check(r.Uint64() >> r.IntN(64))
	}
}

func TestAppendAddresses(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	var buf []byte
	for range 200000 {
		var a [16]byte
		for i := range a {
			a[i] = byte(r.Uint32())
			switch r.IntN(3) {
			case 0:
				a[i] = 0
			case 1:
				a[i] &= 15
			}
		}
		if r.IntN(10) == 0 {
			a = [16]byte{10: 0xff, 11: 0xff, 12: a[12], 13: a[13], 14: a[14], 15: a[15]}
		}
		buf = appendIPv6(append(buf[:0], '<'), a[:])
		if want := "<" + netip.AddrFrom16(a).String(); string(buf) != want {
			t.Fatalf("got %s, want %s", buf, want)
		}
		buf = appendIPv4(append(buf[:0], '<'), a[:4])
		if want := "<" + netip.AddrFrom4([4]byte(a[:4])).String(); string(buf) != want {
			t.Fatalf("got %s, want %s", buf, want)
		}
	}
	for set := range 256 { // every set of zero groups
		var a [16]byte
		for i := range 8 {
			if set>>i&1 == 0 {
				a[2*i+1] = byte(i + 1)
			}
		}
		if got, want := string(appendIPv6(nil, a[:])), netip.AddrFrom16(a).String(); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
}

func TestNamesDoNotAllocate(t *testing.T) {
	msg := []byte("\x03www\x07example\x03com\x00\x03a b\x00\xc0\x00")
	addr := netip.MustParseAddr("2001:db8::1").As16()
	buf := make([]byte, 0, 2048)
	if n := testing.AllocsPerRun(100, func() {
		buf, _, _, _ = appendName(buf[:0], msg, 0)
		buf, _, _, _ = appendName(buf, msg, 17)
		buf, _, _, _ = appendName(buf, msg, 22)
		buf, _, _, _ = appendName(buf, msg, 24)
		checkName(msg, 22)
		buf = appendType(buf, 65280)
		buf = appendClass(buf, 7)
		buf = appendRcode(buf, 99)
		buf = appendOpcode(buf, 3)
		buf = appendUint(buf, math.MaxUint64)
		buf = appendIPv4(buf, addr[:4])
		buf = appendIPv6(buf, addr[:])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAppendName(b *testing.B) {
	msg := []byte("\x03www\x07example\x03com\x00\x01a\xc0\x04........")
	buf := make([]byte, 0, 2048)
	b.Run("three labels", func(b *testing.B) {
		for b.Loop() {
			buf, _, _, _ = appendName(buf[:0], msg, 0)
		}
	})
	b.Run("compressed", func(b *testing.B) {
		for b.Loop() {
			buf, _, _, _ = appendName(buf[:0], msg, 17)
		}
	})
	b.Run("three labels/plain version", func(b *testing.B) {
		for b.Loop() {
			buf, _, _, _ = appendNameEscaped(buf[:0], msg, 0)
		}
	})
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			checkName(msg, 0)
		}
	})
}

func BenchmarkAppendAddress(b *testing.B) {
	v4, v6 := netip.MustParseAddr("93.184.216.34"), netip.MustParseAddr("2606:2800:220:1:248::25c8:1946")
	raw4, raw6 := v4.As4(), v6.As16()
	buf := make([]byte, 0, 64)
	b.Run("v4", func(b *testing.B) {
		for b.Loop() {
			buf = appendIPv4(buf[:0], raw4[:])
		}
	})
	b.Run("v4/netip", func(b *testing.B) {
		for b.Loop() {
			buf = netip.AddrFrom4(raw4).AppendTo(buf[:0])
		}
	})
	b.Run("v6", func(b *testing.B) {
		for b.Loop() {
			buf = appendIPv6(buf[:0], raw6[:])
		}
	})
	b.Run("v6/netip", func(b *testing.B) {
		for b.Loop() {
			buf = netip.AddrFrom16(raw6).AppendTo(buf[:0])
		}
	})
}
