package main

// Lines to a syslog daemon, one message each: over the local socket, a named unix socket, UDP
// or TCP, with the facility, severity and header of Go's log/syslog. The connection is our
// own: log/syslog's Write has no deadline and its Close waits for a blocked Write, so that a
// stopped daemon could not be left at the end; and its formatting costs five times as much.
//
// What each transport promises: a unix datagram socket makes us wait while the daemon is
// slow, and loses what lies unread in it (some ten messages) when the daemon dies. UDP
// promises nothing. TCP loses what lies unread in both kernels when the daemon dies. The
// counts say what the kernel took. Daemons cut long messages (rsyslog by default at 8 KiB);
// what the socket refuses as too long is counted as lost.

import (
	"context"
	"errors"
	"fmt"
	"log/syslog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	syslogTimeout = 5 * time.Second // to connect, and for the daemon to take a piece or 64 datagrams
	syslogPiece   = 32 << 10        // bytes of a write to a stream
)

// syslogLocal are the sockets tried when no address is given.
var syslogLocal = []string{"/dev/log", "/var/run/syslog", "/var/run/log"}

// syslogFacilities are the facilities of RFC 5424 table 1 by their usual keywords.
var syslogFacilities = map[string]syslog.Priority{
	"kern": syslog.LOG_KERN, "user": syslog.LOG_USER, "mail": syslog.LOG_MAIL, "daemon": syslog.LOG_DAEMON,
	"auth": syslog.LOG_AUTH, "syslog": syslog.LOG_SYSLOG, "lpr": syslog.LOG_LPR, "news": syslog.LOG_NEWS,
	"uucp": syslog.LOG_UUCP, "cron": syslog.LOG_CRON, "authpriv": syslog.LOG_AUTHPRIV, "ftp": syslog.LOG_FTP,
	"ntp": 12 << 3, "audit": 13 << 3, "alert": 14 << 3, "clock": 15 << 3,
	"local0": syslog.LOG_LOCAL0, "local1": syslog.LOG_LOCAL1, "local2": syslog.LOG_LOCAL2, "local3": syslog.LOG_LOCAL3,
	"local4": syslog.LOG_LOCAL4, "local5": syslog.LOG_LOCAL5, "local6": syslog.LOG_LOCAL6, "local7": syslog.LOG_LOCAL7,
}

// syslogSeverities are the severities of RFC 5424 table 2, by keyword and by name.
var syslogSeverities = map[string]syslog.Priority{
	"emerg": syslog.LOG_EMERG, "emergency": syslog.LOG_EMERG, "alert": syslog.LOG_ALERT, "crit": syslog.LOG_CRIT, "critical": syslog.LOG_CRIT,
	"err": syslog.LOG_ERR, "error": syslog.LOG_ERR, "warning": syslog.LOG_WARNING, "warn": syslog.LOG_WARNING, "notice": syslog.LOG_NOTICE,
	"info": syslog.LOG_INFO, "informational": syslog.LOG_INFO, "debug": syslog.LOG_DEBUG,
}

// syslogOptions are the settings of the syslog sink.
type syslogOptions struct {
	facility string // a name of RFC 5424, in any case
	priority string // likewise: the severity
	address  string // udp://host[:514], tcp://host[:514], unix:path; default: the local daemon
	log      logger
}

// validate returns an error that names the setting and its value.
func (o *syslogOptions) validate() error {
	if _, err := o.code(); err != nil {
		return err
	}
	_, err := o.targets()
	return err
}

// code returns facility and severity as one number.
func (o *syslogOptions) code() (syslog.Priority, error) {
	name := func(s string) string { return strings.TrimPrefix(strings.ToLower(s), "log_") }
	facility, ok := syslogFacilities[name(o.facility)]
	if !ok {
		return 0, fmt.Errorf("syslog: facility %q: kern, user, mail, daemon, auth, syslog, lpr, news, uucp, cron, authpriv, ftp, ntp, audit, alert, clock and local0 to local7 are possible", o.facility)
	}
	severity, ok := syslogSeverities[name(o.priority)]
	if !ok {
		return 0, fmt.Errorf("syslog: priority %q: emerg, alert, crit, err, warning, notice, info and debug are possible", o.priority)
	}
	return facility | severity, nil
}

// syslogTarget is something to dial.
type syslogTarget struct{ network, address string }

// targets returns what to dial, in this order.
func (o *syslogOptions) targets() ([]syslogTarget, error) {
	if o.address == "" {
		var ts []syslogTarget
		for _, path := range syslogLocal {
			ts = append(ts, syslogTarget{"unixgram", path}, syslogTarget{"unix", path})
		}
		return ts, nil
	}
	if path, ok := strings.CutPrefix(o.address, "unix:"); ok {
		if strings.HasPrefix(path, "///") {
			path = path[2:]
		}
		if path == "" || strings.HasPrefix(path, "//") {
			return nil, fmt.Errorf("syslog: address %q has no path", o.address)
		}
		return []syslogTarget{{"unixgram", path}, {"unix", path}}, nil
	}
	network, address, ok := strings.Cut(o.address, "://")
	if !ok || network != "udp" && network != "tcp" {
		return nil, fmt.Errorf("syslog: address %q is not udp://host:port, tcp://host:port or unix:path", o.address)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]"), "514"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" || strings.ContainsAny(host, "/[] ") {
		return nil, fmt.Errorf("syslog: address %q is not udp://host:port, tcp://host:port or unix:path", o.address)
	}
	return []syslogTarget{{network, net.JoinHostPort(host, port)}}, nil
}

// syslogSink is a sink on a syslog daemon. Only the queue's goroutine uses it, but for
// interrupt.
type syslogSink struct {
	opt     syslogOptions
	targets []syslogTarget
	start   string // "<134>"
	end     string // " gopassivedns[123]: "
	host    string // " resolver1", in messages that leave the machine
	timeout time.Duration

	mu      sync.Mutex
	conn    net.Conn // nil: connect first
	stopped bool     // interrupted: connect no more

	stream bool
	remote bool
	cur    *batch
	next   int    // first record of cur that is not taken
	buf    []byte // messages of a stream's write, or one message
	sent   int    // bytes of buf that a stream has taken
	ends   []int  // behind each message in buf; the first one is record next
	header []byte // of the messages of this second
	second int64
	count  sinkTally
}

// newSyslogSink checks the options; the queue connects.
func newSyslogSink(opt syslogOptions) (*syslogSink, error) {
	code, err := opt.code()
	if err != nil {
		return nil, err
	}
	targets, err := opt.targets()
	if err != nil {
		return nil, err
	}
	s := &syslogSink{
		opt: opt, targets: targets, start: "<" + strconv.Itoa(int(code)) + ">", end: " gopassivedns[" + strconv.Itoa(os.Getpid()) + "]: ",
		host: " localhost", timeout: syslogTimeout,
	}
	if name, err := os.Hostname(); err == nil {
		s.host = " " + name
	}
	return s, nil
}

func (s *syslogSink) name() string { return "syslog" }

// connect dials the first target that answers.
func (s *syslogSink) connect() error {
	var errs []error
	for _, t := range s.targets {
		conn, err := net.DialTimeout(t.network, t.address, s.timeout)
		if err != nil {
			// EPROTOTYPE only says that the socket is of the other kind.
			if !errors.Is(err, syscall.EPROTOTYPE) {
				errs = append(errs, err)
			}
			continue
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.stopped {
			conn.Close()
			return net.ErrClosed
		}
		s.conn = conn
		s.stream = t.network == "tcp" || t.network == "unix"
		s.remote = t.network == "tcp" || t.network == "udp"
		s.second = 0
		return nil
	}
	if len(errs) > 0 {
		return fmt.Errorf("connect: %w", errs[0])
	}
	return errors.New("connect: no syslog socket")
}

func (s *syslogSink) write(b *batch) error {
	if s.cur != b {
		s.cur, s.next, s.sent, s.ends = b, 0, 0, s.ends[:0]
	}
	if s.conn == nil {
		if err := s.connect(); err != nil {
			return err
		}
	}
	var err error
	if s.stream {
		err = s.writeStream(b)
	} else {
		err = s.writeDatagrams(b)
	}
	if err != nil {
		// A daemon that is slow keeps its connection, and a stream its place in the line.
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			s.hangUp()
		}
		return err
	}
	s.cur = nil
	return nil
}

// writeStream writes messages, ended by their newlines, some KB at a time.
func (s *syslogSink) writeStream(b *batch) error {
	for s.next < b.records() {
		if len(s.ends) == 0 { // nothing half-sent
			s.buf, s.sent = s.buf[:0], 0
			for i := s.next; i < b.records() && len(s.buf) < syslogPiece; i++ {
				s.buf = append(s.appendHeader(s.buf), b.line(i)...)
				s.ends = append(s.ends, len(s.buf))
			}
		}
		if err := s.conn.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		n, err := s.conn.Write(s.buf[s.sent:])
		s.sent += n
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		s.count.delivered += uint64(len(s.ends))
		s.next += len(s.ends)
		s.ends = s.ends[:0]
	}
	return nil
}

// writeDatagrams writes one message at a time.
func (s *syslogSink) writeDatagrams(b *batch) error {
	for first := s.next; s.next < b.records(); s.next++ {
		if (s.next-first)%64 == 0 { // the deadline is for 64 messages, because setting it costs
			if err := s.conn.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
				return fmt.Errorf("write: %w", err)
			}
		}
		s.buf = append(s.appendHeader(s.buf[:0]), b.line(s.next)...)
		_, err := s.conn.Write(s.buf)
		switch {
		case err == nil:
			s.count.delivered++
		case errors.Is(err, syscall.EMSGSIZE):
			if s.count.lost++; s.count.lost == 1 {
				s.opt.log.errorf("sink syslog: a message of %d bytes is too long for a datagram and is lost; more are only counted", len(s.buf))
			}
		default:
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// appendHeader appends what stands before the line, made once a second.
func (s *syslogSink) appendHeader(dst []byte) []byte {
	now := time.Now()
	if now.Unix() != s.second {
		s.second = now.Unix()
		s.header = append(s.header[:0], s.start...)
		if s.remote {
			s.header = append(now.AppendFormat(s.header, time.RFC3339), s.host...)
		} else {
			s.header = now.AppendFormat(s.header, time.Stamp)
		}
		s.header = append(s.header, s.end...)
	}
	return append(dst, s.header...)
}

// hangUp closes the connection. What a stream had taken of its last piece cannot be known
// to have arrived: whole messages of it count as delivered, and a cut one is sent again.
func (s *syslogSink) hangUp() {
	s.mu.Lock()
	s.conn.Close()
	s.conn = nil
	s.mu.Unlock()
	cut := 0
	for _, end := range s.ends {
		if s.sent < end {
			if s.sent > cut {
				s.count.resent++
			}
			break
		}
		s.count.delivered++
		s.next++
		cut = end
	}
	s.ends = s.ends[:0]
}

func (s *syslogSink) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	if s.conn != nil {
		s.conn.Close() // ends a write that waits
	}
}

func (s *syslogSink) tally() sinkTally { return s.count }

// close closes the connection.
func (s *syslogSink) close(context.Context) error {
	if s.conn != nil {
		s.hangUp()
	}
	return nil
}
