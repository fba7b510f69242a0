package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// framesFilter notes every frame that it is shown, and wants none.
type framesFilter struct {
	f      *feeder
	frames []string
}

func (r *framesFilter) matches(frame []byte, wire int, link uint32) bool {
	r.frames = append(r.frames, frameText(r.f.count.lastTs, link, wire, frame))
	return false
}

func frameText(ts int64, link uint32, wire int, frame []byte) string {
	return fmt.Sprintf("%d link %d wire %d %x", ts, link, wire, frame)
}

// framesOf reads a capture and returns its frames.
func framesOf(name string, src byteSource, stop chan struct{}) ([]string, error) {
	f := newTestFeeder()
	rec := &framesFilter{f: f}
	f.filter = rec
	f.stop = stop
	f.free, f.order = make(chan *chunk, 2), make(chan *chunk, 2)
	f.cur.slab = make([]byte, slabSize)
	f.free <- &chunk{slab: make([]byte, slabSize), views: make([][]view, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for c := range f.order {
			f.free <- c
		}
	}()
	err := readCapture(f, name, src, func(lt uint32) { rec.frames = append(rec.frames, "odd link "+linkName(lt)) })
	close(f.order)
	<-ended
	return rec.frames, err
}

// capPacket is a packet of a capture that a test writes.
type capPacket struct {
	ts   int64 // ns
	data []byte
	wire int // 0: as captured
}

func (p *capPacket) wireLen() uint32 {
	if p.wire != 0 {
		return uint32(p.wire)
	}
	return uint32(len(p.data))
}

// classicCapture writes pcap; magic and minor version say which kind.
func classicCapture(order binary.AppendByteOrder, magic uint32, minor uint16, link uint32, pkts []capPacket) []byte {
	b := order.AppendUint32(nil, magic)
	b = order.AppendUint16(b, 2)
	b = order.AppendUint16(b, minor)
	b = append(b, make([]byte, 8)...)
	b = order.AppendUint32(b, 262144)
	b = order.AppendUint32(b, link)
	unit := int64(1000)
	if magic == magicNano {
		unit = 1
	}
	for _, p := range pkts {
		b = order.AppendUint32(b, uint32(p.ts/1e9))
		b = order.AppendUint32(b, uint32(p.ts%1e9/unit))
		lens := []uint32{uint32(len(p.data)), p.wireLen()}
		if minor < 3 {
			lens[0], lens[1] = lens[1], lens[0]
		}
		b = order.AppendUint32(order.AppendUint32(b, lens[0]), lens[1])
		if magic == magicKuznetzov {
			b = append(b, 0, 0, 0, 1, 8, 0, 0, 0)
		}
		b = append(b, p.data...)
	}
	return b
}

// pcapLE is the ordinary kind of capture.
func pcapLE(pkts []capPacket) []byte {
	return classicCapture(binary.LittleEndian, magicNano, 4, linkEthernet, pkts)
}

// ngFile is a pcapng file that a test writes by hand.
type ngFile struct {
	order binary.AppendByteOrder
	b     []byte
	ends  []int // of each block
}

func (n *ngFile) u32(v ...uint32) (b []byte) {
	for _, x := range v {
		b = n.order.AppendUint32(b, x)
	}
	return b
}

func (n *ngFile) block(typ uint32, body ...[]byte) {
	all := bytes.Join(body, nil)
	all = append(all, make([]byte, -len(all)&3)...)
	size := uint32(len(all) + 12)
	n.b = append(n.b, n.u32(typ, size)...)
	n.b = append(n.b, all...)
	n.b = append(n.b, n.u32(size)...)
	n.ends = append(n.ends, len(n.b))
}

func (n *ngFile) section(order binary.AppendByteOrder) {
	n.order = order
	n.block(ngSection, n.u32(byteOrderNG), n.order.AppendUint16(n.order.AppendUint16(nil, 1), 0), bytes.Repeat([]byte{0xff}, 8), n.option(3, []byte("some operating system")), n.u32(0))
}

func (n *ngFile) option(code uint16, v []byte) []byte {
	b := n.order.AppendUint16(n.order.AppendUint16(nil, code), uint16(len(v)))
	b = append(b, v...)
	return append(b, make([]byte, -len(v)&3)...)
}

func (n *ngFile) iface(link uint16, snaplen uint32, options ...[]byte) {
	n.block(ngInterface, n.order.AppendUint16(n.order.AppendUint16(nil, link), 0), n.u32(snaplen), bytes.Join(options, nil))
}

func (n *ngFile) resol(v byte) []byte { return n.option(ngOptTsResol, []byte{v}) }

func (n *ngFile) packet(id uint32, ts uint64, data []byte, wire int) {
	n.block(ngEnhanced, n.u32(id, uint32(ts>>32), uint32(ts), uint32(len(data)), uint32(wire)), padded(data), n.option(2, []byte{0, 0, 0, 1}), n.u32(0))
}

func padded(b []byte) []byte { return append(slices.Clip(b), make([]byte, -len(b)&3)...) }

func TestClassicCaptures(t *testing.T) {
	pkts := []capPacket{
		{ts: 1700000000_123456789, data: []byte("first packet")},
		{ts: 1700000000_000000001, data: []byte("cut"), wire: 1500},
		{ts: 0, data: []byte{}},
		{ts: math.MaxUint32*int64(1e9) + 999999999, data: bytes.Repeat([]byte("long"), 60000)},
	}
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, magic := range []uint32{magicMicro, magicNano, magicKuznetzov} {
			for _, minor := range []uint16{4, 3, 2} {
				t.Run(fmt.Sprintf("%v/%x/2.%d", order, magic, minor), func(t *testing.T) {
					file := classicCapture(order, magic, minor, 0xf4000000|linkRaw, pkts)
					unit := int64(1000)
					if magic == magicNano {
						unit = 1
					}
					var want []string
					for _, p := range pkts {
						want = append(want, frameText(p.ts/unit*unit, linkRaw, int(p.wireLen()), p.data))
					}
					for _, src := range []byteSource{bytes.NewReader(file), &oddReader{b: file}} {
						got, err := framesOf("x", src, nil)
						if err != nil || !slices.Equal(got, want) {
							t.Errorf("got %d frames, error %v\nwant %d", len(got), err, len(want))
						}
					}
				})
			}
		}
	}
	// Version 2.3 has the lengths either way round: the smaller is what was captured.
	swapped := classicCapture(binary.LittleEndian, magicMicro, 2, linkRaw, []capPacket{{ts: 1e9, data: []byte("cut"), wire: 99}})
	swapped[6] = 3
	if got, err := framesOf("x", bytes.NewReader(swapped), nil); err != nil || !slices.Equal(got, []string{frameText(1e9, linkRaw, 99, []byte("cut"))}) {
		t.Errorf("version 2.3: got %q, %v", got, err)
	}
}

// oddReader reads in chunks of odd sizes.
type oddReader struct {
	b []byte
	n int
}

func (r *oddReader) Read(p []byte) (int, error) {
	r.n = r.n*7%61 + 1
	n := copy(p[:min(len(p), r.n)], r.b)
	r.b = r.b[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// ngSample is a pcapng file with everything in it, the frames that it holds, and after how many blocks each is known.
func ngSample(order, order2 binary.AppendByteOrder) (n *ngFile, want []string, known []int) {
	n = &ngFile{}
	frame := func(ts int64, link uint32, wire int, data string) {
		want = append(want, frameText(ts, link, wire, []byte(data)))
		known = append(known, len(n.ends))
	}
	n.section(order)
	n.iface(linkEthernet, 0)
	n.iface(linkRaw, 96, n.option(2, []byte("eth1")), n.resol(9))
	n.iface(linkSLL2, 96, n.resol(3), n.u32(0))
	n.iface(linkNull, 96, n.resol(0x80|20), n.option(ngOptTsOff, offsetOption(order, 1_000_000)))
	n.packet(0, 1700000000_123456, []byte("default is microseconds"), 23)
	frame(1700000000_123456000, linkEthernet, 23, "default is microseconds")
	n.packet(1, 1700000000_123456789, []byte("ns"), 99)
	frame(1700000000_123456789, linkRaw, 99, "ns")
	n.packet(2, 1700000000_123, []byte("milliseconds"), 12)
	frame(1700000000_123000000, linkSLL2, 12, "milliseconds")
	n.packet(3, 1700000000<<20|1<<19, []byte("binary fraction, with an offset"), 31)
	frame(1701000000_500000000, linkNull, 31, "binary fraction, with an offset")
	n.block(4, n.u32(0, 0))                           // name resolution
	n.block(0xbad, make([]byte, slabSize+slabSize/2)) // custom, larger than what is read at once
	n.block(5, n.u32(0, 0, 0))                        // interface statistics
	n.block(ngSimple, n.u32(6), []byte("simple"))     // of interface 0, at the time of the packet before
	frame(1701000000_500000000, linkEthernet, 6, "simple")
	n.block(ngPacketOld, n.order.AppendUint16(n.order.AppendUint16(nil, 1), 7), n.u32(1700000000_000000001>>32, 1700000000_000000001&0xffffffff, 3, 3), padded([]byte("old")))
	frame(1700000000_000000001, linkRaw, 3, "old")
	n.section(order2)
	n.iface(linkIPv4, 4, n.resol(6))
	n.block(ngSimple, n.u32(1000), []byte("cut "))
	frame(1700000000_000000001, linkIPv4, 1000, "cut ")
	n.packet(0, 1, []byte("second section"), 14)
	frame(1000, linkIPv4, 14, "second section")
	return n, want, known
}

func offsetOption(order binary.AppendByteOrder, v int64) []byte {
	return order.AppendUint64(nil, uint64(v))
}

func TestPcapng(t *testing.T) {
	orders := []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian}
	for i, order := range orders {
		n, want, _ := ngSample(order, orders[1-i])
		for _, src := range []byteSource{bytes.NewReader(n.b), &oddReader{b: n.b}} {
			got, err := framesOf("x", src, nil)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%v:\ngot  %q, error %v\nwant %q", order, got, err, want)
			}
		}
	}
}

func TestPcapngTimes(t *testing.T) {
	tests := []struct {
		ifc  captureInterface
		t    uint64
		want int64
	}{
		{captureInterface{tsUnits: 1e6}, 0, 0},
		{captureInterface{tsUnits: 1}, 1, 1e9},
		{captureInterface{tsUnits: 1e10}, 15, 1},
		{captureInterface{pow2: 32}, 3<<32 | 1<<31, 3500000000},
		{captureInterface{pow2: 63}, 1 << 62, 500000000},
		{captureInterface{tsUnits: 1e9}, math.MaxInt64 - 2e9, math.MaxInt64 - 2e9}, // 2262
		{captureInterface{tsUnits: 1e9}, math.MaxInt64, math.MaxInt64},
		{captureInterface{tsUnits: 1}, math.MaxUint64, math.MaxInt64},
		{captureInterface{tsUnits: 1, offset: -5}, 3, 0},
		{captureInterface{tsUnits: 1, offset: -5}, 6, 1e9},
		{captureInterface{tsUnits: 1, offset: math.MinInt64}, 6, math.MaxInt64},
		{captureInterface{tsUnits: 1, offset: math.MaxInt64}, 6, math.MaxInt64},
	}
	for _, tt := range tests {
		if got := tt.ifc.nanoseconds(tt.t); got != tt.want {
			t.Errorf("%+v: %d is %d, want %d", tt.ifc, tt.t, got, tt.want)
		}
	}
}

// TestTruncatedCaptures cuts captures at every byte: what lies before the cut is delivered, and the error says where the
// record begins that is not whole.
func TestTruncatedCaptures(t *testing.T) {
	pkts := []capPacket{{ts: 1e9, data: []byte("one")}, {ts: 2e9, data: []byte("second")}, {ts: 3e9, data: nil}, {ts: 4e9, data: []byte("the fourth packet")}}
	check := func(t *testing.T, file []byte, ends []int, want []string, known []int) {
		t.Helper()
		for n := 1; n < len(file); n++ {
			frames := 0
			for frames < len(known) && ends[known[frames]-1] <= n {
				frames++
			}
			begin, whole := 0, false
			for _, e := range ends {
				if e <= n {
					begin = e
				}
				whole = whole || e == n
			}
			got, err := framesOf("x", bytes.NewReader(file[:n]), nil)
			if !slices.Equal(got, want[:frames]) {
				t.Fatalf("cut to %d bytes: got %q, want %q", n, got, want[:frames])
			}
			switch {
			case whole:
				if err != nil {
					t.Fatalf("cut to %d bytes, the end of a record: got %v", n, err)
				}
			case n < ends[0]:
				if err == nil {
					t.Fatalf("cut to %d bytes, inside the header: no error", n)
				}
			default:
				if want := fmt.Sprintf(`read capture "x": truncated: the file ends inside a record that begins at byte %d`, begin); err == nil || err.Error() != want {
					t.Fatalf("cut to %d bytes: got error %v\nwant %s", n, err, want)
				}
			}
		}
	}
	for _, magic := range []uint32{magicMicro, magicKuznetzov} {
		file := classicCapture(binary.BigEndian, magic, 4, linkRaw, pkts)
		hdr := 16
		if magic == magicKuznetzov {
			hdr = 24
		}
		ends, known, want := []int{24}, []int{}, []string{}
		for i, p := range pkts {
			ends = append(ends, ends[i]+hdr+len(p.data))
			known = append(known, i+2)
			want = append(want, frameText(p.ts, linkRaw, len(p.data), p.data))
		}
		check(t, file, ends, want, known)
	}
	n := &ngFile{}
	n.section(binary.BigEndian)
	n.iface(linkRaw, 0)
	var want []string
	var known []int
	for _, p := range pkts {
		n.packet(0, uint64(p.ts/1000), p.data, len(p.data))
		want, known = append(want, frameText(p.ts, linkRaw, len(p.data), p.data)), append(known, len(n.ends))
	}
	n.block(0xbad, make([]byte, 100))
	check(t, n.b, n.ends, want, known)

	// A block that nobody needs, cut far behind what was read at once.
	big := &ngFile{}
	big.section(binary.LittleEndian)
	at := len(big.b)
	big.block(0xbad, make([]byte, 3*slabSize))
	if _, err := framesOf("x", bytes.NewReader(big.b[:len(big.b)-5]), nil); err == nil || !strings.HasSuffix(err.Error(), fmt.Sprintf("begins at byte %d", at)) {
		t.Errorf("a large block cut: got %v, want byte %d", err, at)
	}
}

func TestDamagedCaptures(t *testing.T) {
	le := binary.LittleEndian
	ng := func(build func(n *ngFile)) []byte {
		n := &ngFile{}
		n.section(le)
		build(n)
		return n.b
	}
	one := []capPacket{{ts: 1e9, data: []byte("one")}}
	frame := frameText(1e9, linkRaw, 3, []byte("one"))
	longRecord := classicCapture(le, magicMicro, 4, linkRaw, one)
	longRecord = append(longRecord, 2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0x7f)
	version := classicCapture(le, magicMicro, 4, linkRaw, one)
	version[4] = 3
	lengths := ng(func(n *ngFile) { n.iface(linkRaw, 0); n.packet(0, 1e6, []byte("one"), 3); n.block(7) })
	lengths[len(lengths)-1] = 1
	tests := []struct {
		name   string
		file   []byte
		frames []string
		err    string
	}{
		{"empty", nil, nil, "the file is empty"},
		{"three bytes", []byte("abc"), nil, "not a capture file (only 3 bytes)"},
		{"text", []byte("this is no capture file, but a text"), nil, "not a capture file (begins with 74686973; pcap and pcapng are known, also gzip or zstd of them)"},
		{"header only", classicCapture(le, magicMicro, 4, linkRaw, nil), nil, ""},
		{"pcapng header only", ng(func(*ngFile) {}), nil, ""},
		{"header cut", classicCapture(le, magicMicro, 4, linkRaw, nil)[:20], nil, "file header is cut (20 of 24 bytes) at byte 0"},
		{"version 3", version, nil, "pcap version 3.4 is unknown at byte 0"},
		{"unknown link type", classicCapture(le, magicMicro, 4, 147, one), nil, "link type 147 is not supported"},
		{"record too long", longRecord, []string{frame}, "corrupt record: captured length 2147483647 at byte 43"},
		{"section of no byte order", []byte("\n\r\r\n\x1c\x00\x00\x00abcd\x01\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x1c\x00\x00\x00"), nil, "corrupt section header: byte-order magic 61626364 at byte 0"},
		{"block shorter than a block", ng(func(n *ngFile) { n.b = append(n.b, n.u32(7, 8, 8)...) }), nil, "corrupt block: length 8 at byte 60"},
		{"block of an odd length", ng(func(n *ngFile) { n.b = append(n.b, n.u32(7, 13, 8, 8)...) }), nil, "corrupt block: length 13 at byte 60"},
		{"packet block too long", ng(func(n *ngFile) { n.b = append(n.b, n.u32(ngEnhanced, 1<<24, 8, 8)...) }), nil, "corrupt block: length 16777216 at byte 60"},
		{"two lengths", lengths, []string{frame}, "corrupt block: its two lengths differ at byte 128"},
		{"interface cut", ng(func(n *ngFile) { n.block(ngInterface, n.u32(1)) }), nil, "corrupt interface block at byte 60"},
		{"no interface", ng(func(n *ngFile) { n.packet(0, 1, []byte("one"), 3) }), nil, "packet of interface 0, which was not described at byte 60"},
		{"no interface for a simple packet", ng(func(n *ngFile) { n.block(ngSimple, n.u32(1)) }), nil, "corrupt simple packet block at byte 60"},
		{"packet block cut", ng(func(n *ngFile) { n.iface(1, 0); n.block(ngEnhanced, n.u32(0)) }), nil, "corrupt packet block at byte 80"},
		{"packet longer than its block", ng(func(n *ngFile) { n.iface(1, 0); n.block(ngEnhanced, n.u32(0, 0, 0, 9, 9), []byte("one")) }), nil, "corrupt packet block: captured length 9 at byte 80"},
		{"interface of an odd link type", ng(func(n *ngFile) {
			n.iface(147, 0)
			n.iface(linkRaw, 0)
			n.packet(1, 1e6, []byte("one"), 3)
		}), []string{"odd link 147", frame}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			frames, err := framesOf("x", bytes.NewReader(tt.file), nil)
			got := ""
			if err != nil {
				got = strings.TrimPrefix(err.Error(), `read capture "x": `)
			}
			if got != tt.err || !slices.Equal(frames, tt.frames) {
				t.Errorf("got  %q, error %q\nwant %q, error %q", frames, got, tt.frames, tt.err)
			}
		})
	}
}

// TestLargestFrame: frames as long as the longest, larger than a slab with their headers, pass.
func TestLargestFrame(t *testing.T) {
	big := bytes.Repeat([]byte{7}, maxFrame)
	var pkts []capPacket
	var want []string
	n := &ngFile{}
	n.section(binary.LittleEndian)
	n.iface(linkRaw, 0)
	for i := range 5 {
		p := capPacket{ts: int64(i) * 1e9, data: big[:len(big)-i]}
		pkts = append(pkts, p, capPacket{ts: p.ts, data: []byte("small")})
		want = append(want, frameText(p.ts, linkRaw, len(p.data), p.data), frameText(p.ts, linkRaw, 5, []byte("small")))
		n.packet(0, uint64(p.ts/1000), p.data, len(p.data))
		n.packet(0, uint64(p.ts/1000), []byte("small"), 5)
	}
	for _, file := range [][]byte{classicCapture(binary.LittleEndian, magicMicro, 4, linkRaw, pkts), n.b} {
		if got, err := framesOf("x", bytes.NewReader(file), nil); err != nil || !slices.Equal(got, want) {
			t.Errorf("got %d frames, error %v, want %d", len(got), err, len(want))
		}
	}
}

func TestFirstPacket(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	pkts := []capPacket{{ts: 5_000_000_123, data: []byte("first")}, {ts: 1, data: []byte("earlier, but second")}}
	ng := &ngFile{}
	ng.section(binary.BigEndian)
	ng.block(0xbad, make([]byte, 3*slabSize))
	ng.iface(linkRaw, 0, ng.resol(9))
	ng.packet(0, 5_000_000_123, []byte("first"), 5)
	noPackets := pcapLE(nil)
	cut := pcapLE(pkts)[:44]
	big := classicCapture(binary.LittleEndian, magicNano, 4, linkRaw, []capPacket{{ts: 5_000_000_123, data: make([]byte, maxFrame)}})
	tests := []struct {
		name string
		file []byte
		ts   int64
		ok   bool
		err  string
	}{
		{"pcap", pcapLE(pkts), 5_000_000_123, true, ""},
		{"pcapng", ng.b, 5_000_000_123, true, ""},
		{"gzip", compressGzip(t, pcapLE(pkts)), 5_000_000_123, true, ""},
		{"zstd", compressZstd(t, ng.b), 5_000_000_123, true, ""},
		{"big", big, 5_000_000_123, true, ""},
		{"none", noPackets, 0, false, ""},
		{"cut", cut, 0, false, ""},
		{"text", []byte("this is not a capture file"), 0, false, "not a capture file (begins with 74686973"},
		{"empty", nil, 0, false, "the file is empty"},
		{"badgzip", []byte("\x1f\x8b\x08 and then nothing"), 0, false, "gzip: "},
	}
	for _, tt := range tests {
		ts, ok, err := firstPacket(write(tt.name, tt.file))
		if ts != tt.ts || ok != tt.ok || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got %d, %v, error %v\nwant %d, %v, %q", tt.name, ts, ok, err, tt.ts, tt.ok, tt.err)
		}
	}
	if _, _, err := firstPacket(os.DevNull); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a device: got %v", err)
	}
}

// TestReadErrors: what the source says is passed on, with the name.
func TestReadErrors(t *testing.T) {
	file := pcapLE([]capPacket{{ts: 1e9, data: []byte("one")}})
	broken := errors.New("input/output error")
	for _, n := range []int{0, 10, 24, len(file)} {
		_, err := framesOf("x", io.MultiReader(bytes.NewReader(file[:n]), errorReader{broken}), nil)
		if !errors.Is(err, broken) || !strings.Contains(err.Error(), `"x"`) {
			t.Errorf("after %d bytes: got %v, want %v", n, err, broken)
		}
	}
	stop := make(chan struct{})
	close(stop)
	if _, err := framesOf("x", bytes.NewReader(file), stop); !errors.Is(err, errStopped) {
		t.Errorf("stopped: got %v", err)
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

// TestSlowPipe: records of a pipe that brings little appear although the pipe stays open.
func TestSlowPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	outR, outW := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(t.Context(), []string{"-env_file=", "-pcap", "-", "-numprocs", "3"}, r, outW, io.Discard)
		outW.Close()
	}()
	lines := make(chan string)
	go func() {
		b, left := make([]byte, 1<<16), ""
		for {
			n, err := outR.Read(b)
			left += string(b[:n])
			for {
				line, rest, ok := strings.Cut(left, "\n")
				if !ok {
					break
				}
				lines <- line
				left = rest
			}
			if err != nil {
				close(lines)
				return
			}
		}
	}()
	file := pcapLE(sampleTraffic(1, 3))
	first := len(pcapLE(nil))
	if _, err := w.Write(file[:first]); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for off, n := first, 0; off < len(file); off, n = n, 0 {
		n = off + 16 + int(binary.LittleEndian.Uint32(file[off+8:]))
		begin := time.Now()
		if _, err := w.Write(file[off:n]); err != nil {
			t.Fatal(err)
		}
		if off == first { // a query
			continue
		}
		if seen == 0 {
			select {
			case line := <-lines:
				if d := time.Since(begin); d > time.Second {
					t.Errorf("the first record came after %v", d)
				}
				if !strings.Contains(line, `"status":"`) {
					t.Errorf("not a record: %s", line)
				}
				seen++
			case <-time.After(30 * time.Second):
				t.Fatal("no record while the pipe is open")
			}
		}
	}
	w.Close()
	for range lines {
		seen++
	}
	if c := <-code; c != exitOK || seen < 3 {
		t.Errorf("exit code %d, %d records", c, seen)
	}
}

// FuzzCaptureFile: whatever a file holds, reading it ends, frames lie within it, and how its bytes come makes no difference.
func FuzzCaptureFile(f *testing.F) {
	pkts := []capPacket{{ts: 1e9, data: []byte("one")}, {ts: 2e9, data: []byte("second"), wire: 99}}
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, magic := range []uint32{magicMicro, magicNano, magicKuznetzov} {
			f.Add(classicCapture(order, magic, 4, linkEthernet, pkts))
		}
		n := &ngFile{}
		n.section(order)
		n.iface(linkEthernet, 0, n.resol(9))
		n.iface(linkRaw, 4, n.resol(0x94), n.option(ngOptTsOff, offsetOption(order, -1)))
		n.packet(0, 1e9, []byte("one"), 3)
		n.packet(1, 1<<60, []byte("two"), 3)
		n.block(ngSimple, n.u32(6), []byte("simple"))
		n.block(0xbad, n.u32(6))
		f.Add(n.b)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		whole, err := framesOf("x", bytes.NewReader(file), nil)
		bits := 0
		for _, s := range whole {
			bits += len(s)
		}
		if len(whole) > len(file)/8+1 {
			t.Fatalf("%d frames in %d bytes", len(whole), len(file))
		}
		odd, oddErr := framesOf("x", &oddReader{b: file}, nil)
		if !slices.Equal(whole, odd) || fmt.Sprint(err) != fmt.Sprint(oddErr) {
			t.Fatalf("at once: %q, %v\nin pieces: %q, %v", whole, err, odd, oddErr)
		}
		var fe *formatError
		if errors.As(err, &fe) && (fe.off < 0 || fe.off > int64(len(file))) {
			t.Fatalf("damage at byte %d of %d", fe.off, len(file))
		}
	})
}
