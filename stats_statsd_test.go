package main

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// statsdStandIn is a UDP socket in the place of a statsd daemon: what was sent to it can be read line by line. The real
// daemon is in stats_integration_test.go.
func statsdStandIn(t *testing.T) (*net.UDPConn, string) {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadBuffer(1 << 20); err != nil {
		t.Fatal(err)
	}
	return c, c.LocalAddr().String()
}

// receive reads metrics up to the one whose name ends in last, which must come.
func receive(t *testing.T, c *net.UDPConn, last string) []string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var lines []string
	b := make([]byte, 2048)
	for {
		n, err := c.Read(b)
		if err != nil {
			t.Fatalf("after %d metrics, %q has not come: %v", len(lines), last, err)
		}
		if n > 400 {
			t.Errorf("a datagram of %d bytes: %q", n, b[:n])
		}
		lines = append(lines, string(b[:n]))
		if name, _, _ := strings.Cut(string(b[:n]), ":"); strings.HasSuffix(name, last) {
			return lines
		}
	}
}

// statsdSums adds up what a statsd daemon would know after lines: counters as their sum, gauges as their last value, timers
// in ms.
func statsdSums(t *testing.T, prefix string, lines []string) (counters, gauges map[string]uint64, timers map[string]float64) {
	t.Helper()
	counters, gauges, timers = make(map[string]uint64), make(map[string]uint64), make(map[string]float64)
	for _, line := range lines {
		name, rest, _ := strings.Cut(line, ":")
		value, kind, ok := strings.Cut(rest, "|")
		name, ok2 := strings.CutPrefix(name, prefix)
		n, err := strconv.ParseFloat(value, 64)
		if !ok || !ok2 || err != nil || n < 0 {
			t.Fatalf("not a metric of %q: %q", prefix, line)
		}
		switch kind {
		case "c":
			counters[name] += uint64(n)
		case "g":
			gauges[name] = uint64(n)
		case "ms":
			timers[name] = n
		default:
			t.Fatalf("not a metric: %q", line)
		}
	}
	return counters, gauges, timers
}

func TestStatsdReport(t *testing.T) {
	c, addr := statsdStandIn(t)
	r, err := dialStatsd(addr, "p", "a.b:c%d")
	if err != nil {
		t.Fatal(err)
	}
	defer r.client.Close()
	s := new(snapshot)
	s.capture.frames, s.work.matched, s.work.latency[8], s.work.latencySum, s.work.pending = 5, 4, 4, 4*200_000, 3
	s.sinks = []sinkStats{{name: "stdout", submitted: 9, written: 8, queuedRecords: 1}}
	r.report(s)
	counters, gauges, timers := statsdSums(t, "p.a_b_c_d.", receive(t, c, "lookup_latency_p99"))
	if want := map[string]uint64{"packets": 5, "matched_lookups": 4, "sink_stdout_submitted": 9, "sink_stdout_written": 8}; fmt.Sprint(counters) != fmt.Sprint(want) {
		t.Errorf("counters: got %v, want %v", counters, want)
	}
	if gauges["pending_lookups"] != 3 || gauges["sink_stdout_queued_records"] != 1 || gauges["memory_bytes"] < 1<<20 {
		t.Errorf("gauges: got %v", gauges)
	}
	if want := map[string]float64{"lookup_latency_mean": 0.2, "lookup_latency_p50": 0.192, "lookup_latency_p95": 0.2496, "lookup_latency_p99": 0.25472}; fmt.Sprint(timers) != fmt.Sprint(want) {
		t.Errorf("timers: got %v, want %v", timers, want)
	}

	// The next report has deltas only, and no latencies where no lookup was matched.
	s.capture.frames, s.work.pending = 7, 0
	r.report(s)
	counters, gauges, timers = statsdSums(t, "p.a_b_c_d.", receive(t, c, "memory_bytes"))
	if want := map[string]uint64{"packets": 2}; fmt.Sprint(counters) != fmt.Sprint(want) || len(timers) != 0 || gauges["pending_lookups"] != 0 {
		t.Errorf("second report: got %v, want %v; timers %v", counters, want, timers)
	}
}

func TestLatencyQuantile(t *testing.T) {
	for _, test := range []struct {
		name  string
		count map[int]uint64
		q     float64
		want  time.Duration
	}{
		{"nothing", nil, 0.5, 0},
		{"first bucket", map[int]uint64{0: 10}, 0.5, 500},
		{"one bucket", map[int]uint64{11: 100}, 0.5, 1536 * time.Microsecond},
		{"second of two", map[int]uint64{1: 50, 21: 50}, 0.99, 2076180480},
		{"end of the first", map[int]uint64{1: 50, 21: 50}, 0.5, 2000},
		{"last bucket", map[int]uint64{latencyBuckets - 1: 1}, 0.99, 1 << (latencyBuckets - 2) * time.Microsecond},
	} {
		var l latencies
		for i, n := range test.count {
			l.buckets[i] = n
		}
		if got := l.quantile(test.q); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

func TestStatsdName(t *testing.T) {
	for name, want := range map[string]string{"": "_", "ns1": "ns1", "ns1.example.com": "ns1_example_com", "a:b|c@d%HOST%/é#": "a_b_c_d_HOST____", "x-y_Z": "x-y_Z"} {
		if got := statsdName(name); got != want {
			t.Errorf("statsdName(%q): got %q, want %q", name, got, want)
		}
	}
}

// TestStatsdAway has no daemon: reports end at once, and nothing is said.
func TestStatsdAway(t *testing.T) {
	c, addr := statsdStandIn(t)
	c.Close()
	r, err := dialStatsd(addr, "", "s")
	if err != nil {
		t.Fatal(err)
	}
	s := new(snapshot)
	for i := range uint64(100) {
		s.capture.frames = i
		r.report(s)
	}
	r.client.Close()
	if _, err := dialStatsd("host.invalid.:1", "", "s"); err == nil || !strings.HasPrefix(err.Error(), `open -statsd_host "host.invalid.:1": lookup `) {
		t.Errorf("a host without address: %v", err)
	}
}

// TestMonitorsAgree runs a capture, reads the account by all ways at the end of it, and wants the same numbers everywhere.
func TestMonitorsAgree(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	daemon, addr := statsdStandIn(t)
	cfg := testConfig(t, "-pcap", queriesCapture(t, 3000, true), "-statsd_host", addr, "-statsd_interval=86400", "-metrics_addr=1", "-status_interval=1h")
	cfg.metricsAddr = "127.0.0.1:0"
	mon, err := openMonitors(cfg)
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + mon.listener.Addr().String()
	out := new(discardSink)
	log := &userLog{stderr: io.Discard}
	queues := []*sinkQueue{newSinkQueue(out, sinkOptions{queueBytes: blockQueueMB << 20, block: true, log: log})}
	p := newPipeline(cfg, queues, false, make(chan struct{}))
	auditAccount(t, p)
	mon.watch(p.acct, log.block, 0)
	if code, text := get(t, url+"/healthz"); code != 200 || text != "ok\n" {
		t.Errorf("/healthz at start: %d %q", code, text)
	}
	if err := readCaptures(p.feeder, []string{cfg.pcap}, nil, log); err != nil {
		t.Fatal(err)
	}
	p.finish()
	if err := queues[0].drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	code, text := get(t, url+"/metrics")
	if code != 200 {
		t.Fatalf("/metrics: %d %s", code, text)
	}
	scraped := samples(t, text)
	if code, text := get(t, url+"/healthz"); code != 503 || text != "the input has ended\n" {
		t.Errorf("/healthz at the end: %d %q", code, text)
	}
	mon.close()

	s := p.acct.snapshot()
	checkAccount(t, s)
	counters, gauges, timers := statsdSums(t, "gopassivedns.test.", receive(t, daemon, "lookup_latency_p99"))
	status, _ := statusRecords(t, out.lines.String())
	if len(status) != 1 {
		t.Fatalf("got %d status records, want 1", len(status))
	}
	for _, c := range counterTable {
		want := c.get(s)
		if got := counters[c.name] + gauges[c.name]; got != want {
			t.Errorf("statsd: %s: got %d, want %d", c.name, got, want)
		}
		inRecord := status[0].Totals[c.name] + status[0].Gauges[c.name]
		if c.name == "status_records" {
			inRecord++ // it does not count itself
		}
		if inRecord != want && !c.chance {
			t.Errorf("status record: %s: got %d, want %d", c.name, inRecord, want)
		}
		if c.prom == "" {
			continue
		}
		name := metricPrefix + c.prom
		if c.label != "" {
			name += fmt.Sprintf("{%s=%q}", c.label, c.value)
		}
		if got, ok := scraped[name]; !ok || got != float64(want) {
			t.Errorf("Prometheus: %s: got %v, want %d", name, got, want)
		}
	}
	lines := uint64(strings.Count(out.lines.String(), "\n"))
	if counters["sink_discard_written"] != lines || scraped[`gopassivedns_sink_records_total{result="written",sink="discard"}`] != float64(lines) {
		t.Errorf("records written: statsd %d, Prometheus %v, want %d", counters["sink_discard_written"], scraped[`gopassivedns_sink_records_total{result="written",sink="discard"}`], lines)
	}
	if got := scraped["gopassivedns_lookup_duration_seconds_count"]; got != 3000 {
		t.Errorf("latencies: got %v, want 3000", got)
	}
	// Every response comes after 100 µs, which lies in the bucket from 64 to 128 µs.
	if got := scraped["gopassivedns_lookup_duration_seconds_sum"]; got < 0.2999 || got > 0.3001 {
		t.Errorf("sum of latencies: got %v s, want 0.3", got)
	}
	if timers["lookup_latency_mean"] != 0.1 || timers["lookup_latency_p50"] != 0.096 {
		t.Errorf("timers: got %v", timers)
	}
	var b strings.Builder
	s.summary(&b)
	if want := "6000 packets read, 6000 DNS messages (6000 UDP, 0 TCP), 3000 lookups, 3000 records"; !slices.Contains(strings.Split(b.String(), "\n"), want) {
		t.Errorf("summary: got %q, want the line %q", b.String(), want)
	}
}
