package main

// capture_file.go reads capture files: classic pcap in both byte orders, with µs and ns time stamps, and pcapng.
//
// In: a list of names ("-" is standard input), each plain, gzip or zstd.
// Out: frames, to feeder.frame; they are slices of the chunk's slab, which the file was read into.
//
// Rules: the only copy a byte sees is read(2) into the slab, and a record that straddles two slabs is moved to the
// second. The formats are https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap (pcap) and
// draft-ietf-opsawg-pcapng. What lies before damage is delivered, then the damage is an error that names the file and
// the byte where it begins.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"time"
)

// errStopped is returned by a source that was told to stop; it is no failure.
var errStopped = errors.New("stopped")

// errIdle is returned by pipeReader.Read when nothing came for chunkMaxAge.
var errIdle = errors.New("idle")

// captureReader walks the records of one capture file. It keeps no bytes of its own.
type captureReader struct {
	name    string
	order   binary.ByteOrder
	big     bool
	ng      bool
	recHdr  int   // classic: bytes of a record header (16, or 24 in Kuznetzov's variant)
	swapLen int   // classic: versions before 2.4 store the two lengths the other way round: 0 no, 1 perhaps, 2 yes
	fracNs  int64 // classic: ns per unit of the fraction field
	link    uint32
	ifs     []captureInterface // pcapng: of the current section
	skip    int64              // bytes of a block that nobody needs
	skipOff int64              // where that block begins
	tail    uint32             // its length, which stands at its end again; 0 outside of such a block
	off     int64              // bytes consumed so far, for error messages
	oddLink func(lt uint32)    // told of a pcapng interface whose link type nobody decodes
}

// captureInterface is an interface of a pcapng section.
type captureInterface struct {
	link    uint32
	snaplen uint32
	tsUnits uint64 // units a second, where pow2 is 0
	pow2    uint8  // units are 2^-pow2 s
	offset  int64  // seconds to add
}

// formatError says what is wrong with a capture file and where.
type formatError struct {
	name string
	off  int64
	msg  string
}

func (e *formatError) Error() string {
	return fmt.Sprintf("read capture %q: %s at byte %d", e.name, e.msg, e.off)
}

func (r *captureReader) errorf(format string, a ...any) error {
	return &formatError{r.name, r.off, fmt.Sprintf(format, a...)}
}

// Magic numbers of the first four bytes.
const (
	magicMicro     = 0xa1b2c3d4
	magicNano      = 0xa1b23c4d
	magicKuznetzov = 0xa1b2cd34
	magicNG        = 0x0a0d0d0a
	byteOrderNG    = 0x1a2b3c4d
)

// header reads the file header at the start of b; n is the bytes consumed (0 for pcapng, whose header is a block).
// It needs 24 bytes of b, or all there are.
func (r *captureReader) header(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, fmt.Errorf("read capture %q: the file is empty", r.name)
	}
	if len(b) < 4 {
		return 0, fmt.Errorf("read capture %q: not a capture file (only %d bytes)", r.name, len(b))
	}
	le, be := binary.LittleEndian.Uint32(b), binary.BigEndian.Uint32(b)
	if be == magicNG {
		r.ng = true
		return 0, nil
	}
	known := func(m uint32) bool { return m == magicMicro || m == magicNano || m == magicKuznetzov }
	magic := le
	switch {
	case known(le):
		r.order = binary.LittleEndian
	case known(be):
		r.order, r.big, magic = binary.BigEndian, true, be
	default:
		return 0, fmt.Errorf("read capture %q: not a capture file (begins with %x; pcap and pcapng are known, also gzip or zstd of them)", r.name, b[:4])
	}
	if len(b) < 24 {
		return 0, r.errorf("file header is cut (%d of 24 bytes)", len(b))
	}
	r.recHdr, r.fracNs = 16, 1000
	if magic == magicNano {
		r.fracNs = 1
	}
	if magic == magicKuznetzov {
		r.recHdr = 24
	}
	major, minor := r.order.Uint16(b[4:]), r.order.Uint16(b[6:])
	if major != 2 {
		return 0, r.errorf("pcap version %d.%d is unknown", major, minor)
	}
	if minor < 3 {
		r.swapLen = 2
	} else if minor == 3 {
		r.swapLen = 1
	}
	r.link = r.order.Uint32(b[20:]) & 0x03ffffff // the rest is the FCS length
	if !linkKnown(r.link) {
		return 0, unknownLinkError(r.name, r.link)
	}
	r.off = 24
	return 24, nil
}

func unknownLinkError(name string, lt uint32) error {
	return fmt.Errorf("read capture %q: link type %s is not supported", name, linkName(lt))
}

// walk consumes whole records of b, which lies at base in the feeder's slab, until b holds no further whole record or
// the chunk is full. It returns the bytes consumed.
func (r *captureReader) walk(f *feeder, b []byte, base int) (n int, err error) {
	if r.skip > 0 {
		n = int(min(r.skip, int64(len(b))))
		r.skip -= int64(n)
		if r.skip > 0 {
			r.off += int64(n)
			return n, nil
		}
	}
	if r.tail != 0 {
		if len(b)-n < 4 {
			r.off += int64(n)
			return n, nil
		}
		if r.order.Uint32(b[n:]) != r.tail {
			r.off = r.skipOff
			return n, r.errorf("corrupt block: its two lengths differ")
		}
		r.tail = 0
		n += 4
	}
	if r.ng {
		n, err = r.walkNG(f, b, n, base)
	} else if r.big {
		n, err = r.walkClassic(f, b, n, base, binary.BigEndian)
	} else {
		n, err = r.walkClassicLE(f, b, n, base)
	}
	return n, err
}

// walkClassicLE is walkClassic for the byte order of nearly all files, with the loads inlined instead of an
// interface call for each field.
func (r *captureReader) walkClassicLE(f *feeder, b []byte, n, base int) (int, error) {
	for len(b)-n >= r.recHdr && !f.full() {
		h := b[n : n+16]
		caplen, wire := binary.LittleEndian.Uint32(h[8:]), binary.LittleEndian.Uint32(h[12:])
		if r.swapLen != 0 && (r.swapLen == 2 || caplen > wire) {
			caplen, wire = wire, caplen
		}
		if caplen > maxFrame {
			r.off += int64(n)
			return n, r.errorf("corrupt record: captured length %d", caplen)
		}
		end := n + r.recHdr + int(caplen)
		if end > len(b) {
			break
		}
		ts := int64(binary.LittleEndian.Uint32(h))*1e9 + int64(binary.LittleEndian.Uint32(h[4:]))*r.fracNs
		f.frame(b[n+r.recHdr:end:end], base+n+r.recHdr, int(wire), ts, r.link)
		n = end
	}
	r.off += int64(n)
	return n, nil
}

// walkClassic consumes classic pcap records of the byte order given.
func (r *captureReader) walkClassic(f *feeder, b []byte, n, base int, order binary.ByteOrder) (int, error) {
	for len(b)-n >= r.recHdr && !f.full() {
		caplen, wire := order.Uint32(b[n+8:]), order.Uint32(b[n+12:])
		if r.swapLen != 0 && (r.swapLen == 2 || caplen > wire) {
			caplen, wire = wire, caplen
		}
		if caplen > maxFrame {
			r.off += int64(n)
			return n, r.errorf("corrupt record: captured length %d", caplen)
		}
		end := n + r.recHdr + int(caplen)
		if end > len(b) {
			break
		}
		ts := int64(order.Uint32(b[n:]))*1e9 + int64(order.Uint32(b[n+4:]))*r.fracNs
		f.frame(b[n+r.recHdr:end:end], base+n+r.recHdr, int(wire), ts, r.link)
		n = end
	}
	r.off += int64(n)
	return n, nil
}

// pcapng block types.
const (
	ngSection    = 0x0a0d0d0a
	ngInterface  = 1
	ngPacketOld  = 2
	ngSimple     = 3
	ngEnhanced   = 6
	ngMaxBlock   = maxFrame + 65536 // a packet block with its options
	ngMaxIfs     = 65536
	ngOptTsResol = 9
	ngOptTsOff   = 14
)

// walkNG consumes pcapng blocks.
func (r *captureReader) walkNG(f *feeder, b []byte, n, base int) (int, error) {
	fail := func(at int, format string, a ...any) (int, error) {
		r.off += int64(at)
		return at, r.errorf(format, a...)
	}
	for len(b)-n >= 12 && !f.full() {
		typ := binary.LittleEndian.Uint32(b[n:])
		if typ == ngSection { // the same in both byte orders
			switch uint32(byteOrderNG) {
			case binary.LittleEndian.Uint32(b[n+8:]):
				r.order = binary.LittleEndian
			case binary.BigEndian.Uint32(b[n+8:]):
				r.order = binary.BigEndian
			default:
				return fail(n, "corrupt section header: byte-order magic %x", b[n+8:n+12])
			}
			r.ifs = r.ifs[:0]
		} else if r.order == nil {
			return fail(n, "pcapng without a section header")
		} else {
			typ = r.order.Uint32(b[n:])
		}
		size := r.order.Uint32(b[n+4:])
		if size < 12 || size%4 != 0 || size > math.MaxInt32 {
			return fail(n, "corrupt block: length %d", size)
		}
		end := n + int(size)
		packet := typ == ngEnhanced || typ == ngSimple || typ == ngPacketOld
		if end > len(b) {
			if packet || typ == ngInterface {
				if size > ngMaxBlock {
					return fail(n, "corrupt block: length %d", size)
				}
				break
			}
			// Up to its second length, which is looked at when it comes.
			at := min(len(b), end-4)
			r.skip, r.skipOff, r.tail = int64(end-4-at), r.off+int64(n), size
			r.off += int64(at)
			return at, nil
		}
		if r.order.Uint32(b[end-4:]) != size {
			return fail(n, "corrupt block: its two lengths differ")
		}
		body := b[n+8 : end-4]
		switch typ {
		case ngInterface:
			if len(body) < 8 || len(r.ifs) >= ngMaxIfs {
				return fail(n, "corrupt interface block")
			}
			r.addInterface(body)
		case ngEnhanced, ngPacketOld:
			if len(body) < 20 {
				return fail(n, "corrupt packet block")
			}
			id := r.order.Uint32(body)
			if typ == ngPacketOld {
				id = uint32(r.order.Uint16(body))
			}
			caplen := r.order.Uint32(body[12:])
			if int64(id) >= int64(len(r.ifs)) {
				return fail(n, "packet of interface %d, which was not described", id)
			}
			if int64(caplen) > int64(len(body)-20) || caplen > maxFrame {
				return fail(n, "corrupt packet block: captured length %d", caplen)
			}
			ifc := &r.ifs[id]
			ts := ifc.nanoseconds(uint64(r.order.Uint32(body[4:]))<<32 | uint64(r.order.Uint32(body[8:])))
			f.frame(body[20:20+caplen:20+caplen], base+n+28, int(r.order.Uint32(body[16:])), ts, ifc.link)
		case ngSimple:
			if len(body) < 4 || len(r.ifs) == 0 {
				return fail(n, "corrupt simple packet block")
			}
			wire := r.order.Uint32(body)
			caplen := min(wire, uint32(len(body)-4))
			if s := r.ifs[0].snaplen; s != 0 {
				caplen = min(caplen, s)
			}
			// A simple packet has no time of its own: it gets that of the packet before.
			f.frame(body[4:4+caplen:4+caplen], base+n+12, int(wire), f.count.lastTs, r.ifs[0].link)
		}
		n = end
	}
	r.off += int64(n)
	return n, nil
}

// addInterface reads an interface description block's body.
func (r *captureReader) addInterface(body []byte) {
	ifc := captureInterface{link: uint32(r.order.Uint16(body)), snaplen: r.order.Uint32(body[4:]), tsUnits: 1e6}
	for o := 8; o+4 <= len(body); {
		code, n := r.order.Uint16(body[o:]), int(r.order.Uint16(body[o+2:]))
		o += 4
		if code == 0 || o+n > len(body) {
			break
		}
		switch {
		case code == ngOptTsResol && n == 1:
			ifc.tsUnits, ifc.pow2 = 1e6, 0
			if v := body[o]; v&0x80 != 0 {
				ifc.pow2 = min(v&0x7f, 63)
				if ifc.pow2 == 0 {
					ifc.tsUnits = 1
				}
			} else {
				ifc.tsUnits = 1
				for range min(v, 19) {
					ifc.tsUnits *= 10
				}
			}
		case code == ngOptTsOff && n == 8:
			ifc.offset = int64(r.order.Uint64(body[o:]))
		}
		o += (n + 3) &^ 3
	}
	if !linkKnown(ifc.link) && r.oddLink != nil {
		r.oddLink(ifc.link)
	}
	r.ifs = append(r.ifs, ifc)
}

// nanoseconds converts a 64-bit time stamp in the interface's units to ns since 1970, clamped to what int64 holds (the
// years 1970 to 2262), so that a corrupt one can't wrap around.
func (i *captureInterface) nanoseconds(t uint64) int64 {
	var sec, ns uint64
	if i.pow2 != 0 {
		sec = t >> i.pow2
		hi, lo := bits.Mul64(t<<(64-i.pow2), 1e9)
		_ = lo
		ns = hi
	} else {
		sec = t / i.tsUnits
		hi, lo := bits.Mul64(t%i.tsUnits, 1e9)
		ns, _ = bits.Div64(hi, lo, i.tsUnits)
	}
	s := int64(min(sec, math.MaxInt64/2))
	if off := i.offset; off > math.MaxInt64/4 || off < math.MinInt64/4 {
		return math.MaxInt64
	} else if s += off; s < 0 {
		return 0
	}
	if s > math.MaxInt64/int64(time.Second)-1 {
		return math.MaxInt64
	}
	return s*1e9 + int64(ns)
}

// byteSource is where a capture file's bytes come from.
type byteSource interface{ Read(p []byte) (int, error) }

// readCapture feeds one capture file's frames to f. It returns errStopped when f.stop was closed.
func readCapture(f *feeder, name string, src byteSource, oddLink func(uint32)) error {
	r := &captureReader{name: name, oddLink: oddLink}
	pos, n := 0, f.cur.bytes
	pos = n
	var first time.Time // when the first byte of the current chunk came, where that matters
	pipe, _ := src.(*pipeReader)
	haveHeader := false
	var readErr error
	for {
		select {
		case <-f.stop:
			f.cur.bytes = pos
			return errStopped
		default:
		}
		if readErr == nil && n < len(f.cur.slab) {
			m, err := src.Read(f.cur.slab[n:])
			n += m
			if err != nil && err != errIdle {
				readErr = err
			}
			if pipe != nil {
				if first.IsZero() {
					first = time.Now()
				}
				if err == errIdle || time.Since(first) > chunkMaxAge {
					if f.cur.total > 0 {
						pos, n = f.carry(pos, n)
					}
					first = time.Time{}
				}
			}
		}
		if !haveHeader {
			if n-pos < 24 && readErr == nil {
				if n == len(f.cur.slab) {
					pos, n = f.carry(pos, n)
				}
				continue
			}
			if readErr != nil && readErr != io.EOF {
				if n-pos < 24 {
					return fmt.Errorf("read capture %q: %w", name, readErr)
				}
			}
			m, err := r.header(f.cur.slab[pos:n])
			if err != nil {
				return err
			}
			pos += m
			haveHeader = true
		}
		m, err := r.walk(f, f.cur.slab[pos:n], pos)
		pos += m
		f.cur.bytes = pos
		if err != nil {
			return err
		}
		switch {
		case f.full():
			pos, n = f.carry(pos, n)
		case readErr != nil:
			if readErr != io.EOF {
				return fmt.Errorf("read capture %q: %w", name, readErr)
			}
			if r.tail != 0 {
				r.off = r.skipOff
			}
			if pos < n || r.tail != 0 {
				return r.errorf("truncated: the file ends inside a record that begins")
			}
			return nil
		case n == len(f.cur.slab):
			pos, n = f.carry(pos, n)
		}
	}
}

// recordMax is more than the longest record or block that has to be seen whole.
const recordMax = ngMaxBlock + 4096

// carry hands the current chunk over and moves slab[pos:n], a record's beginning, to the start of the next one's, which
// grows once if the record may not fit.
func (f *feeder) carry(pos, n int) (int, int) {
	old := f.cur.slab
	f.handOver()
	if n-pos >= len(f.cur.slab) {
		f.cur.slab = make([]byte, max(recordMax, len(old)))
	}
	return 0, copy(f.cur.slab, old[pos:n])
}

// pipeReader reads in a goroutine of its own, for what does not answer at once (a pipe, a terminal, a decompressor), so
// that waiting for bytes can end early: for the chunk's age, and for the end of the program. The goroutine ends at the
// first error; a read(2) of a pipe can't be called off, so that may be after the program has stopped reading.
type pipeReader struct {
	full, empty chan []byte
	cur, last   []byte
	err         error
	errc        chan error
	stop        <-chan struct{}
	timer       *time.Timer
}

// pipeBuffers and pipeBuffer bound what a pipeReader holds.
const (
	pipeBuffers = 4
	pipeBuffer  = 256 << 10
)

// newPipeReader reads what open returns; open is called in the goroutine, since it may have to wait, too.
func newPipeReader(open func() (io.Reader, func() error, error), stop <-chan struct{}) *pipeReader {
	p := &pipeReader{full: make(chan []byte, pipeBuffers), empty: make(chan []byte, pipeBuffers), errc: make(chan error, 1), stop: stop, timer: time.NewTimer(time.Hour)}
	for range pipeBuffers {
		p.empty <- make([]byte, pipeBuffer)
	}
	go func() {
		defer close(p.full)
		r, done, err := open()
		if err != nil {
			p.errc <- err
			return
		}
		defer done()
		for {
			var b []byte
			select {
			case b = <-p.empty:
			case <-stop:
				return
			}
			n, err := r.Read(b[:cap(b)])
			p.full <- b[:n] // never blocks: there are as many places as buffers
			if err != nil {
				p.errc <- err
				return
			}
		}
	}()
	return p
}

// Read copies what has come, or waits for it up to chunkMaxAge (errIdle).
func (p *pipeReader) Read(dst []byte) (int, error) {
	for len(p.cur) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		if p.last != nil {
			p.empty <- p.last
			p.last = nil
		}
		p.timer.Reset(chunkMaxAge)
		select {
		case b, ok := <-p.full:
			if !ok {
				select {
				case p.err = <-p.errc:
				default:
					p.err = errStopped
				}
				return 0, p.err
			}
			p.cur, p.last = b, b
		case <-p.timer.C:
			return 0, errIdle
		case <-p.stop:
			return 0, errStopped
		}
	}
	n := copy(dst, p.cur)
	p.cur = p.cur[n:]
	return n, nil
}

// openCapture opens a capture file for reading, plain or compressed; "-" is standard input.
func openCapture(name string, stdin io.Reader, stop <-chan struct{}) (byteSource, func(), error) {
	if name == "-" {
		return newPipeReader(func() (io.Reader, func() error, error) { return sniffReader(stdin, nil) }, stop), func() {}, nil
	}
	fi, err := os.Stat(name)
	if err != nil {
		return nil, nil, fmt.Errorf("open capture %q: %w", name, pathReason(err))
	}
	if fi.IsDir() {
		return nil, nil, fmt.Errorf("open capture %q: is a directory", name)
	}
	if !fi.Mode().IsRegular() {
		return newPipeReader(func() (io.Reader, func() error, error) { return openPipe(name) }, stop), func() {}, nil
	}
	h, err := os.Open(name)
	if err != nil {
		return nil, nil, fmt.Errorf("open capture %q: %w", name, pathReason(err))
	}
	var magic [sniffLen]byte
	n, _ := h.ReadAt(magic[:], 0) // a file that can't be read says so when it is
	if compressFormat(magic[:n]) == "" {
		return h, func() { h.Close() }, nil
	}
	return newPipeReader(func() (io.Reader, func() error, error) { return sniffReader(h, nil) }, stop), func() { h.Close() }, nil
}

// openPipe opens what is no regular file, which may wait for a writer.
func openPipe(name string) (io.Reader, func() error, error) {
	h, err := os.Open(name)
	if err != nil {
		return nil, nil, pathReason(err)
	}
	r, done, err := sniffReader(h, nil)
	if err != nil {
		h.Close()
		return nil, nil, err
	}
	return r, func() error { return errors.Join(done(), h.Close()) }, nil
}

// pathReason strips the path that os put in front of the reason, since the caller names it.
func pathReason(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// readCaptures feeds the files named, one after the other. A damaged one does not keep the others from being read; each
// error is logged but the last, which is returned.
func readCaptures(f *feeder, names []string, stdin io.Reader, log logger) error {
	var failure error
	for _, name := range names {
		err := readOne(f, name, stdin, log)
		if err == nil {
			continue
		}
		if errors.Is(err, errStopped) {
			if failure != nil {
				return failure
			}
			return err
		}
		if failure != nil {
			log.errorf("%v", failure)
		}
		failure = err
	}
	return failure
}

// captureNames returns the captures that the -pcap argument names, in the order of their first packets.
func captureNames(arg string) ([]string, error) {
	names, err := expandCaptureList(arg)
	if err != nil {
		return nil, err
	}
	return orderByFirstPacket(names, firstPacket)
}

// firstPacket returns the time of a capture's first packet; ok is false where there is none. What is no capture file is an
// error; damage behind the file header is left to be found when the file is read.
func firstPacket(name string) (ts int64, ok bool, err error) {
	h, err := os.Open(name)
	if err != nil {
		return 0, false, fmt.Errorf("open capture %q: %w", name, pathReason(err))
	}
	defer h.Close()
	if fi, err := h.Stat(); err == nil && !fi.Mode().IsRegular() {
		return 0, false, fmt.Errorf("capture %q is not a regular file: it can only be read alone", name)
	}
	src, done, err := sniffReader(h, nil)
	if err != nil {
		return 0, false, fmt.Errorf("read capture %q: %w", name, err)
	}
	defer done()
	// A feeder whose chunk is full as soon as the first frame's tick is filed, and whose frames nobody wants.
	f := &feeder{
		defrag: newDefragmenter(fragLimits{}), filter: noFrames{}, workersN: 1, started: true,
		cur: &chunk{slab: make([]byte, recordMax), views: make([][]view, 1), total: viewsPerChunk - 1},
	}
	r := &captureReader{name: name}
	pos, n, header := 0, 0, false
	for {
		if n == len(f.cur.slab) {
			pos, n = 0, copy(f.cur.slab, f.cur.slab[pos:n])
		}
		m, readErr := src.Read(f.cur.slab[n:])
		n += m
		if !header {
			if n < 24 && readErr == nil {
				continue
			}
			if n < 24 && readErr != io.EOF {
				return 0, false, fmt.Errorf("read capture %q: %w", name, readErr)
			}
			if pos, err = r.header(f.cur.slab[:n]); err != nil {
				return 0, false, err
			}
			header = true
		}
		m, err := r.walk(f, f.cur.slab[pos:n], pos)
		pos += m
		if f.full() {
			return f.cur.views[0][0].ts, true, nil
		}
		if err != nil || readErr != nil {
			return 0, false, nil
		}
	}
}

// noFrames is a filter that nothing passes.
type noFrames struct{}

func (noFrames) matches([]byte, int, uint32) bool { return false }

func readOne(f *feeder, name string, stdin io.Reader, log logger) error {
	src, done, err := openCapture(name, stdin, f.stop)
	if err != nil {
		return err
	}
	defer done()
	log.debugf("reading capture %q", name)
	before := f.count
	err = readCapture(f, name, src, func(lt uint32) {
		log.warnf("read capture %q: packets of link type %s are not decoded", name, linkName(lt))
	})
	log.debugf("capture %q: %d packets of %d bytes read", name, f.count.frames-before.frames, f.count.frameBytes-before.frameBytes)
	return err
}
