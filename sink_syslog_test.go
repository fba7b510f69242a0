package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/syslog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSyslogNames(t *testing.T) {
	facilities := strings.Fields("kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp audit alert clock local0 local1 local2 local3 local4 local5 local6 local7")
	severities := strings.Fields("emerg alert crit err warning notice info debug")
	for f, facility := range facilities {
		for p, priority := range severities {
			for _, o := range []syslogOptions{
				{facility: facility, priority: priority},
				{facility: strings.ToUpper(facility), priority: strings.ToUpper(priority)},
				{facility: "LOG_" + strings.ToUpper(facility), priority: "log_" + priority},
			} {
				if got, err := o.code(); err != nil || int(got) != f*8+p {
					t.Errorf("%s.%s: got %d, %v", o.facility, o.priority, got, err)
				}
			}
		}
	}
	for _, c := range []struct {
		opt  syslogOptions
		want string
	}{
		{syslogOptions{facility: "local8", priority: "info"}, `syslog: facility "local8": kern, user,`},
		{syslogOptions{facility: "", priority: "info"}, `syslog: facility "": kern, user,`},
		{syslogOptions{facility: "user", priority: "loud"}, `syslog: priority "loud": emerg, alert, crit, err, warning, notice, info and debug are possible`},
		{syslogOptions{facility: "user", priority: "info", address: "host"}, `syslog: address "host" is not udp://host:port, tcp://host:port or unix:path`},
		{syslogOptions{facility: "user", priority: "info", address: "http://host"}, `syslog: address "http://host" is not`},
		{syslogOptions{facility: "user", priority: "info", address: "udp://host:99999"}, `syslog: address "udp://host:99999" is not`},
		{syslogOptions{facility: "user", priority: "info", address: "tcp://"}, `syslog: address "tcp://" is not`},
		{syslogOptions{facility: "user", priority: "info", address: "unix:"}, `syslog: address "unix:" has no path`},
	} {
		if err := c.opt.validate(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

func TestSyslogTargets(t *testing.T) {
	for address, want := range map[string]string{
		"":                        "[{unixgram /dev/log} {unix /dev/log} {unixgram /var/run/syslog} {unix /var/run/syslog} {unixgram /var/run/log} {unix /var/run/log}]",
		"unix:/run/x":             "[{unixgram /run/x} {unix /run/x}]",
		"unix:///run/x":           "[{unixgram /run/x} {unix /run/x}]",
		"unix:x":                  "[{unixgram x} {unix x}]",
		"udp://h":                 "[{udp h:514}]",
		"tcp://192.0.2.1:99":      "[{tcp 192.0.2.1:99}]",
		"udp://[2001:db8::1]:514": "[{udp [2001:db8::1]:514}]",
		"udp://[2001:db8::1]":     "[{udp [2001:db8::1]:514}]",
	} {
		o := syslogOptions{address: address}
		got, err := o.targets()
		if fmt.Sprint(got) != want || err != nil {
			t.Errorf("%q: got %v, %v, want %s", address, got, err, want)
		}
	}
}

// listenSyslog listens on a socket of the given kind; the channel gets datagrams, or all
// that a connection brought.
func listenSyslog(t *testing.T, network string) (address string, got <-chan string) {
	t.Helper()
	ch := make(chan string, 10000)
	at := "127.0.0.1:0"
	if strings.HasPrefix(network, "unix") {
		at = filepath.Join(t.TempDir(), "log")
	}
	switch network {
	case "unixgram", "udp":
		c, err := net.ListenPacket(network, at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			buf := make([]byte, 1<<20)
			for {
				n, _, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				ch <- string(buf[:n])
			}
		}()
		address = c.LocalAddr().String()
	default:
		l, err := net.Listen(network, at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				data, _ := io.ReadAll(c)
				c.Close()
				ch <- string(data)
			}
		}()
		address = l.Addr().String()
	}
	return address, ch
}

// Every message is what log/syslog would write.
func TestSyslogLikeLogSyslog(t *testing.T) {
	for network, scheme := range map[string]string{"unixgram": "unix:", "unix": "unix:", "udp": "udp://", "tcp": "tcp://"} {
		t.Run(network, func(t *testing.T) {
			address, got := listenSyslog(t, network)
			line := testLine(1)
			ref, err := syslog.Dial(network, address, syslog.LOG_LOCAL3|syslog.LOG_NOTICE, "gopassivedns")
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(ref, line)
			ref.Close()
			want := <-got
			s, err := newSyslogSink(syslogOptions{facility: "local3", priority: "notice", address: scheme + address, log: &sinkLog{}})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.write(testBatch(line)); err != nil {
				t.Fatal(err)
			}
			if err := s.close(t.Context()); err != nil {
				t.Fatal(err)
			}
			stamp := regexp.MustCompile(`\d\d:\d\d:\d\d`)
			if g, w := stamp.ReplaceAllString(<-got, "T"), stamp.ReplaceAllString(want, "T"); g != w {
				t.Errorf("got  %q\nwant %q", g, w)
			}
			if got := s.tally(); got != (sinkTally{delivered: 1}) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestSyslogTooLong(t *testing.T) {
	address, got := listenSyslog(t, "udp")
	log := &sinkLog{}
	s, err := newSyslogSink(syslogOptions{facility: "user", priority: "info", address: "udp://" + address, log: log})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.write(testBatch(testLine(1), strings.Repeat("x", 70000)+"\n", strings.Repeat("y", 80000)+"\n", testLine(2))); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{testLine(1), testLine(2)} {
		if m := <-got; !strings.HasSuffix(m, want) {
			t.Errorf("got %q", m)
		}
	}
	if got := s.tally(); got != (sinkTally{delivered: 2, lost: 2}) || len(log.said()) != 1 {
		t.Errorf("got %+v, said %q", got, log.said())
	}
	s.close(t.Context())
}

// A stream that breaks in the middle of a line sends that line again, whole, and goes on.
func TestSyslogStreamCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := newSyslogSink(syslogOptions{facility: "user", priority: "info", address: "unix:" + path, log: &sinkLog{}})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []string)
	go func() {
		var lines []string
		for first := true; ; first = false {
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
				break
			}
			var data []byte
			if first {
				data, _ = io.ReadAll(io.LimitReader(c, 100_123))
			} else {
				data, _ = io.ReadAll(c)
			}
			c.Close()
			lines = append(lines, strings.SplitAfter(string(data), "\n")...)
			if !first {
				break
			}
		}
		got <- lines
	}()
	bs, want := testBatches(0, 2000, 2000)
	failures := 0
	for err := s.write(bs[0]); err != nil; err = s.write(bs[0]) {
		failures++
	}
	s.close(t.Context())
	// What the first connection had taken and was not read is lost. Of the rest no line is
	// torn but the one where the reading stopped, and the order is kept.
	last, whole, torn := -1, 0, 0
	for _, m := range <-got {
		_, line, _ := strings.Cut(m, "]: ")
		if i := strings.Index(string(want), line); strings.HasSuffix(line, "}\n") && i > last {
			last = i
			whole++
		} else if m != "" {
			torn++
		}
	}
	tally := s.tally()
	if tally.delivered != 2000 || tally.lost != 0 || failures != 1 || torn > 1 || whole < 1000 || last != strings.Index(string(want), testLine(1999)) {
		t.Errorf("%+v, %d failures, %d whole lines, %d torn, the last at %d", tally, failures, whole, torn, last)
	}
}

// rsyslog is a running rsyslogd with a unix socket, UDP and TCP inputs that writes the
// messages, and nothing else of them, to a file.
type rsyslog struct {
	t         *testing.T
	dir, conf string
	port      int
	cmd       *exec.Cmd
}

func startRsyslog(t *testing.T) *rsyslog {
	t.Helper()
	r := &rsyslog{t: t, dir: t.TempDir(), port: freePort(t)}
	r.conf = filepath.Join(r.dir, "rsyslog.conf")
	conf := fmt.Sprintf(`
global(workDirectory="%[1]s" maxMessageSize="64k" net.enableDNS="off")
main_queue(queue.type="Direct")
module(load="imuxsock" SysSock.Use="off")
module(load="imudp")
module(load="imtcp")
input(type="imuxsock" Socket="%[1]s/log.sock" CreatePath="on" RateLimit.Interval="0")
input(type="imudp" address="127.0.0.1" port="%[2]d" rcvbufSize="8m")
input(type="imtcp" address="127.0.0.1" port="%[2]d")
template(name="raw" type="string" string="%%msg:2:$%%\n")
if $programname == "gopassivedns" then action(type="omfile" file="%[1]s/out.log" template="raw" asyncWriting="off" flushOnTXEnd="on")
`, r.dir, r.port)
	if err := os.WriteFile(r.conf, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	return r
}

func (r *rsyslog) start() {
	r.t.Helper()
	path, err := exec.LookPath("rsyslogd")
	if err != nil {
		path = "/usr/sbin/rsyslogd"
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") != "" {
			r.t.Fatal("rsyslogd is missing: apt-get install rsyslog")
		}
		r.t.Skip("rsyslogd is not installed (Debian: rsyslog)")
	}
	r.cmd = exec.Command(path, "-n", "-f", r.conf, "-i", filepath.Join(r.dir, "pid"))
	var said bytes.Buffer
	r.cmd.Stdout, r.cmd.Stderr = &said, &said
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	cmd := r.cmd
	r.t.Cleanup(func() { cmd.Process.Signal(syscall.SIGCONT); cmd.Process.Kill(); cmd.Wait() })
	waitFor(r.t, "rsyslogd to listen", func() bool {
		c, err := net.Dial("unixgram", filepath.Join(r.dir, "log.sock"))
		if err != nil {
			return false
		}
		c.Close()
		c, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
}

// kill ends the daemon at once, so that what it has not read is lost.
func (r *rsyslog) kill() {
	r.cmd.Process.Kill()
	r.cmd.Wait()
}

func (r *rsyslog) got() []byte {
	data, err := os.ReadFile(filepath.Join(r.dir, "out.log"))
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	return data
}

func (r *rsyslog) queue(scheme string, opt sinkOptions, log *sinkLog) *sinkQueue {
	address := "unix:" + r.dir + "/log.sock"
	if scheme != "unix" {
		address = scheme + "://127.0.0.1:" + strconv.Itoa(r.port)
	}
	s, err := newSyslogSink(syslogOptions{facility: "local0", priority: "info", address: address, log: log})
	if err != nil {
		r.t.Fatal(err)
	}
	s.timeout = time.Second
	opt.log = log
	return newSinkQueue(s, opt)
}

func TestSyslogIntoRsyslog(t *testing.T) {
	for _, scheme := range []string{"unix", "udp", "tcp"} {
		t.Run(scheme, func(t *testing.T) {
			defer noLeaks(t)()
			r := startRsyslog(t)
			log := &sinkLog{}
			q := r.queue(scheme, sinkOptions{queueBytes: 1 << 20, block: true}, log)
			bs, want := testBatches(0, 3000, 500)
			for _, b := range bs {
				q.submit(b)
				if scheme == "udp" { // promises nothing when sent faster than read
					waitFor(t, "datagrams", func() bool { return bytes.Count(r.got(), []byte("\n"))%500 == 0 && balanced(t, q).queuedRecords == 0 })
				}
			}
			if err := q.drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "lines", func() bool { return len(r.got()) >= len(want) })
			if !bytes.Equal(r.got(), want) {
				t.Error("lines differ")
			}
			if said := log.said(); said != nil || balanced(t, q).written != 3000 {
				t.Errorf("got %+v, said %q", q.stats(), said)
			}
			r.kill()
		})
	}
}

// The daemon is down at start, comes, goes and comes again: what it cannot take waits.
func TestSyslogDaemonRestarts(t *testing.T) {
	for _, scheme := range []string{"unix", "tcp"} {
		t.Run(scheme, func(t *testing.T) {
			defer noLeaks(t)()
			r := startRsyslog(t)
			r.kill()
			log := &sinkLog{}
			q := r.queue(scheme, sinkOptions{queueBytes: 1 << 20, block: true}, log)
			bs, want := testBatches(0, 3000, 500)
			for i, b := range bs {
				if i == 3 { // idle and unaware when the daemon dies
					waitFor(t, "lines", func() bool { return bytes.Count(r.got(), []byte("\n")) == 1500 })
					r.kill()
				}
				if i == 3 && scheme == "tcp" {
					// The first write to a dead connection is taken by our own kernel and lost
					// with it, as README says. It is one batch's first piece at most.
					q.submit(testBatch(testLine(999_999)))
					waitFor(t, "the connection's end", func() bool {
						q.submit(testBatch(testLine(999_999)))
						return q.stats().failing
					})
				}
				q.submit(b)
				if i%3 == 0 {
					waitFor(t, "an error", func() bool { return q.stats().failing })
					r.start()
				}
			}
			waitSettled(t, q)
			if err := q.drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			var got []byte
			waitFor(t, "lines", func() bool {
				got = bytes.ReplaceAll(r.got(), []byte(testLine(999_999)), nil)
				return len(got) >= len(want)
			})
			if !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, want %d", len(got), len(want))
			}
			said := log.said()
			if len(said) != 4 || !strings.Contains(said[0], "; trying again until it works") || !strings.Contains(said[3], "works again after") {
				t.Errorf("said %q", said)
			}
			r.kill()
		})
	}
}

// countLines returns how many lines of want are in got, each once.
func countLines(got, want []byte) int {
	left := make(map[string]bool)
	for _, line := range strings.SplitAfter(string(want), "\n") {
		left[line] = true
	}
	n := 0
	for _, line := range strings.SplitAfter(string(got), "\n") {
		if line != "" && left[line] {
			left[line] = false
			n++
		}
	}
	return n
}

// The daemon is killed while it takes messages: lost is only what it had not read.
func TestSyslogKilledUnderLoad(t *testing.T) {
	defer noLeaks(t)()
	r := startRsyslog(t)
	q := r.queue("unix", sinkOptions{queueBytes: 1 << 20, block: true}, &sinkLog{})
	bs, want := testBatches(0, 20000, 500)
	for i, b := range bs {
		q.submit(b)
		if i == len(bs)/2 {
			waitFor(t, "lines", func() bool { return len(r.got()) > 0 })
			r.kill()
			r.start()
		}
	}
	waitSettled(t, q)
	if err := q.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the last line", func() bool { return bytes.HasSuffix(r.got(), []byte(testLine(19999))) })
	lines := countLines(r.got(), want)
	st := balanced(t, q)
	t.Logf("%d of %d lines arrived, %+v", lines, 20000, st)
	// The kernel holds 11 messages (max_dgram_qlen 10), and this rsyslogd, whose own queue is
	// switched off, one more.
	if st.written != 20000 || st.failed != 0 || lines < 20000-100 {
		t.Errorf("%d lines, %+v", lines, st)
	}
	r.kill()
}

// The daemon is stopped: live traffic is dropped and counted, nothing hangs, and what was
// taken arrives.
func TestSyslogDaemonStopped(t *testing.T) {
	for _, scheme := range []string{"unix", "tcp"} {
		t.Run(scheme, func(t *testing.T) {
			defer noLeaks(t)()
			r := startRsyslog(t)
			log := &sinkLog{}
			q := r.queue(scheme, sinkOptions{queueBytes: 300_000}, log)
			r.cmd.Process.Signal(syscall.SIGSTOP)
			bs, want := testBatches(0, 50000, 100)
			for _, b := range bs { // 21 MB: more than all kernel buffers
				q.submit(b)
				balanced(t, q)
				time.Sleep(100 * time.Microsecond) // a live source has its pace
			}
			waitFor(t, "drops and an error", func() bool { st := q.stats(); return st.dropped > 0 && st.failing })
			r.cmd.Process.Signal(syscall.SIGCONT)
			waitSettled(t, q)
			st := balanced(t, q)
			waitFor(t, "lines", func() bool { return uint64(bytes.Count(r.got(), []byte("\n"))) >= st.written })
			if got := uint64(countLines(r.got(), want)); got != st.written || st.written+st.dropped != 50000 {
				t.Errorf("%d lines arrived, %+v", got, st)
			}

			// And stopped at the end: the drain's limit holds, and the count is right.
			r.cmd.Process.Signal(syscall.SIGSTOP)
			i, before := 0, q.stats().errors
			waitFor(t, "the kernel's buffers to be full", func() bool { // they grow while they are: hence 3 times
				q.submit(bs[i%len(bs)])
				i++
				st := q.stats()
				return st.failing && st.errors >= before+3
			})
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			start := time.Now()
			if err := q.drain(ctx); err == nil {
				t.Errorf("no error; said %q", log.said())
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("drain took %v", took)
			}
			<-q.finished
			st = balanced(t, q)
			r.cmd.Process.Signal(syscall.SIGCONT)
			waitFor(t, "lines", func() bool { return uint64(bytes.Count(r.got(), []byte("\n"))) >= st.written })
			if got := uint64(bytes.Count(r.got(), []byte("\n"))); st.failed == 0 || got > st.written+1 { // TCP: a cut line
				t.Errorf("%d lines arrived, %+v", got, st)
			}
			r.kill()
		})
	}
}

func BenchmarkSyslogSink(b *testing.B) {
	path := filepath.Join(b.TempDir(), "log")
	c, err := net.ListenPacket("unixgram", path)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	go func() {
		buf := make([]byte, 1<<16)
		for {
			if _, _, err := c.ReadFrom(buf); err != nil {
				return
			}
		}
	}()
	s, err := newSyslogSink(syslogOptions{facility: "local0", priority: "info", address: "unix:" + path, log: &sinkLog{}})
	if err != nil {
		b.Fatal(err)
	}
	bs, _ := testBatches(0, 700, 700)
	b.ReportAllocs()
	start, n := time.Now(), 0
	for b.Loop() {
		if err := s.write(bs[0]); err != nil {
			b.Fatal(err)
		}
		n += 700
	}
	b.ReportMetric(float64(n)/time.Since(start).Seconds(), "records/s")
	s.close(b.Context())
}
