package main

// Records to a Fluentd, Fluent Bit or any receiver of the forward protocol, over a unix
// socket or TCP, through fluent-logger-golang: its connection, time-outs and acknowledgements.
// One batch is one message of the protocol's PackedForward mode, [tag, entries, option],
// each entry [EventTime, map] with the record's tstamp and its msgpack map as it is.
//
// The library itself would send one message for each record and wait for each one's
// acknowledgement: about 15,000 records/s at 65 µs. It writes a value that can marshal itself as
// that value likes, so fluentdFrame puts the head and entries of a PackedForward message in
// the place of the single record's; the library appends the option with the chunk's id.
//
// With acknowledgements, delivery is at least once: a batch whose acknowledgement did not
// come is sent again, and counted as resent. Without, what the kernel had taken when the
// receiver died is lost unnoticed. The library prints a line of its own to stderr when an
// acknowledgement fails, and cannot be interrupted while it waits for one.

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/fluent/fluent-logger-golang/fluent"
	"github.com/tinylib/msgp/msgp"
)

const (
	fluentdTimeout    = 5 * time.Second // to connect, to write a batch, and first for its acknowledgement
	fluentdMaxTimeout = time.Minute     // for an acknowledgement, after several that did not come
)

// fluentdOptions are the settings of the Fluentd sink.
type fluentdOptions struct {
	address string // path of a unix socket, or tcp://host:port
	tag     string
	ack     bool // wait for the receiver's acknowledgement of each batch
	log     logger
}

// validate returns an error that names the setting and its value.
func (o *fluentdOptions) validate() error {
	_, err := o.config()
	return err
}

// config returns the library's settings for these.
func (o *fluentdOptions) config() (fluent.Config, error) {
	c := fluent.Config{
		Timeout: fluentdTimeout, WriteTimeout: fluentdTimeout, ReadTimeout: fluentdTimeout,
		MaxRetry: 1, RetryWait: 1, MaxRetryWait: 1, // the queue does the retrying
		RequestAck: o.ack,
	}
	if o.tag == "" {
		return c, errors.New("fluentd: no tag")
	}
	if strings.ContainsFunc(o.tag, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return c, fmt.Errorf("fluentd: tag %q has a space or control character", o.tag)
	}
	address, tcp := strings.CutPrefix(o.address, "tcp://")
	if !tcp {
		if address == "" {
			return c, errors.New("fluentd: no socket")
		}
		if strings.Contains(address, "://") {
			return c, fmt.Errorf("fluentd: socket %q is neither a path nor tcp://host:port", o.address)
		}
		c.FluentNetwork, c.FluentSocketPath = "unix", address
		return c, nil
	}
	host, port, err := net.SplitHostPort(address)
	n, errPort := strconv.ParseUint(port, 10, 16)
	if err != nil || errPort != nil || n == 0 || host == "" {
		return c, fmt.Errorf("fluentd: socket %q is neither a path nor tcp://host:port", o.address)
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]" // the library appends the port to it as it is
	}
	c.FluentNetwork, c.FluentHost, c.FluentPort = "tcp", host, int(n)
	return c, nil
}

// fluentdFrame is a PackedForward message without its last element.
type fluentdFrame []byte

// MarshalMsg gives the frame for the whole message: b, the head of a single-record message,
// is left out.
func (f *fluentdFrame) MarshalMsg([]byte) ([]byte, error) { return *f, nil }

// Msgsize tells the library to make room for nothing but the head that is left out.
func (f *fluentdFrame) Msgsize() int { return 0 }

// fluentdSink is a sink on a forward receiver. Only the queue's goroutine uses it.
type fluentdSink struct {
	opt    fluentdOptions
	config fluent.Config
	wait   time.Duration  // for an acknowledgement, while all is well
	conn   *fluent.Fluent // nil: connect first
	head   []byte         // array header and tag
	frame  fluentdFrame   // of the batch being written, reused
	framed *batch         // the batch that frame holds
	count  sinkTally
}

// newFluentdSink checks the options; the queue connects.
func newFluentdSink(opt fluentdOptions) (*fluentdSink, error) {
	c, err := opt.config()
	if err != nil {
		return nil, err
	}
	return &fluentdSink{opt: opt, config: c, wait: c.ReadTimeout, head: msgp.AppendString(msgp.AppendArrayHeader(nil, 3), opt.tag)}, nil
}

func (s *fluentdSink) name() string { return "fluentd" }

func (s *fluentdSink) connect() error {
	conn, err := fluent.New(s.config)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	s.conn = conn
	return nil
}

func (s *fluentdSink) write(b *batch) error {
	if s.conn == nil {
		if err := s.connect(); err != nil {
			return err
		}
	}
	if s.framed != b {
		s.encode(b)
		s.framed = b
	}
	if err := s.conn.PostWithTime(s.opt.tag, time.Now(), &s.frame); err != nil {
		s.count.resent += uint64(b.records())
		s.conn.Close()
		s.conn = nil
		if !s.opt.ack {
			return fmt.Errorf("send: %w", err)
		}
		// Each copy that a slow receiver is sent makes it slower.
		s.config.ReadTimeout = min(2*s.config.ReadTimeout, fluentdMaxTimeout)
		return fmt.Errorf("send, or wait for the acknowledgement: %w", err)
	}
	s.config.ReadTimeout = s.wait
	s.count.delivered += uint64(b.records())
	s.framed = nil
	return nil
}

// encode makes the frame of b: the head, and the entries as one binary string.
func (s *fluentdSink) encode(b *batch) {
	if len(b.msgEnds) != b.records() {
		panic("BUG: a batch for Fluentd without msgpack")
	}
	const bin32, fixarray2, fixext8, eventTime = 0xc6, 0x92, 0xd7, 0x00
	f := append(append(s.frame[:0], s.head...), bin32, 0, 0, 0, 0)
	start := len(f)
	from := int32(0)
	for i := range b.records() {
		f = append(f, fixarray2)
		t := lineTime(b.line(i))
		if t.IsZero() {
			t = time.Now()
		}
		if sec := t.Unix(); sec >= 0 && sec <= math.MaxUint32 {
			f = append(f, fixext8, eventTime)
			f = binary.BigEndian.AppendUint32(f, uint32(sec))
			f = binary.BigEndian.AppendUint32(f, uint32(t.Nanosecond()))
		} else { // after 2106: an EventTime has 32 bits, but an integer of seconds is as good
			f = msgp.AppendInt64(f, sec)
		}
		f = append(f, b.msgpack[from:b.msgEnds[i]]...)
		from = b.msgEnds[i]
	}
	binary.BigEndian.PutUint32(f[start-4:], uint32(len(f)-start))
	s.frame = f
}

func (s *fluentdSink) tally() sinkTally { return s.count }

// close closes the connection: every batch was sent, and with acknowledgements arrived.
func (s *fluentdSink) close(context.Context) error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
