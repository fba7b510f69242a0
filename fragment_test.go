package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
)

var fragTestLimits = fragLimits{trains: 16384, bytes: 32 << 20, ageNs: 30e9}

// frag4 makes an IPv4 fragment from 10.0.0.src; options are of the first only.
func frag4(src byte, id uint16, off int, more bool, payload []byte, options ...byte) []byte {
	p := make([]byte, 20, 20+len(options)+len(payload))
	p = append(append(p, options...), payload...)
	p[0] = 0x40 | byte(5+len(options)/4)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	binary.BigEndian.PutUint16(p[4:], id)
	binary.BigEndian.PutUint16(p[6:], uint16(off/8))
	if more {
		p[6] |= 0x20
	}
	p[8], p[9] = 64, 17
	copy(p[12:], []byte{10, 0, 0, src, 10, 9, 9, 9})
	return p
}

// whole4 is the datagram that the fragments of frag4 are of.
func whole4(src byte, id uint16, payload []byte, options ...byte) []byte {
	return frag4(src, id, 0, false, payload, options...)
}

// frag6 makes an IPv6 fragment from 2001:db8::src; ext are the extension
// headers before the Fragment header, of which first is the first's type.
func frag6(src byte, id uint32, off int, more bool, payload []byte, first byte, ext ...byte) []byte {
	p := whole6(src, nil, first, ext...)
	if len(ext) == 0 {
		p[6] = 44
	} else {
		p[40+fragLastHeader(ext)] = 44
	}
	p = append(p, 17, 0, 0, 0)
	binary.BigEndian.PutUint16(p[len(p)-2:], uint16(off))
	if more {
		p[len(p)-1] |= 1
	}
	p = binary.BigEndian.AppendUint32(p, id)
	p = append(p, payload...)
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
	return p
}

// whole6 is the datagram that the fragments of frag6 are of.
func whole6(src byte, payload []byte, first byte, ext ...byte) []byte {
	p := make([]byte, 40)
	p[0], p[6], p[7] = 0x60, 17, 64
	copy(p[8:], []byte{0x20, 0x01, 0x0d, 0xb8})
	p[23] = src
	copy(p[24:], []byte{0x20, 0x01, 0x0d, 0xb8, 15: 9})
	p = append(p, ext...)
	if len(ext) > 0 {
		p[6] = first
		p[40+fragLastHeader(ext)] = 17
	}
	p = append(p, payload...)
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
	return p
}

// fragLastHeader returns the offset of the last of the extension headers.
func fragLastHeader(ext []byte) int {
	off := 0
	for off+(int(ext[off+1])+1)*8 < len(ext) {
		off += (int(ext[off+1]) + 1) * 8
	}
	return off
}

// pattern returns n bytes that differ from place to place and seed to seed.
func fragPattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7+i>>8*13) ^ seed
	}
	return b
}

func fragCheckAccount(t testing.TB, d *defragmenter) {
	t.Helper()
	n := *d.counters()
	sum := n.used + n.duplicates + n.ignored + n.malformed + n.cut +
		n.overlapFragments + n.expiredFragments + n.incompleteFragments +
		n.trainBoundFragments + n.byteBoundFragments + n.pieceBoundFragments + n.heldFragments
	if n.fragments != sum {
		t.Fatalf("account: %d fragments, %d accounted for: %+v", n.fragments, sum, n)
	}
	if n.heldBytes > uint64(d.lim.bytes) {
		t.Fatalf("held %d bytes, bound %d", n.heldBytes, d.lim.bytes)
	}
	if n.heldTrains > uint64(d.lim.trains) {
		t.Fatalf("held %d trains, bound %d", n.heldTrains, d.lim.trains)
	}
}

func TestFragments(t *testing.T) {
	type step struct {
		pkt  []byte
		at   int64 // s
		vlan uint16
		cut  bool
		off  int // of the Fragment header, if not 40
		want []byte
	}
	const second = int64(1e9)
	p := fragPattern(1000, 0)
	q := fragPattern(1000, 0xff)
	router := []byte{148, 4, 0, 0} // router alert
	hbh := []byte{60, 0, 5, 2, 0, 0, 1, 0, 17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	huge := fragPattern(65535, 3)

	tests := map[string]struct {
		lim   fragLimits
		steps []step
		want  fragCounters // heldBytes is not compared
	}{
		"v4 in order": {
			steps: []step{
				{pkt: frag4(1, 7, 0, true, p[:496])},
				{pkt: frag4(1, 7, 496, true, p[496:504])},
				{pkt: frag4(1, 7, 504, false, p[504:]), want: whole4(1, 7, p)},
			},
			want: fragCounters{fragments: 3, reassembled: 1, used: 3},
		},
		"v4 last first, options and DF kept": {
			steps: []step{
				{pkt: frag4(1, 7, 800, false, p[800:])},
				{pkt: func() []byte {
					f := frag4(1, 7, 0, true, p[:800], router...)
					f[6] |= 0x40
					return f
				}(), want: func() []byte {
					w := whole4(1, 7, p, router...)
					w[6] |= 0x40
					return w
				}()},
			},
			want: fragCounters{fragments: 2, reassembled: 1, used: 2},
		},
		"v4 keys: source, identification, protocol, vlan": {
			steps: []step{
				{pkt: frag4(1, 7, 0, true, p[:800])},
				{pkt: frag4(2, 7, 800, false, p[800:])},
				{pkt: frag4(1, 8, 800, false, p[800:])},
				{pkt: func() []byte {
					f := frag4(1, 7, 800, false, p[800:])
					f[9] = 6
					return f
				}()},
				{pkt: frag4(1, 7, 800, false, p[800:]), vlan: 5},
				{pkt: frag4(1, 7, 800, false, p[800:]), want: whole4(1, 7, p)},
			},
			want: fragCounters{fragments: 6, reassembled: 1, used: 2, heldTrains: 4, heldFragments: 4},
		},
		"v4 copies, before and after delivery": {
			steps: []step{
				{pkt: frag4(1, 7, 0, true, p[:800])},
				{pkt: frag4(1, 7, 0, true, p[:800])},
				{pkt: frag4(1, 7, 800, false, p[800:]), want: whole4(1, 7, p)},
				{pkt: frag4(1, 7, 800, false, p[800:])},
				{pkt: frag4(1, 7, 0, true, p[:800])},
			},
			want: fragCounters{fragments: 5, reassembled: 1, used: 2, duplicates: 3},
		},
		"v4 identification used again at once": {
			steps: []step{
				{pkt: frag4(1, 7, 0, true, p[:800])},
				{pkt: frag4(1, 7, 800, false, p[800:]), want: whole4(1, 7, p)},
				{pkt: frag4(1, 7, 0, true, q[:800])},
				{pkt: frag4(1, 7, 800, false, q[800:]), want: whole4(1, 7, q)},
			},
			want: fragCounters{fragments: 4, reassembled: 2, used: 4},
		},
		"v4 the same again a second later": {
			steps: []step{
				{pkt: frag4(1, 7, 0, true, p[:800])},
				{pkt: frag4(1, 7, 800, false, p[800:]), want: whole4(1, 7, p)},
				{pkt: frag4(1, 7, 0, true, p[:800]), at: 1},
				{pkt: frag4(1, 7, 800, false, p[800:]), at: 1, want: whole4(1, 7, p)},
			},
			want: fragCounters{fragments: 4, reassembled: 2, used: 4},
		},
		"v4 overlaps with the same bytes": {
			steps: []step{
				{pkt: frag4(1, 7, 64, true, p[64:128])},
				{pkt: frag4(1, 7, 256, true, p[256:320])},
				{pkt: frag4(1, 7, 80, true, p[80:96])}, // inside
				{pkt: frag4(1, 7, 0, true, p[:800])},   // around both
				{pkt: frag4(1, 7, 504, false, p[504:]), want: whole4(1, 7, p)},
			},
			want: fragCounters{fragments: 5, reassembled: 1, used: 4, duplicates: 1, sameOverlaps: 2},
		},
		"v4 overlap with other bytes": {
			steps: []step{
				{pkt: frag4(1, 7, 0, true, p[:800])},
				{pkt: frag4(1, 7, 792, false, q[792:])},
				{pkt: frag4(1, 7, 800, false, p[800:])},
				{pkt: frag4(1, 7, 0, true, p[:800]), at: 30},
				{pkt: frag4(1, 7, 0, true, p[:800]), at: 31},
				{pkt: frag4(1, 7, 800, false, p[800:]), at: 31, want: whole4(1, 7, p)},
			},
			want: fragCounters{fragments: 6, reassembled: 1, used: 2, overlapTrains: 1, overlapFragments: 2, ignored: 2},
		},
		"v4 overlap that differs in the second cell only": {
			steps: []step{
				{pkt: frag4(1, 7, 0, true, p[:800])},
				{pkt: frag4(1, 7, 0, true, append(append([]byte{}, p[:799]...), 99))},
			},
			want: fragCounters{fragments: 2, overlapTrains: 1, overlapFragments: 2},
		},
		"v4 two ends": {
			steps: []step{
				{pkt: frag4(1, 7, 800, false, p[800:])},
				{pkt: frag4(1, 7, 800, false, p[800:999])},
			},
			want: fragCounters{fragments: 2, overlapTrains: 1, overlapFragments: 2},
		},
		"v4 end before what is there": {
			steps: []step{
				{pkt: frag4(1, 7, 800, true, p[800:904])},
				{pkt: frag4(1, 7, 504, false, p[504:600])},
			},
			want: fragCounters{fragments: 2, overlapTrains: 1, overlapFragments: 2},
		},
		"v4 beyond the end": {
			steps: []step{
				{pkt: frag4(1, 7, 504, false, p[504:600])},
				{pkt: frag4(1, 7, 600, true, p[600:608])},
			},
			want: fragCounters{fragments: 2, overlapTrains: 1, overlapFragments: 2},
		},
		"v4 end without more where more was to come": {
			steps: []step{
				{pkt: frag4(1, 7, 0, true, p[:800])},
				{pkt: frag4(1, 7, 792, false, p[792:800])},
			},
			want: fragCounters{fragments: 2, overlapTrains: 1, overlapFragments: 2},
		},
		"v4 more to come at the end": {
			steps: []step{
				{pkt: frag4(1, 7, 792, false, p[792:800])},
				{pkt: frag4(1, 7, 0, true, p[:800])},
			},
			want: fragCounters{fragments: 2, overlapTrains: 1, overlapFragments: 2},
		},
		"v4 copy of a delivered end, but with more to come": {
			steps: []step{
				{pkt: frag4(1, 7, 800, false, p[800:])},
				{pkt: frag4(1, 7, 0, true, p[:800]), want: whole4(1, 7, p)},
				{pkt: frag4(1, 7, 800, true, p[800:])},
			},
			want: fragCounters{fragments: 3, reassembled: 1, used: 2, heldTrains: 1, heldFragments: 1},
		},
		"v4 malformed": {
			steps: []step{
				{pkt: nil},
				{pkt: frag4(1, 7, 0, true, nil)},
				{pkt: frag4(1, 7, 0, true, p[:12])},
				{pkt: frag4(1, 7, 65528, false, p[:8])},
				{pkt: []byte{0x44, 18: 0, 19: 0}},
				{pkt: frag4(1, 7, 0, true, p[:8])[:19]},
				{pkt: append([]byte{0x4f}, frag4(1, 7, 8, true, p[:8])[1:]...)},
			},
			want: fragCounters{fragments: 7, malformed: 7},
		},
		"v4 65535 bytes, and one more": {
			steps: []step{
				{pkt: frag4(1, 7, 0, true, huge[:65512])},
				{pkt: frag4(1, 7, 65512, false, huge[65512:65515]), want: whole4(1, 7, huge[:65515])},
				{pkt: frag4(1, 8, 0, true, huge[:65512])},
				{pkt: frag4(1, 8, 65512, false, huge[65512:65516])},
			},
			want: fragCounters{fragments: 4, reassembled: 1, used: 2, malformed: 1, heldTrains: 1, heldFragments: 1},
		},
		"v4 too long with the first fragment's options": {
			steps: []step{
				{pkt: frag4(1, 7, 65504, false, huge[65504:65515])},
				{pkt: frag4(1, 7, 0, true, huge[:65504], router...)},
				{pkt: frag4(1, 7, 0, true, huge[:65504])},
			},
			want: fragCounters{fragments: 3, malformed: 2, malformedTrains: 1, ignored: 1},
		},
		"v4 cut": {
			steps: []step{
				{pkt: frag4(1, 7, 0, true, p[:800])[:96], cut: true},
				{pkt: frag4(1, 7, 800, false, p[800:])},
			},
			want: fragCounters{fragments: 2, cut: 1, heldTrains: 1, heldFragments: 1},
		},
		"age, forwards and back": {
			steps: []step{
				{pkt: frag4(1, 7, 0, true, p[:800]), at: 100},
				{pkt: frag4(1, 7, 800, false, p[800:]), at: 131},
				{pkt: frag4(1, 7, 0, true, p[:800]), at: 101, want: whole4(1, 7, p)},
				{pkt: frag4(1, 8, 0, true, p[:800]), at: 100},
				{pkt: frag4(1, 8, 800, false, p[800:]), at: 69},
				{pkt: frag4(1, 8, 0, true, p[:800]), at: math.MaxInt64 / second},
				{pkt: frag4(1, 8, 0, true, p[:800]), at: math.MinInt64 / second},
			},
			want: fragCounters{fragments: 7, reassembled: 1, used: 2, expiredTrains: 4, expiredFragments: 4, heldTrains: 1, heldFragments: 1},
		},
		"an old train behind a young one": {
			steps: []step{
				{pkt: frag4(1, 7, 0, true, p[:800]), at: 20},
				{pkt: frag4(1, 8, 0, true, p[:800]), at: 0},
				{pkt: frag4(1, 8, 800, false, p[800:]), at: 31},
			},
			want: fragCounters{fragments: 3, expiredTrains: 1, expiredFragments: 1, heldTrains: 2, heldFragments: 2},
		},
		"bound of trains": {
			lim: fragLimits{trains: 2, bytes: 1 << 20, ageNs: 30e9},
			steps: []step{
				{pkt: frag4(1, 1, 0, true, p[:800])},
				{pkt: frag4(1, 2, 0, true, p[:800])},
				{pkt: frag4(1, 3, 0, true, p[:800])},
				{pkt: frag4(1, 3, 800, false, p[800:]), want: whole4(1, 3, p)},
				{pkt: frag4(1, 2, 800, false, p[800:]), want: whole4(1, 2, p)},
				{pkt: frag4(1, 4, 0, true, p[:800])},
				{pkt: frag4(1, 5, 0, true, p[:800])},
			},
			want: fragCounters{fragments: 7, reassembled: 2, used: 4, trainBoundTrains: 1, trainBoundFragments: 1, heldTrains: 2, heldFragments: 2},
		},
		"bound of bytes": {
			lim: fragLimits{trains: 9, bytes: 7 * 512, ageNs: 30e9},
			steps: []step{
				{pkt: frag4(1, 1, 0, true, p[:800])},
				{pkt: frag4(1, 2, 0, true, p[:800])},
				{pkt: frag4(1, 3, 0, true, p[:800])},                           // 1 goes
				{pkt: frag4(1, 2, 800, false, p[800:]), want: whole4(1, 2, p)}, // there is one cell left
				{pkt: frag4(1, 3, 800, false, p[800:]), want: whole4(1, 3, p)}, // the mark of 2 leaves room
				{pkt: frag4(1, 4, 0, true, huge[:2400])},                       // both marks go
				{pkt: frag4(1, 4, 2400, true, huge[2400:3200])},                // itself the oldest
				{pkt: frag4(1, 5, 0, true, huge[:4000])},                       // never fits
			},
			want: fragCounters{fragments: 8, reassembled: 2, used: 4, byteBoundTrains: 2, byteBoundFragments: 4},
		},
		"v6 in order": {
			steps: []step{
				{pkt: frag6(1, 7, 0, true, p[:800], 0)},
				{pkt: frag6(1, 7, 800, false, p[800:], 0), want: whole6(1, p, 0)},
			},
			want: fragCounters{fragments: 2, reassembled: 1, used: 2},
		},
		"v6 extension headers before, last first": {
			steps: []step{
				{pkt: frag6(1, 7, 800, false, p[800:], 0, hbh...), off: 40 + len(hbh)},
				{pkt: frag6(1, 7, 0, true, p[:800], 0, hbh...), off: 40 + len(hbh), want: whole6(1, p, 0, hbh...)},
			},
			want: fragCounters{fragments: 2, reassembled: 1, used: 2},
		},
		"v6 keys: identification of 32 bits, vlan, and not v4": {
			steps: []step{
				{pkt: frag6(1, 7, 0, true, p[:800], 0)},
				{pkt: frag6(1, 0x10007, 800, false, p[800:], 0)},
				{pkt: frag6(2, 7, 800, false, p[800:], 0)},
				{pkt: frag6(1, 7, 800, false, p[800:], 0), vlan: 1},
			},
			want: fragCounters{fragments: 4, heldTrains: 4, heldFragments: 4},
		},
		"v6 atomic, beside a train of the same identification": {
			steps: []step{
				{pkt: frag6(1, 7, 0, true, p[:800], 0)},
				{pkt: frag6(1, 7, 0, false, q, 0, hbh...), off: 40 + len(hbh), want: whole6(1, q, 0, hbh...)},
				{pkt: frag6(1, 7, 800, false, p[800:], 0), want: whole6(1, p, 0)},
			},
			want: fragCounters{fragments: 3, reassembled: 2, used: 3, atomic: 1},
		},
		"v6 atomic and cut": {
			steps: []step{
				{pkt: frag6(1, 7, 0, false, p, 0)[:148], cut: true, want: whole6(1, p, 0)[:140]},
			},
			want: fragCounters{fragments: 1, reassembled: 1, used: 1, atomic: 1},
		},
		"v6 exact copies": {
			steps: []step{
				{pkt: frag6(1, 7, 0, true, p[:800], 0)},
				{pkt: frag6(1, 7, 0, true, p[:800], 0)},
				{pkt: frag6(1, 7, 800, false, p[800:], 0), want: whole6(1, p, 0)},
				{pkt: frag6(1, 7, 800, false, p[800:], 0)},
			},
			want: fragCounters{fragments: 4, reassembled: 1, used: 2, duplicates: 2},
		},
		"v6 overlap, though with the same bytes": {
			steps: []step{
				{pkt: frag6(1, 7, 0, true, p[:800], 0)},
				{pkt: frag6(1, 7, 792, false, p[792:], 0)},
				{pkt: frag6(1, 7, 800, false, p[800:], 0)},
			},
			want: fragCounters{fragments: 3, overlapTrains: 1, overlapFragments: 2, ignored: 1},
		},
		"v6 the same place, other bytes": {
			steps: []step{
				{pkt: frag6(1, 7, 0, true, p[:800], 0)},
				{pkt: frag6(1, 7, 0, true, q[:800], 0)},
				{pkt: frag6(1, 7, 800, false, p[800:], 0)},
			},
			want: fragCounters{fragments: 3, overlapTrains: 1, overlapFragments: 2, ignored: 1},
		},
		"v6 malformed": {
			steps: []step{
				{pkt: frag6(1, 7, 0, true, p[:8], 0), off: 39},
				{pkt: frag6(1, 7, 0, true, p[:8], 0)[:47]},
				{pkt: nil},
				{pkt: frag6(1, 7, 0, true, nil, 0)},
				{pkt: frag6(1, 7, 0, true, p[:9], 0)},
				{pkt: frag6(1, 7, 65528, false, p[:8], 0)},
				{pkt: frag6(1, 7, 0, true, p[:64], 0, hbh...), off: 40 + 16}, // the chain doesn't lead there
				{pkt: frag6(1, 7, 0, false, append(huge, huge[:99]...), 0)},
				{pkt: frag6(1, 7, 0, true, p[:64], 0, 60, 9, 0, 0, 0, 0, 0, 0), off: 48}, // longer than there is
				{pkt: frag6(1, 7, 0, false, make([]byte, 64), 0), off: 48},               // nothing names a Fragment header there
			},
			want: fragCounters{fragments: 10, malformed: 10},
		},
		"v6 cut": {
			steps: []step{
				{pkt: frag6(1, 7, 0, true, p[:800], 0)[:96], cut: true},
				{pkt: frag6(1, 7, 0, true, p[:800], 0)[:44], cut: true},
			},
			want: fragCounters{fragments: 2, cut: 2},
		},
		"v6 payload of 65535 bytes": {
			steps: []step{
				{pkt: frag6(1, 7, 0, true, huge[:65528], 0)},
				{pkt: frag6(1, 7, 65528, false, huge[65528:], 0), want: whole6(1, huge, 0)},
			},
			want: fragCounters{fragments: 2, reassembled: 1, used: 2},
		},
		"v6 too long with the first fragment's extension headers": {
			steps: []step{
				{pkt: frag6(1, 7, 65512, false, huge[65512:], 0)},
				{pkt: frag6(1, 7, 0, true, huge[:65504], 0, hbh...), off: 40 + len(hbh)},
				{pkt: frag6(1, 7, 65504, true, huge[65504:65512], 0)},
			},
			want: fragCounters{fragments: 3, malformed: 3, malformedTrains: 1},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.lim == (fragLimits{}) {
				tt.lim = fragTestLimits
			}
			d := newDefragmenter(tt.lim)
			for i, s := range tt.steps {
				pkt := bytes.Clone(s.pkt)
				var got []byte
				if len(pkt) > 0 && pkt[0]>>4 == 6 {
					if s.off == 0 {
						s.off = 40
					}
					got = d.add6(pkt, s.off, s.cut, s.vlan, s.at*second)
				} else {
					got = d.add4(pkt, s.cut, s.vlan, s.at*second)
				}
				clear(pkt) // the caller reads the next packet into it
				if !bytes.Equal(got, s.want) {
					t.Errorf("step %d:\ngot  %x\nwant %x", i, got, s.want)
				}
				fragCheckAccount(t, d)
			}
			got := *d.counters()
			got.heldBytes = 0
			if got != tt.want {
				t.Errorf("counters:\ngot  %+v\nwant %+v", got, tt.want)
			}
			held := got.heldFragments
			heldTrains := got.heldTrains
			d.flush()
			fragCheckAccount(t, d)
			got = *d.counters()
			want := tt.want
			want.heldFragments, want.heldTrains = 0, 0
			want.incompleteFragments, want.incompleteTrains = held, heldTrains
			if got != want {
				t.Errorf("after flush:\ngot  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestFragmentPiecesBound(t *testing.T) {
	d := newDefragmenter(fragTestLimits)
	p := fragPattern(2*8*(fragMaxPieces+1), 0)
	for i := range fragMaxPieces + 1 {
		d.add4(frag4(1, 1, 16*i, true, p[16*i:16*i+8]), false, 0, 0)
	}
	d.add4(frag4(1, 1, 8, true, p[8:16]), false, 0, 0)
	got := *d.counters()
	want := fragCounters{fragments: fragMaxPieces + 2, pieceBoundTrains: 1, pieceBoundFragments: fragMaxPieces + 1, ignored: 1}
	if got != want {
		t.Errorf("\ngot  %+v\nwant %+v", got, want)
	}
}

func TestFragmentTick(t *testing.T) {
	d := newDefragmenter(fragTestLimits)
	d.add4(frag4(1, 1, 0, true, fragPattern(800, 0)), false, 0, 100e9)
	d.tick(130e9)
	d.tick(70e9)
	if got := d.counters().heldTrains; got != 1 {
		t.Fatalf("held %d trains at the age limit, want 1", got)
	}
	d.tick(130e9 + 1)
	got, want := *d.counters(), fragCounters{fragments: 1, expiredTrains: 1, expiredFragments: 1}
	if got != want {
		t.Errorf("\ngot  %+v\nwant %+v", got, want)
	}
}

// TestFragmentFlood lets 100,000 trains that never complete pass, in ten
// seconds, with a good datagram after every hundredth, the fragments of which
// lie 5,000 packets apart.
func TestFragmentFlood(t *testing.T) {
	const apart = 5000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	d := newDefragmenter(fragTestLimits)
	p := fragPattern(2000, 0)
	half := frag4(0, 0, 0, true, p[:1480])
	found, sent := 0, 0
	for i := range 100_000 + apart {
		ts := int64(i) * 100_000
		if i < 100_000 {
			half[12] = 11
			binary.BigEndian.PutUint32(half[13:], uint32(i)) // i distinct sources
			d.add4(half, false, 0, ts)
			if i%100 == 0 {
				sent++
				d.add4(frag4(1, uint16(i/100), 1480, false, p[1480:]), false, 0, ts)
			}
		}
		if j := i - apart; j >= 0 && j%100 == 0 {
			id := uint16(j / 100)
			if got := d.add4(frag4(1, id, 0, true, p[:1480]), false, 0, ts); bytes.Equal(got, whole4(1, id, p)) {
				found++
			}
		}
		if i%1000 == 0 {
			fragCheckAccount(t, d)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if found != sent {
		t.Errorf("found %d of %d good datagrams", found, sent)
	}
	if got, bound := after.HeapAlloc-before.HeapAlloc, uint64(fragTestLimits.bytes+4<<20); after.HeapAlloc > before.HeapAlloc && got > bound {
		t.Errorf("heap grew by %d bytes, want at most %d", got, bound)
	}
	d.flush()
	fragCheckAccount(t, d)
	n := d.counters()
	if got := n.trainBoundTrains + n.byteBoundTrains + n.incompleteTrains; got != 100_000 {
		t.Errorf("%d trains evicted or incomplete, want 100000: %+v", got, *n)
	}
	if n.heldBytes != 0 || n.heldTrains != 0 || n.heldFragments != 0 {
		t.Errorf("something is held after flush: %+v", *n)
	}
}

func TestFragmentsDoNotAllocate(t *testing.T) {
	d := newDefragmenter(fragTestLimits)
	p := fragPattern(1800, 0)
	a4, b4 := frag4(1, 0, 0, true, p[:1480]), frag4(1, 0, 1480, false, p[1480:])
	a6, b6 := frag6(1, 0, 0, true, p[:1232], 0), frag6(1, 0, 1232, false, p[1232:], 0)
	ts := int64(0)
	run := func() {
		ts += 1e6
		for _, f := range [][]byte{a4, b4} {
			binary.BigEndian.PutUint16(f[4:], uint16(ts/1e6))
		}
		for _, f := range [][]byte{a6, b6} {
			binary.BigEndian.PutUint32(f[44:], uint32(ts/1e6))
		}
		if d.add4(a4, false, 0, ts) != nil || d.add4(b4, false, 0, ts) == nil {
			t.Fatal("IPv4 datagram not delivered with its second fragment")
		}
		if d.add6(a6, 40, false, 0, ts) != nil || d.add6(b6, 40, false, 0, ts) == nil {
			t.Fatal("IPv6 datagram not delivered with its second fragment")
		}
	}
	for range 200 {
		run() // the arena grows to two marks per ms of fragDoneNs
	}
	if got := testing.AllocsPerRun(1000, run); got != 0 {
		t.Errorf("got %v allocations for two datagrams, want 0", got)
	}
}

// FuzzFragments: a datagram cut at multiples of 8 bytes, in any order, with
// copies, and for IPv4 cut in a second way as well, comes out as it was.
func FuzzFragments(f *testing.F) {
	f.Add([]byte("a datagram of some length that is cut to pieces"), uint64(1), false, false)
	f.Add(fragPattern(4000, 1), uint64(2), true, false)
	f.Add(fragPattern(3000, 2), uint64(3), false, true)
	f.Fuzz(func(t *testing.T, payload []byte, seed uint64, v6, recut bool) {
		if len(payload) < 9 || len(payload) > 16<<10 {
			return
		}
		recut = recut && !v6
		r := rand.New(rand.NewPCG(seed, 0))
		var frags [][]byte
		ways := 1
		if recut {
			ways = 2
		}
		for range ways {
			for off := 0; off < len(payload); {
				least := len(payload)/8/48 + 1
				n := 8 * (least + r.IntN(2*least))
				if off == 0 && n >= len(payload) {
					n = 8
				}
				end := min(off+n, len(payload))
				var p []byte
				if v6 {
					p = frag6(1, 7, off, end < len(payload), payload[off:end], 0)
				} else {
					p = frag4(1, 7, off, end < len(payload), payload[off:end])
				}
				for range 1 + r.IntN(2) {
					frags = append(frags, p)
				}
				off = end
			}
		}
		r.Shuffle(len(frags), func(i, j int) { frags[i], frags[j] = frags[j], frags[i] })
		want := whole4(1, 7, payload)
		if v6 {
			want = whole6(1, payload, 0)
		}
		d := newDefragmenter(fragTestLimits)
		delivered := 0
		for i, p := range frags {
			var got []byte
			if v6 {
				got = d.add6(p, 40, false, 0, int64(i))
			} else {
				got = d.add4(p, false, 0, int64(i))
			}
			if got == nil {
				continue
			}
			delivered++
			if !bytes.Equal(got, want) {
				t.Fatalf("got  %x\nwant %x", got, want)
			}
		}
		// A datagram cut and copied both ways was sent up to four times, and
		// only copies of the latest way are known as such.
		most := 1
		if recut {
			most = 4
		}
		if delivered < 1 || delivered > most {
			t.Errorf("delivered %d times, want 1 to %d: %+v", delivered, most, *d.counters())
		}
		d.flush()
		fragCheckAccount(t, d)
	})
}

// fragModel is the plain version of the rules, a byte at a time and without
// bounds. It knows no marks of delivered datagrams.
type fragModel struct {
	first  int64
	dead   bool
	header []byte
	data   map[int]byte
	cuts   map[[2]int]bool
	total  int
}

// add returns the payload if f completes the datagram.
func (m *fragModel) add(f *fragment) []byte {
	if m.dead {
		return nil
	}
	end := f.start + len(f.data)
	same, overlap := true, false
	for i, c := range f.data {
		if b, ok := m.data[f.start+i]; ok {
			overlap = true
			same = same && b == c
		}
	}
	exact := m.cuts[[2]int{f.start, end}]
	high := 0
	for i := range m.data {
		high = max(high, i+1)
	}
	if !same || overlap && !exact && f.key[0] == 6 || m.total < 0 && !f.more && end <= high || m.total >= 0 && (f.more && end >= m.total || !f.more && end != m.total) {
		m.dead = true
		return nil
	}
	m.cuts[[2]int{f.start, end}] = true
	for i, c := range f.data {
		m.data[f.start+i] = c
	}
	if f.start == 0 && m.header == nil {
		m.header = bytes.Clone(f.header)
	}
	if !f.more {
		m.total = end
	}
	if len(m.data) != m.total {
		return nil
	}
	out := make([]byte, m.total)
	for i, c := range m.data {
		out[i] = c
	}
	return out
}

// FuzzFragmentsModel: whatever comes, the defragmenter delivers what the plain
// version does, at the same fragment.
func FuzzFragmentsModel(f *testing.F) {
	f.Add([]byte{0, 0x81, 0, 1, 2, 0, 0, 0, 0, 1, 2, 0})
	f.Add([]byte{1, 0x81, 0, 1, 2, 0, 1, 0, 0, 1, 2, 0, 0, 1, 1, 9})
	f.Fuzz(func(t *testing.T, script []byte) {
		const age = 5e9
		d := newDefragmenter(fragLimits{trains: 64, bytes: 1 << 20, ageNs: age})
		models := map[[2]byte]*fragModel{}
		ts := int64(0)
		for ; len(script) >= 4; script = script[4:] {
			ts += fragDoneNs + 1
			v6, id := script[0]&1, script[0]>>1&1
			more := script[1]&0x80 != 0
			f := fragment{start: int(script[1]&15) * 8, more: more}
			n := int(script[2]&15) + 1
			if more {
				n *= 8
			}
			f.data = fragPattern(256, 0)[f.start : f.start+n]
			if script[3] == 255 { // forged
				f.data[n/2] ^= 1
			}
			key := [2]byte{v6, id}
			m := models[key]
			if m == nil || ts-m.first > age {
				m = &fragModel{first: ts, total: -1, data: map[int]byte{}, cuts: map[[2]int]bool{}}
				models[key] = m
			}
			var got, want []byte
			if v6 == 1 && f.start == 0 && !more {
				continue // atomic: no reassembly
			}
			if v6 == 1 {
				f.key[0] = 6
				want = m.add(&f)
				got = d.add6(frag6(1, uint32(id), f.start, more, f.data, 0), 40, false, 0, ts)
				if want != nil {
					want = whole6(1, want, 0)
				}
			} else {
				f.key[0] = 4
				want = m.add(&f)
				got = d.add4(frag4(1, uint16(id), f.start, more, f.data), false, 0, ts)
				if want != nil {
					want = whole4(1, uint16(id), want)
				}
			}
			if want != nil {
				delete(models, key)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("got  %x\nwant %x\n%+v", got, want, *d.counters())
			}
			fragCheckAccount(t, d)
		}
	})
}

// FuzzFragmentsJunk: any bytes, with bounds small enough to be met all the
// time. Nothing panics, the bounds hold, the account adds up, and two
// defragmenters with different hash seeds agree.
func FuzzFragmentsJunk(f *testing.F) {
	f.Add(append([]byte{4, 29, 0}, frag4(1, 7, 0, true, fragPattern(8, 0))...))
	f.Add(append([]byte{6, 57, 0}, frag6(1, 7, 8, false, fragPattern(8, 0), 0)...))
	f.Fuzz(func(t *testing.T, script []byte) {
		lim := fragLimits{trains: 3, bytes: 12 * fragCellSize, ageNs: 1e9}
		a, b := newDefragmenter(lim), newDefragmenter(lim)
		ts := int64(0)
		for len(script) >= 3 {
			op, n := script[0], int(script[1])|int(script[0]&0xf0)<<4
			jump := int64(int8(script[2]))
			ts += jump * jump * jump * jump * jump * 1000
			script = script[3:]
			pkt := script[:min(n, len(script))]
			if op&8 == 0 {
				script = script[len(pkt):]
			} else {
				script = script[min(len(script), 1):] // the same bytes again, shifted
			}
			var x, y []byte
			switch {
			case op&2 != 0:
				off := 40 + int(op&1)*8
				x, y = a.add6(pkt, off, op&4 != 0, 0, ts), b.add6(pkt, off, op&4 != 0, 0, ts)
			case op == 0:
				a.tick(ts)
				b.tick(ts)
			default:
				x, y = a.add4(pkt, op&4 == 0, 0, ts), b.add4(pkt, op&4 == 0, 0, ts)
			}
			if !bytes.Equal(x, y) || *a.counters() != *b.counters() {
				t.Fatalf("depends on the hash seed:\n%x %+v\n%x %+v", x, *a.counters(), y, *b.counters())
			}
			fragCheckAccount(t, a)
			if x != nil && x[0]>>4 == 4 && int(binary.BigEndian.Uint16(x[2:])) != len(x) && op&2 == 0 {
				t.Fatalf("total length %x of %d bytes", x[2:4], len(x))
			}
		}
		a.flush()
		fragCheckAccount(t, a)
		if n := a.counters(); n.heldBytes != 0 || n.heldFragments != 0 || n.heldTrains != 0 {
			t.Fatalf("held after flush: %+v", *n)
		}
	})
}

func BenchmarkFragments(b *testing.B) {
	p := fragPattern(1800, 0)
	for _, held := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("v4/held=%d", held), func(b *testing.B) {
			d := newDefragmenter(fragTestLimits)
			for i := range held {
				d.add4(frag4(2, uint16(i), 0, true, p[:8]), false, 0, 0)
			}
			x, y := frag4(1, 0, 0, true, p[:1480]), frag4(1, 0, 1480, false, p[1480:])
			b.SetBytes(int64(len(x) + len(y)))
			b.ReportAllocs()
			for i := range b.N {
				binary.BigEndian.PutUint16(x[4:], uint16(i))
				binary.BigEndian.PutUint16(y[4:], uint16(i))
				ts := int64(i) % 1e6 * 10_000
				d.add4(x, false, 0, ts)
				if d.add4(y, false, 0, ts) == nil {
					b.Fatal("not delivered")
				}
			}
		})
	}
	b.Run("v6", func(b *testing.B) {
		d := newDefragmenter(fragTestLimits)
		x, y := frag6(1, 0, 0, true, p[:1232], 0), frag6(1, 0, 1232, false, p[1232:], 0)
		b.SetBytes(int64(len(x) + len(y)))
		b.ReportAllocs()
		for i := range b.N {
			binary.BigEndian.PutUint32(x[44:], uint32(i))
			binary.BigEndian.PutUint32(y[44:], uint32(i))
			d.add6(x, 40, false, 0, int64(i)*10_000)
			if d.add6(y, 40, false, 0, int64(i)*10_000) == nil {
				b.Fatal("not delivered")
			}
		}
	})
	// The worst a flood can do to a fragment: every piece is looked at.
	b.Run("hostile", func(b *testing.B) {
		d := newDefragmenter(fragTestLimits)
		for i := range fragMaxPieces {
			d.add4(frag4(1, 1, 16*i, true, p[:8]), false, 0, 0)
		}
		y := frag4(1, 1, 16*(fragMaxPieces-1), true, p[:8])
		b.ReportAllocs()
		for range b.N {
			d.add4(y, false, 0, 0)
		}
	})
}
