// Names and mnemonics: the text of everything in a DNS message that is not RDATA of its own.
//
// In: type, class, rcode and opcode numbers; domain names in wire form, with compression (RFC 1035 §4.1.4);
// addresses. Out: their presentation form, appended to a buffer that the caller owns.
//
// Rules: nothing here allocates once the buffer is large enough; a byte of the message is never trusted;
// what is appended has no control byte and no byte above 0x7e. A function that reports esc appended text with
// a '"' or a '\' in it, which a JSON writer has to escape; all other text can go between quotes as it is.
// Bytes between len and cap of a buffer may be overwritten (short copies are done in words of eight bytes).
package main

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
)

// RR types (IANA, Domain Name System Parameters) that have a layout or a rule of their own.
const (
	rrTypeA          uint16 = 1
	rrTypeNS         uint16 = 2
	rrTypeMD         uint16 = 3
	rrTypeMF         uint16 = 4
	rrTypeCNAME      uint16 = 5
	rrTypeSOA        uint16 = 6
	rrTypeMB         uint16 = 7
	rrTypeMG         uint16 = 8
	rrTypeMR         uint16 = 9
	rrTypePTR        uint16 = 12
	rrTypeHINFO      uint16 = 13
	rrTypeMINFO      uint16 = 14
	rrTypeMX         uint16 = 15
	rrTypeTXT        uint16 = 16
	rrTypeRP         uint16 = 17
	rrTypeAFSDB      uint16 = 18
	rrTypeX25        uint16 = 19
	rrTypeISDN       uint16 = 20
	rrTypeRT         uint16 = 21
	rrTypeNSAPPTR    uint16 = 23
	rrTypeSIG        uint16 = 24
	rrTypeKEY        uint16 = 25
	rrTypePX         uint16 = 26
	rrTypeGPOS       uint16 = 27
	rrTypeAAAA       uint16 = 28
	rrTypeLOC        uint16 = 29
	rrTypeNXT        uint16 = 30
	rrTypeEID        uint16 = 31
	rrTypeNIMLOC     uint16 = 32
	rrTypeSRV        uint16 = 33
	rrTypeNAPTR      uint16 = 35
	rrTypeKX         uint16 = 36
	rrTypeCERT       uint16 = 37
	rrTypeDNAME      uint16 = 39
	rrTypeOPT        uint16 = 41
	rrTypeAPL        uint16 = 42
	rrTypeDS         uint16 = 43
	rrTypeSSHFP      uint16 = 44
	rrTypeIPSECKEY   uint16 = 45
	rrTypeRRSIG      uint16 = 46
	rrTypeNSEC       uint16 = 47
	rrTypeDNSKEY     uint16 = 48
	rrTypeDHCID      uint16 = 49
	rrTypeNSEC3      uint16 = 50
	rrTypeNSEC3PARAM uint16 = 51
	rrTypeTLSA       uint16 = 52
	rrTypeSMIMEA     uint16 = 53
	rrTypeHIP        uint16 = 55
	rrTypeNINFO      uint16 = 56
	rrTypeRKEY       uint16 = 57
	rrTypeTALINK     uint16 = 58
	rrTypeCDS        uint16 = 59
	rrTypeCDNSKEY    uint16 = 60
	rrTypeOPENPGPKEY uint16 = 61
	rrTypeCSYNC      uint16 = 62
	rrTypeZONEMD     uint16 = 63
	rrTypeSVCB       uint16 = 64
	rrTypeHTTPS      uint16 = 65
	rrTypeSPF        uint16 = 99
	rrTypeUINFO      uint16 = 100
	rrTypeUID        uint16 = 101
	rrTypeGID        uint16 = 102
	rrTypeNID        uint16 = 104
	rrTypeL32        uint16 = 105
	rrTypeL64        uint16 = 106
	rrTypeLP         uint16 = 107
	rrTypeEUI48      uint16 = 108
	rrTypeEUI64      uint16 = 109
	rrTypeTKEY       uint16 = 249
	rrTypeTSIG       uint16 = 250
	rrTypeURI        uint16 = 256
	rrTypeCAA        uint16 = 257
	rrTypeAVC        uint16 = 258
	rrTypeAMTRELAY   uint16 = 260
	rrTypeRESINFO    uint16 = 261
	rrTypeTA         uint16 = 32768
	rrTypeDLV        uint16 = 32769
)

// typeNames holds the mnemonic of each type in the dense part of the registry, "" where there is none. Types 0 and 65535 are
// reserved and have no mnemonic; TA and DLV lie far out and are in appendType.
var typeNames = [...]string{
	1: "A", 2: "NS", 3: "MD", 4: "MF", 5: "CNAME", 6: "SOA", 7: "MB", 8: "MG", 9: "MR", 10: "NULL", 11: "WKS", 12: "PTR",
	13: "HINFO", 14: "MINFO", 15: "MX", 16: "TXT", 17: "RP", 18: "AFSDB", 19: "X25", 20: "ISDN", 21: "RT", 22: "NSAP",
	23: "NSAP-PTR", 24: "SIG", 25: "KEY", 26: "PX", 27: "GPOS", 28: "AAAA", 29: "LOC", 30: "NXT", 31: "EID", 32: "NIMLOC",
	33: "SRV", 34: "ATMA", 35: "NAPTR", 36: "KX", 37: "CERT", 38: "A6", 39: "DNAME", 40: "SINK", 41: "OPT", 42: "APL", 43: "DS",
	44: "SSHFP", 45: "IPSECKEY", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 49: "DHCID", 50: "NSEC3", 51: "NSEC3PARAM", 52: "TLSA",
	53: "SMIMEA", 55: "HIP", 56: "NINFO", 57: "RKEY", 58: "TALINK", 59: "CDS", 60: "CDNSKEY", 61: "OPENPGPKEY", 62: "CSYNC",
	63: "ZONEMD", 64: "SVCB", 65: "HTTPS", 66: "DSYNC", 67: "HHIT", 68: "BRID", 99: "SPF", 100: "UINFO", 101: "UID", 102: "GID",
	103: "UNSPEC", 104: "NID", 105: "L32", 106: "L64", 107: "LP", 108: "EUI48", 109: "EUI64", 128: "NXNAME", 249: "TKEY",
	250: "TSIG", 251: "IXFR", 252: "AXFR", 253: "MAILB", 254: "MAILA", 255: "ANY", 256: "URI", 257: "CAA", 258: "AVC",
	259: "DOA", 260: "AMTRELAY", 261: "RESINFO", 262: "WALLET", 263: "CLA", 264: "IPN",
}

// appendType appends the mnemonic of RR type t, or TYPEn (RFC 3597 §5).
func appendType(dst []byte, t uint16) []byte {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return append(dst, typeNames[t]...)
	}
	switch t {
	case rrTypeTA:
		return append(dst, "TA"...)
	case rrTypeDLV:
		return append(dst, "DLV"...)
	}
	return appendUint(append(dst, "TYPE"...), uint64(t))
}

// appendClass appends the mnemonic of class c, or CLASSn (RFC 3597 §5).
func appendClass(dst []byte, c uint16) []byte {
	switch c {
	case 1:
		return append(dst, "IN"...)
	case 3:
		return append(dst, "CH"...)
	case 4:
		return append(dst, "HS"...)
	case 254:
		return append(dst, "NONE"...)
	case 255:
		return append(dst, "ANY"...)
	}
	return appendUint(append(dst, "CLASS"...), uint64(c))
}

// rcodeNames holds the mnemonics of the response codes (RFC 6895 §2.3), "" where there is none. 16 is BADVERS: a
// message's code of that value can only come from the extended bits of an OPT RR (BADSIG is written in a TSIG RR).
var rcodeNames = [...]string{
	0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 6: "YXDOMAIN", 7: "YXRRSET",
	8: "NXRRSET", 9: "NOTAUTH", 10: "NOTZONE", 11: "DSOTYPENI", 16: "BADVERS", 17: "BADKEY", 18: "BADTIME", 19: "BADMODE",
	20: "BADNAME", 21: "BADALG", 22: "BADTRUNC", 23: "BADCOOKIE",
}

// appendRcode appends the mnemonic of a response code with its extended bits, or RCODEn.
func appendRcode(dst []byte, rcode int) []byte {
	if uint(rcode) < uint(len(rcodeNames)) && rcodeNames[rcode] != "" {
		return append(dst, rcodeNames[rcode]...)
	}
	return appendUint(append(dst, "RCODE"...), uint64(uint16(rcode)))
}

// opcodeNames holds the mnemonics of the opcodes (RFC 6895 §2.2, RFC 8490 §10.1); 3 was never assigned.
var opcodeNames = [...]string{0: "QUERY", 1: "IQUERY", 2: "STATUS", 4: "NOTIFY", 5: "UPDATE", 6: "DSO"}

// appendOpcode appends the mnemonic of an opcode, or OPCODEn.
func appendOpcode(dst []byte, op int) []byte {
	if uint(op) < uint(len(opcodeNames)) && opcodeNames[op] != "" {
		return append(dst, opcodeNames[op]...)
	}
	return appendUint(append(dst, "OPCODE"...), uint64(uint8(op)))
}

// A name has at most 255 octets on the wire, the root's zero included (RFC 1035 §3.1), so its labels with their length
// octets have 254. Every label takes two octets at least, so that a name without detours needs no more than 126 pointers;
// more are a loop, or malice.
const (
	nameMaxLabelOctets = 254
	nameMaxHops        = 126

	// nameRoom is what appendName wants free: the longest plain name with a dot behind each label, and the rest of a word.
	nameRoom = nameMaxLabelOctets + 8
)

var (
	errNamePastEnd   = errors.New("name past end of message")
	errNameTooLong   = errors.New("name longer than 255 octets")
	errNameLabelType = errors.New("unknown label type")
	errNameLoop      = errors.New("too many compression pointers")
)

// Classes of bytes in a label and in a character-string: plain ones are written as they are, quoted ones with a '\' before
// them, the others as \DDD (RFC 1035 §5.1, RFC 4343 §2.1).
const (
	byteLabelQuoted  = 1 << iota // '"' '\' '.'
	byteLabelDecimal             // outside '!'..'~'
	byteTextQuoted               // '"' '\'
	byteTextDecimal              // outside ' '..'~'
	byteParamQuoted              // '"' '\' ';' ' ', in the value of a service parameter
	byteAlnum                    // letters and digits
	byteBare                     // neither blank, quote nor special in a zone file

	byteLabelEscaped = byteLabelQuoted | byteLabelDecimal
	byteTextEscaped  = byteTextQuoted | byteTextDecimal
	byteParamEscaped = byteParamQuoted | byteTextDecimal
)

var byteClass = func() (t [256]uint8) {
	for i := range t {
		b := byte(i)
		if b < '!' || b > '~' {
			t[i] |= byteLabelDecimal
		}
		if b < ' ' || b > '~' {
			t[i] |= byteTextDecimal
		}
		switch b {
		case '"', '\\':
			t[i] |= byteLabelQuoted | byteTextQuoted | byteParamQuoted
		case '.':
			t[i] |= byteLabelQuoted
		case ';', ' ':
			t[i] |= byteParamQuoted
		}
		if b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' {
			t[i] |= byteAlnum | byteBare
		}
		switch b {
		case '+', '-', '.', '_', '/', ':':
			t[i] |= byteBare
		}
	}
	return t
}()

// appendDecimalEscape appends b as \DDD.
func appendDecimalEscape(dst []byte, b byte) []byte {
	return append(dst, '\\', '0'+b/100, '0'+b/10%10, '0'+b%10)
}

// wordMask has the high bit of each byte in a 64-bit word, wordOnes the low one.
const (
	wordMask = 0x8080808080808080
	wordOnes = 0x0101010101010101
)

// plainLabelWord reports whether the first n bytes of x, from the lowest on, are plain in a label; n is 1 to 8. A byte above 0x7f,
// below '!', equal to 0x7f or equal to one of the three quoted ones sets the high bit of its lane in one term; a borrow or
// carry goes upwards only, out of a lane that is flagged already.
func plainLabelWord(x uint64, n int) bool {
	t := x | (x - '!'*wordOnes) | (x + wordOnes) |
		((x ^ '"'*wordOnes) - wordOnes) | ((x ^ '\\'*wordOnes) - wordOnes) | ((x ^ '.'*wordOnes) - wordOnes)
	return t&(wordMask>>(uint(64-8*n)&63)) == 0
}

// appendName appends the presentation form of the name at msg[off:], case as sent, without trailing dot, the root as ".".
// next is the offset after the name in place, i.e. after its first pointer. On an error dst keeps its length.
//
// Labels are copied and checked eight bytes at a time, most of them in one go. The plain version is appendNameEscaped, to which
// names with bytes to escape go; for a host name it takes about 1.6 times as long (BenchmarkAppendName).
func appendName(dst, msg []byte, off int) (out []byte, next int, esc bool, err error) {
	if cap(dst)-len(dst) < nameRoom {
		return appendName(slices.Grow(dst, nameRoom), msg, off)
	}
	start, w, hops := off, 0, 0
	buf := dst[len(dst) : len(dst)+nameRoom]
	for {
		if uint(off) >= uint(len(msg)) {
			return dst, 0, false, errNamePastEnd
		}
		c := int(msg[off])
		off++
		if c > 63 {
			if c < 0xc0 {
				return dst, 0, false, errNameLabelType
			}
			if off >= len(msg) {
				return dst, 0, false, errNamePastEnd
			}
			if hops == 0 {
				next = off + 1
			}
			if hops++; hops > nameMaxHops {
				return dst, 0, false, errNameLoop
			}
			off = c&0x3f<<8 | int(msg[off])
			continue
		}
		if c == 0 {
			break
		}
		if w+c >= nameMaxLabelOctets {
			return dst, 0, false, errNameTooLong
		}
		if c <= 8 && off+8 <= len(msg) {
			x := binary.LittleEndian.Uint64(msg[off:])
			if !plainLabelWord(x, c) {
				return appendNameEscaped(dst, msg, start)
			}
			binary.LittleEndian.PutUint64(buf[w:], x)
		} else {
			if off+c > len(msg) {
				return dst, 0, false, errNamePastEnd
			}
			if !copyPlainLabel(buf[w:], msg[off:off+c]) {
				return appendNameEscaped(dst, msg, start)
			}
		}
		off += c
		w += c
		buf[w] = '.'
		w++
	}
	if hops == 0 {
		next = off
	}
	if w == 0 {
		buf[0] = '.'
		w = 2
	}
	return dst[:len(dst)+w-1], next, false, nil
}

// appendStoredName is appendName for a name without compression that was accepted before, as the connection table holds it.
// The text is copied in one go, the length octets become dots, and then whole words are checked: three hard-to-predict
// branches where the walk by labels has two a label.
func appendStoredName(dst, name []byte) (out []byte, esc bool) {
	n := len(name) - 2 // without the first length octet and the root's
	if n <= 0 {
		return append(dst, '.'), false
	}
	at := len(dst)
	dst = append(slices.Grow(dst, nameRoom), name[1:1+n]...)
	buf := dst[at : at+n+8] // words are read over the end: the room is there
	dots := 0
	for i := int(name[0]); i < n; dots++ {
		c := int(buf[i])
		buf[i] = '.'
		i += c + 1
	}
	binary.LittleEndian.PutUint64(buf[n:], 'a'*wordOnes)
	odd := uint64(0)
	for i := 0; i < n; i += 8 {
		x := binary.LittleEndian.Uint64(buf[i:])
		odd |= x | (x - '!'*wordOnes) | (x + wordOnes) | ((x ^ '"'*wordOnes) - wordOnes) | ((x ^ '\\'*wordOnes) - wordOnes)
		d := x ^ '.'*wordOnes // exact: a lane's high bit is set but for a dot, without carries
		dots -= bits.OnesCount64(^((d&^wordMask + ^uint64(wordMask)) | d) & wordMask)
	}
	if odd&wordMask != 0 || dots != 0 {
		dst, _, esc, _ = appendNameEscaped(dst[:at], name, 0)
		return dst, esc
	}
	return dst, false
}

// copyPlainLabel copies label to buf, which has room for it, if all its bytes are plain.
func copyPlainLabel(buf, label []byte) bool {
	for len(label) >= 8 {
		x := binary.LittleEndian.Uint64(label)
		if !plainLabelWord(x, 8) {
			return false
		}
		binary.LittleEndian.PutUint64(buf, x)
		buf, label = buf[8:], label[8:]
	}
	for i, b := range label {
		if byteClass[b]&byteLabelEscaped != 0 {
			return false
		}
		buf[i] = b
	}
	return true
}

// appendNameEscaped is appendName, byte by byte, for names with bytes to escape.
func appendNameEscaped(dst, msg []byte, off int) (out []byte, next int, esc bool, err error) {
	out = dst
	octets, hops := 0, 0
	for {
		if uint(off) >= uint(len(msg)) {
			return dst, 0, false, errNamePastEnd
		}
		c := int(msg[off])
		off++
		switch {
		case c == 0:
			if hops == 0 {
				next = off
			}
			if octets == 0 {
				out = append(out, '.')
			}
			return out, next, esc, nil
		case c >= 0xc0:
			if off >= len(msg) {
				return dst, 0, false, errNamePastEnd
			}
			if hops == 0 {
				next = off + 1
			}
			if hops++; hops > nameMaxHops {
				return dst, 0, false, errNameLoop
			}
			off = c&0x3f<<8 | int(msg[off])
		case c > 63:
			return dst, 0, false, errNameLabelType
		default:
			if off+c > len(msg) {
				return dst, 0, false, errNamePastEnd
			}
			if octets > 0 {
				out = append(out, '.')
			}
			if octets += c + 1; octets > nameMaxLabelOctets {
				return dst, 0, false, errNameTooLong
			}
			for _, b := range msg[off : off+c] {
				switch class := byteClass[b]; {
				case class&byteLabelQuoted != 0:
					out, esc = append(out, '\\', b), true
				case class&byteLabelDecimal != 0:
					out, esc = appendDecimalEscape(out, b), true
				default:
					out = append(out, b)
				}
			}
			off += c
		}
	}
}

// checkName reports whether the name at msg[off:] is one that appendName can write, and the offset after it.
func checkName(msg []byte, off int) (next int, ok bool) {
	octets, hops := 0, 0
	for uint(off) < uint(len(msg)) {
		c := int(msg[off])
		off++
		if c == 0 {
			if hops == 0 {
				next = off
			}
			return next, true
		}
		if c <= 63 {
			off += c
			if octets += c + 1; octets > nameMaxLabelOctets {
				return 0, false
			}
			continue
		}
		if c < 0xc0 || off >= len(msg) {
			return 0, false
		}
		if hops == 0 {
			next = off + 1
		}
		if hops++; hops > nameMaxHops {
			return 0, false
		}
		off = c&0x3f<<8 | int(msg[off])
	}
	return 0, false
}

// digitPairs holds "00" to "99", octetTexts each octet in decimal with a dot behind it in the low four bytes (the first
// digit lowest) and the length of both in the fifth, hexPairs each octet as two lower-case hexadecimal digits.
var (
	digitPairs = func() (t [200]byte) {
		for i := range 100 {
			t[2*i], t[2*i+1] = byte('0'+i/10), byte('0'+i%10)
		}
		return t
	}()
	octetTexts = func() (t [256]uint64) {
		for i := range t {
			var b [8]byte
			s := append(appendUint(b[:0], uint64(i)), '.')
			b[4] = byte(len(s))
			t[i] = binary.LittleEndian.Uint64(b[:])
		}
		return t
	}()
	hexPairs = func() (t [256]uint16) {
		const digits = "0123456789abcdef"
		for i := range t {
			t[i] = uint16(digits[i>>4]) | uint16(digits[i&15])<<8
		}
		return t
	}()
)

// appendUint appends v in decimal.
func appendUint(dst []byte, v uint64) []byte {
	switch {
	case v < 10:
		return append(dst, byte('0'+v))
	case v < 100:
		return append(dst, digitPairs[2*v], digitPairs[2*v+1])
	case v < 1000:
		q := v / 100
		r := 2 * (v - 100*q)
		return append(dst, byte('0'+q), digitPairs[r], digitPairs[r+1])
	case v < 10000:
		q := v / 100
		r := 2 * (v - 100*q)
		return append(dst, digitPairs[2*q], digitPairs[2*q+1], digitPairs[r], digitPairs[r+1])
	case v < 100000: // most IDs and ports
		q := v / 10000
		v -= 10000 * q
		h := v / 100
		r := 2 * (v - 100*h)
		return append(dst, byte('0'+q), digitPairs[2*h], digitPairs[2*h+1], digitPairs[r], digitPairs[r+1])
	}
	var b [20]byte // 2^64-1 has 20 digits
	i := len(b)
	for v >= 100 {
		q := v / 100
		r := 2 * (v - 100*q)
		i -= 2
		b[i], b[i+1] = digitPairs[r], digitPairs[r+1]
		v = q
	}
	i--
	b[i] = digitPairs[2*v+1]
	if v >= 10 {
		i--
		b[i] = digitPairs[2*v]
	}
	return append(dst, b[i:]...)
}

// appendIPv4 appends the dotted text of the address a, which has four bytes.
func appendIPv4(dst []byte, a []byte) []byte {
	_ = a[3]
	if cap(dst)-len(dst) < 16 {
		dst = slices.Grow(dst, 16)
	}
	w := len(dst)
	buf := dst[:w+16]
	t := octetTexts[a[0]]
	binary.LittleEndian.PutUint32(buf[w:], uint32(t))
	w += int(t >> 32)
	t = octetTexts[a[1]]
	binary.LittleEndian.PutUint32(buf[w:], uint32(t))
	w += int(t >> 32)
	t = octetTexts[a[2]]
	binary.LittleEndian.PutUint32(buf[w:], uint32(t))
	w += int(t >> 32)
	t = octetTexts[a[3]]
	binary.LittleEndian.PutUint32(buf[w:], uint32(t))
	return buf[:w+int(t>>32)-1]
}

// zeroRuns gives, for the set of zero groups of an IPv6 address (bit i for group i), the first and the length of the run that
// is written as "::": the longest of two or more, the first of several (RFC 5952 §4.2). No run: length 0.
var zeroRuns = func() (t [256]struct{ first, n uint8 }) {
	for set := range t {
		for i := 0; i < 8; i++ {
			n := bits.TrailingZeros8(^uint8(set >> i))
			if n > 8-i {
				n = 8 - i
			}
			if n >= 2 && uint8(n) > t[set].n {
				t[set].first, t[set].n = uint8(i), uint8(n)
			}
		}
	}
	return t
}()

// appendIPv6 appends the RFC 5952 text of the address a, which has 16 bytes; an IPv4-mapped one in mixed notation (§5).
func appendIPv6(dst []byte, a []byte) []byte {
	_ = a[15]
	if cap(dst)-len(dst) < 48 { // 39, and up to eight bytes written behind the last group
		dst = slices.Grow(dst, 48)
	}
	hi, lo := binary.BigEndian.Uint64(a), binary.BigEndian.Uint64(a[8:])
	if hi == 0 && lo>>32 == 0xffff {
		return appendIPv4(append(dst, "::ffff:"...), a[12:16])
	}
	zero := 0
	for i := range 4 {
		if uint16(hi>>(48-16*i)) == 0 {
			zero |= 1 << i
		}
		if uint16(lo>>(48-16*i)) == 0 {
			zero |= 16 << i
		}
	}
	run := zeroRuns[zero]
	w := len(dst)
	buf := dst[:w+48]
	for i := 0; i < 8; {
		if run.n != 0 && i == int(run.first) {
			if i == 0 {
				buf[w] = ':'
				w++
			}
			buf[w] = ':'
			w++
			i += int(run.n)
			continue
		}
		// The four digits and a colon as one word, its first digit lowest, shifted down by the leading zeros.
		v := uint16(a[2*i])<<8 | uint16(a[2*i+1])
		zeros := bits.LeadingZeros16(v|1) >> 2
		t := uint64(hexPairs[v>>8]) | uint64(hexPairs[v&0xff])<<16 | ':'<<32
		binary.LittleEndian.PutUint64(buf[w:], t>>(8*uint(zeros)&31))
		w += 5 - zeros
		i++
	}
	if run.n == 0 || int(run.first+run.n) != 8 {
		w--
	}
	return buf[:w]
}
