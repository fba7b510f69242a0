package main

// stats_prometheus.go serves the account over HTTP: /metrics to Prometheus, /healthz to whatever restarts or alerts.
//
// In: a snapshot of the account for each request.
// Out: the table of counters in Prometheus' text format, with the Go runtime's and the process's own metrics.
//
// Rules: one collector reads the account once a scrape and makes the metrics of it, so there is nothing that packets
// or workers would have to update. Labels hold words of this program, and the names of its sinks; never anything from the
// traffic. The server has time-outs and a bound on requests at once, and ends with the program.

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	metricPrefix   = "gopassivedns_"
	scrapesAtOnce  = 4
	metricsTimeout = 10 * time.Second
)

// accountCollector makes metrics of an account. Safe for several goroutines; see newAccountCollector.
type accountCollector struct {
	acct    *account
	table   []*prometheus.Desc // by index of counterTable; nil for a sum that Prometheus can make itself
	latency *prometheus.Desc
	sinkRes *prometheus.Desc
	sinkAny [len(sinkMetrics)]*prometheus.Desc
	build   *prometheus.Desc
}

// sinkMetrics are the metrics of a sink beside sink_records_total.
var sinkMetrics = [...]struct {
	name, help string
	kind       prometheus.ValueType
	get        func(s *sinkStats) uint64
}{
	{"sink_submitted_records_total", "Records given to a sink.", prometheus.CounterValue, func(s *sinkStats) uint64 { return s.submitted }},
	{"sink_resent_records_total", "Records that a sink sent more than once.", prometheus.CounterValue, func(s *sinkStats) uint64 { return s.resent }},
	{"sink_errors_total", "Failed attempts of a sink to connect, write, reopen or close.", prometheus.CounterValue, func(s *sinkStats) uint64 { return s.errors }},
	{"sink_queued_records", "Records that wait for a sink.", prometheus.GaugeValue, func(s *sinkStats) uint64 { return s.queuedRecords }},
	{"sink_queued_bytes", "Bytes of records that wait for a sink.", prometheus.GaugeValue, func(s *sinkStats) uint64 { return s.queuedBytes }},
	{"sink_failing", "1 while a sink's last attempt failed.", prometheus.GaugeValue, func(s *sinkStats) uint64 {
		if s.failing {
			return 1
		}
		return 0
	}},
}

// latencyBound returns the upper end of a latency bucket in seconds.
func latencyBound(bucket int) float64 { return float64(uint64(1)<<bucket) / 1e6 }

func newAccountCollector(a *account) *accountCollector {
	c := &accountCollector{acct: a, table: make([]*prometheus.Desc, len(counterTable))}
	for i := range counterTable {
		r := &counterTable[i]
		if r.prom == "" {
			continue
		}
		var labels prometheus.Labels
		if r.label != "" {
			labels = prometheus.Labels{r.label: r.value}
		}
		c.table[i] = prometheus.NewDesc(metricPrefix+r.prom, r.help, nil, labels)
	}
	c.latency = prometheus.NewDesc(metricPrefix+"lookup_duration_seconds", "Time from a lookup's first query to its response, by capture time.", nil, nil)
	c.sinkRes = prometheus.NewDesc(metricPrefix+"sink_records_total", "Records given to a sink that are done with, by what became of them.", []string{"sink", "result"}, nil)
	for i, m := range sinkMetrics {
		c.sinkAny[i] = prometheus.NewDesc(metricPrefix+m.name, m.help, []string{"sink"}, nil)
	}
	c.build = prometheus.NewDesc(metricPrefix+"build_info", "1, labelled with the version of the program and of Go.", nil,
		prometheus.Labels{"version": version, "goversion": runtime.Version()})
	return c
}

func (c *accountCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.table {
		if d != nil {
			ch <- d
		}
	}
	for _, d := range c.sinkAny {
		ch <- d
	}
	ch <- c.latency
	ch <- c.sinkRes
	ch <- c.build
}

func (c *accountCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.acct.snapshot()
	for i, d := range c.table {
		if d == nil {
			continue
		}
		kind := prometheus.CounterValue
		if counterTable[i].gauge {
			kind = prometheus.GaugeValue
		}
		ch <- prometheus.MustNewConstMetric(d, kind, float64(counterTable[i].get(s)))
	}
	buckets := make(map[float64]uint64, latencyBuckets)
	seen := uint64(0)
	for i, n := range s.work.latency {
		seen += n
		if i < latencyBuckets-1 {
			buckets[latencyBound(i)] = seen
		}
	}
	ch <- prometheus.MustNewConstHistogram(c.latency, seen, float64(s.work.latencySum)/1e9, buckets)
	for i := range s.sinks {
		q := &s.sinks[i]
		for _, r := range [...]struct {
			result string
			n      uint64
		}{{"written", q.written}, {"dropped", q.dropped}, {"failed", q.failed}} {
			ch <- prometheus.MustNewConstMetric(c.sinkRes, prometheus.CounterValue, float64(r.n), q.name, r.result)
		}
		for k, m := range sinkMetrics {
			ch <- prometheus.MustNewConstMetric(c.sinkAny[k], m.kind, float64(m.get(q)), q.name)
		}
	}
	ch <- prometheus.MustNewConstMetric(c.build, prometheus.GaugeValue, 1)
}

// listenMetrics opens the address of /metrics, so that one that is taken is known at start.
func listenMetrics(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		var oe *net.OpError
		if errors.As(err, &oe) {
			err = oe.Err
		}
		return nil, fmt.Errorf("listen on -metrics_addr %q: %w", addr, err)
	}
	return l, nil
}

// metricsServer serves an account. Made by serveMetrics, ended by close.
type metricsServer struct {
	server *http.Server
	done   chan struct{}
}

// metricsHandler answers /metrics and /healthz about a. silence is how long the account may stay as it is before the program
// counts as unhealthy, 0 for as long as it likes.
func metricsHandler(a *account, silence time.Duration) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newAccountCollector(a), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapesAtOnce}))
	start := time.Now()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := a.health(start, time.Now(), silence); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, err)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// serveMetrics serves a on l in a goroutine of its own. silence is as for metricsHandler.
func serveMetrics(l net.Listener, a *account, silence time.Duration) *metricsServer {
	m := &metricsServer{done: make(chan struct{}), server: &http.Server{
		Handler: metricsHandler(a, silence), ErrorLog: stdlog.New(io.Discard, "", 0), // it would only tell of clients that go away
		ReadTimeout: metricsTimeout, WriteTimeout: 2 * metricsTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}}
	go func() {
		defer close(m.done)
		_ = m.server.Serve(l) // ErrServerClosed, or the listener's end
	}()
	return m
}

// close lets requests under way end, for a second, and waits for the server's goroutine.
func (m *metricsServer) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if m.server.Shutdown(ctx) != nil {
		m.server.Close()
	}
	<-m.done
}

// health returns why the program does not do its work at now, having been started at start; nil where it does: no sink
// has ended, the input has not ended, and, with silence > 0, a chunk came through within that time. A live capture sends
// one through at least every second, even when there are no packets.
func (a *account) health(start, now time.Time, silence time.Duration) error {
	a.mu.Lock()
	ended, at := a.ended, a.at
	a.mu.Unlock()
	for _, q := range a.queues {
		select {
		case <-q.done():
			return fmt.Errorf("sink %s has ended: %v", q.stats().name, q.err())
		default:
		}
	}
	if ended {
		return errors.New("the input has ended")
	}
	if at.Before(start) {
		at = start
	}
	if quiet := now.Sub(at); silence > 0 && quiet > silence {
		return fmt.Errorf("nothing was captured or written for %v", quiet.Round(time.Second))
	}
	return nil
}
