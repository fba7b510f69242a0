// Command soak keeps gopassivedns busy on a live device for a long time and watches it.
//
//	go run ./testdata/bench/soak -bin ./gopassivedns -dir build/soak [-time 30m] [-rate 5000] [-args '…']
//
// What enters: a binary. What leaves: a line every minute, a table at the end, and exit code 1 with a line for each
// requirement that is missed. The command starts itself in a network namespace of its own, makes a veth pair there, sends
// ordinary traffic and every flood into one end, round and round, and has gopassivedns capture at the other, with records
// on stdout, in a rotated file and to the receivers below, status records, and metrics.
//
// Receivers: statsd, a Kafka cluster (kfake), a Fluentd socket and a syslog server that take everything and throw it away. -args
// are the flags for the last three, in which {kafka}, {fluentd} and {syslog} stand for their addresses.
//
// Required: memory is flat (in the last third of the time it is not more than a tenth and 16 MB above that of the
// second third), the account adds up whenever it is asked for (SIGUSR1, once a minute) and at the end, every line is JSON,
// no sink has failed, and every good lookup has its record, unless the summary says that the kernel dropped packets, or
// stdout's queue records, because this command did not read fast enough.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
	"github.com/twmb/franz-go/pkg/kfake"
	"golang.org/x/sys/unix"
)

type options struct {
	bin, dir, args string
	time           time.Duration
	rate           int
	seed           uint64
}

// floodKinds are the floods whose times don't matter, since live packets have the time at which they come.
var floodKinds = []string{
	"spoofed-queries", "unsolicited", "long-queries", "same-key", "pointer-bombs", "rr-counts", "names127", "txt64k", "tcp-halfopen",
	"tcp-onebyte", "tcp-neverending", "frag-overlap", "frag-tiny", "frag-incomplete", "mixed-3", "vlan-nest", "tunnel-nest", "everything", "noise",
}

// growing are those of them of which a packet may become a hundred lines. They are sent at a twentieth of the rate, so
// that the reader of the records, not the program, does not set the pace.
var growing = []string{"names127", "rr-counts", "pointer-bombs", "txt64k", "everything"}

// source is a capture whose frames are sent.
type source struct {
	frames [][]byte
	good   int
	slower int // divides the rate
}

// sinks are the flags for the receivers.
const sinks = "-kafka_brokers {kafka} -kafka_topic dns -fluentd_socket {fluentd} -fluentd_ack=false -syslog_facility local0 -syslog_priority info -syslog_address tcp://{syslog}"

const (
	outside = "c0" // frames are sent here
	inside  = "s0" // and captured here
	inEnv   = "GOPASSIVEDNS_SOAK_NAMESPACE"
)

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "./gopassivedns", "the binary to run")
	flag.StringVar(&o.dir, "dir", "build/soak", "directory for captures and the log file")
	flag.StringVar(&o.args, "args", sinks, "more flags for it, separated by blanks")
	flag.DurationVar(&o.time, "time", 30*time.Minute, "how long")
	flag.IntVar(&o.rate, "rate", 5000, "packets a second")
	flag.Uint64Var(&o.seed, "seed", 1, "of the order in which the floods come")
	flag.Parse()
	if flag.NArg() > 0 || o.time < 10*time.Second || o.rate < 100 {
		flag.Usage()
		os.Exit(2)
	}
	if os.Getenv(inEnv) == "" {
		os.Exit(inNamespace())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	missed, err := run(ctx, &o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
	for _, m := range missed {
		fmt.Println("MISSED:", m)
	}
	if len(missed) > 0 {
		os.Exit(1)
	}
	fmt.Println("Every requirement is met.")
}

// inNamespace runs this command again in a network namespace of its own.
func inNamespace() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "soak: it needs root, to make a network namespace")
		return 1
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	signal.Ignore(os.Interrupt) // it is the other's to obey
	var exit *exec.ExitError
	switch err := cmd.Run(); {
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "soak:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, o *options) (missed []string, err error) {
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return nil, err
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return nil, err
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", outside, "type", "veth", "peer", "name", inside},
		{"link", "set", outside, "mtu", "9000", "up"},
		{"link", "set", inside, "mtu", "9000", "up"},
	} {
		if out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ip %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	sources, err := load(ctx, o)
	if err != nil {
		return nil, err
	}
	rx, err := openReceivers(o.dir)
	if err != nil {
		return nil, err
	}
	defer rx.close()
	w, err := watch(o, rx)
	if err != nil {
		return nil, err
	}
	defer w.kill()
	if err := w.ready(ctx); err != nil {
		return nil, err
	}
	s := &sender{rate: o.rate, r: rand.New(rand.NewPCG(o.seed, 0))}
	if err := s.send(ctx, sources, o.time, w); err != nil {
		return nil, err
	}
	return w.finish(s)
}

// load makes the captures and reads their frames.
func load(ctx context.Context, o *options) (sources []source, err error) {
	build := func(name string) (string, error) {
		bin := filepath.Join(o.dir, name)
		out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "gopassivedns/testdata/bench/"+name).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
		return bin, nil
	}
	gen, err := build("gen")
	if err != nil {
		return nil, err
	}
	flood, err := build("flood")
	if err != nil {
		return nil, err
	}
	path, truth := filepath.Join(o.dir, "soak.pcap"), filepath.Join(o.dir, "soak.truth.json")
	defer os.Remove(path)
	defer os.Remove(truth)
	one := func(kind string, bin string, args ...string) error {
		args = append(args, "-o", path, "-truth", truth)
		if out, err := exec.CommandContext(ctx, bin, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("generate %s: %w\n%s", kind, err, out)
		}
		b, err := os.ReadFile(truth)
		if err != nil {
			return err
		}
		var t struct {
			GoodLookups int `json:"good_lookups"`
		}
		if err := json.Unmarshal(b, &t); err != nil {
			return err
		}
		s := source{good: t.GoodLookups, slower: 1}
		if slices.Contains(growing, kind) {
			s.slower = 20
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		r, err := pcapgo.NewReader(bufio.NewReader(f))
		if err != nil {
			return err
		}
		for {
			b, _, err := r.ReadPacketData()
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			s.frames = append(s.frames, b)
		}
		sources = append(sources, s)
		return nil
	}
	if err := one("ordinary", gen, "-packets", "50000", "-tcp", "0.10"); err != nil {
		return nil, err
	}
	for _, kind := range floodKinds {
		n := "5000"
		if slices.Contains(growing, kind) || kind == "mixed-3" {
			n = "1000"
		}
		if err := one(kind, flood, "-kind", kind, "-n", n); err != nil {
			return nil, err
		}
	}
	return sources, nil
}

// sender puts frames on the wire.
type sender struct {
	rate        int
	r           *rand.Rand
	frames      int
	bytes       int
	rounds      int
	goodLookups int
	refused     int // by the device
}

// send sends the sources for a time, each whole: ordinary traffic before each flood, the floods in an order that
// changes with each round.
func (s *sender) send(ctx context.Context, sources []source, for_ time.Duration, w *watched) error {
	dev, err := net.InterfaceByName(outside)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Ifindex: dev.Index}
	begin := time.Now()
	next := begin
	one := func(src *source) error {
		burst := max(1, s.rate/100/src.slower)
		for i, b := range src.frames {
			if i%burst == 0 {
				next = next.Add(10 * time.Millisecond)
				if wait := time.Until(next); wait > 0 {
					time.Sleep(wait)
				} else if wait < -time.Second {
					next = time.Now() // the machine is busy: don't catch up
				}
				if ctx.Err() != nil || w.ended.Load() {
					return nil
				}
			}
			err := unix.Sendto(fd, b, 0, to)
			for errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR) {
				time.Sleep(time.Millisecond)
				err = unix.Sendto(fd, b, 0, to)
			}
			if err != nil { // a frame that is no frame: too short
				s.refused++
				continue
			}
			s.frames++
			s.bytes += len(b)
		}
		s.goodLookups += src.good
		return nil
	}
	ordinary, others := &sources[0], sources[1:]
	for time.Since(begin) < for_ && ctx.Err() == nil && !w.ended.Load() {
		s.rounds++
		for _, i := range s.r.Perm(len(others)) {
			part := &source{frames: ordinary.frames[:min(len(ordinary.frames), 5000)], slower: 1}
			if err := one(part); err != nil {
				return err
			}
			if err := one(&others[i]); err != nil {
				return err
			}
			if time.Since(begin) >= for_ {
				break
			}
		}
	}
	return ctx.Err()
}

// receivers take what the sinks send.
type receivers struct {
	kafka   *kfake.Cluster
	fluentd string         // its socket
	streams []net.Listener // Fluentd's and syslog's
	statsd  net.PacketConn
}

func openReceivers(dir string) (*receivers, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	rx := &receivers{fluentd: filepath.Join(abs, "fluentd.sock")}
	if err := os.Remove(rx.fluentd); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	if rx.kafka, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "dns")); err != nil {
		return nil, err
	}
	// Syslog goes over TCP: a datagram can't hold the longest records.
	for _, at := range [][2]string{{"unix", rx.fluentd}, {"tcp", "127.0.0.1:0"}} {
		l, err := net.Listen(at[0], at[1])
		if err != nil {
			return nil, err
		}
		rx.streams = append(rx.streams, l)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					_, _ = io.Copy(io.Discard, c) // until the other end closes it
				}()
			}
		}()
	}
	if rx.statsd, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	go func() {
		buf := make([]byte, 1<<16)
		for {
			if _, _, err := rx.statsd.ReadFrom(buf); err != nil {
				return
			}
		}
	}()
	return rx, nil
}

func (rx *receivers) close() {
	rx.kafka.Close()
	for _, l := range rx.streams {
		l.Close()
	}
	rx.statsd.Close()
}

// watched is gopassivedns at work.
type watched struct {
	cmd    *exec.Cmd
	exited chan error
	ended  atomic.Bool
	stop   chan struct{}
	wg     sync.WaitGroup

	mu      sync.Mutex
	said    bytes.Buffer
	records int
	bad     string
	good    map[string]int // records by question
	memory  []float64      // MB, one every ten seconds
}

// watch starts gopassivedns and reads what it writes.
func watch(o *options, rx *receivers) (*watched, error) {
	args := []string{
		"-env_file=", "-dev", inside, "-name", "soak", "-gc_age", "10s", "-gc_interval", "10s", "-status_interval", "10s",
		"-logfile", filepath.Join(o.dir, "records.log"), "-logMaxSize", "20", "-logMaxBackups", "1", "-metrics_addr", "127.0.0.1:9300",
		"-statsd_host", rx.statsd.LocalAddr().String(),
	}
	more := strings.NewReplacer("{kafka}", strings.Join(rx.kafka.ListenAddrs(), ","), "{fluentd}", rx.fluentd, "{syslog}", rx.streams[1].Addr().String()).Replace(o.args)
	w := &watched{exited: make(chan error, 1), stop: make(chan struct{}), good: map[string]int{}}
	w.cmd = exec.Command(o.bin, append(args, strings.Fields(more)...)...)
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	w.cmd.Stderr = w
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	w.wg.Add(1)
	go func() {
		defer w.wg.Done()
		w.read(out)
	}()
	go func() {
		w.wg.Wait()
		err := w.cmd.Wait()
		w.ended.Store(true)
		close(w.stop)
		w.exited <- err
	}()
	go w.sample()
	return w, nil
}

// Write takes the program's stderr.
func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.Write(p)
}

func (w *watched) read(out io.Reader) {
	r := bufio.NewReaderSize(out, 1<<20)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		w.mu.Lock()
		w.records++
		if !json.Valid(line) && w.bad == "" {
			w.bad = fmt.Sprintf("no JSON: %.300s", line)
		}
		if i := bytes.Index(line[:min(len(line), 400)], []byte(`"q":"good-`)); i > 0 {
			w.good[string(line[i+5:i+16])]++
			if !bytes.Contains(line, []byte(`"status":"answer"`)) && w.bad == "" {
				w.bad = fmt.Sprintf("a good lookup without answer: %s", line)
			}
		}
		w.mu.Unlock()
	}
}

// sample notes the program's memory, and has it say its account once a minute.
func (w *watched) sample() {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	begin := time.Now()
	for n := 1; ; n++ {
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
		if err != nil {
			return
		}
		rss := 0.0
		if m := rssLine.FindSubmatch(b); m != nil {
			kb, _ := strconv.Atoi(string(m[1]))
			rss = float64(kb) / 1024
		}
		w.mu.Lock()
		w.memory = append(w.memory, rss)
		records := w.records
		w.mu.Unlock()
		if n%6 == 0 {
			fmt.Fprintf(os.Stderr, "%v: %d records, %.0f MB\n", time.Since(begin).Round(time.Second), records, rss)
			_ = w.cmd.Process.Signal(syscall.SIGUSR1)
		}
	}
}

var rssLine = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB`)

// ready waits until the program captures: until its metrics answer.
func (w *watched) ready(ctx context.Context) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		c, err := net.Dial("tcp", "127.0.0.1:9300")
		if err == nil {
			return c.Close()
		}
		if w.ended.Load() || ctx.Err() != nil || time.Now().After(deadline) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return fmt.Errorf("gopassivedns does not start: %s", w.said.Bytes())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (w *watched) kill() {
	if !w.ended.Load() {
		_ = w.cmd.Process.Kill()
	}
}

// finish ends the program and judges it.
func (w *watched) finish(s *sender) (missed []string, err error) {
	early := w.ended.Load()
	if !early {
		_ = w.cmd.Process.Signal(syscall.SIGUSR1)
		time.Sleep(time.Second)
		if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return nil, err
		}
	}
	select {
	case err = <-w.exited:
	case <-time.After(time.Minute):
		return []string{"it does not end within a minute of SIGTERM"}, nil
	}
	miss := func(format string, args ...any) { missed = append(missed, fmt.Sprintf(format, args...)) }
	if early {
		miss("it ended before it was told to")
	}
	if err != nil {
		miss("%v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	said := w.said.String()
	if strings.Contains(said, "does not add up") {
		miss("the account does not add up")
	}
	reports := strings.Count(said, "equations of the account hold")
	if reports == 0 {
		miss("SIGUSR1 was not answered")
	}
	if w.bad != "" {
		miss("%s", w.bad)
	}
	found := 0
	for _, n := range w.good {
		found += n
	}
	dropped := strings.Contains(said, "kernel_dropped") || strings.Contains(said, "sink stdout: ")
	if found != s.goodLookups && !dropped {
		miss("%d good lookups found, want %d", found, s.goodLookups)
	}
	for _, m := range sinkLine.FindAllStringSubmatch(said, -1) {
		if m[1] != "0" {
			miss("%s", m[0])
		}
	}
	middle, last := mean(w.memory, 1), mean(w.memory, 2)
	if last > middle*1.1+16 {
		miss("memory grew from %.0f to %.0f MB", middle, last)
	}
	at := strings.LastIndex(said, "packets read, ")
	at = strings.LastIndex(said[:max(at, 0)], "\n") + 1
	fmt.Printf("%d rounds of %d floods, %d packets and %.0f MB sent (%d refused by the device), %d records read, %d of %d good lookups found,\n"+
		"memory %.0f MB in the second third of the time and %.0f MB in the last, at most %.0f MB, %d reports in which the account adds up\n%s",
		s.rounds, len(floodKinds), s.frames, float64(s.bytes)/1e6, s.refused, w.records, found, s.goodLookups, middle, last, peak(w.memory), reports, said[at:])
	return missed, nil
}

// sinkLine is what the summary says of a sink that has lost records or sent them again; the group is what has failed.
var sinkLine = regexp.MustCompile(`(?m)^sink \w+: \d+ written, \d+ dropped, (\d+) failed.*$`)

// mean returns the mean of the n-th third.
func mean(v []float64, n int) float64 {
	v = v[len(v)*n/3 : len(v)*(n+1)/3]
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(max(len(v), 1))
}

func peak(v []float64) (most float64) {
	for _, x := range v {
		most = max(most, x)
	}
	return most
}
