// RDATA: the presentation form of what an RR holds.
//
// In: a message and the place of one RR's RDATA in it. Out: the text of RFC 1035 §5 and of each type's own RFC, names
// without trailing dot. RDATA of a type without a layout, or RDATA that does not fit its layout to the last octet,
// comes out in the generic form of RFC 3597 §5, so that nothing is lost and no raw byte gets through.
//
// Rules: one table row a type, rdataLayouts; one decoder reads all rows. To add a type, add its row, and a field code only if no
// existing one says it. The types that make up nearly all traffic have a straight path before the table, compared with
// it in the tests. Nothing is allocated once the buffer is large enough.
package main

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
)

// rdataLayouts says what a type's RDATA is made of: one letter a field, in wire order, written with a blank between them. A type
// without a row has no presentation form of its own (NULL, OPT, ANY, NXNAME) or is unknown here.
//
//	1 2 4  unsigned integer of 1, 2 or 4 octets
//	A 6    IPv4, IPv6 address
//	n      domain name
//	s      character-string, quoted; S may be absent, at the end
//	t      one or more character-strings to the end, quoted
//	w      character-string, bare if it can be
//	a      character-string of letters and digits, bare
//	u      the rest as one quoted string
//	x X    the rest in hexadecimal, lower or upper case, at least one octet
//	b      the rest in base64, at least one octet; B may be empty
//	h      octet count, then hexadecimal, "-" if none
//	k      octet count, then base32hex, at least one octet
//	y      RR type, as mnemonic
//	m      types, as windowed bitmap (RFC 4034 §4.1.2); M the same or the older form of NXT
//	z Z    32-bit, 48-bit seconds since 1970, as YYYYMMDDHHmmSS
//	e E    EUI-48, EUI-64; i I  64-bit identifier in four groups, lower or upper case
//	c g    certificate type, DNSSEC algorithm, as mnemonic if there is one
//	L P V  LOC, APL items, service parameters
//	G R H  IPSECKEY up to its gateway, AMTRELAY, HIP
//	d D    2-octet count, then as many octets in hexadecimal, lower or upper case, if any
var rdataLayouts = [...]string{
	rrTypeA:          "A",       // RFC 1035 §3.4.1
	rrTypeNS:         "n",       // RFC 1035 §3.3
	rrTypeMD:         "n",       //
	rrTypeMF:         "n",       //
	rrTypeCNAME:      "n",       //
	rrTypeSOA:        "nn44444", //
	rrTypeMB:         "n",       //
	rrTypeMG:         "n",       //
	rrTypeMR:         "n",       //
	rrTypePTR:        "n",       //
	rrTypeHINFO:      "ss",      //
	rrTypeMINFO:      "nn",      //
	rrTypeMX:         "2n",      //
	rrTypeTXT:        "t",       //
	rrTypeRP:         "nn",      // RFC 1183
	rrTypeAFSDB:      "2n",
	rrTypeX25:        "w",
	rrTypeISDN:       "sS",
	rrTypeRT:         "2n",
	rrTypeNSAPPTR:    "n",         // RFC 1348
	rrTypeSIG:        "y114zz2nb", // RFC 2931
	rrTypeKEY:        "211B",      // RFC 2535 §7.1
	rrTypePX:         "2nn",       // RFC 2163
	rrTypeGPOS:       "www",       // RFC 1712
	rrTypeAAAA:       "6",         // RFC 3596
	rrTypeLOC:        "L",         // RFC 1876
	rrTypeNXT:        "nM",        // RFC 2535 §5.2
	rrTypeEID:        "X",         // Nimrod, no RFC
	rrTypeNIMLOC:     "X",
	rrTypeSRV:        "222n",      // RFC 2782
	rrTypeNAPTR:      "22sssn",    // RFC 3403 §4.1
	rrTypeKX:         "2n",        // RFC 2230
	rrTypeCERT:       "c2gb",      // RFC 4398 §2.2
	rrTypeDNAME:      "n",         // RFC 6672
	rrTypeAPL:        "P",         // RFC 3123
	rrTypeDS:         "211X",      // RFC 4034 §5.3
	rrTypeSSHFP:      "11X",       // RFC 4255
	rrTypeIPSECKEY:   "GB",        // RFC 4025 §3.1
	rrTypeRRSIG:      "y114zz2nb", // RFC 4034 §3.2
	rrTypeNSEC:       "nm",        // RFC 4034 §4.2
	rrTypeDNSKEY:     "211B",      // RFC 4034 §2.2
	rrTypeDHCID:      "b",         // RFC 4701 §3.2
	rrTypeNSEC3:      "112hkm",    // RFC 5155 §3.3
	rrTypeNSEC3PARAM: "112h",      // RFC 5155 §4.3
	rrTypeTLSA:       "111x",      // RFC 6698 §2.2
	rrTypeSMIMEA:     "111x",      // RFC 8162
	rrTypeHIP:        "H",         // RFC 8005 §6
	rrTypeNINFO:      "t",         // IANA, NINFO template
	rrTypeRKEY:       "211B",      // IANA, RKEY template
	rrTypeTALINK:     "nn",        // IANA, TALINK template
	rrTypeCDS:        "211X",      // RFC 7344
	rrTypeCDNSKEY:    "211B",
	rrTypeOPENPGPKEY: "b",       // RFC 7929 §2.3
	rrTypeCSYNC:      "42m",     // RFC 7477 §2.1.2
	rrTypeZONEMD:     "411x",    // RFC 8976 §2.3
	rrTypeSVCB:       "2nV",     // RFC 9460 §2.1
	rrTypeHTTPS:      "2nV",     //
	rrTypeSPF:        "t",       // RFC 7208 §3.1
	rrTypeUINFO:      "s",       // IANA, reserved
	rrTypeUID:        "4",       //
	rrTypeGID:        "4",       //
	rrTypeNID:        "2i",      // RFC 6742
	rrTypeL32:        "2A",      //
	rrTypeL64:        "2I",      //
	rrTypeLP:         "2n",      //
	rrTypeEUI48:      "e",       // RFC 7043
	rrTypeEUI64:      "E",       //
	rrTypeTKEY:       "nzz22dd", // RFC 2930, which has no text form: the fields in order, data in hexadecimal
	rrTypeTSIG:       "nZ2D22d", // RFC 8945, the same
	rrTypeURI:        "22u",     // RFC 7553 §4.5
	rrTypeCAA:        "1au",     // RFC 8659 §4.1.1
	rrTypeAVC:        "t",       // IANA, AVC template
	rrTypeAMTRELAY:   "R",       // RFC 8777 §4.3.1
	rrTypeRESINFO:    "t",       // RFC 9606
}

// rdataLayout returns the layout of type typ, "" if it has none. TA and DLV (RFC 4431), far out in the registry, are DS by another name.
func rdataLayout(typ uint16) string {
	if int(typ) < len(rdataLayouts) {
		return rdataLayouts[typ]
	}
	if typ == rrTypeTA || typ == rrTypeDLV {
		return rdataLayouts[rrTypeDS]
	}
	return ""
}

// appendRDATA appends the presentation form of the RDATA of type typ at msg[off:off+n], which must lie in msg; names in it
// may point anywhere in msg. It can't fail: what does not fit becomes generic. esc is true if the text contains a '"' or a '\'.
// RDATA of no octets, as in an UPDATE (RFC 2136 §2.5.2), is `\# 0` for every type.
func appendRDATA(dst, msg []byte, off, n int, typ uint16) (out []byte, esc bool) {
	switch typ {
	case rrTypeA: // by the table it takes 2.5 to 3.5 times as long, a name 1.3 times (BenchmarkAppendRDATA)
		if n == 4 {
			return appendIPv4(dst, msg[off:off+4]), false
		}
	case rrTypeAAAA:
		if n == 16 {
			return appendIPv6(dst, msg[off:off+16]), false
		}
	case rrTypeCNAME, rrTypeNS, rrTypePTR:
		if out, next, esc, err := appendName(dst, msg, off); err == nil && next == off+n {
			return out, esc
		}
	}
	return appendRDATAByLayout(dst, msg, off, n, typ)
}

// appendRDATAByLayout is appendRDATA for all types, by the table.
func appendRDATAByLayout(dst, msg []byte, off, n int, typ uint16) (out []byte, esc bool) {
	if layout := rdataLayout(typ); layout != "" && n > 0 {
		d := rdataDecoder{msg: msg, off: off, end: off + n, out: dst, start: len(dst)}
		for i := 0; i < len(layout); i++ {
			if !d.field(layout[i]) {
				return appendGeneric(dst, msg[off:off+n]), true
			}
		}
		if d.off == d.end {
			return d.out, d.esc
		}
	}
	return appendGeneric(dst, msg[off:off+n]), true
}

// appendGeneric appends data in the form for RDATA of unknown types (RFC 3597 §5).
func appendGeneric(dst, data []byte) []byte {
	dst = appendUint(append(dst, '\\', '#', ' '), uint64(len(data)))
	if len(data) == 0 {
		return dst
	}
	return hex.AppendEncode(append(dst, ' '), data)
}

// rdataDecoder walks one RDATA. It lives on the stack of appendRDATAByLayout.
type rdataDecoder struct {
	msg      []byte
	off, end int    // what is left: msg[off:end]
	out      []byte // the caller's buffer, this RDATA's text from out[start]
	start    int
	esc      bool // '"' or '\' was written
}

// sep writes the blank between fields.
func (d *rdataDecoder) sep() {
	if len(d.out) > d.start {
		d.out = append(d.out, ' ')
	}
}

// number reads an unsigned integer of size octets, 8 at most; false if fewer are left.
func (d *rdataDecoder) number(size int) (v uint64, ok bool) {
	if d.end-d.off < size {
		return 0, false
	}
	for _, b := range d.msg[d.off : d.off+size] {
		v = v<<8 | uint64(b)
	}
	d.off += size
	return v, true
}

// integer writes the unsigned integer of size octets.
func (d *rdataDecoder) integer(size int) bool {
	v, ok := d.number(size)
	if ok {
		d.sep()
		d.out = appendUint(d.out, v)
	}
	return ok
}

// name writes a domain name, whose place in the RDATA must not pass its end.
func (d *rdataDecoder) name() bool {
	d.sep()
	out, next, esc, err := appendName(d.out, d.msg, d.off)
	if err != nil || next > d.end {
		return false
	}
	d.out, d.off, d.esc = out, next, d.esc || esc
	return true
}

// counted takes the bytes behind a length octet.
func (d *rdataDecoder) counted() (b []byte, ok bool) {
	n, ok := d.number(1)
	if !ok {
		return nil, false
	}
	return d.take(int(n))
}

// take takes the next n bytes.
func (d *rdataDecoder) take(n int) (b []byte, ok bool) {
	if d.end-d.off < n {
		return nil, false
	}
	b = d.msg[d.off : d.off+n]
	d.off += n
	return b, true
}

// rest takes what is left.
func (d *rdataDecoder) rest() []byte {
	b := d.msg[d.off:d.end]
	d.off = d.end
	return b
}

// quoted writes text as a quoted character-string (RFC 1035 §5.1).
func (d *rdataDecoder) quoted(text []byte) {
	d.sep()
	d.esc = true
	d.out = append(appendEscaped(append(d.out, '"'), text, byteTextQuoted, byteTextDecimal), '"')
}

// appendEscaped appends text with a '\' before the bytes of class quoted and those of class decimal as \DDD. Runs of plain
// bytes are copied in one go.
func appendEscaped(dst, text []byte, quoted, decimal uint8) []byte {
	plain := 0
	for i, b := range text {
		class := byteClass[b]
		if class&(quoted|decimal) == 0 {
			continue
		}
		dst = append(dst, text[plain:i]...)
		plain = i + 1
		if class&quoted != 0 {
			dst = append(dst, '\\', b)
		} else {
			dst = appendDecimalEscape(dst, b)
		}
	}
	return append(dst, text[plain:]...)
}

// allOf reports whether every byte of b is of the class.
func allOf(b []byte, class uint8) bool {
	for _, c := range b {
		if byteClass[c]&class == 0 {
			return false
		}
	}
	return true
}

// word writes b bare if it can stand so in a zone file, else quoted.
func (d *rdataDecoder) word(b []byte) {
	if len(b) == 0 || !allOf(b, byteBare) {
		d.quoted(b)
		return
	}
	d.sep()
	d.out = append(d.out, b...)
}

// hexLower and hexUpper write b in hexadecimal.
func (d *rdataDecoder) hexLower(b []byte) {
	d.sep()
	d.out = hex.AppendEncode(d.out, b)
}

func (d *rdataDecoder) hexUpper(b []byte) {
	d.sep()
	n := len(d.out)
	d.out = hex.AppendEncode(d.out, b)
	for i, c := range d.out[n:] {
		if c >= 'a' {
			d.out[n+i] = c - ('a' - 'A')
		}
	}
}

// base64 writes b in base64.
func (d *rdataDecoder) base64(b []byte) {
	d.sep()
	d.out = base64.StdEncoding.AppendEncode(d.out, b)
}

var base32Hex = base32.HexEncoding.WithPadding(base32.NoPadding) // RFC 5155 §3.3: without padding

// field reads and writes the field with this code; false if the RDATA does not fit.
func (d *rdataDecoder) field(code byte) bool {
	switch code {
	case '1':
		return d.integer(1)
	case '2':
		return d.integer(2)
	case '4':
		return d.integer(4)
	case 'n':
		return d.name()
	case 'A':
		b, ok := d.take(4)
		if !ok {
			return false
		}
		d.sep()
		d.out = appendIPv4(d.out, b)
	case '6':
		b, ok := d.take(16)
		if !ok {
			return false
		}
		d.sep()
		d.out = appendIPv6(d.out, b)
	case 'S':
		if d.off == d.end {
			return true
		}
		fallthrough
	case 's':
		b, ok := d.counted()
		if !ok {
			return false
		}
		d.quoted(b)
	case 't':
		for {
			b, ok := d.counted()
			if !ok {
				return false
			}
			d.quoted(b)
			if d.off == d.end {
				return true
			}
		}
	case 'w':
		b, ok := d.counted()
		if !ok {
			return false
		}
		d.word(b)
	case 'a':
		b, ok := d.counted()
		if !ok || len(b) == 0 || !allOf(b, byteAlnum) {
			return false
		}
		d.sep()
		d.out = append(d.out, b...)
	case 'u':
		d.quoted(d.rest())
	case 'x':
		if d.off == d.end {
			return false
		}
		d.hexLower(d.rest())
	case 'X':
		if d.off == d.end {
			return false
		}
		d.hexUpper(d.rest())
	case 'b':
		if d.off == d.end {
			return false
		}
		d.base64(d.rest())
	case 'B':
		if d.off < d.end {
			d.base64(d.rest())
		}
	case 'h':
		b, ok := d.counted()
		if !ok {
			return false
		}
		if len(b) == 0 {
			d.sep()
			d.out = append(d.out, '-')
		} else {
			d.hexUpper(b)
		}
	case 'k':
		b, ok := d.counted()
		if !ok || len(b) == 0 {
			return false
		}
		d.sep()
		d.out = base32Hex.AppendEncode(d.out, b)
	case 'y':
		v, ok := d.number(2)
		if !ok {
			return false
		}
		d.sep()
		d.out = appendType(d.out, uint16(v))
	case 'm':
		return d.typeBitmap()
	case 'M':
		return d.nxtBitmap()
	case 'z':
		return d.time(4)
	case 'Z':
		return d.time(6)
	case 'e':
		return d.eui(6)
	case 'E':
		return d.eui(8)
	case 'i':
		return d.identifier(false)
	case 'I':
		return d.identifier(true)
	case 'c':
		v, ok := d.number(2)
		if !ok {
			return false
		}
		d.mnemonic(certTypeName(uint16(v)), v)
	case 'g':
		v, ok := d.number(1)
		if !ok {
			return false
		}
		d.mnemonic(algorithmName(uint8(v)), v)
	case 'L':
		return d.location()
	case 'P':
		return d.prefixes()
	case 'V':
		return d.serviceParams()
	case 'G':
		return d.ipseckey()
	case 'R':
		return d.amtrelay()
	case 'H':
		return d.hip()
	case 'd':
		return d.sized(false)
	case 'D':
		return d.sized(true)
	default:
		panic("BUG: unknown field code in rdataLayouts")
	}
	return true
}

// mnemonic writes name, or the number where there is none.
func (d *rdataDecoder) mnemonic(name string, v uint64) {
	d.sep()
	if name != "" {
		d.out = append(d.out, name...)
	} else {
		d.out = appendUint(d.out, v)
	}
}

// certTypeName returns the mnemonic of a CERT type (RFC 4398 §2.1), "" if it has none.
func certTypeName(t uint16) string {
	switch t {
	case 253:
		return "URI"
	case 254:
		return "OID"
	}
	names := [...]string{1: "PKIX", 2: "SPKI", 3: "PGP", 4: "IPKIX", 5: "ISPKI", 6: "IPGP", 7: "ACPKIX", 8: "IACPKIX"}
	if int(t) < len(names) {
		return names[t]
	}
	return ""
}

// algorithmName returns the mnemonic of a DNSSEC algorithm (IANA, DNS Security Algorithm Numbers), "" if it has none.
func algorithmName(a uint8) string {
	switch a {
	case 1:
		return "RSAMD5"
	case 2:
		return "DH"
	case 3:
		return "DSA"
	case 5:
		return "RSASHA1"
	case 6:
		return "DSA-NSEC3-SHA1"
	case 7:
		return "RSASHA1-NSEC3-SHA1"
	case 8:
		return "RSASHA256"
	case 10:
		return "RSASHA512"
	case 12:
		return "ECC-GOST"
	case 13:
		return "ECDSAP256SHA256"
	case 14:
		return "ECDSAP384SHA384"
	case 15:
		return "ED25519"
	case 16:
		return "ED448"
	case 252:
		return "INDIRECT"
	case 253:
		return "PRIVATEDNS"
	case 254:
		return "PRIVATEOID"
	}
	return ""
}

// typeBitmap writes the types of a windowed bitmap: windows in rising order, each of 1 to 32 octets (RFC 4034 §4.1.2). No
// window at all is what CSYNC and NSEC3 of an empty non-terminal have.
func (d *rdataDecoder) typeBitmap() bool {
	for last := -1; d.off < d.end; {
		window, _ := d.number(1)
		b, ok := d.counted()
		if !ok || int(window) <= last || len(b) == 0 || len(b) > 32 {
			return false
		}
		last = int(window)
		d.bitmapTypes(uint16(window)<<8, b)
	}
	return true
}

// bitmapTypes writes the types whose bits are set in b, the first bit being type base.
func (d *rdataDecoder) bitmapTypes(base uint16, b []byte) {
	for i, octet := range b {
		for bit := 0; octet != 0; bit, octet = bit+1, octet<<1 {
			if octet&0x80 != 0 {
				d.sep()
				d.out = appendType(d.out, base+uint16(8*i+bit))
			}
		}
	}
}

// nxtBitmap writes the types of an NXT RR. RFC 2535 §5.2 has one bitmap of types 0 to 127, bit 0 clear; some write the later
// windows there. A bitmap in the old form has bit 30, NXT itself, set, and does not fit the windows: its first two octets
// would have to give a length that the bits of a real type set don't.
func (d *rdataDecoder) nxtBitmap() bool {
	off, written := d.off, len(d.out)
	if d.typeBitmap() {
		return true
	}
	b := d.msg[off:d.end]
	if len(b) > 16 || b[0]&0x80 != 0 {
		return false
	}
	d.off, d.out = d.end, d.out[:written]
	d.bitmapTypes(0, b)
	return true
}

// time writes size octets of seconds.
func (d *rdataDecoder) time(size int) bool {
	sec, ok := d.number(size)
	if ok {
		d.sep()
		d.out = appendTime(d.out, sec)
	}
	return ok
}

// appendTime appends the UTC time that is sec seconds after 1970, as YYYYMMDDHHmmSS (RFC 4034 §3.2). Signature times are 32-bit
// serial numbers; they are taken as they are, so that the same octets always give the same text. sec is below 2^48.
func appendTime(dst []byte, sec uint64) []byte {
	day, sec := sec/86400, sec%86400
	// The calendar repeats every 400 years of 146,097 days. Years are counted from 1 March, so that the leap day is the last.
	day += 719468 // from 0000-03-01 to 1970-01-01
	era, day := day/146097, day%146097
	year := (day - day/1460 + day/36524 - day/146096) / 365
	day -= 365*year + year/4 - year/100
	month := (5*day + 2) / 153 // 0 is March
	day -= (153*month + 2) / 5
	year += 400 * era
	if month += 3; month > 12 {
		month -= 12
		year++
	}
	for limit := uint64(1000); limit > 1 && year < limit; limit /= 10 {
		dst = append(dst, '0')
	}
	dst = appendUint(dst, year)
	for _, v := range [...]uint64{month, day + 1, sec / 3600, sec / 60 % 60, sec % 60} {
		dst = append(dst, digitPairs[2*v], digitPairs[2*v+1])
	}
	return dst
}

// eui writes n octets in hexadecimal with hyphens (RFC 7043 §3.2).
func (d *rdataDecoder) eui(n int) bool {
	b, ok := d.take(n)
	if !ok {
		return false
	}
	d.sep()
	for i, c := range b {
		if i > 0 {
			d.out = append(d.out, '-')
		}
		d.out = append(d.out, byte(hexPairs[c]), byte(hexPairs[c]>>8))
	}
	return true
}

// identifier writes 64 bits as four groups of four hexadecimal digits (RFC 6742 §2.1.2, §2.3.2).
func (d *rdataDecoder) identifier(upper bool) bool {
	b, ok := d.take(8)
	if !ok {
		return false
	}
	d.sep()
	n := len(d.out)
	for i, c := range b {
		if i > 0 && i%2 == 0 {
			d.out = append(d.out, ':')
		}
		d.out = append(d.out, byte(hexPairs[c]), byte(hexPairs[c]>>8))
	}
	if upper {
		for i, c := range d.out[n:] {
			if c >= 'a' {
				d.out[n+i] = c - ('a' - 'A')
			}
		}
	}
	return true
}

// location writes a LOC RR of version 0 (RFC 1876 §2, §3), a zero angle as S or W. A size outside the notation, an angle past the
// pole or the antimeridian, or another version has no text form.
func (d *rdataDecoder) location() bool {
	b, ok := d.take(16)
	if !ok || b[0] != 0 {
		return false
	}
	for _, size := range b[1:4] {
		if size>>4 > 9 || size&15 > 9 {
			return false
		}
	}
	const milliseconds = 3600 * 1000 // in a degree
	if !d.angle(binary.BigEndian.Uint32(b[4:]), 90*milliseconds, 'N', 'S') ||
		!d.angle(binary.BigEndian.Uint32(b[8:]), 180*milliseconds, 'E', 'W') {
		return false
	}
	d.out = append(d.out, ' ')
	altitude := int64(binary.BigEndian.Uint32(b[12:])) - 10_000_000 // cm, from 100 km below the ellipsoid
	if altitude < 0 {
		d.out = append(d.out, '-')
		altitude = -altitude
	}
	d.out = appendUint(d.out, uint64(altitude/100))
	if cm := altitude % 100; cm != 0 {
		d.out = append(d.out, '.', digitPairs[2*cm], digitPairs[2*cm+1])
	}
	d.out = append(d.out, 'm')
	for _, size := range b[1:4] { // a digit and the power of ten it is multiplied with, in cm
		d.out = append(d.out, ' ')
		mantissa, exponent := '0'+size>>4, size&15
		switch exponent {
		case 0:
			d.out = append(d.out, '0', '.', '0', mantissa)
		case 1:
			d.out = append(d.out, '0', '.', mantissa, '0')
		default:
			d.out = append(d.out, mantissa)
			for ; exponent > 2; exponent-- {
				d.out = append(d.out, '0')
			}
		}
		d.out = append(d.out, 'm')
	}
	return true
}

// angle writes v, milliseconds of arc from 2^31, as degrees, minutes, seconds and the letter of its side.
func (d *rdataDecoder) angle(v, most uint32, positive, negative byte) bool {
	side := positive
	if v > 1<<31 {
		v -= 1 << 31
	} else {
		v, side = 1<<31-v, negative
	}
	if v > most {
		return false
	}
	d.sep()
	degrees, minutes, ms := v/3600000, v/60000%60, v%60000
	if degrees < 10 {
		d.out = append(d.out, '0')
	}
	d.out = append(appendUint(d.out, uint64(degrees)), ' ', digitPairs[2*minutes], digitPairs[2*minutes+1], ' ')
	d.out = appendUint(d.out, uint64(ms/1000))
	ms %= 1000
	d.out = append(d.out, '.', byte('0'+ms/100), digitPairs[2*(ms%100)], digitPairs[2*(ms%100)+1], ' ', side)
	return true
}

// prefixes writes the items of an APL RR (RFC 3123 §4, §5): [!]family:address/prefix, trailing zero octets of the address left out on the
// wire.
func (d *rdataDecoder) prefixes() bool {
	for d.off < d.end {
		b, ok := d.take(4)
		if !ok {
			return false
		}
		var a [16]byte
		family, prefix, size := binary.BigEndian.Uint16(b), b[2], 4
		if family == 2 {
			size = 16
		}
		addr, ok := d.take(int(b[3] & 0x7f))
		if !ok || family != 1 && family != 2 || int(prefix) > 8*size || len(addr) > size ||
			len(addr) > 0 && addr[len(addr)-1] == 0 {
			return false
		}
		copy(a[:], addr)
		d.sep()
		if b[3]&0x80 != 0 {
			d.out = append(d.out, '!')
		}
		d.out = append(d.out, byte('0'+family), ':')
		if family == 1 {
			d.out = appendIPv4(d.out, a[:4])
		} else {
			d.out = appendIPv6(d.out, a[:])
		}
		d.out = appendUint(append(d.out, '/'), uint64(prefix))
	}
	return true
}

// serviceKeyNames holds the names of service parameters (RFC 9460 §14.3.2, RFC 9461, RFC 9540).
var serviceKeyNames = [...]string{"mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint", "dohpath", "ohttp"}

// appendServiceKey appends the name of a service parameter, or keyN.
func appendServiceKey(dst []byte, key uint16) []byte {
	if int(key) < len(serviceKeyNames) {
		return append(dst, serviceKeyNames[key]...)
	}
	return appendUint(append(dst, "key"...), uint64(key))
}

// serviceParams writes the parameters of an SVCB or HTTPS RR, key="value", keys in rising order (RFC 9460 §2.1, §2.2). Key 65535 is
// invalid.
func (d *rdataDecoder) serviceParams() bool {
	for last := -1; d.off < d.end; {
		key, _ := d.number(2)
		n, ok := d.number(2)
		if !ok || int(key) <= last || key == 65535 {
			return false
		}
		last = int(key)
		value, ok := d.take(int(n))
		if !ok {
			return false
		}
		d.sep()
		d.esc = true
		d.out = append(appendServiceKey(d.out, uint16(key)), '=', '"')
		if !d.serviceValue(uint16(key), value) {
			return false
		}
		d.out = append(d.out, '"')
	}
	return true
}

// serviceValue writes the value of one service parameter (RFC 9460 §7, §8, §9).
func (d *rdataDecoder) serviceValue(key uint16, b []byte) bool {
	switch key {
	case 0: // mandatory
		if len(b) == 0 || len(b)%2 != 0 {
			return false
		}
		for i := 0; i < len(b); i += 2 {
			if i > 0 {
				d.out = append(d.out, ',')
			}
			d.out = appendServiceKey(d.out, binary.BigEndian.Uint16(b[i:]))
		}
	case 1: // alpn
		if len(b) == 0 {
			return false
		}
		for i := 0; i < len(b); {
			n := int(b[i])
			if n == 0 || i+1+n > len(b) {
				return false
			}
			if i > 0 {
				d.out = append(d.out, ',')
			}
			i++
			d.appendALPN(b[i : i+n])
			i += n
		}
	case 2, 8: // no-default-alpn, ohttp
		return len(b) == 0
	case 3: // port
		if len(b) != 2 {
			return false
		}
		d.out = appendUint(d.out, uint64(binary.BigEndian.Uint16(b)))
	case 4, 6: // ipv4hint, ipv6hint
		size := 4
		if key == 6 {
			size = 16
		}
		if len(b) == 0 || len(b)%size != 0 {
			return false
		}
		for i := 0; i < len(b); i += size {
			if i > 0 {
				d.out = append(d.out, ',')
			}
			if key == 4 {
				d.out = appendIPv4(d.out, b[i:i+4])
			} else {
				d.out = appendIPv6(d.out, b[i:i+16])
			}
		}
	case 5: // ech
		d.out = base64.StdEncoding.AppendEncode(d.out, b)
	default:
		d.out = appendEscaped(d.out, b, byteParamQuoted, byteTextDecimal)
	}
	return true
}

// appendALPN writes one protocol of an alpn list. A ',' or '\' is escaped in the list, and that escape again in the
// character-string (RFC 9460 appendix A.1).
func (d *rdataDecoder) appendALPN(id []byte) {
	for _, b := range id {
		switch class := byteClass[b]; {
		case b == ',':
			d.out = append(d.out, `\\\044`...)
		case b == '\\':
			d.out = append(d.out, `\\\092`...)
		case class&byteParamQuoted != 0:
			d.out = append(d.out, '\\', b)
		case class&byteTextDecimal != 0:
			d.out = appendDecimalEscape(d.out, b)
		default:
			d.out = append(d.out, b)
		}
	}
}

// gateway writes the gateway of an IPSECKEY or AMTRELAY RR: none, an address or a name (RFC 4025 §2.5, RFC 8777 §4.2.4).
func (d *rdataDecoder) gateway(kind uint8) bool {
	switch kind {
	case 0:
		d.sep()
		d.out = append(d.out, '.')
		return true
	case 1:
		return d.field('A')
	case 2:
		return d.field('6')
	case 3:
		return d.name()
	}
	return false
}

// ipseckey writes precedence, gateway type, algorithm and gateway.
func (d *rdataDecoder) ipseckey() bool {
	b, ok := d.take(3)
	if !ok {
		return false
	}
	for _, v := range b {
		d.sep()
		d.out = appendUint(d.out, uint64(v))
	}
	return d.gateway(b[1])
}

// amtrelay writes precedence, discovery bit, relay type and relay.
func (d *rdataDecoder) amtrelay() bool {
	b, ok := d.take(2)
	if !ok {
		return false
	}
	d.out = append(appendUint(d.out, uint64(b[0])), ' ', '0'+b[1]>>7, ' ')
	d.out = appendUint(d.out, uint64(b[1]&0x7f))
	return d.gateway(b[1] & 0x7f)
}

// hip writes algorithm, host identity tag, public key and the rendezvous servers (RFC 8005 §5, §6).
func (d *rdataDecoder) hip() bool {
	b, ok := d.take(4)
	if !ok {
		return false
	}
	tag, ok := d.take(int(b[0]))
	if !ok || len(tag) == 0 {
		return false
	}
	key, ok := d.take(int(binary.BigEndian.Uint16(b[2:])))
	if !ok || len(key) == 0 {
		return false
	}
	d.out = appendUint(d.out, uint64(b[1]))
	d.hexLower(tag)
	d.base64(key)
	for n := 0; d.off < d.end; n++ {
		if n == hipServersMax || !d.name() {
			return false
		}
	}
	return true
}

// hipServersMax bounds the rendezvous servers of a HIP RR. They are not to be compressed (RFC 8005 §5), but where they
// are, each takes two octets, and 64 KB of them would be 40 MB of text.
const hipServersMax = 64

// sized writes a count of two octets, then as many octets in hexadecimal.
func (d *rdataDecoder) sized(upper bool) bool {
	n, ok := d.number(2)
	if !ok {
		return false
	}
	b, ok := d.take(int(n))
	if !ok {
		return false
	}
	d.sep()
	d.out = appendUint(d.out, n)
	switch {
	case n == 0:
	case upper:
		d.hexUpper(b)
	default:
		d.hexLower(b)
	}
	return true
}
