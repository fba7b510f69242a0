// Package wire writes the synthetic captures of the benchmarks: capture files, frames from Ethernet up to UDP and
// TCP, and DNS messages.
//
// What enters: times in ns since 1970, addresses, payload bytes. What leaves: bytes appended to the caller's buffer
// or written to the caller's writer. Nothing here reads the clock or a random source, so that a generator built on
// it is deterministic. The package shares no code with the program that it measures: a mistake of one must not
// cancel out in the other.
//
// This file: capture files, and the queue that brings packets of many conversations into the order of time.
package wire

import (
	"bufio"
	"encoding/binary"
	"io"
)

// Pcap is a classic capture file (draft-ietf-opsawg-pcap), little endian, link type Ethernet.
type Pcap struct {
	w    *bufio.Writer
	unit int64 // ns per tick of the fraction: 1 or 1000
	head [16]byte
}

// snaplen is tcpdump's default.
const snaplen = 262144

// NewPcap writes the file header. With nano the fractions of a second are ns, otherwise µs.
func NewPcap(w io.Writer, nano bool) (*Pcap, error) {
	p := &Pcap{w: bufio.NewWriterSize(w, 1<<20), unit: 1000}
	magic := uint32(0xa1b2c3d4)
	if nano {
		magic, p.unit = 0xa1b23c4d, 1
	}
	var h [24]byte
	binary.LittleEndian.PutUint32(h[0:], magic)
	binary.LittleEndian.PutUint16(h[4:], 2)
	binary.LittleEndian.PutUint16(h[6:], 4)
	binary.LittleEndian.PutUint32(h[16:], snaplen)
	binary.LittleEndian.PutUint32(h[20:], 1)
	_, err := p.w.Write(h[:])
	return p, err
}

// Tick rounds a time down to what the file can say.
func (p *Pcap) Tick(ns int64) int64 { return ns - ns%p.unit }

// Packet writes one frame, which the caller keeps. ns is the time in ns since 1970; times before 1970 or after 2106 do
// not fit the format's 32 bits and wrap.
func (p *Pcap) Packet(ns int64, frame []byte) error {
	binary.LittleEndian.PutUint32(p.head[0:], uint32(ns/1e9))
	binary.LittleEndian.PutUint32(p.head[4:], uint32(ns%1e9/p.unit))
	binary.LittleEndian.PutUint32(p.head[8:], uint32(len(frame)))
	binary.LittleEndian.PutUint32(p.head[12:], uint32(len(frame)))
	if _, err := p.w.Write(p.head[:]); err != nil {
		return err
	}
	_, err := p.w.Write(frame)
	return err
}

// Close flushes; it does not close the writer beneath.
func (p *Pcap) Close() error { return p.w.Flush() }

// Pcapng is a capture file of the next format (draft-ietf-opsawg-pcapng), little endian, one Ethernet interface, times
// in µs, for the times that Pcap cannot say.
type Pcapng struct {
	w     *bufio.Writer
	block []byte
}

// NewPcapng writes the section header and the interface.
func NewPcapng(w io.Writer) (*Pcapng, error) {
	p := &Pcapng{w: bufio.NewWriterSize(w, 1<<20)}
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0x1a2b3c4d)
	b = le.AppendUint16(b, 1)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, ^uint64(0)) // length of the section: not said
	if err := p.write(0x0a0d0d0a, b); err != nil {
		return nil, err
	}
	return p, p.write(1, le.AppendUint32([]byte{1, 0, 0, 0}, snaplen))
}

// write adds one block, whose body is padded to 32 bits.
func (p *Pcapng) write(typ uint32, body []byte) error {
	le := binary.LittleEndian
	pad := -len(body) & 3
	size := uint32(12 + len(body) + pad)
	b := le.AppendUint32(p.block[:0], typ)
	b = le.AppendUint32(b, size)
	b = append(b, body...)
	b = append(b, make([]byte, pad)...)
	p.block = le.AppendUint32(b, size)
	_, err := p.w.Write(p.block)
	return err
}

// Packet writes one frame, which the caller keeps. us is the time in µs since 1970.
func (p *Pcapng) Packet(us uint64, frame []byte) error {
	le := binary.LittleEndian
	b := le.AppendUint32(make([]byte, 0, 20+len(frame)), 0)
	b = le.AppendUint32(b, uint32(us>>32))
	b = le.AppendUint32(b, uint32(us))
	b = le.AppendUint32(b, uint32(len(frame)))
	b = le.AppendUint32(b, uint32(len(frame)))
	return p.write(6, append(b, frame...))
}

// Close flushes; it does not close the writer beneath.
func (p *Pcapng) Close() error { return p.w.Flush() }

// Queue holds packets that lie in the future, a binary heap by time and then by the order of Push. The zero value is
// ready. Its buffers are used again: what Next returned is valid until the next call of Buffer.
type Queue struct {
	heap []timed
	free [][]byte
	seq  uint64
}

type timed struct {
	ns    int64
	seq   uint64
	frame []byte
}

func (a *timed) before(b *timed) bool { return a.ns < b.ns || a.ns == b.ns && a.seq < b.seq }

// Buffer returns an empty buffer to build a frame in and to give to Push.
func (q *Queue) Buffer() []byte {
	if n := len(q.free); n > 0 {
		b := q.free[n-1]
		q.free = q.free[:n-1]
		return b[:0]
	}
	return make([]byte, 0, 512)
}

// Push takes ownership of frame.
func (q *Queue) Push(ns int64, frame []byte) {
	q.seq++
	q.heap = append(q.heap, timed{ns, q.seq, frame})
	for i := len(q.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.heap[i].before(&q.heap[up]) {
			break
		}
		q.heap[i], q.heap[up] = q.heap[up], q.heap[i]
		i = up
	}
}

// Next takes the earliest packet out if it is due at the time until; ok says whether there was one.
func (q *Queue) Next(until int64) (ns int64, frame []byte, ok bool) {
	if len(q.heap) == 0 || q.heap[0].ns > until {
		return 0, nil, false
	}
	top := q.heap[0]
	last := len(q.heap) - 1
	q.heap[0] = q.heap[last]
	q.heap[last] = timed{}
	q.heap = q.heap[:last]
	for i := 0; ; {
		kid := 2*i + 1
		if kid >= last {
			break
		}
		if kid+1 < last && q.heap[kid+1].before(&q.heap[kid]) {
			kid++
		}
		if !q.heap[kid].before(&q.heap[i]) {
			break
		}
		q.heap[i], q.heap[kid] = q.heap[kid], q.heap[i]
		i = kid
	}
	q.free = append(q.free, top.frame)
	return top.ns, top.frame, true
}
